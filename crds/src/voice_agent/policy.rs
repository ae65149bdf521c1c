//! What an agent may and must do around the conversation: interruption, transfers, limits, overflow, recovery.

use kube::KubeSchema;
use kube::core::Rule;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::AgentRef;
use crate::rule::{needs_member, only_with};

/// When the caller's voice stops the agent's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Interruption {
    /// `Immediate`: as soon as speech is heard. `Confirmed`: after a minimum of speech, so that a cough does not
    /// interrupt. `Never`: the agent always finishes.
    pub mode: InterruptionMode,
    /// The minimum of speech for mode `Confirmed`.
    #[schemars(range(min = 0, max = 5000))]
    pub min_speech_milliseconds: u32,
}

impl Default for Interruption {
    fn default() -> Self {
        Self { mode: InterruptionMode::Immediate, min_speech_milliseconds: 200 }
    }
}

/// Interruption policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum InterruptionMode {
    /// As soon as speech is heard.
    Immediate,
    /// After a minimum of speech.
    Confirmed,
    /// The agent always finishes.
    Never,
}

/// A place a call may be transferred to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TransferTarget {
    /// What the model calls it; unique in the agent.
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[A-Za-z0-9_-]+$"))]
    pub name: String,
    /// The number, in E.164 form.
    #[schemars(length(min = 3, max = 16), regex(pattern = r"^\+[1-9][0-9]{1,14}$"))]
    pub phone_number: String,
}

/// What a call, a caller and a day may use. A limit that is left out is not checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Limits {
    /// A call ends after this long, after an announcement.
    #[schemars(range(min = 10, max = 86400))]
    pub max_call_seconds: u32,
    /// Silence of both sides after which the caller is asked once, and after as much again the call ends.
    #[schemars(range(min = 5, max = 3600))]
    pub silence_seconds: u32,
    /// Calls of the agent at once, over all pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100000))]
    pub max_concurrent_calls: Option<u32>,
    /// Calls of one caller in an hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100000))]
    pub max_calls_per_caller_per_hour: Option<u32>,
    /// Minutes of the agent in a day (UTC).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10000000))]
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

/// What a caller gets when every slot is taken: all pods are full, or `limits.maxConcurrentCalls` is reached.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(
    validation = only_with("Message", "message"),
    validation = needs_member("Agent", "agent"),
    validation = only_with("Agent", "agent"),
    validation = needs_member("Forward", "forward"),
    validation = only_with("Forward", "forward")
)]
#[serde(rename_all = "camelCase")]
pub struct Overflow {
    /// `Message`: a sentence, then the call ends. `Agent`: another VoiceAgent of the gateway answers, if it has a slot;
    /// else its own overflow decides, and no agent is asked twice for one call. `Forward`: a transfer target is called.
    #[serde(rename = "type", default)]
    pub kind: OverflowType,
    /// For so long after its announcement a call waits for a slot first, while pods start or other calls end: the phone
    /// rings on. Without it 30 with type `Message`, and 0 with the others, where somebody else can answer at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 60))]
    pub wait_seconds: Option<u32>,
    /// Settings of type `Message`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<OverflowMessage>,
    /// Settings of type `Agent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<OverflowAgent>,
    /// Settings of type `Forward`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forward: Option<OverflowForward>,
}

impl Default for Overflow {
    fn default() -> Self {
        Self {
            kind: OverflowType::Message,
            wait_seconds: None,
            message: Some(OverflowMessage::default()),
            agent: None,
            forward: None,
        }
    }
}

/// `overflow.agent` must lead somewhere else.
pub(super) fn overflows_to_another_agent() -> Rule {
    Rule::new(
        "!has(self.spec.overflow) || !has(self.spec.overflow.agent) \
         || self.spec.overflow.agent.agentRef.name != self.metadata.name",
    )
    .message("overflow.agent.agentRef names this agent itself: name another VoiceAgent of the gateway, or set overflow.type to Message")
}

/// `overflow.forward` must name one of the agent's own targets.
pub(super) fn overflows_to_a_known_target() -> Rule {
    Rule::new(
        "!has(self.spec.overflow) || !has(self.spec.overflow.forward) || (has(self.spec.transferTargets) \
         && self.spec.transferTargets.exists(t, t.name == self.spec.overflow.forward.transferTarget))",
    )
    .message("overflow.forward.transferTarget names no entry of transferTargets: add one with that name, or name one that is there")
}

/// The overflow policies there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OverflowType {
    /// A sentence, then the call ends.
    #[default]
    Message,
    /// Another VoiceAgent of the gateway.
    Agent,
    /// A transfer target.
    Forward,
}

/// The agent that answers when every slot is taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OverflowAgent {
    /// Another VoiceAgent of this namespace, on the same gateway. While there is none, callers hear the default sentence
    /// of type `Message`, and the condition ReferencesResolved says so.
    pub agent_ref: AgentRef,
}

/// The transfer target that is called when every slot is taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OverflowForward {
    /// Name of one of the agent's `transferTargets`.
    #[schemars(length(min = 1, max = 64))]
    pub transfer_target: String,
}

/// The sentence that is said when every slot is taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct OverflowMessage {
    /// The sentence, said by the carrier's voice.
    #[schemars(length(min = 1, max = 1000))]
    pub text: String,
}

impl Default for OverflowMessage {
    fn default() -> Self {
        Self { text: "All lines are busy. Please call again in a moment.".to_owned() }
    }
}

/// What happens to a call whose pod died.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Recovery {
    /// `WithContext`: another pod goes on where this one stopped; the words are kept in the store for that.
    /// `WithoutContext`: nothing spoken is stored, and another pod begins anew without a greeting.
    #[serde(rename = "type")]
    pub kind: RecoveryType,
    /// Streams opened for a call without progress before it is given up with a sentence; a stream that meets a full pod is none.
    #[schemars(range(min = 0, max = 10))]
    pub attempts: u32,
}

impl Default for Recovery {
    fn default() -> Self {
        Self { kind: RecoveryType::WithContext, attempts: 2 }
    }
}

/// What is kept of a conversation for recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RecoveryType {
    /// The words.
    WithContext,
    /// Nothing spoken.
    WithoutContext,
}
