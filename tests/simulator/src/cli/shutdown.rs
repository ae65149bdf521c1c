//! When to end: SIGTERM or Ctrl-C.

use tokio::signal::unix::{SignalKind, signal};

/// Returns when the process was asked to end.
pub(super) async fn requested() -> std::io::Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
