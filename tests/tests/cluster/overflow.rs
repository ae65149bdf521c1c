//! All slots taken: the next caller talks with another agent, is forwarded, or is told so.

use std::sync::Arc;

use anyhow::{Result, ensure};
use e2e::caller::events;
use e2e::installation::{condition, resource, wait_until_ready};
use e2e::wait_for;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::context::{Ctx, PATIENCE};
use crate::interruptions::{call_in_mid_sentence, reconfigure, survived};
use crate::main_job::{NAMESPACE, NUMBER, ready};
use crate::robustness::{apply_json, told};

const SECOND_CALLER: &str = "+15557654322";
/// Where the scenario's dispatcher answers.
const DISPATCH: &str = "+15551230009";

pub(crate) fn trials(ctx: &Arc<Ctx>) -> Vec<Trial> {
    vec![ctx.trial("overflow::with_every_slot_taken_callers_get_what_the_policy_says", overflow)]
}

async fn overflow(ctx: Arc<Ctx>) -> Result<()> {
    let cluster = ctx.cluster()?;
    ready(&ctx).await?;
    let simulator = ctx.installation()?.simulator();
    let to_night = json!({"type": "Agent", "message": null, "agent": {"agentRef": {"name": "night"}}});

    // An agent that is not there (yet) is told, and holds nothing back.
    reconfigure(&ctx, &json!({"limits": {"maxConcurrentCalls": 1}, "overflow": to_night})).await?;
    let told = told(cluster, NAMESPACE, "voiceagent", "sales", "ReferencesResolved", "AgentNotFound").await?;
    ensure!(told["message"].as_str().is_some_and(|message| message.contains("VoiceAgent night")), "{told}");
    wait_until_ready(cluster, NAMESPACE, "voiceagent", "sales", PATIENCE).await?;
    apply_json(cluster, NAMESPACE, "night", &night()).await?;
    wait_until_ready(cluster, NAMESPACE, "voiceagent", "night", PATIENCE).await?;
    wait_for("the overflow to be resolved, and every pod to know", PATIENCE, async || {
        let agent = resource(cluster, NAMESPACE, "voiceagent", "sales").await?;
        let is = |kind| condition(&agent, kind).is_some_and(|condition| condition["status"] == "True");
        Ok((is("ReferencesResolved") && is("ConfigCurrent")).then_some(()))
    })
    .await?;

    let first = call_in_mid_sentence(&ctx).await?;
    let talks = json!([
        {"waitForAgent": {"seconds": 20}},
        {"say": "Hello, what are your opening hours?"},
        {"waitForAgent": {"seconds": 20}},
        "hangUp",
    ]);
    let second = simulator.place_call(SECOND_CALLER, NUMBER, &talks).await?;
    let call = simulator.finished_call(&second, PATIENCE).await?;
    assert_eq!(call["failedStep"], Value::Null, "{call:#}");
    assert_eq!(verbs(&call), ["Redirect", "Connect"], "{call:#}");
    let requests = ctx.installation()?.edge().requests()?;
    ensure!(requests.contains(" 101 GET /moving/night/twilio/stream "), "{requests}");
    let call = simulator.finished_call(&first, 2 * PATIENCE).await?;
    survived(&ctx, &call).await?;

    let to_dispatch = json!({"type": "Forward", "agent": null, "forward": {"transferTarget": "dispatch"}});
    let targets = json!([{"name": "dispatch", "phoneNumber": DISPATCH}]);
    reconfigure(&ctx, &json!({"transferTargets": targets, "overflow": to_dispatch})).await?;
    let first = call_in_mid_sentence(&ctx).await?;
    let listens = json!([{"expectHangUp": {"seconds": 30}}]);
    let second = simulator.place_call(SECOND_CALLER, NUMBER, &listens).await?;
    let call = simulator.finished_call(&second, PATIENCE).await?;
    assert_eq!(call["failedStep"], Value::Null, "{call:#}");
    assert_eq!(verbs(&call), ["Dial", "Hangup"], "{call:#}");
    assert_eq!(events(&call, "dialled")[0]["number"], DISPATCH, "{call:#}");
    ensure!(call["heard"]["voicedMilliseconds"].as_u64() > Some(500), "nobody answered: {call:#}");
    let call = simulator.finished_call(&first, 2 * PATIENCE).await?;
    survived(&ctx, &call).await?;

    let before = json!({"limits": {"maxConcurrentCalls": null}, "transferTargets": null, "overflow": null});
    reconfigure(&ctx, &before).await?;
    cluster.kubectl(&["delete", "voiceagent", "night", "-n", NAMESPACE, "--timeout=60s"]).await?;
    Ok(())
}

/// An agent that needs nobody else.
fn night() -> Value {
    json!({
        "apiVersion": "switchboard.dev/v1alpha1",
        "kind": "VoiceAgent",
        "metadata": {"name": "night"},
        "spec": {
            "persona": {"instructions": {"text": "Say when somebody is there."}, "greeting": {"text": "Good evening."}},
            "engines": [{"name": "scripted", "type": "Simulated", "simulated": {"replies": ["From eight to six."]}}],
            "scaling": {"type": "Manual", "manual": {"replicas": 1}},
            "drain": {"windowSeconds": 30},
        },
    })
}

/// The verbs the carrier ran, in order.
fn verbs(call: &Value) -> Vec<&str> {
    events(call, "verbStarted").iter().filter_map(|event| event["verb"].as_str()).collect()
}
