//! Logs: JSON lines on standard error, filtered by `SWITCHBOARD_LOG`.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

/// Starts logging.
///
/// # Errors
/// When a subscriber is set already.
pub fn start(filter: EnvFilter) -> Result<(), TryInitError> {
    tracing_subscriber::fmt().json().with_env_filter(filter).with_writer(std::io::stderr).finish().try_init()
}
