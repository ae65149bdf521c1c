//! The built-in scaler: how many pods the polled loads want, and the one writer of the scale subresource.
//!
//! [`decide`] is pure: as many pods as hold all calls at `targetCallsPerPod` each. The distance from there to
//! `maxCallsPerPod` is the headroom for what arrives while new pods start.
//!
//! *Guarantees*: never below `minReplicas` nor above `maxReplicas`; up as soon as it is seen; down only after the whole
//! stabilization window wanted less, `podsPerMinute` at most, and never while a pod is silent, because silence may be
//! thirty calls. Pods on their way out neither count nor hold anything.
//!
//! *Caveats*: what it remembers is the leader's. A new leader waits for a whole window before it takes a pod away.

mod history;
#[cfg(test)]
mod tests;

use crds::{Builtin, VoiceAgent};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v1::{Scale, ScaleSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams};
use kube::runtime::events::EventType;
use kube::{Api, ResourceExt as _};
use tokio::time::Instant;

use crate::cache::find;
use crate::context::Context;
use crate::report;
use crate::voice_agent::build::child_name;

pub use history::History;

/// Owns the number of pods of agents with `scaling.type: Builtin`.
pub const FIELD_MANAGER: &str = "switchboard-scaler";

/// What a pod means for the number of pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodLoad {
    /// It serves, and told its load.
    Serving {
        /// Calls it carries.
        calls: u32,
        /// Slots reserved in the whole agent for calls that still ring, as this pod last heard.
        reserved: u32,
    },
    /// It never served yet, so it carries nothing.
    Starting,
    /// It served and does not answer: it may carry calls.
    Silent,
    /// It is on its way out.
    Leaving,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Leave the number as it is.
    Hold(Hold),
    /// Write this larger number.
    Up(i32),
    /// Write this smaller number.
    Down(i32),
}

/// Why the number stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// It is right.
    Right,
    /// A pod is silent, so nobody knows whether fewer would do.
    Silence,
    /// Fewer would do, but not for long enough.
    Stabilizing,
    /// Fewer would do, and a pod went a moment ago.
    Pacing,
}

impl Decision {
    /// Every value of the metric's label.
    pub const LABELS: [&str; 6] = ["up", "down", "right", "silence", "stabilizing", "pacing"];

    /// The label's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up(_) => "up",
            Self::Down(_) => "down",
            Self::Hold(Hold::Right) => "right",
            Self::Hold(Hold::Silence) => "silence",
            Self::Hold(Hold::Stabilizing) => "stabilizing",
            Self::Hold(Hold::Pacing) => "pacing",
        }
    }
}

/// How many pods an agent should have.
///
/// *Flow*: what is wanted now goes into the history, whatever comes of it. More than there are: at once. Fewer: the most
/// that was wanted within the window, at the pace that `scaleDown` allows. A changed `maxReplicas` is followed at once,
/// as the HorizontalPodAutoscaler does.
pub fn decide(
    settings: &Builtin,
    replicas: i32,
    pods: &[PodLoad],
    history: &mut History,
    now: Instant,
) -> Decision {
    let Builtin { min_replicas, max_replicas, target_calls_per_pod, scale_down } = settings;
    let is_silent = pods.contains(&PodLoad::Silent);
    let wanted = pods_for(calls(pods), *target_calls_per_pod).max(*min_replicas);
    // A silent pod makes the sum a lower bound, which is no reason to go below what there is.
    let wanted = if is_silent { wanted.max(replicas) } else { wanted }.min(*max_replicas);
    history.record(wanted, scale_down, now);
    if wanted > replicas {
        return Decision::Up(wanted);
    }
    if replicas > *max_replicas {
        return Decision::Down(*max_replicas);
    }
    if is_silent {
        return Decision::Hold(Hold::Silence);
    }
    if wanted == replicas {
        return Decision::Hold(Hold::Right);
    }
    let Some(enough) = history.most_wanted(scale_down, now).filter(|enough| *enough < replicas) else {
        return Decision::Hold(Hold::Stabilizing);
    };
    match history.allowance(scale_down, now) {
        0 => Decision::Hold(Hold::Pacing),
        allowed => {
            history.went_down(now);
            Decision::Down(enough.max(replicas.saturating_sub(allowed)))
        }
    }
}

/// Calls on serving pods, and those that still ring. Each pod tells the agent's reserved slots, not its own: the most is
/// the latest.
fn calls(pods: &[PodLoad]) -> u32 {
    let mut calls = 0_u32;
    let mut ringing = 0;
    for pod in pods {
        match pod {
            PodLoad::Serving { calls: carried, reserved } => {
                calls = calls.saturating_add(*carried);
                ringing = ringing.max(*reserved);
            }
            PodLoad::Starting | PodLoad::Silent | PodLoad::Leaving => {}
        }
    }
    calls.saturating_add(ringing)
}

/// Pods that hold so many calls.
fn pods_for(calls: u32, target: u32) -> i32 {
    i32::try_from(calls.div_ceil(target.max(1))).unwrap_or(i32::MAX)
}

/// Decides for one agent, and writes what was decided.
pub async fn scale(
    context: &Context,
    agent: &VoiceAgent,
    settings: &Builtin,
    pods: &[PodLoad],
    history: &mut History,
) {
    let (namespace, name) = (agent.namespace().unwrap_or_default(), agent.name_any());
    let deployment = find(&context.cache.children.deployments, &namespace, &child_name(&name));
    let Some(replicas) = deployment.and_then(|d| d.spec.as_ref().and_then(|s| s.replicas)) else { return };
    let decision = decide(settings, replicas, pods, history, Instant::now());
    context.metrics.decided(decision);
    let wanted = match decision {
        Decision::Hold(reason) => {
            tracing::debug!(namespace, agent = name, replicas, ?reason, "the number of pods stays");
            return;
        }
        Decision::Up(wanted) | Decision::Down(wanted) => wanted,
    };
    match write(context, &namespace, &child_name(&name), wanted).await {
        Ok(_) => {
            let calls = calls(pods);
            let target = settings.target_calls_per_pod;
            tracing::info!(namespace, agent = name, from = replicas, to = wanted, calls, "scaled");
            let note = format!("{replicas} to {wanted} pods: {calls} calls at {target} per pod");
            report::tell(context, agent, EventType::Normal, "Scaled", &note).await;
        }
        // The next round decides anew; the other agents are not held up.
        Err(error) => {
            tracing::warn!(namespace, agent = name, %error, "the number of pods was not written");
        }
    }
}

async fn write(
    context: &Context,
    namespace: &str,
    deployment: &str,
    replicas: i32,
) -> Result<Scale, kube::Error> {
    let scale = Scale {
        metadata: ObjectMeta { name: Some(deployment.to_owned()), ..ObjectMeta::default() },
        spec: Some(ScaleSpec { replicas: Some(replicas) }),
        status: None,
    };
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    Api::<Deployment>::namespaced(context.client.clone(), namespace)
        .patch_scale(deployment, &parameters, &Patch::Apply(scale))
        .await
}
