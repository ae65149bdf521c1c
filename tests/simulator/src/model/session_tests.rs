//! Sessions on virtual time: whole conversations, and one refusal of every kind.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::behaviour::Behaviour;
use super::script::ModelScript;
use super::session::{Output, Session, Setup};
use crate::violations::{Rule, Violations};
use crate::voice::{Clip, Registry, Speaker, Voice, mulaw};

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
        let (registry, violations) = (Registry::default(), Violations::default());
        for text in [HOURS, ORDER, "Wait, stop, that is not what I meant."] {
            registry.add(&clip(text));
        }
        let session = Session::new(Setup {
            number: 1,
            model: "gpt-realtime-2.1".to_owned(),
            opened_at: 1_800_000_000,
            script: serde_saphyr::from_str::<ModelScript>(SCRIPT).expect("a script"),
            behaviour: Behaviour::default(),
            registry,
            violations: violations.clone(),
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

#[test]
fn a_session_tells_its_defaults_and_then_what_it_was_told() {
    let mut client = Client::connected();
    assert_eq!(
        client.received[0]["session"]["audio"]["input"]["format"],
        json!({"type": "audio/pcm", "rate": 24000})
    );
    assert_eq!(client.types(), ["session.created", "conversation.created"]);
    client.send(json!({"type": "session.update", "session": telephony()}));
    assert_eq!(client.types(), [] as [&str; 0], "the answer takes its time");
    client.wait(20);
    let session = &client.one("session.updated")["session"];
    assert_eq!(
        session["audio"]["output"],
        json!({"format": {"type": "audio/pcmu"}, "voice": "marin", "speed": 1.0})
    );
    assert_eq!(session["audio"]["input"]["turn_detection"]["silence_duration_ms"], 500);
    assert_eq!(
        (&session["instructions"], &session["expires_at"]),
        (&json!("You are kind."), &json!(1_800_003_600))
    );
    assert_eq!(client.violations.list(), vec![]);
}

#[test]
fn a_spoken_question_is_answered_in_the_documented_order() {
    let mut client = Client::configured();
    client.pause(400);
    client.speak(&clip(HOURS).mulaw);
    client.pause(600);
    client.wait(10_000);
    let answer = "We are open from eight in the morning until six in the evening, Monday to Friday, and on Saturday from nine until one.";
    assert_eq!(client.audio(), agent(answer));
    let started = client.one("input_audio_buffer.speech_started").clone();
    assert!((50..200).contains(&started["audio_start_ms"].as_u64().expect("ms")), "{started}");
    assert_eq!(client.one("input_audio_buffer.committed")["item_id"], started["item_id"]);
    let transcript = client.one("conversation.item.input_audio_transcription.completed");
    assert_eq!((&transcript["transcript"], &transcript["item_id"]), (&json!(HOURS), &started["item_id"]));
    assert_eq!(client.one("response.output_audio_transcript.done")["transcript"], answer);
    let deltas = client.all("response.output_audio_transcript.delta");
    let pieces: String = deltas.iter().filter_map(|event| event["delta"].as_str()).collect();
    assert_eq!(pieces, answer);
    let done = &client.one("response.done")["response"];
    assert_eq!(
        (&done["status"], &done["output"][0]["content"][0]["transcript"]),
        (&json!("completed"), &json!(answer))
    );
    assert!(done["usage"]["output_token_details"]["audio_tokens"].as_u64() > Some(100), "{done}");
    assert_eq!(
        client.types(),
        [
            "input_audio_buffer.speech_started",
            "input_audio_buffer.speech_stopped",
            "input_audio_buffer.committed",
            "conversation.item.added",
            "conversation.item.done",
            "response.created",
            "response.output_item.added",
            "conversation.item.added",
            "response.content_part.added",
            "response.output_audio_transcript.delta",
            "response.output_audio.delta",
            "conversation.item.input_audio_transcription.delta",
            "conversation.item.input_audio_transcription.completed",
            "response.output_audio.done",
            "response.output_audio_transcript.done",
            "response.content_part.done",
            "response.output_item.done",
            "conversation.item.done",
            "response.done",
            "rate_limits.updated",
        ]
    );
    assert_eq!(client.remembered(), [said("user", HOURS), said("assistant", answer)]);
    assert_eq!(client.violations.list(), vec![]);
}

#[test]
fn audio_comes_faster_than_real_time_but_not_at_once() {
    let mut client = Client::configured();
    client.create_item(json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": "opening hours"}]}));
    client.send(json!({"type": "response.create"}));
    client.wait(140);
    assert_eq!(client.audio().len(), 0);
    client.wait(10 + 250);
    let sounding = client.audio().len() / mulaw::BYTES_PER_MS; // 250 ms at eight times
    assert!((2000..2800).contains(&sounding), "{sounding}");
}

#[test]
fn speech_cuts_the_answer_and_a_truncation_cuts_its_memory() {
    let mut client = Client::configured();
    client.create_item(json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": "opening hours"}]}));
    client.send(json!({"type": "response.create"}));
    client.pause(300);
    client.received.retain(|event| event["type"] == "response.output_item.added");
    let item_id = client.one("response.output_item.added")["item"]["id"].clone();
    client.received.clear();
    client.speak(&clip("Wait, stop, that is not what I meant.").mulaw[..4000]);
    let done = client.one("response.done")["response"].clone();
    assert_eq!(done["status_details"], json!({"type": "cancelled", "reason": "turn_detected"}));
    assert_eq!(done["output"][0]["status"], "incomplete");
    assert_eq!(client.one("response.output_audio.done")["item_id"], item_id);
    client.received.clear();
    client.send(json!({"type": "conversation.item.truncate", "item_id": item_id, "content_index": 0, "audio_end_ms": 620}));
    assert_eq!(client.types(), ["conversation.item.truncated"]);
    let remembered = client.remembered()[1].1.clone();
    assert!(remembered.starts_with("We are") && remembered.split(' ').count() < 5, "{remembered}");
    client.speak(&clip("Wait, stop, that is not what I meant.").mulaw[4000..]);
    client.pause(600);
    client.wait(5000);
    assert_eq!(client.audio(), agent("Sorry, could you say that again?"));
    assert_eq!(client.remembered()[2], said("user", "Wait, stop, that is not what I meant."));
    assert_eq!(client.session.log().truncations[0].audio_end_milliseconds, 620);
    assert_eq!(client.violations.list(), vec![]);
}

#[test]
fn without_interrupt_response_the_answer_goes_on_and_the_next_one_waits() {
    let mut session = telephony()["audio"].clone();
    session["input"]["turn_detection"]["interrupt_response"] = json!(false);
    let mut client = Client::with_session(json!({"audio": session}));
    client.session.behaviour.speed_percent = 100;
    client.send(json!({"type": "response.create", "response": {"instructions": "Say exactly: \"We are open from eight in the morning until six in the evening, Monday to Friday, and on Saturday from nine until one.\""}}));
    client.speak(&clip(HOURS).mulaw);
    client.pause(600);
    assert_eq!((client.all("response.created").len(), client.all("response.done").len()), (1, 0));
    client.wait(20_000);
    let statuses: Vec<&Value> =
        client.all("response.done").iter().map(|event| &event["response"]["status"]).collect();
    assert_eq!(statuses, ["completed", "completed"]);
    assert_eq!(client.violations.list(), vec![]);
}

#[test]
fn a_client_may_cancel_and_only_what_is_active() {
    let mut client = Client::configured();
    client.send(json!({"type": "response.create", "response": {"instructions": "Say \"Thank you for calling. Goodbye.\""}}));
    client.wait(200);
    client.send(json!({"type": "response.cancel"}));
    let details = client.one("response.done")["response"]["status_details"].clone();
    assert_eq!(details, json!({"type": "cancelled", "reason": "client_cancelled"}));
    client.received.clear();
    client.send(json!({"type": "response.cancel", "event_id": "mine"}));
    let error = &client.one("error")["error"];
    assert_eq!((&error["code"], &error["event_id"]), (&json!("response_cancel_not_active"), &json!("mine")));
    client.wait(5000);
    assert_eq!(client.all("response.output_audio.delta").len(), 0, "nothing comes after the end");
    assert_eq!(client.violations.list(), vec![], "it may have ended on the way");
}

#[test]
fn a_tool_call_goes_out_and_its_output_is_spoken_about() {
    let mut client = Client::configured();
    client.speak(&clip(ORDER).mulaw);
    client.pause(600);
    client.wait(5000);
    let calls: Vec<Value> = client
        .all("response.output_item.done")
        .iter()
        .map(|event| event["item"].clone())
        .filter(|item| item["type"] == "function_call")
        .collect();
    let [call] = &calls[..] else { panic!("{calls:?}") };
    assert_eq!(
        (&call["name"], &call["arguments"], &call["status"]),
        (&json!("lookup_order"), &json!("{\"id\":\"42\"}"), &json!("completed"))
    );
    assert_eq!(client.one("response.function_call_arguments.done")["call_id"], call["call_id"]);
    assert_eq!(client.audio(), agent("Of course."));
    client.received.clear();
    client.create_item(
        json!({"type": "function_call_output", "call_id": call["call_id"], "output": "it is on its way"}),
    );
    client.send(json!({"type": "response.create"}));
    client.wait(5000);
    assert_eq!(
        client.one("response.output_audio_transcript.done")["transcript"],
        "I found it, it is on its way."
    );
    let roles: Vec<String> = client.remembered().into_iter().map(|(role, _)| role).collect();
    assert_eq!(roles, ["user", "assistant", "function_call", "function_call_output", "assistant"]);
    assert_eq!(client.violations.list(), vec![]);
}

#[test]
fn a_tool_that_is_not_offered_is_not_called() {
    let mut client = Client::with_session(json!({"tools": []}));
    client.create_item(
        json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": "my order"}]}),
    );
    client.send(json!({"type": "response.create"}));
    client.wait(5000);
    assert_eq!(client.remembered().last(), Some(&said("assistant", "I have no tool named lookup_order.")));
}

#[test]
fn keys_told_as_text_count_as_input() {
    let mut client = Client::configured();
    client.create_item(json!({"type": "message", "role": "system", "content": [{"type": "input_text", "text": "The caller pressed key 5."}]}));
    client.send(json!({"type": "response.create"}));
    client.wait(5000);
    assert_eq!(client.audio(), agent("You pressed five."));
}

#[test]
fn a_replayed_conversation_is_remembered_and_only_what_is_new_is_answered() {
    let mut client = Client::configured();
    for (role, kind, text) in [
        ("user", "input_text", "opening hours?"),
        ("assistant", "output_text", "Eight to six."),
        ("user", "input_text", "key 5"),
    ] {
        client
            .create_item(json!({"type": "message", "role": role, "content": [{"type": kind, "text": text}]}));
    }
    client.create_item(
        json!({"type": "function_call", "call_id": "call_old", "name": "lookup_order", "arguments": "{}"}),
    );
    client.create_item(json!({"type": "function_call_output", "call_id": "call_old", "output": "done"}));
    client.create_item(
        json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": "key 5"}]}),
    );
    client.send(json!({"type": "response.create"}));
    client.wait(5000);
    assert_eq!(client.remembered().last(), Some(&said("assistant", "You pressed five.")));
    assert_eq!(client.violations.list(), vec![]);
}

#[test]
fn an_answer_can_be_out_of_band_in_text_or_limited() {
    let mut client = Client::configured();
    client.send(json!({"type": "response.create", "response": {
        "conversation": "none", "output_modalities": ["text"], "instructions": "Say \"In writing.\"", "metadata": {"purpose": "note"},
    }}));
    client.wait(5000);
    assert_eq!(client.one("response.output_text.done")["text"], "In writing.");
    assert_eq!(client.one("response.done")["response"]["metadata"], json!({"purpose": "note"}));
    assert_eq!(client.remembered(), []);
    client.received.clear();
    client.send(json!({"type": "response.create", "response": {"instructions": "Say \"Thank you for calling. Goodbye.\"", "max_output_tokens": 20}}));
    client.wait(5000);
    let done = &client.one("response.done")["response"];
    assert_eq!(done["status_details"], json!({"type": "incomplete", "reason": "max_output_tokens"}));
    assert_eq!(client.audio().len(), 8000, "20 tokens are a second");
}

#[test]
fn turns_can_be_committed_by_hand_and_detected_semantically() {
    let mut audio = telephony()["audio"].clone();
    audio["input"]["turn_detection"] = Value::Null;
    let mut client = Client::with_session(json!({"audio": audio}));
    client.speak(&clip(HOURS).mulaw);
    client.pause(1000);
    assert_eq!(client.types(), [] as [&str; 0]);
    client.send(json!({"type": "input_audio_buffer.commit"}));
    assert_eq!(
        client.types(),
        ["input_audio_buffer.committed", "conversation.item.added", "conversation.item.done"]
    );
    audio["input"]["turn_detection"] = json!({"type": "semantic_vad", "eagerness": "high"});
    let mut client = Client::with_session(json!({"audio": audio}));
    client.speak(&clip(HOURS).mulaw);
    client.pause(500);
    assert_eq!(client.all("response.created").len(), 1);
    assert_eq!(client.violations.list(), vec![]);
}

#[test]
fn a_caller_who_says_nothing_is_asked_again_after_the_idle_timeout() {
    let mut audio = telephony()["audio"].clone();
    audio["input"]["turn_detection"] = json!({"type": "server_vad", "idle_timeout_ms": 5000});
    let mut client = Client::with_session(json!({"audio": audio}));
    client.send(json!({"type": "response.create", "response": {"instructions": "Say \"Thank you for calling. Goodbye.\""}}));
    client.wait(1000);
    let sounding = client.audio().len() / mulaw::BYTES_PER_MS;
    client.pause(sounding - 1000 + 150 + 4980);
    assert_eq!(client.all("input_audio_buffer.timeout_triggered").len(), 0);
    client.pause(40);
    client.wait(2000);
    assert_eq!(client.all("input_audio_buffer.timeout_triggered").len(), 1);
    let transcripts: Vec<&Value> = client
        .all("response.output_audio_transcript.done")
        .iter()
        .map(|event| &event["transcript"])
        .collect();
    assert_eq!(transcripts, ["Thank you for calling. Goodbye.", "Is there anything else I can do for you?"]);
    assert_eq!(client.violations.list(), vec![]);
}

#[test]
fn altered_audio_is_not_understood() {
    let mut client = Client::configured();
    let quieter: Vec<u8> =
        clip(HOURS).mulaw.iter().map(|byte| mulaw::encode(mulaw::decode(*byte) / 2)).collect();
    client.speak(&quieter);
    client.pause(600);
    client.wait(5000);
    let transcript = client.one("conversation.item.input_audio_transcription.completed");
    assert_eq!(transcript["transcript"], "[unintelligible]");
}

#[test]
fn an_hour_ends_the_session() {
    let mut client = Client::configured();
    client.wait(3_600_000);
    assert_eq!(client.one("error")["error"]["code"], "session_expired");
    assert_eq!(client.closed, Some((1001, "session_expired")));
}

#[test]
fn every_wrong_event_is_refused_and_recorded() {
    let update = |session: Value| json!({"type": "session.update", "session": session});
    let item = |item: Value| json!({"type": "conversation.item.create", "item": item});
    let input = |input: Value| update(json!({"type": "realtime", "audio": {"input": input}}));
    let table: Vec<(Value, &str, Rule)> = vec![
        (json!({"type": "session.updat"}), "invalid_value", Rule::ModelUnknownEvent),
        (json!({"event": "media"}), "invalid_event", Rule::ModelUnknownEvent),
        (json!([1]), "invalid_event", Rule::ModelUnknownEvent),
        (json!({"type": "response.create", "now": true}), "unknown_parameter", Rule::ModelInvalidEvent),
        (json!({"type": "response.create", "event_id": 7}), "invalid_value", Rule::ModelInvalidEvent),
        (
            json!({"type": "response.create", "response": {"modalities": ["audio"]}}),
            "unknown_parameter",
            Rule::ModelInvalidEvent,
        ),
        (
            json!({"type": "response.create", "response": {"metadata": {"a": 1}}}),
            "invalid_value",
            Rule::ModelInvalidEvent,
        ),
        (json!({"type": "output_audio_buffer.clear"}), "invalid_value", Rule::ModelInvalidEvent),
        (json!({"type": "session.update"}), "missing_required_parameter", Rule::ModelSessionUpdate),
        (update(json!({"instructions": "x"})), "missing_required_parameter", Rule::ModelSessionUpdate),
        (update(json!({"type": "transcription"})), "invalid_value", Rule::ModelSessionUpdate),
        (
            update(json!({"type": "realtime", "temperature": 0.8})),
            "unknown_parameter",
            Rule::ModelSessionUpdate,
        ),
        (
            update(json!({"type": "realtime", "voice": "marin"})),
            "unknown_parameter",
            Rule::ModelSessionUpdate,
        ),
        (
            update(json!({"type": "realtime", "model": "gpt-realtime-2"})),
            "invalid_value",
            Rule::ModelSessionUpdate,
        ),
        (
            update(json!({"type": "realtime", "output_modalities": ["text", "audio"]})),
            "invalid_value",
            Rule::ModelSessionUpdate,
        ),
        (
            update(json!({"type": "realtime", "max_output_tokens": 5000})),
            "invalid_value",
            Rule::ModelSessionUpdate,
        ),
        (
            update(json!({"type": "realtime", "audio": {"output": {"speed": 2}}})),
            "invalid_value",
            Rule::ModelSessionUpdate,
        ),
        (
            update(json!({"type": "realtime", "audio": {"output": {"voice": "bob"}}})),
            "invalid_value",
            Rule::ModelSessionUpdate,
        ),
        (
            update(json!({"type": "realtime", "tools": [{"type": "function", "name": "a", "strict": true}]})),
            "unknown_parameter",
            Rule::ModelSessionUpdate,
        ),
        (
            update(json!({"type": "realtime", "tools": [{"type": "function", "function": {"name": "a"}}]})),
            "unknown_parameter",
            Rule::ModelSessionUpdate,
        ),
        (input(json!({"format": "g711_ulaw"})), "invalid_value", Rule::ModelSessionUpdate),
        (
            input(json!({"format": {"type": "audio/pcmu", "rate": 8000}})),
            "unknown_parameter",
            Rule::ModelSessionUpdate,
        ),
        (
            input(json!({"format": {"type": "audio/pcm", "rate": 8000}})),
            "invalid_value",
            Rule::ModelSessionUpdate,
        ),
        (
            input(json!({"turn_detection": {"type": "server_vad", "threshold": 2}})),
            "invalid_value",
            Rule::ModelSessionUpdate,
        ),
        (
            input(json!({"turn_detection": {"type": "server_vad", "eagerness": "low"}})),
            "unknown_parameter",
            Rule::ModelSessionUpdate,
        ),
        (
            input(json!({"turn_detection": {"threshold": 0.5}})),
            "missing_required_parameter",
            Rule::ModelSessionUpdate,
        ),
        (
            input(json!({"transcription": {"language": "en"}})),
            "missing_required_parameter",
            Rule::ModelSessionUpdate,
        ),
        (input(json!({"noise_reduction": {"type": "loud"}})), "invalid_value", Rule::ModelSessionUpdate),
        (json!({"type": "input_audio_buffer.append"}), "missing_required_parameter", Rule::ModelAppend),
        (
            json!({"type": "input_audio_buffer.append", "audio": "not base64"}),
            "invalid_value",
            Rule::ModelAppend,
        ),
        (json!({"type": "input_audio_buffer.append", "audio": "////"}), "", Rule::ModelEarlyAudio),
        (json!({"type": "input_audio_buffer.commit"}), "input_audio_buffer_commit_empty", Rule::ModelCommit),
        (
            item(
                json!({"type": "message", "role": "assistant", "content": [{"type": "output_audio", "audio": ""}]}),
            ),
            "invalid_value",
            Rule::ModelItem,
        ),
        (item(json!({"type": "note"})), "invalid_value", Rule::ModelItem),
        (
            item(json!({"type": "function_call_output", "call_id": "call_x", "output": "x"})),
            "invalid_value",
            Rule::ModelToolOutput,
        ),
        (json!({"type": "conversation.item.delete", "item_id": "item_x"}), "invalid_value", Rule::ModelItem),
        (
            json!({"type": "conversation.item.retrieve", "item_id": "item_x"}),
            "invalid_value",
            Rule::ModelItem,
        ),
        (
            json!({"type": "conversation.item.truncate", "item_id": "item_x", "content_index": 0, "audio_end_ms": 1}),
            "invalid_value",
            Rule::ModelTruncate,
        ),
        (
            json!({"type": "conversation.item.truncate", "item_id": "item_x", "content_index": 0, "audio_end_ms": 1.5}),
            "invalid_value",
            Rule::ModelTruncate,
        ),
        (
            json!({"type": "conversation.item.truncate", "item_id": "item_x", "content_index": 0}),
            "missing_required_parameter",
            Rule::ModelTruncate,
        ),
    ];
    for (event, code, rule) in table {
        let mut client = Client::connected();
        client.received.clear();
        client.send(event.clone());
        let codes: Vec<&str> =
            client.all("error").iter().filter_map(|error| error["error"]["code"].as_str()).collect();
        assert_eq!(codes, if code.is_empty() { vec![] } else { vec![code] }, "{event}");
        assert_eq!(client.violations.rules(), [rule], "{event}");
        client.send(json!({"type": "session.update", "session": telephony()}));
        client.wait(20);
        assert_eq!(client.all("session.updated").len(), 1, "the session lives on");
    }
}

#[test]
fn frames_that_are_no_events_are_refused() {
    let mut client = Client::connected();
    client.session.handle_binary();
    client.session.handle_text(client.now, "{");
    client.wait(0);
    assert_eq!(client.all("error").len(), 2);
    assert_eq!(client.violations.rules(), [Rule::ModelUnknownEvent; 2]);
}

#[test]
fn a_second_response_is_refused_and_excused_only_when_it_crossed_the_servers_own() {
    let mut client = Client::configured();
    client.send(json!({"type": "response.create"}));
    client.send(json!({"type": "response.create", "event_id": "second"}));
    let error = &client.one("error")["error"];
    assert_eq!(
        (&error["code"], &error["event_id"]),
        (&json!("conversation_already_has_active_response"), &json!("second"))
    );
    assert_eq!(client.violations.rules(), [Rule::ModelActiveResponse]);

    for (is_reading, waited, expected) in [(true, 0, 0), (true, 100, 1), (false, 100, 0)] {
        let mut client = Client::configured();
        client.is_reading = is_reading;
        client.speak(&clip(HOURS).mulaw);
        while client.all("response.created").is_empty() {
            client.speak(&[mulaw::SILENCE; mulaw::FRAME_BYTES]);
        }
        client.now -= Duration::from_millis(20); // back to when it was created
        client.wait(waited);
        client.send(json!({"type": "response.create"}));
        assert_eq!(
            (client.all("error").len(), client.violations.count()),
            (1, expected),
            "{is_reading} {waited}"
        );
    }
}

#[test]
fn a_truncation_past_the_audio_sent_names_both_lengths() {
    let mut client = Client::configured();
    client.send(json!({"type": "response.create", "response": {"instructions": "Say \"Thank you for calling. Goodbye.\""}}));
    client.wait(5000);
    let length = client.audio().len() / mulaw::BYTES_PER_MS;
    let item_id = client.one("response.output_item.added")["item"]["id"].clone();
    let truncate = |end: usize| json!({"type": "conversation.item.truncate", "item_id": item_id, "content_index": 0, "audio_end_ms": end});
    client.send(truncate(length + 1));
    let expected = format!("Audio content of {length}ms is already shorter than {}ms", length + 1);
    assert_eq!(client.one("error")["error"]["message"], expected);
    assert_eq!(client.violations.rules(), [Rule::ModelTruncate]);
    client.send(truncate(length));
    assert_eq!(client.all("conversation.item.truncated").len(), 1);
}

#[test]
fn the_voice_stays_once_it_was_heard() {
    let voice = |name: &str| json!({"type": "session.update", "session": {"type": "realtime", "audio": {"output": {"voice": name}}}});
    let mut client = Client::configured();
    client.send(voice("cedar"));
    client.send(json!({"type": "response.create"}));
    client.wait(5000);
    client.send(voice("cedar"));
    assert_eq!(client.violations.list(), vec![]);
    client.send(voice("marin"));
    assert_eq!(client.violations.rules(), [Rule::ModelVoiceChange]);
}

#[test]
fn an_unknown_model_is_told_so_and_closed() {
    let mut client = Client::connected();
    client.session = Session::new(Setup {
        number: 2,
        model: "gpt-5".to_owned(),
        opened_at: 0,
        script: ModelScript::default(),
        behaviour: Behaviour::default(),
        registry: Registry::default(),
        violations: Violations::default(),
    });
    client.received.clear();
    client.wait(0);
    assert_eq!(client.one("error")["error"]["code"], "model_not_found");
    assert_eq!(client.closed, Some((1008, "model_not_found")));
}
