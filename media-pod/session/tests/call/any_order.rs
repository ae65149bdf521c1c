//! Arbitrary orders of input at arbitrary times: what must hold whatever phone, model, tools, store and people do.
//!
//! Only one thing is assumed: the phone does not claim to have played what it has not.

use std::collections::{BTreeMap, BTreeSet};

use call_session::agent_file::InterruptionMode;
use call_session::audio::{BYTES_PER_MS, Payload};
use call_session::io::{
    Command, Event, HistoryItem, Ignored, Input, MarkName, ModelCommand, ModelEvent, ModelLoss, Output,
    PhoneCommand, PhoneEvent, RefusalClass, ReplyOutcome, ToolResult,
};
use call_session::journal::Fact;
use call_session::plan::Plan;
use call_session::tools::Repetition;
use call_session::{ItemId, Ms, Redacted, ReplyId, ToolCallId};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::support::Stage;
use crate::support::plan::{PlanVerbs, plan};

/// What can happen.
#[derive(Clone, Debug)]
enum Op {
    Pass(u64),
    Ready,
    Lost(ModelLoss),
    Expiring,
    SuccessorReady,
    SuccessorLost(ModelLoss),
    SpeechStarted,
    SpeechStopped,
    ReplyStarted(u8),
    Audio(u8, u8, u64),
    Working(u8),
    AudioDone(u8),
    AgentWords(u8),
    CallerWords,
    ToolCall(u8, u8, &'static str),
    ReplyEnded(u8),
    Refused,
    Media,
    Digit(char),
    LoseMark,
    RepeatMark,
    LateMark,
    ForeignMark(MarkName),
    Stopped,
    PhoneLost,
    ToolEnded(u8),
    Durable(u64),
    StoreLost,
    StoreBack,
    Drain(u64),
    HangUp,
    Tick,
}

fn op() -> impl Strategy<Value = Op> {
    let reply = 0..6_u8;
    let item = 0..8_u8;
    let loss = prop_oneof![
        Just(ModelLoss::Closed),
        Just(ModelLoss::Unreachable),
        Just(ModelLoss::Rejected),
        Just(ModelLoss::Expired)
    ];
    let loss_of_successor = prop_oneof![Just(ModelLoss::Unreachable), Just(ModelLoss::Rejected)];
    let tool =
        prop_oneof![Just("end_call"), Just("transfer"), Just("look_up"), Just("book"), Just("nonsense")];
    prop_oneof![
        10 => prop_oneof![0..400_u64, 0..40_000_u64].prop_map(Op::Pass),
        4 => Just(Op::Ready),
        1 => loss.prop_map(Op::Lost),
        2 => Just(Op::Expiring),
        2 => Just(Op::SuccessorReady),
        1 => loss_of_successor.prop_map(Op::SuccessorLost),
        6 => Just(Op::SpeechStarted),
        6 => Just(Op::SpeechStopped),
        8 => reply.clone().prop_map(Op::ReplyStarted),
        14 => (reply.clone(), item.clone(), 0..4_000_u64).prop_map(|(r, i, ms)| Op::Audio(r, i, ms)),
        1 => reply.clone().prop_map(Op::Working),
        3 => item.clone().prop_map(Op::AudioDone),
        3 => item.prop_map(Op::AgentWords),
        1 => Just(Op::CallerWords),
        4 => (0..6_u8, reply.clone(), tool).prop_map(|(t, r, name)| Op::ToolCall(t, r, name)),
        6 => reply.prop_map(Op::ReplyEnded),
        1 => Just(Op::Refused),
        3 => Just(Op::Media),
        2 => prop_oneof![Just('1'), Just('#'), Just('x')].prop_map(Op::Digit),
        2 => Just(Op::LoseMark),
        2 => Just(Op::RepeatMark),
        2 => Just(Op::LateMark),
        1 => (1..3_u32, 0..3_u32, 0..50_u64)
            .prop_map(|(epoch, generation, sequence)| Op::ForeignMark(MarkName { epoch, generation, sequence })),
        4 => (0..6_u8).prop_map(Op::ToolEnded),
        3 => (0..20_u64).prop_map(Op::Durable),
        1 => Just(Op::StoreLost),
        1 => Just(Op::StoreBack),
        2 => Just(Op::Tick),
    ]
}

/// What ends a call; at most one of them, late.
fn last_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => Just(Op::Tick),
        1 => Just(Op::Stopped),
        1 => Just(Op::PhoneLost),
        1 => Just(Op::HangUp),
        2 => (0..30_000_u64).prop_map(Op::Drain),
    ]
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    (vec(op(), 0..60), last_op(), vec(op(), 0..20)).prop_map(|(before, last, after)| {
        let begin = [Op::Pass(50), Op::Ready];
        begin.into_iter().chain(before).chain([last]).chain(after).collect()
    })
}

fn any_plan() -> impl Strategy<Value = Plan> {
    let mode = prop_oneof![
        3 => Just(InterruptionMode::Immediate),
        1 => Just(InterruptionMode::Confirmed),
        1 => Just(InterruptionMode::Never)
    ];
    (mode, 0..3_u8, any::<bool>()).prop_map(|(mode, greeting, keeps_context)| {
        let plan = plan().interrupted(mode).transfers_to("sales").falls_back_to("second").lasts(900);
        let plan = plan.with_tool("look_up", Repetition::Harmless).with_tool("book", Repetition::OnceOnly);
        let plan = match greeting {
            0 => plan,
            1 => plan.greets("Hello."),
            _ => plan.greets_to_the_end("Hello."),
        };
        if keeps_context { plan } else { plan.without_context() }
    })
}

/// A call and what was seen of it.
struct Observed {
    stage: Stage,
    log: Vec<Output>,
    begun: BTreeSet<ReplyId>,
    fenced_replies: BTreeSet<ReplyId>,
    fenced_items: BTreeSet<ItemId>,
    sent: BTreeMap<ItemId, u64>,
    asked: BTreeSet<ToolCallId>,
    requested: BTreeSet<ToolCallId>,
    answered: BTreeSet<ToolCallId>,
    replayed: BTreeSet<ToolCallId>,
    written: BTreeMap<ToolCallId, u64>,
    durable: u64,
    sequence: u64,
    current: Current,
    successor: Prepared,
}

/// The connection in use, as whoever carries the call's outputs out knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Current {
    Open,
    Missing,
}

/// The connection beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Prepared {
    Open,
    Connecting,
    Missing,
}

impl Observed {
    fn new(plan: Plan) -> Self {
        let mut seen = Self {
            stage: Stage::dialled(plan),
            log: Vec::new(),
            begun: BTreeSet::new(),
            fenced_replies: BTreeSet::new(),
            fenced_items: BTreeSet::new(),
            sent: BTreeMap::new(),
            asked: BTreeSet::new(),
            requested: BTreeSet::new(),
            answered: BTreeSet::new(),
            replayed: BTreeSet::new(),
            written: BTreeMap::new(),
            durable: 0,
            sequence: 0,
            current: Current::Missing,
            successor: Prepared::Missing,
        };
        seen.look(None);
        seen
    }

    fn act(&mut self, op: &Op) {
        let reply = |n: &u8| ReplyId::from(format!("r{n}").as_str());
        let item = |n: &u8| ItemId::from(format!("i{n}").as_str());
        let tool = |n: &u8| ToolCallId::from(format!("t{n}").as_str());
        let words = || Redacted::new("one two three four five".to_owned());
        let mut source = None;
        let input = match op {
            Op::Pass(milliseconds) => {
                self.stage.run(*milliseconds);
                return self.look(None);
            }
            Op::LoseMark => return self.stage.phone.lose_mark(),
            Op::RepeatMark => match self.stage.last_echo {
                Some(mark) => Input::Phone(PhoneEvent::Mark(mark)),
                None => return,
            },
            Op::LateMark => match self.stage.phone.find_mark(self.stage.now) {
                Some(mark) => Input::Phone(PhoneEvent::Mark(mark)),
                None => return,
            },
            Op::ForeignMark(mark) => Input::Phone(PhoneEvent::Mark(*mark)),
            Op::Ready => Input::Model(ModelEvent::Ready),
            Op::Lost(reason) => Input::Model(ModelEvent::Lost { reason: *reason }),
            Op::Expiring => Input::Model(ModelEvent::Expiring),
            Op::SuccessorReady if self.successor == Prepared::Connecting => {
                self.successor = Prepared::Open;
                Input::Successor(ModelEvent::Ready)
            }
            Op::SuccessorReady => return,
            Op::SuccessorLost(reason) => {
                self.successor = Prepared::Missing;
                Input::Successor(ModelEvent::Lost { reason: *reason })
            }
            Op::SpeechStarted => Input::Model(ModelEvent::SpeechStarted),
            Op::SpeechStopped => Input::Model(ModelEvent::SpeechStopped),
            Op::ReplyStarted(r) => Input::Model(ModelEvent::ReplyStarted { reply: reply(r) }),
            Op::Audio(r, i, milliseconds) => {
                source = Some((reply(r), item(i)));
                let audio = match milliseconds {
                    0 => Payload::from_mulaw(&[]),
                    _ => self.stage.phone.voice(&item(i), milliseconds * BYTES_PER_MS + 3),
                };
                Input::Model(ModelEvent::Audio { reply: reply(r), item: item(i), audio })
            }
            Op::Working(r) => Input::Model(ModelEvent::Working { reply: reply(r) }),
            Op::AudioDone(i) => Input::Model(ModelEvent::AudioDone { item: item(i) }),
            Op::AgentWords(i) => Input::Model(ModelEvent::AgentTranscript { item: item(i), text: words() }),
            Op::CallerWords => {
                Input::Model(ModelEvent::CallerTranscript { item: "caller".into(), text: words() })
            }
            Op::ToolCall(t, r, name) => {
                let arguments = Redacted::new(r#"{"target":"sales"}"#.to_owned());
                let name = (*name).to_owned();
                Input::Model(ModelEvent::ToolCall { call: tool(t), reply: reply(r), name, arguments })
            }
            Op::ReplyEnded(r) => {
                Input::Model(ModelEvent::ReplyEnded { reply: reply(r), outcome: ReplyOutcome::Completed })
            }
            Op::Refused => Input::Model(ModelEvent::Refused { class: RefusalClass::Server }),
            Op::Media => {
                let audio = Payload::from_mulaw(&[0; 160]);
                Input::Phone(PhoneEvent::Media { timestamp: self.stage.now, audio })
            }
            Op::Digit(key) => Input::Phone(PhoneEvent::Digit(Redacted::new(*key))),
            Op::Stopped => Input::Phone(PhoneEvent::Stopped),
            Op::PhoneLost => Input::Phone(PhoneEvent::Lost),
            Op::ToolEnded(t) => Input::ToolEnded { call: tool(t), result: ToolResult::Value(words()) },
            Op::Durable(up_to) => {
                let up_to = (*up_to).min(self.sequence);
                self.durable = self.durable.max(up_to);
                Input::JournalDurable { up_to }
            }
            Op::StoreLost => Input::StoreLost,
            Op::StoreBack => Input::StoreBack,
            Op::Drain(milliseconds) => Input::Drain { deadline: self.stage.now + Ms(*milliseconds) },
            Op::HangUp => Input::Command(Command::HangUp),
            Op::Tick => Input::Tick,
        };
        let had_ended = self.stage.ended.is_some();
        let result = self.stage.input(input);
        assert!(!had_ended || result == Err(Ignored::Ended));
        match op {
            Op::ToolCall(t, ..) if result.is_ok() => _ = self.asked.insert(tool(t)),
            Op::ReplyStarted(r) if result.is_ok() => _ = self.begun.insert(reply(r)),
            Op::Ready if result.is_ok() => self.current = Current::Open,
            _ => {}
        }
        self.look(source);
    }

    /// Checks what came; `source` is the reply and item of the audio that was put in.
    fn look(&mut self, source: Option<(ReplyId, ItemId)>) {
        for output in self.stage.take() {
            match &output {
                Output::Phone(PhoneCommand::Audio(audio)) => {
                    let (reply, item) = source.as_ref().expect("audio goes out only when audio comes in");
                    assert!(!self.fenced_replies.contains(reply), "{reply} was interrupted");
                    assert!(!self.fenced_items.contains(item), "{item} was interrupted");
                    assert!(self.begun.contains(reply), "{reply} was never announced");
                    *self.sent.entry(item.clone()).or_default() += audio.mulaw_len();
                }
                Output::Phone(PhoneCommand::Mark(_)) => {}
                Output::Phone(PhoneCommand::Clear) => self.fenced_replies.extend(self.begun.iter().cloned()),
                Output::Model(command) => self.look_at_command(command),
                Output::Tool(request) => {
                    assert!(self.requested.insert(request.call.clone()), "{} ran twice", request.call);
                    if request.name == "book" {
                        assert!(self.written[&request.call] <= self.durable, "ran before it was on record");
                    }
                }
                Output::Journal(entry) => {
                    self.sequence += 1;
                    assert_eq!(entry.sequence, self.sequence);
                    if let Fact::ToolStarted { call, .. } = &entry.fact {
                        self.written.insert(call.clone(), entry.sequence);
                    }
                }
                Output::Event(Event::BargeIn { heard, sent }) => assert!(heard <= sent),
                Output::Connect { .. } => {
                    assert_eq!(self.current, Current::Missing, "a connection that works is let go");
                    self.successor = Prepared::Missing;
                }
                Output::Prepare { .. } => {
                    assert_eq!(self.current, Current::Open, "it would be the only connection");
                    assert_ne!(self.successor, Prepared::Open, "a connection that works is let go");
                    self.successor = Prepared::Connecting;
                }
                Output::Switch => {
                    assert_eq!(self.successor, Prepared::Open, "nothing takes its place");
                    (self.current, self.successor) = (Current::Open, Prepared::Missing);
                }
                Output::Comfort => {
                    assert_eq!(self.current, Current::Open, "without a model it is not asked for");
                    assert!(!self.stage.phone.is_playing(self.stage.now), "the agent is heard");
                }
                Output::Event(Event::ModelLost { .. }) => self.current = Current::Missing,
                Output::Event(Event::SuccessorLost { .. }) => self.successor = Prepared::Missing,
                Output::Event(_) | Output::Ended(_) => {}
                Output::Wait(_) => unreachable!("the stage keeps waits to itself"),
            }
            self.log.push(output);
        }
    }

    fn look_at_command(&mut self, command: &ModelCommand) {
        match command {
            ModelCommand::Interrupt { heard } => {
                self.fenced_replies.extend(self.begun.iter().cloned());
                for heard in heard {
                    let played = self.stage.phone.heard(&heard.item, self.stage.now);
                    let sent = self.sent.get(&heard.item).copied().unwrap_or_default();
                    assert!(heard.played.0 * BYTES_PER_MS <= played, "more than was played");
                    assert!(played <= sent, "more than was sent");
                    self.fenced_items.insert(heard.item.clone());
                }
            }
            ModelCommand::ToolOutput { call, .. } | ModelCommand::Context(HistoryItem::Tool { call, .. }) => {
                assert!(!self.replayed.contains(call), "{call} was answered by a replay");
                assert!(self.answered.insert(call.clone()), "{call} was answered twice");
            }
            ModelCommand::Replay(items) => {
                assert!(items.len() <= 440, "the memory grows");
                for item in items {
                    if let HistoryItem::Tool { call, .. } = item {
                        self.replayed.insert(call.clone());
                    }
                }
            }
            ModelCommand::Append(_) | ModelCommand::Context(_) | ModelCommand::Speak(_) => {}
        }
    }

    /// After a while without the caller, with a model that answers: nothing is left unanswered.
    fn settle(&mut self) {
        self.act(&Op::Ready);
        for n in 0..6 {
            self.act(&Op::ReplyEnded(n));
        }
        self.act(&Op::Pass(25_000));
        self.act(&Op::Ready);
        if self.stage.ended.is_none() {
            for call in &self.asked {
                assert!(self.answered.contains(call) || self.replayed.contains(call), "{call} has no output");
            }
        }
    }
}

fn watch(plan: Plan, ops: &[Op]) -> Observed {
    let mut seen = Observed::new(plan);
    for op in ops {
        seen.act(op);
    }
    seen
}

proptest! {
    // Of the calls that anything may happen in, many have ended, or are silent, when they should be heard.
    #![proptest_config(ProptestConfig { max_global_rejects: 1 << 16, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn whatever_happens_the_invariants_hold_and_the_call_ends(plan in any_plan(), ops in ops()) {
        let limit = plan.max_call;
        let mut seen = watch(plan, &ops);
        seen.settle();
        seen.act(&Op::Pass(limit.0));
        prop_assert!(seen.stage.ended.is_some());
        prop_assert!(matches!(seen.log.last(), Some(Output::Ended(_))));
        prop_assert_eq!(seen.log.iter().filter(|output| matches!(output, Output::Ended(_))).count(), 1);
    }

    #[test]
    fn the_same_inputs_and_seed_make_the_same_outputs(plan in any_plan(), ops in ops()) {
        let (once, again) = (watch(plan.clone(), &ops), watch(plan, &ops));
        prop_assert_eq!(once.log, again.log);
    }

    #[test]
    fn a_journal_of_any_call_can_be_resumed(plan in any_plan(), ops in ops()) {
        let seen = watch(plan.clone(), &ops);
        let mut stage = seen.stage.resumed(plan);
        prop_assert_eq!(stage.ended.clone(), None);
        let _ = stage.input(Input::Model(ModelEvent::Ready));
        stage.run_to_end();
    }

    #[test]
    fn whoever_hears_the_agent_when_the_line_is_lost_hears_it_again(plan in any_plan(), ops in vec(op(), 0..60)) {
        let mut seen = watch(plan.clone(), &ops);
        // A reply that no other op knows of, once there is a model.
        for op in [Op::Pass(5000), Op::Ready, Op::SpeechStopped, Op::ReplyStarted(6), Op::Audio(6, 8, 2000)] {
            seen.act(&op);
        }
        let mut stage = seen.stage;
        prop_assume!(stage.ended.is_none() && stage.phone.is_playing(stage.now));
        stage.input(Input::Phone(PhoneEvent::Lost)).expect("the call goes on");
        let mut stage = stage.resumed(plan);
        stage.input(Input::Model(ModelEvent::Ready)).expect("the first connection");
        let is_asked = |output: &Output| matches!(output, Output::Model(ModelCommand::Speak(_)));
        prop_assert!(stage.take().iter().any(is_asked));
    }
}
