//! The built-in engine: scripted replies, or an echo of the caller's last turn. No network, no key.
//!
//! It behaves like a speech model as far as a call can tell: it hears the caller by energy, answers each turn, speaks
//! faster than real time, stops when interrupted, says prompts word by word. It transcribes only itself, and calls no
//! tools.
//!
//! [`Machine`] decides, with time as an argument; [`Session`] runs it on the clock.

mod vad;
mod voice;

use std::collections::VecDeque;
use std::time::Duration;

use call_session::agent_file::SimulatedEngine;
use call_session::audio::{BYTES_PER_MS, Payload};
use call_session::io::{HistoryItem, ModelCommand, ModelEvent, ReplyOutcome, Speech};
use call_session::{ItemId, Redacted, ReplyId};
use tokio::time::Instant;

use self::vad::{Change, Vad};
use self::voice::Utterance;

/// Audio leaves in stretches of this length …
const STRETCH_MS: usize = 200;

/// … twice as fast as it plays, so that there is always something to interrupt that was not heard yet.
const STRETCH_EVERY: Duration = Duration::from_millis(100);

/// The longest turn that is echoed: 30 s are 240 kB, what one call may cost at most.
const LONGEST_TURN: usize = 30_000 * BYTES_PER_MS as usize;

/// Audio before the onset that belongs to the turn, as the Realtime API's `prefix_padding_ms`.
const PREFIX: usize = 300 * BYTES_PER_MS as usize;

/// Prompts that may wait behind a running reply; a call machine asks for one at a time.
const MOST_QUEUED: usize = 8;

/// A running session.
#[derive(Debug)]
pub struct Session {
    machine: Machine,
}

impl Session {
    /// Starts a session; it is ready at once. Without `answers_turns` the caller's turns are answered only when the
    /// call asks for it ([`call_session::plan::Plan::server_replies`]).
    pub fn new(engine: &SimulatedEngine, answers_turns: bool) -> Self {
        Self { machine: Machine::new(engine, answers_turns) }
    }

    /// Takes a command.
    pub fn send(&mut self, command: ModelCommand) {
        self.machine.handle_command(Instant::now(), command);
    }

    /// The next event; never ends. Cancel-safe.
    pub async fn next_event(&mut self) -> ModelEvent {
        loop {
            match self.machine.poll_output(Instant::now()) {
                Step::Event(event) => return event,
                Step::Wait(Some(at)) => tokio::time::sleep_until(at).await,
                Step::Wait(None) => std::future::pending().await,
            }
        }
    }
}

/// What the machine wants.
enum Step {
    Event(ModelEvent),
    /// Nothing until this time, or until a command.
    Wait(Option<Instant>),
}

#[derive(Debug)]
struct Machine {
    answers_turns: bool,
    replies: Vec<String>,
    panic_at_reply: Option<u32>,
    next_reply: usize,
    vad: Vad,
    /// The caller's audio: of the running turn, or the stretch before the next one.
    turn: Vec<u8>,
    speaking: Option<Speaking>,
    queued: VecDeque<Queued>,
    events: VecDeque<ModelEvent>,
    replies_made: u64,
}

/// What is to be said next.
#[derive(Debug)]
enum Queued {
    Words(Redacted<String>),
    Echo(Vec<u8>),
}

/// A reply on its way.
#[derive(Debug)]
struct Speaking {
    reply: ReplyId,
    item: ItemId,
    source: Source,
    next_at: Instant,
}

#[derive(Debug)]
enum Source {
    Voice(Utterance),
    Echo(VecDeque<u8>),
}

impl Machine {
    fn new(engine: &SimulatedEngine, answers_turns: bool) -> Self {
        Self {
            answers_turns,
            replies: engine.replies.clone(),
            panic_at_reply: engine.panic_at_reply,
            next_reply: 0,
            vad: Vad::default(),
            turn: Vec::new(),
            speaking: None,
            queued: VecDeque::new(),
            events: VecDeque::from([ModelEvent::Ready]),
            replies_made: 0,
        }
    }

    fn handle_command(&mut self, now: Instant, command: ModelCommand) {
        match command {
            ModelCommand::Append(audio) => self.hear(now, &audio.to_mulaw()),
            ModelCommand::Interrupt { heard: _ } => {
                self.queued.clear();
                if let Some(Speaking { reply, .. }) = self.speaking.take() {
                    self.events.push_back(ModelEvent::ReplyEnded { reply, outcome: ReplyOutcome::Cancelled });
                }
            }
            ModelCommand::Speak(Speech::Verbatim(words)) => self.say(now, Queued::Words(words)),
            ModelCommand::Speak(Speech::Reply) => self.answer(now),
            ModelCommand::Replay(history) => self.remember(&history),
            // It calls no tools and follows no context.
            ModelCommand::Context(_) | ModelCommand::ToolOutput { .. } => {}
        }
    }

    fn poll_output(&mut self, now: Instant) -> Step {
        if self.events.is_empty() {
            self.speak(now);
        }
        match self.events.pop_front() {
            Some(event) => Step::Event(event),
            None => Step::Wait(self.speaking.as_ref().map(|speaking| speaking.next_at)),
        }
    }

    fn hear(&mut self, now: Instant, mulaw: &[u8]) {
        self.turn.extend_from_slice(mulaw);
        let changes = self.vad.feed(mulaw);
        let kept = if self.vad.is_speaking() || !changes.is_empty() { LONGEST_TURN } else { PREFIX };
        let excess = self.turn.len().saturating_sub(kept);
        self.turn.drain(..excess);
        for change in changes {
            match change {
                Change::Started => self.events.push_back(ModelEvent::SpeechStarted),
                Change::Stopped => {
                    self.events.push_back(ModelEvent::SpeechStopped);
                    if self.answers_turns {
                        self.answer(now);
                    }
                }
            }
        }
    }

    /// Answers the caller's turn: the next scripted reply, or the turn itself.
    fn answer(&mut self, now: Instant) {
        let turn = std::mem::take(&mut self.turn);
        self.panic_at_reply = self.panic_at_reply.map(|left| left.saturating_sub(1));
        assert!(self.panic_at_reply != Some(0), "the agent file asks for this panic (panicAtReply)");
        if self.replies.is_empty() {
            self.say(now, Queued::Echo(turn));
        } else {
            let words = self.replies[self.next_reply % self.replies.len()].clone();
            self.next_reply += 1;
            self.say(now, Queued::Words(Redacted::new(words)));
        }
    }

    /// Says it now, or after what is being said.
    fn say(&mut self, now: Instant, what: Queued) {
        if self.queued.len() < MOST_QUEUED {
            self.queued.push_back(what);
        }
        self.begin(now);
    }

    fn begin(&mut self, now: Instant) {
        if self.speaking.is_some() {
            return;
        }
        let Some(next) = self.queued.pop_front() else { return };
        self.replies_made += 1;
        let reply = ReplyId::from(format!("reply_{}", self.replies_made).as_str());
        let item = ItemId::from(format!("item_{}", self.replies_made).as_str());
        self.events.push_back(ModelEvent::ReplyStarted { reply: reply.clone() });
        let source = match next {
            Queued::Words(text) => {
                let source = Source::Voice(Utterance::new(text.expose()));
                self.events.push_back(ModelEvent::AgentTranscript { item: item.clone(), text });
                source
            }
            Queued::Echo(turn) => Source::Echo(turn.into()),
        };
        self.speaking = Some(Speaking { reply, item, source, next_at: now });
    }

    /// Lets the next stretch of the running reply go, when its time has come.
    fn speak(&mut self, now: Instant) {
        let Some(speaking) = &mut self.speaking else { return };
        if speaking.next_at > now {
            return;
        }
        let stretch = match &mut speaking.source {
            Source::Voice(utterance) => utterance.take(STRETCH_MS),
            Source::Echo(turn) => {
                let length = turn.len().min(STRETCH_MS * BYTES_PER_MS as usize);
                turn.drain(..length).collect()
            }
        };
        let (reply, item) = (speaking.reply.clone(), speaking.item.clone());
        if stretch.is_empty() {
            self.speaking = None;
            self.events.push_back(ModelEvent::AudioDone { item });
            self.events.push_back(ModelEvent::ReplyEnded { reply, outcome: ReplyOutcome::Completed });
            self.begin(now);
        } else {
            speaking.next_at += STRETCH_EVERY;
            self.events.push_back(ModelEvent::Audio { reply, item, audio: Payload::from_mulaw(&stretch) });
        }
    }

    /// Goes on in the script after what was said already (a reply cut short counts as said).
    fn remember(&mut self, history: &[HistoryItem]) {
        let was_reply = |text: &str| self.replies.iter().any(|reply| reply.starts_with(text.trim_end()));
        self.next_reply = history
            .iter()
            .filter(|item| match item {
                HistoryItem::Agent(text) => was_reply(text.expose()),
                HistoryItem::Caller(_) | HistoryItem::System(_) | HistoryItem::Tool { .. } => false,
            })
            .count();
    }
}

#[cfg(test)]
#[path = "simulated/tests.rs"]
mod tests;
