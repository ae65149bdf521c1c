//! What the model is given to hear where the phone sent nothing.
//!
//! The model's detector of speech measures time in audio: a gap in the caller's stream would pull words together, and a
//! stream that stops in mid-speech would never let the turn end. Gaps are therefore filled with silence (protocol sheet
//! 5.11), never with more of it than the clock allows: a peer cannot make us invent audio.

use super::Call;
use crate::Ms;
use crate::audio::{BYTES_PER_MS, Payload};
use crate::timer::Timer;

/// Shorter gaps are the phone's rounding: half a frame.
const SHORTEST_GAP: Ms = Ms(10);

/// Longer gaps are filled up to here; what was before them is no context for what comes after.
const LONGEST_GAP: Ms = Ms::from_secs(10);

/// How far the phone's clock may run ahead of ours.
const AHEAD: Ms = Ms::from_secs(1);

/// A phone that sends nothing for so long while its caller speaks has stalled.
const STALLED: Ms = Ms(750);

/// Silence given to the model at a time.
const STRETCH: Ms = Ms::from_secs(1);

/// The caller's stream as the model hears it.
#[derive(Clone, Debug, Default)]
pub(super) struct Ear(Option<Heard>);

#[derive(Clone, Debug)]
struct Heard {
    /// When the first frame came.
    since: Ms,
    /// μ-law bytes given to the model since then, silence of ours among them.
    given: u64,
    /// The timestamp of the next frame if nothing is missing.
    next: Ms,
    /// When something was given last.
    last: Ms,
    /// Silence given since the last frame.
    filled: Ms,
}

impl Ear {
    /// Takes note of a frame; how much is missing before it.
    fn hear(&mut self, now: Ms, timestamp: Ms, audio: &Payload) -> Ms {
        let new = Heard { since: now, given: 0, next: timestamp, last: now, filled: Ms::ZERO };
        let heard = self.0.get_or_insert(new);
        let gap = timestamp.since(heard.next);
        let gap = if gap < SHORTEST_GAP { Ms::ZERO } else { gap.min(LONGEST_GAP).min(heard.room(now)) };
        heard.given += gap.0 * BYTES_PER_MS + audio.mulaw_len();
        heard.next = timestamp + audio.duration();
        heard.last = now;
        heard.filled = Ms::ZERO;
        gap
    }

    /// When the model must be given silence, if the caller is speaking all the while.
    fn stalls_at(&self) -> Option<Ms> {
        let heard = self.0.as_ref().filter(|heard| heard.filled < LONGEST_GAP)?;
        Some(heard.last + if heard.filled == Ms::ZERO { STALLED } else { STRETCH })
    }

    /// Takes note of a stretch of silence that stands for frames that did not come.
    fn fill(&mut self, now: Ms) {
        if let Some(heard) = &mut self.0 {
            heard.given += STRETCH.0 * BYTES_PER_MS;
            heard.next = heard.next + STRETCH;
            heard.last = now;
            heard.filled = heard.filled + STRETCH;
        }
    }
}

impl Heard {
    /// How much more than it was given the model can have missed by now.
    fn room(&self, now: Ms) -> Ms {
        (now.since(self.since) + AHEAD).since(Ms(self.given / BYTES_PER_MS))
    }
}

impl Call {
    /// The caller's audio. It goes to the model also while the agent must not be interrupted: nothing the caller says
    /// is lost, it is answered afterwards.
    pub(super) fn hear(&mut self, timestamp: Ms, audio: Payload) {
        let mut missing = self.ear.hear(self.now, timestamp, &audio);
        while missing > Ms::ZERO {
            let stretch = missing.min(STRETCH);
            self.give(Payload::silence(stretch));
            missing = missing - stretch;
        }
        self.give(audio);
    }

    /// The phone has stalled while its caller speaks: silence lets the model find the end of the turn.
    pub(super) fn fill_silence(&mut self) {
        self.ear.fill(self.now);
        self.give(Payload::silence(STRETCH));
    }

    /// Watches for a stall while the caller speaks to a model that listens.
    pub(super) fn settle_ear(&mut self) {
        let is_watched = self.is_caller_speaking() && self.link.is_ready();
        match self.ear.stalls_at().filter(|_| is_watched) {
            Some(at) => self.timers.set(Timer::Stall, at),
            None => self.timers.stop(Timer::Stall),
        }
    }
}
