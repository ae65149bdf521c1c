//! Whole calls: phone, call machine, Realtime machine and a server, each acting when and as the bytes say.
//!
//! Three bytes are one act: what, of which reply or item, how long or much. The finer promises are tested in
//! `call-session` over arbitrary orders; here stands what must hold for every order that coverage can find.

use std::collections::{BTreeSet, VecDeque};

use call_session::agent_file::{
    Engine, EngineKind, GreetingInterruption, Interruption, InterruptionMode, RecoveryKind, SimulatedEngine,
};
use call_session::audio::Payload;
use call_session::io::{
    Command, Input, MarkName, ModelEvent, ModelLoss, Output, PhoneCommand, PhoneEvent, ToolResult,
};
use call_session::plan::{Phrases, Plan, PlannedGreeting};
use call_session::realtime::{Closed, Realtime, RealtimeInput, RealtimeOutput};
use call_session::tools::{PlannedTool, Repetition, ToolDefinition};
use call_session::{Call, Epoch, Ms, Redacted, Start, ToolCallId};
use serde_json::{Value, json};

/// Outputs of one input; far more than any has.
const MOST_OUTPUTS: usize = 10_000;
/// Acts of one call; more only take time.
const MOST_ACTS: usize = 400;

/// A call lives on until something ends it, ends once, and asks for each tool once.
pub(crate) fn run(data: &[u8]) {
    let (choice, acts) = data.split_first().unwrap_or((&0, &[]));
    let mut line = Line::open(plan(*choice));
    for act in acts.chunks_exact(3).take(MOST_ACTS) {
        line.act(act[0], act[1], act[2]);
    }
    // Left alone, every call ends: by silence, or by its longest time.
    line.now = line.now + Ms::from_secs(24 * 3600);
    line.feed(Input::Phone(PhoneEvent::Stopped));
    assert!(line.has_ended, "a stream that stopped ends the call");
}

/// Takes all outputs of one input.
pub(crate) fn drain(call: &mut Call, take: &mut dyn FnMut(Output)) {
    for _ in 0..MOST_OUTPUTS {
        match call.poll_output() {
            Output::Wait(_) => return,
            output => take(output),
        }
    }
    panic!("a drain does not end");
}

/// One of the plans, by number.
pub(crate) fn plan(choice: u8) -> Plan {
    let tool = |name: &str, repetition| PlannedTool {
        definition: ToolDefinition {
            name: name.to_owned(),
            description: "A tool.".to_owned(),
            parameters: json!({"type": "object"}),
        },
        repetition,
        timeout: Ms::from_secs(20),
    };
    let engine = |name: &str| Engine {
        name: name.to_owned(),
        kind: EngineKind::Simulated { simulated: SimulatedEngine::default() },
    };
    let greeting = |interruption| PlannedGreeting { text: Redacted::new("Hello.".to_owned()), interruption };
    let mode = [InterruptionMode::Immediate, InterruptionMode::Confirmed, InterruptionMode::Never];
    Plan {
        language: "en-US".to_owned(),
        instructions: Redacted::new("Be kind.".to_owned()),
        greeting: match choice / 4 % 3 {
            0 => None,
            1 => Some(greeting(GreetingInterruption::Allowed)),
            _ => Some(greeting(GreetingInterruption::Disallowed)),
        },
        engines: vec![engine("first"), engine("second")],
        interruption: Interruption { mode: mode[usize::from(choice % 3)], ..Interruption::default() },
        transfer_targets: vec!["sales".to_owned()],
        max_call: Ms::from_secs(900),
        silence: Ms::from_secs(30),
        recovery: if choice < 128 { RecoveryKind::WithContext } else { RecoveryKind::WithoutContext },
        tools: vec![tool("look_up", Repetition::Harmless), tool("book", Repetition::OnceOnly)],
        phrases: Phrases::default(),
    }
}

fn frame(event: Value) -> RealtimeInput {
    RealtimeInput::Frame(event.to_string().into())
}

struct Line {
    plan: Plan,
    call: Call,
    realtime: Realtime,
    /// Opened beside the connection in use.
    successor: Option<Realtime>,
    now: Ms,
    marks: VecDeque<MarkName>,
    /// What the Realtime machine said and the call has not been told yet.
    pending: VecDeque<Input>,
    sequence: u64,
    asked: BTreeSet<ToolCallId>,
    has_ended: bool,
}

impl Line {
    fn open(plan: Plan) -> Self {
        let call = Call::new(plan.clone().into(), Epoch(1), Start::Fresh, Ms::ZERO, 7);
        let mut line = Self {
            plan,
            call,
            realtime: Realtime::new(Ms::ZERO),
            successor: None,
            now: Ms::ZERO,
            marks: VecDeque::new(),
            pending: VecDeque::new(),
            sequence: 0,
            asked: BTreeSet::new(),
            has_ended: false,
        };
        line.take_all();
        line.settle();
        line
    }

    fn act(&mut self, what: u8, which: u8, much: u8) {
        let response = format!("r{}", which % 4);
        let item = format!("i{}", which / 4 % 8);
        let tool = ToolCallId::from(format!("t{}", which % 4).as_str());
        match what % 29 {
            0 => self.pass(u64::from(much)),
            1 => self.pass(u64::from(much) * 200),
            2 => self
                .server(json!({"type": "session.created", "session": {"expires_at": u64::from(much) * 100}})),
            3 => self.server(json!({"type": "session.updated", "session": {}})),
            4 => self.server(
                json!({"type": "input_audio_buffer.speech_started", "audio_start_ms": 1, "item_id": item}),
            ),
            5 => self.server(
                json!({"type": "input_audio_buffer.speech_stopped", "audio_end_ms": 2, "item_id": item}),
            ),
            6 => self.server(
                json!({"type": "response.created", "response": {"id": response, "status": "in_progress"}}),
            ),
            7 | 8 => self.server(
                json!({"type": "response.output_item.added", "response_id": response, "output_index": 0,
                "item": {"id": item, "type": "message", "role": "assistant", "content": []}}),
            ),
            9..12 => {
                let audio = Payload::from_mulaw(&vec![which; usize::from(much) * 80]);
                self.server(
                    json!({"type": "response.output_audio.delta", "response_id": response, "item_id": item,
                    "output_index": 0, "content_index": 0, "delta": audio.as_str()}),
                );
            }
            12 => self.server(
                json!({"type": "response.output_audio.done", "response_id": response, "item_id": item,
                "output_index": 0, "content_index": 0}),
            ),
            13 => self
                .server(json!({"type": "response.output_audio_transcript.done", "response_id": response,
                "item_id": item, "output_index": 0, "content_index": 0, "transcript": "One two, three."})),
            14 => self.server(
                json!({"type": "conversation.item.input_audio_transcription.completed", "item_id": item,
                "content_index": 0, "transcript": "Hello there."}),
            ),
            15 => {
                let name = ["look_up", "book", "end_call", "transfer", "nonsense"][usize::from(much % 5)];
                self.server(json!({"type": "response.output_item.done", "response_id": response, "output_index": 1,
                    "item": {"id": item, "type": "function_call", "status": "completed", "call_id": tool.as_str(),
                    "name": name, "arguments": "{\"target\":\"sales\"}"}}));
            }
            16 => {
                let status = ["completed", "cancelled", "failed", "incomplete"][usize::from(much % 4)];
                self.server(json!({"type": "response.done", "response": {"id": response, "status": status, "output": []}}));
            }
            17 => {
                let code = [
                    "conversation_already_has_active_response",
                    "session_expired",
                    "rate_limit_exceeded",
                    "response_cancel_not_active",
                    "invalid_value",
                ][usize::from(much % 5)];
                self.server(
                    json!({"type": "error", "error": {"type": "invalid_request_error", "code": code}}),
                );
            }
            18 => self.realtime_input(RealtimeInput::Closed(Closed { code: Some(1000 + u16::from(much)) })),
            19 | 20 => {
                if let Some(mark) = self.marks.pop_front() {
                    self.feed(Input::Phone(PhoneEvent::Mark(mark)));
                }
            }
            21 => drop(self.marks.pop_front()),
            22 => {
                let (timestamp, audio) = (Ms(u64::from(much) * 100), Payload::from_mulaw(&[which; 160]));
                self.feed(Input::Phone(PhoneEvent::Media { timestamp, audio }));
            }
            23 => self.feed(Input::Phone(PhoneEvent::Digit(Redacted::new(char::from(which))))),
            24 => {
                let result = match much % 3 {
                    0 => ToolResult::Value(Redacted::new("{}".to_owned())),
                    1 => ToolResult::Error(Redacted::new("no".to_owned())),
                    _ => ToolResult::TimedOut,
                };
                self.feed(Input::ToolEnded { call: tool, result });
            }
            25 => self.feed(Input::JournalDurable { up_to: self.sequence.min(u64::from(much)) }),
            26 => self.feed(if much < 128 { Input::StoreLost } else { Input::StoreBack }),
            27 => match much {
                0..8 => self.feed(Input::Drain { deadline: self.now + Ms(u64::from(which) * 100) }),
                8..12 => self.feed(Input::Command(Command::HangUp)),
                12..16 => self.feed(Input::Model(ModelEvent::Lost { reason: ModelLoss::Unreachable })),
                16..20 => self.feed(Input::Phone(PhoneEvent::Lost)),
                _ => self.feed(Input::Tick),
            },
            _ => self.successor_input(match much % 4 {
                0 => RealtimeInput::Closed(Closed { code: Some(1000 + u16::from(which)) }),
                1 => frame(json!({"type": "session.created", "session": {"expires_at": which}})),
                2 => frame(json!({"type": "session.updated", "session": {}})),
                _ => RealtimeInput::Tick,
            }),
        }
    }

    fn pass(&mut self, milliseconds: u64) {
        self.now = self.now + Ms(milliseconds);
        self.realtime_input(RealtimeInput::Tick);
        self.successor_input(RealtimeInput::Tick);
        self.feed(Input::Tick);
    }

    fn server(&mut self, event: Value) {
        self.realtime_input(frame(event));
    }

    fn realtime_input(&mut self, input: RealtimeInput) {
        self.tell_realtime(input);
        self.settle();
    }

    fn successor_input(&mut self, input: RealtimeInput) {
        let Some(successor) = &mut self.successor else { return };
        let _ = successor.handle_input(self.now, input);
        let pending = &mut self.pending;
        crate::realtime::drain(successor, &mut |output| {
            if let RealtimeOutput::Event(event) = output {
                pending.push_back(Input::Successor(event));
            }
        });
        self.settle();
    }

    fn feed(&mut self, input: Input) {
        self.pending.push_back(input);
        self.settle();
    }

    /// One input at a time, in the order in which they came.
    fn settle(&mut self) {
        while let Some(input) = self.pending.pop_front() {
            let result = self.call.handle_input(self.now, input);
            assert!(!self.has_ended || result.is_err(), "an ended call takes nothing");
            self.take_all();
        }
    }

    fn tell_realtime(&mut self, input: RealtimeInput) {
        let _ = self.realtime.handle_input(self.now, input);
        let pending = &mut self.pending;
        crate::realtime::drain(&mut self.realtime, &mut |output| {
            if let RealtimeOutput::Event(event) = output {
                pending.push_back(Input::Model(event));
            }
        });
    }

    fn take_all(&mut self) {
        let mut outputs = Vec::new();
        drain(&mut self.call, &mut |output| outputs.push(output));
        for output in outputs {
            assert!(!self.has_ended, "something after the end");
            match output {
                Output::Phone(PhoneCommand::Mark(mark)) => self.marks.push_back(mark),
                Output::Phone(PhoneCommand::Audio(_) | PhoneCommand::Clear) | Output::Event(_) => {}
                Output::Model(command) => self.tell_realtime(RealtimeInput::Command(command)),
                Output::Connect { engine } => {
                    assert!(engine < self.plan.engines.len(), "an engine that there is");
                    (self.realtime, self.successor) = (Realtime::new(self.now), None);
                    self.pending.clear(); // what a connection said is not heard once it is dropped
                    let config = crate::realtime::config(&self.plan);
                    self.tell_realtime(RealtimeInput::Configure(config));
                }
                Output::Prepare { engine } => {
                    assert!(engine < self.plan.engines.len(), "an engine that there is");
                    self.pending.retain(|input| !matches!(input, Input::Successor(_)));
                    let mut successor = Realtime::new(self.now);
                    let config = crate::realtime::config(&self.plan);
                    let _ = successor.handle_input(self.now, RealtimeInput::Configure(config));
                    self.successor = Some(successor);
                }
                Output::Switch => {
                    self.realtime = self.successor.take().expect("a successor is ready");
                    let pending = std::mem::take(&mut self.pending).into_iter();
                    self.pending = pending
                        .filter_map(|input| match input {
                            Input::Model(_) => None,
                            Input::Successor(event) => Some(Input::Model(event)),
                            other => Some(other),
                        })
                        .collect();
                }
                Output::Tool(request) => {
                    assert!(self.asked.insert(request.call.clone()), "{} ran twice", request.call);
                }
                Output::Journal(entry) => {
                    assert_eq!(entry.sequence, self.sequence + 1, "entries have no gaps");
                    self.sequence = entry.sequence;
                }
                Output::Ended(_) => self.has_ended = true,
                Output::Comfort | Output::Wait(_) => {}
            }
        }
    }
}
