//! Leader election by a Lease: one replica reconciles, the others stand by.
//!
//! # Expected flow
//! [`Election::acquire`] returns when this replica holds the Lease; [`Election::keep`] renews it and returns when it is
//! lost, after which the process must end at once; [`Election::release`] gives it back, so that a successor need not wait.
//!
//! # Guarantees
//! A holder stops `DURATION - DEADLINE` before anybody else may take the Lease. Expiry is measured on this machine's
//! monotonic clock from the moment a renewal was *seen*, so clocks of different machines need not agree.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::time::{Instant, sleep, timeout};

use crate::apply::is_conflict;

const NAME: &str = "switchboard-operator";
/// Others wait this long without a renewal.
const DURATION: Duration = Duration::from_secs(15);
/// The holder gives up after this long without one.
const DEADLINE: Duration = Duration::from_secs(10);
/// Between two attempts; several fit into the deadline.
const PERIOD: Duration = Duration::from_secs(2);

/// One replica's part in the election.
pub struct Election {
    api: Api<Lease>,
    identity: String,
    /// The Lease as last seen, and when its holder or renewal last changed.
    seen: Option<(LeaseSpec, Instant)>,
}

impl Election {
    /// Takes part under a unique name.
    pub fn new(client: Client, namespace: &str, identity: String) -> Self {
        Self { api: Api::namespaced(client, namespace), identity, seen: None }
    }

    /// Waits until this replica is the leader.
    pub async fn acquire(&mut self) {
        loop {
            match self.try_hold().await {
                Ok(true) => return,
                Ok(false) => tracing::debug!("standing by"),
                Err(error) => tracing::warn!(%error, "the Lease cannot be read or written"),
            }
            sleep(PERIOD).await;
        }
    }

    /// Renews until that is impossible for too long, or another replica holds the Lease.
    pub async fn keep(&mut self) {
        let mut renewed = Instant::now();
        loop {
            sleep(PERIOD).await;
            let left = DEADLINE.saturating_sub(renewed.elapsed());
            let began = Instant::now();
            match timeout(left, self.try_hold()).await {
                Ok(Ok(true)) => renewed = began,
                Ok(Ok(false)) => return,
                Ok(Err(error)) if renewed.elapsed() < DEADLINE => {
                    tracing::warn!(%error, "the Lease was not renewed, trying again");
                }
                Ok(Err(_)) | Err(_) => return,
            }
        }
    }

    /// Gives the Lease back. Best effort: it expires by itself.
    pub async fn release(&mut self) {
        let given_back = async {
            let mut lease = self.api.get(NAME).await?;
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_ref() == Some(&self.identity) {
                spec.holder_identity = None;
                self.api.replace(NAME, &PostParams::default(), &lease).await?;
            }
            Ok::<_, kube::Error>(())
        };
        if let Err(error) = given_back.await {
            tracing::warn!(%error, "the Lease was not given back and expires by itself");
        }
    }

    /// Takes or renews the Lease where that is allowed; whether it is held now.
    async fn try_hold(&mut self) -> Result<bool, kube::Error> {
        let Some(mut lease) = self.api.get_opt(NAME).await? else {
            let metadata = ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(self.held(&LeaseSpec::default())) };
            return as_won(self.api.create(&PostParams::default(), &lease).await);
        };
        let spec = lease.spec.take().unwrap_or_default();
        if !self.may_take(&spec, Instant::now()) {
            return Ok(false);
        }
        lease.spec = Some(self.held(&spec));
        // With the resourceVersion that was read: of two replicas that try, one gets a conflict.
        as_won(self.api.replace(NAME, &PostParams::default(), &lease).await)
    }

    /// Whether the Lease is ours, free, or expired.
    fn may_take(&mut self, spec: &LeaseSpec, now: Instant) -> bool {
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        if holder.is_empty() || holder == self.identity {
            return true;
        }
        match &self.seen {
            Some((seen, since)) if seen == spec => now.duration_since(*since) >= DURATION,
            Some(_) | None => {
                self.seen = Some((spec.clone(), now));
                false
            }
        }
    }

    fn held(&self, before: &LeaseSpec) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let is_renewal = before.holder_identity.as_ref() == Some(&self.identity);
        let transitions = before.lease_transitions.unwrap_or_default();
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: if is_renewal { before.acquire_time.clone() } else { Some(now.clone()) },
            renew_time: Some(now),
            lease_transitions: Some(if is_renewal { transitions } else { transitions.saturating_add(1) }),
            ..LeaseSpec::default()
        }
    }
}

fn as_won(result: Result<Lease, kube::Error>) -> Result<bool, kube::Error> {
    match result {
        Ok(_) => Ok(true),
        Err(error) if is_conflict(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn election() -> Election {
        let service = tower_free_client();
        Election::new(service, "switchboard-system", "a".to_owned())
    }

    /// A client that is never asked.
    fn tower_free_client() -> Client {
        let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        Client::try_from(config).unwrap()
    }

    fn held_by(holder: &str, renewed: i64) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            renew_time: Some(MicroTime(Timestamp::from_second(renewed).unwrap())),
            ..LeaseSpec::default()
        }
    }

    #[tokio::test]
    async fn a_lease_is_taken_only_after_its_holder_was_silent_for_its_duration() {
        let mut election = election();
        let start = Instant::now();
        assert!(!election.may_take(&held_by("b", 1), start));
        assert!(!election.may_take(&held_by("b", 1), start + DURATION - Duration::from_millis(1)));
        // A renewal starts the clock again, whatever its time says.
        assert!(!election.may_take(&held_by("b", 2), start + DURATION));
        assert!(!election.may_take(&held_by("b", 2), start + DURATION + Duration::from_secs(1)));
        assert!(election.may_take(&held_by("b", 2), start + DURATION * 2));
    }

    #[tokio::test]
    async fn ones_own_and_a_free_lease_are_taken_at_once() {
        let mut election = election();
        assert!(election.may_take(&held_by("a", 1), Instant::now()));
        assert!(election.may_take(&held_by("", 1), Instant::now()));
        assert!(election.may_take(&LeaseSpec::default(), Instant::now()));
    }
}
