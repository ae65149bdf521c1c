//! What comes after a stream: pure.

use call_session::Epoch;
use call_session::agent_file::AgentFile;
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
    /// Another stream, after a while.
    Connect { epoch: Epoch, pause: Pause },
    /// An apology: enough streams were opened in vain.
    GiveUp,
}

/// Seconds of silence before a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pause(pub(super) u32);

/// A stream that reached no pod most likely met one that has just died, which the Service forgets within a second or two:
/// the next one waits for that, and a further one again.
const PAUSE_PER_LOST_STREAM: u32 = 2;

/// Nobody holds a silent line for longer; a token lives six times as long.
const LONGEST_PAUSE: u32 = 10;

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
        After::Connect { epoch: Epoch(newest.0.saturating_add(1)), pause: pause_after(epoch, known) }
    } else {
        After::GiveUp
    }
}

/// How long the next stream waits. A pod that took the stream, or refused it because it was full or leaving, said so: then
/// the next one need not wait.
fn pause_after(epoch: Epoch, known: &CallState) -> Pause {
    let attached = known.leg.as_ref().map_or(0, |leg| leg.epoch.0.saturating_add(1));
    let answered = known.endings.last_key_value().map_or(0, |(last, _)| last.0.saturating_add(1));
    // Streams opened since a pod last had a word to say, this one included.
    let lost = epoch.0.saturating_add(1).saturating_sub(attached.max(answered));
    Pause(lost.saturating_mul(PAUSE_PER_LOST_STREAM).min(LONGEST_PAUSE))
}

/// What comes after a transfer: nothing when it was answered, else a sentence.
pub(super) fn after_transfer(agent: &AgentFile, dial_status: &str) -> Twiml {
    match dial_status {
        "completed" | "answered" => Twiml::hang_up(),
        _ => Twiml::say(&Sentence::ours(agent, |phrases| phrases.nobody_reached)),
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

    fn connect(epoch: u32, seconds: u32) -> After {
        After::Connect { epoch: Epoch(epoch), pause: Pause(seconds) }
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
            (Next::Reconnect, connect(4, 0)),
        ];
        for (next, after) in cases {
            assert_eq!(after_leg(Epoch(3), &ended(3, next), 2), after);
        }
    }

    #[test]
    fn an_ending_of_an_older_leg_says_nothing_about_this_one() {
        assert_eq!(after_leg(Epoch(4), &ended(3, Next::HangUp), 2), connect(5, 2));
    }

    #[test]
    fn streams_without_progress_are_bounded_by_the_attempts() {
        let after =
            |epoch, progress, attempts| after_leg(Epoch(epoch), &known(Some(epoch), progress), attempts);
        assert_eq!(after(0, None, 2), connect(1, 0));
        assert_eq!(after(1, None, 2), connect(2, 0));
        assert_eq!(after(2, None, 2), After::GiveUp);
        assert_eq!(after(2, Some(1), 2), connect(3, 0));
        assert_eq!(after(3, Some(1), 2), After::GiveUp);
        assert_eq!(after(70, Some(70), 2), connect(71, 0));
        assert_eq!(after(0, Some(0), 0), After::GiveUp);
        assert_eq!(after(u32::MAX, Some(u32::MAX), 1), connect(u32::MAX, 0));
    }

    #[test]
    fn a_stream_that_never_attached_counts_as_an_attempt() {
        assert_eq!(after_leg(Epoch(1), &known(Some(0), Some(0)), 2), connect(2, 2));
        assert_eq!(after_leg(Epoch(2), &known(Some(0), Some(0)), 2), After::GiveUp);
    }

    #[test]
    fn streams_that_reached_no_pod_wait_ever_longer_for_the_service_to_forget_the_dead_one() {
        let after = |epoch| after_leg(Epoch(epoch), &known(Some(0), Some(0)), 9);
        let seconds = [(0, 0), (1, 2), (2, 4), (5, 10), (8, 10)];
        assert_eq!(
            seconds.map(|(epoch, _)| after(epoch)),
            seconds.map(|(epoch, pause)| connect(epoch + 1, pause))
        );
        assert_eq!(after_leg(Epoch(0), &known(None, None), 2), connect(1, 2), "the call's first stream");
    }

    #[test]
    fn a_stream_that_a_full_pod_refused_is_opened_again_at_once() {
        let mut state = known(Some(0), Some(0));
        let refused = Ending { reason: EndReason::HandedOver, next: Next::Reconnect };
        state.endings.insert(Epoch(1), refused);
        assert_eq!(after_leg(Epoch(1), &state, 2), connect(2, 0));
        assert_eq!(after_leg(Epoch(2), &state, 9), connect(3, 2));
    }

    #[test]
    fn a_late_question_about_an_older_leg_is_answered_with_a_stream_that_can_attach() {
        assert_eq!(after_leg(Epoch(0), &known(Some(2), Some(2)), 2), connect(3, 0));
    }

    #[test]
    fn a_call_somebody_wants_ended_is_not_reconnected() {
        let mut state = known(Some(0), Some(0));
        state.hang_up_requested = true;
        assert_eq!(after_leg(Epoch(0), &state, 2), After::HangUp);
    }
}
