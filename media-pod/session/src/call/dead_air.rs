//! A model that is there and says nothing, while the caller waits for it.
//!
//! A connection that is lost is known to be, a model that stops in the middle of a reply, or never begins it, is not: to the
//! caller both are silence. They hear a clip after [`COMPANY`], and a reply that makes no sound and gives no sign of
//! life for [`MUTE`] is taken as a lost connection. A tool that runs is excused by words of its own (`toolbox`).

use super::Call;
use super::model::SILENCE_COUNTS;
use crate::io::{Ignored, ModelLoss};
use crate::timer::Timer;
use crate::{Ms, ReplyId};

/// Silence in which the caller waits for the agent, before each clip: a model that thinks is quicker as a rule, and a
/// caller who has heard nothing for longer asks whether anybody is there.
const COMPANY: Ms = Ms::from_secs(5);

/// Silence of a reply that is taken as its end: time for one clip and for the next.
const MUTE: Ms = Ms::from_secs(10);

impl Call {
    /// Starts and stops the clocks of a silence that is the agent's.
    pub(super) fn settle_dead_air(&mut self) {
        let is_quiet = self.link.is_ready() && self.playback.is_silent() && !self.is_caller_speaking();
        let is_mute = is_quiet && self.replies.is_any_active();
        for (timer, is_running, span) in [
            (Timer::DeadAir, is_mute || (is_quiet && self.is_answer_awaited()), COMPANY),
            (Timer::MuteReply, is_mute, MUTE),
        ] {
            if is_running {
                self.timers.start(timer, self.now + span);
            } else {
                self.timers.stop(timer);
            }
        }
    }

    /// A reply goes on without a sound: it is waited for, in company.
    pub(super) fn handle_working(&mut self, reply: &ReplyId) -> Result<(), Ignored> {
        if !self.replies.is_active(reply) {
            return Err(Ignored::Stale { input: "working" });
        }
        self.timers.stop(Timer::MuteReply); // started again from now
        Ok(())
    }

    /// Nothing more comes of the reply. A model that does so twice in a row is not trusted a third time: the next engine
    /// goes on.
    pub(super) fn give_up_mute_reply(&mut self) {
        self.mute_replies += 1;
        // The timer runs only while a model is ready, where a loss is always taken.
        let _ = self.lose_model(ModelLoss::Protocol, self.mute_replies.saturating_mul(SILENCE_COUNTS));
    }
}
