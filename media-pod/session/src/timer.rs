//! The call's deadlines as a table: one slot per reason, sized by the enum.
//!
//! A timer that is not set is `None`; setting one replaces it; a tick before its time does nothing. Which of two
//! timers due at the same time fires first is the order of [`Timer::ALL`], so that a call can be replayed exactly.

use crate::Ms;

/// Why the machine wants to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    /// The call's last moment.
    MaxDuration,
    /// The pod must have handed the call over.
    HandOver,
    /// The last words took too long to play; end without them.
    Farewell,
    /// Audio should have been played by now, whatever the marks say.
    PlayOut,
    /// The engine neither connected nor failed.
    Connect,
    /// The next attempt to connect.
    Backoff,
    /// The successor of an expiring connection neither connected nor failed, or is to be tried again.
    Successor,
    /// Speech has lasted long enough to be an interruption.
    ConfirmSpeech,
    /// Speech has lasted too long to believe that its end was not lost.
    EndlessSpeech,
    /// The phone sent nothing for too long while its caller speaks.
    Stall,
    /// A reply that was asked for did not begin.
    Reply,
    /// A reply failed before it was heard; ask for it again.
    AskAgain,
    /// A reply has been without a sound for too long.
    MuteReply,
    /// The caller waits for the agent and has heard nothing for too long.
    DeadAir,
    /// A tool did not end in time.
    Tool,
    /// A tool takes long.
    Filler,
    /// No further key was pressed.
    Digits,
    /// Nobody spoke.
    Silence,
    /// The call will end soon; say so.
    Announce,
}

impl Timer {
    /// All of them, in the order in which they fire at the same time.
    const ALL: [Self; 19] = [
        Self::MaxDuration,
        Self::HandOver,
        Self::Farewell,
        Self::PlayOut,
        Self::Connect,
        Self::Backoff,
        Self::Successor,
        Self::ConfirmSpeech,
        Self::EndlessSpeech,
        Self::Stall,
        Self::Reply,
        Self::AskAgain,
        Self::MuteReply,
        Self::DeadAir,
        Self::Tool,
        Self::Filler,
        Self::Digits,
        Self::Silence,
        Self::Announce,
    ];
}

/// When each timer fires.
#[derive(Clone, Debug, Default)]
pub(crate) struct TimerTable([Option<Ms>; Timer::ALL.len()]);

impl TimerTable {
    /// Sets or replaces a timer.
    pub(crate) const fn set(&mut self, timer: Timer, at: Ms) {
        self.0[timer as usize] = Some(at);
    }

    /// Sets a timer unless it runs already.
    pub(crate) const fn start(&mut self, timer: Timer, at: Ms) {
        if self.0[timer as usize].is_none() {
            self.set(timer, at);
        }
    }

    /// Stops a timer; one that does not run stays as it is.
    pub(crate) const fn stop(&mut self, timer: Timer) {
        self.0[timer as usize] = None;
    }

    /// The earliest time at which something is due.
    pub(crate) fn next(&self) -> Option<Ms> {
        self.0.iter().flatten().min().copied()
    }

    /// Stops and returns the timer that is most overdue at `now`, if any is.
    pub(crate) fn pop_due(&mut self, now: Ms) -> Option<Timer> {
        let due = |timer: &Timer| self.0[*timer as usize].filter(|at| *at <= now);
        let timer = Timer::ALL.into_iter().filter(|t| due(t).is_some()).min_by_key(due)?;
        self.stop(timer);
        Some(timer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_timer_has_its_own_slot() {
        for (slot, timer) in Timer::ALL.into_iter().enumerate() {
            assert_eq!(timer as usize, slot);
        }
    }

    #[test]
    fn timers_fire_by_time_then_by_table_order_and_once() {
        let mut timers = TimerTable::default();
        timers.set(Timer::Announce, Ms(5));
        timers.set(Timer::Silence, Ms(7));
        timers.set(Timer::Connect, Ms(7));
        timers.start(Timer::Connect, Ms(1));
        assert_eq!(timers.next(), Some(Ms(5)));
        assert_eq!(timers.pop_due(Ms(4)), None);
        assert_eq!(timers.pop_due(Ms(9)), Some(Timer::Announce));
        assert_eq!(timers.pop_due(Ms(9)), Some(Timer::Connect));
        assert_eq!(timers.pop_due(Ms(9)), Some(Timer::Silence));
        assert_eq!(timers.pop_due(Ms(9)), None);
        assert_eq!(timers.next(), None);
    }
}
