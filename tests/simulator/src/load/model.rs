//! The lean model of a load run: it hears the callers' tags, speaks tagged audio at the speed of speech, and is told apart
//! from the strict one ([`crate::model`]) by its price: a load generator must not be slower than what it loads.
//!
//! It speaks the protocol in the order of the protocol sheet, section 5.7, with a time of its own of zero. It checks what
//! costs nothing (audio before `session.updated`, a second active response, a truncation past the end, unknown events,
//! frames lost or altered); everything else is the strict model's. Speech is what the tag says, not what energy says.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::{SinkExt as _, StreamExt as _};
use rustls::ServerConfig;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, accept_async_with_config};

use super::SMALL_BUFFER;
use super::board::Board;
use super::tag::{Filler, Sound, Tag, UNKNOWN_LINE};
use crate::violations::{Rule, Violations};
use crate::voice::mulaw::BYTES_PER_MS;

/// Audio of one delta. Real ones are of this size.
const DELTA: Duration = Duration::from_millis(100);
/// How far the model is ahead of the ear, as a real one is (by more).
const LEAD: Duration = Duration::from_millis(300);
/// Silence after which the caller's turn is over: 200 ms.
const PAUSE_FRAMES: u32 = 10;

/// What all sessions share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) board: Arc<Board>,
    pub(super) violations: Violations,
    pub(super) filler: Filler,
    /// What is behind the callers' tags.
    silence: Filler,
    speech: Filler,
    /// What a reply lasts when nobody interrupts.
    reply: Duration,
    /// How long a session lives; `None`: as long as its client likes.
    session_limit: Option<Duration>,
}

impl Shared {
    const fn filler_of(&self, sound: Sound) -> &Filler {
        match sound {
            Sound::Silence => &self.silence,
            Sound::Speech => &self.speech,
        }
    }

    pub(super) fn new(
        board: Arc<Board>,
        violations: Violations,
        reply: Duration,
        session_limit: Option<Duration>,
    ) -> Self {
        let (silence, speech) = (Filler::of_caller(Sound::Silence), Filler::of_caller(Sound::Speech));
        Self { board, violations, filler: filler(), silence, speech, reply, session_limit }
    }
}

/// What is behind the tags of deltas. 0x30 is loud enough to be speech for whoever listens.
pub(super) fn filler() -> Filler {
    Filler::new(DELTA.as_millis() as usize * BYTES_PER_MS, 0x30)
}

/// Serves sessions until dropped.
pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>, tls: Option<Arc<ServerConfig>>) {
    let tls = tls.map(TlsAcceptor::from);
    let mut sessions = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let _ = stream.set_nodelay(true); // only latency is lost without it
                    let shared = Arc::clone(&shared);
                    match tls.clone() {
                        None => sessions.spawn(converse(stream, shared)),
                        Some(tls) => sessions.spawn(async move {
                            // A client that cannot shake hands finds no model, and its call is mute.
                            if let Ok(stream) = tls.accept(stream).await {
                                converse(stream, shared).await;
                            }
                        }),
                    };
                }
                // Out of descriptors: a pause lets some be closed.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            Some(_) = sessions.join_next() => {}
        }
    }
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(stream: S, shared: Arc<Shared>) {
    let config = WebSocketConfig::default().read_buffer_size(SMALL_BUFFER).write_buffer_size(SMALL_BUFFER);
    let Ok(socket) = accept_async_with_config(stream, Some(config)).await else { return };
    let mut session = Session {
        socket,
        shared,
        ids: 0,
        state: State::Fresh,
        replies: Replies::OfItself,
        reply: None,
        said: HashMap::new(),
        caller: None,
        expected: 0,
        in_use_since: None,
        spoken: 0,
        turn: Turn::Quiet,
    };
    // How a connection ends is the client's business.
    let _ = session.run().await;
}

struct Session<S> {
    socket: WebSocketStream<S>,
    shared: Arc<Shared>,
    ids: u64,
    state: State,
    replies: Replies,
    reply: Option<Reply>,
    /// How much of each item was sent.
    said: HashMap<String, Duration>,
    /// Line and call, known from the first tag on.
    caller: Option<(u32, u32)>,
    /// No frame before this one comes any more.
    expected: u32,
    /// When the first frame came. What was said before waited for this session, or was heard by another one.
    in_use_since: Option<Duration>,
    /// Sequence of the next delta.
    spoken: u32,
    turn: Turn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Fresh,
    Configured,
}

/// `create_response`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Replies {
    OfItself,
    OnRequest,
}

/// The caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Quiet,
    /// With so many silent frames at its end.
    Speaking {
        silence: u32,
    },
}

struct Reply {
    id: String,
    item: String,
    began: Instant,
    sent: Duration,
    is_requested: bool,
    metadata: Value,
}

impl Reply {
    fn due(&self) -> Instant {
        self.began + self.sent.saturating_sub(LEAD)
    }
}

#[derive(Deserialize)]
struct ClientEvent<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    audio: Option<Cow<'a, str>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    async fn run(&mut self) -> Result<(), Error> {
        let limit = self.shared.session_limit;
        let mut session = json!({"id": "sess_load", "object": "realtime.session"});
        if let Some(limit) = limit {
            let end = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + limit;
            session["expires_at"] = json!(end.as_secs());
        }
        self.shared.board.figures().sessions += 1;
        self.feed(json!({"type": "session.created", "session": session})).await?;
        self.socket.flush().await?;
        let mut end = std::pin::pin!(sleep_until(Instant::now() + limit.unwrap_or_default()));
        let mut timer = std::pin::pin!(sleep_until(Instant::now()));
        loop {
            if let Some(reply) = &self.reply
                && timer.deadline() != reply.due()
            {
                timer.as_mut().reset(reply.due());
            }
            tokio::select! {
                message = self.socket.next() => match message {
                    Some(Ok(Message::Text(text))) => self.handle(&text).await?,
                    Some(Ok(Message::Close(_))) | None => return Ok(()),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(error),
                },
                () = timer.as_mut(), if self.reply.is_some() => self.go_on().await?,
                () = end.as_mut(), if limit.is_some() => return self.expire().await,
            }
        }
    }

    /// The session's time is over, as announced, and somebody still uses it.
    async fn expire(&mut self) -> Result<(), Error> {
        self.shared.board.figures().sessions_expired += 1;
        let message = "Your session hit the maximum duration of 60 minutes.";
        let error = json!({"type": "invalid_request_error", "code": "session_expired", "message": message, "param": null});
        self.feed(json!({"type": "error", "error": error})).await?;
        self.socket.close(Some(CloseFrame { code: CloseCode::Away, reason: "".into() })).await
    }

    async fn handle(&mut self, text: &str) -> Result<(), Error> {
        let Ok(event) = serde_json::from_str::<ClientEvent<'_>>(text) else {
            self.note(Rule::ModelUnknownEvent, "not an event");
            return Ok(());
        };
        match (event.kind.as_ref(), event.audio) {
            ("input_audio_buffer.append", Some(audio)) => self.hear(&audio).await,
            _ => {
                let event: Value = serde_json::from_str(text).unwrap_or_default(); // it was one a moment ago
                self.handle_control(event).await
            }
        }
    }

    async fn handle_control(&mut self, event: Value) -> Result<(), Error> {
        match event["type"].as_str().unwrap_or_default() {
            "session.update" => {
                let input = &event["session"]["audio"]["input"];
                if input["format"]["type"] != "audio/pcmu" || event["session"]["type"] != "realtime" {
                    self.note(Rule::ModelSessionUpdate, "not a realtime session with audio/pcmu");
                }
                let is_on_request = input["turn_detection"]["create_response"] == false;
                self.replies = if is_on_request { Replies::OnRequest } else { Replies::OfItself };
                self.state = State::Configured;
                self.feed(json!({"type": "session.updated", "session": event["session"]})).await?;
            }
            "response.create" => match &self.reply {
                Some(active) => {
                    if active.is_requested {
                        self.note(Rule::ModelActiveResponse, "a second one was created");
                    }
                    let error = json!({
                        "type": "invalid_request_error", "code": "conversation_already_has_active_response",
                        "message": "Conversation already has an active response in progress.",
                        "event_id": event["event_id"],
                    });
                    self.feed(json!({"type": "error", "error": error})).await?;
                }
                None => self.begin(true, event["response"]["metadata"].clone()).await?,
            },
            "response.cancel" => self.cut("client_cancelled").await?,
            "conversation.item.truncate" => {
                let end = event["audio_end_ms"].as_u64().unwrap_or(u64::MAX);
                match event["item_id"].as_str().and_then(|item| self.sent_of(item)) {
                    Some(sent) if u128::from(end) <= sent.as_millis() => {}
                    Some(_) => self.note(Rule::ModelTruncate, "past the end of the item's audio"),
                    None => self.note(Rule::ModelTruncate, "of an item that was never said"),
                }
                self.feed(json!({
                    "type": "conversation.item.truncated", "item_id": event["item_id"], "content_index": 0,
                    "audio_end_ms": end,
                }))
                .await?;
            }
            "conversation.item.create" => {
                for kind in ["conversation.item.added", "conversation.item.done"] {
                    self.feed(json!({"type": kind, "item": event["item"], "previous_item_id": null})).await?;
                }
            }
            other => self.note(Rule::ModelUnknownEvent, other),
        }
        self.socket.flush().await
    }

    async fn hear(&mut self, audio: &str) -> Result<(), Error> {
        let now = self.shared.board.now();
        let tag = Tag::of_base64(audio);
        {
            let is_measuring = self.shared.board.is_measuring();
            let in_use_since = *self.in_use_since.get_or_insert(now);
            let mut figures = self.shared.board.figures();
            figures.frames_to_model += 1;
            match &tag {
                Some(tag)
                    if self.caller.is_none_or(|caller| caller == (tag.line, tag.call))
                        && tag.sequence >= self.expected
                        && self.shared.filler_of(tag.sound).ends_base64(audio) =>
                {
                    if is_measuring && tag.sent >= in_use_since {
                        figures.to_model.record(now.saturating_sub(tag.sent));
                    }
                    figures.note_arrival(tag);
                    self.expected = tag.sequence.saturating_add(1);
                    self.caller = Some((tag.line, tag.call));
                }
                Some(_) | None => figures.frames_altered += 1,
            }
        }
        if self.state == State::Fresh {
            self.note(Rule::ModelEarlyAudio, "audio was appended before session.updated");
        }
        match (tag.map(|tag| tag.sound), self.turn) {
            (Some(Sound::Speech), Turn::Quiet) => self.interrupt().await,
            (Some(Sound::Speech), Turn::Speaking { .. }) => {
                self.turn = Turn::Speaking { silence: 0 };
                Ok(())
            }
            (Some(Sound::Silence) | None, Turn::Speaking { silence }) if silence >= PAUSE_FRAMES => {
                self.turn = Turn::Quiet;
                self.answer().await
            }
            (Some(Sound::Silence) | None, Turn::Speaking { silence }) => {
                self.turn = Turn::Speaking { silence: silence + 1 };
                Ok(())
            }
            (Some(Sound::Silence) | None, Turn::Quiet) => Ok(()),
        }
    }

    async fn interrupt(&mut self) -> Result<(), Error> {
        self.turn = Turn::Speaking { silence: 0 };
        let item = self.id("item");
        if let Some((line, _)) = self.caller {
            self.shared.board.tell_speech(line);
        }
        self.feed(json!({"type": "input_audio_buffer.speech_started", "audio_start_ms": 0, "item_id": item}))
            .await?;
        self.socket.flush().await?;
        self.cut("turn_detected").await?;
        self.socket.flush().await
    }

    async fn answer(&mut self) -> Result<(), Error> {
        let item = self.id("item");
        self.feed(json!({"type": "input_audio_buffer.speech_stopped", "audio_end_ms": 0, "item_id": item}))
            .await?;
        self.feed(json!({"type": "input_audio_buffer.committed", "item_id": item, "previous_item_id": null}))
            .await?;
        if self.replies == Replies::OfItself && self.reply.is_none() {
            self.begin(false, Value::Null).await?;
        }
        self.socket.flush().await
    }

    async fn begin(&mut self, is_requested: bool, metadata: Value) -> Result<(), Error> {
        let (id, item) = (self.id("resp"), self.id("item"));
        let response = json!({
            "object": "realtime.response", "id": id, "status": "in_progress", "status_details": null, "output": [],
            "metadata": metadata,
        });
        let message = message(&item, "in_progress");
        self.feed(json!({"type": "response.created", "response": response})).await?;
        self.feed(json!({
            "type": "response.output_item.added", "response_id": id, "output_index": 0, "item": message,
        }))
        .await?;
        self.feed(json!({"type": "conversation.item.added", "item": message, "previous_item_id": null}))
            .await?;
        self.feed(json!({
            "type": "response.content_part.added", "response_id": id, "item_id": item, "output_index": 0,
            "content_index": 0, "part": {"type": "audio", "transcript": ""},
        }))
        .await?;
        self.reply =
            Some(Reply { id, item, began: Instant::now(), sent: Duration::ZERO, is_requested, metadata });
        Ok(())
    }

    /// The next delta, or the end.
    async fn go_on(&mut self) -> Result<(), Error> {
        let Some(reply) = &mut self.reply else { return Ok(()) };
        if reply.sent >= self.shared.reply {
            self.finish("completed", Value::Null).await?;
            return self.socket.flush().await;
        }
        reply.sent += DELTA;
        self.ids += 1;
        let (line, call) = self.caller.unwrap_or((UNKNOWN_LINE, 0));
        let (Reply { id, item, .. }, event) = (&*reply, self.ids);
        let text = format!(
            r#"{{"type":"response.output_audio_transcript.delta","event_id":"event_{event}","response_id":"{id}","item_id":"{item}","output_index":0,"content_index":0,"delta":" word"}}"#
        );
        let tag =
            Tag { sound: Sound::Speech, line, call, sequence: self.spoken, sent: self.shared.board.now() };
        let audio = format!(
            r#"{{"type":"response.output_audio.delta","event_id":"event_{event}a","response_id":"{id}","item_id":"{item}","output_index":0,"content_index":0,"delta":"{}"}}"#,
            tag.frame(&self.shared.filler)
        );
        self.spoken += 1;
        self.socket.feed(Message::text(text)).await?;
        self.socket.feed(Message::text(audio)).await?;
        self.socket.flush().await
    }

    async fn cut(&mut self, reason: &str) -> Result<(), Error> {
        self.finish("cancelled", json!({"type": "cancelled", "reason": reason})).await?;
        self.socket.flush().await
    }

    async fn finish(&mut self, status: &str, details: Value) -> Result<(), Error> {
        let Some(Reply { id, item, metadata, sent, .. }) = self.reply.take() else { return Ok(()) };
        self.said.insert(item.clone(), sent);
        let item_status = if status == "completed" { status } else { "incomplete" };
        let message = message(&item, item_status);
        for kind in ["response.output_audio.done", "response.output_audio_transcript.done"] {
            self.feed(json!({
                "type": kind, "response_id": id, "item_id": item, "output_index": 0, "content_index": 0,
                "transcript": "words",
            }))
            .await?;
        }
        self.feed(json!({
            "type": "response.output_item.done", "response_id": id, "output_index": 0, "item": message,
        }))
        .await?;
        let response = json!({
            "object": "realtime.response", "id": id, "status": status, "status_details": details,
            "output": [message], "metadata": metadata,
            "usage": {"total_tokens": 2, "input_tokens": 1, "output_tokens": 1},
        });
        self.feed(json!({"type": "response.done", "response": response})).await
    }

    async fn feed(&mut self, mut event: Value) -> Result<(), Error> {
        event["event_id"] = json!(self.id("event"));
        self.socket.feed(Message::text(event.to_string())).await
    }

    fn id(&mut self, prefix: &str) -> String {
        self.ids += 1;
        format!("{prefix}_load{}x{}", self.caller.unwrap_or_default().0, self.ids)
    }

    /// How much of an item was sent so far.
    fn sent_of(&self, item: &str) -> Option<Duration> {
        let active = self.reply.as_ref().filter(|reply| reply.item == item).map(|reply| reply.sent);
        active.or_else(|| self.said.get(item).copied())
    }

    fn note(&self, rule: Rule, detail: &str) {
        self.shared.violations.record(rule, detail);
    }
}

fn message(item: &str, status: &str) -> Value {
    json!({
        "id": item, "object": "realtime.item", "type": "message", "role": "assistant", "status": status,
        "content": [{"type": "output_audio", "transcript": "words"}],
    })
}

#[cfg(test)]
mod tests;
