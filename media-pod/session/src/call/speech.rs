//! Who speaks: the caller's turns and interruptions.

use super::{Call, Debt};
use crate::Ms;
use crate::agent_file::{GreetingInterruption, InterruptionMode};
use crate::audio::BYTES_PER_MS;
use crate::io::{Event, Ignored, ModelCommand, Output, PhoneCommand};
use crate::state::{Claim, Floor, Opening};
use crate::timer::Timer;

/// Speech without an end: after this its end is taken as lost, so that the agent is not silent for ever.
const ENDLESS_SPEECH: Ms = Ms::from_secs(120);

impl Call {
    /// The caller begins to speak, or something sounds like it.
    pub(super) fn handle_speech_started(&mut self) -> Result<(), Ignored> {
        let is_confirmation_needed =
            self.plan.interruption.mode == InterruptionMode::Confirmed && self.is_agent_busy();
        let claim = if is_confirmation_needed { Claim::Unconfirmed } else { Claim::Turn };
        self.floor.take(claim)?;
        self.timers.set(Timer::EndlessSpeech, self.now + ENDLESS_SPEECH);
        match claim {
            Claim::Unconfirmed => {
                let minimum = Ms(u64::from(self.plan.interruption.min_speech_milliseconds));
                self.timers.set(Timer::ConfirmSpeech, self.now + minimum);
            }
            Claim::Turn => self.begin_turn(),
        }
        Ok(())
    }

    /// The speech over the agent's words lasted: it was meant.
    pub(super) fn confirm_speech(&mut self) {
        if self.floor.confirm() {
            self.begin_turn();
        }
    }

    fn begin_turn(&mut self) {
        self.patience.renew();
        self.timers.stop(Timer::Reply);
        if (self.is_agent_busy() || self.playback.may_sound()) && self.may_interrupt() {
            self.interrupt();
        }
    }

    /// The caller stops speaking.
    pub(super) fn handle_speech_stopped(&mut self) -> Result<(), Ignored> {
        let claim = self.floor.release(self.now)?;
        self.timers.stop(Timer::ConfirmSpeech);
        self.timers.stop(Timer::EndlessSpeech);
        match claim {
            // Noise: as if nothing had been.
            Claim::Unconfirmed => {}
            Claim::Turn => {
                self.turn_ended = Some(self.now);
                self.timers.set(Timer::Reply, self.now + super::limits::REPLY_BEGINS);
                // Where the engine answers by itself, its answer covers what was owed before.
                self.debt = if self.plan.server_replies() { Debt::None } else { Debt::Reply };
            }
        }
        Ok(())
    }

    fn may_interrupt(&self) -> bool {
        match self.plan.interruption.mode {
            InterruptionMode::Never => false,
            InterruptionMode::Immediate | InterruptionMode::Confirmed => !self.must_greeting_be_heard(),
        }
    }

    fn must_greeting_be_heard(&self) -> bool {
        self.opening.is_going_on()
            && self.plan.greeting.as_ref().is_some_and(|g| g.interruption == GreetingInterruption::Disallowed)
    }

    /// Barge-in, the one hard transition.
    ///
    /// *Flow:* 1. the phone is cleared; 2. the model is told what was heard of each item; 3. everything of the turn is
    /// put behind the fence; 4. the words heard go on record; 5. an end of the call that waited for its words to be
    /// heard is called off.
    ///
    /// *Guarantees:* no audio of this or an older turn goes out afterwards; the model is never told more than the
    /// carrier confirmed as played.
    fn interrupt(&mut self) {
        let cut = self.playback.cut();
        if cut.was_audible {
            self.push(Output::Phone(PhoneCommand::Clear));
        }
        let heard = cut.items.iter().filter_map(|playing| playing.heard()).collect();
        self.command(ModelCommand::Interrupt { heard });
        if let Some(current) = cut.items.iter().find(|playing| playing.played < playing.sent) {
            let (heard, sent) = (Ms(current.played / BYTES_PER_MS), Ms(current.sent / BYTES_PER_MS));
            self.event(Event::BargeIn { heard, sent });
        }
        self.replies.fence();
        for playing in cut.items {
            self.replies.fence_item(playing.item.clone());
            self.conclude(playing);
        }
        self.finish_opening();
        self.call_off_parting();
    }

    /// A reply that begins while the caller is speaking (a tool's result, a prompt of ours) would talk over them. The
    /// greeting may: callers often say hello before they are greeted.
    pub(super) fn yield_to_caller(&mut self) {
        let is_greeting = matches!(self.opening, Opening::Saying { .. });
        if self.floor == Floor::Caller(Claim::Turn) && self.may_interrupt() && !is_greeting {
            self.interrupt();
            if !self.plan.server_replies() {
                self.owe_reply();
            }
        }
    }

    /// The model was asked to speak, or owes the caller an answer, and has made no sound yet.
    pub(super) const fn is_answer_awaited(&self) -> bool {
        matches!(self.floor, Floor::Awaiting { .. })
    }

    pub(super) const fn is_caller_speaking(&self) -> bool {
        matches!(self.floor, Floor::Caller(_))
    }

    /// The model did not begin to answer: it is not waited for any more, the clock of silence runs.
    pub(super) fn give_up_reply(&mut self) {
        if self.is_answer_awaited() {
            self.floor.open();
        }
        self.finish_opening_unless_begun();
    }
}
