//! A configured connection: turns, barge-in and the tool loop (protocol sheet 5.7 to 5.9).
//!
//! Everything is matched by id, nothing by the order of events. Commands that need no permission (audio, items, tool
//! outputs, truncations) go out at once; `response.create` goes out from [`Live::pump`] only.

use std::collections::VecDeque;

use bytes::Bytes;

use super::client::{self, ClientEvent, Item, ResponseParameters, TRUNCATE};
use super::items::Items;
use super::refusal::{Verdict, verdict};
use super::responses::{Active, Owner, Phase, Refused, Request, Responses, Wanted};
use super::tool_rounds::{CallRefused, ToolRounds};
use super::wire::{DoneItem, ErrorBody, ItemKind, Response, ServerEvent, Status};
use super::{RealtimeConfig, RealtimeError, RealtimeOutput};
use crate::io::{
    Heard, HistoryItem, ModelCommand, ModelEvent, ModelLoss, RefusalClass, ReplyOutcome, Speech,
};
use crate::{Ms, Redacted, ReplyId, ToolCallId};

/// A tool round waits for the caller to finish speaking at most this long: an end of speech that never comes (the
/// phone stopped sending) must not silence the agent.
const MAX_SPEECH: Ms = Ms(60_000);

/// After the caller's turn a reply of the server's own, or one asked for by the call, is expected within this time and
/// answers the tool round as well.
const REPLY_EXPECTED: Ms = Ms(2_000);

/// What goes out, in order.
#[derive(Debug, Default)]
pub(super) struct Outbox(VecDeque<RealtimeOutput>);

impl Outbox {
    pub(super) fn push(&mut self, output: RealtimeOutput) {
        self.0.push_back(output);
    }

    pub(super) fn pop(&mut self) -> Option<RealtimeOutput> {
        self.0.pop_front()
    }

    pub(super) fn event(&mut self, event: ModelEvent) {
        self.push(RealtimeOutput::Event(event));
    }

    pub(super) fn frame(&mut self, frame: Bytes) {
        self.push(RealtimeOutput::Frame(frame));
    }

    pub(super) fn send(&mut self, event: &ClientEvent<'_>) {
        self.frame(event.to_frame());
    }
}

/// Whether the connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Course {
    On,
    Lost(ModelLoss),
}

/// The caller's voice, as the server hears it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caller {
    Quiet,
    Speaking {
        since: Ms,
    },
    /// Their turn is over and nothing has answered it yet.
    Unanswered {
        since: Ms,
    },
}

#[derive(Debug)]
pub(super) struct Live {
    server_interrupts: bool,
    server_replies: bool,
    caller: Caller,
    responses: Responses,
    items: Items,
    rounds: ToolRounds,
    truncations: u64,
}

impl Live {
    pub(super) fn new(config: &RealtimeConfig) -> Self {
        Self {
            server_interrupts: config.server_interrupts,
            server_replies: config.server_replies,
            caller: Caller::Quiet,
            responses: Responses::default(),
            items: Items::default(),
            rounds: ToolRounds::default(),
            truncations: 0,
        }
    }

    // ---- from the call

    pub(super) fn handle_command(
        &mut self,
        now: Ms,
        command: ModelCommand,
        out: &mut Outbox,
    ) -> Result<(), RealtimeError> {
        match command {
            ModelCommand::Append(audio) if audio.mulaw_len() == 0 => {} // the server has no use for it
            ModelCommand::Append(audio) => out.frame(client::append(&audio)),
            ModelCommand::Replay(history) => history.iter().for_each(|item| create_item(item, out)),
            ModelCommand::Context(item) => create_item(&item, out),
            ModelCommand::Interrupt { heard } => self.interrupt(&heard, out),
            ModelCommand::ToolOutput { call, output } => self.send_output(&call, &output, out)?,
            ModelCommand::Speak(speech) => {
                if !self.responses.enqueue(speech) {
                    return Err(RealtimeError::QueueFull { what: "speak" });
                }
            }
        }
        self.pump(now, out);
        Ok(())
    }

    /// Order as the vendor's own client sends it: cancel, then one truncation for each item.
    fn interrupt(&mut self, heard: &[Heard], out: &mut Outbox) {
        if let Some(active) = &mut self.responses.active {
            if active.phase == Phase::Running {
                out.send(&ClientEvent::CancelResponse { response_id: &active.reply });
            }
            active.phase = Phase::Discarded;
        }
        self.responses.abandon_request();
        for Heard { item, played } in heard {
            let Some(item) = self.items.find(item.as_str()) else { continue };
            let Some(audio_end_ms) = item.cut(*played) else { continue };
            self.truncations += 1;
            out.send(&ClientEvent::Truncate {
                event_id: format!("{TRUNCATE}{}", self.truncations),
                item_id: &item.id,
                content_index: item.content_index,
                audio_end_ms,
            });
        }
    }

    fn send_output(
        &mut self,
        call: &ToolCallId,
        output: &Redacted<String>,
        out: &mut Outbox,
    ) -> Result<(), RealtimeError> {
        if !self.rounds.take_output(call) {
            return Err(RealtimeError::Stale { what: "tool output" });
        }
        out.send(&ClientEvent::CreateItem {
            item: Item::FunctionCallOutput { call_id: call, output: output.expose() },
        });
        Ok(())
    }

    // ---- from the server

    pub(super) fn handle_event(
        &mut self,
        now: Ms,
        event: ServerEvent<'_>,
        out: &mut Outbox,
    ) -> Result<Course, RealtimeError> {
        let mut course = Course::On;
        match event {
            ServerEvent::Audio { reply, item, content_index, audio } => {
                let active = self.responses.active(&reply).ok_or(STALE_AUDIO)?;
                active.hear(now);
                if active.phase == Phase::Discarded {
                    return Err(STALE_AUDIO);
                }
                // An item that was never announced is taken as announced: its reply is, and that is what counts.
                let item = self.items.announce(&item, &active.reply);
                if !item.take_audio(&reply, content_index, &audio) {
                    return Err(STALE_AUDIO);
                }
                out.event(ModelEvent::Audio { reply: item.reply.clone(), item: item.id.clone(), audio });
                return Ok(Course::On); // nothing to ask for has become possible
            }
            ServerEvent::AudioDone { item } => {
                let item = self.items.find(&item).and_then(super::items::Item::end_audio);
                let item = item.ok_or(RealtimeError::Stale { what: "end of audio" })?;
                out.event(ModelEvent::AudioDone { item });
            }
            ServerEvent::AgentTranscript { item, text } => {
                let item = self.items.find(&item);
                let item = item.ok_or(RealtimeError::Stale { what: "transcript" })?;
                if item.take_transcript(&text) {
                    let text = Redacted::new(text.into_owned());
                    out.event(ModelEvent::AgentTranscript { item: item.id.clone(), text });
                }
            }
            ServerEvent::CallerTranscript { item, text } => {
                if !text.trim().is_empty() {
                    let text = Redacted::new(text.into_owned());
                    out.event(ModelEvent::CallerTranscript { item: (&*item).into(), text });
                }
            }
            ServerEvent::SpeechStarted => self.begin_speech(now, out),
            ServerEvent::SpeechStopped => {
                self.caller = Caller::Unanswered { since: now };
                out.event(ModelEvent::SpeechStopped);
            }
            ServerEvent::OutputAdded { call } => {
                self.rounds.acknowledge(&call);
                self.responses.acknowledge(&call);
            }
            ServerEvent::ResponseCreated(response) => self.begin_response(now, &response, out)?,
            ServerEvent::ResponseDone(response) => course = self.end_response(now, &response, out)?,
            ServerEvent::ItemAdded { reply, item, kind } => {
                let active = self.responses.active(&reply).ok_or(RealtimeError::Stale { what: "item" })?;
                if active.hear_working(now) {
                    out.event(ModelEvent::Working { reply: active.reply.clone() });
                }
                if kind == ItemKind::Message {
                    self.items.announce(&item, &active.reply);
                }
            }
            ServerEvent::ItemDone { reply, item } => self.end_item(now, &reply, item, out)?,
            ServerEvent::Error(error) => course = self.handle_error(now, &error, out),
            ServerEvent::Quiet { reply } => {
                if let Some(active) = reply.and_then(|reply| self.responses.active(&reply))
                    && active.hear_working(now)
                {
                    out.event(ModelEvent::Working { reply: active.reply.clone() });
                }
            }
            ServerEvent::SessionCreated { .. } => {
                return Err(RealtimeError::Unexpected { input: "session.created", state: "live" });
            }
            ServerEvent::SessionUpdated { .. } => {}
        }
        self.pump(now, out);
        Ok(course)
    }

    fn begin_speech(&mut self, now: Ms, out: &mut Outbox) {
        self.caller = Caller::Speaking { since: now };
        if let Some(active) = self.responses.active.as_mut().filter(|active| active.phase == Phase::Running)
            && self.server_interrupts
        {
            active.phase = Phase::Cancelling;
        }
        out.event(ModelEvent::SpeechStarted);
    }

    fn begin_response(
        &mut self,
        now: Ms,
        response: &Response<'_>,
        out: &mut Outbox,
    ) -> Result<(), RealtimeError> {
        if self.responses.active(&response.id).is_some() {
            return Err(RealtimeError::Stale { what: "response.created" });
        }
        let reply = ReplyId::from(&*response.id);
        let (owner, replaced) = self.responses.begin_response(now, reply.clone(), response.tag.as_deref());
        if let Some(Active { reply, .. }) = replaced {
            // The server began another without ending this one. Nothing more can be expected of it.
            self.close_reply(&reply, ReplyOutcome::Failed, out);
        }
        if owner == Owner::Server {
            self.rounds.answered_by_server();
            self.responses.answered_by_server();
        }
        if matches!(self.caller, Caller::Unanswered { .. }) {
            self.caller = Caller::Quiet;
        }
        out.event(ModelEvent::ReplyStarted { reply: reply.clone() });
        if owner == Owner::OursUnwanted {
            out.send(&ClientEvent::CancelResponse { response_id: &reply });
        }
        Ok(())
    }

    fn end_response(
        &mut self,
        now: Ms,
        response: &Response<'_>,
        out: &mut Outbox,
    ) -> Result<Course, RealtimeError> {
        let ended = self.responses.end_response(now, &response.id);
        let Active { reply, .. } = ended.ok_or(RealtimeError::Stale { what: "response.done" })?;
        if let Some(usage) = response.usage {
            out.event(ModelEvent::Usage(usage));
        }
        let outcome = match (response.status, &response.failure) {
            (Status::Cancelled, _) => ReplyOutcome::Cancelled,
            (Status::Incomplete, _) => ReplyOutcome::Incomplete,
            (Status::Failed, _) | (Status::Unknown, Some(_)) => ReplyOutcome::Failed,
            (Status::Completed, _) | (Status::Unknown, None) => ReplyOutcome::Completed,
        };
        self.close_reply(&reply, outcome, out);
        let failure = response.failure.as_ref().filter(|_| outcome == ReplyOutcome::Failed);
        Ok(match failure.map(verdict) {
            Some(Verdict::Lost(reason)) => Course::Lost(reason),
            Some(Verdict::Refused(class)) => {
                out.event(ModelEvent::Refused { class });
                Course::On
            }
            Some(Verdict::Busy) | None => Course::On,
        })
    }

    fn close_reply(&mut self, reply: &ReplyId, outcome: ReplyOutcome, out: &mut Outbox) {
        for item in self.items.end_reply(reply) {
            out.event(ModelEvent::AudioDone { item });
        }
        self.rounds.end_reply(reply);
        out.event(ModelEvent::ReplyEnded { reply: reply.clone(), outcome });
    }

    fn end_item(
        &mut self,
        now: Ms,
        reply: &str,
        item: DoneItem<'_>,
        out: &mut Outbox,
    ) -> Result<(), RealtimeError> {
        let active = self.responses.active(reply).ok_or(RealtimeError::Stale { what: "item" })?;
        active.hear(now);
        match item {
            DoneItem::Message { id, transcript } => {
                let item = self.items.announce(&id, &active.reply);
                if let Some(text) = transcript.filter(|text| item.take_transcript(text)) {
                    let text = Redacted::new(text.into_owned());
                    out.event(ModelEvent::AgentTranscript { item: item.id.clone(), text });
                }
                if let Some(item) = item.end_audio() {
                    out.event(ModelEvent::AudioDone { item });
                }
            }
            DoneItem::Call { call, name, arguments } => {
                let call = ToolCallId::from(&*call);
                self.rounds.begin(&active.reply, &call).map_err(|refused| match refused {
                    CallRefused::Repeated => RealtimeError::Stale { what: "tool call" },
                    CallRefused::TooMany => RealtimeError::QueueFull { what: "tool call" },
                })?;
                out.event(ModelEvent::ToolCall {
                    call,
                    reply: active.reply.clone(),
                    name: name.into_owned(),
                    arguments: Redacted::new(arguments.into_owned()),
                });
            }
            DoneItem::IncompleteCall => return Err(RealtimeError::Stale { what: "incomplete tool call" }),
            DoneItem::Other => {}
        }
        Ok(())
    }

    fn handle_error(&mut self, now: Ms, error: &ErrorBody<'_>, out: &mut Outbox) -> Course {
        let about = error.event_id.as_str();
        let class = match verdict(error) {
            Verdict::Lost(reason) => return Course::Lost(reason),
            Verdict::Busy => {
                match self.responses.refuse_for_now(now, about) {
                    Some(Refused::Again(request)) => self.take_back(request),
                    Some(Refused::TooOften) => return Course::Lost(ModelLoss::Protocol),
                    None => self.note_refused_turn(),
                }
                RefusalClass::Benign
            }
            Verdict::Refused(class @ (RefusalClass::RateLimited | RefusalClass::Server)) => {
                match about.and_then(|about| self.responses.refuse_for_now(now, Some(about))) {
                    Some(Refused::Again(request)) => self.take_back(request),
                    Some(Refused::TooOften) => return Course::Lost(ModelLoss::Unreachable),
                    None => {}
                }
                class
            }
            Verdict::Refused(class @ (RefusalClass::InvalidRequest | RefusalClass::Benign)) => {
                if let Some(about) = about {
                    self.responses.refuse(about);
                }
                class
            }
        };
        out.event(ModelEvent::Refused { class });
        Course::On
    }

    fn take_back(&mut self, request: Request) {
        let rounds = self.responses.requeue(request);
        self.rounds.put_back(rounds);
    }

    /// The server wanted to answer the caller by itself while a reply still ran that may not be interrupted: the
    /// caller's turn is answered afterwards.
    fn note_refused_turn(&mut self) {
        if self.server_replies && !self.server_interrupts && self.responses.active.is_some() {
            self.responses.enqueue(Speech::Reply);
        }
    }

    // ---- time, and what it lets us ask for

    /// Whether the server has been silent for too long.
    pub(super) fn is_stalled(&self, now: Ms) -> bool {
        self.responses.timeout().is_some_and(|timeout| timeout <= now)
    }

    pub(super) fn deadline(&self, now: Ms) -> Option<Ms> {
        let hold = self.hold_end(now).filter(|_| self.rounds.has_ready() && !self.responses.is_busy(now));
        let waiting = !self.responses.queue.is_empty() || self.rounds.has_ready();
        let pause = self.responses.pause_end(now).filter(|_| waiting);
        [self.responses.timeout(), hold, pause].into_iter().flatten().min()
    }

    /// Asks for the next response if none is active or asked for.
    pub(super) fn pump(&mut self, now: Ms, out: &mut Outbox) {
        if self.responses.is_busy(now) {
            return;
        }
        let wanted = match self.responses.queue.pop_front() {
            Some(speech) => Wanted::Speech(speech),
            None if self.rounds.has_ready() && self.hold_end(now).is_none() => Wanted::Continuation,
            None => return,
        };
        let answers = match &wanted {
            Wanted::Speech(Speech::Verbatim(_)) => Vec::new(),
            Wanted::Speech(Speech::Reply) | Wanted::Continuation => self.rounds.take_ready(),
        };
        let request = self.responses.begin_request(now, wanted, answers);
        let response = match &request.wanted {
            Wanted::Speech(Speech::Verbatim(words)) => {
                ResponseParameters::verbatim(&request.tag, words.expose())
            }
            Wanted::Speech(Speech::Reply) | Wanted::Continuation => ResponseParameters::reply(&request.tag),
        };
        out.send(&ClientEvent::CreateResponse { event_id: &request.tag, response });
    }

    /// Until when a tool round waits for the caller and for the answer to the caller's turn.
    fn hold_end(&self, now: Ms) -> Option<Ms> {
        let end = match self.caller {
            Caller::Quiet => return None,
            Caller::Speaking { since } => since + MAX_SPEECH,
            Caller::Unanswered { since } => since + REPLY_EXPECTED,
        };
        (now < end).then_some(end)
    }
}

const STALE_AUDIO: RealtimeError = RealtimeError::Stale { what: "audio" };

/// One thing of the conversation as items, a call always before its output.
fn create_item(item: &HistoryItem, out: &mut Outbox) {
    let mut create = |item| out.send(&ClientEvent::CreateItem { item });
    match item {
        HistoryItem::Caller(text) => create(Item::caller(text.expose())),
        HistoryItem::Agent(text) => create(Item::agent(text.expose())),
        HistoryItem::System(text) => create(Item::system(text.expose())),
        HistoryItem::Tool { call, name, arguments, output } => {
            create(Item::FunctionCall { call_id: call, name, arguments: arguments.expose() });
            create(Item::FunctionCallOutput { call_id: call, output: output.expose() });
        }
    }
}
