//! The agent file: everything a media pod needs to know about its agent, as one document.
//!
//! The operator validates a `VoiceAgent` (and what it refers to) and renders it into this form; on a laptop a person
//! writes it, or `switchboard render` does. It holds no secret: [`SecretRef`]s name files below the pod's secrets
//! directory (`<secrets>/<name>/<key>`).
//!
//! Versions: `formatVersion` rises only when an older pod could misread the document. Everything else is additive:
//! readers ignore fields they do not know, and every new field has a default. Unions carry a `type` and one member of
//! that name, as in the resources.

use serde::{Deserialize, Serialize};

use crate::{AccountSid, Redacted};

/// The `formatVersion` this build writes, and the only one it reads.
pub const FORMAT_VERSION: u32 = 1;

/// One agent as its pods load it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentFile {
    /// Always [`FORMAT_VERSION`].
    pub format_version: u32,
    /// Which rendering this is: a digest over the rest of the document, reported by pods that loaded it. Empty when
    /// written by hand.
    #[serde(default)]
    pub revision: String,
    /// Kubernetes namespace; with `name` it is the path below the public URL.
    pub namespace: String,
    /// The `VoiceAgent`'s name.
    pub name: String,
    /// Answer every new call with a sentence and hang up.
    #[serde(default)]
    pub suspended: bool,
    /// What the carrier calls: scheme `https`, host, optional port and path prefix, no trailing slash. Signatures are
    /// checked against it, never against the `Host` header.
    pub public_url: String,
    /// The phone side.
    pub carrier: Carrier,
    /// Who the agent is.
    pub persona: Persona,
    /// The speech engines: the first is used, the rest are fallbacks. At least one.
    pub engines: Vec<Engine>,
    /// When the caller's voice stops the agent's.
    #[serde(default)]
    pub interruption: Interruption,
    /// Named places a call may be transferred to; the model names one, it never dials a number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub transfer_targets: Vec<TransferTarget>,
    /// What a call, a caller and a day may use.
    #[serde(default)]
    pub limits: Limits,
    /// What a caller gets when no slot is free.
    #[serde(default)]
    pub overflow: Overflow,
    /// Seconds after its announcement for which a call waits for a slot before it gets that.
    #[serde(default)]
    pub overflow_wait_seconds: u32,
    /// What happens to a call whose pod died.
    #[serde(default)]
    pub recovery: Recovery,
    /// How a pod leaves.
    #[serde(default)]
    pub drain: Drain,
    /// Calls a pod carries at most; the next one is bounced to another pod.
    #[serde(default = "default_max_calls_per_pod")]
    pub max_calls_per_pod: u32,
    /// Numbers whose webhooks point at this agent, with the agents that share each of them. A number not listed is
    /// answered by this agent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub numbers: Vec<NumberRoutes>,
    /// Where session state lives.
    #[serde(default)]
    pub store: Store,
    /// Bearer token of the pod's API; without one the API refuses everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_token: Option<SecretRef>,
}

const fn default_max_calls_per_pod() -> u32 {
    30
}

/// A file below the secrets directory: `<secrets>/<name>/<key>`. Read anew when it changes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// Name of the Secret.
    pub name: String,
    /// Key in it.
    pub key: String,
}

/// The account calls come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum Carrier {
    /// Twilio.
    Twilio {
        /// Its member.
        twilio: TwilioCarrier,
    },
}

/// A Twilio account and how its requests are verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TwilioCarrier {
    /// The account.
    pub account_sid: AccountSid,
    /// One or two auth tokens: all verify signatures, the first is used for REST.
    pub auth_tokens: Vec<SecretRef>,
    /// Base of the REST API.
    #[serde(default = "default_api_base_url")]
    pub api_base_url: String,
}

fn default_api_base_url() -> String {
    "https://api.twilio.com".to_owned()
}

/// Who the agent is and how it begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Persona {
    /// BCP 47 tag, e.g. `en-US`.
    #[serde(default = "default_language")]
    pub language: String,
    /// The model's instructions. `{{caller}}`, `{{called}}`, `{{agent}}` and custom parameters are filled in per call.
    pub instructions: String,
    /// What is said first; without it the caller speaks first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub greeting: Option<Greeting>,
}

fn default_language() -> String {
    "en-US".to_owned()
}

/// The first words of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Greeting {
    /// The words; the same variables as in the instructions.
    pub text: String,
    /// Whether the caller's voice may stop them (a legal notice must be heard).
    #[serde(default)]
    pub interruption: GreetingInterruption,
}

/// Whether a greeting may be interrupted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum GreetingInterruption {
    /// As any other speech of the agent.
    #[default]
    Allowed,
    /// It is always said to its end.
    Disallowed,
}

/// A speech engine and its name in metrics and status.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Engine {
    /// Unique in the agent.
    pub name: String,
    /// Which engine.
    #[serde(flatten)]
    pub kind: EngineKind,
}

/// The engines there are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum EngineKind {
    /// A speech-to-speech model over the Realtime protocol.
    Realtime {
        /// Its member.
        realtime: RealtimeEngine,
    },
    /// Built in: scripted replies or an echo; for demos, tests and load.
    Simulated {
        /// Its member.
        simulated: SimulatedEngine,
    },
}

/// An OpenAI Realtime endpoint (or a compatible one) and its session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RealtimeEngine {
    /// `ws` or `wss`, without the query.
    pub url: String,
    /// Model name, sent as the query parameter `model`.
    pub model: String,
    /// Voice name.
    pub voice: String,
    /// The key, sent as a bearer token.
    pub api_key: SecretRef,
    /// How the model finds the end of the caller's turn.
    #[serde(default)]
    pub turn_detection: TurnDetection,
    /// Transcription of the caller; without it only the agent's words are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transcription: Option<Transcription>,
    /// Noise reduction on the caller's audio.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noise_reduction: Option<NoiseReduction>,
    /// Connections a pod keeps open ahead of calls.
    #[serde(default)]
    pub warm_sessions_per_pod: u32,
}

/// Turn detection of the Realtime API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum TurnDetection {
    /// By energy and silence.
    ServerVAD {
        /// Its member.
        #[serde(rename = "serverVAD", default)]
        server_vad: ServerVad,
    },
    /// By meaning.
    SemanticVAD {
        /// Its member.
        #[serde(rename = "semanticVAD", default)]
        semantic_vad: SemanticVad,
    },
}

impl Default for TurnDetection {
    fn default() -> Self {
        Self::ServerVAD { server_vad: ServerVad::default() }
    }
}

/// `server_vad` settings; the defaults are the API's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServerVad {
    /// 0–100; 50 is the API's 0.5.
    pub threshold_percent: u8,
    /// Audio kept from before speech began.
    pub prefix_padding_milliseconds: u32,
    /// Silence that ends a turn.
    pub silence_milliseconds: u32,
}

impl Default for ServerVad {
    fn default() -> Self {
        Self { threshold_percent: 50, prefix_padding_milliseconds: 300, silence_milliseconds: 500 }
    }
}

/// `semantic_vad` settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SemanticVad {
    /// How soon the model answers.
    pub eagerness: Eagerness,
}

/// `semantic_vad` eagerness.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Eagerness {
    /// Waits up to 8 s.
    Low,
    /// Waits up to 4 s.
    Medium,
    /// Waits up to 2 s.
    High,
    /// The API's choice (as `Medium`).
    #[default]
    Auto,
}

/// Transcription of the caller's audio.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Transcription {
    /// Transcription model.
    pub model: String,
}

/// Noise reduction of the Realtime API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NoiseReduction {
    /// Headsets.
    NearField,
    /// Speakerphones and laptops.
    FarField,
}

/// The built-in engine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SimulatedEngine {
    /// What it says, one after each turn of the caller, over again from the start; empty: it plays the caller's last
    /// turn back.
    pub replies: Vec<String>,
    /// For tests that one call's bug harms no other: it panics instead of giving this reply, counted from 1. No resource
    /// sets it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub panic_at_reply: Option<u32>,
}

/// When the caller's voice stops the agent's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Interruption {
    /// The policy.
    pub mode: InterruptionMode,
    /// `Confirmed`: speech shorter than this does not interrupt.
    pub min_speech_milliseconds: u32,
}

impl Default for Interruption {
    fn default() -> Self {
        Self { mode: InterruptionMode::Immediate, min_speech_milliseconds: 200 }
    }
}

/// Interruption policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum InterruptionMode {
    /// As soon as the model hears speech.
    Immediate,
    /// After a minimum of speech.
    Confirmed,
    /// The agent always finishes.
    Never,
}

/// A place a call may be transferred to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TransferTarget {
    /// What the model calls it.
    pub name: String,
    /// E.164.
    pub phone_number: Redacted<String>,
}

/// What a call, a caller and a day may use. Absent: unlimited, except `max_call_seconds`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Limits {
    /// A call ends after this.
    pub max_call_seconds: u32,
    /// Silence of both sides after which the caller is asked once, and again after which the call ends.
    pub silence_seconds: u32,
    /// Calls of the agent at once, over all pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_concurrent_calls: Option<u32>,
    /// Calls of one caller in an hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_calls_per_caller_per_hour: Option<u32>,
    /// Minutes of the agent in a day (UTC).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_minutes_per_day: Option<u32>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_call_seconds: 1800,
            silence_seconds: 30,
            max_concurrent_calls: None,
            max_calls_per_caller_per_hour: None,
            max_minutes_per_day: None,
        }
    }
}

/// What a caller gets when no slot is free.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum Overflow {
    /// A sentence, then the call ends.
    Message {
        /// Its member.
        message: OverflowMessage,
    },
    /// Another agent of the gateway answers, by its own file, limits and overflow.
    Agent {
        /// Its member.
        agent: OverflowAgent,
    },
    /// A call to a named transfer target.
    Forward {
        /// Its member.
        forward: OverflowForward,
    },
}

impl Default for Overflow {
    fn default() -> Self {
        Self::Message { message: OverflowMessage::default() }
    }
}

/// The sentence of [`Overflow::Message`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OverflowMessage {
    /// Said by the carrier's voice.
    pub text: String,
}

impl Default for OverflowMessage {
    fn default() -> Self {
        Self { text: "All lines are busy. Please call again in a moment.".to_owned() }
    }
}

/// The agent of [`Overflow::Agent`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OverflowAgent {
    /// Its name, in this agent's namespace and on its gateway.
    pub name: String,
}

/// The target of [`Overflow::Forward`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OverflowForward {
    /// Its name in `transferTargets`.
    pub transfer_target: String,
}

/// What happens to a call whose pod died.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Recovery {
    /// What is kept.
    #[serde(rename = "type")]
    pub kind: RecoveryKind,
    /// Streams opened for a call without progress before it is given up.
    pub attempts: u32,
}

impl Default for Recovery {
    fn default() -> Self {
        Self { kind: RecoveryKind::WithContext, attempts: 2 }
    }
}

/// What is kept of a conversation for recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecoveryKind {
    /// The words: another pod goes on where this one stopped.
    WithContext,
    /// Nothing spoken is stored: another pod begins anew, without greeting.
    WithoutContext,
}

/// How a pod leaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Drain {
    /// How long calls may go on after SIGTERM before they are handed over.
    pub window_seconds: u32,
}

impl Default for Drain {
    fn default() -> Self {
        Self { window_seconds: 270 }
    }
}

/// A number and the agents that share it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NumberRoutes {
    /// E.164, as in the webhook's `To`.
    pub number: Redacted<String>,
    /// Agents of the same gateway and namespace; chosen by a hash of the CallSid.
    pub routes: Vec<Route>,
}

/// One share of a number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Route {
    /// The agent's name, in this agent's namespace.
    pub agent: String,
    /// Its share; 0 takes no calls.
    pub weight: u32,
}

/// Where session state lives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum Store {
    /// In the process: for a laptop. Calls die with the pod, callbacks reach only the pod that knows them.
    #[default]
    Memory,
    /// Redis.
    Redis {
        /// Its member.
        redis: RedisStore,
    },
}

/// A Redis server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RedisStore {
    /// The URL (`redis://` or `rediss://`) with its credentials.
    pub url: SecretRef,
}

/// The stream keyring as it is mounted beside the agent file: which keys sign and verify stream tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Keyring {
    /// Id of the key that signs new tokens.
    pub signing: String,
    /// Every key that verifies, by id; values are base64 of 32 random bytes.
    pub keys: std::collections::BTreeMap<String, Redacted<String>>,
}

/// File name (and Secret key) of the [`Keyring`].
pub const KEYRING_FILE: &str = "keyring.json";
