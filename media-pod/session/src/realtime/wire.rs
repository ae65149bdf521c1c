//! The server's events as they stand on the wire (protocol sheet 5.5), read once and without copying.
//!
//! One flat envelope holds every field any event of interest has; fields are lenient, because an unknown event may use
//! the same name for another shape. What a *known* event must hold is checked by [`ServerEvent::parse`]. Names of the
//! dead beta are accepted: other servers still send them.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::RealtimeError;
use super::usage::usage;
use crate::audio::Payload;
use crate::io::Usage;
use crate::scan::Scanner;
use crate::twilio::{Number, Text, slice_of};

/// Frames above this are refused unread: the largest the vendor's own client expects is 16 MiB.
pub const MAX_FRAME: usize = 16 * 1024 * 1024;

/// What the server says, as far as it matters here.
#[derive(Debug)]
pub(super) enum ServerEvent<'a> {
    SessionCreated {
        expires_at: Option<u64>,
    },
    SessionUpdated {
        expires_at: Option<u64>,
    },
    SpeechStarted,
    SpeechStopped,
    CallerTranscript {
        item: Cow<'a, str>,
        text: Cow<'a, str>,
    },
    /// `function_call_output` entered the conversation: what is created from now on has seen it.
    OutputAdded {
        call: Cow<'a, str>,
    },
    ResponseCreated(Response<'a>),
    ResponseDone(Response<'a>),
    ItemAdded {
        reply: Cow<'a, str>,
        item: Cow<'a, str>,
        kind: ItemKind,
    },
    ItemDone {
        reply: Cow<'a, str>,
        item: DoneItem<'a>,
    },
    Audio {
        reply: Cow<'a, str>,
        item: Cow<'a, str>,
        content_index: u64,
        audio: Payload,
    },
    AudioDone {
        item: Cow<'a, str>,
    },
    AgentTranscript {
        item: Cow<'a, str>,
        text: Cow<'a, str>,
    },
    Error(ErrorBody<'a>),
    /// Known, and of no consequence here, except that the reply it belongs to is alive.
    Quiet {
        reply: Option<Cow<'a, str>>,
    },
}

/// What kind of item a reply began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ItemKind {
    Message,
    Other,
}

/// An item that is complete, or was cut.
#[derive(Debug)]
pub(super) enum DoneItem<'a> {
    /// The agent's words; the transcript when the item carries one.
    Message { id: Cow<'a, str>, transcript: Option<Cow<'a, str>> },
    /// A tool call with complete arguments.
    Call { call: Cow<'a, str>, name: Cow<'a, str>, arguments: Cow<'a, str> },
    /// A tool call that was cut: its arguments may be half a document.
    IncompleteCall,
    /// Anything else.
    Other,
}

/// `response` of `response.created` and `response.done`.
#[derive(Debug)]
pub(super) struct Response<'a> {
    pub(super) id: Cow<'a, str>,
    pub(super) status: Status,
    /// What we put into `response.create`, echoed; tells our responses from the server's own.
    pub(super) tag: Option<Cow<'a, str>>,
    pub(super) failure: Option<ErrorBody<'a>>,
    pub(super) usage: Option<Usage>,
}

/// `response.status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Completed,
    Cancelled,
    Incomplete,
    Failed,
    /// Absent or not known to this build.
    Unknown,
}

/// `error` of an `error` event or of a failed response.
#[derive(Debug, Default, Deserialize)]
pub(super) struct ErrorBody<'a> {
    #[serde(borrow, default, rename = "type")]
    pub(super) kind: Text<'a>,
    #[serde(borrow, default)]
    pub(super) code: Text<'a>,
    #[serde(borrow, default)]
    pub(super) message: Text<'a>,
    #[serde(borrow, default)]
    pub(super) event_id: Text<'a>,
}

/// The key in `response.metadata` that carries our request's name.
pub(super) const TAG: &str = "request";

impl<'a> ServerEvent<'a> {
    /// Reads one frame.
    pub(super) fn parse(frame: &'a Bytes) -> Result<Self, RealtimeError> {
        if frame.len() > MAX_FRAME {
            return Err(RealtimeError::TooLarge { size: frame.len() });
        }
        // Most events, and all that come many times a second, are audio in its usual shape.
        match scan_audio(frame) {
            Some(audio) => Ok(audio),
            None => Self::parse_any(frame),
        }
    }

    /// Reads any event, in whatever way a server may write it.
    pub(super) fn parse_any(frame: &'a Bytes) -> Result<Self, RealtimeError> {
        let envelope: Envelope<'a> = serde_json::from_slice(frame).map_err(|_| RealtimeError::NotAnEvent)?;
        let kind = envelope.kind.clone();
        let kind = kind.as_str().ok_or(RealtimeError::NotAnEvent)?;
        let Some((event, name)) = Kind::of(kind) else {
            return Err(RealtimeError::UnknownEvent);
        };
        envelope.read(frame, event).ok_or(RealtimeError::Malformed { event: name })
    }
}

/// An audio delta as the server writes it; nothing for whatever else.
pub(super) fn scan_audio(frame: &Bytes) -> Option<ServerEvent<'_>> {
    let mut scanner = Scanner::new(frame);
    let (mut kind, mut reply, mut item, mut content_index, mut delta) = (None, None, None, None, None);
    scanner.object(|scanner, key| {
        match key {
            b"type" if kind.is_none() => {
                kind = Some(scanner.plain()?);
                return (kind == Some(b"response.output_audio.delta")).then_some(());
            }
            b"response_id" if reply.is_none() => reply = Some(scanner.plain()?),
            b"item_id" if item.is_none() => item = Some(scanner.plain()?),
            b"content_index" if content_index.is_none() => content_index = Some(scanner.number()?),
            b"delta" if delta.is_none() => delta = Some(scanner.quoted()?),
            // Repeated, or of another event: not the usual shape.
            b"type" | b"response_id" | b"item_id" | b"content_index" | b"delta" | b"transcript" | b"item"
            | b"response" | b"session" | b"error" => return None,
            _ => scanner.skip()?,
        }
        Some(())
    })?;
    scanner.end()?;
    kind?;
    Some(ServerEvent::Audio {
        reply: Cow::Borrowed(std::str::from_utf8(reply?).ok()?),
        item: Cow::Borrowed(std::str::from_utf8(item?).ok()?),
        content_index: content_index.unwrap_or(0),
        audio: Payload::from_base64(frame.slice_ref(delta?)).ok()?,
    })
}

/// The events that are read.
#[derive(Clone, Copy)]
enum Kind {
    SessionCreated,
    SessionUpdated,
    SpeechStarted,
    SpeechStopped,
    CallerTranscript,
    ConversationItem,
    ResponseCreated,
    ResponseDone,
    ItemAdded,
    ItemDone,
    Audio,
    AudioDone,
    AgentTranscript,
    Error,
    Quiet,
}

impl Kind {
    /// The kind and a name that lives long enough for an error.
    fn of(name: &str) -> Option<(Self, &'static str)> {
        Some(match name {
            "response.output_audio.delta" | "response.audio.delta" => {
                (Self::Audio, "response.output_audio.delta")
            }
            "response.output_audio.done" | "response.audio.done" => {
                (Self::AudioDone, "response.output_audio.done")
            }
            "response.output_audio_transcript.done" | "response.audio_transcript.done" => {
                (Self::AgentTranscript, "response.output_audio_transcript.done")
            }
            "session.created" => (Self::SessionCreated, "session.created"),
            "session.updated" => (Self::SessionUpdated, "session.updated"),
            "input_audio_buffer.speech_started" => (Self::SpeechStarted, "input_audio_buffer.speech_started"),
            "input_audio_buffer.speech_stopped" => (Self::SpeechStopped, "input_audio_buffer.speech_stopped"),
            "conversation.item.input_audio_transcription.completed" => {
                (Self::CallerTranscript, "conversation.item.input_audio_transcription.completed")
            }
            "conversation.item.added" | "conversation.item.done" | "conversation.item.created" => {
                (Self::ConversationItem, "conversation.item.added")
            }
            "response.created" => (Self::ResponseCreated, "response.created"),
            "response.done" => (Self::ResponseDone, "response.done"),
            "response.output_item.added" => (Self::ItemAdded, "response.output_item.added"),
            "response.output_item.done" => (Self::ItemDone, "response.output_item.done"),
            "error" => (Self::Error, "error"),
            quiet if QUIET.contains(&quiet) => (Self::Quiet, "quiet"),
            _ => return None,
        })
    }
}

/// Known events that change nothing here; not counted as unknown.
const QUIET: &[&str] = &[
    "conversation.created",
    "conversation.item.deleted",
    "conversation.item.input_audio_transcription.delta",
    "conversation.item.input_audio_transcription.failed",
    "conversation.item.input_audio_transcription.segment",
    "conversation.item.retrieved",
    "conversation.item.truncated",
    "input_audio_buffer.cleared",
    "input_audio_buffer.committed",
    "input_audio_buffer.dtmf_event_received",
    "input_audio_buffer.timeout_triggered",
    "mcp_list_tools.completed",
    "mcp_list_tools.failed",
    "mcp_list_tools.in_progress",
    "output_audio_buffer.cleared",
    "output_audio_buffer.started",
    "output_audio_buffer.stopped",
    "rate_limits.updated",
    "response.audio_transcript.delta",
    "response.content_part.added",
    "response.content_part.done",
    "response.function_call_arguments.delta",
    "response.function_call_arguments.done",
    "response.mcp_call.completed",
    "response.mcp_call.failed",
    "response.mcp_call.in_progress",
    "response.mcp_call_arguments.delta",
    "response.mcp_call_arguments.done",
    "response.output_audio_transcript.delta",
    "response.output_text.delta",
    "response.output_text.done",
    "response.text.delta",
    "response.text.done",
];

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow, default)]
    response_id: Text<'a>,
    #[serde(borrow, default)]
    item_id: Text<'a>,
    #[serde(default)]
    content_index: Number,
    #[serde(borrow, default)]
    delta: Text<'a>,
    #[serde(borrow, default)]
    transcript: Text<'a>,
    #[serde(borrow)]
    item: Option<&'a RawValue>,
    #[serde(borrow)]
    response: Option<&'a RawValue>,
    #[serde(borrow)]
    session: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

impl<'a> Envelope<'a> {
    /// The event, or `None` when something it must hold is missing.
    fn read(self, frame: &Bytes, kind: Kind) -> Option<ServerEvent<'a>> {
        Some(match kind {
            Kind::Audio => ServerEvent::Audio {
                reply: self.response_id.into_cow()?,
                item: self.item_id.into_cow()?,
                content_index: self.content_index.0.unwrap_or(0),
                audio: Payload::from_base64(slice_of(frame, self.delta.into_cow()?)).ok()?,
            },
            Kind::AudioDone => ServerEvent::AudioDone { item: self.item_id.into_cow()? },
            Kind::AgentTranscript => ServerEvent::AgentTranscript {
                item: self.item_id.into_cow()?,
                text: self.transcript.into_cow()?,
            },
            Kind::SessionCreated => ServerEvent::SessionCreated { expires_at: expiry(self.session) },
            Kind::SessionUpdated => ServerEvent::SessionUpdated { expires_at: expiry(self.session) },
            Kind::SpeechStarted => ServerEvent::SpeechStarted,
            Kind::SpeechStopped => ServerEvent::SpeechStopped,
            Kind::CallerTranscript => ServerEvent::CallerTranscript {
                item: self.item_id.into_cow()?,
                text: self.transcript.into_cow()?,
            },
            Kind::ConversationItem => conversation_item(self.item?)?,
            Kind::ResponseCreated => ServerEvent::ResponseCreated(response(self.response?)?),
            Kind::ResponseDone => ServerEvent::ResponseDone(response(self.response?)?),
            Kind::ItemAdded => {
                let item: ItemBody<'a> = serde_json::from_str(self.item?.get()).ok()?;
                let kind = if item.kind.as_str()? == "message" { ItemKind::Message } else { ItemKind::Other };
                ServerEvent::ItemAdded {
                    reply: self.response_id.into_cow()?,
                    item: item.id.into_cow()?,
                    kind,
                }
            }
            Kind::ItemDone => {
                ServerEvent::ItemDone { reply: self.response_id.into_cow()?, item: done_item(self.item?)? }
            }
            Kind::Error => ServerEvent::Error(serde_json::from_str(self.error?.get()).ok()?),
            Kind::Quiet => ServerEvent::Quiet { reply: self.response_id.into_cow() },
        })
    }
}

#[derive(Deserialize)]
struct ItemBody<'a> {
    #[serde(borrow, default)]
    id: Text<'a>,
    #[serde(borrow, default, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow, default)]
    status: Text<'a>,
    #[serde(borrow, default)]
    call_id: Text<'a>,
    #[serde(borrow, default)]
    name: Text<'a>,
    #[serde(borrow, default)]
    arguments: Text<'a>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct PartBody<'a> {
    #[serde(borrow, default)]
    transcript: Text<'a>,
}

fn conversation_item<'a>(item: &'a RawValue) -> Option<ServerEvent<'a>> {
    let item: ItemBody<'a> = serde_json::from_str(item.get()).ok()?;
    Some(match (item.kind.as_str(), item.call_id.into_cow()) {
        (Some("function_call_output"), Some(call)) => ServerEvent::OutputAdded { call },
        _ => ServerEvent::Quiet { reply: None },
    })
}

fn done_item<'a>(item: &'a RawValue) -> Option<DoneItem<'a>> {
    let item: ItemBody<'a> = serde_json::from_str(item.get()).ok()?;
    Some(match (item.kind.as_str()?, item.status.as_str()) {
        ("function_call", Some("completed")) => DoneItem::Call {
            call: item.call_id.into_cow()?,
            name: item.name.into_cow()?,
            arguments: item.arguments.into_cow().unwrap_or_default(),
        },
        ("function_call", _) => DoneItem::IncompleteCall,
        ("message", _) => DoneItem::Message { id: item.id.into_cow()?, transcript: transcript(item.content) },
        _ => DoneItem::Other,
    })
}

/// The words of all parts of a message that have a transcript.
fn transcript<'a>(content: Option<&'a RawValue>) -> Option<Cow<'a, str>> {
    let parts: Vec<PartBody<'a>> = serde_json::from_str(content?.get()).ok()?;
    parts.into_iter().filter_map(|part| part.transcript.into_cow()).reduce(|all, part| all + " " + part)
}

#[derive(Deserialize)]
struct ResponseBody<'a> {
    #[serde(borrow, default)]
    id: Text<'a>,
    #[serde(borrow, default)]
    status: Text<'a>,
    #[serde(borrow)]
    status_details: Option<&'a RawValue>,
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct StatusDetails<'a> {
    #[serde(borrow)]
    error: Option<ErrorBody<'a>>,
}

#[derive(Deserialize)]
struct Metadata<'a> {
    #[serde(borrow, default)]
    request: Text<'a>,
}

/// Only the id must be there: a reply whose details cannot be read is still over.
fn response<'a>(body: &'a RawValue) -> Option<Response<'a>> {
    let body: ResponseBody<'a> = serde_json::from_str(body.get()).ok()?;
    let status = match body.status.as_str() {
        Some("completed") => Status::Completed,
        Some("cancelled") => Status::Cancelled,
        Some("incomplete") => Status::Incomplete,
        Some("failed") => Status::Failed,
        Some(_) | None => Status::Unknown,
    };
    let details =
        body.status_details.and_then(|raw| serde_json::from_str::<StatusDetails<'a>>(raw.get()).ok());
    let metadata =
        body.metadata.and_then(|raw| serde_json::from_str::<Option<Metadata<'a>>>(raw.get()).ok()?);
    Some(Response {
        id: body.id.into_cow()?,
        status,
        tag: metadata.and_then(|metadata| metadata.request.into_cow()),
        failure: details.and_then(|details| details.error),
        usage: body.usage.and_then(usage),
    })
}

#[derive(Deserialize)]
struct SessionBody {
    #[serde(default)]
    expires_at: Number,
}

fn expiry(session: Option<&RawValue>) -> Option<u64> {
    serde_json::from_str::<SessionBody>(session?.get()).ok()?.expires_at.0
}
