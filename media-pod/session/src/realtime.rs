//! The OpenAI Realtime protocol (GA, WebSocket) as a sans-IO machine, and nothing else: frames in, [`ModelEvent`]s
//! out; [`ModelCommand`]s in, frames out. It follows the project's protocol sheet, section 5, and the crate's drain
//! rule.
//!
//! # States
//!
//! ```text
//!  new ──▶ Opening ── session.created ──▶ Warm ── Configure ──▶ Configuring ── session.updated ──▶ Live
//!             │                            │        (session.update sent)         (Ready)           │
//!             └──────── Closed, a fatal error, a timeout, a stall: Lost; Finish: nothing ───────────┴──▶ Ended
//! ```
//!
//! | state | what happens in it | leaves it by itself |
//! | --- | --- | --- |
//! | Opening | the socket is open, `session.created` is awaited; `Configure` may already come | [`OPEN_TIMEOUT`] |
//! | Warm | a connection kept ahead of a call; answers nothing | never |
//! | Configuring | `session.update` is out. Commands wait, bounded: nothing may be appended before `session.updated`, because the server still expects another audio format | [`CONFIGURE_TIMEOUT`] |
//! | Live | turns, barge-in, tool loop; once `Expiring`, [`RETIREMENT`] after the socket opened or a while before the session's announced end | a response that is asked for or active and silent for too long |
//! | Ended | every input is refused | |
//!
//! In `Live` at most one response is active and at most one `response.create` is in flight; both, and what waits behind
//! them, are in `responses.rs`. A tool round is continued once, by our own request after its reply is over and every
//! output is sent, or by a reply the server began after it had acknowledged every output (`tool_rounds.rs`). Items cut
//! by the caller are remembered in `items.rs`, which is the discard set.
//!
//! The clock may have any origin: only differences matter, so that a warm connection can be attached to any call.

mod client;
mod config;
mod items;
mod live;
mod refusal;
mod responses;
mod tool_rounds;
mod usage;
mod wire;

#[cfg(test)]
mod honest_server;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;

use bytes::Bytes;

use self::client::{ClientEvent, SESSION_UPDATE, Session};
pub use self::config::{CallerTranscription, RealtimeConfig};
use self::live::{Course, Live, Outbox};
use self::refusal::{Verdict, verdict};
pub use self::wire::MAX_FRAME;
use self::wire::ServerEvent;
use crate::Ms;
use crate::audio::Payload;
use crate::io::{ModelCommand, ModelEvent, ModelLoss, RefusalClass};

/// How long after the socket opened `session.created` may take.
pub const OPEN_TIMEOUT: Ms = Ms(10_000);

/// How long `session.updated` may take. The caller waits meanwhile; another engine is the better answer.
pub const CONFIGURE_TIMEOUT: Ms = Ms(5_000);

/// When a connection asks to be replaced, counted from its opening, where the server does not say when the session ends. The
/// documented limit is 60 minutes, 30 in older documents, and it comes without a warning.
pub const RETIREMENT: Ms = Ms::from_secs(27 * 60);

/// How long before a session's end it is replaced: three minutes are enough for a pause in any conversation.
const NOTICE: Ms = Ms::from_secs(3 * 60);

/// No session lasts longer, whatever the server says.
const LONGEST_SERVICE: Ms = Ms::from_secs(57 * 60);

/// Everything that can happen to a connection. Frames do not print: they quote people.
#[derive(Clone, PartialEq)]
pub enum RealtimeInput {
    /// A text message of the server.
    Frame(Bytes),
    /// The connection is attached to a call. Once.
    Configure(Box<RealtimeConfig>),
    /// From the call machine.
    Command(ModelCommand),
    /// The socket ended.
    Closed(Closed),
    /// The call needs the connection no more: it is closed without a [`ModelEvent::Lost`].
    Finish,
    /// The time named by [`RealtimeOutput::Wait`] has come. Spurious ones are no-ops.
    Tick,
}

/// How a socket ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    /// The close frame's code; `None` when the connection broke without one.
    pub code: Option<u16>,
}

/// What the machine wants. Frames do not print: they quote people.
#[derive(Clone, PartialEq)]
pub enum RealtimeOutput {
    /// Send this text message.
    Frame(Bytes),
    /// Tell the call machine.
    Event(ModelEvent),
    /// Close the socket with this code.
    Close {
        /// A WebSocket close code.
        code: u16,
    },
    /// The drain is over; tick me at this time if nothing else happens.
    Wait(Option<Ms>),
    /// The connection is of no more use. Once and last: every later poll returns `Wait(None)`.
    Ended,
}

impl fmt::Debug for RealtimeInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frame(frame) => write!(f, "Frame({} bytes)", frame.len()),
            Self::Configure(config) => f.debug_tuple("Configure").field(config).finish(),
            Self::Command(command) => f.debug_tuple("Command").field(command).finish(),
            Self::Closed(closed) => f.debug_tuple("Closed").field(closed).finish(),
            Self::Finish => f.write_str("Finish"),
            Self::Tick => f.write_str("Tick"),
        }
    }
}

impl fmt::Debug for RealtimeOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frame(frame) => write!(f, "Frame({} bytes)", frame.len()),
            Self::Event(event) => f.debug_tuple("Event").field(event).finish(),
            Self::Close { code } => f.debug_struct("Close").field("code", code).finish(),
            Self::Wait(at) => f.debug_tuple("Wait").field(at).finish(),
            Self::Ended => f.write_str("Ended"),
        }
    }
}

/// An input that changed nothing, and why. Counted by the shell under [`RealtimeError::label`]; never the end of a
/// call by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RealtimeError {
    /// The connection has ended.
    #[error("the connection has ended")]
    Ended,
    /// A frame above [`MAX_FRAME`].
    #[error("a frame of {size} bytes is too large")]
    TooLarge {
        /// Its size.
        size: usize,
    },
    /// A frame that is not JSON, or not an object with a `type`.
    #[error("not a JSON object with a type")]
    NotAnEvent,
    /// An event this build does not know.
    #[error("an event of a type that is not known")]
    UnknownEvent,
    /// A known event without what it must hold.
    #[error("`{event}` does not have its documented shape")]
    Malformed {
        /// Which.
        event: &'static str,
    },
    /// It belongs to a reply, item or call that is over, was cut, or never began.
    #[error("{what} of something that is over or never began")]
    Stale {
        /// What came.
        what: &'static str,
    },
    /// More than is kept.
    #[error("more of {what} than is kept")]
    QueueFull {
        /// What came.
        what: &'static str,
    },
    /// The input does not fit the state.
    #[error("{input} does not fit the state {state}")]
    Unexpected {
        /// What came.
        input: &'static str,
        /// Where the connection was.
        state: &'static str,
    },
}

impl RealtimeError {
    /// A word for metrics, from a fixed set.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::TooLarge { .. } => "too_large",
            Self::NotAnEvent => "not_an_event",
            Self::UnknownEvent => "unknown_event",
            Self::Malformed { .. } => "malformed",
            Self::Stale { .. } => "stale",
            Self::QueueFull { .. } => "queue_full",
            Self::Unexpected { .. } => "unexpected",
        }
    }
}

/// One connection to a Realtime server.
#[derive(Debug)]
pub struct Realtime {
    now: Ms,
    opened: Ms,
    /// Unix seconds at the opening.
    opened_at: Option<u64>,
    expires_at: Option<u64>,
    service: Service,
    state: State,
    out: Outbox,
}

/// Whether the call was told that this connection will not last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Service {
    Active,
    Retiring,
}

#[derive(Debug)]
enum State {
    Opening { attached: Option<Box<Attached>> },
    Warm,
    Configuring { since: Ms, attached: Box<Attached> },
    Live(Box<Live>),
    Ended,
}

/// A call that waits for its session.
#[derive(Debug)]
struct Attached {
    config: Box<RealtimeConfig>,
    waiting: Waiting,
}

impl Realtime {
    /// A connection whose socket has just opened; not personalised yet.
    pub fn new(now: Ms) -> Self {
        Self {
            now,
            opened: now,
            opened_at: None,
            expires_at: None,
            service: Service::Active,
            state: State::Opening { attached: None },
            out: Outbox::default(),
        }
    }

    /// The same with the time of day, so that the server's word about the session's end counts: Unix seconds of now.
    pub fn opened_at(now: Ms, unix_seconds: u64) -> Self {
        Self { opened_at: Some(unix_seconds), ..Self::new(now) }
    }

    /// When the connection asks to be replaced. A short session is used for half of its time at least; an end in the past is
    /// the fault of a clock and says nothing.
    fn retirement(&self) -> Ms {
        let seconds = self.expires_at.zip(self.opened_at).map(|(end, begin)| end.saturating_sub(begin));
        let service = match seconds.map(Ms::from_secs) {
            None | Some(Ms::ZERO) => RETIREMENT,
            Some(life) => Ms(life.0.saturating_sub(NOTICE.0).max(life.0 / 2)).min(LONGEST_SERVICE),
        };
        self.opened + service
    }

    /// When the server will end the session, in Unix seconds, as far as it has said so.
    pub const fn expires_at(&self) -> Option<u64> {
        self.expires_at
    }

    /// Whether the connection waits for a call: `session.created` came and nothing is attached.
    pub const fn is_warm(&self) -> bool {
        matches!(self.state, State::Warm)
    }

    /// Takes one input; poll until `Wait` or `Ended` afterwards.
    ///
    /// # Errors
    /// When the input changed nothing.
    pub fn handle_input(&mut self, now: Ms, input: RealtimeInput) -> Result<(), RealtimeError> {
        self.now = self.now.max(now);
        if matches!(self.state, State::Ended) {
            return Err(RealtimeError::Ended);
        }
        match input {
            RealtimeInput::Frame(frame) => self.handle_frame(&frame),
            RealtimeInput::Configure(config) => self.attach(config),
            RealtimeInput::Command(command) => self.handle_command(command),
            RealtimeInput::Closed(closed) => {
                self.handle_closed(closed);
                Ok(())
            }
            RealtimeInput::Finish => {
                self.close();
                Ok(())
            }
            RealtimeInput::Tick => {
                self.handle_tick();
                Ok(())
            }
        }
    }

    /// The next thing the machine wants.
    pub fn poll_output(&mut self) -> RealtimeOutput {
        self.out.pop().unwrap_or_else(|| RealtimeOutput::Wait(self.deadline()))
    }

    fn handle_frame(&mut self, frame: &Bytes) -> Result<(), RealtimeError> {
        let event = ServerEvent::parse(frame)?;
        if let ServerEvent::SessionCreated { expires_at } | ServerEvent::SessionUpdated { expires_at } =
            &event
        {
            self.expires_at = expires_at.or(self.expires_at);
        }
        let course = match (&mut self.state, event) {
            (State::Live(live), event) => live.handle_event(self.now, event, &mut self.out)?,
            (State::Opening { attached }, ServerEvent::SessionCreated { .. }) => {
                let attached = attached.take();
                self.open(attached);
                Course::On
            }
            (State::Configuring { .. }, ServerEvent::SessionUpdated { .. }) => {
                self.go_live();
                Course::On
            }
            // Nothing but the session was asked for, so an error is about it: with these settings it does not open.
            (State::Configuring { .. }, ServerEvent::Error(error)) => Course::Lost(match verdict(&error) {
                Verdict::Lost(reason) => reason,
                Verdict::Refused(RefusalClass::InvalidRequest) => ModelLoss::Rejected,
                Verdict::Refused(_) | Verdict::Busy => ModelLoss::Unreachable,
            }),
            (State::Opening { .. } | State::Warm, ServerEvent::Error(error)) => match verdict(&error) {
                Verdict::Lost(reason) => Course::Lost(reason),
                Verdict::Refused(class) => {
                    self.out.event(ModelEvent::Refused { class });
                    Course::On
                }
                Verdict::Busy => Course::On,
            },
            (_, ServerEvent::Quiet { .. }) => Course::On,
            (state, _) => {
                return Err(RealtimeError::Unexpected { input: "event", state: state.name() });
            }
        };
        if let Course::Lost(reason) = course {
            self.lose(reason);
        }
        Ok(())
    }

    /// `Configure`: the call gets this connection, as soon as its session is there.
    fn attach(&mut self, config: Box<RealtimeConfig>) -> Result<(), RealtimeError> {
        let attached = Box::new(Attached { config, waiting: Waiting::default() });
        match &mut self.state {
            State::Opening { attached: waiting @ None } => *waiting = Some(attached),
            State::Warm => self.configure(attached),
            state => return Err(RealtimeError::Unexpected { input: "configure", state: state.name() }),
        }
        Ok(())
    }

    /// Opening → Warm, and on if a call waits.
    fn open(&mut self, attached: Option<Box<Attached>>) {
        self.state = State::Warm;
        if let Some(attached) = attached {
            self.configure(attached);
        }
    }

    /// Warm → Configuring.
    fn configure(&mut self, attached: Box<Attached>) {
        let session = Session::new(&attached.config);
        self.out.send(&ClientEvent::SessionUpdate { event_id: SESSION_UPDATE, session });
        self.state = State::Configuring { since: self.now, attached };
    }

    /// Configuring → Live: what waited goes out, conversation before audio.
    fn go_live(&mut self) {
        let State::Configuring { attached, .. } = std::mem::replace(&mut self.state, State::Warm) else {
            return;
        };
        let Attached { config, waiting } = *attached;
        let mut live = Box::new(Live::new(&config));
        self.out.event(ModelEvent::Ready);
        for command in waiting.into_commands() {
            // Refused ones would be refused now as well: nothing has been said yet that they could be about.
            let _changed_nothing = live.handle_command(self.now, command, &mut self.out);
        }
        self.state = State::Live(live);
    }

    fn handle_command(&mut self, command: ModelCommand) -> Result<(), RealtimeError> {
        match &mut self.state {
            State::Live(live) => live.handle_command(self.now, command, &mut self.out),
            State::Opening { attached: Some(attached) } | State::Configuring { attached, .. } => {
                attached.waiting.push(command)
            }
            State::Opening { attached: None } | State::Warm | State::Ended => {
                Err(RealtimeError::Unexpected { input: "command", state: self.state.name() })
            }
        }
    }

    fn handle_tick(&mut self) {
        let is_late = match &self.state {
            State::Opening { .. } => {
                (self.now >= self.opened + OPEN_TIMEOUT).then_some(ModelLoss::Unreachable)
            }
            State::Configuring { since, .. } => {
                (self.now >= *since + CONFIGURE_TIMEOUT).then_some(ModelLoss::Unreachable)
            }
            State::Live(live) => live.is_stalled(self.now).then_some(ModelLoss::Protocol),
            State::Warm | State::Ended => None,
        };
        match (is_late, &mut self.state) {
            (Some(reason), _) => self.lose(reason),
            (None, State::Live(live)) => {
                live.pump(self.now, &mut self.out);
                self.retire();
            }
            (None, State::Opening { .. } | State::Warm | State::Configuring { .. } | State::Ended) => {}
        }
    }

    /// Says once, in time, that the provider will end this session.
    fn retire(&mut self) {
        if self.service == Service::Active && self.now >= self.retirement() {
            self.service = Service::Retiring;
            self.out.event(ModelEvent::Expiring);
        }
    }

    fn handle_closed(&mut self, closed: Closed) {
        let reason = match (closed.code, &self.state) {
            (Some(BETA_SHAPE), _) => ModelLoss::Rejected,
            (_, State::Opening { .. }) => ModelLoss::Unreachable,
            (Some(GOING_AWAY), _) if self.now.since(self.opened) >= SHORTEST_SESSION => ModelLoss::Expired,
            _ => ModelLoss::Closed,
        };
        self.out.event(ModelEvent::Lost { reason });
        self.end();
    }

    /// The server, or we, broke the connection off: it is of no more use.
    fn lose(&mut self, reason: ModelLoss) {
        self.out.event(ModelEvent::Lost { reason });
        self.close();
    }

    fn close(&mut self) {
        self.out.push(RealtimeOutput::Close { code: NORMAL_CLOSURE });
        self.end();
    }

    fn end(&mut self) {
        self.out.push(RealtimeOutput::Ended);
        self.state = State::Ended;
    }

    fn deadline(&self) -> Option<Ms> {
        match &self.state {
            State::Opening { .. } => Some(self.opened + OPEN_TIMEOUT),
            State::Configuring { since, .. } => Some(*since + CONFIGURE_TIMEOUT),
            State::Live(live) => {
                let retirement = (self.service == Service::Active).then(|| self.retirement());
                live.deadline(self.now).into_iter().chain(retirement).min()
            }
            State::Warm | State::Ended => None,
        }
    }
}

impl State {
    const fn name(&self) -> &'static str {
        match self {
            Self::Opening { .. } => "opening",
            Self::Warm => "warm",
            Self::Configuring { .. } => "configuring",
            Self::Live(_) => "live",
            Self::Ended => "ended",
        }
    }
}

/// Commands that came before the session was configured.
#[derive(Debug, Default)]
struct Waiting {
    commands: Vec<ModelCommand>,
    audio: VecDeque<Payload>,
}

impl Waiting {
    fn push(&mut self, command: ModelCommand) -> Result<(), RealtimeError> {
        match command {
            ModelCommand::Append(audio) => {
                if self.audio.len() == MAX_WAITING_AUDIO {
                    self.audio.pop_front(); // the newest words are the ones to answer
                }
                self.audio.push_back(audio);
            }
            ModelCommand::Interrupt { .. } => {} // nothing has been said on this connection
            ModelCommand::Replay(_)
            | ModelCommand::Context(_)
            | ModelCommand::ToolOutput { .. }
            | ModelCommand::Speak(_) => {
                if self.commands.len() == MAX_WAITING_COMMANDS {
                    return Err(RealtimeError::QueueFull { what: "commands" });
                }
                self.commands.push(command);
            }
        }
        Ok(())
    }

    fn into_commands(self) -> impl Iterator<Item = ModelCommand> {
        self.commands.into_iter().chain(self.audio.into_iter().map(ModelCommand::Append))
    }
}

/// Frames of caller audio kept while the session is being configured: 10 s at 20 ms, twice [`CONFIGURE_TIMEOUT`].
const MAX_WAITING_AUDIO: usize = 500;

/// Commands kept meanwhile; a call sends a replay, a greeting and a few items.
const MAX_WAITING_COMMANDS: usize = 64;

const NORMAL_CLOSURE: u16 = 1000;

/// Observed when a session reached its limit, and anywhere a server goes away.
const GOING_AWAY: u16 = 1001;

/// Observed for a client of the beta's shape: no retry helps.
const BETA_SHAPE: u16 = 4000;

/// The documented limit is 60 minutes, 30 in older documents: no session expires before.
const SHORTEST_SESSION: Ms = Ms::from_secs(29 * 60);
