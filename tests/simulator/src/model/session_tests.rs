//! Sessions on virtual time: a client whose clock moves when told, whole conversations, one refusal of every kind.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::behaviour::Behaviour;
use super::script::ModelScript;
use super::session::{Output, Session, Setup};
use crate::faults::{Faults, ModelFaults, Switchboard};
use crate::violations::{Rule, Violations};
use crate::voice::{Clip, Registry, Speaker, Voice, mulaw};

mod conversations;
mod faults;
mod refusals;

/// A client whose clock only moves when told.
struct Client {
    session: Session,
    now: Duration,
    received: Vec<Value>,
    closed: Option<(u16, &'static str)>,
    is_reading: bool,
    violations: Violations,
}

const SCRIPT: &str = "
turns:
- heard: opening hours
  say: We are open from eight in the morning until six in the evening, Monday to Friday, and on Saturday from nine until one.
- heard: order
  say: Of course.
  call: {tool: lookup_order, arguments: {id: '42'}}
  thenSay: 'I found it, {output}.'
- heard: key 5
  say: You pressed five.
";

const HOURS: &str = "Hello, what are your opening hours?";
const ORDER: &str = "Where is my order number forty two?";

impl Client {
    fn connected() -> Self {
        Self::facing(ModelFaults::default())
    }

    fn connected_to(model: &str) -> Self {
        Self::open(model, ModelFaults::default())
    }

    fn facing(faults: ModelFaults) -> Self {
        Self::open("gpt-realtime-2.1", faults)
    }

    fn open(model: &str, faults: ModelFaults) -> Self {
        let (registry, violations) = (Registry::default(), Violations::default());
        for text in [HOURS, ORDER, "Wait, stop, that is not what I meant."] {
            registry.add(&clip(text));
        }
        let session = Session::new(Setup {
            number: 1,
            model: model.to_owned(),
            opened_at: 1_800_000_000,
            script: serde_saphyr::from_str::<ModelScript>(SCRIPT).expect("a script"),
            behaviour: Behaviour::default(),
            registry,
            violations: violations.clone(),
            switches: Switchboard::new(Faults { model: faults, ..Faults::default() }),
        });
        let mut client = Self {
            session,
            now: Duration::ZERO,
            received: Vec::new(),
            closed: None,
            is_reading: true,
            violations,
        };
        client.wait(0);
        client
    }

    fn configured() -> Self {
        Self::with_session(json!({}))
    }

    fn with_session(extra: Value) -> Self {
        let mut client = Self::connected();
        let mut session = telephony();
        for (name, value) in extra.as_object().into_iter().flatten() {
            session[name] = value.clone();
        }
        client.send(json!({"type": "session.update", "session": session}));
        client.wait(20);
        client.received.clear();
        client
    }

    fn send(&mut self, event: Value) {
        self.session.handle_text(self.now, &event.to_string());
        self.wait(0);
    }

    fn wait(&mut self, milliseconds: u64) {
        let until = self.now + Duration::from_millis(milliseconds);
        while self.closed.is_none() {
            match self.session.poll(self.now) {
                Output::Send(event) => self.received.push(event),
                Output::Ping(payload) if self.is_reading => {
                    self.session.handle_pong(self.now, payload.as_bytes())
                }
                Output::Ping(_) => {}
                Output::Cut => self.closed = Some((0, "cut")),
                Output::Close { code, reason } => self.closed = Some((code, reason)),
                Output::Wait(due) if due <= until => self.now = due,
                Output::Wait(_) => break,
            }
        }
        self.now = until;
    }

    /// Appends in frames, on the clock.
    fn speak(&mut self, audio: &[u8]) {
        for frame in audio.chunks(mulaw::FRAME_BYTES) {
            self.send(json!({"type": "input_audio_buffer.append", "audio": STANDARD.encode(frame)}));
            self.wait(20);
        }
    }

    fn pause(&mut self, milliseconds: usize) {
        self.speak(&vec![mulaw::SILENCE; milliseconds * mulaw::BYTES_PER_MS]);
    }

    fn create_item(&mut self, item: Value) {
        self.send(json!({"type": "conversation.item.create", "item": item}));
    }

    /// Types received since the last look, runs of deltas as one.
    fn types(&mut self) -> Vec<String> {
        let mut types: Vec<String> = Vec::new();
        for event in self.received.drain(..) {
            let kind = event["type"].as_str().unwrap_or_default().to_owned();
            let is_delta = kind.ends_with("audio.delta") || kind.ends_with("audio_transcript.delta");
            if !(is_delta && types.contains(&kind)) {
                types.push(kind);
            }
        }
        types
    }

    fn all(&self, kind: &str) -> Vec<&Value> {
        self.received.iter().filter(|event| event["type"] == kind).collect()
    }

    fn one(&self, kind: &str) -> &Value {
        let found = self.all(kind);
        assert_eq!(found.len(), 1, "{kind} in {:?}", self.received);
        found[0]
    }

    /// All audio received, decoded.
    fn audio(&self) -> Vec<u8> {
        let deltas = self.all("response.output_audio.delta");
        deltas
            .iter()
            .flat_map(|event| STANDARD.decode(event["delta"].as_str().unwrap_or("!")).expect("base64"))
            .collect()
    }

    fn remembered(&self) -> Vec<(String, String)> {
        self.session.log().items.into_iter().map(|item| (item.role, item.text)).collect()
    }
}

fn telephony() -> Value {
    json!({
        "type": "realtime", "instructions": "You are kind.", "output_modalities": ["audio"],
        "audio": {
            "input": {
                "format": {"type": "audio/pcmu"}, "transcription": {"model": "gpt-transcribe"},
                "turn_detection": {"type": "server_vad"},
            },
            "output": {"format": {"type": "audio/pcmu"}, "voice": "marin"},
        },
        "tools": [{"type": "function", "name": "lookup_order", "parameters": {"type": "object"}}],
    })
}

fn clip(text: &str) -> Clip {
    Voice::new(Speaker::Caller).render(text).expect("speaks")
}

fn agent(text: &str) -> Vec<u8> {
    Voice::new(Speaker::Agent).render(text).expect("speaks").mulaw
}

fn said(role: &str, text: &str) -> (String, String) {
    (role.to_owned(), text.to_owned())
}
