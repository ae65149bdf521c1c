//! Warm sessions: connections to a model opened ahead of calls, so that a caller does not wait for one.
//!
//! *Flow*: one [`Shelf`] per place to connect to. Each connection on it is held by a small task that answers the
//! model's pings until somebody wants it: [`WarmPool::connect`] gets the connection out of its task, the call's own
//! `session.update` personalises it. [`WarmPool::keep`] refills, and clears shelves nobody wants any more.
//!
//! *Guarantees*: a connection given away has said `session.created`, was opened with the key that is valid now, and has
//! about half of its life ahead. It belongs to one call. Without one the call dials as if there were no shelf.
//!
//! *Caveats*: failures are retried with backoff and never touch a call.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use call_session::agent_file::{AgentFile, EngineKind, RealtimeEngine};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use twilio::Secret;

use super::Keys;
use super::realtime::{Dialer, Dialing, Open};
use crate::clock::Clock;
use crate::drain::Phase;
use crate::metrics::{EngineLabel, Metrics, WarmLabel};

/// How often the key is read anew, and a shelf whose backoff is over is filled.
const LOOK: Duration = Duration::from_secs(1);

/// The shortest life of a session that was ever documented (protocol sheet 5.1): calls replace a connection before that
/// age, whatever the model says about its end.
const SHORTEST_LIFE: Duration = Duration::from_secs(30 * 60);

/// Backoff after the first failure; each further one waits twice as long.
const BACKOFF_BASE: Duration = Duration::from_secs(1);

/// No backoff is longer: a model that is back is found within a minute.
const BACKOFF_CAP: Duration = Duration::from_secs(60);

/// How long connections may take to close when the pod leaves.
const CLOSING: Duration = Duration::from_secs(2);

/// The warm sessions of a pod.
pub(super) struct WarmPool {
    shelves: Mutex<Vec<Shelf>>,
    /// A connection was taken, opened or lost.
    changed: Notify,
    dialer: Dialer,
    keys: Keys,
    metrics: Arc<Metrics>,
}

/// The connections to one place.
struct Shelf {
    place: Arc<Place>,
    wanted: usize,
    /// Connections on their way here.
    opening: usize,
    idle: Vec<Idle>,
    failures: u32,
    /// No connection is opened before.
    not_before: Instant,
}

/// Where a connection goes, and with which key.
struct Place {
    engine: RealtimeEngine,
    key: Secret,
}

/// A connection that waits in its task: who wants it says where to. Closed when the connection is gone.
struct Idle(oneshot::Sender<oneshot::Sender<Box<Open>>>);

/// Why a connection does not wait any more.
enum Fate {
    Wanted(oneshot::Sender<Box<Open>>),
    Recycled,
    Failed,
}

impl WarmPool {
    pub(super) fn new(dialer: Dialer, keys: Keys, metrics: Arc<Metrics>) -> Self {
        Self { shelves: Mutex::default(), changed: Notify::new(), dialer, keys, metrics }
    }

    /// A connection for a call: a warm one, or one that is dialled when it is awaited.
    pub(super) fn connect(self: &Arc<Self>, engine: &RealtimeEngine, key: Option<Secret>) -> Dialing {
        let warm = key.as_ref().and_then(|key| self.take(engine, key));
        let wants_warm = engine.warm_sessions_per_pod > 0;
        let dialing = self.dialer.dial(engine, key);
        let metrics = self.metrics.clone();
        Box::pin(async move {
            if let Some(warm) = warm
                && let Ok(open) = warm.await
            {
                metrics.warm_sessions.inc(WarmLabel::Taken);
                return Ok(open);
            }
            if wants_warm {
                metrics.warm_sessions.inc(WarmLabel::Cold);
            }
            metrics.provider_connects.inc(EngineLabel::Realtime);
            dialing.await
        })
    }

    /// A connection that does not come from a shelf.
    pub(super) fn dial(&self, engine: &RealtimeEngine, key: Option<Secret>) -> Dialing {
        self.dialer.dial(engine, key)
    }

    /// Asks the task of the newest connection for it: the one with the longest life ahead.
    fn take(&self, engine: &RealtimeEngine, key: &Secret) -> Option<oneshot::Receiver<Box<Open>>> {
        let mut shelves = self.shelves();
        let shelf = shelves.iter_mut().find(|shelf| shelf.place.is(engine, key))?;
        while let Some(Idle(ask)) = shelf.idle.pop() {
            let (give, given) = oneshot::channel();
            if ask.send(give).is_ok() {
                shelf.failures = 0;
                self.publish(&shelves);
                self.changed.notify_one();
                return Some(given);
            }
        }
        None
    }

    /// Keeps the shelves as full as the agent file asks, until `phase` admits no more calls; then closes what is left.
    pub(super) async fn keep(
        self: Arc<Self>,
        mut agent: watch::Receiver<Arc<AgentFile>>,
        mut phase: watch::Receiver<Phase>,
        clock: Clock,
    ) {
        let holders = TaskTracker::new();
        while phase.borrow_and_update().admits() {
            let current = agent.borrow_and_update().clone();
            for place in self.arrange(&current) {
                holders.spawn(self.clone().hold(place, clock.clone()));
            }
            tokio::select! {
                () = self.changed.notified() => {}
                () = tokio::time::sleep(LOOK) => {}
                Ok(()) = agent.changed() => {}
                changed = phase.changed() => if changed.is_err() { break },
            }
        }
        self.clear();
        holders.close();
        if tokio::time::timeout(CLOSING, holders.wait()).await.is_err() {
            tracing::debug!("a model did not answer the close of a warm session");
        }
    }

    fn clear(&self) {
        let mut shelves = self.shelves();
        shelves.clear();
        self.publish(&shelves);
    }

    /// Makes the shelves fit the agent file and the keys; the places to which one more connection is to be opened.
    fn arrange(&self, agent: &AgentFile) -> Vec<Arc<Place>> {
        let wanted = self.wanted(agent);
        let now = Instant::now();
        let mut due = Vec::new();
        let mut shelves = self.shelves();
        shelves.retain(|shelf| wanted.iter().any(|(place, _)| shelf.place.is(&place.engine, &place.key)));
        for (place, wanted) in wanted {
            let known = shelves.iter().position(|shelf| shelf.place.is(&place.engine, &place.key));
            let index = known.unwrap_or_else(|| {
                shelves.push(Shelf::new(place, now));
                shelves.len() - 1
            });
            let shelf = &mut shelves[index];
            shelf.idle.retain(Idle::is_alive);
            shelf.idle.truncate(wanted);
            shelf.wanted = wanted;
            while shelf.idle.len() + shelf.opening < shelf.wanted && shelf.not_before <= now {
                shelf.opening += 1;
                due.push(shelf.place.clone());
            }
        }
        self.publish(&shelves);
        due
    }

    /// How many connections to which place; engines that differ only in what `session.update` says share them. Without
    /// a readable key there is nothing to open.
    fn wanted(&self, agent: &AgentFile) -> Vec<(Place, usize)> {
        let mut wanted: Vec<(Place, usize)> = Vec::new();
        for engine in &agent.engines {
            let EngineKind::Realtime { realtime } = &engine.kind else { continue };
            let count = usize::try_from(realtime.warm_sessions_per_pod).unwrap_or(usize::MAX);
            if count == 0 {
                continue;
            }
            let Some(key) = (self.keys)(&realtime.api_key) else { continue };
            match wanted.iter_mut().find(|(place, _)| place.is(realtime, &key)) {
                Some((_, sum)) => *sum += count,
                None => wanted.push((Place { engine: realtime.clone(), key }, count)),
            }
        }
        wanted
    }

    /// One connection, from its dialling to the call that takes it or to its end.
    async fn hold(self: Arc<Self>, place: Arc<Place>, clock: Clock) {
        let metrics = &self.metrics;
        metrics.provider_connects.inc(EngineLabel::Realtime);
        let opened = async {
            let dialled = self.dialer.dial(&place.engine, Some(place.key.clone())).await;
            let mut open = dialled.map_err(|error| {
                tracing::warn!(%error, "no warm session was opened");
                error.loss()
            })?;
            open.warm_up(metrics).await?;
            Ok(open)
        };
        let mut open = match opened.await {
            Ok(open) => open,
            Err(reason) => {
                metrics.provider_failures.inc(reason);
                metrics.warm_sessions.inc(WarmLabel::Failed);
                self.settle(&place, |shelf| {
                    shelf.opening -= 1;
                    shelf.fail();
                });
                return;
            }
        };
        let life = shelf_life(open.expires_at(), clock().seconds());
        let since = Instant::now();
        let (ask, asked) = oneshot::channel();
        self.settle(&place, |shelf| {
            shelf.opening -= 1;
            shelf.idle.push(Idle(ask));
        });
        let fate = tokio::select! {
            biased;
            wanted = asked => wanted.map_or(Fate::Recycled, Fate::Wanted),
            () = tokio::time::sleep(life) => Fate::Recycled,
            reason = open.stay_warm(metrics) => {
                tracing::debug!(?reason, "a warm session was lost");
                metrics.provider_failures.inc(reason);
                Fate::Failed
            }
        };
        let unused = match fate {
            Fate::Wanted(give) => match give.send(open) {
                Ok(()) => return,
                Err(open) => open, // the call ended at once
            },
            Fate::Recycled => {
                self.settle(&place, |shelf| shelf.failures = 0);
                open
            }
            Fate::Failed => {
                metrics.warm_sessions.inc(WarmLabel::Failed);
                self.settle(&place, |shelf| {
                    if since.elapsed() >= BACKOFF_CAP {
                        shelf.failures = 0; // the model works, it just did not want to wait
                    }
                    shelf.fail();
                });
                return;
            }
        };
        metrics.warm_sessions.inc(WarmLabel::Recycled);
        unused.close(metrics).await;
    }

    /// Changes the shelf of this very place, if it still stands.
    fn settle(&self, place: &Arc<Place>, change: impl FnOnce(&mut Shelf)) {
        let mut shelves = self.shelves();
        if let Some(shelf) = shelves.iter_mut().find(|shelf| Arc::ptr_eq(&shelf.place, place)) {
            change(shelf);
        }
        self.publish(&shelves);
        self.changed.notify_one();
    }

    fn publish(&self, shelves: &[Shelf]) {
        let idle = shelves.iter().flat_map(|shelf| &shelf.idle).filter(|idle| idle.is_alive()).count();
        self.metrics.warm_idle.set(i64::try_from(idle).unwrap_or(i64::MAX));
    }

    fn shelves(&self) -> MutexGuard<'_, Vec<Shelf>> {
        // Every change is done in one step: a panic elsewhere leaves nothing half done.
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelf {
    fn new(place: Place, now: Instant) -> Self {
        Self { place: Arc::new(place), wanted: 0, opening: 0, idle: Vec::new(), failures: 0, not_before: now }
    }

    /// A connection failed: the next one waits. Connections that fail together count once.
    fn fail(&mut self) {
        let now = Instant::now();
        if self.not_before <= now {
            let doubled = BACKOFF_BASE.saturating_mul(1 << self.failures.min(16));
            self.not_before = now + jittered(doubled.min(BACKOFF_CAP));
            self.failures = self.failures.saturating_add(1);
        }
    }
}

impl Place {
    /// Whether a connection of this place serves `engine` with `key`.
    fn is(&self, engine: &RealtimeEngine, key: &Secret) -> bool {
        self.engine.url == engine.url
            && self.engine.model == engine.model
            && self.key.expose() == key.expose()
    }
}

impl Idle {
    fn is_alive(&self) -> bool {
        !self.0.is_closed()
    }
}

/// How long a connection may wait: about half of its life, so that the call that takes it has the other half.
fn shelf_life(expires_at: Option<u64>, now: u64) -> Duration {
    let life = expires_at.map_or(SHORTEST_LIFE, |end| Duration::from_secs(end.saturating_sub(now)));
    let life = life.min(SHORTEST_LIFE);
    // Never at once, whatever the model says: that would be a loop of connections.
    jittered(life / 2).max(BACKOFF_BASE)
}

/// Between three quarters of a span and all of it: what began together does not end together.
fn jittered(span: Duration) -> Duration {
    let chance = RandomState::new().hash_one(0_u8) % 1024;
    let taken_off = span / 4 * u32::try_from(chance).unwrap_or(0) / 1024;
    span - taken_off
}

#[cfg(test)]
#[path = "warm/tests.rs"]
mod tests;
