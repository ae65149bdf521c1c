//! The events we send (protocol sheet 5.2 and 5.3), written out in full. GA names only: never a beta field, never
//! `temperature`.

use bytes::Bytes;
use serde::Serialize;

use super::config::RealtimeConfig;
use super::wire::TAG;
use crate::agent_file::{Eagerness, NoiseReduction, TurnDetection};
use crate::audio::Payload;
use crate::tools::ToolDefinition;
use crate::{ItemId, Ms, ReplyId, ToolCallId};

/// `event_id` of the `session.update`; the server names it in an error about it.
pub(super) const SESSION_UPDATE: &str = "session_update";

/// What every `event_id` of a truncation begins with.
pub(super) const TRUNCATE: &str = "truncate_";

/// An event but `append`.
#[derive(Serialize)]
#[serde(tag = "type")]
pub(super) enum ClientEvent<'a> {
    #[serde(rename = "session.update")]
    SessionUpdate { event_id: &'static str, session: Session<'a> },
    #[serde(rename = "conversation.item.create")]
    CreateItem { item: Item<'a> },
    #[serde(rename = "conversation.item.truncate")]
    Truncate { event_id: String, item_id: &'a ItemId, content_index: u64, audio_end_ms: Ms },
    #[serde(rename = "response.create")]
    CreateResponse { event_id: &'a str, response: ResponseParameters<'a> },
    #[serde(rename = "response.cancel")]
    CancelResponse { response_id: &'a ReplyId },
}

impl ClientEvent<'_> {
    pub(super) fn to_frame(&self) -> Bytes {
        let json = serde_json::to_vec(self);
        Bytes::from(json.expect("string keys and plain values always serialise"))
    }
}

/// `input_audio_buffer.append`, the hot path: the payload as it is, one allocation.
pub(super) fn append(audio: &Payload) -> Bytes {
    let parts: [&[u8]; 3] = [br#"{"type":"input_audio_buffer.append","audio":""#, audio.base64(), br#""}"#];
    Bytes::from(parts.concat())
}

#[derive(Serialize)]
pub(super) struct Session<'a> {
    r#type: &'static str,
    output_modalities: [&'static str; 1],
    instructions: &'a str,
    audio: Audio<'a>,
    tools: Vec<Tool<'a>>,
    tool_choice: &'static str,
}

#[derive(Serialize)]
struct Audio<'a> {
    input: AudioInput<'a>,
    output: AudioOutput<'a>,
}

#[derive(Serialize)]
struct Format {
    r#type: &'static str,
}

const MULAW: Format = Format { r#type: "audio/pcmu" };

/// `null` switches noise reduction and transcription off, whatever the server's defaults are.
#[derive(Serialize)]
struct AudioInput<'a> {
    format: Format,
    noise_reduction: Option<Reduction>,
    transcription: Option<Transcription<'a>>,
    turn_detection: Detection,
}

#[derive(Serialize)]
struct AudioOutput<'a> {
    format: Format,
    voice: &'a str,
}

#[derive(Serialize)]
struct Reduction {
    r#type: &'static str,
}

#[derive(Serialize)]
struct Transcription<'a> {
    model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    language: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Detection {
    ServerVad {
        threshold: f64,
        prefix_padding_ms: u32,
        silence_duration_ms: u32,
        create_response: bool,
        interrupt_response: bool,
    },
    SemanticVad {
        eagerness: &'static str,
        create_response: bool,
        interrupt_response: bool,
    },
}

#[derive(Serialize)]
struct Tool<'a> {
    r#type: &'static str,
    name: &'a str,
    description: &'a str,
    parameters: &'a serde_json::Value,
}

impl<'a> Session<'a> {
    pub(super) fn new(config: &'a RealtimeConfig) -> Self {
        let RealtimeConfig {
            instructions,
            voice,
            turn_detection,
            server_interrupts: interrupt_response,
            server_replies: create_response,
            transcription,
            noise_reduction,
            tools,
        } = config;
        let (create_response, interrupt_response) = (*create_response, *interrupt_response);
        let turn_detection = match turn_detection {
            TurnDetection::ServerVAD { server_vad } => Detection::ServerVad {
                threshold: f64::from(server_vad.threshold_percent.min(100)) / 100.0,
                prefix_padding_ms: server_vad.prefix_padding_milliseconds,
                silence_duration_ms: server_vad.silence_milliseconds,
                create_response,
                interrupt_response,
            },
            TurnDetection::SemanticVAD { semantic_vad } => Detection::SemanticVad {
                eagerness: match semantic_vad.eagerness {
                    Eagerness::Low => "low",
                    Eagerness::Medium => "medium",
                    Eagerness::High => "high",
                    Eagerness::Auto => "auto",
                },
                create_response,
                interrupt_response,
            },
        };
        let noise_reduction = noise_reduction.map(|reduction| Reduction {
            r#type: match reduction {
                NoiseReduction::NearField => "near_field",
                NoiseReduction::FarField => "far_field",
            },
        });
        let transcription = transcription.as_ref().map(|transcription| Transcription {
            model: &transcription.model,
            language: transcription.language.as_deref(),
        });
        let tool = |ToolDefinition { name, description, parameters }: &'a ToolDefinition| Tool {
            r#type: "function",
            name,
            description,
            parameters,
        };
        Self {
            r#type: "realtime",
            output_modalities: ["audio"],
            instructions: instructions.expose(),
            audio: Audio {
                input: AudioInput { format: MULAW, noise_reduction, transcription, turn_detection },
                output: AudioOutput { format: MULAW, voice },
            },
            tools: tools.iter().map(tool).collect(),
            tool_choice: "auto",
        }
    }
}

/// A conversation item the client may create. The agent's words go in as text: audio items of the assistant cannot be
/// created.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Item<'a> {
    Message { role: &'static str, content: [Content<'a>; 1] },
    FunctionCall { call_id: &'a ToolCallId, name: &'a str, arguments: &'a str },
    FunctionCallOutput { call_id: &'a ToolCallId, output: &'a str },
}

#[derive(Serialize)]
pub(super) struct Content<'a> {
    r#type: &'static str,
    text: &'a str,
}

impl<'a> Item<'a> {
    pub(super) const fn caller(text: &'a str) -> Self {
        Self::Message { role: "user", content: [Content { r#type: "input_text", text }] }
    }

    pub(super) const fn agent(text: &'a str) -> Self {
        Self::Message { role: "assistant", content: [Content { r#type: "output_text", text }] }
    }

    pub(super) const fn system(text: &'a str) -> Self {
        Self::Message { role: "system", content: [Content { r#type: "input_text", text }] }
    }
}

/// `response` of `response.create`. The metadata comes back in `response.created` and tells our response from one the
/// server began by itself at the same moment.
#[derive(Serialize)]
pub(super) struct ResponseParameters<'a> {
    metadata: std::collections::BTreeMap<&'static str, &'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    instructions: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<&'static str>,
}

impl<'a> ResponseParameters<'a> {
    /// Whatever the conversation calls for.
    pub(super) fn reply(request: &'a str) -> Self {
        Self { metadata: [(TAG, request)].into(), instructions: None, tool_choice: None }
    }

    /// Exactly these words. These instructions replace the session's for this response.
    pub(super) fn verbatim(request: &'a str, words: &str) -> Self {
        let instructions = format!(
            "Say exactly the following words to the caller, in the language they are written in, and nothing else. \
             Do not add, leave out, translate or answer anything:\n\n{words}"
        );
        Self {
            metadata: [(TAG, request)].into(),
            instructions: Some(instructions),
            tool_choice: Some("none"),
        }
    }
}
