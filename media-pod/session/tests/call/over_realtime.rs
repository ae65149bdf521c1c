//! Both machines together: what the call decides, as the Realtime server sees it.

use call_session::ItemId;
use call_session::agent_file::RealtimeEngine;
use call_session::io::{Input, Output};
use call_session::plan::Plan;
use call_session::realtime::{Realtime, RealtimeConfig, RealtimeInput, RealtimeOutput};
use call_session::tools::Repetition;
use serde_json::{Value, json};

use crate::support::Stage;
use crate::support::plan::{PlanVerbs, plan};

/// A call whose engine is the Realtime machine; the test is the server.
struct Line {
    stage: Stage,
    realtime: Realtime,
    frames: Vec<Value>,
}

impl Line {
    fn open(plan: Plan) -> Self {
        let engine = json!({"url": "wss://model.example", "model": "m", "voice": "v", "apiKey": {"name": "n", "key": "k"}});
        let engine: RealtimeEngine = serde_json::from_value(engine).expect("a valid engine");
        let config = Box::new(RealtimeConfig::new(&engine, &plan));
        let mut stage = Stage::dialled(plan);
        stage.take();
        let mut line = Self { realtime: Realtime::new(stage.now), stage, frames: Vec::new() };
        line.feed(RealtimeInput::Configure(config));
        line.server(json!({"type": "session.created", "session": {}}));
        line.server(json!({"type": "session.updated", "session": {}}));
        line
    }

    fn feed(&mut self, input: RealtimeInput) {
        let _ = self.realtime.handle_input(self.stage.now, input);
        loop {
            match self.realtime.poll_output() {
                RealtimeOutput::Frame(frame) => {
                    self.frames.push(serde_json::from_slice(&frame).expect("a frame is JSON"));
                }
                RealtimeOutput::Event(event) => {
                    let _ = self.stage.input(Input::Model(event));
                }
                RealtimeOutput::Close { .. } | RealtimeOutput::Ended => panic!("the connection ended"),
                RealtimeOutput::Wait(_) => break,
            }
        }
        self.pass_on();
    }

    fn pass_on(&mut self) {
        for output in self.stage.take() {
            if let Output::Model(command) = output {
                self.feed(RealtimeInput::Command(command));
            }
        }
    }

    fn server(&mut self, event: Value) {
        self.feed(RealtimeInput::Frame(event.to_string().into()));
    }

    fn run(&mut self, milliseconds: u64) {
        for _ in 0..milliseconds.div_ceil(20) {
            self.stage.run(20);
            self.pass_on();
            self.feed(RealtimeInput::Tick);
        }
    }

    /// The server begins a reply; the tag is that of our request, if it is one.
    fn response(&mut self, id: &str, item: &str, milliseconds: u64) {
        let requested = self.frames.iter().rev().find(|frame| frame["type"] == "response.create");
        let metadata = requested.map_or(Value::Null, |frame| frame["response"]["metadata"].clone());
        self.server(json!({"type": "response.created", "response": {"id": id, "status": "in_progress", "metadata": metadata}}));
        self.server(json!({"type": "response.output_item.added", "response_id": id, "output_index": 0,
                           "item": {"id": item, "type": "message", "role": "assistant", "content": []}}));
        let audio = self.stage.phone.voice(&ItemId::from(item), milliseconds * 8);
        self.server(json!({"type": "response.output_audio.delta", "response_id": id, "item_id": item,
                           "output_index": 0, "content_index": 0, "delta": audio.as_str()}));
    }

    fn tool_call(&mut self, id: &str, call: &str, name: &str, arguments: &str) {
        self.server(json!({"type": "response.output_item.done", "response_id": id, "output_index": 1,
                           "item": {"id": format!("item-{call}"), "type": "function_call", "status": "completed",
                                    "call_id": call, "name": name, "arguments": arguments}}));
    }

    fn response_done(&mut self, id: &str, status: &str) {
        self.server(json!({"type": "response.done", "response": {"id": id, "status": status, "output": []}}));
    }

    /// Types of the frames sent since the last look, without the caller's audio.
    fn sent(&mut self) -> Vec<Value> {
        self.frames.drain(..).filter(|frame| frame["type"] != "input_audio_buffer.append").collect()
    }
}

fn types(frames: &[Value]) -> Vec<&str> {
    frames.iter().filter_map(|frame| frame["type"].as_str()).collect()
}

#[test]
fn a_barge_in_reaches_the_server_as_a_truncation_at_what_was_heard() {
    let mut line = Line::open(plan().greets("Hello there."));
    let sent = line.sent();
    assert_eq!(types(&sent), ["session.update", "response.create"]);
    assert_eq!(sent[0]["session"]["tools"][0]["name"], "end_call");
    line.response("r1", "i1", 3000);
    line.run(1000);
    line.sent();
    line.server(json!({"type": "input_audio_buffer.speech_started", "audio_start_ms": 900, "item_id": "u1"}));
    let sent = line.sent();
    let truncate = sent.last().expect("a truncation");
    assert_eq!(truncate["type"], "conversation.item.truncate", "{sent:?}");
    assert_eq!(truncate["item_id"], "i1");
    assert_eq!(truncate["audio_end_ms"], 960);
    let heard = line.stage.phone.heard(&"i1".into(), line.stage.now);
    line.server(json!({"type": "response.output_audio.delta", "response_id": "r1", "item_id": "i1",
                       "output_index": 0, "content_index": 0, "delta": "AAAA"}));
    line.run(1000);
    assert_eq!(line.stage.phone.heard(&"i1".into(), line.stage.now), heard);
}

#[test]
fn a_goodbye_is_heard_over_the_realtime_protocol_before_the_call_ends() {
    let mut line = Line::open(plan());
    line.server(json!({"type": "input_audio_buffer.speech_started", "audio_start_ms": 0, "item_id": "u1"}));
    line.run(500);
    line.server(json!({"type": "input_audio_buffer.speech_stopped", "audio_end_ms": 500, "item_id": "u1"}));
    line.response("r1", "i1", 1000);
    line.tool_call("r1", "t1", "end_call", "{}");
    line.response_done("r1", "completed");
    line.run(900);
    assert_eq!(line.stage.ended, None);
    line.run(200);
    assert!(line.stage.ended.is_some());
    assert_eq!(line.stage.phone.heard(&"i1".into(), line.stage.now), 8000);
    assert_eq!(types(&line.sent()), ["session.update"], "nothing makes the model speak on");
}

#[test]
fn an_interrupted_goodbye_goes_on_over_the_realtime_protocol() {
    let mut line = Line::open(plan());
    line.response("r1", "i1", 2000);
    line.tool_call("r1", "t1", "end_call", "{}");
    line.response_done("r1", "completed");
    line.run(500);
    line.sent();
    line.server(json!({"type": "input_audio_buffer.speech_started", "audio_start_ms": 400, "item_id": "u1"}));
    let sent = line.sent();
    assert_eq!(types(&sent), ["conversation.item.truncate", "conversation.item.create"], "{sent:?}");
    assert_eq!(sent[0]["audio_end_ms"], 480);
    assert_eq!(line.stage.ended, None);
}

#[test]
fn keys_are_told_and_answered_over_the_realtime_protocol() {
    let mut line = Line::open(plan());
    line.sent();
    line.stage.press("12#");
    line.pass_on();
    let sent = line.sent();
    assert_eq!(types(&sent), ["conversation.item.create", "response.create"], "{sent:?}");
}

#[test]
fn a_tool_s_result_lets_the_model_go_on_over_the_realtime_protocol() {
    let mut line = Line::open(plan().with_tool("look_up", Repetition::Harmless));
    line.response("r1", "i1", 500);
    line.tool_call("r1", "t1", "look_up", "{}");
    line.response_done("r1", "completed");
    line.run(1500);
    line.sent();
    line.stage.tool_ends("t1", "seven").expect("the tool runs");
    line.pass_on();
    let sent = line.sent();
    assert_eq!(types(&sent), ["conversation.item.create", "response.create"], "{sent:?}");
    assert_eq!(sent[0]["item"]["output"], "seven");
}

#[test]
fn a_result_that_comes_during_an_excuse_is_told_after_it_over_the_realtime_protocol() {
    let mut line = Line::open(plan().with_tool("slow", Repetition::Harmless));
    line.response("r1", "i1", 500);
    line.tool_call("r1", "t1", "slow", "{}");
    line.response_done("r1", "completed");
    line.run(1900);
    line.sent();
    line.run(200);
    assert_eq!(types(&line.sent()), ["response.create"], "the excuse");
    line.stage.tool_ends("t1", "seven").expect("the tool runs");
    line.pass_on();
    assert_eq!(types(&line.sent()), ["conversation.item.create"]);
    line.server(json!({"type": "response.created", "response": {"id": "r2", "status": "in_progress",
                       "metadata": {"request": "response_1"}}}));
    line.response_done("r2", "completed");
    assert_eq!(types(&line.sent()), ["response.create"], "one response at a time");
}

#[test]
fn a_greeting_that_must_be_heard_is_not_cancelled_over_the_realtime_protocol() {
    let mut line = Line::open(plan().greets_to_the_end("This call is recorded."));
    let sent = line.sent();
    assert_eq!(sent[0]["session"]["audio"]["input"]["turn_detection"]["interrupt_response"], false);
    line.response("r1", "i1", 2000);
    line.run(500);
    line.server(json!({"type": "input_audio_buffer.speech_started", "audio_start_ms": 400, "item_id": "u1"}));
    line.run(500);
    line.server(json!({"type": "input_audio_buffer.speech_stopped", "audio_end_ms": 900, "item_id": "u1"}));
    line.response_done("r1", "completed");
    line.run(2000);
    assert_eq!(types(&line.sent()), Vec::<&str>::new());
    assert_eq!(line.stage.phone.heard(&"i1".into(), line.stage.now), 16_000);
}
