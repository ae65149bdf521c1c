//! The way to the model: connect, retry, fall back, replay; and the caller's audio while there is none.

use std::collections::VecDeque;

use super::{Call, Debt};
use crate::audio::{BYTES_PER_MS, Payload};
use crate::io::{
    EndReason, Ending, Event, HistoryItem, Ignored, ModelCommand, ModelEvent, ModelLoss, Next, Output,
};
use crate::state::{Link, Parting};
use crate::timer::Timer;
use crate::{Ms, Redacted};

/// An engine that neither answers nor fails is given up after this; a cold session takes one to two seconds.
const CONNECT_TIMEOUT: Ms = Ms::from_secs(5);

/// What such a silence counts as: two of them are as long as a caller can be asked to wait for one engine.
pub(super) const SILENCE_COUNTS: u32 = 2;

/// Delay before the second attempt; each further one waits twice as long.
const BACKOFF_BASE: Ms = Ms(200);

/// No attempt waits longer.
const BACKOFF_CAP: Ms = Ms::from_secs(4);

/// No attempt to prepare a successor waits longer: the connection in use goes on meanwhile, for minutes.
const SUCCESSOR_CAP: Ms = Ms::from_secs(30);

/// The caller's audio kept while no model listens.
const WAITING_LIMIT: u64 = 10_000 * BYTES_PER_MS;

/// The caller's last audio that a connection's successor hears as well. A detector of speech reports within this time.
const RECENT_LIMIT: u64 = 1000 * BYTES_PER_MS;

/// Frames kept while no model listens: 10 s in frames of 20 ms, and as many short ones.
const WAITING_FRAMES: usize = 1000;

/// What a model that takes over in mid-sentence is told.
const CUT_OFF: &str = "The connection was lost while you were speaking or about to. The caller may have heard the \
                       beginning of your last sentence. Go on from there without mentioning it.";

impl Call {
    /// Asks for the connection whose turn it is.
    pub(super) fn connect(&mut self) {
        if let Some(engine) = self.link.retry() {
            self.connection += 1;
            self.push(Output::Connect { engine });
            self.timers.set(Timer::Connect, self.now + CONNECT_TIMEOUT);
        }
    }

    pub(super) fn give_up_connecting(&mut self) {
        // The timer runs only while connecting, where a loss is always taken.
        let _ = self.lose_model(ModelLoss::Unreachable, SILENCE_COUNTS);
    }

    pub(super) fn handle_model(&mut self, event: ModelEvent) -> Result<(), Ignored> {
        match event {
            ModelEvent::Ready => return self.handle_ready(),
            ModelEvent::Lost { reason } => return self.lose_model(reason, 1),
            _ if !self.link.is_ready() => {
                return Err(Ignored::Unexpected { input: "model event", state: self.link.name() });
            }
            ModelEvent::SpeechStarted => return self.handle_speech_started(),
            ModelEvent::SpeechStopped => return self.handle_speech_stopped(),
            ModelEvent::ReplyStarted { reply } => return self.handle_reply_started(&reply),
            ModelEvent::Audio { reply, item, audio } => return self.handle_audio(&reply, &item, &audio),
            ModelEvent::Working { reply } => return self.handle_working(&reply),
            ModelEvent::AudioDone { item } => self.playback.complete_item(&item),
            ModelEvent::AgentTranscript { item, text } => self.handle_agent_transcript(item, text),
            ModelEvent::CallerTranscript { item: _, text } => self.handle_caller_transcript(text),
            ModelEvent::ToolCall { call, reply, name, arguments } => {
                return self.handle_tool_call(call, reply, name, arguments);
            }
            ModelEvent::ReplyEnded { reply, outcome } => return self.handle_reply_ended(&reply, outcome),
            ModelEvent::Expiring => {
                self.link.expire();
                self.prepare();
            }
            ModelEvent::Usage(usage) => self.event(Event::Usage(usage)),
            ModelEvent::Refused { class } => self.event(Event::ModelRefused { class }),
        }
        Ok(())
    }

    fn handle_ready(&mut self) -> Result<(), Ignored> {
        self.link.ready(self.now)?;
        self.timers.stop(Timer::Connect);
        self.event(Event::ModelReady { after: self.now.since(self.began) });
        self.brief();
        Ok(())
    }

    /// The model listens: first its memory, then the greeting, then what the caller said meanwhile. In this order the
    /// greeting is the connection's first reply, and the caller's words are answered after it.
    fn brief(&mut self) {
        let mut history = self.memory.items();
        history.extend(self.words_in_the_air());
        if self.debt == Debt::Sentence {
            history.push(HistoryItem::System(Redacted::new(CUT_OFF.to_owned())));
            self.debt = Debt::Reply;
        }
        if !history.is_empty() {
            self.command(ModelCommand::Replay(history));
        }
        self.ask_for_greeting();
        for audio in self.waiting.take() {
            self.command(ModelCommand::Append(audio));
        }
    }

    /// Asks for the connection that will take the place of the expiring one, beside it.
    fn prepare(&mut self) {
        if let Some(engine) = self.link.prepare() {
            self.push(Output::Prepare { engine });
            self.timers.set(Timer::Successor, self.now + CONNECT_TIMEOUT);
        }
    }

    /// The successor did not answer in time, or its next attempt is due.
    pub(super) fn attend_successor(&mut self) {
        if self.lose_successor(ModelLoss::Unreachable).is_err() {
            self.prepare();
        }
    }

    /// The successor has heard nothing and was asked for nothing: it can only be there, or not.
    pub(super) fn handle_successor(&mut self, event: ModelEvent) -> Result<(), Ignored> {
        match event {
            ModelEvent::Ready => {
                self.link.successor_ready()?;
                self.timers.stop(Timer::Successor);
            }
            ModelEvent::Lost { reason } => self.lose_successor(reason)?,
            // Its own end is near: it would have to be replaced at once.
            ModelEvent::Expiring => self.lose_successor(ModelLoss::Expired)?,
            ModelEvent::Usage(usage) => self.event(Event::Usage(usage)),
            ModelEvent::Refused { class } => self.event(Event::ModelRefused { class }),
            ModelEvent::SpeechStarted
            | ModelEvent::SpeechStopped
            | ModelEvent::ReplyStarted { .. }
            | ModelEvent::Audio { .. }
            | ModelEvent::Working { .. }
            | ModelEvent::AudioDone { .. }
            | ModelEvent::AgentTranscript { .. }
            | ModelEvent::CallerTranscript { .. }
            | ModelEvent::ToolCall { .. }
            | ModelEvent::ReplyEnded { .. } => {
                return Err(Ignored::Unexpected { input: "a successor's event", state: self.link.name() });
            }
        }
        Ok(())
    }

    /// The call does not notice; the next attempt waits, ever longer.
    fn lose_successor(&mut self, reason: ModelLoss) -> Result<(), Ignored> {
        let failures = self.link.lose_successor(reason)?;
        self.event(Event::SuccessorLost { reason });
        match failures {
            Some(failures) => {
                let after = self.dice.jitter(doubled(failures).min(SUCCESSOR_CAP));
                self.timers.set(Timer::Successor, self.now + after);
            }
            None => self.timers.stop(Timer::Successor),
        }
        Ok(())
    }

    /// Lets the successor take its place, in a pause: the caller hears nothing of it. What was heard of the caller last
    /// goes to the new connection as well, because it may be the beginning of a word that the old one has not reported.
    pub(super) fn replace(&mut self) {
        self.waiting = std::mem::take(&mut self.recent);
        self.link.replace(self.now);
        self.leave_connection();
        self.switch();
    }

    /// The successor is in use, and is told what it must know.
    fn switch(&mut self) {
        self.connection += 1;
        self.push(Output::Switch);
        self.event(Event::ModelReplaced);
        self.brief();
    }

    /// What belonged to the connection does so no more: what was sent plays on, nothing of it follows.
    fn leave_connection(&mut self) {
        self.playback.detach();
        self.replies.fence();
        self.floor.open();
    }

    /// The connection is gone: what was sent plays on, what was owed stays owed, its successor goes on or the next attempt
    /// is due. `counts` is how many failures in a row this one stands for.
    pub(super) fn lose_model(&mut self, reason: ModelLoss, counts: u32) -> Result<(), Ignored> {
        let was_ready = self.link.is_ready();
        let was_expected = self.replies.is_any_active() || self.is_answer_awaited();
        let has_successor = self.link.has_successor();
        if has_successor {
            self.link.replace(self.now);
        } else {
            self.link.lose(self.now, reason, counts, self.plan.engines.len())?;
        }
        self.event(Event::ModelLost { reason });
        for timer in [
            Timer::Connect,
            Timer::Successor,
            Timer::ConfirmSpeech,
            Timer::EndlessSpeech,
            Timer::Reply,
            Timer::AskAgain,
        ] {
            self.timers.stop(timer);
        }
        self.opening.again();
        if was_ready {
            self.recent.take();
            self.leave_connection();
            if was_expected && !self.opening.is_pending() {
                self.debt = Debt::Sentence;
            }
        }
        if has_successor {
            self.switch();
            return Ok(());
        }
        match self.link {
            Link::BackingOff(attempt) if attempt.failures == 0 => self.connect(),
            Link::BackingOff(attempt) => {
                let at = self.now + self.dice.jitter(backoff(attempt.failures));
                self.timers.set(Timer::Backoff, at);
            }
            Link::Down => self.apologise(),
            Link::Connecting(_) | Link::Ready { .. } => {}
        }
        Ok(())
    }

    /// No engine is left: what was sent plays out, then the carrier says sorry.
    fn apologise(&mut self) {
        let next = Next::SayAndHangUp { text: self.plan.phrases.apology.clone() };
        let ending = Ending { reason: EndReason::ModelUnreachable, next };
        self.part(Parting { ending, asked_by: None });
    }

    /// Gives the model audio of the caller, now or when it listens.
    pub(super) fn give(&mut self, audio: Payload) {
        if !self.link.is_ready() {
            self.waiting.push(audio, WAITING_LIMIT);
            return;
        }
        if self.link.is_expiring() {
            self.recent.push(audio.clone(), RECENT_LIMIT);
        }
        self.command(ModelCommand::Append(audio));
    }
}

/// Before the attempt after this many failures in a row.
pub(super) fn backoff(failures: u32) -> Ms {
    doubled(failures).min(BACKOFF_CAP)
}

fn doubled(failures: u32) -> Ms {
    Ms(BACKOFF_BASE.0.saturating_mul(1 << failures.saturating_sub(1).min(16)))
}

/// The caller's audio kept for a connection to come; the oldest is dropped first.
#[derive(Clone, Debug, Default)]
pub(super) struct WaitingAudio {
    frames: VecDeque<Payload>,
    bytes: u64,
}

impl WaitingAudio {
    fn push(&mut self, audio: Payload, limit: u64) {
        self.bytes += audio.mulaw_len();
        self.frames.push_back(audio);
        while self.bytes > limit || self.frames.len() > WAITING_FRAMES {
            self.bytes -= self.frames.pop_front().map_or(self.bytes, |oldest| oldest.mulaw_len());
        }
    }

    fn take(&mut self) -> VecDeque<Payload> {
        self.bytes = 0;
        std::mem::take(&mut self.frames)
    }
}

/// The call's only source of chance (SplitMix64): equal seeds throw equal dice.
#[derive(Clone, Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    const fn throw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Between half of the span and all of it, so that a provider's outage does not bring all calls back at once.
    pub(super) const fn jitter(&mut self, span: Ms) -> Ms {
        let half = span.0 / 2;
        Ms(span.0 - half + self.throw() % (half + 1))
    }
}
