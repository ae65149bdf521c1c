//! The media pods of a gateway's agents: which stream keys they have, and a nudge to look at them now.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crds::VoiceGateway;
use futures_util::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use super::keyring::PodKeys;
use crate::apply::{FIELD_MANAGER, is_not_found};
use crate::cache;
use crate::context::Context;
use crate::voice_agent::build::AGENT_LABEL;
use crate::voice_agent::build::deployment::ADMIN_PORT;

/// A pod that does not answer a few hundred bytes within this says nothing.
const ANSWER: Duration = Duration::from_secs(3);
/// Requests at a time.
const CONCURRENCY: usize = 16;
/// An answer has about 300 bytes.
const LARGEST_ANSWER: u64 = 64 * 1024;
/// A changed annotation makes the kubelet look at the pod's mounts at once; by itself it takes a minute or two.
const KEYS_ANNOTATION: &str = "switchboard.dev/stream-keys";

/// The running pods that may hold keys of a gateway. One whose agent is gone may still carry calls.
fn running(context: &Context, gateway: &VoiceGateway) -> Vec<Arc<Pod>> {
    let (namespace, name) = (gateway.namespace().unwrap_or_default(), gateway.name_any());
    let is_of_another = |agent: &str| {
        let agent = cache::find(&context.cache.agents, &namespace, agent);
        agent.is_some_and(|a| a.0.as_ref().is_ok_and(|a| a.spec.gateway_ref.name != name))
    };
    context.cache.pods.state_filter(|pod| {
        let is_running = pod.status.as_ref().is_some_and(|s| s.phase.as_deref() == Some("Running"));
        let agent = pod.labels().get(AGENT_LABEL);
        is_running
            && pod.namespace().as_deref() == Some(&namespace)
            && agent.is_some_and(|agent| !is_of_another(agent))
    })
}

/// Asks every running pod for its keys; `None` from one that does not say.
pub(super) async fn fetch_keys(context: &Context, gateway: &VoiceGateway) -> Vec<Option<PodKeys>> {
    let addresses = running(context, gateway).into_iter().map(|pod| {
        pod.status.as_ref().and_then(|s| s.pod_ip.as_deref()).and_then(|ip| ip.parse::<IpAddr>().ok())
    });
    let addresses: Vec<_> = addresses.collect();
    let asked = stream::iter(addresses).map(|address| async move { ask(&context.pods, address?).await });
    asked.buffer_unordered(CONCURRENCY).collect().await
}

async fn ask(http: &reqwest::Client, address: IpAddr) -> Option<PodKeys> {
    let host = SocketAddr::new(address, u16::try_from(ADMIN_PORT).ok()?);
    let response = http.get(format!("http://{host}/load")).timeout(ANSWER).send().await.ok()?;
    let response = response.error_for_status().ok()?;
    if response.content_length().is_none_or(|length| length > LARGEST_ANSWER) {
        return None;
    }
    serde_json::from_slice(&response.bytes().await.ok()?).ok()
}

/// Makes every pod look at its mounts now. Best effort: without it the keys arrive later.
pub(super) async fn nudge(context: &Context, gateway: &VoiceGateway, version: &str) {
    let namespace = gateway.namespace().unwrap_or_default();
    let api = Api::<Pod>::namespaced(context.client.clone(), &namespace);
    let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    for pod in running(context, gateway) {
        let patch = Patch::Merge(json!({"metadata": {"annotations": {KEYS_ANNOTATION: version}}}));
        match api.patch_metadata(&pod.name_any(), &parameters, &patch).await {
            Ok(_) => {}
            Err(error) if is_not_found(&error) => {}
            Err(error) => {
                let pod = pod.name_any();
                tracing::warn!(namespace, pod, %error, "a pod was not told of new stream keys");
            }
        }
    }
}
