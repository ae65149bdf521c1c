//! The API door: calls of this agent, for people and programs with the bearer token.
//!
//! Everything is read from the store, so any pod answers for all of them. Words and numbers appear here and nowhere
//! else; without an `apiToken` in the agent file every request is refused.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use call_session::io::{EndReason, Next as AfterLeg};
use call_session::journal::{Fact, Journal};
use call_session::{CallSid, Epoch, Ms, Redacted};
use http::StatusCode;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::calls::Notice;
use crate::pod::Pod;
use crate::store::{CallState, StoreError};
use crate::stream::own_key;

/// Calls in one list: the newest; older ones belong to the history.
const MOST_LISTED: usize = 200;

/// Why a request is not answered.
#[derive(Debug, thiserror::Error)]
enum ApiError {
    #[error("a valid bearer token is required")]
    Unauthorized,
    #[error("there is no such resource")]
    NotFound,
    #[error("the path must name a call: CA and 32 hexadecimal digits")]
    InvalidCallSid,
    #[error("the store did not answer; try again")]
    Store(#[from] StoreError),
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, kind) = match self {
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "unauthorized"),
            Self::NotFound => (StatusCode::NOT_FOUND, "not_found"),
            Self::InvalidCallSid => (StatusCode::BAD_REQUEST, "invalid_request"),
            Self::Store(_) => (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable"),
        };
        let body = json!({"error": {"type": kind, "message": self.to_string()}});
        let mut response = (status, Json(body)).into_response();
        if status == StatusCode::UNAUTHORIZED {
            let challenge = http::HeaderValue::from_static("Bearer");
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

/// The API door's routes.
pub(crate) fn router(pod: Arc<Pod>) -> Router {
    Router::new()
        .route("/v1/calls", get(list_calls))
        .route("/v1/calls/{call}", get(show_call).delete(hang_up))
        .fallback(|| async { ApiError::NotFound })
        .layer(middleware::from_fn_with_state(pod.clone(), authorize))
        .with_state(pod)
}

async fn authorize(State(pod): State<Arc<Pod>>, request: Request, next: Next) -> Response {
    if is_authorized(&pod, &request) {
        next.run(request).await
    } else {
        ApiError::Unauthorized.into_response()
    }
}

fn is_authorized(pod: &Pod, request: &Request) -> bool {
    let agent = pod.agent();
    let Some(reference) = &agent.api_token else { return false };
    let expected = match pod.secrets.read(reference) {
        Ok(expected) => expected,
        Err(error) => {
            tracing::warn!(%error, "the API's token cannot be read");
            return false;
        }
    };
    let given = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let Some((scheme, given)) = given.and_then(|value| value.split_once(' ')) else { return false };
    // Digests have one length, so the comparison says nothing about the token's.
    let is_same = Sha256::digest(given.trim()).ct_eq(&Sha256::digest(expected.expose()));
    scheme.eq_ignore_ascii_case("bearer") && bool::from(is_same)
}

/// A call in a list.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    call_sid: CallSid,
    status: Status,
    from: Redacted<String>,
    to: Redacted<String>,
    /// Unix milliseconds.
    started_at: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_reason: Option<EndReason>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Status {
    /// Announced, no stream yet.
    Ringing,
    InProgress,
    Ended,
}

/// A call with what was said and done.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Details {
    #[serde(flatten)]
    summary: Summary,
    transcript: Vec<Line>,
    events: Vec<HappenedAt>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    speaker: Speaker,
    text: Redacted<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    interrupted: bool,
    at_milliseconds: u64,
}

#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
enum Speaker {
    Caller,
    Agent,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct HappenedAt {
    #[serde(flatten)]
    what: Happened,
    #[serde(skip_serializing_if = "Option::is_none")]
    at_milliseconds: Option<u64>,
    leg: Epoch,
}

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Happened {
    LegStarted,
    Greeted,
    Digit,
    ToolStarted {
        tool: String,
        /// An object; absent where nothing spoken is stored.
        #[serde(skip_serializing_if = "Option::is_none")]
        arguments: Option<Redacted<Value>>,
    },
    ToolEnded,
    LegEnded {
        reason: EndReason,
        #[serde(rename = "transferTarget", skip_serializing_if = "Option::is_none")]
        transfer_target: Option<String>,
    },
}

async fn list_calls(State(pod): State<Arc<Pod>>) -> Result<Response, ApiError> {
    let key = own_key(&pod.agent());
    let calls = pod.store.list_calls(&key, MOST_LISTED).await?;
    let calls: Vec<Summary> = calls.iter().filter_map(summary).collect();
    Ok(Json(json!({ "calls": calls })).into_response())
}

async fn show_call(State(pod): State<Arc<Pod>>, Path(call): Path<String>) -> Result<Json<Details>, ApiError> {
    let call = parse(&call)?;
    let state = own_call(&pod, &call).await?;
    let journal = pod.store.load_journal(&call).await?;
    let summary = summary(&state).ok_or(ApiError::NotFound)?;
    Ok(Json(Details { summary, transcript: transcript(&journal), events: events(&journal, &state) }))
}

async fn hang_up(State(pod): State<Arc<Pod>>, Path(call): Path<String>) -> Result<StatusCode, ApiError> {
    let call = parse(&call)?;
    own_call(&pod, &call).await?;
    // The store tells the pod that has the call, and every later leg; this pod needs no message.
    let is_requested = pod.store.request_hang_up(&call).await?;
    let is_here = pod.calls.tell_newest(&call, Notice::HangUp);
    if is_requested || is_here { Ok(StatusCode::NO_CONTENT) } else { Err(ApiError::NotFound) }
}

fn parse(call: &str) -> Result<CallSid, ApiError> {
    call.parse().map_err(|_| ApiError::InvalidCallSid)
}

/// A call of this agent; another agent's is none of ours.
async fn own_call(pod: &Pod, call: &CallSid) -> Result<CallState, ApiError> {
    let state = pod.store.load_call(call).await?.ok_or(ApiError::NotFound)?;
    let is_own = state.record.as_ref().is_some_and(|record| record.agent == own_key(&pod.agent()));
    if is_own { Ok(state) } else { Err(ApiError::NotFound) }
}

fn summary(state: &CallState) -> Option<Summary> {
    let record = state.record.as_ref()?;
    let newest = state.endings.last_key_value().map(|(epoch, ending)| (*epoch, ending));
    // A leg that ended for good is the call's end, also before the carrier says so.
    let final_ending = newest.filter(|(epoch, ending)| {
        state.leg.as_ref().is_none_or(|leg| leg.epoch <= *epoch) && ending.next != AfterLeg::Reconnect
    });
    let is_over = state.ended.is_some() || final_ending.is_some();
    let status = match (is_over, &state.leg) {
        (true, _) => Status::Ended,
        (false, Some(_)) => Status::InProgress,
        (false, None) => Status::Ringing,
    };
    Some(Summary {
        call_sid: record.call.clone(),
        status,
        from: record.from.clone(),
        to: record.to.clone(),
        started_at: state.origin().unwrap_or(record.origin).0,
        ended_at: state.ended.map(|time| time.0),
        end_reason: if is_over { newest.map(|(_, ending)| ending.reason) } else { None },
    })
}

fn transcript(journal: &Journal) -> Vec<Line> {
    let line = |at: Ms, speaker, text: &Redacted<String>, interrupted| Line {
        speaker,
        text: text.clone(),
        interrupted,
        at_milliseconds: at.0,
    };
    let lines = journal.0.iter().filter_map(|entry| match &entry.fact {
        Fact::CallerSaid { text } => Some(line(entry.at, Speaker::Caller, text, false)),
        Fact::AgentSaid { text, interrupted } => Some(line(entry.at, Speaker::Agent, text, *interrupted)),
        Fact::Attached
        | Fact::Greeted
        | Fact::AgentHeard { .. }
        | Fact::Digit { .. }
        | Fact::ToolStarted { .. }
        | Fact::ToolEnded { .. }
        | Fact::Left
        | Fact::CutOff
        | Fact::Unknown => None,
    });
    let mut lines: Vec<Line> = lines.collect();
    // What a caller said is often known only after its answer: it stands where it was said.
    lines.sort_by_key(|line| line.at_milliseconds);
    lines
}

fn events(journal: &Journal, state: &CallState) -> Vec<HappenedAt> {
    let written = journal.0.iter().filter_map(|entry| {
        let what = match &entry.fact {
            Fact::Attached => Happened::LegStarted,
            Fact::Greeted => Happened::Greeted,
            Fact::Digit { .. } => Happened::Digit,
            Fact::ToolStarted { call: _, name, arguments } => Happened::ToolStarted {
                tool: name.clone(),
                arguments: serde_json::from_str(arguments.expose()).ok().map(Redacted::new),
            },
            Fact::ToolEnded { .. } => Happened::ToolEnded,
            Fact::CallerSaid { .. }
            | Fact::AgentSaid { .. }
            | Fact::AgentHeard { .. }
            | Fact::Left
            | Fact::CutOff
            | Fact::Unknown => return None,
        };
        Some(HappenedAt { what, at_milliseconds: Some(entry.at.0), leg: entry.epoch })
    });
    let ended = state.endings.iter().map(|(epoch, ending)| HappenedAt {
        what: Happened::LegEnded {
            reason: ending.reason,
            transfer_target: match &ending.next {
                AfterLeg::Transfer { target } => Some(target.clone()),
                AfterLeg::HangUp | AfterLeg::SayAndHangUp { .. } | AfterLeg::Reconnect => None,
            },
        },
        at_milliseconds: None,
        leg: *epoch,
    });
    let mut events: Vec<HappenedAt> = written.chain(ended).collect();
    events.sort_by_key(|event| event.leg); // stable: a leg's ending stays behind its entries
    events
}

#[cfg(test)]
mod tests {
    use call_session::ToolCallId;
    use call_session::io::Ending;
    use call_session::journal::Entry;

    use super::*;

    #[test]
    fn tools_are_told_with_their_arguments_and_a_transfer_with_its_target() {
        let started = |sequence, arguments: &str| Entry {
            epoch: Epoch(0),
            sequence,
            at: Ms(sequence * 1000),
            fact: Fact::ToolStarted {
                call: ToolCallId::from("t1"),
                name: "look_up".to_owned(),
                arguments: Redacted::new(arguments.to_owned()),
            },
        };
        let journal = Journal(vec![started(1, r#"{"id": 42}"#), started(2, "")]);
        let next = AfterLeg::Transfer { target: "dispatch".to_owned() };
        let ending = Ending { reason: EndReason::Transferred, next };
        let state = CallState { endings: [(Epoch(0), ending)].into(), ..CallState::default() };
        assert_eq!(
            serde_json::to_value(events(&journal, &state)).unwrap(),
            json!([
                {"type": "tool_started", "tool": "look_up", "arguments": {"id": 42}, "atMilliseconds": 1000, "leg": 0},
                {"type": "tool_started", "tool": "look_up", "atMilliseconds": 2000, "leg": 0},
                {"type": "leg_ended", "reason": "transferred", "transferTarget": "dispatch", "leg": 0},
            ])
        );
    }
}
