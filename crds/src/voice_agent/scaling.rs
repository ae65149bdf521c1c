//! How many pods there are, how many calls each carries, and how one leaves.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::rule::{needs_member, only_with};

/// How many pods there are and how many calls each carries.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(
    validation = only_with("Autoscaler", "autoscaler"),
    validation = only_with("Builtin", "builtin"),
    validation = needs_member("Manual", "manual"),
    validation = only_with("Manual", "manual"),
    validation = only_with("External", "external"),
    validation = Rule::new("!has(self.autoscaler) || self.autoscaler.targetCallsPerPod <= self.maxCallsPerPod")
        .message("autoscaler.targetCallsPerPod must not be above maxCallsPerPod, or pods would be full before more are made: lower the target or raise maxCallsPerPod"),
    validation = Rule::new("self.type != 'Autoscaler' || has(self.autoscaler) || self.maxCallsPerPod >= 20")
        .message("maxCallsPerPod is below the autoscaler's default target of 20 calls per pod: set autoscaler.targetCallsPerPod to at most maxCallsPerPod"),
    validation = Rule::new("!has(self.builtin) || self.builtin.targetCallsPerPod <= self.maxCallsPerPod")
        .message("builtin.targetCallsPerPod must not be above maxCallsPerPod, or pods would be full before more are made: lower the target or raise maxCallsPerPod"),
    validation = Rule::new("self.type != 'Builtin' || has(self.builtin) || self.maxCallsPerPod >= 20")
        .message("maxCallsPerPod is below the built-in scaler's default target of 20 calls per pod: set builtin.targetCallsPerPod to at most maxCallsPerPod")
)]
#[serde(rename_all = "camelCase")]
pub struct Scaling {
    /// Who decides on the number of pods; a change of it keeps the pods there are. `Autoscaler`: a
    /// HorizontalPodAutoscaler on live calls (the Pods metric switchboard_active_calls, which a metrics adapter must
    /// serve). `Builtin`: the operator itself, from the loads the pods tell it, where there is no Prometheus. `Manual`: as
    /// many pods as you say. `External`: somebody else, such as KEDA, scales the Deployment `<agent>-media`.
    #[serde(rename = "type", default)]
    pub kind: ScalingType,
    /// Settings of type `Autoscaler`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaler: Option<Autoscaler>,
    /// Settings of type `Builtin`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub builtin: Option<Builtin>,
    /// Settings of type `Manual`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manual: Option<Manual>,
    /// Settings of type `External`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<External>,
    /// Calls a pod carries at most; the next one goes to another pod.
    #[serde(default = "default_max_calls_per_pod")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_calls_per_pod: u32,
}

const fn default_max_calls_per_pod() -> u32 {
    30
}

impl Default for Scaling {
    fn default() -> Self {
        Self {
            kind: ScalingType::default(),
            autoscaler: None,
            builtin: None,
            manual: None,
            external: None,
            max_calls_per_pod: default_max_calls_per_pod(),
        }
    }
}

/// Who decides on the number of pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ScalingType {
    /// A HorizontalPodAutoscaler.
    #[default]
    Autoscaler,
    /// The operator, from the pods' loads.
    Builtin,
    /// The user.
    Manual,
    /// Somebody else.
    External,
}

/// A HorizontalPodAutoscaler on live calls.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("self.minReplicas <= self.maxReplicas")
        .message("minReplicas must not be above maxReplicas: lower minReplicas or raise maxReplicas")
)]
#[serde(rename_all = "camelCase")]
pub struct Autoscaler {
    /// Pods there are always; two, so that one may go.
    #[serde(default = "default_min_replicas")]
    #[schemars(range(min = 1, max = 1000))]
    pub min_replicas: i32,
    /// Pods there are at most.
    #[serde(default = "default_max_replicas")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_replicas: i32,
    /// Calls per pod to aim at; the distance to maxCallsPerPod is what arrives while new pods start.
    #[serde(default = "default_target_calls_per_pod")]
    #[schemars(range(min = 1, max = 1000))]
    pub target_calls_per_pod: u32,
    /// How slowly pods go when there are fewer calls.
    #[serde(default)]
    pub scale_down: ScaleDown,
}

/// The operator's own scaler: as many pods as hold the calls on all pods, ringing ones among them, at
/// targetCallsPerPod each. It scales up within seconds, and holds the number while a pod does not tell its load.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("self.minReplicas <= self.maxReplicas")
        .message("minReplicas must not be above maxReplicas: lower minReplicas or raise maxReplicas")
)]
#[serde(rename_all = "camelCase")]
pub struct Builtin {
    /// Pods there are always; two, so that one may go.
    #[serde(default = "default_min_replicas")]
    #[schemars(range(min = 1, max = 1000))]
    pub min_replicas: i32,
    /// Pods there are at most.
    #[serde(default = "default_max_replicas")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_replicas: i32,
    /// Calls per pod to aim at; the distance to maxCallsPerPod is what arrives while new pods start.
    #[serde(default = "default_target_calls_per_pod")]
    #[schemars(range(min = 1, max = 1000))]
    pub target_calls_per_pod: u32,
    /// How slowly pods go when there are fewer calls.
    #[serde(default)]
    pub scale_down: ScaleDown,
}

/// How slowly pods go when there are fewer calls. Every pod that goes drains first, and hands over the calls that
/// outlast the drain window, so a pod too many for some minutes is cheaper than one too few.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ScaleDown {
    /// For so long fewer pods must have been enough before one goes. The default outlasts the default drain window:
    /// calls that a rolling update hands over are on the new pods before the old ones' absence counts.
    #[schemars(range(min = 0, max = 3600))]
    pub stabilization_seconds: u32,
    /// Pods that may go in a minute.
    #[schemars(range(min = 1, max = 100))]
    pub pods_per_minute: u32,
}

impl Default for ScaleDown {
    fn default() -> Self {
        Self { stabilization_seconds: 300, pods_per_minute: 1 }
    }
}

const fn default_min_replicas() -> i32 {
    2
}

const fn default_max_replicas() -> i32 {
    10
}

const fn default_target_calls_per_pod() -> u32 {
    20
}

impl Default for Autoscaler {
    fn default() -> Self {
        Self {
            min_replicas: default_min_replicas(),
            max_replicas: default_max_replicas(),
            target_calls_per_pod: default_target_calls_per_pod(),
            scale_down: ScaleDown::default(),
        }
    }
}

impl Default for Builtin {
    fn default() -> Self {
        Self {
            min_replicas: default_min_replicas(),
            max_replicas: default_max_replicas(),
            target_calls_per_pod: default_target_calls_per_pod(),
            scale_down: ScaleDown::default(),
        }
    }
}

/// As many pods as the user says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Manual {
    /// Pods there are.
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: i32,
}

/// Somebody else scales the Deployment; the operator never touches the number of a Deployment that exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct External {
    /// Pods that a new Deployment begins with.
    #[schemars(range(min = 0, max = 1000))]
    pub initial_replicas: i32,
}

impl Default for External {
    fn default() -> Self {
        Self { initial_replicas: default_min_replicas() }
    }
}

/// How a pod leaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Drain {
    /// How long calls may go on after the pod was told to stop, before they are handed over to another pod. The pod's
    /// grace period is this plus 30 s; autoscaled nodes often allow no more than 600 s, and your edge must not cut
    /// connections sooner.
    #[schemars(range(min = 20, max = 86400))]
    pub window_seconds: u32,
}

impl Default for Drain {
    fn default() -> Self {
        Self { window_seconds: 270 }
    }
}
