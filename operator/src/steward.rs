//! Polls what every media pod carries, and tells it: in the agents' status (`activeCalls`, the condition ConfigCurrent),
//! on the pods (which of them costs least to delete, which configuration to load), and to the built-in scaler.
//!
//! Only the leader does so, under a field manager of its own. Bounds: one round at a time, and in a round at most one
//! request to a pod, one write on it and one to its agent, none where nothing changed. Rounds are 15 s apart. After a
//! change of configuration some follow faster, which ask only the agents concerned and do not write deletion costs;
//! agents that the operator scales itself are asked every 5 s, and nothing is written but their number of pods.

mod crew;
mod rounds;
mod tally;
mod tend;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crds::conditions::{ConditionType, holds};
use crds::{Builtin, ScalingType, VoiceAgent};
use futures_util::{StreamExt as _, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::apply::{apply_status, is_not_found};
use crate::census;
use crate::context::Context;
use crate::scaler;
use crate::voice_agent::build::{AGENT_LABEL, deployment::ADMIN_PORT};
use rounds::{Round, Rounds};
use tally::{Load, tally};
use tend::{Annotations, tend};

/// Owns `activeCalls` and ConfigCurrent, and annotations of pods.
pub const FIELD_MANAGER: &str = "switchboard-steward";
/// A pod that does not answer a few hundred bytes within this is told as unknown.
const ANSWER: Duration = Duration::from_secs(3);
/// Requests at a time.
const CONCURRENCY: usize = 16;
/// An answer has about 300 bytes.
const LARGEST_ANSWER: u64 = 64 * 1024;

/// By namespace and agent, its ready pods and what each says; `None` where it says nothing.
type Answers = BTreeMap<(String, String), Vec<(Arc<Pod>, Option<Load>)>>;
/// By namespace and agent, what the built-in scaler remembers.
type Histories = HashMap<(String, String), scaler::History>;

/// Runs until `stop`.
pub async fn run(context: Arc<Context>, stop: CancellationToken) {
    context.cache.wait_until_complete().await;
    let mut rounds = Rounds::beginning(Instant::now());
    let mut histories = Histories::new();
    loop {
        let (round, at) = rounds.next();
        tokio::select! {
            () = stop.cancelled() => return,
            () = context.configured.notified() => {
                rounds.configured(Instant::now());
                continue;
            }
            () = sleep_until(at) => {}
        }
        go(&context, round, &mut histories).await;
        rounds.went(round, Instant::now());
    }
}

async fn go(context: &Context, round: Round, histories: &mut Histories) {
    if round == Round::Usual {
        context.metrics.set_conditions(&census::of_cache(&context.cache));
    }
    let agents = context.cache.agents.state();
    let agents = agents.iter().filter_map(|a| a.0.as_ref().ok());
    let agents: Vec<&VoiceAgent> = agents.filter(|a| concerns(round, a)).collect();
    if round == Round::Usual {
        histories.retain(|(namespace, name), _| {
            agents.iter().any(|a| a.namespace().as_ref() == Some(namespace) && a.name_any() == *name)
        });
    }
    if agents.is_empty() {
        return;
    }
    let concerned = agents.iter().map(|a| (a.namespace().unwrap_or_default(), a.name_any()));
    let mut answers: Answers = concerned.map(|key| (key, Vec::new())).collect();
    let pods = context.cache.pods.state();
    let targets = pods.iter().filter_map(target).filter(|t| answers.contains_key(&t.agent)).collect();
    poll(context, targets, &mut answers).await;
    for agent in agents {
        let key = (agent.namespace().unwrap_or_default(), agent.name_any());
        let pods = answers.remove(&key).unwrap_or_default();
        if round != Round::Scaling {
            tell(context, agent, &pods).await;
        }
        if round == Round::Usual {
            tend_all(context, agent, &pods).await;
        }
        if let Some(settings) = built_in(agent) {
            let crew = crew::crew(&key, &context.cache.pods, &pods);
            let history = histories.entry(key).or_default();
            scaler::scale(context, agent, &settings, &crew, history).await;
        }
    }
}

/// Whether a round asks an agent's pods.
fn concerns(round: Round, agent: &VoiceAgent) -> bool {
    match round {
        Round::Usual => true,
        Round::Fast => is_behind(agent),
        Round::Scaling => built_in(agent).is_some(),
    }
}

/// The built-in scaler's settings, if it scales an agent.
fn built_in(agent: &VoiceAgent) -> Option<Builtin> {
    let scaling = &agent.spec.scaling;
    let is_ours = scaling.kind == ScalingType::Builtin && agent.metadata.deletion_timestamp.is_none();
    is_ours.then(|| scaling.builtin.clone().unwrap_or_default())
}

/// Whether somebody waits for an agent's configuration to be everywhere.
fn is_behind(agent: &VoiceAgent) -> bool {
    agent.status.as_ref().is_some_and(|s| !holds(&s.conditions, ConditionType::ConfigCurrent))
        || agent.status.as_ref().is_some_and(|s| !tally::speaks_of_newest(s))
}

/// Writes the status, if it changed.
async fn tell(context: &Context, agent: &VoiceAgent, pods: &[(Arc<Pod>, Option<Load>)]) {
    let loads: Vec<_> = pods.iter().map(|(_, load)| load.clone()).collect();
    let Some(status) = tally(agent, &loads, Timestamp::now()) else { return };
    if let Err(error) = apply_status(&context.client, agent, &status, FIELD_MANAGER, None).await {
        // The next round tries again; the other agents are not held up.
        let (namespace, name) = (agent.namespace(), agent.name_any());
        tracing::warn!(namespace, agent = name, %error, "an agent's load was not written");
    }
}

/// Writes on the pods what they do not have yet.
async fn tend_all(context: &Context, agent: &VoiceAgent, pods: &[(Arc<Pod>, Option<Load>)]) {
    let wanted = agent.status.as_ref().and_then(|s| s.config_revision.as_deref());
    let answering = pods.iter().filter_map(|(pod, load)| Some((pod, load.as_ref()?)));
    let writes = answering.map(|(pod, load)| (pod.clone(), tend(pod, load, wanted)));
    annotate_all(&context.client, writes.collect()).await;
}

/// Asks every running pod of an agent to load a configuration now.
pub(crate) async fn ask_pods(context: &Context, namespace: &str, agent: &str, revision: &str) {
    let pods = context.cache.pods.state_filter(|pod| {
        pod.metadata.deletion_timestamp.is_none()
            && pod.metadata.namespace.as_deref() == Some(namespace)
            && pod.labels().get(AGENT_LABEL).is_some_and(|of| of == agent)
    });
    let writes = pods.into_iter().map(|pod| {
        let annotations = tend::ask_for(&pod, revision);
        (pod, annotations)
    });
    annotate_all(&context.client, writes.collect()).await;
}

/// Writes annotations, where there are any. Best effort: the next round finds what is missing.
async fn annotate_all(client: &Client, writes: Vec<(Arc<Pod>, Annotations)>) {
    let writes = writes.into_iter().filter(|(_, annotations)| !annotations.is_empty());
    stream::iter(writes)
        .for_each_concurrent(CONCURRENCY, |(pod, annotations)| async move {
            let namespace = pod.metadata.namespace.clone().unwrap_or_default();
            let name = pod.metadata.name.clone().unwrap_or_default();
            let parameters =
                PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
            let patch = Patch::Merge(json!({"metadata": {"annotations": annotations}}));
            match Api::<Pod>::namespaced(client.clone(), &namespace)
                .patch_metadata(&name, &parameters, &patch)
                .await
            {
                Ok(_) => {}
                // It went in between.
                Err(error) if is_not_found(&error) => {}
                Err(error) => tracing::warn!(namespace, pod = name, %error, "a pod was not annotated"),
            }
        })
        .await;
}

/// Calls on each running pod of an agent, those on their way out too; `None` where one does not answer.
pub(crate) async fn ask_all(context: &Context, (namespace, agent): &(String, String)) -> Vec<Option<u32>> {
    let pods = context.cache.pods.state_filter(|pod| {
        pod.metadata.namespace.as_ref() == Some(namespace)
            && pod.labels().get(AGENT_LABEL) == Some(agent)
            && pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running"))
    });
    let asked = stream::iter(pods).map(|pod| async move {
        let address = pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()?;
        ask(&context.pods, address).await.map(|load| load.active_calls)
    });
    asked.buffer_unordered(CONCURRENCY).collect().await
}

/// A pod that should answer.
struct Target {
    agent: (String, String),
    address: IpAddr,
    pod: Arc<Pod>,
}

/// A media pod, if it is ready. Pods on their way out are left out: their calls do not hold replicas.
fn target(pod: &Arc<Pod>) -> Option<Target> {
    let status = pod.status.as_ref()?;
    if !crew::is_ready(pod) || pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let agent = (pod.metadata.namespace.clone()?, pod.labels().get(AGENT_LABEL)?.clone());
    Some(Target { agent, address: status.pod_ip.as_ref()?.parse().ok()?, pod: pod.clone() })
}

async fn poll(context: &Context, targets: Vec<Target>, answers: &mut Answers) {
    let asked = stream::iter(targets).map(|target| async move {
        let load = ask(&context.pods, target.address).await;
        (target.agent, target.pod, load)
    });
    let mut asked = asked.buffer_unordered(CONCURRENCY);
    while let Some((agent, pod, load)) = asked.next().await {
        answers.entry(agent).or_default().push((pod, load));
    }
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
