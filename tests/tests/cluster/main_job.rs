//! The main job: a gateway, an agent and a number are applied; a caller dials, talks, interrupts, hangs up; everything
//! in between is the product's. Each trial names the promise it proves.
//!
//! The trials run in the order of their names' numbers, one after another, on one installation.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use e2e::installation::{apply, condition, repository, resource, wait_until_ready};
use e2e::wait_for;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::context::{Ctx, PATIENCE};

pub(crate) const NAMESPACE: &str = "moving";
pub(crate) const NUMBER: &str = "+15551230001";
pub(crate) const CALLER: &str = "+15557654321";

pub(crate) fn trials(ctx: &Arc<Ctx>) -> Vec<Trial> {
    vec![
        ctx.trial("main_job::1_what_an_agent_needs_exists_and_belongs_to_it", children),
        ctx.trial("main_job::2_the_number_calls_the_agent_at_twilio", webhooks),
        ctx.trial("main_job::3_a_caller_talks_interrupts_and_is_said_goodbye_to", call),
        ctx.trial("main_job::4_a_wrong_signature_is_refused_and_counted", wrong_signature),
        ctx.trial("main_job::5_a_deleted_child_comes_back", deleted_child),
        ctx.trial("main_job::6_a_missing_secret_is_named_and_heals_when_it_appears", missing_secret),
        ctx.trial("main_job::7_a_changed_greeting_reaches_the_pods_without_a_restart", changed_greeting),
        ctx.trial("main_job::8_a_deleted_number_has_its_former_webhooks_back", deleted_number),
    ]
}

/// The resources of the demo, applied and ready. Idempotent, so that each trial can be run alone.
pub(crate) async fn ready(ctx: &Ctx) -> Result<()> {
    let cluster = ctx.cluster()?;
    apply(cluster, NAMESPACE, &moving()).await?;
    for (kind, name) in [("voicegateway", "default"), ("voiceagent", "sales"), ("phonenumber", "main-line")] {
        wait_until_ready(cluster, NAMESPACE, kind, name, PATIENCE).await?;
    }
    Ok(())
}

async fn children(ctx: Arc<Ctx>) -> Result<()> {
    let cluster = ctx.cluster()?;
    ready(&ctx).await?;
    let agent = resource(cluster, NAMESPACE, "voiceagent", "sales").await?;
    let kinds = [
        "serviceaccount",
        "configmap",
        "deployment",
        "service",
        "horizontalpodautoscaler",
        "poddisruptionbudget",
        "ingress",
    ];
    let mut children = serde_json::Map::new();
    for kind in kinds {
        let child = resource(cluster, NAMESPACE, kind, "sales-media").await?;
        let owner = &child["metadata"]["ownerReferences"][0];
        assert_eq!(owner["uid"], agent["metadata"]["uid"], "{kind} is owned by its agent");
        assert_eq!(owner["controller"], true, "{kind}");
        assert_eq!(child["metadata"]["labels"]["switchboard.dev/agent"], "sales", "{kind}");
        children.insert(kind.to_owned(), child);
    }

    let deployment = &children["deployment"]["spec"];
    assert_eq!(deployment["replicas"], 2, "minReplicas, once");
    let pod = &deployment["template"]["spec"];
    assert_eq!(pod["terminationGracePeriodSeconds"], 60, "drain window of 30 s and the margin");
    assert_eq!(pod["automountServiceAccountToken"], false);
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    let media = &pod["containers"][0];
    assert_eq!(media["securityContext"]["readOnlyRootFilesystem"], true);
    assert_eq!(media["securityContext"]["capabilities"]["drop"], json!(["ALL"]));

    let hpa = &children["horizontalpodautoscaler"]["spec"];
    assert_eq!(hpa["minReplicas"], 2);
    assert_eq!(hpa["maxReplicas"], 4);
    assert_eq!(hpa["scaleTargetRef"]["name"], "sales-media");
    assert_eq!(hpa["metrics"][0]["pods"]["metric"]["name"], "switchboard_active_calls");
    assert_eq!(hpa["metrics"][0]["pods"]["target"]["averageValue"], "20");
    assert_eq!(children["poddisruptionbudget"]["spec"]["maxUnavailable"], 1);
    let rule = &children["ingress"]["spec"]["rules"][0];
    assert_eq!(rule["host"], "voice.example.com");
    assert_eq!(rule["http"]["paths"][0]["path"], "/moving/sales/twilio");

    let document = children["configmap"]["data"]["agent.json"].as_str().context("agent.json")?;
    let document: Value = serde_json::from_str(document)?;
    assert_eq!(document["revision"], agent["status"]["configRevision"]);
    for secret in ["simulated-auth-token", "simulated-model-key", "demo-api-token"] {
        ensure!(!document.to_string().contains(secret), "a secret's value is in the ConfigMap");
    }
    Ok(())
}

async fn webhooks(ctx: Arc<Ctx>) -> Result<()> {
    ready(&ctx).await?;
    let number = ctx.installation()?.simulator().number(NUMBER).await?;
    let base = "https://voice.example.com/moving/sales/twilio";
    assert_eq!(number["voice_url"], format!("{base}/voice"));
    assert_eq!(number["voice_method"], "POST");
    assert_eq!(number["status_callback"], format!("{base}/status"));
    let resource = resource(ctx.cluster()?, NAMESPACE, "phonenumber", "main-line").await?;
    assert_eq!(resource["status"]["entryAgent"], "sales");
    assert_eq!(resource["status"]["sid"], number["sid"]);
    Ok(())
}

async fn call(ctx: Arc<Ctx>) -> Result<()> {
    ready(&ctx).await?;
    let simulator = ctx.installation()?.simulator();
    let sid = simulator.place_call(CALLER, NUMBER, &ctx.installation()?.caller()?).await?;
    let call = simulator.finished_call(&sid, Duration::from_secs(120)).await?;
    assert_eq!(simulator.violations().await?, Vec::<Value>::new(), "{call:#}");
    assert_eq!(call["failedStep"], Value::Null, "{call:#}");
    assert_eq!(call["endReason"], "hangupVerb", "the agent says goodbye and hangs up: {call:#}");
    let timeline = call["timeline"].as_array().context("a timeline")?;
    let count = |name: &str| timeline.iter().filter(|event| event["event"] == name).count();
    assert_eq!(count("streamStarted"), 1, "{call:#}");
    assert_eq!(count("bargeIn"), 1, "{call:#}");
    ensure!(call["heard"]["voicedMilliseconds"].as_u64() > Some(1000), "the caller heard nothing: {call:#}");

    // Every word of the caller arrived unaltered, and what was not heard is not remembered.
    let known = api_call(&sid).await?;
    assert_eq!(known["endReason"], "agent_hung_up", "{known:#}");
    let said: Vec<&Value> = known["transcript"].as_array().context("a transcript")?.iter().collect();
    let of = |speaker: &str| said.iter().filter(|line| line["speaker"] == speaker).count();
    ensure!(of("caller") >= 3 && of("agent") >= 3, "{known:#}");
    ensure!(!known.to_string().contains("unintelligible"), "{known:#}");
    assert_eq!(said.iter().filter(|line| line["interrupted"] == true).count(), 1, "{known:#}");

    // The pods' logs tell of the call by its id, and quote nobody.
    let logs = ctx
        .cluster()?
        .kubectl(&["logs", "-n", NAMESPACE, "-l", "switchboard.dev/agent=sales", "--tail=-1"])
        .await?;
    ensure!(logs.contains(&sid), "the call is in no log");
    for private in [CALLER, NUMBER, "simulated-auth-token", "simulated-model-key"] {
        ensure!(!logs.contains(private), "a log holds {private}");
    }
    Ok(())
}

async fn wrong_signature(ctx: Arc<Ctx>) -> Result<()> {
    ready(&ctx).await?;
    let http = reqwest::Client::builder().no_proxy().build()?;
    let url = "http://sales-media.moving.svc.cluster.local:8080/moving/sales/twilio/voice";
    let refused = http
        .post(url)
        .header("x-twilio-signature", "AAAAAAAAAAAAAAAAAAAAAAAAAAA=")
        .form(&[("CallSid", "CA00000000000000000000000000000bad"), ("From", CALLER), ("To", NUMBER)])
        .send()
        .await?;
    assert_eq!(refused.status(), 403);
    let unsigned = http.post(url).form(&[("CallSid", "CA00000000000000000000000000000bad")]).send().await?;
    assert_eq!(unsigned.status(), 403);
    match api_call("CA00000000000000000000000000000bad").await {
        Ok(known) => bail!("a refused webhook left state: {known:#}"),
        Err(error) => ensure!(error.to_string().contains("404"), "{error:#}"),
    }
    let refusals: f64 = metrics(&ctx, "switchboard_webhooks_refused_total").await?.iter().sum();
    ensure!(refusals >= 2.0, "{refusals} refusals counted");
    Ok(())
}

async fn deleted_child(ctx: Arc<Ctx>) -> Result<()> {
    let cluster = ctx.cluster()?;
    ready(&ctx).await?;
    for kind in ["service", "poddisruptionbudget", "deployment"] {
        let before = resource(cluster, NAMESPACE, kind, "sales-media").await?["metadata"]["uid"].clone();
        cluster.kubectl(&["delete", kind, "sales-media", "-n", NAMESPACE, "--wait=false"]).await?;
        wait_for(&format!("{kind} to come back"), PATIENCE, async || {
            let now = resource(cluster, NAMESPACE, kind, "sales-media").await?;
            Ok((now["metadata"]["uid"] != before && now["metadata"]["deletionTimestamp"].is_null())
                .then_some(()))
        })
        .await?;
    }
    Ok(())
}

async fn missing_secret(ctx: Arc<Ctx>) -> Result<()> {
    let cluster = ctx.cluster()?;
    ready(&ctx).await?;
    let agent = json!([{"op": "replace", "path": "/spec/engines/0/realtime/apiKeySecretRef/name", "value": "not-there"}]);
    let patch = ["patch", "voiceagent", "sales", "-n", NAMESPACE, "--type=json", "-p", &agent.to_string()];
    cluster.kubectl(&patch).await?;
    wait_for("a condition that names the missing Secret", PATIENCE, async || {
        let agent = resource(cluster, NAMESPACE, "voiceagent", "sales").await?;
        let resolved = condition(&agent, "ReferencesResolved").context("no condition ReferencesResolved")?;
        let message = resolved["message"].as_str().unwrap_or_default();
        Ok((resolved["status"] == "False" && message.contains("not-there")).then_some(()))
    })
    .await?;
    let secret = ["create", "secret", "generic", "not-there", "-n", NAMESPACE];
    cluster.kubectl(&[&secret[..], &["--from-literal=apiKey=simulated-model-key"]].concat()).await?;
    wait_until_ready(cluster, NAMESPACE, "voiceagent", "sales", PATIENCE).await?;
    Ok(())
}

async fn changed_greeting(ctx: Arc<Ctx>) -> Result<()> {
    let cluster = ctx.cluster()?;
    ready(&ctx).await?;
    let pods = ["get", "pods", "-n", NAMESPACE, "-l", "switchboard.dev/agent=sales", "-o", "name"];
    wait_for("two pods and no other", PATIENCE, async || {
        Ok((cluster.kubectl(&pods).await?.lines().count() == 2).then_some(()))
    })
    .await?;
    let before = cluster.kubectl(&pods).await?;
    let patch =
        json!({"spec": {"persona": {"greeting": {"text": "Good day, Example Movers, this is Anna."}}}});
    cluster
        .kubectl(&["patch", "voiceagent", "sales", "-n", NAMESPACE, "--type=merge", "-p", &patch.to_string()])
        .await?;
    let agent = wait_until_ready(cluster, NAMESPACE, "voiceagent", "sales", PATIENCE).await?;
    let wanted = agent["status"]["configRevision"].clone();
    wait_for("all pods to load the new configuration", PATIENCE, async || {
        let loads = loads(&ctx).await?;
        Ok((loads.len() == 2 && loads.iter().all(|load| load["configRevision"] == wanted)).then_some(()))
    })
    .await?;
    assert_eq!(cluster.kubectl(&pods).await?, before, "the same pods, not restarted");
    Ok(())
}

async fn deleted_number(ctx: Arc<Ctx>) -> Result<()> {
    let cluster = ctx.cluster()?;
    ready(&ctx).await?;
    cluster.kubectl(&["delete", "phonenumber", "main-line", "-n", NAMESPACE, "--timeout=60s"]).await?;
    let installation = ctx.installation()?;
    let number = installation.simulator().number(NUMBER).await?;
    let former = installation.former_number();
    for field in [
        "voice_url",
        "voice_method",
        "voice_fallback_url",
        "voice_fallback_method",
        "status_callback",
        "status_callback_method",
        "voice_application_sid",
        "trunk_sid",
    ] {
        let unset = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        assert_eq!(unset(&number[field]), unset(&former[field]), "{field}");
    }
    assert_eq!(installation.simulator().violations().await?, Vec::<Value>::new());
    Ok(())
}

/// A call as the agent's API knows it; any pod answers.
async fn api_call(sid: &str) -> Result<Value> {
    let url = format!("http://sales-media.moving.svc.cluster.local:8081/v1/calls/{sid}");
    let http = reqwest::Client::builder().no_proxy().build()?;
    Ok(http.get(url).bearer_auth("demo-api-token").send().await?.error_for_status()?.json().await?)
}

/// What every pod of the agent says at its admin door.
async fn admin(ctx: &Ctx, path: &str) -> Result<Vec<String>> {
    let jsonpath = "jsonpath={range .items[?(@.status.phase=='Running')]}{.status.podIP}{'\\n'}{end}";
    let pods = ["get", "pods", "-n", NAMESPACE, "-l", "switchboard.dev/agent=sales", "-o", jsonpath];
    let http = reqwest::Client::builder().no_proxy().build()?;
    let mut answers = Vec::new();
    for address in ctx.cluster()?.kubectl(&pods).await?.lines() {
        let answer = http.get(format!("http://{address}:9090{path}")).send().await?;
        answers.push(answer.error_for_status()?.text().await?);
    }
    Ok(answers)
}

pub(crate) async fn loads(ctx: &Ctx) -> Result<Vec<Value>> {
    admin(ctx, "/load").await?.iter().map(|load| Ok(serde_json::from_str(load)?)).collect()
}

/// Every value of a metric, over labels and pods.
async fn metrics(ctx: &Ctx, name: &str) -> Result<Vec<f64>> {
    let scrapes = admin(ctx, "/metrics").await?;
    let lines = scrapes.iter().flat_map(|scrape| scrape.lines());
    let samples =
        lines.filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
    samples.map(|line| Ok(line.rsplit(' ').next().unwrap_or_default().parse()?)).collect()
}

fn moving() -> PathBuf {
    repository().join("tests/cluster/moving.yaml")
}
