//! What every reconciler shares.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kube::Client;
use kube::runtime::events::{Recorder, Reporter};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::applied;
use crate::cache::Cache;
use crate::finding::Finding;
use crate::leader::Standing;
use crate::looks::{Looks, Pace};
use crate::metrics::Metrics;
use crate::phone_number;
use crate::report::Kind;
use crate::rollouts::Turns;
use crate::voice_agent::departure::Departures;
use crate::voice_gateway::carrier::Carriers;

/// Clients and settings; one per process.
pub struct Context {
    /// The API server; it writes nothing unless this replica leads.
    pub client: Client,
    /// Whether this replica leads: to be asked before anything is written at a carrier.
    pub standing: Standing,
    /// What the API server has.
    pub cache: Cache,
    /// Which children are as they were applied.
    pub applied: applied::Memory,
    /// Writes events.
    pub recorder: Recorder,
    /// Counters.
    pub metrics: Metrics,
    /// Connections to the carrier.
    pub transport: twilio::rest::Transport,
    /// The ways to carriers.
    pub carriers: Carriers,
    /// What carriers said of gateways' credentials.
    pub gateway_looks: Looks<Finding>,
    /// What carriers said of numbers.
    pub number_looks: Looks<phone_number::Seen>,
    /// Connections to media pods: plain HTTP inside the cluster, never through a proxy.
    pub pods: reqwest::Client,
    /// What the operator was installed with, as far as agents' children depend on it.
    pub surroundings: Surroundings,
    /// Whose turn it is to get a new default image.
    pub turns: Turns,
    /// Deleted agents that wait.
    pub departures: Departures,
    /// How often everything is looked at where nothing changed; the carrier's side at most so often.
    pub resync: Duration,
    /// Rung when an agent got a new configuration, for the steward.
    pub configured: Notify,
    /// How long failing objects wait.
    pub backoff: Backoff,
}

impl Context {
    /// A context with empty counters.
    #[expect(clippy::too_many_arguments, reason = "called once, and every argument is a part of it")]
    pub fn new(
        client: Client,
        cache: Cache,
        metrics: Metrics,
        transport: twilio::rest::Transport,
        pods: reqwest::Client,
        surroundings: Surroundings,
        resync: Duration,
        standing: Standing,
    ) -> Self {
        let reporter = Reporter { controller: "switchboard.dev/operator".to_owned(), instance: None };
        let recorder = Recorder::new(client.clone(), reporter);
        Self {
            client,
            cache,
            applied: applied::Memory::default(),
            recorder,
            metrics,
            transport,
            standing,
            carriers: Carriers::default(),
            gateway_looks: Looks::new(Pace { interval: resync, at_most: GATEWAYS_AT_MOST }),
            number_looks: Looks::new(Pace { interval: resync, at_most: NUMBERS_AT_MOST }),
            pods,
            turns: Turns::new(surroundings.max_rollouts),
            departures: Departures::default(),
            surroundings,
            resync,
            configured: Notify::new(),
            backoff: Backoff::default(),
        }
    }
}

/// Numbers that are looked at in one interval: with the usual 300 s, one request in two seconds.
const NUMBERS_AT_MOST: u32 = 150;
/// And gateways: one request in ten seconds.
const GATEWAYS_AT_MOST: u32 = 30;

/// What the operator was installed with, as far as agents' children depend on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Surroundings {
    /// The image of media pods, where the agent names none.
    pub media_image: String,
    /// Where the operator runs.
    pub operator_namespace: String,
    /// Where Prometheus runs.
    pub monitoring_namespaces: Vec<String>,
    /// Rollouts of a new default image at a time.
    pub max_rollouts: usize,
}

/// Consecutive failures by object: one that keeps failing is tried ever more rarely, alone.
#[derive(Debug, Default)]
pub struct Backoff(Mutex<HashMap<(Kind, String), Failures>>);

/// How often an object failed, and what it waits for.
#[derive(Debug, Default)]
struct Failures {
    count: u32,
    pause: Option<Pause>,
}

/// A carrier failed, so waking up earlier is of no use.
#[derive(Debug)]
struct Pause {
    until: Instant,
    generation: Option<i64>,
    is_asked: bool,
}

/// What failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Something here.
    Here,
    /// The carrier, which may have asked for a pause, when the object had this generation.
    Carrier {
        /// How long it wants to be left alone.
        asked: Option<Duration>,
        /// Of the spec that it was asked for.
        generation: Option<i64>,
    },
}

/// The first wait.
const FIRST: Duration = Duration::from_secs(1);
/// The longest: a carrier that is down for an hour costs two dozen requests per object.
const LONGEST: Duration = Duration::from_secs(300);

impl Backoff {
    /// Counts a failure; returns how long to wait.
    pub fn failed(&self, kind: Kind, object: &str, failure: Failure) -> Duration {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let failures = known.entry((kind, object.to_owned())).or_default();
        failures.count = failures.count.saturating_add(1);
        let delay = FIRST.saturating_mul(1 << (failures.count - 1).min(10)).min(LONGEST);
        let wait = spread(delay, object, failures.count);
        let (wait, pause) = match failure {
            Failure::Here => (wait, None),
            Failure::Carrier { asked, generation } => {
                let wait = wait.max(asked.unwrap_or_default());
                let until = Instant::now() + wait;
                (wait, Some(Pause { until, generation, is_asked: asked.is_some() }))
            }
        };
        failures.pause = pause;
        wait
    }

    /// How long an object that something woke still has to wait. An edited one need not, unless the carrier said so.
    pub fn pause(&self, kind: Kind, object: &str, generation: Option<i64>) -> Option<Duration> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pause = known.get(&(kind, object.to_owned()))?.pause.as_ref()?;
        let left = pause.until.saturating_duration_since(Instant::now());
        (!left.is_zero() && (pause.is_asked || pause.generation == generation)).then_some(left)
    }

    /// Forgets the failures of an object.
    pub fn succeeded(&self, kind: Kind, object: &str) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.remove(&(kind, object.to_owned()));
    }
}

/// Up to a quarter more, different for every object and attempt, so that those that failed together do not come back
/// together. A hash is random enough for that.
pub fn spread(delay: Duration, object: &str, attempt: u32) -> Duration {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    (object, attempt).hash(&mut hasher);
    let thousandths = u32::try_from(hasher.finish() % 250).unwrap_or_default();
    delay + delay * thousandths / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: Kind = Kind::PhoneNumber;
    const HOUR: Duration = Duration::from_secs(3600);

    fn unavailable(asked: Option<u64>) -> Failure {
        Failure::Carrier { asked: asked.map(Duration::from_secs), generation: Some(1) }
    }

    #[test]
    fn waits_double_up_to_a_bound_and_start_over_after_a_success() {
        let backoff = Backoff::default();
        let waits: Vec<_> = (0..12).map(|_| backoff.failed(KIND, "a/b", Failure::Here)).collect();
        assert!(waits[0] >= FIRST && waits[0] < FIRST * 2);
        assert!(waits.windows(2).all(|w| w[1] >= w[0].mul_f32(0.8)));
        assert!(waits[11] >= LONGEST && waits[11] <= LONGEST.mul_f32(1.25));
        backoff.succeeded(KIND, "a/b");
        assert!(backoff.failed(KIND, "a/b", Failure::Here) < FIRST * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_carrier_that_is_down_for_an_hour_is_asked_two_dozen_times_however_often_somebody_wakes() {
        let backoff = Backoff::default();
        let began = Instant::now();
        let mut asked = 0;
        while began.elapsed() < HOUR {
            // Something in the cluster changes every second.
            if backoff.pause(KIND, "a/b", Some(1)).is_none() {
                asked += 1;
                backoff.failed(KIND, "a/b", unavailable(None));
            }
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert!((10..=24).contains(&asked), "{asked} requests");
        // And then at the latest so late it heals.
        assert!(backoff.pause(KIND, "a/b", Some(1)).unwrap() <= LONGEST.mul_f32(1.25));
    }

    #[test]
    fn objects_that_failed_together_come_back_apart() {
        let backoff = Backoff::default();
        let waits: std::collections::BTreeSet<_> =
            (0..100).map(|n| backoff.failed(KIND, &format!("a/{n}"), Failure::Here)).collect();
        assert!(waits.len() > 60, "{} different waits", waits.len());
    }

    #[tokio::test(start_paused = true)]
    async fn an_edit_ends_a_wait_but_not_one_that_the_carrier_asked_for() {
        let backoff = Backoff::default();
        for _ in 0..5 {
            backoff.failed(KIND, "a/b", unavailable(None));
        }
        assert!(backoff.pause(KIND, "a/b", Some(1)).is_some());
        assert_eq!(backoff.pause(KIND, "a/b", Some(2)), None);
        backoff.failed(KIND, "a/b", unavailable(Some(40)));
        assert_eq!(backoff.pause(KIND, "a/b", Some(2)), Some(Duration::from_secs(40)));
        tokio::time::advance(Duration::from_secs(40)).await;
        assert_eq!(backoff.pause(KIND, "a/b", Some(2)), None);
    }

    #[tokio::test]
    async fn what_the_carrier_asks_for_is_the_least() {
        assert_eq!(Backoff::default().failed(KIND, "a/b", unavailable(Some(40))), Duration::from_secs(40));
    }
}
