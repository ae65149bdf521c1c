//! When a caller of a load run speaks: every so often, and over the agent.
//!
//! Sans-IO, one step per 20 ms. At its time the caller speaks; if the agent was silent then, the caller lets it begin to
//! answer and talks over that. So every turn ends in an interruption, whatever model is on the other side.

use std::time::Duration;

/// Frames of a second.
const SECOND: u32 = 50;
/// How long the agent is listened to before it is interrupted: half a second.
const LISTEN: u32 = SECOND / 2;

/// What the caller does with this frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Move {
    Listen,
    /// The nth frame of an utterance, counted from 0, and whether it talks over the agent.
    Speak {
        nth: u32,
        interrupts: bool,
    },
}

/// A caller's habit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Habit {
    /// Frames between two turns; `None`: the caller only listens.
    every: Option<u32>,
    utterance: u32,
    now: u32,
    next: u32,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Speaking {
        nth: u32,
        interrupts: bool,
    },
    /// The agent was asked; it has been audible for so long.
    Waiting {
        audible: u32,
    },
}

impl Habit {
    /// Lines take their turns at different times.
    pub(super) fn new(every: Option<Duration>, line: u32, utterance: u32) -> Self {
        let every = every.map(|every| u32::try_from(every.as_millis() / 20).unwrap_or(u32::MAX).max(SECOND));
        // Lines are spread by a number that shares no divisor with usual intervals.
        let first = every.map_or(u32::MAX, |every| SECOND + line.wrapping_mul(37) % every);
        Self { every, utterance, now: 0, next: first, state: State::Idle }
    }

    /// The next 20 ms.
    pub(super) fn next(&mut self, is_audible: bool) -> Move {
        self.now = self.now.saturating_add(1);
        match self.state {
            State::Speaking { nth, interrupts } if nth < self.utterance => {
                self.state = State::Speaking { nth: nth + 1, interrupts };
                return Move::Speak { nth, interrupts };
            }
            State::Speaking { interrupts: false, .. } => self.state = State::Waiting { audible: 0 },
            State::Speaking { interrupts: true, .. } => self.state = State::Idle,
            State::Waiting { audible } if is_audible && audible >= LISTEN => return self.speak(true),
            State::Waiting { audible } => {
                self.state = State::Waiting { audible: if is_audible { audible + 1 } else { 0 } };
            }
            State::Idle => {}
        }
        let Some(every) = self.every else { return Move::Listen };
        if self.now < self.next || matches!(self.state, State::Speaking { .. }) {
            return Move::Listen;
        }
        self.next = self.now.saturating_add(every);
        self.speak(is_audible)
    }

    const fn speak(&mut self, interrupts: bool) -> Move {
        self.state = State::Speaking { nth: 1, interrupts };
        Move::Speak { nth: 0, interrupts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utterances(habit: &mut Habit, frames: u32, is_audible: impl Fn(u32) -> bool) -> Vec<(u32, bool)> {
        let begins = |at| match habit.next(is_audible(at)) {
            Move::Speak { nth: 0, interrupts } => Some((at, interrupts)),
            Move::Speak { .. } | Move::Listen => None,
        };
        (1..=frames).filter_map(begins).collect()
    }

    #[test]
    fn an_audible_agent_is_interrupted_at_every_turn() {
        let mut habit = Habit::new(Some(Duration::from_secs(10)), 0, 40);
        assert_eq!(utterances(&mut habit, 1100, |_| true), [(50, true), (550, true), (1050, true)]);
    }

    #[test]
    fn a_silent_agent_is_asked_first_and_interrupted_when_it_answers() {
        let mut habit = Habit::new(Some(Duration::from_secs(10)), 0, 40);
        let spoke = utterances(&mut habit, 300, |at| at >= 120);
        assert_eq!(spoke, [(50, false), (145, true)]);
    }

    #[test]
    fn without_an_interval_the_caller_only_listens() {
        assert_eq!(utterances(&mut Habit::new(None, 3, 40), 5000, |_| true), []);
    }
}
