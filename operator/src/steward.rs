//! Polls what every media pod carries, and tells it in the agents' status: `activeCalls` and the condition
//! ConfigCurrent.
//!
//! Only the leader does so, under a field manager of its own. Bounds: one round at a time, at most one request per pod
//! and one write per agent in a round, and none where nothing changed.

mod tally;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crds::VoiceAgent;
use futures_util::{StreamExt as _, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::core::DeserializeGuard;
use kube::{Api, Client, ResourceExt as _};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::apply::apply_status;
use crate::context::Context;
use crate::voice_agent::build::{AGENT_LABEL, MANAGED_BY, deployment::ADMIN_PORT};
use tally::{Load, tally};

/// Owns `activeCalls` and ConfigCurrent.
pub const FIELD_MANAGER: &str = "switchboard-steward";
/// Between two rounds: status is for people, and 15 s is what the HPA looks at too.
const PERIOD: Duration = Duration::from_secs(15);
/// A pod that does not answer a few hundred bytes within this is told as unknown.
const ANSWER: Duration = Duration::from_secs(3);
/// Requests at a time.
const CONCURRENCY: usize = 16;
/// An answer has about 300 bytes.
const LARGEST_ANSWER: u64 = 64 * 1024;

/// By namespace and agent, what each ready pod says; `None` where it says nothing.
type Loads = BTreeMap<(String, String), Vec<Option<Load>>>;

/// Runs until `stop`.
pub async fn run(context: Arc<Context>, stop: CancellationToken) {
    let mut rounds = interval(PERIOD);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = rounds.tick() => {}
        }
        if let Err(error) = round(&context).await {
            tracing::warn!(%error, "a round of the steward failed");
        }
    }
}

async fn round(context: &Context) -> Result<(), kube::Error> {
    let agents = Api::<DeserializeGuard<VoiceAgent>>::all(context.client.clone());
    let agents: Vec<VoiceAgent> =
        agents.list(&ListParams::default()).await?.items.into_iter().filter_map(|a| a.0.ok()).collect();
    if agents.is_empty() {
        return Ok(());
    }
    let mut loads = poll(context, fetch_pods(&context.client).await?).await;
    for agent in agents {
        let key = (agent.namespace().unwrap_or_default(), agent.name_any());
        let status = tally(&agent, &loads.remove(&key).unwrap_or_default(), Timestamp::now());
        let Some(status) = status else { continue };
        if let Err(error) = apply_status(&context.client, &agent, &status, FIELD_MANAGER, None).await {
            // The next round tries again; the other agents are not held up.
            tracing::warn!(namespace = key.0, agent = key.1, %error, "an agent's load was not written");
        }
    }
    Ok(())
}

/// A pod that should answer.
struct Target {
    agent: (String, String),
    address: IpAddr,
}

/// The ready media pods. Pods on their way out are left out: their calls do not hold replicas.
async fn fetch_pods(client: &Client) -> Result<Vec<Target>, kube::Error> {
    let (key, value) = MANAGED_BY;
    let labels = format!("{key}={value},{AGENT_LABEL}");
    let pods = Api::<Pod>::all(client.clone()).list(&ListParams::default().labels(&labels)).await?;
    Ok(pods.items.iter().filter_map(target).collect())
}

fn target(pod: &Pod) -> Option<Target> {
    let status = pod.status.as_ref()?;
    let is_ready = status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
    if !is_ready || pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let agent = (pod.namespace()?, pod.labels().get(AGENT_LABEL)?.clone());
    Some(Target { agent, address: status.pod_ip.as_ref()?.parse().ok()? })
}

async fn poll(context: &Context, targets: Vec<Target>) -> Loads {
    let asked = stream::iter(targets).map(|target| async move {
        let load = ask(&context.pods, target.address).await;
        (target.agent, load)
    });
    let mut answers = asked.buffer_unordered(CONCURRENCY);
    let mut loads = Loads::new();
    while let Some((agent, load)) = answers.next().await {
        loads.entry(agent).or_default().push(load);
    }
    loads
}

/// One pod's load; what is no load is no answer.
async fn ask(http: &reqwest::Client, address: IpAddr) -> Option<Load> {
    let host = std::net::SocketAddr::new(address, u16::try_from(ADMIN_PORT).ok()?);
    let response = http.get(format!("http://{host}/load")).timeout(ANSWER).send().await.ok()?;
    let response = response.error_for_status().ok()?;
    if response.content_length().is_none_or(|length| length > LARGEST_ANSWER) {
        return None;
    }
    serde_json::from_slice(&response.bytes().await.ok()?).ok()
}
