//! What every reconciler shares.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kube::Client;
use kube::runtime::events::{Recorder, Reporter};
use tokio::sync::Notify;

use crate::applied;
use crate::cache::Cache;
use crate::metrics::Metrics;
use crate::report::Kind;

/// Clients and settings; one per process.
pub struct Context {
    /// The API server.
    pub client: Client,
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
    /// Connections to media pods: plain HTTP inside the cluster, never through a proxy.
    pub pods: reqwest::Client,
    /// The image of media pods, where the agent names none.
    pub media_image: String,
    /// How often the carrier is asked whether its side is still as it was set.
    pub resync: Duration,
    /// Rung when an agent got a new configuration, for the steward.
    pub configured: Notify,
    /// How long failing objects wait.
    pub backoff: Backoff,
}

impl Context {
    /// A context with empty counters.
    pub fn new(
        client: Client,
        cache: Cache,
        metrics: Metrics,
        transport: twilio::rest::Transport,
        pods: reqwest::Client,
        media_image: String,
        resync: Duration,
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
            pods,
            media_image,
            resync,
            configured: Notify::new(),
            backoff: Backoff::default(),
        }
    }
}

/// Consecutive failures by object: one that keeps failing is tried ever more rarely, alone.
#[derive(Debug, Default)]
pub struct Backoff(Mutex<HashMap<(Kind, String), u32>>);

/// The first wait.
const FIRST: Duration = Duration::from_secs(1);
/// The longest: a carrier that is down for an hour costs a dozen requests per object.
const LONGEST: Duration = Duration::from_secs(300);

impl Backoff {
    /// Counts a failure; returns how long to wait, at least `asked`.
    pub fn failed(&self, kind: Kind, object: &str, asked: Option<Duration>) -> Duration {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry((kind, object.to_owned())).or_insert(0);
        *count = count.saturating_add(1);
        let delay = FIRST.saturating_mul(1 << (*count - 1).min(10)).min(LONGEST);
        spread(delay, object, *count).max(asked.unwrap_or_default())
    }

    /// Forgets the failures of an object.
    pub fn succeeded(&self, kind: Kind, object: &str) {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        failures.remove(&(kind, object.to_owned()));
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

    #[test]
    fn waits_double_up_to_a_bound_and_start_over_after_a_success() {
        let backoff = Backoff::default();
        let waits: Vec<_> = (0..12).map(|_| backoff.failed(Kind::PhoneNumber, "a/b", None)).collect();
        assert!(waits[0] >= FIRST && waits[0] < FIRST * 2);
        assert!(waits.windows(2).all(|w| w[1] >= w[0].mul_f32(0.8)));
        assert!(waits[11] >= LONGEST && waits[11] <= LONGEST.mul_f32(1.25));
        backoff.succeeded(Kind::PhoneNumber, "a/b");
        assert!(backoff.failed(Kind::PhoneNumber, "a/b", None) < FIRST * 2);
    }

    #[test]
    fn what_the_carrier_asks_for_is_the_least() {
        let asked = Duration::from_secs(40);
        assert_eq!(Backoff::default().failed(Kind::PhoneNumber, "a/b", Some(asked)), asked);
    }
}
