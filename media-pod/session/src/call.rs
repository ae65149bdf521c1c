//! The call machine: what happens between a phone and a speech model, whoever makes the model.
//!
//! It owns every decision of a call (greeting, turns, barge-in, tools, limits, the end) and no effect: see the drain
//! rule in the crate's documentation. It never reads a clock, a random source or the environment, and never speaks a
//! provider's protocol. States and their transitions are in `state`, the table of timers in `timer`;
//! `docs/session.md` shows all of it together with the tests.
//!
//! This file is the frame: inputs are handed to the part that knows them, and after each one [`Call::settle`] does
//! what has become possible. The parts: `model` (connection), `ear` (gaps in the caller's audio), `dead_air` (gaps in the agent's), `speech` (floor and barge-in), `voice` (replies and
//! their audio), `toolbox` (tools and call control), `limits` (silence, duration, keys, hand-over), `record` (memory and
//! journal), `inheritance` (what a leg takes over from those before it).

mod dead_air;
mod ear;
mod inheritance;
mod limits;
mod model;
mod record;
mod replies;
mod speech;
mod toolbox;
mod voice;

use std::collections::VecDeque;
use std::sync::Arc;

use crate::io::{
    EndReason, Ending, Event, HistoryItem, Ignored, Input, ModelCommand, Next, Output, PhoneEvent, Speech,
};
use crate::journal::{Fact, Journal};
use crate::plan::Plan;
use crate::playback::Playback;
use crate::state::{Attempt, Claim, Floor, Link, Opening, Parting, Patience, Phase, Stay};
use crate::timer::{Timer, TimerTable};
use crate::tools::{self, ToolDefinition};
use crate::{Epoch, Ms, Redacted};
use ear::Ear;
use inheritance::Inheritance;
use limits::Digits;
use model::{Dice, WaitingAudio};
use record::{Memory, Scribe};
use replies::Replies;
use toolbox::Toolbox;
use voice::Words;

/// One leg of a call, from the authenticated start of its media stream to its end.
#[derive(Clone, Debug)]
pub struct Call {
    plan: Arc<Plan>,
    began: Ms,
    now: Ms,
    outputs: VecDeque<Output>,
    timers: TimerTable,
    phase: Phase,
    link: Link,
    floor: Floor,
    opening: Opening,
    patience: Patience,
    /// When the caller's last turn ended.
    turn_ended: Option<Ms>,
    stay: Stay,
    dice: Dice,
    /// Counts connections, so that an answer is given on the one it was asked on.
    connection: u32,
    ear: Ear,
    /// What the caller said while no model listened.
    waiting: WaitingAudio,
    /// What the caller said last on a connection that will be replaced.
    recent: WaitingAudio,
    replies: Replies,
    playback: Playback,
    words: Words,
    memory: Memory,
    scribe: Scribe,
    toolbox: Toolbox,
    digits: Digits,
    debt: Debt,
    /// Replies in a row that failed before a sound of them was heard.
    failed_replies: u32,
    /// Replies given up because nothing more of them was heard, since one was completed.
    mute_replies: u32,
    first_sound: FirstSound,
}

/// How a leg begins.
#[derive(Clone, Debug)]
pub enum Start {
    /// The call's first leg.
    Fresh,
    /// Another leg went before; this is what it and its predecessors wrote.
    Resumed(Journal),
    /// Another leg went before; what it wrote is not to be had. The caller is not greeted again, and told what happened.
    Unknown,
}

/// Whether the model must be asked for a reply as soon as it is idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Debt {
    None,
    Reply,
    /// A reply, by a model that must first be told that its predecessor was cut off.
    Sentence,
}

/// Whether the leg's first audio went out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FirstSound {
    /// Not yet, and the caller has waited for it since the leg began.
    Owed,
    /// Not yet: it is for the caller to speak first.
    AfterCaller,
    Heard,
}

/// Timers that can fire on one input: each once, and each may set one other.
const MAX_FIRED: usize = 24;

impl Call {
    /// Begins a leg at `now`: asks for the first engine. `seed` is the only source of chance (backoff jitter).
    pub fn new(plan: Arc<Plan>, epoch: Epoch, start: Start, now: Ms, seed: u64) -> Self {
        let Inheritance { opening, scribe, memory, debt } = Inheritance::of(&plan, epoch, start, now);
        let speaks_first = opening == Opening::Due || debt != Debt::None;
        let first_sound = if speaks_first { FirstSound::Owed } else { FirstSound::AfterCaller };
        let mut call = Self {
            plan,
            began: now,
            now,
            outputs: VecDeque::new(),
            timers: TimerTable::default(),
            phase: Phase::Open,
            link: Link::BackingOff(Attempt { engine: 0, failures: 0 }),
            floor: Floor::Open,
            opening,
            patience: Patience::Fresh,
            turn_ended: None,
            stay: Stay::Here,
            dice: Dice::new(seed),
            connection: 0,
            ear: Ear::default(),
            waiting: WaitingAudio::default(),
            recent: WaitingAudio::default(),
            replies: Replies::default(),
            playback: Playback::new(epoch),
            words: Words::default(),
            memory,
            scribe,
            toolbox: Toolbox::default(),
            digits: Digits::default(),
            debt,
            failed_replies: 0,
            mute_replies: 0,
            first_sound,
        };
        call.connect();
        call.write(Fact::Attached);
        call.start_clocks();
        call
    }

    /// What the model is offered in a call of `plan`; engines configure their session with it.
    pub fn tools(plan: &Plan) -> Vec<ToolDefinition> {
        tools::definitions(plan)
    }

    /// Takes one input; poll [`Call::poll_output`] until [`Output::Wait`] or [`Output::Ended`] afterwards.
    ///
    /// *Flow:* timers due at `now` fire first, then the input takes effect, then what it made possible happens.
    ///
    /// *Errors:* [`Ignored`] says why an input changed nothing of the conversation. It is never the end of the call,
    /// and outputs (fired timers, a stale-audio event) may still be waiting.
    ///
    /// # Errors
    /// See above.
    pub fn handle_input(&mut self, now: Ms, input: Input) -> Result<(), Ignored> {
        self.now = self.now.max(now);
        self.fire_timers();
        if self.phase == Phase::Ended {
            return Err(Ignored::Ended);
        }
        let result = self.dispatch(input);
        self.settle();
        result
    }

    /// The next thing to do. [`Output::Wait`] ends the drain.
    pub fn poll_output(&mut self) -> Output {
        self.outputs.pop_front().unwrap_or_else(|| {
            let next = if self.phase == Phase::Ended { None } else { self.timers.next() };
            Output::Wait(next)
        })
    }

    fn dispatch(&mut self, input: Input) -> Result<(), Ignored> {
        match input {
            Input::Phone(event) => self.handle_phone(event),
            Input::Model(event) => self.handle_model(event),
            Input::Successor(event) => self.handle_successor(event),
            Input::ToolEnded { call, result } => self.handle_tool_ended(&call, result),
            Input::JournalDurable { up_to } => self.handle_durable(up_to),
            // Waiting for durability is bounded by each tool's own deadline, whatever the store does.
            Input::StoreLost | Input::StoreBack | Input::Tick => Ok(()),
            Input::Drain { deadline } => self.handle_drain(deadline),
            Input::Command(command) => self.handle_command(&command),
        }
    }

    fn handle_phone(&mut self, event: PhoneEvent) -> Result<(), Ignored> {
        match event {
            PhoneEvent::Media { timestamp, audio } => {
                self.hear(timestamp, audio);
                Ok(())
            }
            PhoneEvent::Digit(digit) => self.handle_digit(digit),
            PhoneEvent::Mark(name) => self.handle_mark(name),
            PhoneEvent::Stopped => {
                self.end(EndReason::CallerHungUp, Next::HangUp);
                Ok(())
            }
            PhoneEvent::Lost => {
                // Nobody hung up: the carrier asks what comes next, and another leg can go on.
                self.end(EndReason::PhoneLost, Next::Reconnect);
                Ok(())
            }
        }
    }

    fn fire_timers(&mut self) {
        for _ in 0..MAX_FIRED {
            if self.phase == Phase::Ended {
                return;
            }
            let Some(timer) = self.timers.pop_due(self.now) else { return };
            match timer {
                Timer::MaxDuration => self.end(EndReason::MaxDuration, Next::HangUp),
                Timer::HandOver => self.hand_over(),
                Timer::Farewell => self.end_parting(),
                Timer::PlayOut => self.playback.assume_played(),
                Timer::Connect => self.give_up_connecting(),
                Timer::Backoff => self.connect(),
                Timer::Successor => self.attend_successor(),
                Timer::ConfirmSpeech => self.confirm_speech(),
                Timer::EndlessSpeech => self.floor.open(),
                Timer::Stall => self.fill_silence(),
                Timer::Reply => self.give_up_reply(),
                Timer::AskAgain => self.ask_again(),
                Timer::DeadAir => self.push(Output::Comfort),
                Timer::MuteReply => self.give_up_mute_reply(),
                Timer::Tool => self.time_out_tools(),
                Timer::Filler => self.fill_wait(),
                Timer::Digits => self.flush_digits(),
                Timer::Silence => self.lose_patience(),
                Timer::Announce => self.announce_end(),
            }
            self.settle();
        }
    }

    /// Does what the last input or timer made possible, until nothing is.
    fn settle(&mut self) {
        if self.phase == Phase::Ended {
            return;
        }
        self.collect_played();
        self.settle_opening();
        self.settle_parting();
        if self.phase == Phase::Ended {
            return;
        }
        self.settle_debt();
        if self.stay == Stay::Leaving && self.is_pause() {
            self.hand_over();
            return;
        }
        if self.link.has_successor() && self.is_pause() {
            self.replace();
        }
        self.settle_clocks();
    }

    /// Whether nothing is going on: nobody speaks, nothing plays, nothing is owed or being done.
    fn is_pause(&self) -> bool {
        self.phase == Phase::Open
            && self.link.is_ready()
            && self.floor == Floor::Open
            && !self.opening.is_going_on()
            && !self.is_agent_busy()
            && self.toolbox.is_empty()
            && self.digits.is_empty()
            && self.debt == Debt::None
    }

    /// Whether the agent is thinking or heard.
    fn is_agent_busy(&self) -> bool {
        self.replies.is_any_active() || !self.playback.is_silent()
    }

    /// Whether the caller hears the agent, or waits for its words.
    fn is_agent_awaited(&self) -> bool {
        let is_caller_s_turn = self.floor == Floor::Caller(Claim::Turn) && !self.is_agent_busy();
        let is_anything_due = self.is_agent_busy()
            || self.is_answer_awaited()
            || self.debt != Debt::None
            || !self.toolbox.is_empty()
            || !self.digits.is_empty();
        is_anything_due && !is_caller_s_turn
    }

    fn end_parting(&mut self) {
        if let Phase::Parting(Parting { ending, .. }) = &self.phase {
            let Ending { reason, next } = ending.clone();
            self.end(reason, next);
        }
    }

    /// The end, from any state: what was heard is put on record, and whether a next leg has to speak first; then
    /// [`Output::Ended`], then nothing.
    fn end(&mut self, reason: EndReason, next: Next) {
        if self.phase == Phase::Ended {
            return;
        }
        let departure = if self.is_agent_awaited() { Fact::CutOff } else { Fact::Left };
        self.conclude_words();
        if next == Next::Reconnect {
            self.write(departure);
        }
        self.phase.end();
        self.outputs.push_back(Output::Ended(Ending { reason, next }));
    }

    fn push(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    fn command(&mut self, command: ModelCommand) {
        self.push(Output::Model(command));
    }

    fn event(&mut self, event: Event) {
        self.push(Output::Event(event));
    }

    fn write(&mut self, fact: Fact) {
        self.write_of(self.now, fact);
    }

    /// Writes what happened at a time but became known only now.
    fn write_of(&mut self, at: Ms, fact: Fact) {
        if let Some(entry) = self.scribe.write(at, fact) {
            self.push(entry);
        }
    }

    /// Tells the model something now, and the next connection again.
    fn tell(&mut self, item: HistoryItem) {
        if self.link.is_ready() {
            self.command(ModelCommand::Context(item.clone()));
        }
        self.memory.push(self.now, item);
    }

    /// Makes the model say something of ours.
    fn say(&mut self, words: Redacted<String>) {
        self.command(ModelCommand::Speak(Speech::Verbatim(words)));
        self.await_reply();
    }

    fn owe_reply(&mut self) {
        if self.debt == Debt::None {
            self.debt = Debt::Reply;
        }
    }

    fn await_reply(&mut self) {
        self.floor.await_reply();
        self.timers.set(Timer::Reply, self.now + limits::REPLY_BEGINS);
    }
}
