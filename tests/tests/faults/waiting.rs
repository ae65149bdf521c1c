//! A caller who says nothing and waits: whatever cut the agent off, it is the agent who goes on.

use anyhow::{Context as _, Result, ensure};
use e2e::wait_for;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::stage::{CALLER, PATIENCE, Stage, events};
use crate::trial;

const CUT: &str = "a stream cut in mid-sentence, and a caller who waits";

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial(&format!("fault: {CUT}"), cut_in_mid_sentence)]
}

async fn cut_in_mid_sentence() -> Result<()> {
    let stage = Stage::open(CUT).await?;
    let mut agent = stage.agent();
    // Whoever is silent for long enough is spoken to in any case; here that is not within the trial.
    agent["limits"] = json!({"silenceSeconds": 600});
    let pod = stage.pod("pod", &agent).await?;
    let before = pod.scrape().await?;

    stage.set_faults(&json!({"phone": {"cutAfterMilliseconds": 3000}})).await?;
    let sid = stage.place(CALLER, &json!([{"expectHangUp": {"seconds": 240}}])).await?;
    wait_for("the first stream", PATIENCE, async || {
        Ok((!events(&stage.call(&sid).await?, "streamStarted").is_empty()).then_some(()))
    })
    .await?;
    stage.set_faults(&json!({})).await?;

    let gone_on = wait_for("the agent to go on", PATIENCE, async || {
        Ok(Some(agents_lines(&pod.call(&sid).await?)).filter(|lines| lines.len() == 2))
    })
    .await;
    let known = pod.call(&sid).await?;
    let lines = gone_on.with_context(|| format!("{known:#}"))?;
    ensure!(lines[0]["interrupted"] == true, "the greeting was not cut: {known:#}");
    ensure!(lines[0]["text"] != lines[1]["text"], "it was said again: {known:#}");

    pod.hang_up(&sid).await?;
    let call = stage.finished(&sid).await?;
    ensure!(events(&call, "streamStarted").len() == 2, "{call:#}");
    pod.scrape().await?.ensure_faults(&before, &[])?;
    stage.ensure_no_violation().await
}

fn agents_lines(known: &Value) -> Vec<Value> {
    let lines = known["transcript"].as_array().into_iter().flatten();
    lines.filter(|line| line["speaker"] == "agent").cloned().collect()
}
