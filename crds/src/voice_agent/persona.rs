//! Who the agent is: language, instructions, greeting.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ConfigMapKeyRef;

/// Who the agent is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Persona {
    /// The language spoken, as a BCP 47 tag.
    #[serde(default = "default_language")]
    #[schemars(length(min = 2, max = 35), regex(pattern = r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$"))]
    pub language: String,
    /// What the model is told about its task, here or in a ConfigMap.
    pub instructions: Instructions,
    /// What is said first; without it the caller speaks first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub greeting: Option<Greeting>,
}

fn default_language() -> String {
    "en-US".to_owned()
}

/// The model's instructions: exactly one of the fields. `{{caller}}`, `{{called}}`, `{{agent}}` and custom parameters
/// are filled in per call.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("has(self.text) != has(self.configMapKeyRef)")
        .message("instructions must have exactly one of text and configMapKeyRef: set one, remove the other")
)]
#[serde(rename_all = "camelCase")]
pub struct Instructions {
    /// The instructions themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32768))]
    pub text: Option<String>,
    /// A key of a ConfigMap in this namespace that holds them. A change of it reaches the pods by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_key_ref: Option<ConfigMapKeyRef>,
}

/// The first words of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Greeting {
    /// The words; the same variables as in the instructions.
    #[schemars(length(min = 1, max = 2000))]
    pub text: String,
    /// Whether the caller's voice may stop them. A legal notice must be heard: `Disallowed`.
    #[serde(default)]
    pub interruption: GreetingInterruption,
}

/// Whether a greeting may be interrupted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GreetingInterruption {
    /// As any other speech of the agent.
    #[default]
    Allowed,
    /// Always said to its end.
    Disallowed,
}
