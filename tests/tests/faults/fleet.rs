//! Two pods of one agent on one real Redis: what bounds calls (callers, minutes, calls at once, suspension) bounds them over
//! both, and what the store does to running calls when it is lost: nothing. One Redis speaks TLS only.

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use e2e::wait_for;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::pod::{Pod, Scrape};
use crate::quiet::QuietCall;
use crate::stage::{CALL, CALLER, PATIENCE, Process, QUESTION, Stage, events};
use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("fleet: calls of one caller in an hour are counted over both pods", caller_rate),
        trial("fleet: calls at once are counted over both pods, and the next hears the message", concurrency),
        trial("fleet: a caller without a slot lets it ring, and has the slot of a call that ends", waiting),
        trial("fleet: minutes of a day are counted over both pods", minutes),
        trial("fleet: a suspended agent takes no new call and ends no running one", suspended),
        trial("fleet: a Redis behind TLS is shared by both pods, and its loss harms no call", tls),
    ]
}

const CALLER_RATE: &str = "switchboard_calls_refused_total{reason=\"caller_rate\"}";
const CONCURRENCY: &str = "switchboard_calls_refused_total{reason=\"concurrency\"}";
const MINUTES: &str = "switchboard_calls_refused_total{reason=\"daily_minutes\"}";
const SUSPENDED: &str = "switchboard_calls_refused_total{reason=\"suspended\"}";
const WAITING: &str = "switchboard_waiting_calls";
const STORE: &str = "switchboard_store_failures_total";

/// Two pods, what they are configured by, and their counters at the beginning.
struct Fleet {
    stage: Stage,
    agent: Value,
    pods: [Pod; 2],
    before: [Scrape; 2],
    redis: Redis,
}

impl Fleet {
    async fn open(name: &str, settings: Value, is_encrypted: bool) -> Result<Self> {
        let stage = Stage::open(name).await?;
        let redis = Redis::start(&stage, is_encrypted).await?;
        let mut agent = stage.agent();
        for (key, value) in settings.as_object().into_iter().flatten() {
            agent[key] = value.clone();
        }
        agent["overflow"] = json!({"type": "Message", "message": {"text": "All our movers are busy."}});
        agent["store"] = json!({"type": "Redis", "redis": {"url": {"name": "redis", "key": "url"}}});
        let first = redis.pod(&stage, "pod-0", &agent).await?;
        let second = redis.pod(&stage, "pod-1", &agent).await?;
        let before = [first.scrape().await?, second.scrape().await?];
        Ok(Self { stage, agent, pods: [first, second], before, redis })
    }

    /// A call that begins on this pod.
    async fn place(&self, pod: usize, from: &str, steps: &Value) -> Result<String> {
        self.stage.service.lead_to(self.pods[pod].public());
        let sid = self.stage.place(from, steps).await?;
        wait_for("the call's webhook", PATIENCE, async || {
            let call = self.stage.call(&sid).await?;
            let is_taken = events(&call, "streamStarted").len() + events(&call, "verbStarted").len() > 0;
            Ok(is_taken.then_some(()))
        })
        .await?;
        Ok(sid)
    }

    /// A call from its beginning to its end, which was answered by the agent.
    async fn talk(&self, pod: usize, from: &str) -> Result<()> {
        let sid = self.place(pod, from, &json!([listen(), "hangUp"])).await?;
        let call = self.stage.finished(&sid).await?;
        ensure!(call["failedStep"].is_null() && events(&call, "streamStarted").len() == 1, "{call:#}");
        Ok(())
    }

    /// A call that gets a sentence instead of the agent, counted so by this pod.
    async fn ensure_refused(&self, pod: usize, from: &str, series: &str) -> Result<()> {
        let before = self.pods[pod].scrape().await?;
        let sid = self.place(pod, from, &json!([{"expectHangUp": {"seconds": 60}}])).await?;
        let call = self.stage.finished(&sid).await?;
        ensure!(events(&call, "streamStarted").is_empty(), "it was taken: {call:#}");
        let said = events(&call, "verbStarted").iter().any(|event| event["verb"] == "Say");
        ensure!(said && call["failedStep"].is_null(), "{call:#}");
        self.pods[pod].scrape().await?.ensure_faults(&before, &[series])
    }

    /// Nothing else went wrong than this, on either pod.
    async fn close(self, expected: [&[&str]; 2]) -> Result<()> {
        for (index, expected) in expected.into_iter().enumerate() {
            self.pods[index].scrape().await?.ensure_faults(&self.before[index], expected)?;
        }
        self.stage.ensure_no_violation().await
    }
}

fn listen() -> Value {
    json!({"waitForAgent": {"seconds": 60}})
}

/// A call that waits for its agent to hang up, which it never does.
fn hold(seconds: u32) -> Value {
    json!([listen(), {"pause": seconds * 1000}, "hangUp"])
}

async fn caller_rate() -> Result<()> {
    let fleet = Fleet::open("caller rate", json!({"limits": {"maxCallsPerCallerPerHour": 2}}), false).await?;
    fleet.talk(0, CALLER).await?;
    fleet.talk(1, CALLER).await?;
    fleet.ensure_refused(0, CALLER, CALLER_RATE).await?;
    fleet.ensure_refused(1, CALLER, CALLER_RATE).await?;
    fleet.talk(0, "+15551112222").await?;
    fleet.close([&[CALLER_RATE], &[CALLER_RATE]]).await
}

async fn concurrency() -> Result<()> {
    let fleet = Fleet::open("concurrency", json!({"limits": {"maxConcurrentCalls": 2}}), false).await?;
    let first = fleet.place(0, CALLER, &hold(300)).await?;
    let second = fleet.place(1, CALLER, &hold(300)).await?;
    fleet.ensure_refused(0, CALLER, CONCURRENCY).await?;
    fleet.ensure_refused(1, CALLER, CONCURRENCY).await?;
    // One ends at the pod that has it; the other pod takes the next.
    fleet.pods[0].hang_up(&first).await?;
    fleet.stage.finished(&first).await?;
    fleet.talk(1, CALLER).await?;
    let call = fleet.stage.call(&second).await?;
    ensure!(call["finished"] == false && events(&call, "streamStarted").len() == 1, "{call:#}");
    // Asked of the pod that does not have it.
    fleet.pods[0].hang_up(&second).await?;
    fleet.stage.finished(&second).await?;
    fleet.close([&[CONCURRENCY], &[CONCURRENCY]]).await
}

async fn waiting() -> Result<()> {
    let room = json!({"maxCallsPerPod": 1, "overflowWaitSeconds": 60});
    let fleet = Fleet::open("waiting", room, false).await?;
    let first = fleet.place(0, CALLER, &hold(300)).await?;
    let second = fleet.place(1, "+15551112222", &hold(300)).await?;
    for sid in [&first, &second] {
        wait_for("its stream", PATIENCE, async || {
            let call = fleet.stage.call(sid).await?;
            Ok((!events(&call, "streamStarted").is_empty()).then_some(()))
        })
        .await?;
    }
    let third = fleet.place(1, "+15551113333", &json!([listen(), "hangUp"])).await?;
    // It has asked again, and either pod tells that it waits.
    let asked = wait_for("the caller to ask again", PATIENCE, async || {
        let call = fleet.stage.call(&third).await?;
        let pauses = events(&call, "verbStarted").iter().filter(|event| event["verb"] == "Pause").count();
        Ok((pauses > 1).then_some(call))
    })
    .await?;
    ensure!(events(&asked, "answered").is_empty() && events(&asked, "streamStarted").is_empty(), "{asked:#}");
    for (pod, before) in fleet.pods.iter().zip(&fleet.before) {
        pod.until_moved(before, &[WAITING]).await?;
    }
    // The pod that is asked next has room again.
    fleet.pods[1].hang_up(&second).await?;
    fleet.stage.finished(&second).await?;
    let call = fleet.stage.finished(&third).await?;
    ensure!(call["failedStep"].is_null() && events(&call, "streamStarted").len() == 1, "{call:#}");
    // Its first sound was the agent's.
    ensure!(events(&call, "verbStarted").iter().all(|event| event["verb"] != "Say"), "{call:#}");
    wait_for("nobody to wait any more", PATIENCE, async || {
        let left = fleet.pods[1].scrape().await?.since(&fleet.before[1], WAITING);
        Ok((left == 0.0).then_some(()))
    })
    .await?;
    fleet.pods[0].hang_up(&first).await?;
    fleet.stage.finished(&first).await?;
    fleet.close([&[], &[]]).await
}

async fn minutes() -> Result<()> {
    let fleet = Fleet::open("minutes", json!({"limits": {"maxMinutesPerDay": 1}}), false).await?;
    // More than half a minute each, at the same time.
    let first = fleet.place(0, CALLER, &hold(30)).await?;
    let second = fleet.place(1, "+15551112222", &hold(30)).await?;
    for sid in [first, second] {
        let call = fleet.stage.finished(&sid).await?;
        ensure!(call["failedStep"].is_null(), "{call:#}");
    }
    fleet.ensure_refused(0, CALLER, MINUTES).await?;
    fleet.ensure_refused(1, "+15553334444", MINUTES).await?;
    fleet.close([&[MINUTES], &[MINUTES]]).await
}

async fn suspended() -> Result<()> {
    let fleet = Fleet::open("suspended", json!({"limits": {}}), false).await?;
    fleet.stage.service.lead_to(fleet.pods[0].public());
    let running = QuietCall::begin(&fleet.stage, &fleet.pods[0]).await?;
    let load = async |revision: &str, is_suspended: bool| -> Result<()> {
        let mut agent = fleet.agent.clone();
        agent["revision"] = json!(revision);
        agent["suspended"] = json!(is_suspended);
        for pod in &fleet.pods {
            pod.load(&agent).await?;
        }
        Ok(())
    };
    load("suspended", true).await?;
    fleet.ensure_refused(0, CALLER, SUSPENDED).await?;
    fleet.ensure_refused(1, CALLER, SUSPENDED).await?;
    load("back", false).await?;
    fleet.talk(1, CALLER).await?;
    running.ensure_undisturbed().await?;
    fleet.close([&[SUSPENDED], &[SUSPENDED]]).await
}

async fn tls() -> Result<()> {
    let fleet = Fleet::open("redis over tls", json!({"limits": {"maxConcurrentCalls": 1}}), true).await?;
    let sid =
        fleet.place(0, CALLER, &json!([listen(), {"say": QUESTION}, listen(), {"pause": 300_000}])).await?;
    fleet.ensure_refused(1, CALLER, CONCURRENCY).await?;
    wait_for("the other pod to know the call", PATIENCE, async || {
        let known = fleet.pods[1].call(&sid).await?;
        Ok((known["status"] == "inProgress").then_some(()))
    })
    .await?;
    fleet.pods[0].scrape().await?.ensure_faults(&fleet.before[0], &[])?;

    let call = fleet.stage.call(&sid).await?;
    let heard = events(&call, "agentStoppedSpeaking").len();
    fleet.redis.process.kill()?;
    fleet.pods[0].until_moved(&fleet.before[0], &[STORE]).await?;
    wait_for("the call to go on without Redis", CALL, async || {
        let call = fleet.stage.call(&sid).await?;
        Ok((events(&call, "agentStoppedSpeaking").len() >= heard.max(2)).then_some(()))
    })
    .await?;
    let call = fleet.stage.call(&sid).await?;
    ensure!(call["finished"] == false && events(&call, "streamStarted").len() == 1, "{call:#}");
    fleet.talk(1, "+15551112222").await
}

/// A Redis server of a trial's own.
struct Redis {
    process: Process,
    url: String,
    authority: Option<PathBuf>,
}

impl Redis {
    async fn start(stage: &Stage, is_encrypted: bool) -> Result<Self> {
        let directory = stage.directory().path().join("redis");
        std::fs::create_dir_all(&directory)?;
        let port = free_port()?;
        let mut command = Command::new("redis-server");
        command.args(["--save", "", "--appendonly", "no", "--bind", "127.0.0.1", "--dir"]).arg(&directory);
        let (scheme, authority) = if is_encrypted {
            let names = vec!["localhost".to_owned(), Ipv4Addr::LOCALHOST.to_string()];
            let certified = rcgen::generate_simple_self_signed(names)?;
            let (certificate, key) = (directory.join("redis.pem"), directory.join("redis.key"));
            std::fs::write(&certificate, certified.cert.pem())?;
            std::fs::write(&key, certified.signing_key.serialize_pem())?;
            command.args(["--port", "0", "--tls-port", &port.to_string(), "--tls-auth-clients", "no"]);
            command.arg("--tls-cert-file").arg(&certificate).arg("--tls-key-file").arg(key);
            command.arg("--tls-ca-cert-file").arg(&certificate);
            ("rediss", Some(certificate))
        } else {
            command.args(["--port", &port.to_string()]);
            ("redis", None)
        };
        let process = Process::start("redis", &mut command, stage.directory())
            .context("this trial needs redis-server (Debian: apt-get install redis-server)")?;
        process.line("Redis", |line| line.contains("eady to accept connections")).await?;
        Ok(Self { process, url: format!("{scheme}://localhost:{port}"), authority })
    }

    async fn pod(&self, stage: &Stage, name: &str, agent: &Value) -> Result<Pod> {
        let secret = stage.directory().path().join(name).join("secrets/redis");
        std::fs::create_dir_all(&secret)?;
        std::fs::write(secret.join("url"), &self.url)?;
        stage
            .pod_with(name, agent, |command| {
                if let Some(authority) = &self.authority {
                    command.env("SWITCHBOARD_EXTRA_CA_FILE", authority);
                }
            })
            .await
    }
}

/// A port that was free a moment ago.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
