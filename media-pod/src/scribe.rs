//! A leg's journal and ending on their way to the store, off the audio path.
//!
//! One task per leg writes what the bridge hands over, in order, and says up to where it is durable. The bridge never
//! waits for the store while audio runs. Bounded: when [`MOST_WAITING`] entries wait (the store is away), the journal of
//! this leg ends there, because it may have no gaps; the call goes on, and what must be durable first stays undone.
//!
//! Entries may quote people: they are handed over whole and never logged.

use std::sync::Arc;
use std::time::Duration;

use call_session::io::{Ending, Input};
use call_session::journal::Entry;
use call_session::{CallSid, Epoch};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::metrics::Metrics;
use crate::store::Store;

/// Entries that wait for the store: some minutes of lively talk.
const MOST_WAITING: usize = 512;

/// Entries written at once.
const BATCH: usize = 64;

/// Pause after the store failed, doubled each time …
const PAUSE: Duration = Duration::from_millis(100);

/// … up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How long a leg that is over still tries to write its last words when the store is away.
const GIVE_UP: Duration = Duration::from_secs(60);

/// Which leg.
#[derive(Clone, Debug)]
pub(crate) struct LegId {
    pub(crate) call: CallSid,
    pub(crate) epoch: Epoch,
}

/// How far the store has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Progress {
    durable: u64,
    is_lost: bool,
}

enum Work {
    Entry(Entry),
    Ending(Ending),
}

/// The bridge's end.
pub(crate) struct Scribe {
    work: mpsc::Sender<Work>,
    progress: watch::Receiver<Progress>,
    /// What the machine was told last.
    told: Progress,
    /// Whether an entry had to be dropped: the journal ends before it.
    is_cut: bool,
    task: JoinHandle<()>,
    metrics: Arc<Metrics>,
}

impl Scribe {
    /// Starts the leg's writer.
    pub(crate) fn spawn(store: Arc<dyn Store>, leg: LegId, metrics: Arc<Metrics>) -> Self {
        let (work, waiting) = mpsc::channel(MOST_WAITING);
        let (sender, progress) = watch::channel(Progress::default());
        let writer = Writer { store, leg, metrics: metrics.clone(), progress: sender };
        let task = tokio::spawn(writer.run(waiting));
        Self { work, progress, told: Progress::default(), is_cut: false, task, metrics }
    }

    /// Hands an entry over.
    pub(crate) fn write(&mut self, entry: Entry) {
        if self.is_cut || self.work.try_send(Work::Entry(entry)).is_err() {
            if !self.is_cut {
                tracing::warn!("the store has been away too long: the journal of this leg ends here");
            }
            self.is_cut = true;
            self.metrics.records_dropped.inc();
        }
    }

    /// What the machine must be told of the store; pends while there is nothing new. Cancel-safe.
    pub(crate) async fn news(&mut self) -> Input {
        loop {
            let now = *self.progress.borrow_and_update();
            if now.durable > self.told.durable {
                self.told.durable = now.durable;
                return Input::JournalDurable { up_to: now.durable };
            }
            if now.is_lost != self.told.is_lost {
                self.told.is_lost = now.is_lost;
                return if now.is_lost { Input::StoreLost } else { Input::StoreBack };
            }
            if self.progress.changed().await.is_err() {
                // The writer is gone, by a panic: nothing becomes durable any more.
                return std::future::pending().await;
            }
        }
    }

    /// Writes how the leg ended, after all entries; waits at most for `patience`. The writer goes on trying for a while.
    pub(crate) async fn finish(self, ending: Ending, patience: Duration) {
        let Self { work, task, .. } = self;
        let written = async {
            // The queue may be full while the store is away.
            let _ = work.send(Work::Ending(ending)).await;
            drop(work);
            let _ = task.await;
        };
        if tokio::time::timeout(patience, written).await.is_err() {
            tracing::warn!("the ending of the leg is not in the store yet");
        }
    }
}

struct Writer {
    store: Arc<dyn Store>,
    leg: LegId,
    metrics: Arc<Metrics>,
    progress: watch::Sender<Progress>,
}

impl Writer {
    async fn run(self, mut waiting: mpsc::Receiver<Work>) {
        let mut batch = Vec::with_capacity(BATCH);
        while waiting.recv_many(&mut batch, BATCH).await > 0 {
            let mut entries = Vec::new();
            let mut ending = None;
            for work in batch.drain(..) {
                match work {
                    Work::Entry(entry) => entries.push(entry),
                    Work::Ending(last) => ending = Some(last),
                }
            }
            if !self.persist(&entries, ending.as_ref(), &waiting).await {
                self.metrics.records_dropped.inc_by(entries.len() as u64);
                tracing::warn!("the last words of the leg were not written: the store is away");
                return;
            }
        }
    }

    /// Writes until it is written; false when the leg is over and the store stays away.
    async fn persist(
        &self,
        entries: &[Entry],
        ending: Option<&Ending>,
        waiting: &mpsc::Receiver<Work>,
    ) -> bool {
        let mut pause = PAUSE;
        let mut over_since = None;
        loop {
            match self.write(entries, ending).await {
                Ok(()) => break,
                Err(error) => {
                    self.metrics.store_failures.inc();
                    tracing::debug!(%error, "the journal could not be written");
                }
            }
            self.progress.send_if_modified(|progress| !std::mem::replace(&mut progress.is_lost, true));
            if waiting.is_closed() || waiting.sender_strong_count() == 0 {
                let since = *over_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= GIVE_UP {
                    return false;
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        let durable = entries.last().map(|entry| entry.sequence);
        self.progress.send_if_modified(|progress| {
            let next = Progress { durable: durable.unwrap_or(progress.durable), is_lost: false };
            std::mem::replace(progress, next) != next
        });
        true
    }

    async fn write(
        &self,
        entries: &[Entry],
        ending: Option<&Ending>,
    ) -> Result<(), crate::store::StoreError> {
        if !entries.is_empty() {
            self.store.append_journal(&self.leg.call, entries).await?;
        }
        if let Some(ending) = ending {
            self.store.record_ending(&self.leg.call, self.leg.epoch, ending).await?;
        }
        Ok(())
    }
}
