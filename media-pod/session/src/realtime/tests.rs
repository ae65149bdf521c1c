//! The machine as a table of what comes and what goes, in order, with nothing more.

mod barge_in;
mod errors;
mod session;
mod tools;
mod turns;
mod wire;

use serde_json::{Value, json};

use super::*;
use crate::agent_file::{NoiseReduction, TurnDetection};
use crate::io::{Heard, HistoryItem, ReplyOutcome, Speech};
use crate::tools::ToolDefinition;
use crate::{ItemId, Redacted, ToolCallId};

/// What left the machine, readable.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Out {
    Sent(Value),
    Told(ModelEvent),
    Closed(u16),
    Ended,
}

/// A machine and its clock.
pub(super) struct Bench {
    machine: Realtime,
    now: Ms,
}

impl Bench {
    /// A socket that has just opened.
    pub(super) fn new() -> Self {
        Self { machine: Realtime::new(Ms::ZERO), now: Ms::ZERO }
    }

    /// The same at this time of day, in Unix seconds.
    pub(super) fn opened_at(unix_seconds: u64) -> Self {
        Self { machine: Realtime::opened_at(Ms::ZERO, unix_seconds), now: Ms::ZERO }
    }

    /// A configured connection, with what that took already out of the way.
    pub(super) fn live(config: RealtimeConfig) -> Self {
        let mut bench = Self::new();
        assert_eq!(bench.server(json!({"type": "session.created", "session": {}})), []);
        assert_eq!(bench.input(RealtimeInput::Configure(Box::new(config))).len(), 1);
        assert_eq!(
            bench.server(json!({"type": "session.updated", "session": {}})),
            [Out::Told(ModelEvent::Ready)]
        );
        bench
    }

    pub(super) fn try_input(&mut self, input: RealtimeInput) -> Result<Vec<Out>, RealtimeError> {
        let result = self.machine.handle_input(self.now, input);
        let outputs = self.drain();
        if result.is_err() {
            assert_eq!(outputs, [], "a refused input changes nothing");
        }
        result.map(|()| outputs)
    }

    pub(super) fn input(&mut self, input: RealtimeInput) -> Vec<Out> {
        self.try_input(input).expect("this input fits")
    }

    pub(super) fn server(&mut self, event: Value) -> Vec<Out> {
        self.input(frame(&event))
    }

    pub(super) fn refused(&mut self, event: Value) -> RealtimeError {
        self.try_input(frame(&event)).expect_err("this event is refused")
    }

    pub(super) fn command(&mut self, command: ModelCommand) -> Vec<Out> {
        self.input(RealtimeInput::Command(command))
    }

    pub(super) fn speak(&mut self, speech: Speech) -> Vec<Out> {
        self.command(ModelCommand::Speak(speech))
    }

    pub(super) fn interrupt(&mut self, heard: &[(&str, u64)]) -> Vec<Out> {
        let heard =
            heard.iter().map(|(item, played)| Heard { item: ItemId::from(*item), played: Ms(*played) });
        self.command(ModelCommand::Interrupt { heard: heard.collect() })
    }

    pub(super) fn tool_output(&mut self, call: &str, output: &str) -> Vec<Out> {
        self.command(ModelCommand::ToolOutput { call: call.into(), output: output.to_owned().into() })
    }

    /// Waits for what the machine itself waits for.
    pub(super) fn wait(&mut self) -> Vec<Out> {
        let RealtimeOutput::Wait(Some(at)) = self.machine.poll_output() else {
            panic!("it waits for nothing")
        };
        self.now = self.now.max(at);
        self.input(RealtimeInput::Tick)
    }

    pub(super) fn pass(&mut self, time: Ms) {
        self.now = self.now + time;
    }

    /// What it waits for, but its retirement, which is always ahead.
    pub(super) fn deadline(&mut self) -> Option<Ms> {
        match self.machine.poll_output() {
            RealtimeOutput::Wait(at) => at.filter(|at| *at != RETIREMENT),
            other => panic!("not drained: {other:?}"),
        }
    }

    fn drain(&mut self) -> Vec<Out> {
        let mut outputs = Vec::new();
        loop {
            outputs.push(match self.machine.poll_output() {
                RealtimeOutput::Frame(frame) => Out::Sent(serde_json::from_slice(&frame).unwrap()),
                RealtimeOutput::Event(event) => Out::Told(event),
                RealtimeOutput::Close { code } => Out::Closed(code),
                RealtimeOutput::Ended => Out::Ended,
                RealtimeOutput::Wait(_) => return outputs,
            });
        }
    }
}

pub(super) fn frame(event: &Value) -> RealtimeInput {
    RealtimeInput::Frame(Bytes::from(event.to_string()))
}

/// Server VAD, server replies and interrupts, one tool.
pub(super) fn config() -> RealtimeConfig {
    RealtimeConfig {
        instructions: Redacted::new("Be kind.".to_owned()),
        voice: "marin".to_owned(),
        turn_detection: TurnDetection::default(),
        server_interrupts: true,
        server_replies: true,
        transcription: Some(CallerTranscription {
            model: "gpt-transcribe".to_owned(),
            language: Some("en".to_owned()),
        }),
        noise_reduction: Some(NoiseReduction::FarField),
        tools: vec![ToolDefinition {
            name: "lookup_order".to_owned(),
            description: "Looks an order up.".to_owned(),
            parameters: json!({"type": "object", "properties": {}}),
        }],
    }
}

/// The call decides about interruptions and replies.
pub(super) fn patient_config() -> RealtimeConfig {
    RealtimeConfig { server_interrupts: false, server_replies: false, ..config() }
}

pub(super) fn sound(ms: usize) -> Payload {
    Payload::from_mulaw(&vec![0x55; ms * 8])
}

pub(super) fn verbatim(words: &str) -> Speech {
    Speech::Verbatim(Redacted::new(words.to_owned()))
}

// ---- what the server says

pub(super) fn created(reply: &str, tag: Option<&str>) -> Value {
    let metadata = tag.map(|tag| json!({"request": tag}));
    json!({"type": "response.created", "response": {"id": reply, "status": "in_progress", "metadata": metadata}})
}

pub(super) fn done(reply: &str, status: &str) -> Value {
    json!({"type": "response.done", "response": {"id": reply, "status": status, "output": []}})
}

pub(super) fn item_added(reply: &str, item: &str) -> Value {
    json!({"type": "response.output_item.added", "response_id": reply, "output_index": 0,
           "item": {"id": item, "type": "message", "role": "assistant", "status": "in_progress", "content": []}})
}

pub(super) fn audio(reply: &str, item: &str, ms: usize) -> Value {
    json!({"type": "response.output_audio.delta", "response_id": reply, "item_id": item, "output_index": 0,
           "content_index": 0, "delta": sound(ms).as_str()})
}

pub(super) fn tool_call(reply: &str, call: &str, status: &str) -> Value {
    json!({"type": "response.output_item.done", "response_id": reply, "output_index": 1,
           "item": {"id": format!("item_{call}"), "type": "function_call", "status": status, "call_id": call,
                    "name": "lookup_order", "arguments": "{\"id\":\"7\"}"}})
}

pub(super) fn error(code: &str, about: Option<&str>) -> Value {
    json!({"type": "error", "error": {"type": "invalid_request_error", "code": code, "message": "…", "event_id": about}})
}

pub(super) fn bare(name: &str) -> Value {
    json!({"type": name, "item_id": "item_u", "audio_start_ms": 0})
}

pub(super) const SPEECH_STARTED: &str = "input_audio_buffer.speech_started";
pub(super) const SPEECH_STOPPED: &str = "input_audio_buffer.speech_stopped";

// ---- what is expected

pub(super) fn asked(tag: &str) -> Out {
    Out::Sent(json!({"type": "response.create", "event_id": tag, "response": {"metadata": {"request": tag}}}))
}

pub(super) fn cancelled(reply: &str) -> Out {
    Out::Sent(json!({"type": "response.cancel", "response_id": reply}))
}

pub(super) fn truncated(number: u64, item: &str, at: u64) -> Out {
    Out::Sent(json!({"type": "conversation.item.truncate", "event_id": format!("truncate_{number}"),
                     "item_id": item, "content_index": 0, "audio_end_ms": at}))
}

pub(super) fn output_sent(call: &str, output: &str) -> Out {
    Out::Sent(json!({"type": "conversation.item.create",
                     "item": {"type": "function_call_output", "call_id": call, "output": output}}))
}

pub(super) fn started(reply: &str) -> Out {
    Out::Told(ModelEvent::ReplyStarted { reply: reply.into() })
}

pub(super) fn ended(reply: &str, outcome: ReplyOutcome) -> Out {
    Out::Told(ModelEvent::ReplyEnded { reply: reply.into(), outcome })
}

pub(super) fn heard(reply: &str, item: &str, ms: usize) -> Out {
    Out::Told(ModelEvent::Audio { reply: reply.into(), item: item.into(), audio: sound(ms) })
}

pub(super) fn called(reply: &str, call: &str) -> Out {
    Out::Told(ModelEvent::ToolCall {
        call: ToolCallId::from(call),
        reply: reply.into(),
        name: "lookup_order".to_owned(),
        arguments: Redacted::new("{\"id\":\"7\"}".to_owned()),
    })
}

pub(super) fn refusal(class: RefusalClass) -> Out {
    Out::Told(ModelEvent::Refused { class })
}

pub(super) fn lost(reason: ModelLoss) -> [Out; 3] {
    [Out::Told(ModelEvent::Lost { reason }), Out::Closed(1000), Out::Ended]
}
