//! Wall-clock time as an argument: what the doors and the store compare and keep. The call machine has its own
//! (`call_session::Ms`, since the call's origin).

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use call_session::Ms;
use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixMs(pub u64);

impl UnixMs {
    /// The moment `span` later.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }

    /// The span from `earlier` to `self`; zero when `earlier` is later (clocks of two pods differ a little).
    pub const fn since(self, earlier: Self) -> Ms {
        Ms(self.0.saturating_sub(earlier.0))
    }

    /// Whole seconds.
    pub const fn seconds(self) -> u64 {
        self.0 / 1000
    }

    /// Days since 1970-01-01 (UTC).
    pub const fn day(self) -> u64 {
        self.seconds() / (24 * 60 * 60)
    }
}

impl From<SystemTime> for UnixMs {
    fn from(time: SystemTime) -> Self {
        Self::default().plus(time.duration_since(UNIX_EPOCH).unwrap_or_default())
    }
}

/// Where the time comes from.
pub type Clock = Arc<dyn Fn() -> UnixMs + Send + Sync>;

/// The host's clock.
pub fn system() -> Clock {
    Arc::new(|| SystemTime::now().into())
}
