//! Speech engines: what hears the caller and speaks for the agent.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::SecretKeyRef;
use crate::rule::{needs_member, only_with};

/// A speech engine.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(
    validation = needs_member("Realtime", "realtime"),
    validation = only_with("Realtime", "realtime"),
    validation = only_with("Simulated", "simulated")
)]
#[serde(rename_all = "camelCase")]
pub struct Engine {
    /// Name of the engine in metrics and status; unique in the agent.
    #[schemars(length(min = 1, max = 40), regex(pattern = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// `Realtime`: a speech-to-speech model over OpenAI's Realtime protocol. `Simulated`: built in, with scripted
    /// replies or an echo, for demos, tests and load.
    #[serde(rename = "type")]
    pub kind: EngineType,
    /// Settings of type `Realtime`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub realtime: Option<RealtimeEngine>,
    /// Settings of type `Simulated`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub simulated: Option<SimulatedEngine>,
}

/// The engines there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EngineType {
    /// OpenAI Realtime, or compatible.
    Realtime,
    /// Built in.
    Simulated,
}

/// An OpenAI Realtime endpoint, or a compatible one.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RealtimeEngine {
    /// The endpoint, `wss://` (or `ws://` inside the cluster), without a query.
    #[serde(default = "default_realtime_url")]
    #[schemars(length(min = 6, max = 256))]
    #[x_kube(
        validation = Rule::new("self.startsWith('wss://') || self.startsWith('ws://')")
            .message("url must begin with wss:// (or ws:// inside the cluster): the Realtime protocol runs over a WebSocket"),
        validation = Rule::new("!self.contains('?') && !self.contains('#')")
            .message("url must not hold '?' or '#': the model goes into the field model")
    )]
    pub url: String,
    /// Name of the model.
    #[schemars(length(min = 1, max = 128))]
    pub model: String,
    /// Name of the voice.
    #[serde(default = "default_voice")]
    #[schemars(length(min = 1, max = 64))]
    pub voice: String,
    /// The key that holds the API key, sent as a bearer token.
    pub api_key_secret_ref: SecretKeyRef,
    /// How the model finds the end of the caller's turn.
    #[serde(default)]
    pub turn_detection: TurnDetection,
    /// Transcription of the caller; without it transcripts hold only the agent's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transcription: Option<Transcription>,
    /// Noise reduction on the caller's audio: `NearField` for handsets, `FarField` for speakerphones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noise_reduction: Option<NoiseReduction>,
    /// Connections to the model that each pod keeps open ahead of calls, so that the first word does not wait for one;
    /// 0 for none. Each is a session at the provider that costs nothing until it is used, but counts against its limits.
    #[serde(default)]
    #[schemars(range(min = 0, max = 64))]
    pub warm_sessions_per_pod: u32,
}

fn default_realtime_url() -> String {
    "wss://api.openai.com/v1/realtime".to_owned()
}

fn default_voice() -> String {
    "marin".to_owned()
}

/// How the model finds the end of the caller's turn.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = only_with("ServerVAD", "serverVAD"), validation = only_with("SemanticVAD", "semanticVAD"))]
#[serde(rename_all = "camelCase")]
pub struct TurnDetection {
    /// `ServerVAD`: by energy and silence. `SemanticVAD`: by what was said.
    #[serde(rename = "type", default)]
    pub kind: TurnDetectionType,
    /// Settings of type `ServerVAD`.
    #[serde(rename = "serverVAD", default, skip_serializing_if = "Option::is_none")]
    pub server_vad: Option<ServerVad>,
    /// Settings of type `SemanticVAD`.
    #[serde(rename = "semanticVAD", default, skip_serializing_if = "Option::is_none")]
    pub semantic_vad: Option<SemanticVad>,
}

/// The kinds of turn detection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TurnDetectionType {
    /// By energy and silence.
    #[default]
    ServerVAD,
    /// By what was said.
    SemanticVAD,
}

/// Turn detection by energy and silence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ServerVad {
    /// How loud speech must be, 0 to 100; higher suits noisy lines.
    #[schemars(range(min = 0, max = 100))]
    pub threshold_percent: u8,
    /// Audio kept from before speech began.
    #[schemars(range(min = 0, max = 5000))]
    pub prefix_padding_milliseconds: u32,
    /// Silence that ends a turn: shorter answers sooner, but cuts into pauses.
    #[schemars(range(min = 100, max = 10000))]
    pub silence_milliseconds: u32,
}

impl Default for ServerVad {
    fn default() -> Self {
        Self { threshold_percent: 50, prefix_padding_milliseconds: 300, silence_milliseconds: 500 }
    }
}

/// Turn detection by what was said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SemanticVad {
    /// How soon the model answers.
    pub eagerness: Eagerness,
}

/// How soon the model answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Eagerness {
    /// Waits up to 8 s.
    Low,
    /// Waits up to 4 s.
    Medium,
    /// Waits up to 2 s.
    High,
    /// The model's choice.
    #[default]
    Auto,
}

/// Transcription of the caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Transcription {
    /// Name of the transcription model.
    #[schemars(length(min = 1, max = 128))]
    pub model: String,
}

/// Noise reduction on the caller's audio.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NoiseReduction {
    /// Handsets and headsets.
    NearField,
    /// Speakerphones.
    FarField,
}

/// The built-in engine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SimulatedEngine {
    /// What it says, one after each turn of the caller, over again from the start; without any it plays the caller's
    /// last turn back.
    #[schemars(length(max = 64), inner(length(min = 1, max = 2000)))]
    pub replies: Vec<String>,
}
