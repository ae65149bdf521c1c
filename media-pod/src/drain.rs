//! How a pod leaves: SIGTERM, lame duck, no new calls, calls end by themselves, hand-over, exit.
//!
//! *Flow*: `Serving → LameDuck → Refusing → HandingOver → Gone`. In lame duck new calls are still admitted, because TwiML
//! already handed out points here. From `HandingOver` on every call is told to leave between utterances.
//!
//! *Guarantees*: it ends at most the window plus [`HAND_OVER`] after it began, whatever the calls do; it never ends
//! while a call could go on within the window, nor while one that left at its deadline still writes and says goodbye.
//! A second signal ends it at once.

use std::future::Future;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// How long after the window calls may look for a pause to leave in. A longer utterance is cut off by the hand-over.
const PAUSE: Duration = Duration::from_secs(10);

/// After the window nothing is waited for any longer: the time for a pause, and 5 s for a call that found none to write
/// down what is needed to go on elsewhere (2 s at most) and to close its socket (2 s at most). The grace period is the
/// window plus 30 s: this, 3 s for the doors, and a margin for the process itself.
pub const HAND_OVER: Duration = Duration::from_secs(15);

/// Where a pod is on its way out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Nobody has asked it to leave.
    #[default]
    Serving,
    /// Leaving; new calls are still admitted.
    LameDuck,
    /// New calls are refused, running ones go on.
    Refusing,
    /// Running calls are handed over until this time.
    HandingOver {
        /// When the last one must leave, pause or not. It is waited for a little longer.
        deadline: Instant,
    },
    /// What is left is cut off.
    Gone,
}

impl Phase {
    /// Whether a new leg may begin.
    pub const fn admits(self) -> bool {
        match self {
            Self::Serving | Self::LameDuck => true,
            Self::Refusing | Self::HandingOver { .. } | Self::Gone => false,
        }
    }

    /// Whether the pod is on its way out.
    pub fn is_draining(self) -> bool {
        self != Self::Serving
    }
}

/// The times of one departure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Departure {
    /// New calls are admitted this long.
    pub lame_duck: Duration,
    /// Calls go on this long, from the same moment.
    pub window: Duration,
}

impl Departure {
    /// Goes through the phases. `idle` makes a future that ends when no call is left.
    pub async fn run<F>(self, phase: &watch::Sender<Phase>, idle: impl Fn() -> F)
    where
        F: Future<Output = ()>,
    {
        let began = Instant::now();
        let end_of_window = began + self.window;
        phase.send_replace(Phase::LameDuck);
        tracing::info!(window = ?self.window, lame_duck = ?self.lame_duck, "leaving: new calls are still admitted");
        tokio::time::sleep_until((began + self.lame_duck).min(end_of_window)).await;

        phase.send_replace(Phase::Refusing);
        tracing::info!("leaving: new calls are refused");
        if timeout_at(end_of_window, idle()).await.is_err() {
            phase.send_replace(Phase::HandingOver { deadline: end_of_window + PAUSE });
            tracing::info!("leaving: running calls are handed over");
            if timeout_at(end_of_window + HAND_OVER, idle()).await.is_err() {
                tracing::warn!("leaving: calls are cut off");
            }
        }
        phase.send_replace(Phase::Gone);
    }
}

/// The time calls may go on: the process's setting, else the agent file's. Clamped to what this pod *started* with,
/// because its grace period was made from that.
pub fn window(setting: Option<Duration>, agent_window_seconds: u32) -> Duration {
    setting.unwrap_or_else(|| Duration::from_secs(u64::from(agent_window_seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPARTURE: Departure =
        Departure { lame_duck: Duration::from_secs(12), window: Duration::from_secs(270) };

    /// Runs a departure with calls that end after `busy`; every phase with the second it began.
    async fn phases(departure: Departure, busy: Duration) -> Vec<(u64, &'static str)> {
        let began = Instant::now();
        let phase = watch::Sender::new(Phase::Serving);
        phases_until(departure, &phase, || tokio::time::sleep_until(began + busy)).await
    }

    /// The same with calls that end with `idle`.
    async fn phases_until<F: Future<Output = ()>>(
        departure: Departure,
        phase: &watch::Sender<Phase>,
        idle: impl Fn() -> F,
    ) -> Vec<(u64, &'static str)> {
        let began = Instant::now();
        let mut changes = phase.subscribe();
        let watcher = tokio::spawn(async move {
            let mut seen = Vec::new();
            while changes.changed().await.is_ok() {
                let name = match *changes.borrow_and_update() {
                    Phase::Serving => "serving",
                    Phase::LameDuck => "lame duck",
                    Phase::Refusing => "refusing",
                    Phase::HandingOver { .. } => "handing over",
                    Phase::Gone => "gone",
                };
                seen.push((began.elapsed().as_secs(), name));
                if name == "gone" {
                    break;
                }
            }
            seen
        });
        departure.run(phase, idle).await;
        watcher.await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_pod_stays_for_the_lame_duck_and_leaves() {
        let seen = phases(DEPARTURE, Duration::ZERO).await;
        assert!(seen.ends_with(&[(12, "gone")]), "{seen:?}");
        assert_eq!(seen[0], (0, "lame duck"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_ends_within_the_window_is_waited_for() {
        let seen = phases(DEPARTURE, Duration::from_secs(100)).await;
        assert_eq!(seen, [(0, "lame duck"), (12, "refusing"), (100, "gone")]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_longer_call_is_handed_over_at_the_end_of_the_window() {
        let seen = phases(DEPARTURE, Duration::from_secs(275)).await;
        assert_eq!(seen, [(0, "lame duck"), (12, "refusing"), (270, "handing over"), (275, "gone")]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_finds_no_pause_has_time_for_its_last_words() {
        // What a leg may take for its ending and its socket's close.
        const LAST_WORDS: Duration = Duration::from_secs(4);
        let phase = watch::Sender::new(Phase::Serving);
        let gone = || async {
            let told = phase
                .subscribe()
                .wait_for(|phase| matches!(phase, Phase::HandingOver { .. }))
                .await
                .map(|phase| *phase);
            let Ok(Phase::HandingOver { deadline }) = told else { panic!("{told:?}") };
            tokio::time::sleep_until(deadline + LAST_WORDS).await;
        };
        let seen = phases_until(DEPARTURE, &phase, gone).await;
        assert_eq!(seen, [(0, "lame duck"), (12, "refusing"), (270, "handing over"), (284, "gone")]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_never_leaves_does_not_hold_the_pod() {
        let seen = phases(DEPARTURE, Duration::from_secs(100_000)).await;
        assert_eq!(seen, [(0, "lame duck"), (12, "refusing"), (270, "handing over"), (285, "gone")]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_window_shorter_than_the_lame_duck_wins() {
        let departure = Departure { window: Duration::from_secs(5), ..DEPARTURE };
        let seen = phases(departure, Duration::from_secs(100_000)).await;
        assert_eq!(seen, [(0, "lame duck"), (5, "handing over"), (20, "gone")]);
    }

    #[test]
    fn admission_follows_the_phase() {
        assert!(Phase::Serving.admits() && Phase::LameDuck.admits());
        assert!(!Phase::Refusing.admits() && !Phase::Gone.admits());
        assert!(!Phase::Serving.is_draining() && Phase::LameDuck.is_draining());
    }
}
