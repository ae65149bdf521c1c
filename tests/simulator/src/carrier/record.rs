//! What is known of one call: its state, what happened when, and what each side sounded like.
//!
//! The call's task writes, the REST and control APIs read. Times are milliseconds since the call was placed, on the wall
//! clock; audio is kept from the answer on, silence included, so that both sides line up in the recording.

use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::caller::StepFailure;
use crate::voice::mulaw::decode;

/// Audio kept per side: an hour; what comes later is only counted.
const KEPT_BYTES: usize = 3600 * 8000;

/// Who began a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Direction {
    /// A simulated caller dialled one of the account's numbers.
    #[serde(rename = "inbound")]
    Inbound,
    /// The product asked for it.
    #[serde(rename = "outbound-api")]
    OutboundApi,
}

impl Direction {
    /// As the carrier writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::OutboundApi => "outbound-api",
        }
    }
}

/// State of a call, in the carrier's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Not begun.
    Queued,
    /// Not answered yet.
    Ringing,
    /// Answered.
    InProgress,
    /// Over, after an answer.
    Completed,
    /// Refused as busy.
    Busy,
    /// Could not be connected.
    Failed,
    /// Refused or not answered.
    NoAnswer,
    /// Ended by request before the answer.
    Canceled,
}

impl Status {
    /// As the carrier writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Ringing => "ringing",
            Self::InProgress => "in-progress",
            Self::Completed => "completed",
            Self::Busy => "busy",
            Self::Failed => "failed",
            Self::NoAnswer => "no-answer",
            Self::Canceled => "canceled",
        }
    }

    /// Whether the call is over.
    pub const fn is_final(self) -> bool {
        match self {
            Self::Queued | Self::Ringing | Self::InProgress => false,
            Self::Completed | Self::Busy | Self::Failed | Self::NoAnswer | Self::Canceled => true,
        }
    }
}

/// Why a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum EndReason {
    /// The simulated caller hung up, as its steps say.
    CallerHungUp,
    /// A step of the simulated caller could not be done.
    CallerGaveUp,
    /// `<Hangup>`.
    HangupVerb,
    /// `<Reject>`.
    RejectVerb,
    /// The TwiML had no further verb.
    TwimlEnded,
    /// A webhook failed, and its fallback too.
    WebhookFailed,
    /// The media stream broke, and the carrier gave the call up.
    StreamLost,
    /// By REST.
    RestCompleted,
    /// The called person did not answer.
    NotAnswered,
}

/// What happened in a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "event")]
pub enum Event {
    /// A URL was requested and answered.
    WebhookAnswered { path: String, status: u16, milliseconds: u64 },
    /// A URL was requested in vain.
    WebhookFailed { path: String, reason: String },
    /// The call was answered; the media clock begins.
    Answered,
    /// A verb began.
    VerbStarted { verb: &'static str },
    /// A number is dialled by a verb.
    Dialled { number: String },
    /// The media stream is open and `start` was sent.
    StreamStarted { stream_sid: String },
    /// The media stream is over.
    StreamEnded { by: &'static str, close_code: Option<u16> },
    /// The caller hears the other side begin to speak.
    AgentStartedSpeaking,
    /// The caller heard the last of an utterance.
    AgentStoppedSpeaking,
    /// The caller begins to speak.
    CallerStartedSpeaking,
    /// The caller's last sound of an utterance.
    CallerStoppedSpeaking,
    /// The caller pressed a key.
    KeyPressed { key: char },
    /// The product threw waiting audio away.
    Cleared { discarded_milliseconds: u64 },
    /// The caller spoke over the agent and the agent fell silent.
    BargeIn { caller_spoke_at: u64, cleared_at: u64, agent_silent_at: u64 },
    /// A pure callback was sent.
    CallbackSent { path: String, status: Option<u16> },
    /// The call is over.
    Ended { reason: EndReason },
}

/// An event and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TimedEvent {
    /// Milliseconds since the call was placed.
    pub at_milliseconds: u64,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}

/// What a request changes in a running call.
#[derive(Clone, Debug)]
pub(super) enum Command {
    /// Run this instead.
    Twiml(String),
    /// Fetch and run this instead.
    Url(super::twiml::Callback),
    /// End it.
    Complete,
}

/// One call.
#[derive(Debug)]
pub struct Record {
    /// CallSid.
    pub sid: String,
    /// Calling number.
    pub from: String,
    /// Called number.
    pub to: String,
    /// Who began.
    pub direction: Direction,
    /// The account's number in it.
    pub phone_number_sid: Option<String>,
    pub(super) commands: mpsc::Sender<Command>,
    placed: Instant,
    placed_at: Timestamp,
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    status: Status,
    timeline: Vec<TimedEvent>,
    end_reason: Option<EndReason>,
    failure: Option<StepFailure>,
    violations: u64,
    answered_at: Option<Timestamp>,
    ended_at: Option<Timestamp>,
    is_finished: bool,
    heard: Vec<u8>,
    spoken: Vec<u8>,
    heard_milliseconds: u64,
    heard_voiced: u64,
}

/// A call as the control API shows it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct View {
    /// CallSid.
    pub sid: String,
    /// Calling number.
    pub from: String,
    /// Called number.
    pub to: String,
    /// Who began.
    pub direction: Direction,
    /// State, in the carrier's words.
    pub status: Status,
    /// Everything is over, the last callback too.
    pub finished: bool,
    /// Why it ended.
    pub end_reason: Option<EndReason>,
    /// The caller's step that could not be done.
    pub failed_step: Option<StepFailure>,
    /// Milliseconds since it was placed.
    pub age_milliseconds: u64,
    /// What happened, in the order it became known: the end of an utterance is known when silence has lasted.
    pub timeline: Vec<TimedEvent>,
    /// What the caller heard.
    pub heard: Heard,
    /// Rules the product broke in this call.
    pub violations: u64,
}

/// Figures about what the caller heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Heard {
    /// All of it, silence included.
    pub milliseconds: u64,
    /// The voiced part.
    pub voiced_milliseconds: u64,
}

/// Times of a call for the REST API.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) placed: Timestamp,
    pub(super) answered: Option<Timestamp>,
    pub(super) ended: Option<Timestamp>,
}

impl Times {
    /// Whole seconds from the answer to the end.
    pub(super) fn seconds(&self) -> Option<i64> {
        let ended = self.ended?;
        Some(self.answered.map_or(0, |answered| ended.as_second() - answered.as_second()))
    }
}

/// The fixed facts of a call.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) sid: String,
    pub(super) from: String,
    pub(super) to: String,
    pub(super) direction: Direction,
    pub(super) phone_number_sid: Option<String>,
}

impl Record {
    pub(super) fn new(facts: Facts, commands: mpsc::Sender<Command>) -> Self {
        let Facts { sid, from, to, direction, phone_number_sid } = facts;
        let status = match direction {
            Direction::Inbound => Status::Ringing,
            Direction::OutboundApi => Status::Queued,
        };
        let state = State {
            status,
            timeline: Vec::new(),
            end_reason: None,
            failure: None,
            violations: 0,
            answered_at: None,
            ended_at: None,
            is_finished: false,
            heard: Vec::new(),
            spoken: Vec::new(),
            heard_milliseconds: 0,
            heard_voiced: 0,
        };
        Self {
            sid,
            from,
            to,
            direction,
            phone_number_sid,
            commands,
            placed: Instant::now(),
            placed_at: Timestamp::now(),
            state: Mutex::new(state),
            changed: watch::Sender::new(0),
        }
    }

    /// Milliseconds since the call was placed.
    pub fn now(&self) -> u64 {
        self.placed.elapsed().as_millis().try_into().unwrap_or(u64::MAX)
    }

    pub(super) fn note(&self, event: Event) {
        self.note_at(self.now(), event);
    }

    pub(super) fn note_at(&self, at_milliseconds: u64, event: Event) {
        tracing::debug!(call_sid = %self.sid, at_milliseconds, ?event, "call event");
        self.lock().timeline.push(TimedEvent { at_milliseconds, event });
        self.changed.send_modify(|version| *version += 1);
    }

    pub(super) fn set_status(&self, status: Status) {
        let mut state = self.lock();
        state.status = status;
        if status == Status::InProgress && state.answered_at.is_none() {
            state.answered_at = Some(Timestamp::now());
        }
        drop(state);
        self.changed.send_modify(|version| *version += 1);
    }

    pub(super) fn end(&self, status: Status, reason: EndReason, failure: Option<StepFailure>) {
        let mut state = self.lock();
        state.status = status;
        state.end_reason = Some(reason);
        state.failure = failure;
        state.ended_at = Some(Timestamp::now());
        drop(state);
        self.note(Event::Ended { reason });
    }

    pub(super) fn finish(&self) {
        self.lock().is_finished = true;
        self.changed.send_modify(|version| *version += 1);
    }

    pub(super) fn count_violation(&self) {
        self.lock().violations += 1;
    }

    /// One frame of both sides.
    pub(super) fn record_frame(&self, heard: &[u8], spoken: &[u8], heard_voiced: u64) {
        let mut state = self.lock();
        if state.heard.len() < KEPT_BYTES {
            state.heard.extend_from_slice(heard);
            state.spoken.extend_from_slice(spoken);
        }
        state.heard_milliseconds += (heard.len() / 8) as u64;
        state.heard_voiced = heard_voiced;
    }

    /// Gives the memory of the recording back; the figures stay.
    pub(super) fn forget_audio(&self) {
        let mut state = self.lock();
        (state.heard, state.spoken) = (Vec::new(), Vec::new());
    }

    /// The state, in the carrier's words.
    pub fn status(&self) -> Status {
        self.lock().status
    }

    pub(super) fn times(&self) -> Times {
        let state = self.lock();
        Times { placed: self.placed_at, answered: state.answered_at, ended: state.ended_at }
    }

    /// Everything at this moment.
    pub fn view(&self) -> View {
        let state = self.lock();
        View {
            sid: self.sid.clone(),
            from: self.from.clone(),
            to: self.to.clone(),
            direction: self.direction,
            status: state.status,
            finished: state.is_finished,
            end_reason: state.end_reason,
            failed_step: state.failure.clone(),
            age_milliseconds: self.now(),
            timeline: state.timeline.clone(),
            heard: Heard { milliseconds: state.heard_milliseconds, voiced_milliseconds: state.heard_voiced },
            violations: state.violations,
        }
    }

    /// Returns when everything is over, the last callback too.
    pub async fn finished(&self) -> View {
        let mut changes = self.changed.subscribe();
        // The sender lives as long as this record, so waiting cannot fail.
        while !self.lock().is_finished && changes.changed().await.is_ok() {}
        self.view()
    }

    /// The call as a stereo WAV (16-bit PCM, 8 kHz): caller left, what the caller heard right.
    pub fn recording(&self) -> Vec<u8> {
        let state = self.lock();
        let data = (state.heard.len() * 4) as u32;
        let mut wav = Vec::with_capacity(44 + state.heard.len() * 4);
        wav.extend_from_slice(b"RIFF");
        wav.extend_from_slice(&(36 + data).to_le_bytes());
        wav.extend_from_slice(b"WAVEfmt ");
        wav.extend_from_slice(&16_u32.to_le_bytes());
        for field in [1_u16, 2] {
            wav.extend_from_slice(&field.to_le_bytes()); // PCM, two channels
        }
        for field in [8000_u32, 8000 * 4] {
            wav.extend_from_slice(&field.to_le_bytes()); // samples and bytes a second
        }
        for field in [4_u16, 16] {
            wav.extend_from_slice(&field.to_le_bytes()); // bytes a frame, bits a sample
        }
        wav.extend_from_slice(b"data");
        wav.extend_from_slice(&data.to_le_bytes());
        for (spoken, heard) in state.spoken.iter().zip(&state.heard) {
            wav.extend_from_slice(&decode(*spoken).to_le_bytes());
            wav.extend_from_slice(&decode(*heard).to_le_bytes());
        }
        wav
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner) // plain data stays usable
    }
}
