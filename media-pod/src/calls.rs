//! The calls this pod carries: who is here, how many may be, and how to reach one.
//!
//! Must never: be the reason a call ends. A guard ([`Admitted`]) lives as long as its leg; dropping it, also by a panic,
//! frees the place.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use call_session::io::Command;
use call_session::{CallSid, Epoch};
use tokio::sync::{mpsc, watch};

use crate::metrics::Metrics;

/// Commands that wait for a call to read them; a person presses hang-up once or twice.
const MOST_COMMANDS: usize = 4;

/// The registry.
#[derive(Clone)]
pub struct Calls {
    shared: Arc<Shared>,
}

struct Shared {
    legs: Mutex<HashMap<(CallSid, Epoch), mpsc::Sender<Command>>>,
    /// How many legs there are.
    count: watch::Sender<usize>,
    metrics: Arc<Metrics>,
}

/// A place taken by one leg of a call.
pub struct Admitted {
    shared: Arc<Shared>,
    leg: (CallSid, Epoch),
    /// What people and the API want of the call.
    pub commands: mpsc::Receiver<Command>,
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
        let (sender, commands) = mpsc::channel(MOST_COMMANDS);
        let mut legs = self.shared.legs();
        if legs.contains_key(&leg) {
            return Err(NotAdmitted::Present);
        }
        if legs.len() >= usize::try_from(capacity).unwrap_or(usize::MAX) {
            return Err(NotAdmitted::Full);
        }
        legs.insert(leg.clone(), sender);
        self.shared.publish(&legs);
        Ok(Admitted { shared: self.shared.clone(), leg, commands })
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
    pub fn legs(&self) -> Vec<(CallSid, Epoch)> {
        self.shared.legs().keys().cloned().collect()
    }

    /// Tells the newest leg of a call something; whether the call is here.
    pub fn command(&self, call: &CallSid, command: Command) -> bool {
        let legs = self.shared.legs();
        let newest = legs.iter().filter(|((sid, _), _)| sid == call).max_by_key(|((_, epoch), _)| *epoch);
        let Some((_, sender)) = newest else { return false };
        // A full queue holds the same command already.
        let _ = sender.try_send(command);
        true
    }
}

impl Shared {
    /// A panic while the lock is held cannot leave the map half changed, so a poisoned lock is as good as any.
    fn legs(&self) -> MutexGuard<'_, HashMap<(CallSid, Epoch), mpsc::Sender<Command>>> {
        self.legs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, legs: &HashMap<(CallSid, Epoch), mpsc::Sender<Command>>) {
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
    async fn a_command_reaches_the_newest_leg_only() {
        let calls = Calls::new(Arc::new(Metrics::register().unwrap()));
        let mut old = calls.admit(&sid(1), Epoch(0), 9).unwrap();
        let mut new = calls.admit(&sid(1), Epoch(1), 9).unwrap();
        assert!(calls.command(&sid(1), Command::HangUp));
        assert!(!calls.command(&sid(2), Command::HangUp));
        assert_eq!(new.commands.try_recv(), Ok(Command::HangUp));
        assert!(old.commands.try_recv().is_err());
    }
}
