//! What happened in one session, for `GET /_sim/sessions`: what the client did and when, and what the model remembers.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::conversation::{Body, Item};

/// One session, as far as it went.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionLog {
    /// `sess_…`.
    pub id: String,
    /// The model asked for.
    pub model: String,
    /// Whether the connection still stands.
    pub is_open: bool,
    /// The instructions in force.
    pub instructions: String,
    /// Client events in order, except audio; the first ten thousand.
    pub events: Vec<LoggedEvent>,
    /// How many `input_audio_buffer.append` came.
    pub appends: u64,
    /// How much audio they held.
    pub appended_milliseconds: u64,
    /// How many of each event the server sent.
    pub sent: BTreeMap<String, u64>,
    /// The conversation as the model remembers it.
    pub items: Vec<LoggedItem>,
    /// Accepted truncations, in order.
    pub truncations: Vec<LoggedTruncation>,
    /// Responses, in order.
    pub responses: Vec<LoggedResponse>,
    /// Rules the client broke in this session, by id.
    pub violations: Vec<String>,
}

/// A client event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LoggedEvent {
    /// Since the session began.
    pub at_milliseconds: u64,
    /// Its type.
    pub r#type: String,
}

/// A remembered item.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LoggedItem {
    /// Its id.
    pub id: String,
    /// `user`, `assistant`, `system`, `function_call` or `function_call_output`.
    pub role: String,
    /// What is remembered of it: of speech only what was played.
    pub text: String,
    /// `completed`, `incomplete` or `in_progress`.
    pub status: String,
    /// How much audio of it was sent to the client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent_milliseconds: Option<u64>,
    /// How much the client said was played.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truncated_milliseconds: Option<u64>,
}

/// An accepted truncation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LoggedTruncation {
    /// Of which item.
    pub item_id: String,
    /// To which length.
    pub audio_end_milliseconds: u64,
    /// Since the session began.
    pub at_milliseconds: u64,
}

/// A response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LoggedResponse {
    /// Its id.
    pub id: String,
    /// `client` or `turn_detection`.
    pub requested_by: String,
    /// `in_progress` until it is over.
    pub status: String,
    /// Why it was cut, if it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Since the session began.
    pub at_milliseconds: u64,
}

impl SessionLog {
    /// Notes a client event.
    pub(super) fn note_event(&mut self, now: Duration, kind: &str) {
        if self.events.len() < MAX_EVENTS {
            self.events.push(LoggedEvent { at_milliseconds: to_ms(now), r#type: kind.to_owned() });
        }
    }

    /// Notes how a response ended.
    pub(super) fn note_end(&mut self, id: &str, status: &str, reason: Option<&str>) {
        if let Some(response) = self.responses.iter_mut().rev().find(|response| response.id == id) {
            status.clone_into(&mut response.status);
            response.reason = reason.map(str::to_owned);
        }
    }
}

impl From<&Item> for LoggedItem {
    fn from(item: &Item) -> Self {
        let (role, text) = item.gist();
        let speech = match &item.body {
            Body::Speech(speech) => Some(speech),
            Body::Text { .. } | Body::CallerAudio { .. } | Body::Call { .. } | Body::Output { .. } => None,
        };
        Self {
            id: item.id.clone(),
            role: role.to_owned(),
            text,
            status: item.status.name().to_owned(),
            sent_milliseconds: speech.map(|speech| speech.sent_ms),
            truncated_milliseconds: speech.and_then(|speech| speech.truncated_ms),
        }
    }
}

/// Whole milliseconds.
pub(super) fn to_ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A call of an hour makes some thousands; more is a flood.
const MAX_EVENTS: usize = 10_000;
