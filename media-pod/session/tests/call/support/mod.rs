//! A call on a stage: the machine under test, a phone that plays in virtual time, and a model that says what the test
//! tells it to.

pub(crate) mod phone;
pub(crate) mod plan;
pub(crate) mod script;

use std::sync::Arc;

use call_session::audio::{BYTES_PER_MS, Payload};
use call_session::io::{
    Command, Ending, Ignored, Input, MarkName, ModelCommand, ModelEvent, ModelLoss, Output, PhoneEvent,
    ReplyOutcome, ToolResult,
};
use call_session::journal::{Entry, Journal};
use call_session::plan::Plan;
use call_session::{Call, Epoch, ItemId, Ms, Redacted, Start};

use phone::Phone;

/// Outputs of one drain at most; the largest is a reconnect with 10 s of the caller's audio.
pub(crate) const MAX_DRAIN: usize = 4000;

/// Steps of one run at most: a livelock fails instead of hanging.
const MAX_STEPS: usize = 100_000;

pub(crate) struct Stage {
    pub(crate) now: Ms,
    pub(crate) call: Call,
    pub(crate) phone: Phone,
    /// Of this leg and those before it.
    pub(crate) journal: Vec<Entry>,
    pub(crate) ended: Option<Ending>,
    pub(crate) last_echo: Option<MarkName>,
    wake: Option<Ms>,
    fresh: Vec<(Ms, Output)>,
}

impl Stage {
    /// A call whose model is not ready yet.
    pub(crate) fn dialled(plan: Plan) -> Self {
        Self::begun(plan, Start::Fresh, Ms(1000))
    }

    pub(crate) fn begun(plan: Plan, start: Start, now: Ms) -> Self {
        let before = match &start {
            Start::Fresh | Start::Unknown => Vec::new(),
            Start::Resumed(journal) => journal.0.clone(),
        };
        let epoch = match &start {
            Start::Fresh => Epoch(0),
            Start::Resumed(_) | Start::Unknown => Epoch(before.last().map_or(1, |entry| entry.epoch.0 + 1)),
        };
        let call = Call::new(Arc::new(plan), epoch, start, now, 7);
        let phone = Phone::default();
        let mut stage = Self {
            now,
            call,
            phone,
            journal: before,
            ended: None,
            last_echo: None,
            wake: None,
            fresh: Vec::new(),
        };
        stage.drain();
        stage
    }

    /// A call whose model is ready, its first outputs already looked at.
    pub(crate) fn open(plan: Plan) -> Self {
        let mut stage = Self::dialled(plan);
        stage.model(ModelEvent::Ready);
        stage.news();
        stage
    }

    /// The same call after its pod died, on another pod.
    pub(crate) fn resumed(self, plan: Plan) -> Self {
        let now = self.now + Ms(3000);
        Self::begun(plan, Start::Resumed(Journal(self.journal)), now)
    }

    pub(crate) fn input(&mut self, input: Input) -> Result<(), Ignored> {
        let result = self.call.handle_input(self.now, input);
        self.drain();
        result
    }

    fn drain(&mut self) {
        for _ in 0..MAX_DRAIN {
            let output = self.call.poll_output();
            match &output {
                Output::Wait(wake) => {
                    self.wake = *wake;
                    return;
                }
                Output::Phone(command) => self.phone.take(self.now, command),
                Output::Journal(entry) => self.journal.push(entry.clone()),
                Output::Ended(ending) => {
                    assert_eq!(self.ended, None, "ended twice");
                    self.ended = Some(ending.clone());
                }
                _ => assert_eq!(self.ended, None, "{output:?} after the end"),
            }
            self.fresh.push((self.now, output));
        }
        panic!("a drain did not end");
    }

    /// Lets time pass: marks come back when their audio was played, ticks when they were asked for.
    pub(crate) fn run_until(&mut self, end: Ms) {
        for _ in 0..MAX_STEPS {
            let next = [self.phone.next_echo(), self.wake].into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next <= end) else {
                self.now = self.now.max(end);
                return;
            };
            self.now = self.now.max(next);
            match self.phone.pop_echo(self.now) {
                Some(mark) => {
                    self.last_echo = Some(mark);
                    let _ = self.input(Input::Phone(PhoneEvent::Mark(mark)));
                }
                None => _ = self.input(Input::Tick),
            }
            if self.ended.is_some() {
                return;
            }
        }
        panic!("time does not pass");
    }

    pub(crate) fn run(&mut self, milliseconds: u64) {
        self.run_until(self.now + Ms(milliseconds));
    }

    /// Runs until the call ends by itself.
    pub(crate) fn run_to_end(&mut self) -> Ending {
        self.run(4 * 3600 * 1000);
        self.ended.clone().expect("the call ends within hours")
    }

    pub(crate) fn model(&mut self, event: ModelEvent) {
        self.input(Input::Model(event)).expect("the call takes it");
    }

    pub(crate) fn successor(&mut self, event: ModelEvent) {
        self.input(Input::Successor(event)).expect("the call takes it");
    }

    /// The model makes a whole reply, much faster than it plays.
    pub(crate) fn agent_says(&mut self, reply: &str, item: &str, text: &str, milliseconds: u64) {
        self.agent_begins(reply, item, milliseconds);
        self.agent_finishes(reply, item, text);
    }

    /// The model begins a reply and sends some of its audio.
    pub(crate) fn agent_begins(&mut self, reply: &str, item: &str, milliseconds: u64) {
        self.model(ModelEvent::ReplyStarted { reply: reply.into() });
        self.audio(reply, item, milliseconds).expect("the call takes it");
    }

    pub(crate) fn audio(&mut self, reply: &str, item: &str, milliseconds: u64) -> Result<(), Ignored> {
        let audio = self.phone.voice(&ItemId::from(item), milliseconds * BYTES_PER_MS);
        self.input(Input::Model(ModelEvent::Audio { reply: reply.into(), item: item.into(), audio }))
    }

    pub(crate) fn agent_finishes(&mut self, reply: &str, item: &str, text: &str) {
        self.model(ModelEvent::AudioDone { item: item.into() });
        self.words(item, text);
        self.reply_ends(reply);
    }

    pub(crate) fn words(&mut self, item: &str, text: &str) {
        self.model(ModelEvent::AgentTranscript { item: item.into(), text: Redacted::new(text.to_owned()) });
    }

    pub(crate) fn reply_ends(&mut self, reply: &str) {
        self.model(ModelEvent::ReplyEnded { reply: reply.into(), outcome: ReplyOutcome::Completed });
    }

    pub(crate) fn end_reply(&mut self, reply: &str, outcome: ReplyOutcome) {
        self.model(ModelEvent::ReplyEnded { reply: reply.into(), outcome });
    }

    /// A reply begins and fails before a sound of it.
    pub(crate) fn reply_fails(&mut self, reply: &str) {
        self.model(ModelEvent::ReplyStarted { reply: reply.into() });
        self.end_reply(reply, ReplyOutcome::Failed);
    }

    pub(crate) fn caller_speaks(&mut self, milliseconds: u64) {
        self.model(ModelEvent::SpeechStarted);
        self.run(milliseconds);
        self.model(ModelEvent::SpeechStopped);
    }

    pub(crate) fn caller_said(&mut self, text: &str) {
        let text = Redacted::new(text.to_owned());
        self.model(ModelEvent::CallerTranscript { item: "caller".into(), text });
    }

    pub(crate) fn frame(&mut self) {
        let (timestamp, audio) = (self.now, Payload::from_mulaw(&[0x55; 160]));
        self.input(Input::Phone(PhoneEvent::Media { timestamp, audio })).expect("the call takes it");
    }

    pub(crate) fn press(&mut self, keys: &str) {
        for key in keys.chars() {
            self.input(Input::Phone(PhoneEvent::Digit(Redacted::new(key)))).expect("the call takes it");
            self.run(300);
        }
    }

    pub(crate) fn tool_call(&mut self, call: &str, reply: &str, name: &str, arguments: &str) {
        let (name, arguments) = (name.to_owned(), Redacted::new(arguments.to_owned()));
        self.model(ModelEvent::ToolCall { call: call.into(), reply: reply.into(), name, arguments });
    }

    pub(crate) fn tool_ends(&mut self, call: &str, value: &str) -> Result<(), Ignored> {
        let result = ToolResult::Value(Redacted::new(value.to_owned()));
        self.input(Input::ToolEnded { call: call.into(), result })
    }

    pub(crate) fn lose_model(&mut self, reason: ModelLoss) {
        self.model(ModelEvent::Lost { reason });
    }

    pub(crate) fn hang_up_command(&mut self) {
        self.input(Input::Command(Command::HangUp)).expect("the call takes it");
    }

    /// All that came since the last look.
    pub(crate) fn take(&mut self) -> Vec<Output> {
        self.fresh.drain(..).map(|(_, output)| output).collect()
    }

    /// All that came since the last look, one line each, audio with its marks summed up.
    pub(crate) fn news(&mut self) -> Vec<String> {
        script::lines(self.fresh.drain(..).map(|(_, output)| output))
    }

    /// As [`Stage::news`], only what goes to phone and model (but the caller's audio), and the end.
    pub(crate) fn deeds(&mut self) -> Vec<String> {
        let is_deed = |output: &Output| match output {
            Output::Model(ModelCommand::Append(_))
            | Output::Journal(_)
            | Output::Event(_)
            | Output::Wait(_) => false,
            Output::Phone(_)
            | Output::Model(_)
            | Output::Connect { .. }
            | Output::Prepare { .. }
            | Output::Switch
            | Output::Comfort
            | Output::Tool(_)
            | Output::Ended(_) => true,
        };
        script::lines(self.fresh.drain(..).map(|(_, output)| output).filter(is_deed))
    }

    /// As [`Stage::news`], with only events.
    pub(crate) fn events(&mut self) -> Vec<String> {
        let is_event = |output: &Output| matches!(output, Output::Event(_));
        script::lines(self.fresh.drain(..).map(|(_, output)| output).filter(is_event))
    }

    /// As [`Stage::news`], with only journal entries.
    pub(crate) fn facts(&mut self) -> Vec<String> {
        let is_entry = |output: &Output| matches!(output, Output::Journal(_));
        script::lines(self.fresh.drain(..).map(|(_, output)| output).filter(is_entry))
    }
}
