//! What simulated callers say and hear, where several tests need the same.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::{Simulator, wait_for};

/// Whom a caller calls, and how patiently.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// The caller's own number.
    pub from: &'a str,
    /// The number dialled.
    pub to: &'a str,
    /// How long they say nothing after the first answer, so that something can happen to the call.
    pub pause: Duration,
}

/// A caller who asks twice; returns the CallSid when the agent answers the first question.
///
/// # Errors
/// When the call ends before, or the agent is not heard in time.
pub async fn call_in_mid_sentence(
    simulator: &Simulator,
    caller: Caller<'_>,
    within: Duration,
) -> Result<String> {
    let Caller { from, to, pause } = caller;
    let steps = json!([
        {"waitForAgent": {"seconds": 20}},
        {"say": "I would like a quote for a move next month."},
        {"waitForAgent": {"until": "speaking", "seconds": 20}},
        {"pause": u64::try_from(pause.as_millis())?},
        {"say": "Hello, what are your opening hours?"},
        {"waitForAgent": {"seconds": 40}},
        {"say": "Thank you very much, goodbye."},
        {"expectHangUp": {"seconds": 40}},
    ]);
    let sid = simulator.place_call(from, to, &steps).await?;
    wait_for("the agent's first answer", within, async || {
        let call = simulator.call(&sid).await?;
        ensure!(call["finished"] != true, "it is over: {call:#}");
        // The greeting, and the answer.
        Ok((events(&call, "agentStartedSpeaking").len() >= 2).then_some(()))
    })
    .await?;
    Ok(sid)
}

/// The events of one name in a call's timeline.
#[must_use]
pub fn events<'a>(call: &'a Value, name: &str) -> Vec<&'a Value> {
    call["timeline"].as_array().into_iter().flatten().filter(|event| event["event"] == name).collect()
}
