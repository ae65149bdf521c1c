//! One session of the simulated model, without a socket and without a clock.
//!
//! The rule is the product's own: one input (`handle_*`), then [`Session::poll`] until [`Output::Wait`] or
//! [`Output::Close`]. Time is the time since the session began, an argument. What a client may send is read strictly
//! by the protocol sheet, section 5; what it sends against it is refused as the API refuses it and recorded as a
//! violation, unless a correct client can run into it by a race.

use std::collections::VecDeque;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::behaviour::Behaviour;
use super::conversation::{Body, Conversation, Item, Status};
use super::fields::Fields;
use super::format::AudioFormat;
use super::input_buffer::{Boundary, InputBuffer};
use super::log::{LoggedItem, LoggedTruncation, SessionLog, to_ms};
use super::refusal::Refusal;
use super::replies::{Reply, Requester};
use super::reply_request::ReplyRequest;
use super::script::{Brain, ModelScript};
use super::settings::Settings;
use crate::faults::{ModelFaults, Switchboard};
use crate::violations::{Rule, Violations};
use crate::voice::Registry;

/// What a session begins with.
#[derive(Clone, Debug)]
pub(super) struct Setup {
    /// Unique in the process; part of every id.
    pub(super) number: u64,
    /// From the query.
    pub(super) model: String,
    /// When the session begins, unix seconds.
    pub(super) opened_at: u64,
    pub(super) script: ModelScript,
    pub(super) behaviour: Behaviour,
    pub(super) registry: Registry,
    pub(super) violations: Violations,
    pub(super) switches: Switchboard,
}

/// What the session wants.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Output {
    /// Send this event.
    Send(Value),
    /// Send a ping with this payload: its pong proves that the client has read what was sent before.
    Ping(String),
    /// Drop the connection without a word; nothing follows.
    Cut,
    /// Close the connection; nothing follows.
    Close { code: u16, reason: &'static str },
    /// Nothing now; poll again at this time if nothing else happens.
    Wait(Duration),
}

/// A session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: String,
    pub(super) conversation_id: String,
    pub(super) settings: Settings,
    pub(super) behaviour: Behaviour,
    pub(super) conversation: Conversation,
    pub(super) brain: Brain,
    pub(super) reply: Option<Reply>,
    /// The caller's turn ended while another reply was active: the next one is due when that is over.
    pub(super) is_reply_due: bool,
    pub(super) has_spoken: bool,
    pub(super) log: SessionLog,
    model: String,
    number: u64,
    last_id: u64,
    expires_at: u64,
    input: InputBuffer,
    /// The id the caller's turn in progress will have.
    turn_item: Option<String>,
    is_configured: bool,
    is_early_audio_noted: bool,
    registry: Registry,
    violations: Violations,
    /// When the last reply has sounded to its end and nobody spoke since.
    resting_since: Option<Duration>,
    later: Vec<(Duration, Later)>,
    outputs: VecDeque<Output>,
    close: Option<(u16, &'static str)>,
    is_cut: bool,
    pub(super) switches: Switchboard,
    /// As they were when the session began.
    pub(super) faults: ModelFaults,
}

/// What comes when it comes.
#[derive(Debug)]
enum Later {
    Created,
    Updated,
    Transcript { item_id: String },
}

impl Session {
    /// A session whose connection was just accepted.
    pub(super) fn new(setup: Setup) -> Self {
        let number = setup.number;
        let faults = setup.switches.faults().model;
        let mut behaviour = setup.behaviour;
        behaviour.session_limit_seconds =
            faults.session_limit_seconds.unwrap_or(behaviour.session_limit_seconds);
        let mut session = Self {
            id: format!("sess_sim{number:04}"),
            conversation_id: format!("conv_sim{number:04}"),
            settings: Settings::default(),
            conversation: Conversation::default(),
            brain: Brain::new(setup.script),
            reply: None,
            is_reply_due: false,
            has_spoken: false,
            log: SessionLog { is_open: true, model: setup.model.clone(), ..SessionLog::default() },
            model: setup.model,
            number,
            last_id: 0,
            expires_at: setup.opened_at + behaviour.session_limit_seconds,
            behaviour,
            input: InputBuffer::default(),
            turn_item: None,
            is_configured: false,
            is_early_audio_noted: false,
            registry: setup.registry,
            violations: setup.violations,
            resting_since: None,
            later: Vec::new(),
            outputs: VecDeque::new(),
            close: None,
            is_cut: false,
            faults,
            switches: setup.switches,
        };
        session.log.id.clone_from(&session.id);
        session.open();
        session
    }

    fn open(&mut self) {
        if !self.model.starts_with("gpt-realtime") {
            let message = "The requested model does not exist.";
            self.send(Refusal::new("model_not_found", message, Some("model".to_owned())).to_event(None));
            self.close = Some((1008, "model_not_found"));
            return;
        }
        match self.faults.session_created_milliseconds {
            _ if self.faults.omit_session_created => {}
            0 => self.announce(),
            delay => self.later.push((Duration::from_millis(delay), Later::Created)),
        }
    }

    fn announce(&mut self) {
        let session = self.effective_session();
        self.send(json!({"type": "session.created", "session": session}));
        if self.behaviour.announces_conversation {
            let conversation = json!({"id": self.conversation_id, "object": "realtime.conversation"});
            self.send(json!({"type": "conversation.created", "conversation": conversation}));
        }
    }

    /// A text frame.
    pub(super) fn handle_text(&mut self, now: Duration, text: &str) {
        let Ok(event) = serde_json::from_str::<Value>(text) else {
            let message = "The event is not valid JSON.";
            return self.refuse(
                None,
                &Refusal::new("invalid_event", message, None).breaking(Rule::ModelUnknownEvent),
            );
        };
        let event_id = event.get("event_id").and_then(Value::as_str).map(str::to_owned);
        if let Err(refusal) = self.handle_event(now, &event) {
            self.refuse(event_id.as_deref(), &refusal);
        }
    }

    /// A binary frame, which the API does not have.
    pub(super) fn handle_binary(&mut self) {
        let refusal = Refusal::new("invalid_event", "Events are JSON in text frames.", None);
        self.refuse(None, &refusal.breaking(Rule::ModelUnknownEvent));
    }

    /// A pong: the client has read `response.created` of the response it names.
    pub(super) fn handle_pong(&mut self, now: Duration, payload: &[u8]) {
        if let Some(reply) = self.reply.as_mut().filter(|reply| reply.id.as_bytes() == payload) {
            reply.read_at.get_or_insert(now);
        }
    }

    /// The connection is gone.
    pub(super) fn handle_closed(&mut self) {
        self.log.is_open = false;
        self.reply = None;
        self.input = InputBuffer::default();
    }

    /// The next thing to do at this time.
    pub(super) fn poll(&mut self, now: Duration) -> Output {
        loop {
            if let Some(output) = self.outputs.pop_front() {
                return output;
            }
            if self.is_cut {
                return Output::Cut;
            }
            if let Some((code, reason)) = self.close {
                return Output::Close { code, reason };
            }
            if !self.do_due(now) {
                return Output::Wait(self.next_due());
            }
        }
    }

    /// What happened so far.
    pub(super) fn log(&self) -> SessionLog {
        SessionLog {
            instructions: self.settings.instructions.clone(),
            appended_milliseconds: self.input.total_ms().max(self.log.appended_milliseconds),
            items: self.conversation.items().iter().map(LoggedItem::from).collect(),
            ..self.log.clone()
        }
    }

    fn do_due(&mut self, now: Duration) -> bool {
        if now >= self.limit() {
            let message = "Your session hit the maximum duration of 60 minutes.";
            self.send(Refusal::new("session_expired", message, None).to_event(None));
            self.close = Some((1001, "session_expired"));
            return true;
        }
        if self.closing_due().is_some_and(|due| due <= now) {
            match self.faults.close_code {
                Some(code) => self.close = Some((code, "simulated fault")),
                None => self.is_cut = true,
            }
            return true;
        }
        if let Some(index) = self.later.iter().position(|(due, _)| *due <= now) {
            let (_, later) = self.later.remove(index);
            match later {
                Later::Created => self.announce(),
                Later::Updated => self.announce_settings(),
                Later::Transcript { item_id } => self.deliver_transcript(&item_id),
            }
            return true;
        }
        if self.idle_due().is_some_and(|due| due <= now) {
            self.end_idleness(now);
            return true;
        }
        self.advance_reply(now)
    }

    /// From now on nobody has anything to say.
    pub(super) const fn rest(&mut self, since: Duration) {
        self.resting_since = Some(since);
    }

    fn idle_due(&self) -> Option<Duration> {
        let timeout = self.settings.turn_detection.as_ref()?.idle_timeout()?;
        let is_quiet = self.reply.is_none() && self.turn_item.is_none();
        self.resting_since.filter(|_| is_quiet).map(|since| since + timeout)
    }

    /// The caller was silent for too long: the silence is a turn, and the model goes on.
    fn end_idleness(&mut self, now: Duration) {
        self.resting_since = None;
        let silence = self.input.take();
        let (item_id, end) = (self.new_id("item"), self.input.total_ms());
        let start = end - (silence.len() / crate::voice::mulaw::BYTES_PER_MS) as u64;
        self.send(json!({
            "type": "input_audio_buffer.timeout_triggered", "audio_start_ms": start, "audio_end_ms": end,
            "item_id": item_id,
        }));
        self.add_turn(now, item_id, &[]);
        self.is_reply_due = true;
        self.begin_due_reply(now);
    }

    fn next_due(&self) -> Duration {
        let later = self.later.iter().map(|(due, _)| *due);
        let reply = self.reply.as_ref().and_then(Reply::next_due);
        later
            .chain(reply)
            .chain(self.idle_due())
            .chain(self.closing_due())
            .min()
            .unwrap_or(Duration::MAX)
            .min(self.limit())
    }

    fn limit(&self) -> Duration {
        let expiry = self.faults.expire_after_milliseconds.map_or(Duration::MAX, Duration::from_millis);
        Duration::from_secs(self.behaviour.session_limit_seconds).min(expiry)
    }

    fn closing_due(&self) -> Option<Duration> {
        self.faults.close_after_milliseconds.map(Duration::from_millis)
    }

    fn handle_event(&mut self, now: Duration, event: &Value) -> Result<(), Refusal> {
        let is_object = event.is_object();
        let kind = event.get("type").and_then(Value::as_str).filter(|_| is_object).ok_or_else(|| {
            let refusal = Refusal::new("invalid_event", "The 'type' field is missing.", None);
            refusal.breaking(Rule::ModelUnknownEvent)
        })?;
        if kind == "input_audio_buffer.append" {
            self.log.appends += 1;
        } else {
            self.log.note_event(now, kind);
        }
        let fields = |known: &[&str]| {
            let all: Vec<&str> = ["type", "event_id"].iter().chain(known).copied().collect();
            let fields = Fields::of(event, "", &all)?;
            fields.text("event_id")?;
            Ok(fields)
        };
        match kind {
            "session.update" => self.update_session(now, fields(&["session"])?),
            "input_audio_buffer.append" => self.append_audio(now, fields(&["audio"])?),
            "input_audio_buffer.commit" => fields(&[]).and_then(|_| self.commit_audio(now)),
            "input_audio_buffer.clear" => {
                fields(&[])?;
                self.input.take();
                self.turn_item = None;
                self.send(json!({"type": "input_audio_buffer.cleared"}));
                Ok(())
            }
            "conversation.item.create" => self.create_item(fields(&["item", "previous_item_id"])?),
            "conversation.item.retrieve" => self.retrieve_item(fields(&["item_id"])?),
            "conversation.item.delete" => self.delete_item(fields(&["item_id"])?),
            "conversation.item.truncate" => {
                self.truncate_item(now, fields(&["item_id", "content_index", "audio_end_ms"])?)
            }
            "response.create" => {
                let request = ReplyRequest::parse(fields(&["response"])?.value("response"))?;
                self.create_response(now, request)
            }
            "response.cancel" => self.cancel_response(fields(&["response_id"])?),
            "output_audio_buffer.clear" => {
                let message = "output_audio_buffer.clear is only supported over WebRTC and SIP.";
                Err(Refusal::new("invalid_value", message, Some("type".to_owned())))
            }
            _ => Err(Refusal::invalid("type", "a client event").breaking(Rule::ModelUnknownEvent)),
        }
    }

    fn update_session(&mut self, now: Duration, fields: Fields<'_>) -> Result<(), Refusal> {
        let update =
            fields.required("session").map_err(|refusal| refusal.breaking(Rule::ModelSessionUpdate))?;
        let next = self.settings.updated(update, &self.model, self.has_spoken)?;
        if self.reply.is_some() {
            next.check_in_response(&self.settings)?;
        }
        self.settings = next;
        let delay = self.behaviour.session_updated_milliseconds + self.faults.session_updated_milliseconds;
        if !self.faults.omit_session_updated {
            self.later.push((now + Duration::from_millis(delay), Later::Updated));
        }
        Ok(())
    }

    fn announce_settings(&mut self) {
        self.is_configured = true;
        let session = self.effective_session();
        self.send(json!({"type": "session.updated", "session": session}));
        if let Some(code) = self.faults.error_code.clone() {
            self.send(json!({"type": "error", "error": {
                "type": "server_error", "code": code, "message": "A simulated error.", "param": null, "event_id": null,
            }}));
        }
    }

    fn append_audio(&mut self, now: Duration, fields: Fields<'_>) -> Result<(), Refusal> {
        let broken = |refusal: Refusal| refusal.breaking(Rule::ModelAppend);
        let text = fields.required_text("audio").map_err(broken)?;
        let bytes =
            STANDARD.decode(text).map_err(|_| broken(Refusal::invalid("audio", "padded standard base64")))?;
        if bytes.len() > MAX_APPEND {
            return Err(broken(Refusal::invalid("audio", "at most 15 MiB")));
        }
        let is_telephony = self.settings.input_format == AudioFormat::Pcmu;
        if !(self.is_configured && is_telephony || self.is_early_audio_noted) {
            self.is_early_audio_noted = true; // once: every further frame is the same mistake
            let detail =
                if is_telephony { "before session.updated" } else { "before audio/pcmu was configured" };
            self.note_violation(Rule::ModelEarlyAudio, &format!("audio was appended {detail}"));
        }
        let audio = self.settings.input_format.decode(bytes);
        self.input.append(&audio);
        self.log.appended_milliseconds = self.input.total_ms();
        let Some(detection) = self.settings.turn_detection.clone() else { return Ok(()) };
        while let Some(boundary) = self.input.next_boundary(detection.activity()) {
            match boundary {
                Boundary::Started { at_ms } => {
                    let item_id = self.new_id("item");
                    let event = json!({"type": "input_audio_buffer.speech_started", "audio_start_ms": at_ms, "item_id": item_id});
                    self.turn_item = Some(item_id);
                    self.resting_since = None;
                    self.send(event);
                    if detection.interrupt_response {
                        self.cut_reply("turn_detected");
                    }
                }
                Boundary::Stopped { at_ms, audio } => {
                    let item_id = self.turn_item.take().unwrap_or_else(|| self.new_id("item"));
                    self.send(json!({"type": "input_audio_buffer.speech_stopped", "audio_end_ms": at_ms, "item_id": item_id}));
                    self.add_turn(now, item_id, &audio);
                    if detection.create_response {
                        self.is_reply_due = true;
                        self.begin_due_reply(now);
                    }
                }
            }
        }
        Ok(())
    }

    fn commit_audio(&mut self, now: Duration) -> Result<(), Refusal> {
        if self.input.uncommitted_ms() < 100 {
            let held = self.input.uncommitted_ms();
            let message = format!(
                "Error committing input audio buffer: buffer too small. Expected at least 100ms of audio, but buffer only has {held}ms of audio."
            );
            return Err(
                Refusal::new("input_audio_buffer_commit_empty", message, None).breaking(Rule::ModelCommit)
            );
        }
        if self.settings.turn_detection.is_some() {
            self.note_violation(Rule::ModelCommit, "the buffer was committed while turn detection is on");
        }
        let audio = self.input.take();
        let item_id = self.turn_item.take().unwrap_or_else(|| self.new_id("item"));
        self.add_turn(now, item_id, &audio);
        Ok(())
    }

    /// The caller's turn becomes an item; its transcript comes later.
    fn add_turn(&mut self, now: Duration, item_id: String, audio: &[u8]) {
        let body = Body::CallerAudio {
            transcript: self.registry.transcribe(audio),
            is_transcribed: false,
            length_ms: (audio.len() / crate::voice::mulaw::BYTES_PER_MS) as u64,
        };
        let item = Item { id: item_id.clone(), body, status: Status::Completed };
        let shown = item.to_json();
        let previous = self.conversation.push(item);
        self.send(
            json!({"type": "input_audio_buffer.committed", "item_id": item_id, "previous_item_id": previous}),
        );
        for kind in ["conversation.item.added", "conversation.item.done"] {
            self.send(json!({"type": kind, "item": shown, "previous_item_id": previous}));
        }
        if !self.settings.transcription.is_null() {
            let delay = Duration::from_millis(self.behaviour.transcription_milliseconds);
            self.later.push((now + delay, Later::Transcript { item_id }));
        }
    }

    fn deliver_transcript(&mut self, item_id: &str) {
        let Some(item) = self.conversation.item_mut(item_id) else { return }; // deleted meanwhile
        let Body::CallerAudio { transcript, is_transcribed, length_ms } = &mut item.body else { return };
        *is_transcribed = true;
        let (transcript, seconds) = (transcript.clone(), *length_ms as f64 / 1000.0);
        let prefix = "conversation.item.input_audio_transcription";
        self.send(json!({"type": format!("{prefix}.delta"), "item_id": item_id, "content_index": 0, "delta": transcript}));
        self.send(json!({
            "type": format!("{prefix}.completed"), "item_id": item_id, "content_index": 0, "transcript": transcript,
            "usage": {"type": "duration", "seconds": seconds},
        }));
    }

    fn create_item(&mut self, fields: Fields<'_>) -> Result<(), Refusal> {
        let broken = |refusal: Refusal| refusal.breaking(Rule::ModelItem);
        let spare = self.new_id("item");
        let item = Item::parse(fields.required("item").map_err(broken)?, spare).map_err(broken)?;
        let shown = item.to_json();
        let previous = self.conversation.insert(item, fields.text("previous_item_id")?)?;
        for kind in ["conversation.item.added", "conversation.item.done"] {
            self.send(json!({"type": kind, "item": shown, "previous_item_id": previous}));
        }
        Ok(())
    }

    fn retrieve_item(&mut self, fields: Fields<'_>) -> Result<(), Refusal> {
        let item = self.conversation.item(fields.required_text("item_id")?).map(Item::to_json);
        let item =
            item.ok_or_else(|| Refusal::invalid("item_id", "the id of an item").breaking(Rule::ModelItem))?;
        self.send(json!({"type": "conversation.item.retrieved", "item": item}));
        Ok(())
    }

    fn delete_item(&mut self, fields: Fields<'_>) -> Result<(), Refusal> {
        let item_id = fields.required_text("item_id")?;
        self.conversation.remove(item_id)?;
        self.send(json!({"type": "conversation.item.deleted", "item_id": item_id}));
        Ok(())
    }

    fn truncate_item(&mut self, now: Duration, fields: Fields<'_>) -> Result<(), Refusal> {
        let broken = |refusal: Refusal| refusal.breaking(Rule::ModelTruncate);
        let item_id = fields.required_text("item_id").map_err(broken)?;
        for name in ["content_index", "audio_end_ms"] {
            fields.required(name).map_err(broken)?;
        }
        let index = fields.whole("content_index", 0, u64::MAX).map_err(broken)?.unwrap_or_default();
        let end = fields.whole("audio_end_ms", 0, u64::MAX).map_err(broken)?;
        let end = end.ok_or_else(|| broken(Refusal::missing("audio_end_ms")))?;
        self.conversation.truncate(item_id, index, end)?;
        self.log.truncations.push(LoggedTruncation {
            item_id: item_id.to_owned(),
            audio_end_milliseconds: end,
            at_milliseconds: to_ms(now),
        });
        self.send(json!({
            "type": "conversation.item.truncated", "item_id": item_id, "content_index": index, "audio_end_ms": end,
        }));
        Ok(())
    }

    fn create_response(&mut self, now: Duration, request: ReplyRequest) -> Result<(), Refusal> {
        request.check_voice(&self.settings, self.has_spoken)?;
        if let Some(active) = &self.reply {
            let message = "Conversation already has an active response in progress. Wait until the response is finished before creating a new one.";
            let refusal = Refusal::new("conversation_already_has_active_response", message, None);
            let is_known = match active.requester {
                Requester::Client => true,
                Requester::TurnDetection => active.read_at.is_some_and(|read| read + CROSSING <= now),
            };
            return Err(if is_known {
                refusal.breaking(Rule::ModelActiveResponse)
            } else {
                refusal.excused()
            });
        }
        self.begin_reply(now, request, Requester::Client);
        Ok(())
    }

    fn cancel_response(&mut self, fields: Fields<'_>) -> Result<(), Refusal> {
        let wanted = fields.text("response_id")?;
        let is_active = self.reply.as_ref().is_some_and(|reply| wanted.is_none_or(|id| reply.id == id));
        if !is_active {
            // Benign: the response may have ended while the cancellation was on its way.
            let message = "Cancellation failed: no active response found";
            return Err(Refusal::new("response_cancel_not_active", message, None).excused());
        }
        self.cut_reply("client_cancelled");
        Ok(())
    }

    fn effective_session(&self) -> Value {
        self.settings.to_json(&self.id, &self.model, self.expires_at)
    }

    fn refuse(&mut self, client_event: Option<&str>, refusal: &Refusal) {
        if let Some(rule) = refusal.rule {
            self.note_violation(rule, &refusal.message);
        }
        self.send(refusal.to_event(client_event));
    }

    fn note_violation(&mut self, rule: Rule, detail: &str) {
        self.log.violations.push(rule.id().to_owned());
        self.violations.record(rule, format!("{} ({})", detail, self.id));
    }

    /// Queues a server event under an id of its own.
    pub(super) fn send(&mut self, mut event: Value) {
        event["event_id"] = json!(self.new_id("event"));
        if self.faults.omit_metadata && event["response"].is_object() {
            event["response"]["metadata"] = Value::Null;
        }
        if self.faults.beta_names
            && let Some(name) = event["type"].as_str().and_then(beta_name)
        {
            event["type"] = json!(name);
        }
        let kind = event["type"].as_str().unwrap_or_default();
        match self.log.sent.get_mut(kind) {
            Some(count) => *count += 1,
            None => {
                self.log.sent.insert(kind.to_owned(), 1);
            }
        }
        self.outputs.push_back(Output::Send(event));
    }

    /// Asks for proof that the client has read everything up to here.
    pub(super) fn ask_whether_read(&mut self, payload: String) {
        self.outputs.push_back(Output::Ping(payload));
    }

    /// An id no other session gives.
    pub(super) fn new_id(&mut self, prefix: &str) -> String {
        self.last_id += 1;
        format!("{prefix}_sim{:04}x{:04}", self.number, self.last_id)
    }
}

/// What an event was called in the beta API, where that was something else.
fn beta_name(name: &str) -> Option<String> {
    if name == "conversation.item.added" {
        return Some("conversation.item.created".to_owned());
    }
    let rest = name.strip_prefix("response.output_")?;
    ["audio.", "audio_transcript.", "text."]
        .iter()
        .any(|part| rest.starts_with(part))
        .then(|| format!("response.{rest}"))
}

/// The published limit of one append.
const MAX_APPEND: usize = 15 * 1024 * 1024;

/// A `response.create` may cross the server's own `response.created` on the way: no client can avoid that. It knows better
/// once it has read it (its pong says when) and had this long to act on it.
const CROSSING: Duration = Duration::from_millis(100);
