//! VoiceGateways: keys and credentials that are replaced while calls go on, and the end of a namespace.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::installation::{OPERATOR_NAMESPACE, condition, resource, wait_until_ready};
use e2e::{Cluster, wait_for};
use k8s_openapi::jiff::Timestamp;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::context::{Ctx, PATIENCE};
use crate::main_job::{self, CALLER, NUMBER, ready};
use crate::robustness::{ACCOUNT, TOKEN, apply_json, leader_pod, operator_rolled_out, told};

/// The scenario's second number, by the carrier's id and its digits.
const SID: &str = "PN00000000000000000000000000000002";
const E164: &str = "+15551230002";
const FORMER: &str = "https://old.example.com/voice";

pub(crate) fn trials(ctx: &Arc<Ctx>) -> Vec<Trial> {
    vec![
        ctx.trial("gateways::a_stream_key_is_replaced_under_a_running_call", rotation),
        ctx.trial("gateways::of_two_auth_tokens_the_one_that_twilio_takes_is_used", two_tokens),
        ctx.trial("gateways::an_api_key_does_for_rest_and_is_verified_again_with_its_secret", api_key),
        ctx.trial("gateways::a_namespace_deleted_as_a_whole_gives_its_number_back", doomed),
        ctx.trial("gateways::without_credentials_a_number_goes_with_an_event", forgotten),
        ctx.trial("gateways::a_deleted_number_waits_for_credentials_that_are_refused", refused),
    ]
}

async fn rotation(ctx: Arc<Ctx>) -> Result<()> {
    let cluster = ctx.cluster()?;
    ready(&ctx).await?;
    let installation = ctx.installation()?;
    let simulator = installation.simulator();
    let keys = async || -> Result<Value> {
        let gateway = resource(cluster, main_job::NAMESPACE, "voicegateway", "default").await?;
        Ok(gateway["status"]["streamKeys"].clone())
    };
    let old = keys().await?["signing"].clone();
    let sid = simulator.place_call(CALLER, NUMBER, &installation.caller()?).await?;
    wait_for("the call's media stream", PATIENCE, async || {
        let call = simulator.call(&sid).await?;
        Ok(call.to_string().contains("streamStarted").then_some(()))
    })
    .await?;

    let request = "switchboard.dev/rotate-stream-keys=trial";
    let annotate = ["annotate", "voicegateway", "default", "-n", main_job::NAMESPACE, "--overwrite", request];
    cluster.kubectl(&annotate).await?;
    let now = wait_for("all pods to have the new key, and it to sign", PATIENCE, async || {
        let now = keys().await?;
        Ok((now["signing"] != old).then_some(now))
    })
    .await?;
    assert_eq!(now["verifying"].as_array().map(Vec::len), Some(2), "the old one verifies still: {now}");
    told(cluster, main_job::NAMESPACE, "voicegateway", "default", "StreamKeysCurrent", "KeyPromoted").await?;
    wait_for("all pods to sign with it", PATIENCE, async || {
        let loads = main_job::loads(&ctx).await?;
        Ok((loads.len() == 2 && loads.iter().all(|load| load["signingKey"] == now["signing"])).then_some(()))
    })
    .await?;
    // The call from before, and one whose token the new key signs.
    let call = simulator.finished_call(&sid, PATIENCE).await?;
    assert_eq!((&call["failedStep"], &call["endReason"]), (&Value::Null, &json!("hangupVerb")), "{call:#}");
    let sid = simulator.place_call(CALLER, NUMBER, &installation.caller()?).await?;
    let call = simulator.finished_call(&sid, PATIENCE).await?;
    assert_eq!((&call["failedStep"], &call["endReason"]), (&Value::Null, &json!("hangupVerb")), "{call:#}");

    // Two minutes that nobody waits for in a test: it has signed for an hour, and is far from its own replacement.
    let hour_ago = Timestamp::now() - Duration::from_secs(3600);
    let since = format!("switchboard.dev/signing-since={hour_ago}");
    let secret =
        ["annotate", "secret", "default-stream-keys", "-n", main_job::NAMESPACE, "--overwrite", &since];
    cluster.kubectl(&secret).await?;
    wait_for("the old key to go", PATIENCE, async || {
        Ok((keys().await?["verifying"] == json!([now["signing"]])).then_some(()))
    })
    .await?;
    told(cluster, main_job::NAMESPACE, "voicegateway", "default", "StreamKeysCurrent", "KeysCurrent").await?;
    assert_eq!(simulator.violations().await?, Vec::<Value>::new());
    Ok(())
}

async fn two_tokens(ctx: Arc<Ctx>) -> Result<()> {
    let cluster = ctx.cluster()?;
    let namespace = ctx.namespace("gateways-tokens").await?;
    // Before Twilio is told: the new one is there and refused. After it: the old one is.
    apply_json(cluster, &namespace, "secret", &secret(&[("new", "not-yet"), ("old", TOKEN)])).await?;
    let refs = json!([{"name": "twilio", "key": "new"}, {"name": "twilio", "key": "old"}]);
    apply_json(cluster, &namespace, "gateway", &gateway(&ctx, refs, None)?).await?;
    wait_until_ready(cluster, &namespace, "voicegateway", "default", PATIENCE).await?;
    let heard = async |reason: &str| -> Result<()> {
        told(cluster, &namespace, "voicegateway", "default", "CredentialsVerified", reason).await.map(drop)
    };
    apply_json(cluster, &namespace, "secret", &secret(&[("new", "wrong"), ("old", "past")])).await?;
    heard("CredentialsRejected").await?;
    apply_json(cluster, &namespace, "secret", &secret(&[("new", TOKEN), ("old", "past")])).await?;
    heard("CredentialsVerified").await?;
    Ok(())
}

async fn api_key(ctx: Arc<Ctx>) -> Result<()> {
    let cluster = ctx.cluster()?;
    let namespace = ctx.namespace("gateways-api-key").await?;
    let refs = json!([{"name": "twilio", "key": "authToken"}]);
    let key = json!({"sid": "SK00000000000000000000000000000001", "secretRef": {"name": "twilio-api", "key": "secret"}});
    let api_secret = |secret: &str| {
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "twilio-api"},
               "stringData": {"secret": secret}})
    };
    // Of the auth token, which verifies signatures, REST knows nothing.
    apply_json(cluster, &namespace, "secret", &secret(&[("authToken", "not-for-rest")])).await?;
    apply_json(cluster, &namespace, "gateway", &gateway(&ctx, refs, Some(key))?).await?;
    let told_of = async |reason: &str| -> Result<Value> {
        told(cluster, &namespace, "voicegateway", "default", "CredentialsVerified", reason).await
    };
    let missing = told_of("SecretNotFound").await?;
    ensure!(missing["message"].as_str().is_some_and(|m| m.contains("twilio-api")), "{missing}");
    apply_json(cluster, &namespace, "api-secret", &api_secret("mistyped")).await?;
    told_of("CredentialsRejected").await?;
    apply_json(cluster, &namespace, "api-secret", &api_secret("simulated-api-key")).await?;
    told_of("CredentialsVerified").await?;
    Ok(())
}

async fn doomed(ctx: Arc<Ctx>) -> Result<()> {
    let cluster = ctx.cluster()?;
    let simulator = ctx.installation()?.simulator();
    let namespace = ctx.namespace("gateways-doomed").await?;
    bind(&ctx, &namespace).await?;
    // The Secret, the gateway and the number are all deleted at once; only the number waits for anything.
    cluster.kubectl(&["delete", "namespace", &namespace, "--timeout=120s"]).await?;
    let number = simulator.number(E164).await?;
    assert_eq!(number["voice_url"], FORMER, "the operator knew the credentials before");
    assert_eq!(simulator.violations().await?, Vec::<Value>::new());
    Ok(())
}

async fn forgotten(ctx: Arc<Ctx>) -> Result<()> {
    let cluster = ctx.cluster()?;
    let simulator = ctx.installation()?.simulator();
    let namespace = ctx.namespace("gateways-forgotten").await?;
    bind(&ctx, &namespace).await?;
    cluster.kubectl(&["delete", "secret", "twilio", "-n", &namespace]).await?;
    // Another leader, which never had them.
    let leader = leader_pod(cluster).await?;
    cluster
        .kubectl(&["delete", "pod", &leader, "-n", OPERATOR_NAMESPACE, "--grace-period=0", "--force"])
        .await?;
    wait_for("another operator to lead", PATIENCE, async || {
        Ok((leader_pod(cluster).await? != leader).then_some(()))
    })
    .await?;
    cluster.kubectl(&["delete", "phonenumber", "line", "-n", &namespace, "--timeout=120s"]).await?;
    let told = wait_for("an event that says so", PATIENCE, async || {
        let events = events(cluster, &namespace).await?;
        Ok(events.into_iter().find(|event| event["reason"] == "RestoreAbandoned"))
    })
    .await?;
    ensure!(told.to_string().contains("credentials"), "{told}");
    simulator.change_number(SID, (ACCOUNT, TOKEN), &[("VoiceUrl", ""), ("StatusCallback", "")]).await?;
    operator_rolled_out(cluster).await
}

async fn refused(ctx: Arc<Ctx>) -> Result<()> {
    let cluster = ctx.cluster()?;
    let simulator = ctx.installation()?.simulator();
    let namespace = ctx.namespace("gateways-refused").await?;
    bind(&ctx, &namespace).await?;
    apply_json(cluster, &namespace, "secret", &secret(&[("authToken", "past")])).await?;
    told(cluster, &namespace, "voicegateway", "default", "CredentialsVerified", "CredentialsRejected")
        .await?;
    cluster.kubectl(&["delete", "phonenumber", "line", "-n", &namespace, "--wait=false"]).await?;
    wait_for("the number to say what it waits for", PATIENCE, async || {
        let number = resource(cluster, &namespace, "phonenumber", "line").await?;
        let ready = condition(&number, "Ready").context("it has a condition")?;
        ensure!(ready.to_string().contains("put its former webhooks back"), "{ready}");
        Ok(Some(()))
    })
    .await?;
    assert_ne!(simulator.number(E164).await?["voice_url"], FORMER);

    apply_json(cluster, &namespace, "secret", &secret(&[("authToken", TOKEN)])).await?;
    cluster
        .kubectl(&["wait", "phonenumber", "line", "-n", &namespace, "--for=delete", "--timeout=120s"])
        .await?;
    assert_eq!(simulator.number(E164).await?["voice_url"], FORMER);
    assert_eq!(simulator.violations().await?, Vec::<Value>::new());
    Ok(())
}

/// A gateway, an agent without pods and the second number, which had other webhooks before.
async fn bind(ctx: &Ctx, namespace: &str) -> Result<()> {
    let cluster = ctx.cluster()?;
    let simulator = ctx.installation()?.simulator();
    let former = [("VoiceUrl", FORMER), ("StatusCallback", ""), ("VoiceFallbackUrl", "")];
    simulator.change_number(SID, (ACCOUNT, TOKEN), &former).await?;
    apply_json(cluster, namespace, "secret", &secret(&[("authToken", TOKEN)])).await?;
    let refs = json!([{"name": "twilio", "key": "authToken"}]);
    apply_json(cluster, namespace, "gateway", &gateway(ctx, refs, None)?).await?;
    let agent = json!({
        "persona": {"instructions": {"text": "Sell."}, "greeting": {"text": "Hello."}},
        "engines": [{"name": "scripted", "type": "Simulated", "simulated": {"replies": ["Yes."]}}],
        "scaling": {"type": "Manual", "manual": {"replicas": 0}},
    });
    apply_json(cluster, namespace, "agent", &object("VoiceAgent", "sales", agent)).await?;
    let source = json!({"type": "SID", "sid": SID});
    let number = json!({"source": source, "routes": [{"agentRef": {"name": "sales"}}]});
    apply_json(cluster, namespace, "number", &object("PhoneNumber", "line", number)).await?;
    wait_until_ready(cluster, namespace, "phonenumber", "line", PATIENCE).await?;
    let number = simulator.number(E164).await?;
    assert_eq!(number["voice_url"], format!("https://voice.example.com/{namespace}/sales/twilio/voice"));
    // A pod that nobody asked for would hold its namespace for as long as its calls might take.
    let pods = cluster.kubectl(&["get", "pods", "-n", namespace, "-o", "name"]).await?;
    ensure!(pods.trim().is_empty(), "an agent of no pods has {pods}");
    Ok(())
}

async fn events(cluster: &Cluster, namespace: &str) -> Result<Vec<Value>> {
    let list: Value =
        serde_json::from_str(&cluster.kubectl(&["get", "events", "-n", namespace, "-o", "json"]).await?)?;
    Ok(list["items"].as_array().context("events are a list")?.clone())
}

fn gateway(ctx: &Ctx, token_refs: Value, api_key: Option<Value>) -> Result<Value> {
    let mut twilio = json!({
        "accountSid": ACCOUNT,
        "authTokenSecretRefs": token_refs,
        "apiBaseUrl": ctx.installation()?.simulator().carrier_url(),
    });
    if let Some(key) = api_key {
        twilio["apiKey"] = key;
    }
    let spec = json!({
        "publicUrl": "https://voice.example.com",
        "exposure": {"type": "None"},
        "carrier": {"type": "Twilio", "twilio": twilio},
        "store": {"type": "Memory"},
    });
    Ok(object("VoiceGateway", "default", spec))
}

fn secret(values: &[(&str, &str)]) -> Value {
    let data: serde_json::Map<_, _> =
        values.iter().map(|&(key, value)| (key.to_owned(), json!(value))).collect();
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "twilio"}, "stringData": data})
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": "switchboard.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}
