//! What bounds a call: silence, duration, the pod's own departure; and the keys, which are bounded by a pause.

use super::{Call, record};
use crate::io::{Command, EndReason, Event, Ignored, Next};
use crate::journal::Fact;
use crate::state::{Patience, Phase, Stay};
use crate::timer::Timer;
use crate::{Ms, Redacted};

/// A model that has not begun to answer after this is not waited for any more.
pub(super) const REPLY_BEGINS: Ms = Ms::from_secs(10);

/// Keys pressed within this belong together.
const BETWEEN_DIGITS: Ms = Ms(1500);

/// Keys that belong together at most; more than any card or order number has.
const MAX_DIGITS: usize = 32;

/// How long before its end the call says so; at most a quarter of a short call.
const ANNOUNCE_BEFORE: Ms = Ms::from_secs(20);

/// The announcement does not talk over the caller; this is how often it looks for a pause.
const ANNOUNCE_AGAIN: Ms = Ms::from_secs(1);

/// Audio whose mark is late by this much is taken as played; a phone leg's jitter stays far below.
const MARK_GRACE: Ms = Ms::from_secs(3);

/// Keys the caller pressed and the model does not know of yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Digits(String);

impl Digits {
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Call {
    /// The clocks that run from the beginning.
    pub(super) fn start_clocks(&mut self) {
        let max = self.plan.max_call;
        self.timers.set(Timer::MaxDuration, max);
        let announce = max - ANNOUNCE_BEFORE.min(Ms(max.0 / 4));
        if announce > self.now {
            self.timers.set(Timer::Announce, announce);
        }
    }

    /// Starts and stops the clocks that depend on what is going on.
    pub(super) fn settle_clocks(&mut self) {
        if self.playback.is_silent() {
            self.timers.stop(Timer::PlayOut);
        } else {
            self.timers.set(Timer::PlayOut, self.playback.plays_until() + MARK_GRACE);
        }
        if self.is_pause() && self.plan.silence > Ms::ZERO {
            self.timers.start(Timer::Silence, self.now + self.plan.silence);
        } else {
            self.timers.stop(Timer::Silence);
        }
        self.settle_ear();
        self.settle_dead_air();
        match self.next_tool_deadline() {
            Some(deadline) => self.timers.set(Timer::Tool, deadline),
            None => self.timers.stop(Timer::Tool),
        }
        match self.next_filler() {
            Some(at) => self.timers.set(Timer::Filler, at),
            None => self.timers.stop(Timer::Filler),
        }
    }

    /// Nobody has spoken for too long: ask once, then end.
    pub(super) fn lose_patience(&mut self) {
        match self.patience.exhaust() {
            Patience::Fresh => self.say(Redacted::new(self.plan.phrases.are_you_there.clone())),
            Patience::Asked => self.end(EndReason::SilenceTimeout, Next::HangUp),
        }
    }

    /// The call's time is nearly over.
    pub(super) fn announce_end(&mut self) {
        if self.is_caller_speaking() {
            self.timers.set(Timer::Announce, self.now + ANNOUNCE_AGAIN);
        } else if self.phase == Phase::Open && self.link.is_ready() {
            self.say(Redacted::new(self.plan.phrases.time_is_nearly_over.clone()));
        }
    }

    pub(super) fn handle_drain(&mut self, deadline: Ms) -> Result<(), Ignored> {
        self.stay = Stay::Leaving;
        self.timers.set(Timer::HandOver, deadline);
        Ok(())
    }

    /// Another leg goes on; a call that was about to end, ends.
    pub(super) fn hand_over(&mut self) {
        self.end_parting();
        self.end(EndReason::HandedOver, Next::Reconnect);
    }

    pub(super) fn handle_command(&mut self, command: &Command) -> Result<(), Ignored> {
        match command {
            Command::HangUp => self.end(EndReason::OperatorHungUp, Next::HangUp),
        }
        Ok(())
    }

    pub(super) fn handle_digit(&mut self, digit: Redacted<char>) -> Result<(), Ignored> {
        let key = *digit.expose();
        if !matches!(key, '0'..='9' | '*' | '#' | 'A'..='D') {
            return Err(Ignored::Unexpected { input: "digit", state: "no key of a phone" });
        }
        self.patience.renew();
        self.event(Event::Digit);
        self.write(Fact::Digit { digit });
        self.digits.0.push(key);
        if key == '#' || self.digits.0.len() >= MAX_DIGITS {
            self.flush_digits();
        } else {
            self.timers.set(Timer::Digits, self.now + BETWEEN_DIGITS);
        }
        Ok(())
    }

    /// No more keys: the model learns of them in one piece, and answers.
    pub(super) fn flush_digits(&mut self) {
        self.timers.stop(Timer::Digits);
        if self.digits.is_empty() {
            return;
        }
        let digits = std::mem::take(&mut self.digits.0);
        self.tell(record::pressed(&digits));
        self.owe_reply();
    }
}
