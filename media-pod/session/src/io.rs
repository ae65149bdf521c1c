//! Inputs and outputs of the call machine, provider-neutral.
//!
//! [`ModelEvent`] and [`ModelCommand`] are also the boundary to every engine: the Realtime machine turns frames into
//! events and commands into frames; other engines do the same their own way.

use serde::{Deserialize, Serialize};

use crate::audio::Payload;
use crate::journal::Entry;
use crate::{ItemId, Ms, Redacted, ReplyId, ToolCallId};

/// Everything that can happen to a call.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// From the media stream.
    Phone(PhoneEvent),
    /// From the connection in use.
    Model(ModelEvent),
    /// From the connection asked for by [`Output::Prepare`], until it is the one in use.
    Successor(ModelEvent),
    /// A tool requested by [`Output::Tool`] ended.
    ToolEnded {
        /// Which call.
        call: ToolCallId,
        /// How.
        result: ToolResult,
    },
    /// The store holds every journal entry of this epoch up to and including this sequence.
    JournalDurable {
        /// The sequence.
        up_to: u64,
    },
    /// The store became unreachable: what waits for durability waits on.
    StoreLost,
    /// The store answers again.
    StoreBack,
    /// The pod is leaving: hand the call over between utterances, at the latest at this time.
    Drain {
        /// When the call must have left.
        deadline: Ms,
    },
    /// A person or the API wants something.
    Command(Command),
    /// The time named by [`Output::Wait`] has come. Spurious ones are no-ops.
    Tick,
}

/// From the media stream, after `start`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PhoneEvent {
    /// The caller's audio.
    Media {
        /// Presentation time since the stream began.
        timestamp: Ms,
        /// μ-law.
        audio: Payload,
    },
    /// The caller pressed a key.
    Digit(Redacted<char>),
    /// Audio sent before this mark was played, or thrown away by a clear.
    Mark(MarkName),
    /// The carrier ended the stream: the caller hung up or the call was redirected.
    Stopped,
    /// The socket ended without saying so.
    Lost,
}

/// A mark's name: which clear-generation and how far into it. Names that are not ours do not parse and are ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MarkName {
    /// The call's leg; a mark of another epoch is not ours.
    pub epoch: u32,
    /// Rises with every clear, so that the echoes a clear provokes are told from played marks.
    pub generation: u32,
    /// From 1, without gaps, over the whole leg.
    pub sequence: u64,
}

/// From the engine.
#[derive(Clone, Debug, PartialEq)]
pub enum ModelEvent {
    /// Connected and configured: audio and commands may be sent. Once per connection.
    Ready,
    /// The caller began to speak.
    SpeechStarted,
    /// The caller stopped speaking.
    SpeechStopped,
    /// The model began a reply.
    ReplyStarted {
        /// Which.
        reply: ReplyId,
    },
    /// Audio of a reply, faster than real time.
    Audio {
        /// The reply it belongs to.
        reply: ReplyId,
        /// The item it belongs to.
        item: ItemId,
        /// μ-law.
        audio: Payload,
    },
    /// The model goes on with a reply without a sound: it writes a tool's arguments, or text. A sign of life; at most one a
    /// second is needed.
    Working {
        /// Which.
        reply: ReplyId,
    },
    /// The item has no more audio.
    AudioDone {
        /// Which.
        item: ItemId,
    },
    /// The whole text of an item the agent speaks; comes before or after its audio, or not at all.
    AgentTranscript {
        /// Which.
        item: ItemId,
        /// The words.
        text: Redacted<String>,
    },
    /// What the caller said in one turn; asynchronous, may never come.
    CallerTranscript {
        /// The caller's item.
        item: ItemId,
        /// The words.
        text: Redacted<String>,
    },
    /// The model calls a tool; complete arguments only, once per call id.
    ToolCall {
        /// Which call.
        call: ToolCallId,
        /// The reply that made it.
        reply: ReplyId,
        /// The tool's name.
        name: String,
        /// JSON text, not yet parsed.
        arguments: Redacted<String>,
    },
    /// The reply is over.
    ReplyEnded {
        /// Which.
        reply: ReplyId,
        /// How.
        outcome: ReplyOutcome,
    },
    /// What a reply cost.
    Usage(Usage),
    /// Something the model refused; the connection lives on.
    Refused {
        /// Class, for metrics.
        class: RefusalClass,
    },
    /// The provider will end this connection before long; until then it works as before. Once per connection.
    Expiring,
    /// The connection is gone; nothing more comes from it.
    Lost {
        /// Why.
        reason: ModelLoss,
    },
}

/// How a reply ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyOutcome {
    /// In full.
    Completed,
    /// Cut by the caller's speech or by us.
    Cancelled,
    /// Stopped by a limit or a filter; what came is valid.
    Incomplete,
    /// The model failed.
    Failed,
}

/// Why the model refused something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalClass {
    /// Our request was wrong; a bug of ours.
    InvalidRequest,
    /// Too many requests or tokens.
    RateLimited,
    /// The model's own fault.
    Server,
    /// A race that does no harm (cancel of nothing, truncate of something gone).
    Benign,
}

/// Why a model connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelLoss {
    /// It could not be opened in time.
    Unreachable,
    /// The key was refused, or the model does not exist: retrying does not help.
    Rejected,
    /// Open, then closed or broken.
    Closed,
    /// The provider's session limit.
    Expired,
    /// It broke the protocol.
    Protocol,
}

/// Tokens of one reply; every count is optional at the source and 0 when absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Text in, not cached.
    pub text_in: u64,
    /// Text in, cached.
    pub text_cached: u64,
    /// Audio in, not cached.
    pub audio_in: u64,
    /// Audio in, cached.
    pub audio_cached: u64,
    /// Text out.
    pub text_out: u64,
    /// Audio out.
    pub audio_out: u64,
}

/// What a person or the API wants of a running call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// End the call.
    HangUp,
}

/// How a tool ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToolResult {
    /// With a value, as text for the model.
    Value(Redacted<String>),
    /// With an error, as text for the model.
    Error(Redacted<String>),
    /// Not in time.
    TimedOut,
}

/// What the machine wants; see the drain rule in the crate's documentation.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// To the media stream.
    Phone(PhoneCommand),
    /// To the engine in use.
    Model(ModelCommand),
    /// Open a connection to `plan.engines[engine]`; answer with [`ModelEvent::Ready`] or [`ModelEvent::Lost`]. What is
    /// open or prepared is dropped first.
    Connect {
        /// Index into the plan's engines.
        engine: usize,
    },
    /// Open another connection to `plan.engines[engine]` beside the one in use, which goes on; what it says is
    /// [`Input::Successor`]. One that was prepared before is dropped first.
    Prepare {
        /// Index into the plan's engines.
        engine: usize,
    },
    /// The prepared connection is the one in use from here on; the one before is closed.
    Switch,
    /// Play the clip that keeps a caller company: a model is there, and has said nothing for too long. It is no part of the
    /// conversation. While no model is there, whoever carries the outputs out plays it by itself.
    Comfort,
    /// Run a tool; answer with [`Input::ToolEnded`], once.
    Tool(ToolRequest),
    /// Append to the journal.
    Journal(Entry),
    /// Something for metrics, logs, transcript and history.
    Event(Event),
    /// The drain is over; tick me at this time if nothing else happens.
    Wait(Option<Ms>),
    /// The call, or this leg of it, is over. Once and last: every later poll returns `Wait(None)`.
    Ended(Ending),
}

/// To the media stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PhoneCommand {
    /// Play this after what was sent before.
    Audio(Payload),
    /// Tell me when all audio sent before was played.
    Mark(MarkName),
    /// Throw away what was not played yet.
    Clear,
}

/// To the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelCommand {
    /// Conversation so far, in order, before anything else on this connection (reconnect, resume).
    Replay(Vec<HistoryItem>),
    /// The caller's audio.
    Append(Payload),
    /// The caller interrupted: stop the reply if it still runs and forget what was not heard. The engine must not
    /// deliver audio of these items any more.
    Interrupt {
        /// Every item with audio sent but not wholly played, with how much was heard.
        heard: Vec<Heard>,
    },
    /// Tell the model something without making it speak.
    Context(HistoryItem),
    /// The result of a tool call. The engine lets the model go on once all outputs of the reply are in.
    ToolOutput {
        /// Which call.
        call: ToolCallId,
        /// Text for the model.
        output: Redacted<String>,
    },
    /// Make the model speak now, or as soon as the active reply is over.
    Speak(Speech),
}

/// What the model is asked to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Speech {
    /// Exactly these words (greeting, prompts, goodbyes).
    Verbatim(Redacted<String>),
    /// Whatever the conversation calls for.
    Reply,
}

/// How much of an item the caller heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The item.
    pub item: ItemId,
    /// Never more than was sent of it.
    pub played: Ms,
}

/// Something said or done, for the model's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HistoryItem {
    /// By the caller.
    Caller(Redacted<String>),
    /// By the agent, as heard.
    Agent(Redacted<String>),
    /// By us, to the model.
    System(Redacted<String>),
    /// A tool call and its output.
    Tool {
        /// Which call.
        call: ToolCallId,
        /// The tool.
        name: String,
        /// JSON text.
        arguments: Redacted<String>,
        /// What came back.
        output: Redacted<String>,
    },
}

/// A tool to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolRequest {
    /// Which call.
    pub call: ToolCallId,
    /// The tool's name.
    pub name: String,
    /// JSON text.
    pub arguments: Redacted<String>,
}

/// For metrics, logs, transcript and history. The machine counts nothing itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The model is ready; the time since the leg began.
    ModelReady {
        /// Since the leg began.
        after: Ms,
    },
    /// The first audio of the agent went to the phone.
    FirstAudio {
        /// Since the leg began; none where it was for the caller to speak first.
        after: Option<Ms>,
    },
    /// The caller stopped speaking and the agent's answer began to go out.
    TurnAnswered {
        /// From the one to the other.
        latency: Ms,
    },
    /// The caller interrupted.
    BargeIn {
        /// What was heard of the item being played.
        heard: Ms,
        /// What had been sent of it.
        sent: Ms,
    },
    /// The model paused in mid-sentence for longer than what it had sent ahead lasted.
    AudioGap {
        /// What the caller heard of nothing.
        silence: Ms,
    },
    /// Audio of an older turn was dropped.
    StaleAudioDropped,
    /// Words of the caller.
    CallerTranscript {
        /// The words.
        text: Redacted<String>,
    },
    /// Words of the agent, as far as heard.
    AgentTranscript {
        /// The words.
        text: Redacted<String>,
        /// Whether they were cut short, by the caller or by the end of the leg.
        interrupted: bool,
    },
    /// A key of the caller.
    Digit,
    /// A tool ended.
    ToolEnded {
        /// Its name.
        name: String,
        /// How.
        outcome: ToolOutcome,
        /// How long it ran.
        took: Ms,
    },
    /// The model connection was lost; the machine has already asked for another, or given up.
    ModelLost {
        /// Why.
        reason: ModelLoss,
    },
    /// The prepared connection took the place of the one before.
    ModelReplaced,
    /// The prepared connection was lost before it was in use; the one in use goes on.
    SuccessorLost {
        /// Why.
        reason: ModelLoss,
    },
    /// The model refused something.
    ModelRefused {
        /// Class.
        class: RefusalClass,
    },
    /// What a reply cost.
    Usage(Usage),
}

/// How a tool ended, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToolOutcome {
    /// With a value.
    Value,
    /// With an error.
    Error,
    /// Not in time.
    TimedOut,
    /// The model named a tool that does not exist or wrote arguments that do not parse.
    Refused,
}

/// How a leg ended, and what the carrier is told when it asks what comes next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ending {
    /// Why.
    pub reason: EndReason,
    /// What `<Connect action>` answers.
    pub next: Next,
}

/// Why a call or leg ended: the metric label, the log word and the history's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// The caller hung up, or the carrier ended the stream.
    CallerHungUp,
    /// The agent said goodbye and ended it.
    AgentHungUp,
    /// A person or the API ended it.
    OperatorHungUp,
    /// Nobody spoke, also after being asked.
    SilenceTimeout,
    /// `maxCallSeconds`.
    MaxDuration,
    /// The agent sent the caller elsewhere.
    Transferred,
    /// The pod left; another leg goes on.
    HandedOver,
    /// No engine could be reached, or every one was lost.
    ModelUnreachable,
    /// The media socket ended without a stop.
    PhoneLost,
    /// The media stream broke its protocol.
    PhoneProtocol,
    /// A bug of ours.
    Internal,
}

/// What the carrier is told when the stream is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Next {
    /// The call is over.
    HangUp,
    /// Say a sentence in the carrier's voice, then hang up.
    SayAndHangUp {
        /// The sentence.
        text: String,
    },
    /// Connect to a named transfer target.
    Transfer {
        /// Its name.
        target: String,
    },
    /// Open a new stream: another pod, or this one, goes on.
    Reconnect,
}

/// An input that changed nothing, and why. Counted by the shell; never the end of a call by itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ignored {
    /// The call has ended.
    #[error("the call has ended")]
    Ended,
    /// The input does not fit the state.
    #[error("{input} does not fit the state {state}")]
    Unexpected {
        /// What came.
        input: &'static str,
        /// Where the call was.
        state: &'static str,
    },
    /// It belongs to a turn that is over.
    #[error("{input} belongs to a turn that is over")]
    Stale {
        /// What came.
        input: &'static str,
    },
    /// More than the machine keeps.
    #[error("more {input} than is kept")]
    OverLimit {
        /// What came.
        input: &'static str,
    },
}
