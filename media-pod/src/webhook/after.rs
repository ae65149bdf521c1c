//! What comes after a stream: pure.

use call_session::Epoch;
use call_session::io::Next;

use super::answer::Twiml;
use crate::admission::Sentence;
use crate::store::CallState;

/// What comes next for the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// Nothing: the call is over.
    HangUp,
    /// A sentence, then nothing.
    Say(String),
    /// A named target.
    Transfer(String),
    /// Another stream.
    Connect(Epoch),
    /// An apology: enough streams were opened in vain.
    GiveUp,
}

/// What comes after the stream of `epoch`.
///
/// The leg's own word counts. Without one (its pod died, refused the token, was full) or with `Reconnect` the next
/// stream is opened, as long as fewer than `attempts` were opened since the leg that last got anywhere. A stream newer
/// than `epoch` moves the question to its end: the answer must always be a stream that can still be attached.
pub(super) fn after_leg(epoch: Epoch, known: &CallState, attempts: u32) -> After {
    match known.endings.get(&epoch).map(|ending| &ending.next) {
        Some(Next::HangUp) => return After::HangUp,
        Some(Next::SayAndHangUp { text }) => return After::Say(text.clone()),
        Some(Next::Transfer { target }) => return After::Transfer(target.clone()),
        Some(Next::Reconnect) | None if known.hang_up_requested => return After::HangUp,
        Some(Next::Reconnect) | None => {}
    }
    let newest = known.leg.as_ref().map_or(epoch, |leg| leg.epoch.max(epoch));
    // The first stream is no attempt: it is what the attempts are for.
    let Epoch(reached) = known.progress.unwrap_or_default();
    if newest.0.saturating_sub(reached) < attempts {
        After::Connect(Epoch(newest.0.saturating_add(1)))
    } else {
        After::GiveUp
    }
}

/// What comes after a transfer: nothing when it was answered, else a sentence.
pub(super) fn after_transfer(dial_status: &str) -> Twiml {
    match dial_status {
        "completed" | "answered" => Twiml::hang_up(),
        _ => Twiml::say(&Sentence::ours("Nobody could be reached. Please call again later.")),
    }
}

#[cfg(test)]
mod tests {
    use call_session::io::{EndReason, Ending};

    use super::*;
    use crate::store::Leg;

    fn known(leg: Option<u32>, progress: Option<u32>) -> CallState {
        CallState {
            leg: leg.map(|epoch| Leg { epoch: Epoch(epoch), owner: "pod".to_owned() }),
            progress: progress.map(Epoch),
            ..CallState::default()
        }
    }

    fn ended(epoch: u32, next: Next) -> CallState {
        let mut state = known(Some(epoch), Some(epoch));
        state.endings.insert(Epoch(epoch), Ending { reason: EndReason::AgentHungUp, next });
        state
    }

    #[test]
    fn the_leg_s_own_word_counts() {
        let target = "front-desk".to_owned();
        let text = "Goodbye.".to_owned();
        let cases = [
            (Next::HangUp, After::HangUp),
            (Next::SayAndHangUp { text: text.clone() }, After::Say(text)),
            (Next::Transfer { target: target.clone() }, After::Transfer(target)),
            (Next::Reconnect, After::Connect(Epoch(4))),
        ];
        for (next, after) in cases {
            assert_eq!(after_leg(Epoch(3), &ended(3, next), 2), after);
        }
    }

    #[test]
    fn an_ending_of_an_older_leg_says_nothing_about_this_one() {
        assert_eq!(after_leg(Epoch(4), &ended(3, Next::HangUp), 2), After::Connect(Epoch(5)));
    }

    #[test]
    fn streams_without_progress_are_bounded_by_the_attempts() {
        let after =
            |epoch, progress, attempts| after_leg(Epoch(epoch), &known(Some(epoch), progress), attempts);
        assert_eq!(after(0, None, 2), After::Connect(Epoch(1)));
        assert_eq!(after(1, None, 2), After::Connect(Epoch(2)));
        assert_eq!(after(2, None, 2), After::GiveUp);
        assert_eq!(after(2, Some(1), 2), After::Connect(Epoch(3)));
        assert_eq!(after(3, Some(1), 2), After::GiveUp);
        assert_eq!(after(70, Some(70), 2), After::Connect(Epoch(71)));
        assert_eq!(after(0, Some(0), 0), After::GiveUp);
        assert_eq!(after(u32::MAX, Some(u32::MAX), 1), After::Connect(Epoch(u32::MAX)));
    }

    #[test]
    fn a_stream_that_never_attached_counts_as_an_attempt() {
        assert_eq!(after_leg(Epoch(1), &known(Some(0), Some(0)), 2), After::Connect(Epoch(2)));
        assert_eq!(after_leg(Epoch(2), &known(Some(0), Some(0)), 2), After::GiveUp);
    }

    #[test]
    fn a_late_question_about_an_older_leg_is_answered_with_a_stream_that_can_attach() {
        assert_eq!(after_leg(Epoch(0), &known(Some(2), Some(2)), 2), After::Connect(Epoch(3)));
    }

    #[test]
    fn a_call_somebody_wants_ended_is_not_reconnected() {
        let mut state = known(Some(0), Some(0));
        state.hang_up_requested = true;
        assert_eq!(after_leg(Epoch(0), &state, 2), After::HangUp);
    }
}
