//! A live call on a live Realtime connection, without sockets: what the media pod's task does with each message, and
//! nothing else. The bench times it, the allocation test counts in it.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use call_session::agent_file::{Engine, EngineKind, RecoveryKind};
use call_session::audio::Payload;
use call_session::io::{Input, MarkName, ModelEvent, Output, PhoneCommand, PhoneEvent};
use call_session::plan::{Phrases, Plan};
use call_session::realtime::{Realtime, RealtimeConfig, RealtimeInput, RealtimeOutput};
use call_session::twilio::{Frame, encode};
use call_session::{Call, Epoch, Ms, Redacted, Start, StreamSid};

pub(crate) const STREAM: &str = "MZ0123456789abcdef0123456789abcdef";

/// μ-law bytes of 20 ms, what Twilio sends in one message.
pub(crate) const FRAME: usize = 160;

pub(crate) struct Line {
    call: Call,
    realtime: Realtime,
    stream: StreamSid,
    now: Ms,
    last_mark: Option<MarkName>,
}

impl Line {
    /// A call in which the model is speaking (`resp_1`) and everything is set up.
    pub(crate) fn open() -> Self {
        let plan = Arc::new(plan());
        let now = Ms(1000);
        let EngineKind::Realtime { realtime: engine } = &plan.engines[0].kind else {
            unreachable!("the plan below has a Realtime engine")
        };
        let config = Box::new(RealtimeConfig::new(engine, &plan));
        let call = Call::new(plan, Epoch(0), Start::Fresh, now, 7);
        let stream = STREAM.parse().expect("a stream's sid");
        let mut line = Self { call, realtime: Realtime::new(now), stream, now, last_mark: None };
        line.drain_call(&mut |_| {});
        line.feed(RealtimeInput::Configure(config), &mut |_| {});
        for event in [
            r#"{"type":"session.created","session":{}}"#,
            r#"{"type":"session.updated","session":{}}"#,
            r#"{"type":"response.created","response":{"id":"resp_1","status":"in_progress"}}"#,
            r#"{"type":"response.output_item.added","response_id":"resp_1","item":{"id":"item_1","type":"message"}}"#,
        ] {
            line.server(&Bytes::from_static(event.as_bytes()), &mut |_| {});
        }
        line
    }

    /// A message of Twilio; what goes to the model is given to `sink`.
    pub(crate) fn twilio(&mut self, message: &Bytes, sink: &mut dyn FnMut(Bytes)) {
        let event = Frame::parse(message).ok().and_then(Frame::into_event);
        self.input(Input::Phone(event.expect("a frame the call is told of")), sink);
    }

    /// A message of the model; what goes to Twilio is given to `sink`.
    pub(crate) fn server(&mut self, message: &Bytes, sink: &mut dyn FnMut(Bytes)) {
        self.feed(RealtimeInput::Frame(message.clone()), sink);
    }

    /// Twilio has played everything.
    pub(crate) fn echo(&mut self) {
        if let Some(mark) = self.last_mark.take() {
            self.input(Input::Phone(PhoneEvent::Mark(mark)), &mut |_| {});
        }
    }

    fn input(&mut self, input: Input, sink: &mut dyn FnMut(Bytes)) {
        let result = self.call.handle_input(self.now, input);
        assert!(result.is_ok(), "{result:?}");
        self.drain_call(sink);
    }

    fn drain_call(&mut self, sink: &mut dyn FnMut(Bytes)) {
        loop {
            match self.call.poll_output() {
                Output::Wait(_) => return,
                Output::Phone(command) => {
                    if let PhoneCommand::Mark(mark) = &command {
                        self.last_mark = Some(*mark);
                    }
                    sink(encode(&self.stream, &command));
                }
                Output::Model(command) => self.feed(RealtimeInput::Command(command), sink),
                Output::Connect { .. }
                | Output::Prepare { .. }
                | Output::Switch
                | Output::Comfort
                | Output::Tool(_)
                | Output::Journal(_)
                | Output::Event(_)
                | Output::Ended(_) => {}
            }
        }
    }

    fn feed(&mut self, input: RealtimeInput, sink: &mut dyn FnMut(Bytes)) {
        let result = self.realtime.handle_input(self.now, input);
        assert!(result.is_ok(), "{result:?}");
        loop {
            match self.realtime.poll_output() {
                RealtimeOutput::Wait(_) => return,
                RealtimeOutput::Frame(frame) => sink(frame),
                RealtimeOutput::Event(event) => self.tell(event, sink),
                RealtimeOutput::Close { .. } | RealtimeOutput::Ended => unreachable!("nothing ends it"),
            }
        }
    }

    fn tell(&mut self, event: ModelEvent, sink: &mut dyn FnMut(Bytes)) {
        let result = self.call.handle_input(self.now, Input::Model(event));
        assert!(result.is_ok(), "{result:?}");
        // What the call wants of the model here would nest; a frame of audio never makes it want anything.
        loop {
            match self.call.poll_output() {
                Output::Wait(_) => return,
                Output::Phone(command) => {
                    if let PhoneCommand::Mark(mark) = &command {
                        self.last_mark = Some(*mark);
                    }
                    sink(encode(&self.stream, &command));
                }
                _ => {}
            }
        }
    }
}

/// Messages as a socket hands them out: slices of one receive buffer.
pub(crate) fn received(messages: impl Iterator<Item = String>) -> Vec<Bytes> {
    let mut buffer = BytesMut::new();
    let whole: Vec<_> = messages.collect();
    whole.iter().for_each(|message| buffer.extend_from_slice(message.as_bytes()));
    whole.iter().map(|message| buffer.split_to(message.len()).freeze()).collect()
}

/// What Twilio sends while the caller speaks.
pub(crate) fn caller_audio(count: usize) -> Vec<Bytes> {
    let payload = voice(FRAME);
    received((0..count).map(|n| {
        format!(
            r#"{{"event":"media","sequenceNumber":"{}","media":{{"track":"inbound","chunk":"{}","timestamp":"{}","payload":"{payload}"}},"streamSid":"{STREAM}"}}"#,
            n + 2,
            n + 1,
            n * 20,
        )
    }))
}

/// What the model sends while it speaks, `bytes` of μ-law in each.
pub(crate) fn agent_audio(count: usize, bytes: usize) -> Vec<Bytes> {
    let delta = voice(bytes);
    received((0..count).map(|n| {
        format!(
            r#"{{"type":"response.output_audio.delta","event_id":"event_{n:010}","response_id":"resp_1","item_id":"item_1","output_index":0,"content_index":0,"delta":"{delta}"}}"#
        )
    }))
}

/// Sound in which every μ-law byte occurs.
fn voice(bytes: usize) -> String {
    let mulaw: Vec<u8> = (0..bytes).map(|n| (n * 37) as u8).collect();
    Payload::from_mulaw(&mulaw).as_str().to_owned()
}

fn plan() -> Plan {
    let engine: Engine = serde_json::from_value(serde_json::json!({
        "name": "first", "type": "Realtime",
        "realtime": {"url": "wss://model.example", "model": "m", "voice": "v", "apiKey": {"name": "n", "key": "k"}},
    }))
    .expect("a valid engine");
    Plan {
        language: "en-US".to_owned(),
        instructions: Redacted::new("Be kind.".to_owned()),
        greeting: None,
        engines: vec![engine],
        interruption: Default::default(),
        transfer_targets: Vec::new(),
        max_call: Ms::from_secs(1800),
        silence: Ms::from_secs(30),
        recovery: RecoveryKind::WithContext,
        tools: Vec::new(),
        phrases: Phrases::default(),
    }
}
