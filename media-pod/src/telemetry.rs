//! Logs: JSON lines on standard output, one span per call.
//!
//! A thread of its own writes them: standard output is a pipe, and when the node stops emptying it, what writes into it
//! waits. Calls do not. Lines that find no room are dropped and counted.
//!
//! Masking is by type: numbers, transcripts and tool arguments are [`call_session::Redacted`] from where they enter, and
//! print `[redacted]`. Identifiers of a call (`call_sid`, `stream_sid`) are what a person searches by; they name nobody.

use std::sync::OnceLock;

use call_session::{CallSid, StreamSid};
use tracing::Span;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Lines that wait to be written, of some 300 bytes each: minutes of a busy pod.
const WAITING_LINES: usize = 4096;

/// Of the process's one log.
static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();

/// Lines of the log that were dropped because standard output did not take them.
pub fn dropped_lines() -> u64 {
    DROPPED.get().map_or(0, |dropped| dropped.dropped_lines() as u64)
}

/// Installs the process's subscriber. `filter` was validated with the configuration. Does nothing when one is installed
/// already (tests). What waits to be written is written when the guard is dropped.
pub fn install(filter: &str) -> WorkerGuard {
    let (lines, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(WAITING_LINES)
        .thread_name("log")
        .finish(std::io::stdout());
    let _ = DROPPED.set(lines.error_counter()); // a second one would be of no subscriber
    let layer = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(true)
        .with_span_list(false)
        .with_target(true)
        .with_writer(lines);
    let registry =
        tracing_subscriber::registry().with(EnvFilter::try_new(filter).unwrap_or_default()).with(layer);
    if registry.try_init().is_err() {
        tracing::debug!("a subscriber is installed already");
    }
    log_panics();
    guard
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
