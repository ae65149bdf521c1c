//! `switchboard-sim local`: a call on this machine from nothing — phone network, model and one media pod.
//!
//! *Flow:* a temporary directory with agent file, keyring and secrets; both simulated services on free loopback ports; the
//! media pod as a child process; the scenario's first caller; events and transcript as they come; a WAV. *Guarantees:* no
//! root, no network beyond loopback, nothing left behind but the WAV; fails on a violation or a caller's failed step.

pub(super) mod agent;
pub(super) mod pod;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::Value;
use simulator::carrier::edge::Edge;
use simulator::scenario::Scenario;

use self::agent::LocalAgent;
use self::pod::{Calls, Pod};
use super::real_model::{Endpoint, RealModel};
use super::report::{self, Follower};
use super::serve::{self, Services};
use super::{Outcome, shutdown};

/// How often the call and its transcript are looked at.
const POLL: Duration = Duration::from_millis(150);
/// Where the product's public URL leads; it never leaves the machine.
pub(super) const LOOPBACK: &str = "127.0.0.1:0";

#[derive(Args, Debug)]
pub(crate) struct Local {
    /// Your own agent file (as `switchboard render` prints it); a demo agent when absent. Its account, model and store are
    /// replaced by simulated ones, its model only where no real one is given.
    #[arg(long)]
    agent: Option<PathBuf>,
    /// Scenario file; when absent the demo's, or for an agent of your own a visitor who asks, listens and hangs up.
    #[arg(long)]
    scenario: Option<PathBuf>,
    /// The media pod's binary; beside this one when absent.
    #[arg(long)]
    media: Option<PathBuf>,
    /// Where to keep the call: caller left, agent right.
    #[arg(long, default_value = "demo-output/heard.wav")]
    heard: PathBuf,
    /// Log filter of the media pod; its log goes to standard error.
    #[arg(long, default_value = "warn")]
    media_log: String,
    #[command(flatten)]
    real_model: RealModel,
}

pub(crate) async fn run(local: Local) -> anyhow::Result<Outcome> {
    let own = match &local.agent {
        Some(path) => Some(agent::read(path)?),
        None => None,
    };
    let mut scenario = match &own {
        Some(file) if local.scenario.is_none() => Scenario::visitor(file["persona"]["greeting"].is_object())?,
        _ => serve::read_scenario(local.scenario.as_deref())?,
    };
    let twilio = serve::bind(LOOPBACK).await?;
    let model = serve::bind(LOOPBACK).await?;
    let carrier_url = format!("http://{}", twilio.local_addr()?);
    let real = local.real_model.endpoint()?;
    let endpoint = match &real {
        Some(real) => real.clone(),
        None => simulated(&scenario, model.local_addr()?),
    };
    let agent = LocalAgent::new(own, &scenario, &carrier_url, &endpoint)?;
    let media = match &local.media {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("switchboard-media"),
    };
    let which = if real.is_some() { "the model that you name" } else { "a simulated model" };
    println!("Switchboard on this machine: a simulated phone network, {which}, one media pod.");
    let mut pod = Pod::start(&media, &agent, &local.media_log).await?;
    let edge: Edge = format!("{}=http://{}", agent.public_url, pod.public_address).parse()?;
    point_numbers_at(&mut scenario, &agent);
    let services = Services::start(&scenario, scenario.carrier(vec![edge])?, twilio, model)?;
    let calls = pod.calls();
    let result = tokio::select! {
        biased;
        ended = pod.ended() => Err(ended),
        interrupted = shutdown::requested() => interrupted.map_err(Into::into).and_then(|()| bail!("interrupted")),
        result = call(&local, &scenario, &services, &calls) => result,
    };
    pod.stop().await;
    services.model.stop();
    result
}

/// The simulated model as the pod finds it.
pub(super) fn simulated(scenario: &Scenario, address: SocketAddr) -> Endpoint {
    let url = format!("ws://{address}/v1/realtime");
    Endpoint { url, key: scenario.model.api_key.clone(), ca_file: None }
}

/// The numbers' webhooks, as the operator would set them.
pub(super) fn point_numbers_at(scenario: &mut Scenario, agent: &LocalAgent) {
    let base = format!("{}/{}/{}/twilio", agent.public_url, agent.namespace, agent.name);
    for number in &mut scenario.numbers {
        number.fields.clear();
        number.fields.insert("voiceUrl".to_owned(), format!("{base}/voice"));
        number.fields.insert("statusCallback".to_owned(), format!("{base}/status"));
    }
}

async fn call(
    local: &Local,
    scenario: &Scenario,
    services: &Services,
    calls: &Calls,
) -> anyhow::Result<Outcome> {
    let caller = scenario.callers.first().context("the scenario has no caller")?;
    println!("{} calls {}\n", caller.from, caller.to);
    let carrier = services.carrier.clone();
    let (from, to, steps) = (caller.from.clone(), caller.to.clone(), caller.steps.clone());
    let runtime = tokio::runtime::Handle::current();
    let record = tokio::task::spawn_blocking(move || {
        let _guard = runtime.enter();
        carrier.place_inbound(&from, &to, steps) // renders speech, which may take a process each
    })
    .await??;
    let mut follower = Follower::default();
    let view = loop {
        let view = serde_json::to_value(record.view())?;
        follower.show_events(&view);
        if let Some(known) = calls.fetch(&record.sid).await {
            follower.show_transcript(&known["transcript"]);
        }
        if view["finished"] == Value::Bool(true) {
            break view;
        }
        tokio::time::sleep(POLL).await;
    };
    if let Some(folder) = local.heard.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    std::fs::write(&local.heard, record.recording())
        .with_context(|| format!("cannot write {}", local.heard.display()))?;
    println!();
    report::summary(&view);
    println!("kept in {}", local.heard.display());
    report::violations(&services.violations.list());
    Ok(Outcome::passed_if(services.violations.count() == 0 && view["failedStep"].is_null()))
}
