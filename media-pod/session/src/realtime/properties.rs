//! What holds for every order of inputs, from an honest server, a broken one, and a call that asks for anything.
//!
//! The books are kept outside of the machine, from frames and inputs alone.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::tests::{
    SPEECH_STARTED, SPEECH_STOPPED, audio, bare, config, created, done, error, frame, item_added,
    patient_config, sound, tool_call, verbatim,
};
use super::*;
use crate::io::{Heard, HistoryItem, Speech};

/// One step of a run. Small numbers, so that ids meet.
#[derive(Clone, Debug)]
enum Step {
    Server(Value),
    Raw(Vec<u8>),
    Command(ModelCommand),
    Configure,
    Pass(u64),
    Tick,
    Closed(Option<u16>),
}

fn reply() -> impl Strategy<Value = String> {
    (0_u8..5).prop_map(|n| format!("resp_{n}"))
}

fn item() -> impl Strategy<Value = String> {
    (0_u8..6).prop_map(|n| format!("item_{n}"))
}

fn call() -> impl Strategy<Value = String> {
    (0_u8..6).prop_map(|n| format!("call_{n}"))
}

fn tag() -> impl Strategy<Value = Option<String>> {
    proptest::option::of((1_u8..6).prop_map(|n| format!("response_{n}")))
}

fn server() -> impl Strategy<Value = Value> {
    let status = prop_oneof![Just("completed"), Just("cancelled"), Just("failed"), Just("incomplete")];
    let code = prop_oneof![
        4 => Just("conversation_already_has_active_response"),
        2 => Just("rate_limit_exceeded"),
        2 => Just("response_cancel_not_active"),
        2 => Just("invalid_value"),
        1 => Just("session_expired"),
    ];
    prop_oneof![
        3 => Just(json!({"type": "session.created", "session": {}})),
        3 => Just(json!({"type": "session.updated", "session": {}})),
        8 => (reply(), tag()).prop_map(|(reply, tag)| created(&reply, tag.as_deref())),
        8 => (reply(), status).prop_map(|(reply, status)| done(&reply, status)),
        4 => (reply(), item()).prop_map(|(reply, item)| item_added(&reply, &item)),
        8 => (reply(), item(), 0_usize..60).prop_map(|(reply, item, ms)| audio(&reply, &item, ms)),
        6 => (reply(), call(), prop_oneof![3 => Just("completed"), 1 => Just("incomplete")])
            .prop_map(|(reply, call, status)| tool_call(&reply, &call, status)),
        3 => call().prop_map(|call| json!({"type": "conversation.item.added",
            "item": {"type": "function_call_output", "call_id": call}})),
        3 => (code, tag()).prop_map(|(code, about)| error(code, about.as_deref())),
        3 => Just(bare(SPEECH_STARTED)),
        3 => Just(bare(SPEECH_STOPPED)),
        1 => Just(bare("brand.new")),
        1 => Just(bare("response.created")),
    ]
}

fn command() -> impl Strategy<Value = ModelCommand> {
    let heard =
        (item(), 0_u64..100).prop_map(|(item, ms)| Heard { item: item.as_str().into(), played: Ms(ms) });
    prop_oneof![
        2 => (0_usize..40).prop_map(|ms| ModelCommand::Append(sound(ms))),
        3 => proptest::collection::vec(heard, 0..3).prop_map(|heard| ModelCommand::Interrupt { heard }),
        4 => call().prop_map(|call| ModelCommand::ToolOutput {
            call: call.as_str().into(),
            output: "ok".to_owned().into(),
        }),
        2 => Just(ModelCommand::Speak(Speech::Reply)),
        2 => Just(ModelCommand::Speak(verbatim("words"))),
        1 => Just(ModelCommand::Context(HistoryItem::Caller("1".to_owned().into()))),
        1 => Just(ModelCommand::Replay(vec![HistoryItem::Agent("hi".to_owned().into())])),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        60 => server().prop_map(Step::Server),
        30 => command().prop_map(Step::Command),
        3 => Just(Step::Configure),
        3 => proptest::collection::vec(any::<u8>(), 0..60).prop_map(Step::Raw),
        6 => (0_u64..3000).prop_map(Step::Pass),
        6 => Just(Step::Tick),
        1 => proptest::option::of(1000_u16..4010).prop_map(Step::Closed),
    ]
}

/// A run: most begin with a session that opens as it should, the rest with anything.
fn run() -> impl Strategy<Value = Vec<Step>> {
    let opening = vec![
        Step::Configure,
        Step::Server(json!({"type": "session.created", "session": {}})),
        Step::Server(json!({"type": "session.updated", "session": {}})),
    ];
    let opening = prop_oneof![4 => Just(opening), 1 => Just(Vec::new())];
    (opening, proptest::collection::vec(step(), 0..120)).prop_map(|(mut steps, more)| {
        steps.extend(more);
        steps
    })
}

fn input(step: &Step, config: &RealtimeConfig) -> RealtimeInput {
    match step {
        Step::Server(event) => frame(event),
        Step::Raw(bytes) => RealtimeInput::Frame(Bytes::from(bytes.clone())),
        Step::Command(command) => RealtimeInput::Command(command.clone()),
        Step::Configure => RealtimeInput::Configure(Box::new(config.clone())),
        Step::Pass(_) | Step::Tick => RealtimeInput::Tick,
        Step::Closed(code) => RealtimeInput::Closed(Closed { code: *code }),
    }
}

/// Everything a run put out, step by step.
type Transcript = Vec<(Result<(), RealtimeError>, Vec<RealtimeOutput>)>;

fn play(steps: &[Step], config: &RealtimeConfig) -> Transcript {
    let mut machine = Realtime::new(Ms::ZERO);
    let mut now = Ms::ZERO;
    steps
        .iter()
        .map(|step| {
            if let Step::Pass(ms) = step {
                now = now + Ms(*ms);
            }
            let result = machine.handle_input(now, input(step, config));
            let mut outputs = Vec::new();
            loop {
                let output = machine.poll_output();
                let is_last = matches!(output, RealtimeOutput::Wait(_));
                outputs.push(output);
                if is_last {
                    return (result, outputs);
                }
                assert!(outputs.len() < 5_000, "a drain ends");
            }
        })
        .collect()
}

/// The books: what the machine has said, as the other side understands it.
#[derive(Default)]
struct Books {
    active: Option<String>,
    is_asked: bool,
    asked: Vec<String>,
    calls: BTreeSet<String>,
    answered: BTreeSet<String>,
    ended: usize,
    ready: usize,
}

impl Books {
    fn server_says(&mut self, event: &Value, is_taken: bool) {
        if !is_taken {
            return;
        }
        let is_latest = |tag: &Value, asked: &[String]| {
            tag.as_str().is_some_and(|tag| asked.last().is_some_and(|last| last == tag))
        };
        match event["type"].as_str() {
            Some("response.created") => {
                let tag = &event["response"]["metadata"]["request"];
                self.active = event["response"]["id"].as_str().map(str::to_owned);
                // An answer to the request, or possibly one: it is settled or taken back by an error.
                if is_latest(tag, &self.asked) || tag.is_null() {
                    self.is_asked = false;
                }
            }
            Some("response.done") => self.active = None,
            Some("error") => {
                let about = &event["error"]["event_id"];
                if is_latest(about, &self.asked) || about.is_null() {
                    self.is_asked = false;
                }
            }
            _ => {}
        }
    }

    fn machine_says(&mut self, output: &RealtimeOutput) {
        assert_eq!(self.ended, usize::from(self.ended > 0), "the end comes once");
        match output {
            RealtimeOutput::Frame(frame) => {
                assert_eq!(self.ended, 0, "nothing is sent after the end");
                let frame: Value = serde_json::from_slice(frame).expect("what is sent is JSON");
                let kind = frame["type"].as_str().expect("what is sent has a type");
                assert!(self.ready > 0 || kind == "session.update", "{kind} before the session is ready");
                match kind {
                    "response.create" => {
                        assert_eq!(self.active, None, "asked while a response is active");
                        assert!(!self.is_asked, "asked twice");
                        self.is_asked = true;
                        self.asked.push(frame["event_id"].as_str().unwrap().to_owned());
                    }
                    "response.cancel" => assert_eq!(frame["response_id"].as_str(), self.active.as_deref()),
                    "conversation.item.create" if frame["item"]["type"] == "function_call_output" => {
                        let call = frame["item"]["call_id"].as_str().unwrap().to_owned();
                        assert!(self.calls.contains(&call), "an output without a call");
                        assert!(self.answered.insert(call), "a second output");
                    }
                    _ => {}
                }
            }
            RealtimeOutput::Event(ModelEvent::ToolCall { call, .. }) => {
                assert!(self.calls.insert(call.as_str().to_owned()), "a call is told twice");
            }
            RealtimeOutput::Event(ModelEvent::Ready) => self.ready += 1,
            RealtimeOutput::Event(_) | RealtimeOutput::Close { .. } => assert_eq!(self.ended, 0),
            RealtimeOutput::Ended => self.ended += 1,
            RealtimeOutput::Wait(at) => {
                assert!(self.ended == 0 || at.is_none(), "an ended machine waits for nothing")
            }
        }
    }
}

proptest! {
    #[test]
    fn the_books_balance_whatever_comes(steps in run(), is_patient in any::<bool>()) {
        let config = if is_patient { patient_config() } else { config() };
        let mut books = Books::default();
        for (step, (result, outputs)) in steps.iter().zip(play(&steps, &config)) {
            if let Step::Server(event) = step {
                books.server_says(event, result.is_ok());
            }
            if result.is_err() {
                prop_assert_eq!(outputs.len(), 1, "a refused input changes nothing");
            }
            for output in &outputs {
                books.machine_says(output);
            }
        }
        prop_assert!(books.ready <= 1);
        prop_assert!(books.ended <= 1);
    }

    #[test]
    fn equal_inputs_have_equal_outputs(steps in run()) {
        let config = config();
        prop_assert_eq!(play(&steps, &config), play(&steps, &config));
    }

    #[test]
    fn every_output_the_call_gives_is_passed_on_once(calls in proptest::collection::btree_set(0_u8..40, 1..20)) {
        let mut steps = vec![
            Step::Configure,
            Step::Server(json!({"type": "session.created", "session": {}})),
            Step::Server(json!({"type": "session.updated", "session": {}})),
            Step::Server(created("resp_1", None)),
        ];
        let name = |n: &u8| format!("call_{n}");
        steps.extend(calls.iter().map(|n| Step::Server(tool_call("resp_1", &name(n), "completed"))));
        steps.push(Step::Server(done("resp_1", "completed")));
        let output = |n: &u8| {
            let output = "ok".to_owned().into();
            Step::Command(ModelCommand::ToolOutput { call: name(n).as_str().into(), output })
        };
        steps.extend(calls.iter().rev().chain(&calls).map(output));
        let transcript = play(&steps, &config());
        let count = |what: &str| {
            let frames = transcript.iter().flat_map(|(_, outputs)| outputs);
            frames.filter(|output| matches!(output, RealtimeOutput::Frame(frame)
                if std::str::from_utf8(frame).unwrap().contains(what))).count()
        };
        prop_assert_eq!(count("function_call_output"), calls.len());
        prop_assert_eq!(count("response.create"), 1);
    }
}

/// The oldest of everything is forgotten, and the machine stays small under a flood.
#[test]
fn a_flood_of_replies_items_and_calls_leaves_bounded_state() {
    let mut machine = Realtime::new(Ms::ZERO);
    let mut give = |input| {
        let _ = machine.handle_input(Ms::ZERO, input);
        while !matches!(machine.poll_output(), RealtimeOutput::Wait(_)) {}
    };
    give(RealtimeInput::Configure(Box::new(config())));
    give(frame(&json!({"type": "session.created", "session": {}})));
    give(frame(&json!({"type": "session.updated", "session": {}})));
    for n in 0..3_000 {
        let reply = format!("resp_{n}");
        give(frame(&created(&reply, None)));
        give(frame(&audio(&reply, &format!("item_{n}"), 20)));
        give(frame(&tool_call(&reply, &format!("call_{n}"), "completed")));
        give(RealtimeInput::Command(ModelCommand::Speak(verbatim("x"))));
        give(frame(&done(&reply, "completed")));
    }
    assert!(format!("{machine:?}").len() < 64 * 1024, "{}", format!("{machine:?}").len());
}
