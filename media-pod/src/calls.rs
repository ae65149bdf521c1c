//! The calls this pod carries: who is here, how many may be, and how to reach one.
//!
//! Must never: be the reason a call ends. A guard ([`Admitted`]) lives as long as its leg; dropping it, also by a panic,
//! frees the place.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use std::sync::atomic::{AtomicBool, Ordering};

use call_session::{CallSid, Epoch};
use tokio::sync::{mpsc, watch};

use crate::metrics::Metrics;

use crate::store::RenewedLeg;

/// Notices that wait for a call to read them; a person presses hang-up once or twice, leases repeat themselves.
const MOST_NOTICES: usize = 4;

/// What a leg is told from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A person or the API ends the call.
    HangUp,
    /// A newer leg of the call has taken over.
    Superseded,
    /// The carrier said the call is over.
    Over,
}

/// What the registry knows of a leg.
struct Place {
    notices: mpsc::Sender<Notice>,
    has_progressed: Arc<AtomicBool>,
}

type Places = HashMap<(CallSid, Epoch), Place>;

/// The registry.
#[derive(Clone)]
pub struct Calls {
    shared: Arc<Shared>,
}

struct Shared {
    legs: Mutex<Places>,
    /// How many legs there are.
    count: watch::Sender<usize>,
    metrics: Arc<Metrics>,
}

/// A place taken by one leg of a call.
pub struct Admitted {
    shared: Arc<Shared>,
    leg: (CallSid, Epoch),
    has_progressed: Arc<AtomicBool>,
    notices: mpsc::Receiver<Notice>,
}

/// Why a leg was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAdmitted {
    /// The pod carries all the calls it may.
    #[error("the pod carries all the calls it may")]
    Full,
    /// This very leg is here already.
    #[error("the leg is here already")]
    Present,
}

impl Calls {
    /// An empty registry.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        let shared = Shared { legs: Mutex::default(), count: watch::Sender::new(0), metrics };
        Self { shared: Arc::new(shared) }
    }

    /// Takes a place for a leg, if fewer than `capacity` are taken.
    ///
    /// # Errors
    /// [`NotAdmitted`].
    pub fn admit(&self, call: &CallSid, epoch: Epoch, capacity: u32) -> Result<Admitted, NotAdmitted> {
        let leg = (call.clone(), epoch);
        let (sender, notices) = mpsc::channel(MOST_NOTICES);
        let has_progressed = Arc::new(AtomicBool::new(false));
        let mut legs = self.shared.legs();
        if legs.contains_key(&leg) {
            return Err(NotAdmitted::Present);
        }
        if legs.len() >= usize::try_from(capacity).unwrap_or(usize::MAX) {
            return Err(NotAdmitted::Full);
        }
        legs.insert(leg.clone(), Place { notices: sender, has_progressed: has_progressed.clone() });
        self.shared.publish(&legs);
        Ok(Admitted { shared: self.shared.clone(), leg, has_progressed, notices })
    }

    /// How many legs are here.
    pub fn count(&self) -> usize {
        *self.shared.count.borrow()
    }

    /// Returns when no leg is here.
    pub async fn idle(&self) {
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.shared.count.subscribe().wait_for(|count| *count == 0).await;
    }

    /// The legs that are here, for their leases.
    pub fn legs(&self) -> Vec<RenewedLeg> {
        let legs = self.shared.legs();
        let renewed = |((call, epoch), place): (&(CallSid, Epoch), &Place)| RenewedLeg {
            call: call.clone(),
            epoch: *epoch,
            has_progressed: place.has_progressed.load(Ordering::Relaxed),
        };
        legs.iter().map(renewed).collect()
    }

    /// Tells one leg something; whether it is here.
    pub fn tell(&self, call: &CallSid, epoch: Epoch, notice: Notice) -> bool {
        let legs = self.shared.legs();
        let Some(place) = legs.get(&(call.clone(), epoch)) else { return false };
        // A full queue holds the same notice already.
        let _ = place.notices.try_send(notice);
        true
    }

    /// Tells the newest leg of a call something; whether the call is here.
    pub fn tell_newest(&self, call: &CallSid, notice: Notice) -> bool {
        let legs = self.shared.legs();
        let newest = legs.keys().filter(|(sid, _)| sid == call).map(|(_, epoch)| *epoch).max();
        drop(legs);
        newest.is_some_and(|epoch| self.tell(call, epoch, notice))
    }
}

impl Admitted {
    /// The next notice; pends when there is none. Cancel-safe.
    pub async fn notice(&mut self) -> Notice {
        match self.notices.recv().await {
            Some(notice) => notice,
            None => std::future::pending().await,
        }
    }

    /// Something happened in the leg: it counts as progress.
    pub fn progress(&self) {
        self.has_progressed.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    /// A panic while the lock is held cannot leave the map half changed, so a poisoned lock is as good as any.
    fn legs(&self) -> MutexGuard<'_, Places> {
        self.legs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, legs: &Places) {
        self.count.send_replace(legs.len());
        self.metrics.active_calls.set(i64::try_from(legs.len()).unwrap_or(i64::MAX));
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut legs = self.shared.legs();
        legs.remove(&self.leg);
        self.shared.publish(&legs);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sid(n: u8) -> CallSid {
        format!("CA{n:032x}").parse().unwrap()
    }

    #[tokio::test]
    async fn a_place_is_taken_until_its_guard_is_dropped() {
        let metrics = Arc::new(Metrics::register().unwrap());
        let calls = Calls::new(metrics.clone());
        let first = calls.admit(&sid(1), Epoch(0), 2).unwrap();
        let second = calls.admit(&sid(2), Epoch(0), 2).unwrap();
        assert_eq!(calls.admit(&sid(3), Epoch(0), 2).err(), Some(NotAdmitted::Full));
        assert_eq!(calls.admit(&sid(1), Epoch(0), 9).err(), Some(NotAdmitted::Present));
        assert_eq!(metrics.active_calls.get(), 2);

        drop(first);
        assert_eq!((calls.count(), metrics.active_calls.get()), (1, 1));
        let idle = tokio::spawn({
            let calls = calls.clone();
            async move { calls.idle().await }
        });
        drop(second);
        idle.await.unwrap();
        assert_eq!(calls.legs(), []);
    }

    #[tokio::test]
    async fn a_notice_reaches_the_newest_leg_only() {
        let calls = Calls::new(Arc::new(Metrics::register().unwrap()));
        let mut old = calls.admit(&sid(1), Epoch(0), 9).unwrap();
        let mut new = calls.admit(&sid(1), Epoch(1), 9).unwrap();
        assert!(calls.tell_newest(&sid(1), Notice::HangUp));
        assert!(!calls.tell_newest(&sid(2), Notice::HangUp));
        assert_eq!(new.notice().await, Notice::HangUp);
        assert!(old.notices.try_recv().is_err());
        assert!(calls.tell(&sid(1), Epoch(0), Notice::Superseded));
        assert_eq!(old.notice().await, Notice::Superseded);
    }

    #[tokio::test]
    async fn progress_is_told_with_the_lease() {
        let calls = Calls::new(Arc::new(Metrics::register().unwrap()));
        let leg = calls.admit(&sid(1), Epoch(3), 9).unwrap();
        assert!(!calls.legs()[0].has_progressed);
        leg.progress();
        let expected = RenewedLeg { call: sid(1), epoch: Epoch(3), has_progressed: true };
        assert_eq!(calls.legs(), [expected]);
    }
}
