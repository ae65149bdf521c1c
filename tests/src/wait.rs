//! Waiting for a condition with a deadline: the only way this harness and its tests wait for anything.
//!
//! What the condition answers with an error counts as "not yet": an API server that refuses connections is one that
//! has not started. The last such error is part of the message when the time is over.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};

/// How often a condition is looked at: often enough not to cost a test time, seldom enough not to cost it CPU.
const INTERVAL: Duration = Duration::from_millis(100);

/// Waits until `condition` answers `Some`, and returns what it answered.
///
/// # Errors
/// When `within` has passed; the message says `what` was waited for and what stood in the way at last.
pub async fn wait_for<T>(
    what: &str,
    within: Duration,
    mut condition: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let started = Instant::now();
    let mut obstacle = None;
    while started.elapsed() < within {
        match tokio::time::timeout(within, condition()).await {
            Ok(Ok(Some(answer))) => return Ok(answer),
            Ok(Ok(None)) => obstacle = None,
            Ok(Err(error)) => obstacle = Some(error),
            Err(_) => obstacle = Some(anyhow!("the last look at it did not come back")),
        }
        tokio::time::sleep(INTERVAL).await;
    }
    let message = format!("waited {} s in vain for {what}", within.as_secs());
    Err(match obstacle {
        Some(error) => error.context(message),
        None => anyhow!(message),
    })
}

/// The last lines of a log, for an error message; what cannot be read is said so in its place.
#[must_use]
pub fn end_of(log: &Path) -> String {
    // As many lines as fit a terminal beside the message itself.
    const LINES: usize = 25;
    match std::fs::read(log) {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            let lines: Vec<&str> = text.lines().collect();
            let end = lines[lines.len().saturating_sub(LINES)..].join("\n");
            format!("the end of {}:\n{end}", log.display())
        }
        Err(error) => format!("{} cannot be read: {error}", log.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_stood_in_the_way_is_part_of_the_message() {
        let answer =
            wait_for::<()>("rain", Duration::from_millis(1), async || Err(anyhow!("a clear sky"))).await;
        let error = format!("{:#}", answer.expect_err("it cannot rain"));
        assert_eq!(error, "waited 0 s in vain for rain: a clear sky");
    }

    #[tokio::test]
    async fn an_error_means_not_yet() {
        let mut looks = 0;
        let answer = wait_for("the second look", Duration::from_secs(10), async || {
            looks += 1;
            if looks == 1 { Err(anyhow!("too early")) } else { Ok(Some(looks)) }
        });
        assert_eq!(answer.await.expect("the second look answers"), 2);
    }
}
