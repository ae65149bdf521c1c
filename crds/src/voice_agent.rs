//! `VoiceAgent`: who answers.

mod engine;
mod persona;
mod policy;
mod running;
mod scaling;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::rule::short_name;
use crate::{GatewayRef, SecretKeyRef};

pub use engine::*;
pub use persona::*;
pub use policy::*;
use policy::{overflows_to_a_known_target, overflows_to_another_agent};
pub use running::*;
pub use scaling::*;

/// Who answers: persona, speech engines, limits and scale of one AI voice agent. The operator turns it into media pods
/// with a Service, autoscaling on live calls, and a route. Changes of persona, engines and policies reach running pods
/// as configuration and apply to new calls; only what the process itself needs rolls the pods.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "switchboard.dev",
    version = "v1alpha1",
    kind = "VoiceAgent",
    plural = "voiceagents",
    shortname = "va",
    category = "switchboard",
    namespaced,
    status = "VoiceAgentStatus",
    derive = "PartialEq",
    doc = "Who answers: persona, speech engines, limits and scale of one AI voice agent.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#
    ),
    printcolumn(name = "Pods", type_ = "integer", json_path = ".status.replicas"),
    printcolumn(name = "Serving", type_ = "integer", json_path = ".status.readyReplicas"),
    printcolumn(name = "Calls", type_ = "integer", json_path = ".status.activeCalls"),
    printcolumn(name = "Scaling", type_ = "string", json_path = ".spec.scaling.type", priority = "1"),
    printcolumn(name = "URL", type_ = "string", json_path = ".status.url", priority = "1"),
    printcolumn(name = "Config", type_ = "string", json_path = ".status.configRevision", priority = "1"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        priority = "1"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = short_name(),
    validation = overflows_to_another_agent(),
    validation = overflows_to_a_known_target()
)]
#[serde(rename_all = "camelCase")]
pub struct VoiceAgentSpec {
    /// Answer every new call with a sentence and hang up. Running calls go on.
    #[serde(default)]
    pub suspend: bool,
    /// The VoiceGateway of this namespace that calls come through.
    #[serde(default)]
    pub gateway_ref: GatewayRef,
    /// Who the agent is.
    pub persona: Persona,
    /// The speech engines: the first is used, the rest are fallbacks.
    #[schemars(length(min = 1, max = 4))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_owned()]))]
    pub engines: Vec<Engine>,
    /// When the caller's voice stops the agent's.
    #[serde(default)]
    pub interruption: Interruption,
    /// Places a call may be transferred to. The model names one of them; it can never dial a number of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_owned()]))]
    pub transfer_targets: Vec<TransferTarget>,
    /// What a call, a caller and a day may use.
    #[serde(default)]
    pub limits: Limits,
    /// What a caller gets when every slot is taken.
    #[serde(default)]
    pub overflow: Overflow,
    /// What happens to a call whose pod died.
    #[serde(default)]
    pub recovery: Recovery,
    /// How many pods there are and how many calls each carries.
    #[serde(default)]
    pub scaling: Scaling,
    /// How a pod leaves.
    #[serde(default)]
    pub drain: Drain,
    /// Who reaches the pods over the cluster's network.
    #[serde(default)]
    pub network_policy: NetworkPolicy,
    /// Who scrapes the pods' metrics.
    #[serde(default)]
    pub monitoring: Monitoring,
    /// When the default image of a new operator reaches the pods.
    #[serde(default)]
    pub update_policy: UpdatePolicy,
    /// The HTTP API of the pods: list, inspect and hang up calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api: Option<AgentApi>,
    /// Image of the media pods; without it the one the operator was installed with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// A partial pod template, merged last over what the operator makes: resources, node selection, tolerations,
    /// volumes, more containers. Lists merge by name, so `containers: [{name: media, ...}]` changes the media container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<PodTemplate>,
}

/// The HTTP API of the pods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentApi {
    /// The key that holds the bearer token which requests must carry. Without it the API refuses everything.
    pub bearer_token_secret_ref: SecretKeyRef,
}

/// A partial `PodTemplateSpec`, kept as it was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PodTemplate(pub serde_json::Map<String, serde_json::Value>);

impl JsonSchema for PodTemplate {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PodTemplate".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
    }
}

/// What the operator found and made.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VoiceAgentStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Media pods there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Media pods that accept calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i32>,
    /// Where the carrier reaches the agent; webhooks are below it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub url: Option<String>,
    /// Numbers that route calls to this agent, in their order; of more than 256 the first ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 20)))]
    pub numbers: Vec<String>,
    /// Calls on all pods; refreshed every few seconds while it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_calls: Option<i32>,
    /// The configuration that was rendered last; the condition ConfigCurrent says when all pods have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub config_revision: Option<String>,
    /// The image that was chosen for the pods; podTemplate may replace it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub image: Option<String>,
    /// The generation of the spec that the image was chosen for, for updatePolicy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_generation: Option<i64>,
    /// Ready, ReferencesResolved, ConfigCurrent, ImageCurrent, AutoscalingReady.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    pub conditions: Vec<Condition>,
}

impl VoiceAgentStatus {
    /// How many of its numbers are told.
    pub const NUMBERS: usize = 256;
}
