//! Logs: JSON lines on standard output, one span per call.
//!
//! Masking is by type: numbers, transcripts and tool arguments are [`call_session::Redacted`] from where they enter, and
//! print `[redacted]`. Identifiers of a call (`call_sid`, `stream_sid`) are what a person searches by; they name nobody.

use call_session::{CallSid, StreamSid};
use tracing::Span;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Installs the process's subscriber. `filter` was validated with the configuration. Does nothing when one is installed
/// already (tests).
pub fn install(filter: &str) {
    let layer = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(true)
        .with_span_list(false)
        .with_target(true);
    let registry =
        tracing_subscriber::registry().with(EnvFilter::try_new(filter).unwrap_or_default()).with(layer);
    if registry.try_init().is_err() {
        tracing::debug!("a subscriber is installed already");
    }
    log_panics();
}

/// A panic becomes a log line in the span of its call. Only the place is told: the message may quote what it choked on.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map_or_else(String::new, ToString::to_string);
        tracing::error!(location, "a bug of ours: panic");
    }));
}

/// The span of one leg of a call; everything that happens in it is logged inside.
pub fn call_span(call: &CallSid, stream: &StreamSid, agent: &str) -> Span {
    tracing::info_span!("call", call_sid = %call, stream_sid = %stream, agent)
}
