//! `make demo`: a call on a real cluster, from nothing, told line by line.
//!
//! It checks what it shows: a call without a barge-in, a broken protocol rule, a silent recording or webhooks that are
//! not put back make it fail.

mod load;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::installation::{apply, condition, repository, resource};
use crate::{Cluster, ClusterOptions, Installation, Sandbox, Simulator, wait_for};

const NAMESPACE: &str = "moving";
const AGENT: &str = "sales";
const NUMBER: &str = "+15551230001";
const CALLER: &str = "+15557654321";
/// Bearer token of the agent's API, as in `tests/cluster/moving.yaml`.
const API_TOKEN: &str = "demo-api-token";
/// For anything that takes seconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// Runs the demo; with `KEEP=1` the cluster stays up until Ctrl-C.
///
/// # Errors
/// When a step fails, or what was shown is not what was promised.
pub async fn run(sandbox: &Sandbox) -> Result<()> {
    let stage = Stage::begin();
    stage.say("Bringing up a Kubernetes control plane and node");
    let cluster = Cluster::up(sandbox, ClusterOptions::default()).await?;
    stage.say("Installing Switchboard");
    let scenario = repository().join("tests/simulator/scenarios/demo.yaml");
    let installed = Installation::install(&cluster, &scenario, |step| stage.detail(step)).await?;
    let simulator = installed.simulator();
    let found = &installed.former_number()["voice_url"];

    stage.say("kubectl apply -f tests/cluster/moving.yaml");
    let resources = repository().join("tests/cluster/moving.yaml");
    apply(&cluster, NAMESPACE, &resources).await?.lines().for_each(|line| stage.detail(line));
    follow_readiness(&cluster, &stage).await?;
    for line in cluster.kubectl(&["get", "deploy,svc,hpa,pdb,ingress,pods", "-n", NAMESPACE]).await?.lines() {
        stage.detail(line);
    }

    stage.say(&format!("{CALLER} dials {NUMBER}"));
    let sid = simulator.place_call(CALLER, NUMBER, &installed.caller()?).await?;
    let call = follow_call(simulator, &sid, &stage).await?;
    let kept = keep_recording(simulator, &sid).await?;
    check(simulator, &call).await?;
    stage.say(&format!("Call over: {} with 0 protocol violations", call["endReason"]));
    stage.detail(&format!(
        "the caller heard {} ms of speech in {} ms: {}",
        call["heard"]["voicedMilliseconds"],
        call["heard"]["milliseconds"],
        kept.display()
    ));

    load::show(&cluster, simulator, &stage).await?;

    if std::env::var("KEEP").is_ok_and(|keep| keep == "1") {
        stage.say("KEEP=1: the cluster stays up until Ctrl-C. In another terminal, as root:");
        stage
            .detail(&format!("{} kubectl get voiceagents,pods -n {NAMESPACE}", cluster.entrance().display()));
        std::future::pending::<()>().await;
    }

    stage.say("kubectl delete phonenumber main-line: the number's former webhooks come back");
    cluster.kubectl(&["delete", "phonenumber", "main-line", "-n", NAMESPACE, "--timeout=60s"]).await?;
    let restored = simulator.number(NUMBER).await?["voice_url"].clone();
    ensure!(restored == *found, "the number's voice URL is {restored}, it was {found}");
    stage.detail(&format!("voice URL is {restored} again"));
    stage.say("Done; everything is removed");
    Ok(())
}

/// Prints lines with the time since the start.
struct Stage {
    began: Instant,
}

impl Stage {
    fn begin() -> Self {
        Self { began: Instant::now() }
    }

    fn say(&self, line: &str) {
        println!("\n==> {:5.1} s  {line}", self.began.elapsed().as_secs_f64());
    }

    fn detail(&self, line: &str) {
        println!("      {line}");
    }
}

/// Shows each change of the resources' Ready conditions until all are True.
async fn follow_readiness(cluster: &Cluster, stage: &Stage) -> Result<()> {
    let watched = [("voicegateway", "default"), ("voiceagent", AGENT), ("phonenumber", "main-line")];
    let mut shown = [const { String::new() }; 3];
    wait_for("gateway, agent and number to be ready", PATIENCE, async || {
        let mut ready = 0;
        for ((kind, name), shown) in watched.iter().zip(&mut shown) {
            let resource = resource(cluster, NAMESPACE, kind, name).await?;
            let Some(condition) = condition(&resource, "Ready") else { continue };
            let text = |key: &str| condition[key].as_str().unwrap_or_default().to_owned();
            let line =
                format!("{kind}/{name}: Ready={} {} {}", text("status"), text("reason"), text("message"));
            if line != *shown {
                stage.detail(&line);
                *shown = line;
            }
            ready += usize::from(text("status") == "True");
        }
        Ok((ready == watched.len()).then_some(()))
    })
    .await
}

/// Shows what happens in the call and what is said, as it happens.
async fn follow_call(simulator: &Simulator, sid: &str, stage: &Stage) -> Result<Value> {
    let transcript = Transcript::new()?;
    let mut events = 0;
    let mut lines = 0;
    wait_for("the call to end", PATIENCE, async || {
        let call = simulator.call(sid).await?;
        let timeline = call["timeline"].as_array().map(Vec::as_slice).unwrap_or_default();
        for event in &timeline[events.min(timeline.len())..] {
            stage.detail(&describe(event));
        }
        events = timeline.len();
        let said = transcript.of(sid).await;
        for line in &said[lines.min(said.len())..] {
            stage.detail(line);
        }
        lines = lines.max(said.len());
        Ok((call["finished"] == true).then_some(call))
    })
    .await
}

/// The live transcript, from the agent's API: any pod answers for any call.
struct Transcript {
    http: reqwest::Client,
}

impl Transcript {
    fn new() -> Result<Self> {
        Ok(Self { http: reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()? })
    }

    /// What was said so far; nothing while the call is not known yet.
    async fn of(&self, sid: &str) -> Vec<String> {
        let url = format!("http://{AGENT}-media.{NAMESPACE}.svc.cluster.local:8081/v1/calls/{sid}");
        let Ok(response) = self.http.get(url).bearer_auth(API_TOKEN).send().await else { return Vec::new() };
        let Ok(call) = response.json::<Value>().await else { return Vec::new() };
        let said = call["transcript"].as_array().map(Vec::as_slice).unwrap_or_default();
        said.iter()
            .map(|line| {
                let cut = if line["interrupted"] == true { "  [interrupted]" } else { "" };
                let text = line["text"].as_str().unwrap_or_default();
                format!("  {:>6}: {text}{cut}", line["speaker"].as_str().unwrap_or_default())
            })
            .collect()
    }
}

/// One event of the simulator's timeline as a line.
fn describe(event: &Value) -> String {
    let mut facts: Vec<String> = event
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, _)| !matches!(key.as_str(), "event" | "atMilliseconds"))
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    facts.sort();
    let at = event["atMilliseconds"].as_u64().unwrap_or_default();
    format!("{at:>6} ms  {} {}", event["event"].as_str().unwrap_or_default(), facts.join(" "))
}

async fn check(simulator: &Simulator, call: &Value) -> Result<()> {
    let violations = simulator.violations().await?;
    ensure!(violations.is_empty(), "the product broke rules of the protocols: {violations:#?}");
    ensure!(call["failedStep"].is_null(), "the caller could not go on: {:#}", call["failedStep"]);
    let timeline = call["timeline"].as_array().context("a call has a timeline")?;
    let barge_ins = timeline.iter().filter(|event| event["event"] == "bargeIn").count();
    ensure!(barge_ins == 1, "the caller interrupted once, the agent gave way {barge_ins} times: {call:#}");
    ensure!(call["heard"]["voicedMilliseconds"].as_u64() > Some(1000), "the caller heard nothing: {call:#}");
    Ok(())
}

async fn keep_recording(simulator: &Simulator, sid: &str) -> Result<PathBuf> {
    let folder = repository().join("demo-output");
    std::fs::create_dir_all(&folder)?;
    let path = folder.join("heard.wav");
    std::fs::write(&path, simulator.heard(sid).await?)?;
    Ok(path)
}
