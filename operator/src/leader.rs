//! Leader election by a Lease: one replica reconciles, the others stand by.
//!
//! # Expected flow
//! [`Election::acquire`] returns when this replica holds the Lease; [`Election::keep`] renews it and returns when it is
//! lost, after which the process must end at once; [`Election::release`] gives it back, so that a successor need not wait.
//!
//! # Guarantees
//! A holder stops `DURATION - DEADLINE` before anybody else may take the Lease, and [`Standing`] says so at any moment:
//! a process that was paused knows on its first step that its time is over, before any timer has fired. Expiry is
//! measured on this machine's monotonic clock from the moment a renewal was *seen*, so clocks of different machines need
//! not agree.
//!
//! # Caveats
//! A request that had left when the process was paused arrives when it arrives. Statuses are therefore written with the
//! version they were computed from, and children by server-side apply, which is idempotent.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::time::{Instant, sleep, timeout};

use crate::apply::is_conflict;

/// The Lease.
pub const NAME: &str = "switchboard-operator";
/// Others wait this long without a renewal. This and the next two are what client-go has.
const DURATION: Duration = Duration::from_secs(15);
/// The holder gives up after this long without one.
const DEADLINE: Duration = Duration::from_secs(10);
/// After a failed renewal; several attempts fit into the deadline.
const RETRY: Duration = Duration::from_secs(2);
/// Between two renewals, and between two looks of those who stand by. client-go renews as often as it retries, which
/// would be most of what an idle operator asks of the API server.
const PERIOD: Duration = Duration::from_secs(5);

/// Until when this replica leads, as far as it knows. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct Standing(Arc<Mutex<Option<Instant>>>);

/// This replica does not lead, or not any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this replica does not lead any more")]
pub struct NotLeading;

impl Standing {
    /// Whether this replica may act now.
    ///
    /// # Errors
    /// [`NotLeading`].
    pub fn check(&self) -> Result<(), NotLeading> {
        let until = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if until.is_some_and(|until| Instant::now() < until) { Ok(()) } else { Err(NotLeading) }
    }

    /// It leads for [`DEADLINE`] from the moment at which a renewal that succeeded was begun.
    pub(crate) fn renewed(&self, began: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(began + DEADLINE);
    }

    fn end(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// One replica's part in the election.
pub struct Election {
    api: Api<Lease>,
    identity: String,
    standing: Standing,
    /// The Lease as last seen, and when its holder or renewal last changed.
    seen: Option<(LeaseSpec, Instant)>,
    /// The Lease as last written.
    held: Option<Lease>,
}

impl Election {
    /// Takes part under a unique name.
    pub fn new(client: Client, namespace: &str, identity: String) -> Self {
        let api = Api::namespaced(client, namespace);
        Self { api, identity, standing: Standing::default(), seen: None, held: None }
    }

    /// Says at any moment whether this replica leads.
    pub fn standing(&self) -> Standing {
        self.standing.clone()
    }

    /// Waits until this replica is the leader.
    pub async fn acquire(&mut self) {
        loop {
            let began = Instant::now();
            match timeout(DEADLINE, self.try_hold()).await {
                Ok(Ok(true)) => return self.standing.renewed(began),
                Ok(Ok(false)) => tracing::debug!("standing by"),
                Ok(Err(error)) => tracing::warn!(%error, "the Lease cannot be read or written"),
                Err(_) => tracing::warn!("the Lease was not answered for in time"),
            }
            sleep(PERIOD).await;
        }
    }

    /// Renews until that is impossible for too long, or another replica holds the Lease.
    pub async fn keep(&mut self) {
        let mut renewed = Instant::now();
        let mut wait = PERIOD;
        loop {
            sleep(wait).await;
            let left = DEADLINE.saturating_sub(renewed.elapsed());
            let began = Instant::now();
            match timeout(left, self.try_hold()).await {
                Ok(Ok(true)) => {
                    (renewed, wait) = (began, PERIOD);
                    self.standing.renewed(began);
                }
                Ok(Err(error)) if renewed.elapsed() < DEADLINE => {
                    tracing::warn!(%error, "the Lease was not renewed, trying again");
                    wait = RETRY;
                }
                Ok(Ok(false) | Err(_)) | Err(_) => return self.standing.end(),
            }
        }
    }

    /// Gives the Lease back. Best effort: it expires by itself.
    pub async fn release(&mut self) {
        self.standing.end();
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
        // Known from the last renewal, so that one request does. A conflict means that somebody else wrote it: look who.
        if let Some(lease) = self.held.take()
            && self.write(lease).await?
        {
            return Ok(true);
        }
        let Some(lease) = self.api.get_opt(NAME).await? else {
            let metadata = ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(self.renewal(&LeaseSpec::default())) };
            let answer = self.api.create(&PostParams::default(), &lease).await;
            return self.as_won(answer);
        };
        let may_take = self.may_take(&lease.spec.clone().unwrap_or_default(), Instant::now());
        Ok(may_take && self.write(lease).await?)
    }

    /// Renews a Lease as it was read: of two replicas that try, one gets a conflict.
    async fn write(&mut self, mut lease: Lease) -> Result<bool, kube::Error> {
        lease.spec = Some(self.renewal(&lease.spec.unwrap_or_default()));
        let answer = self.api.replace(NAME, &PostParams::default(), &lease).await;
        self.as_won(answer)
    }

    fn as_won(&mut self, answer: Result<Lease, kube::Error>) -> Result<bool, kube::Error> {
        match answer {
            Ok(lease) => {
                self.held = Some(lease);
                Ok(true)
            }
            Err(error) if is_conflict(&error) => Ok(false),
            Err(error) => Err(error),
        }
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

    fn renewal(&self, before: &LeaseSpec) -> LeaseSpec {
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

    #[tokio::test(start_paused = true)]
    async fn a_standing_ends_by_itself_before_others_may_take_the_lease() {
        let standing = Standing::default();
        assert_eq!(standing.check(), Err(NotLeading));
        standing.renewed(Instant::now());
        assert_eq!(standing.check(), Ok(()));
        tokio::time::advance(DEADLINE).await;
        assert_eq!(standing.check(), Err(NotLeading), "no timer had to fire for it");
        assert!(DEADLINE + Duration::from_secs(1) < DURATION);
    }

    #[tokio::test]
    async fn who_gives_up_does_not_lead() {
        let election = election();
        election.standing().renewed(Instant::now());
        assert_eq!(election.standing.check(), Ok(()));
        election.standing().end();
        assert_eq!(election.standing.check(), Err(NotLeading));
    }
}
