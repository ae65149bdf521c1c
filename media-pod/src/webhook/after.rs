//! What comes after a stream: pure.

use call_session::agent_file::AgentFile;
use call_session::io::{EndReason, Ending, Next};
use call_session::{Epoch, Ms};

use super::answer::Twiml;
use crate::admission::Sentence;
use crate::clock::UnixMs;
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
    Connect { epoch: Epoch, pause: Pause, tally: Tally },
    /// An apology: enough streams were opened in vain.
    GiveUp,
}

/// Seconds of silence before a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pause(pub(super) u32);

/// Which of a call's streams were no attempts. It travels in the URL of each stream's action, so that it is known where the store
/// does not answer. Of two tallies the greater one knows more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tally {
    /// The newest leg that got somewhere. Before that the call's first stream, which is what the attempts are for.
    pub(super) reached: Epoch,
    /// Streams since then that cost no attempt: they met a full or leaving pod, or nobody could say what they met.
    pub(super) spared: u32,
    /// Of those, the last ones in a row about which nobody could say.
    pub(super) unseen: u32,
}

impl Tally {
    /// By what the store holds alone.
    fn of(known: &CallState) -> Self {
        let spared = known.endings.keys().filter(|epoch| is_spared(**epoch, known)).count();
        Self {
            reached: known.progress.unwrap_or_default(),
            spared: u32::try_from(spared).unwrap_or(u32::MAX),
            unseen: 0,
        }
    }

    /// With what the store knows of the stream of `epoch`, whose URL said the rest.
    fn with_known(self, epoch: Epoch, known: &CallState) -> Self {
        let spared = self.spared.saturating_add(u32::from(is_spared(epoch, known)));
        Self { spared, unseen: 0, ..self }.max(Self::of(known))
    }

    /// With one more stream that nobody knows anything about.
    const fn with_unseen(self) -> Self {
        let Self { reached, spared, unseen } = self;
        Self { reached, spared: spared.saturating_add(1), unseen: unseen.saturating_add(1) }
    }

    /// Streams up to `newest` that did cost an attempt.
    fn attempts(self, newest: Epoch) -> u32 {
        newest.0.saturating_sub(self.reached.0).saturating_sub(self.spared)
    }
}

/// Whether a pod has taken a stream of the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Past {
    /// None has: the caller is still to be greeted.
    Untaken,
    /// One has, or it cannot be told.
    Taken,
}

/// Whoever was taken, and lost, within this had not heard a greeting to its end. A stream that meets a full pod while the store
/// is away is over sooner: the announcement and the pod wait 1.5 s for the store, the rest is a few round trips.
const UNHEARD: Ms = Ms::from_secs(5);

impl Past {
    /// After a stream that began at `began`, if it is known that none was taken before it.
    pub(super) fn of(known: Option<&CallState>, began: Option<UnixMs>, now: UnixMs) -> Self {
        let is_untaken = match known {
            Some(CallState { record, leg, progress, endings, .. }) => {
                record.is_some() && leg.is_none() && progress.is_none() && endings.values().all(is_bounce)
            }
            None => began.is_some_and(|began| now.since(began) < UNHEARD),
        };
        if is_untaken { Self::Untaken } else { Self::Taken }
    }
}

/// A stream that reached no pod most likely met one that has just died, which the Service forgets within a second or two:
/// the next one waits for that, and a further one again.
const PAUSE_PER_LOST_STREAM: u32 = 2;

/// Nobody holds a silent line for longer; a token lives six times as long.
const LONGEST_PAUSE: u32 = 10;

/// Streams that a call may lose to full pods and to silence of the store. Its slot is reserved, so some pod has room, or is
/// about to: with one free slot on ten pods seven calls in eight have found it after so many. Together with the pauses this
/// takes half a minute.
const MOST_SPARED: u32 = 20;

/// The first of those are a matter of chance and cost no pause. Whoever meets more of them waits for a pod that is
/// still starting, or a caller who hangs up: one second longer after each four, and two at most.
const BOUNCES_PER_SECOND: u32 = 4;
const LONGEST_BOUNCE_PAUSE: u32 = 2;

/// Streams in a row whose end the store could not tell. With their pauses and what one waits for the store they take some
/// 20 s; a store that is away for longer may also have been away when the agent hung up.
const MOST_UNSEEN: u32 = 5;

/// What comes after the stream of `epoch`, whose URL told `before`.
///
/// The leg's own word counts. Without one (its pod died, refused the token) or with `Reconnect` the next stream is
/// opened, as long as fewer than `attempts` were opened since the leg that last got anywhere. Streams that met a full
/// pod are no such attempts: nothing is wrong with the call, and they have a bound of their own. A stream newer than
/// `epoch` moves the question to its end: the answer must always be a stream that can still be attached.
pub(super) fn after_leg(epoch: Epoch, known: &CallState, before: Tally, attempts: u32) -> After {
    match known.endings.get(&epoch).map(|ending| &ending.next) {
        Some(Next::HangUp) => return After::HangUp,
        Some(Next::SayAndHangUp { text }) => return After::Say(text.clone()),
        Some(Next::Transfer { target }) => return After::Transfer(target.clone()),
        Some(Next::Reconnect) | None if known.hang_up_requested => return After::HangUp,
        Some(Next::Reconnect) | None => {}
    }
    let newest = known.leg.as_ref().map_or(epoch, |leg| leg.epoch.max(epoch));
    let tally = before.with_known(epoch, known);
    let has_bounced = known.endings.get(&newest).is_some_and(is_bounce);
    let (may_go_on, pause) = if has_bounced {
        let pause = Pause((tally.spared.saturating_sub(1) / BOUNCES_PER_SECOND).min(LONGEST_BOUNCE_PAUSE));
        (tally.spared <= MOST_SPARED, pause)
    } else {
        (tally.attempts(newest) < attempts, pause_after(epoch, known))
    };
    if may_go_on { After::Connect { epoch: next(newest), pause, tally } } else { After::GiveUp }
}

/// What comes after the stream of `epoch` where the store does not say: another stream. It may have met a full pod, which
/// costs no attempt, and a caller cut off is worse than one who has to hang up twice.
pub(super) fn after_unseen(epoch: Epoch, before: Tally) -> After {
    let tally = before.with_unseen();
    if tally.unseen > MOST_UNSEEN || tally.spared > MOST_SPARED {
        return After::GiveUp;
    }
    After::Connect { epoch: next(epoch), pause: Pause(PAUSE_PER_LOST_STREAM), tally }
}

const fn next(Epoch(newest): Epoch) -> Epoch {
    Epoch(newest.saturating_add(1))
}

/// What a pod says that does not take a stream. A leg that is handed over ends in the same words; it got somewhere, or
/// its pod was about to leave, and was no failed attempt either.
const fn is_bounce(ending: &Ending) -> bool {
    matches!(ending, Ending { reason: EndReason::HandedOver, next: Next::Reconnect })
}

/// Whether the stream of `epoch` met a pod that did not take it, after the leg that last got somewhere.
fn is_spared(epoch: Epoch, known: &CallState) -> bool {
    known.progress < Some(epoch) && known.endings.get(&epoch).is_some_and(is_bounce)
}

/// How long the stream after a lost one waits. A pod that took a stream said so: then the next one need not wait.
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
    use super::*;
    use call_session::Redacted;

    use crate::store::{AgentKey, CallRecord, Leg};

    fn known(leg: Option<u32>, progress: Option<u32>) -> CallState {
        CallState {
            leg: leg.map(|epoch| Leg { epoch: Epoch(epoch), owner: "pod".to_owned() }),
            progress: progress.map(Epoch),
            ..CallState::default()
        }
    }

    fn connect(epoch: u32, seconds: u32) -> After {
        After::Connect { epoch: Epoch(epoch), pause: Pause(seconds), tally: Tally::default() }
    }

    /// What comes after a leg whose URL told nothing, without its tally.
    fn after(epoch: u32, known: &CallState, attempts: u32) -> After {
        match after_leg(Epoch(epoch), known, Tally::default(), attempts) {
            After::Connect { epoch, pause, tally: _ } => {
                After::Connect { epoch, pause, tally: Tally::default() }
            }
            other => other,
        }
    }

    fn bounced() -> Ending {
        Ending { reason: EndReason::HandedOver, next: Next::Reconnect }
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
        for (next, expected) in cases {
            assert_eq!(after(3, &ended(3, next), 2), expected);
        }
    }

    #[test]
    fn an_ending_of_an_older_leg_says_nothing_about_this_one() {
        assert_eq!(after(4, &ended(3, Next::HangUp), 2), connect(5, 2));
    }

    #[test]
    fn streams_without_progress_are_bounded_by_the_attempts() {
        let after = |epoch, progress, attempts| after(epoch, &known(Some(epoch), progress), attempts);
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
        assert_eq!(after(1, &known(Some(0), Some(0)), 2), connect(2, 2));
        assert_eq!(after(2, &known(Some(0), Some(0)), 2), After::GiveUp);
    }

    #[test]
    fn streams_that_reached_no_pod_wait_ever_longer_for_the_service_to_forget_the_dead_one() {
        let after_lost = |epoch| after(epoch, &known(Some(0), Some(0)), 9);
        let seconds = [(0, 0), (1, 2), (2, 4), (5, 10), (8, 10)];
        assert_eq!(
            seconds.map(|(epoch, _)| after_lost(epoch)),
            seconds.map(|(epoch, pause)| connect(epoch + 1, pause))
        );
        assert_eq!(after(0, &known(None, None), 2), connect(1, 2), "the call's first stream");
    }

    #[test]
    fn a_stream_that_a_full_pod_refused_is_opened_again_at_once() {
        let mut state = known(Some(0), Some(0));
        state.endings.insert(Epoch(1), bounced());
        assert_eq!(after(1, &state, 2), connect(2, 0));
        assert_eq!(after(2, &state, 9), connect(3, 2));
    }

    #[test]
    fn full_pods_cost_no_attempt_and_have_a_bound_of_their_own() {
        // The call's first streams, each to a full pod.
        let mut state = known(None, None);
        let mut pauses = Vec::new();
        for epoch in 0.. {
            state.endings.insert(Epoch(epoch), bounced());
            match after(epoch, &state, 2) {
                After::Connect { epoch: next, pause: Pause(seconds), .. } if next == Epoch(epoch + 1) => {
                    pauses.push(seconds);
                }
                After::GiveUp => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(pauses[..10], [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]);
        assert_eq!((pauses.len(), pauses.iter().sum::<u32>()), (20, 28));

        // Attempts are for what went wrong, before and after it.
        let mut state = known(Some(3), Some(3));
        state.endings.extend([5, 6, 8].map(|epoch| (Epoch(epoch), bounced())));
        assert_eq!(after(6, &state, 2), connect(7, 0));
        assert!(matches!(after(7, &state, 3), After::Connect { epoch: Epoch(8), .. }));
        assert_eq!(after(8, &state, 2), connect(9, 0), "two were lost, and this one was not");
        assert_eq!(after(9, &state, 3), After::GiveUp);

        // A leg that a leaving pod hands over is no failure either.
        let mut state = known(Some(0), Some(0));
        state.endings.insert(Epoch(0), bounced());
        assert_eq!(after(0, &state, 0), connect(1, 0));
    }

    /// What the store says at an action.
    enum Word {
        /// Nothing: it does not answer.
        Silent,
        /// It holds no word about the stream.
        Lost,
        /// The stream met a full pod.
        Full,
        /// The leg got somewhere, and no word is held about its end.
        Progress,
    }

    /// What a call comes to, stream by stream, if the store says so much at each action; each URL tells what the one before knew.
    fn told(words: &[Word], attempts: u32) -> Vec<Option<(u32, u32, u32)>> {
        let (mut state, mut tally, mut epoch) = (known(None, None), Tally::default(), Epoch(0));
        let mut answers = Vec::new();
        for word in words {
            let after = match word {
                Word::Silent => after_unseen(epoch, tally),
                Word::Lost => after_leg(epoch, &state, tally, attempts),
                Word::Full => {
                    state.endings.insert(epoch, bounced());
                    after_leg(epoch, &state, tally, attempts)
                }
                Word::Progress => {
                    state.progress = Some(epoch);
                    state.leg = Some(Leg { epoch, owner: "pod".to_owned() });
                    after_leg(epoch, &state, tally, attempts)
                }
            };
            answers.push(match after {
                After::Connect { epoch: next, pause: _, tally: new } => {
                    (epoch, tally) = (next, new);
                    Some((new.reached.0, new.spared, new.unseen))
                }
                After::GiveUp => None,
                other => panic!("{other:?}"),
            });
        }
        answers
    }

    #[test]
    fn a_call_is_not_given_up_for_what_the_store_did_not_say() {
        use Word::{Full, Lost, Progress, Silent};
        // Full pods, and one action that the store did not answer in time: no attempt is used up.
        let rush = told(&[Full, Full, Full, Silent, Full, Lost, Lost, Lost], 2);
        let expected =
            [(0, 1, 0), (0, 2, 0), (0, 3, 0), (0, 4, 1), (0, 5, 0), (0, 5, 0), (0, 5, 0)].map(Some);
        assert_eq!(rush, [&expected[..], &[None]].concat());
        // An outage: what was not seen stays excused when the store is back, and what is lost then costs an attempt.
        let outage = told(&[Progress, Silent, Silent, Silent, Lost, Full, Lost], 2);
        let expected = [(0, 0, 0), (0, 1, 1), (0, 2, 2), (0, 3, 3), (0, 3, 0), (0, 4, 0)].map(Some);
        assert_eq!(outage, [&expected[..], &[None]].concat());
        // Progress begins everything anew.
        let progress = told(&[Full, Silent, Progress, Silent, Lost], 2);
        assert_eq!(progress, [(0, 1, 0), (0, 2, 1), (2, 0, 0), (2, 1, 1), (2, 1, 0)].map(Some));
    }

    #[test]
    fn a_silent_store_does_not_keep_a_call_going_for_ever() {
        let silent = told(&[const { Word::Silent }; 6], 2);
        assert_eq!(silent.iter().flatten().count(), 5);
        assert_eq!(silent.last(), Some(&None));

        let mut words = Vec::new();
        for _ in 0..20 {
            words.extend([Word::Silent, Word::Full]);
        }
        assert!(told(&words, 2).contains(&None), "words in between do not excuse it either");
    }

    #[test]
    fn a_call_is_taken_as_soon_as_a_pod_may_have_spoken_to_its_caller() {
        let (began, soon, late) = (UnixMs(1_000_000), UnixMs(1_004_999), UnixMs(1_005_000));
        let is_untaken = |state: &CallState| Past::of(Some(state), Some(began), soon) == Past::Untaken;
        let record = CallRecord {
            call: "CA0123456789abcdef0123456789abcdef".parse().unwrap(),
            agent: AgentKey { namespace: "moving".to_owned(), name: "sales".to_owned() },
            origin: began,
            from: Redacted::default(),
            to: Redacted::default(),
        };
        let announced = || CallState { record: Some(record.clone()), ..known(None, None) };
        let mut full = announced();
        full.endings.extend([0, 1].map(|epoch| (Epoch(epoch), bounced())));
        assert!(is_untaken(&announced()) && is_untaken(&full));
        let lost = Ending { reason: EndReason::PhoneLost, next: Next::Reconnect };
        let taken = [
            CallState { leg: known(Some(0), None).leg, ..announced() },
            CallState { progress: Some(Epoch(0)), ..announced() },
            CallState { endings: [(Epoch(0), lost)].into(), ..announced() },
            CallState::default(), // the store lost it
        ];
        assert!(!taken.iter().any(is_untaken));
        // The store does not say, and its URL does.
        assert_eq!(Past::of(None, Some(began), soon), Past::Untaken);
        assert_eq!(Past::of(None, Some(began), late), Past::Taken);
        assert_eq!(Past::of(None, None, soon), Past::Taken);
    }

    #[test]
    fn a_late_question_about_an_older_leg_is_answered_with_a_stream_that_can_attach() {
        assert_eq!(after(0, &known(Some(2), Some(2)), 2), connect(3, 0));
    }

    #[test]
    fn a_call_somebody_wants_ended_is_not_reconnected() {
        let mut state = known(Some(0), Some(0));
        state.hang_up_requested = true;
        assert_eq!(after(0, &state, 2), After::HangUp);
    }
}
