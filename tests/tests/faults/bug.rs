//! A bug of ours in the middle of one call: the pod and its other calls live on, and so does the call, on its next leg.

use anyhow::{Result, ensure};
use e2e::wait_for;
use libtest_mimic::Trial;
use serde_json::json;

use crate::quiet::QuietCall;
use crate::stage::{CALLER, PATIENCE, QUESTION, Stage, events};
use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("bug: a panic in a call ends its leg and nothing else", panics)]
}

async fn panics() -> Result<()> {
    let stage = Stage::open("panic").await?;
    let healthy = stage.agent();
    let pod = stage.pod("pod", &healthy).await?;
    let quiet = QuietCall::begin(&stage, &pod).await?;
    let before = pod.scrape().await?;

    // Running calls keep their plan: the call that begins now has the engine with the bug, its next leg has not.
    let mut buggy = stage.agent();
    buggy["revision"] = json!("buggy");
    buggy["engines"] = json!([{"name": "primary", "type": "Simulated", "simulated": {"panicAtReply": 1}}]);
    pod.load(&buggy).await?;
    let listen = json!({"waitForAgent": {"seconds": 60}});
    // The greeting is no answer; the pause is there for the next agent file to be loaded in.
    let steps = json!([listen, {"pause": 10_000}, {"say": QUESTION}, {"pause": 4000}, {"say": QUESTION}, listen, "hangUp"]);
    let sid = stage.place(CALLER, &steps).await?;
    wait_for("the greeting", PATIENCE, async || {
        let call = stage.call(&sid).await?;
        Ok((events(&call, "agentStartedSpeaking").len() == 1).then_some(()))
    })
    .await?;
    let mut repaired = healthy;
    repaired["revision"] = json!("repaired");
    pod.load(&repaired).await?;

    let call = stage.finished(&sid).await?;
    let after = pod.scrape().await?;
    after.ensure_faults(&before, &["switchboard_call_panics_total"])?;
    for (series, times) in [
        ("switchboard_call_panics_total", 1.0),
        ("switchboard_calls_ended_total{reason=\"internal\"}", 1.0),
        ("switchboard_legs_started_total{leg=\"resumed\"}", 1.0),
        ("switchboard_calls_ended_total{reason=\"caller_hung_up\"}", 1.0),
    ] {
        ensure!((after.since(&before, series) - times).abs() < f64::EPSILON, "{series}: {call:#}");
    }
    ensure!(call["failedStep"].is_null() && call["endReason"] == "callerHungUp", "{call:#}");
    ensure!(events(&call, "streamStarted").len() == 2, "{call:#}");
    quiet.ensure_undisturbed().await?;
    stage.ensure_no_violation().await
}
