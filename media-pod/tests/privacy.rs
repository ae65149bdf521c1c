//! What the logs of a call may hold: ids and durations, never numbers, words or secrets. Alone in its binary, because it
//! owns the process's subscriber.

#![allow(clippy::unwrap_used)] // in a test it is an assertion

mod harness;

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use harness::{API_TOKEN, AUTH_TOKEN, CALLED, CALLER, GREETING, Heard, Pod, SIMULATED, call_sid, token_of};

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Captured {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()).unwrap()
    }
}

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_call_logged_at_trace_quotes_nobody() {
    let captured = Captured::default();
    let writer = captured.clone();
    tracing_subscriber::fmt()
        .json()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .init();

    let mut pod = Pod::start(SIMULATED).await;
    let call = call_sid(1);
    let token = token_of(&pod.announce(&call).await);
    let mut phone = pod.stream(&call, &token).await;
    phone.listen(500).await;
    phone.send_text(&format!(r#"{{"event":"dtmf","dtmf":{{"digit":"{CALLER}"}}}}"#)).await;
    phone.speak(400).await;
    phone.pause(600).await;
    phone.listen_until_said(&pod, 1).await;
    pod.api("GET", &format!("/v1/calls/{call}"), Some(API_TOKEN)).await;
    phone.stop().await;
    phone.until(|heard| matches!(heard, Heard::Closed(_))).await;
    pod.leave().await;

    let logs = captured.text();
    assert!(logs.contains(&call), "the call is logged under its id");
    assert!(logs.contains("the leg is over"));
    let (_, mac) = token.rsplit_once('.').unwrap();
    for secret in [CALLER, CALLED, GREETING, "One moment please", AUTH_TOKEN, API_TOKEN, mac, "Be kind"] {
        let line = logs.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "a log line quotes {secret}");
    }
}
