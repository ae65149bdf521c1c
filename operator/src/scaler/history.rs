//! What the scaler remembers of one agent: what was wanted within the window, and when a pod last went.

use std::collections::VecDeque;
use std::time::Duration;

use crds::ScaleDown;
use tokio::time::Instant;

/// Pods may go at `podsPerMinute` of this.
const MINUTE: Duration = Duration::from_secs(60);

/// One agent's past, as far as it matters.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// What was wanted, and when; ever less towards the back, because an older and smaller wish decides nothing.
    wishes: VecDeque<(Instant, i32)>,
    /// When it began.
    since: Option<Instant>,
    /// When a pod last went.
    down: Option<Instant>,
}

impl History {
    pub(super) fn record(&mut self, wanted: i32, settings: &ScaleDown, now: Instant) {
        self.since.get_or_insert(now);
        while self.wishes.back().is_some_and(|(_, wish)| *wish <= wanted) {
            self.wishes.pop_back();
        }
        self.wishes.push_back((now, wanted));
        let window = window(settings);
        while self.wishes.front().is_some_and(|(at, _)| now.duration_since(*at) > window) {
            self.wishes.pop_front();
        }
    }

    /// The most that was wanted within the window; `None` until the history is as long as the window.
    pub(super) fn most_wanted(&self, settings: &ScaleDown, now: Instant) -> Option<i32> {
        let since = self.since?;
        let is_whole = now.duration_since(since) >= window(settings);
        self.wishes.front().filter(|_| is_whole).map(|(_, wish)| *wish)
    }

    /// Pods that may go now.
    pub(super) fn allowance(&self, settings: &ScaleDown, now: Instant) -> i32 {
        let elapsed = self.down.map_or(MINUTE, |down| now.duration_since(down).min(MINUTE));
        let allowed = elapsed.as_millis() * u128::from(settings.pods_per_minute) / MINUTE.as_millis();
        i32::try_from(allowed).unwrap_or(i32::MAX)
    }

    pub(super) const fn went_down(&mut self, now: Instant) {
        self.down = Some(now);
    }
}

fn window(settings: &ScaleDown) -> Duration {
    Duration::from_secs(u64::from(settings.stabilization_seconds))
}
