//! The machine against a server that keeps its rules, in every timing: frames cross on the wire, the caller speaks at
//! any moment, tools answer late. At rest nothing may be left undone.

use std::collections::{BTreeSet, VecDeque};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::tests::{
    SPEECH_STARTED, SPEECH_STOPPED, audio, bare, config, created, done, error, frame, tool_call,
};
use super::*;
use crate::ToolCallId;
use crate::io::Speech;

/// How the server differs within its rules.
#[derive(Clone, Copy, Debug)]
struct Manners {
    echoes_tags: bool,
    acknowledges_items: bool,
}

/// What happens next.
#[derive(Clone, Copy, Debug)]
enum Happening {
    /// The server reads the next frame of ours.
    ServerReads,
    /// We read the next frame of the server.
    MachineReads,
    /// The running response makes a tool call.
    ToolIsCalled,
    /// The running response sounds.
    Audio,
    /// The running response ends.
    ResponseEnds,
    CallerBegins,
    CallerStops,
    /// The oldest tool answers.
    ToolAnswers,
    CallWantsWords,
    TimePasses,
}

/// The server and the call around the machine.
struct World {
    machine: Realtime,
    now: Ms,
    manners: Manners,
    to_server: VecDeque<Value>,
    to_machine: VecDeque<Value>,
    /// The server's view: the response that runs, and whether the caller speaks.
    running: Option<String>,
    caller_speaks: bool,
    responses: u32,
    calls: u32,
    /// Calls of responses, and calls whose output the server holds but no response has seen.
    open_calls: VecDeque<ToolCallId>,
    unseen: BTreeSet<String>,
}

impl World {
    fn new(manners: Manners) -> Self {
        let mut world = Self {
            machine: Realtime::new(Ms::ZERO),
            now: Ms::ZERO,
            manners,
            to_server: VecDeque::new(),
            to_machine: VecDeque::new(),
            running: None,
            caller_speaks: false,
            responses: 0,
            calls: 0,
            open_calls: VecDeque::new(),
            unseen: BTreeSet::new(),
        };
        world.give(RealtimeInput::Configure(Box::new(config())));
        world.give(frame(&json!({"type": "session.created"})));
        world.give(frame(&json!({"type": "session.updated"})));
        world.to_server.clear();
        world
    }

    fn give(&mut self, input: RealtimeInput) {
        let _stale_is_fine = self.machine.handle_input(self.now, input);
        loop {
            match self.machine.poll_output() {
                RealtimeOutput::Frame(frame) => {
                    self.to_server.push_back(serde_json::from_slice(&frame).unwrap())
                }
                RealtimeOutput::Event(ModelEvent::ToolCall { call, .. }) => self.open_calls.push_back(call),
                RealtimeOutput::Event(ModelEvent::Lost { reason }) => {
                    panic!("lost a good server: {reason:?}")
                }
                RealtimeOutput::Event(_) => {}
                RealtimeOutput::Close { .. } | RealtimeOutput::Ended => panic!("ended a good connection"),
                RealtimeOutput::Wait(_) => return,
            }
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::ServerReads => {
                if let Some(event) = self.to_server.pop_front() {
                    self.server_reads(&event);
                }
            }
            Happening::MachineReads => {
                if let Some(event) = self.to_machine.pop_front() {
                    self.give(frame(&event));
                }
            }
            Happening::ToolIsCalled => {
                if let Some(reply) = &self.running {
                    self.calls += 1;
                    let event = tool_call(reply, &format!("call_{}", self.calls), "completed");
                    self.to_machine.push_back(event);
                }
            }
            Happening::Audio => {
                if let Some(reply) = &self.running {
                    self.to_machine.push_back(audio(reply, &format!("item_{reply}"), 20));
                }
            }
            Happening::ResponseEnds => self.end("completed"),
            Happening::CallerBegins if !self.caller_speaks => {
                self.caller_speaks = true;
                self.to_machine.push_back(bare(SPEECH_STARTED));
                self.end("cancelled");
            }
            Happening::CallerStops if self.caller_speaks => {
                self.caller_speaks = false;
                self.to_machine.push_back(bare(SPEECH_STOPPED));
                if self.running.is_none() {
                    self.begin(None);
                }
            }
            Happening::CallerBegins | Happening::CallerStops => {}
            Happening::ToolAnswers => {
                if let Some(call) = self.open_calls.pop_front() {
                    let output = "ok".to_owned().into();
                    self.give(RealtimeInput::Command(ModelCommand::ToolOutput { call, output }));
                }
            }
            Happening::CallWantsWords => {
                self.give(RealtimeInput::Command(ModelCommand::Speak(Speech::Reply)))
            }
            Happening::TimePasses => {
                self.now = self.now + Ms(100);
                self.give(RealtimeInput::Tick);
            }
        }
    }

    fn server_reads(&mut self, event: &Value) {
        match event["type"].as_str() {
            Some("response.create") => {
                let tag = event["event_id"].as_str().unwrap();
                if self.running.is_some() {
                    self.to_machine.push_back(error("conversation_already_has_active_response", Some(tag)));
                } else {
                    self.begin(self.manners.echoes_tags.then_some(tag));
                }
            }
            Some("response.cancel") if self.running.as_deref() == event["response_id"].as_str() => {
                self.end("cancelled");
            }
            Some("response.cancel") => self.to_machine.push_back(error("response_cancel_not_active", None)),
            Some("conversation.item.create") => {
                let call = event["item"]["call_id"].as_str().unwrap().to_owned();
                if self.manners.acknowledges_items {
                    let item = json!({"type": "function_call_output", "call_id": call});
                    self.to_machine.push_back(json!({"type": "conversation.item.added", "item": item}));
                }
                assert!(self.unseen.insert(call), "an output comes once");
            }
            other => panic!("{other:?} was not expected"),
        }
    }

    fn begin(&mut self, tag: Option<&str>) {
        self.responses += 1;
        let reply = format!("resp_{}", self.responses);
        self.to_machine.push_back(created(&reply, tag));
        self.running = Some(reply);
        self.unseen.clear();
    }

    fn end(&mut self, status: &str) {
        if let Some(reply) = self.running.take() {
            self.to_machine.push_back(done(&reply, status));
        }
    }

    /// Everybody finishes what they are doing, in an order that lets frames cross once more.
    fn come_to_rest(&mut self) {
        for _ in 0..400 {
            self.happen(Happening::CallerStops);
            self.happen(Happening::ToolAnswers);
            while !self.to_server.is_empty() {
                self.happen(Happening::ServerReads);
            }
            while !self.to_machine.is_empty() {
                self.happen(Happening::MachineReads);
            }
            self.happen(Happening::ResponseEnds);
            self.happen(Happening::TimePasses);
        }
        assert!(self.to_server.is_empty() && self.to_machine.is_empty(), "it never comes to rest");
    }
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        6 => Just(Happening::ServerReads),
        8 => Just(Happening::MachineReads),
        3 => Just(Happening::ToolIsCalled),
        2 => Just(Happening::Audio),
        2 => Just(Happening::ResponseEnds),
        2 => Just(Happening::CallerBegins),
        2 => Just(Happening::CallerStops),
        2 => Just(Happening::ToolAnswers),
        1 => Just(Happening::CallWantsWords),
        2 => Just(Happening::TimePasses),
    ]
}

proptest! {
    #[test]
    fn at_rest_every_tool_output_has_been_seen_by_a_response(
        happenings in proptest::collection::vec(happening(), 0..100),
        echoes_tags in any::<bool>(),
        acknowledges_items in any::<bool>(),
    ) {
        let mut world = World::new(Manners { echoes_tags, acknowledges_items });
        for happening in happenings {
            world.happen(happening);
        }
        world.come_to_rest();
        prop_assert_eq!(&world.unseen, &BTreeSet::new());
        prop_assert!(world.open_calls.is_empty());
        let RealtimeOutput::Wait(deadline) = world.machine.poll_output() else { panic!("not drained") };
        prop_assert_eq!(deadline, Some(RETIREMENT), "it still waits for something else than its own end");
    }
}
