//! A deleted agent leaves in order: first no number calls it any more, then its calls end, then its objects go.
//!
//! *Guarantees*: Service, route, configuration and pods stay as they are while a number's webhooks point here. After that
//! they stay until every pod said for [`QUIET`] that it carries no call, or until the drain window has passed; then the
//! pods drain as always when they end. Ready says what is waited for.
//!
//! *Caveats*: the window begins anew with a new leader. `kubectl delete --cascade=foreground` deletes children first, by
//! the user's own word.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crds::conditions::Reason;
use tokio::time::Instant;

use crate::finding::Finding;

/// Holds a deleted agent until it may go.
pub const FINALIZER: &str = "switchboard.dev/voice-agent";
/// Between two looks at an agent on its way out.
pub const LOOK: Duration = Duration::from_secs(5);
/// After a call's stream its last callbacks still come here, within seconds.
pub const QUIET: Duration = Duration::from_secs(10);

/// An agent: namespace and name.
pub type Key = (String, String);

/// Since when what holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Since {
    /// No number calls it.
    uncalled: Option<Instant>,
    /// And no pod carries a call.
    quiet: Option<Instant>,
}

/// All agents on their way out.
#[derive(Debug, Default)]
pub struct Departures(Mutex<BTreeMap<Key, Since>>);

impl Departures {
    /// Decides about one agent, and remembers since when.
    pub fn decide(&self, agent: &Key, scene: &Scene, now: Instant) -> Departure {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        decide(scene, known.entry(agent.clone()).or_default(), now)
    }

    /// It is gone.
    pub fn forget(&self, agent: &Key) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(agent);
    }
}

/// What there is around a deleted agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scene {
    /// PhoneNumbers whose webhooks point here.
    pub numbers: Vec<String>,
    /// Calls of each pod that runs; `None` where it does not answer.
    pub pods: Vec<Option<u32>>,
    /// How long calls may go on.
    pub window: Duration,
}

/// Whether it may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Departure {
    /// The carrier still brings calls here.
    WaitForNumbers(Vec<String>),
    /// Calls are on, or may be.
    WaitForCalls {
        /// On the pods that answer.
        calls: u32,
        /// Pods that do not.
        silent: usize,
        /// Until the window has passed.
        left: Duration,
    },
    /// It goes.
    Go {
        /// Calls that the pods have to drain.
        calls: u32,
    },
}

/// Decides; `since` is this agent's memory.
pub fn decide(scene: &Scene, since: &mut Since, now: Instant) -> Departure {
    let Scene { numbers, pods, window } = scene;
    if !numbers.is_empty() {
        *since = Since::default();
        return Departure::WaitForNumbers(numbers.clone());
    }
    let uncalled = *since.uncalled.get_or_insert(now);
    let calls = pods.iter().flatten().fold(0_u32, |sum, calls| sum.saturating_add(*calls));
    let silent = pods.iter().filter(|calls| calls.is_none()).count();
    let left = window.saturating_sub(now.duration_since(uncalled));
    if left.is_zero() {
        return Departure::Go { calls };
    }
    if calls > 0 || silent > 0 {
        since.quiet = None;
        return Departure::WaitForCalls { calls, silent, left };
    }
    // Without pods nobody can answer a callback anyway.
    let quiet = *since.quiet.get_or_insert(now);
    if pods.is_empty() || now.duration_since(quiet) >= QUIET {
        Departure::Go { calls: 0 }
    } else {
        Departure::WaitForCalls { calls: 0, silent: 0, left }
    }
}

/// What Ready says of it.
pub fn finding(departure: &Departure) -> Finding {
    match departure {
        Departure::WaitForNumbers(numbers) => Finding::no(
            Reason::WaitingForNumbers,
            format!(
                "Deleted, and waits for PhoneNumber {}, whose calls still come here: delete it, or give it a route to \
                 another agent",
                numbers.join(", ")
            ),
        ),
        Departure::WaitForCalls { calls, silent, .. } => {
            let pods = match silent {
                0 => String::new(),
                silent => format!(", {silent} pods do not tell whether they have more"),
            };
            let sentence = format!(
                "Deleted, and waits for its calls to end, at most for the drain window: {calls} are on{pods}"
            );
            Finding::no(Reason::WaitingForCalls, sentence)
        }
        Departure::Go { .. } => Finding::no(Reason::WaitingForCalls, "Deleted, and nothing is waited for"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(60);

    fn scene(numbers: &[&str], pods: &[Option<u32>]) -> Scene {
        let numbers = numbers.iter().map(|n| (*n).to_owned()).collect();
        Scene { numbers, pods: pods.to_vec(), window: WINDOW }
    }

    /// Decisions at seconds after the deletion.
    fn decisions(scenes: &[(u64, Scene)]) -> Vec<Departure> {
        let (start, mut since) = (Instant::now(), Since::default());
        scenes.iter().map(|(s, scene)| decide(scene, &mut since, start + Duration::from_secs(*s))).collect()
    }

    fn waits(calls: u32, silent: usize, left: u64) -> Departure {
        Departure::WaitForCalls { calls, silent, left: Duration::from_secs(left) }
    }

    #[test]
    fn numbers_are_waited_for_without_limit_and_calls_for_the_window_after_that() {
        let busy = [Some(2), Some(1)];
        let found = decisions(&[
            (0, scene(&["main-line"], &busy)),
            (100, scene(&["main-line"], &busy)),
            (110, scene(&[], &busy)),
            (169, scene(&[], &busy)),
            (170, scene(&[], &busy)),
        ]);
        let main_line = Departure::WaitForNumbers(vec!["main-line".to_owned()]);
        assert_eq!(
            found,
            [main_line.clone(), main_line, waits(3, 0, 60), waits(3, 0, 1), Departure::Go { calls: 3 }]
        );
    }

    #[test]
    fn it_goes_when_all_pods_were_quiet_for_a_while() {
        let found = decisions(&[
            (0, scene(&[], &[Some(0), Some(0)])),
            (5, scene(&[], &[Some(1), Some(0)])),
            (10, scene(&[], &[Some(0), Some(0)])),
            (15, scene(&[], &[Some(0), Some(0)])),
            (20, scene(&[], &[Some(0), Some(0)])),
        ]);
        assert_eq!(
            found,
            [waits(0, 0, 60), waits(1, 0, 55), waits(0, 0, 50), waits(0, 0, 45), Departure::Go { calls: 0 }]
        );
    }

    #[test]
    fn a_silent_pod_may_have_calls_and_no_pods_have_none() {
        let found =
            decisions(&[(0, scene(&[], &[None])), (59, scene(&[], &[None])), (60, scene(&[], &[None]))]);
        assert_eq!(found, [waits(0, 1, 60), waits(0, 1, 1), Departure::Go { calls: 0 }]);
        assert_eq!(decisions(&[(0, scene(&[], &[]))]), [Departure::Go { calls: 0 }]);
    }

    #[test]
    fn a_number_that_comes_back_begins_it_anew() {
        let found = decisions(&[
            (0, scene(&[], &[Some(1)])),
            (59, scene(&["main-line"], &[Some(1)])),
            (61, scene(&[], &[Some(1)])),
        ]);
        assert_eq!(found[2], waits(1, 0, 60));
    }
}
