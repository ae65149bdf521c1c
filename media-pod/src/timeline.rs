//! The time of one leg of a call: milliseconds since the call's origin, on every pod that serves it.
//!
//! The origin is a wall-clock time that travels with the call; from the moment a leg begins only the monotonic clock
//! counts, so that a correction of the wall clock cannot end a call.

use std::time::Duration;

use call_session::Ms;
use tokio::time::Instant;

/// A leg's time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeline {
    began: Instant,
    /// The call's time at `began`.
    at: Ms,
}

impl Timeline {
    /// Begins now, `at` after the call's origin.
    pub(crate) fn begin(at: Ms) -> Self {
        Self { began: Instant::now(), at }
    }

    /// Now, since the call's origin.
    pub(crate) fn now(&self) -> Ms {
        self.time_of(Instant::now())
    }

    /// The call's time at a moment.
    pub(crate) fn time_of(&self, moment: Instant) -> Ms {
        let elapsed = moment.saturating_duration_since(self.began).as_millis();
        self.at + Ms(u64::try_from(elapsed).unwrap_or(u64::MAX))
    }

    /// The moment at which the call's time is `at`; what lies before the leg is its beginning.
    pub(crate) fn moment(&self, at: Ms) -> Instant {
        self.began + Duration::from_millis(at.since(self.at).0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_resumed_leg_goes_on_counting_from_the_origin() {
        let timeline = Timeline::begin(Ms(60_000));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(timeline.now(), Ms(65_000));
        assert_eq!(timeline.time_of(timeline.moment(Ms(65_500))), Ms(65_500));
        assert_eq!(timeline.moment(Ms::ZERO), timeline.moment(Ms(60_000)));
    }
}
