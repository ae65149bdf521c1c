//! Calls on pods that end under them, and calls that are turned away: no caller is left in silence.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use e2e::caller::{Caller, events};
use e2e::installation::{condition, resource, wait_until_ready};
use e2e::wait_for;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::context::{Ctx, PATIENCE};
use crate::main_job::{CALLER, NAMESPACE, NUMBER, loads, ready};

pub(crate) fn trials(ctx: &Arc<Ctx>) -> Vec<Trial> {
    vec![
        ctx.trial("interruptions::a_suspended_agent_turns_new_calls_away_with_a_sentence", suspended),
        ctx.trial("interruptions::when_a_media_pod_dies_another_goes_on_with_its_call", killed),
        ctx.trial("interruptions::when_a_media_process_is_killed_in_place_its_call_goes_on", killed_in_place),
        ctx.trial("interruptions::a_call_outlives_a_rolling_update", rolled),
    ]
}

async fn suspended(ctx: Arc<Ctx>) -> Result<()> {
    let cluster = ctx.cluster()?;
    ready(&ctx).await?;
    suspend(&ctx, true).await?;
    let simulator = ctx.installation()?.simulator();
    let waits = json!([{"expectHangUp": {"seconds": 30}}]);
    let sid = simulator.place_call(CALLER, NUMBER, &waits).await?;
    let call = simulator.finished_call(&sid, PATIENCE).await?;
    assert_eq!(call["failedStep"], Value::Null, "{call:#}");
    assert_eq!(events(&call, "streamStarted").len(), 0, "{call:#}");
    ensure!(events(&call, "verbStarted").iter().any(|event| event["verb"] == "Say"), "{call:#}");
    let agent = resource(cluster, NAMESPACE, "voiceagent", "sales").await?;
    let ready = condition(&agent, "Ready").context("a condition Ready")?;
    assert_eq!((&ready["status"], &ready["reason"]), (&json!("False"), &json!("Suspended")));
    suspend(&ctx, false).await?;
    wait_until_ready(cluster, NAMESPACE, "voiceagent", "sales", PATIENCE).await?;
    assert_eq!(simulator.violations().await?, Vec::<Value>::new());
    Ok(())
}

async fn suspend(ctx: &Ctx, is_suspended: bool) -> Result<()> {
    reconfigure(ctx, &json!({"suspend": is_suspended})).await
}

/// Changes the agent's spec by a merge patch, and waits until every pod has heard of it.
pub(crate) async fn reconfigure(ctx: &Ctx, spec: &Value) -> Result<()> {
    let cluster = ctx.cluster()?;
    let before =
        resource(cluster, NAMESPACE, "voiceagent", "sales").await?["status"]["configRevision"].clone();
    let patch = json!({"spec": spec}).to_string();
    cluster.kubectl(&["patch", "voiceagent", "sales", "-n", NAMESPACE, "--type=merge", "-p", &patch]).await?;
    wait_for("all pods to load the new configuration", PATIENCE, async || {
        let agent = resource(cluster, NAMESPACE, "voiceagent", "sales").await?;
        let wanted = &agent["status"]["configRevision"];
        let loads = loads(ctx).await?;
        let is_everywhere = loads.iter().all(|load| load["configRevision"] == *wanted);
        Ok((*wanted != before && !loads.is_empty() && is_everywhere).then_some(()))
    })
    .await
}

async fn killed(ctx: Arc<Ctx>) -> Result<()> {
    let cluster = ctx.cluster()?;
    ready(&ctx).await?;
    let simulator = ctx.installation()?.simulator();
    let sid = call_in_mid_sentence(&ctx).await?;
    let victim = pod_with_a_call(&ctx).await?;
    // As when a node is taken away: no time to drain, and the Service forgets the pod.
    let kill = ["delete", "pod", &victim, "-n", NAMESPACE, "--grace-period=0", "--force"];
    cluster.kubectl(&kill).await?;

    let call = simulator.finished_call(&sid, 2 * PATIENCE).await?;
    survived(&ctx, &call).await?;
    assert_eq!(events(&call, "streamStarted").len(), 2, "the stream of the next epoch: {call:#}");
    wait_until_ready(cluster, NAMESPACE, "voiceagent", "sales", PATIENCE).await?;
    Ok(())
}

/// The pod stays, and until the kubelet has noticed its Service leads to a port where nobody listens.
async fn killed_in_place(ctx: Arc<Ctx>) -> Result<()> {
    let cluster = ctx.cluster()?;
    ready(&ctx).await?;
    let simulator = ctx.installation()?.simulator();
    let sid = call_in_mid_sentence(&ctx).await?;
    let victim = pod_with_a_call(&ctx).await?;
    let process = media_process(&victim)?;
    let killed = std::process::Command::new("kill").args(["-KILL", &process]).status()?;
    ensure!(killed.success(), "process {process} of {victim} cannot be killed");

    let call = simulator.finished_call(&sid, 2 * PATIENCE).await?;
    // That a stream met the dead process is what this trial is about: the edge says 502 then, because it did twice. A webhook
    // is asked for again, and everything else is the product's.
    let met_the_dead = ["twilio-31902-stream-connect", "twilio-31920-stream-handshake"];
    let violations = simulator.violations().await?;
    let is_ours =
        |violation: &&Value| !violation["rule"].as_str().is_some_and(|rule| met_the_dead.contains(&rule));
    assert_eq!(violations.iter().filter(is_ours).collect::<Vec<_>>(), Vec::<&Value>::new(), "{call:#}");
    simulator.forget_violations().await?;
    survived(&ctx, &call).await?;
    wait_until_ready(cluster, NAMESPACE, "voiceagent", "sales", PATIENCE).await?;
    Ok(())
}

/// The pod that carries the one call.
async fn pod_with_a_call(ctx: &Ctx) -> Result<String> {
    let pods = ["get", "pods", "-n", NAMESPACE, "-l", "switchboard.dev/agent=sales", "-o", "json"];
    let pods: Value = serde_json::from_str(&ctx.cluster()?.kubectl(&pods).await?)?;
    for pod in pods["items"].as_array().context("pods")? {
        let Some(address) = pod["status"]["podIP"].as_str() else { continue };
        let load: Value =
            serde_json::from_str(&crate::context::http_get(&format!("{address}:9090"), "/load").await?)?;
        if load["activeCalls"] == 1 {
            return Ok(pod["metadata"]["name"].as_str().context("a name")?.to_owned());
        }
    }
    bail!("no pod has the call: {pods:#}")
}

/// The process id of a pod's media container on this machine.
fn media_process(pod: &str) -> Result<String> {
    let name = format!("SWITCHBOARD_POD_NAME={pod}");
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let Ok(environment) = std::fs::read(entry.path().join("environ")) else { continue };
        if environment.split(|byte| *byte == 0).any(|variable| variable == name.as_bytes()) {
            return Ok(entry.file_name().to_string_lossy().into_owned());
        }
    }
    bail!("no process has {name}")
}

async fn rolled(ctx: Arc<Ctx>) -> Result<()> {
    let cluster = ctx.cluster()?;
    ready(&ctx).await?;
    let simulator = ctx.installation()?.simulator();
    let sid = call_in_mid_sentence(&ctx).await?;
    let patch =
        json!({"spec": {"podTemplate": {"metadata": {"annotations": {"example.com/rolled": "yes"}}}}});
    let patch = patch.to_string();
    cluster.kubectl(&["patch", "voiceagent", "sales", "-n", NAMESPACE, "--type=merge", "-p", &patch]).await?;
    let call = simulator.finished_call(&sid, 2 * PATIENCE).await?;
    survived(&ctx, &call).await?;
    // Every pod is a new one, and the old ones went in time.
    wait_for("only pods of the new template", PATIENCE, async || {
        let pods = ["get", "pods", "-n", NAMESPACE, "-l", "switchboard.dev/agent=sales", "-o", "json"];
        let pods: Value = serde_json::from_str(&cluster.kubectl(&pods).await?)?;
        let pods = pods["items"].as_array().context("pods")?;
        let is_new = |pod: &Value| pod["metadata"]["annotations"]["example.com/rolled"] == "yes";
        ensure!(pods.len() == 2 && pods.iter().all(is_new), "{} pods", pods.len());
        Ok(Some(()))
    })
    .await?;
    let patch = json!({"spec": {"podTemplate": null}}).to_string();
    cluster.kubectl(&["patch", "voiceagent", "sales", "-n", NAMESPACE, "--type=merge", "-p", &patch]).await?;
    let rollout = ["rollout", "status", "deployment/sales-media", "-n", NAMESPACE, "--timeout=120s"];
    cluster.kubectl(&rollout).await?;
    wait_until_ready(cluster, NAMESPACE, "voiceagent", "sales", PATIENCE).await?;
    Ok(())
}

/// A caller who asks twice; returns when the agent answers the first question.
pub(crate) async fn call_in_mid_sentence(ctx: &Ctx) -> Result<String> {
    let caller = Caller { from: CALLER, to: NUMBER, pause: Duration::from_secs(12) };
    e2e::caller::call_in_mid_sentence(ctx.installation()?.simulator(), caller, PATIENCE).await
}

/// The caller got through all their steps, heard the agent on every stream, and no rule was broken.
pub(crate) async fn survived(ctx: &Ctx, call: &Value) -> Result<()> {
    let simulator = ctx.installation()?.simulator();
    assert_eq!(simulator.violations().await?, Vec::<Value>::new(), "{call:#}");
    assert_eq!(call["failedStep"], Value::Null, "{call:#}");
    assert_eq!(call["endReason"], "hangupVerb", "{call:#}");
    let at = |event: &Value| event["atMilliseconds"].as_u64().unwrap_or_default();
    let last_stream = events(call, "streamStarted").iter().map(|event| at(event)).max().unwrap_or_default();
    let is_heard = events(call, "agentStartedSpeaking").iter().any(|event| at(event) > last_stream);
    ensure!(is_heard, "the caller never heard the agent again: {call:#}");
    Ok(())
}
