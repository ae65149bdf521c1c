//! The shell over a real socket: upgrades granted and refused, and one correct conversation from end to end.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::{Behaviour, Model, ModelConfig, serve};
use crate::faults::{Faults, ModelFaults, Switchboard};
use crate::violations::{Rule, Violations};
use crate::voice::{Registry, Speaker, Voice, mulaw};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Path, headers, status, error code, rules broken.
type RefusedUpgrade =
    (&'static str, &'static [(&'static str, &'static str)], u16, &'static str, &'static [Rule]);

/// Far beyond what loopback needs, near enough to fail a broken test.
const DEADLINE: Duration = Duration::from_secs(30);

struct Server {
    model: Model,
    address: String,
    registry: Registry,
    violations: Violations,
    switches: Switchboard,
}

async fn server() -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (registry, violations) = (Registry::default(), Violations::default());
    let mut config = ModelConfig::new("sk-right");
    config.behaviour =
        Behaviour { speed_percent: 100_000, first_audio_milliseconds: 1, ..Behaviour::default() };
    let switches = config.switches.clone();
    let model = serve(listener, config, registry.clone(), violations.clone());
    Server { model, address, registry, violations, switches }
}

impl Server {
    async fn connect(&self, path: &str, headers: &[(&str, &str)]) -> Result<Socket, Error> {
        let mut request = format!("ws://{}{path}", self.address).into_client_request()?;
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            request.headers_mut().insert(name, HeaderValue::from_str(value).unwrap());
        }
        connect_async(request).await.map(|(socket, _)| socket)
    }
}

async fn send(socket: &mut Socket, event: Value) {
    socket.send(Message::text(event.to_string())).await.unwrap();
}

/// Everything up to and including the first event of this type.
async fn until(socket: &mut Socket, kind: &str) -> Vec<Value> {
    let mut events: Vec<Value> = Vec::new();
    while events.last().is_none_or(|event| event["type"] != kind) {
        let message = tokio::time::timeout(DEADLINE, socket.next()).await.expect(kind).expect(kind).unwrap();
        if let Message::Text(text) = message {
            events.push(serde_json::from_str(&text).unwrap());
        }
    }
    events
}

const GA: &str = "/v1/realtime?model=gpt-realtime-2.1";
const KEY: (&str, &str) = ("Authorization", "Bearer sk-right");

#[tokio::test]
async fn a_correct_conversation_breaks_no_rule() {
    let server = server().await;
    let clip = Voice::new(Speaker::Caller).render("Yes, please.").unwrap();
    server.registry.add(&clip);
    let mut socket = server.connect(GA, &[KEY]).await.unwrap();
    until(&mut socket, "conversation.created").await;
    send(
        &mut socket,
        json!({"type": "session.update", "session": {
            "type": "realtime", "instructions": "Be brief.",
            "audio": {
                "input": {"format": {"type": "audio/pcmu"}, "transcription": {"model": "gpt-transcribe"}},
                "output": {"format": {"type": "audio/pcmu"}, "voice": "marin"},
            },
        }}),
    )
    .await;
    until(&mut socket, "session.updated").await;
    send(
        &mut socket,
        json!({"type": "response.create", "response": {"instructions": "Say exactly: \"Hello.\""}}),
    )
    .await;
    let greeting = until(&mut socket, "response.done").await;
    let audio: Vec<u8> = greeting
        .iter()
        .filter(|event| event["type"] == "response.output_audio.delta")
        .flat_map(|event| STANDARD.decode(event["delta"].as_str().unwrap()).unwrap())
        .collect();
    assert_eq!(audio, Voice::new(Speaker::Agent).render("Hello.").unwrap().mulaw);

    let question = [clip.mulaw, vec![mulaw::SILENCE; 700 * mulaw::BYTES_PER_MS]].concat();
    for frame in question.chunks(mulaw::FRAME_BYTES) {
        send(&mut socket, json!({"type": "input_audio_buffer.append", "audio": STANDARD.encode(frame)}))
            .await;
    }
    let answer = until(&mut socket, "response.done").await;
    let item_id = answer.last().unwrap()["response"]["output"][0]["id"].clone();
    let is_transcript =
        |event: &&Value| event["type"] == "conversation.item.input_audio_transcription.completed";
    let mut late = Vec::new();
    if !answer.iter().any(|event| is_transcript(&event)) {
        late = until(&mut socket, "conversation.item.input_audio_transcription.completed").await;
    }
    let transcript = answer.iter().chain(&late).find(is_transcript).unwrap();
    assert_eq!(transcript["transcript"], "Yes, please.");
    let truncate = json!({"type": "conversation.item.truncate", "item_id": item_id, "content_index": 0, "audio_end_ms": 0});
    send(&mut socket, truncate).await;
    until(&mut socket, "conversation.item.truncated").await;

    let [log] = &server.model.sessions()[..] else { panic!("one session") };
    let memory: Vec<(&str, &str)> =
        log.items.iter().map(|item| (item.role.as_str(), item.text.as_str())).collect();
    assert_eq!(memory, [("assistant", "Hello."), ("user", "Yes, please."), ("assistant", "")]);
    let events: Vec<&str> = log.events.iter().map(|event| event.r#type.as_str()).collect();
    assert_eq!(events, ["session.update", "response.create", "conversation.item.truncate"]);
    assert_eq!(log.appended_milliseconds, (question.len() / mulaw::BYTES_PER_MS) as u64);
    assert!(log.is_open);
    assert_eq!(server.violations.list(), vec![]);

    socket.close(None).await.unwrap();
    while let Some(Ok(_)) = tokio::time::timeout(DEADLINE, socket.next()).await.unwrap() {}
    tokio::time::timeout(DEADLINE, async {
        while server.model.sessions()[0].is_open {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the session is closed");
}

#[tokio::test]
async fn upgrades_are_refused_as_the_service_refuses_them() {
    const BROKEN: &[Rule] = &[Rule::ModelConnect];
    let table: &[RefusedUpgrade] = &[
        ("/v1/realtimes?model=gpt-realtime-2.1", &[KEY], 404, "invalid_url", BROKEN),
        (GA, &[KEY, ("OpenAI-Beta", "realtime=v1")], 400, "beta_api_shape_disabled", BROKEN),
        ("/v1/realtime", &[KEY], 400, "missing_model", BROKEN),
        ("/v1/realtime?model=gpt-realtime-2.1&call_id=rtc_1", &[KEY], 400, "missing_model", BROKEN),
        ("/v1/realtime?model=a&model=b", &[KEY], 400, "missing_model", BROKEN),
        (GA, &[], 401, "invalid_api_key", BROKEN),
        (GA, &[("Authorization", "Bearer sk-wrong")], 401, "invalid_api_key", &[]),
    ];
    for (path, headers, status, code, rules) in table {
        let server = server().await;
        let Err(Error::Http(response)) = server.connect(path, headers).await else {
            panic!("{path} {headers:?}")
        };
        assert_eq!(response.status().as_u16(), *status, "{path} {headers:?}");
        let body: Value =
            serde_json::from_slice(response.body().as_deref().unwrap_or_default()).unwrap_or_default();
        assert_eq!(body["error"]["code"], *code, "{path} {headers:?}");
        assert_eq!(server.violations.rules(), *rules, "{path} {headers:?}");
        assert_eq!(server.model.sessions(), vec![]);
    }
}

#[tokio::test]
async fn unknown_query_parameters_and_a_safety_identifier_are_accepted() {
    let server = server().await;
    let path = format!("{GA}&temperature=0.8");
    let mut socket = server.connect(&path, &[KEY, ("OpenAI-Safety-Identifier", "h4sh")]).await.unwrap();
    until(&mut socket, "session.created").await;
    assert_eq!(server.violations.list(), vec![]);
}

#[tokio::test]
async fn binary_frames_and_early_audio_are_recorded_and_survived() {
    let server = server().await;
    let mut socket = server.connect(GA, &[KEY]).await.unwrap();
    socket.send(Message::binary(vec![1, 2, 3])).await.unwrap();
    until(&mut socket, "error").await;
    for _ in 0..3 {
        send(&mut socket, json!({"type": "input_audio_buffer.append", "audio": "////"})).await;
    }
    send(&mut socket, json!({"type": "input_audio_buffer.clear"})).await;
    until(&mut socket, "input_audio_buffer.cleared").await;
    assert_eq!(server.violations.rules(), [Rule::ModelUnknownEvent, Rule::ModelEarlyAudio]);
    assert_eq!(server.model.sessions()[0].violations, ["model-unknown-event", "model-early-audio"]);
}

#[tokio::test]
async fn a_socket_that_is_no_websocket_any_more_is_recorded_and_a_lost_one_is_not() {
    let server = server().await;
    let lost = server.connect(GA, &[KEY]).await.unwrap();
    drop(lost);
    let mut socket = server.connect(GA, &[KEY]).await.unwrap();
    socket.get_mut().write_all(&[0x83, 0x80, 0, 0, 0, 0]).await.unwrap(); // an opcode that there is not
    let drained = async { while let Some(Ok(_)) = socket.next().await {} };
    tokio::time::timeout(DEADLINE, drained).await.expect("the connection ends");
    assert_eq!(server.violations.rules(), [Rule::ModelProtocol]);
}

#[tokio::test]
async fn stopping_the_model_ends_its_connections() {
    let server = server().await;
    let mut socket = server.connect(GA, &[KEY]).await.unwrap();
    until(&mut socket, "session.created").await;
    server.model.stop();
    let drained = async { while let Some(Ok(_)) = socket.next().await {} };
    tokio::time::timeout(DEADLINE, drained).await.expect("the connection ends");
}

#[tokio::test]
async fn an_upgrade_is_refused_and_a_connection_cut_by_a_switch() {
    let server = server().await;
    let right = [("authorization", "Bearer sk-right")];
    let path = "/v1/realtime?model=gpt-realtime-2.1";
    let refusing = ModelFaults {
        refuse_status: Some(429),
        refuse_code: Some("insufficient_quota".to_owned()),
        ..ModelFaults::default()
    };
    server.switches.set(Faults { model: refusing, ..Faults::default() });
    let Err(Error::Http(response)) = server.connect(path, &right).await else { panic!("an HTTP answer") };
    let body: Value = serde_json::from_slice(response.body().as_deref().unwrap()).unwrap();
    assert_eq!((response.status().as_u16(), &body["error"]["code"]), (429, &json!("insufficient_quota")));
    let cutting =
        ModelFaults { close_after_milliseconds: Some(1), connect_milliseconds: 1, ..ModelFaults::default() };
    server.switches.set(Faults { model: cutting, ..Faults::default() });
    let mut socket = server.connect(path, &right).await.unwrap();
    let last = loop {
        match socket.next().await {
            Some(Ok(Message::Text(_))) => {}
            other => break other,
        }
    };
    assert!(matches!(last, Some(Err(Error::Protocol(_) | Error::Io(_)))), "{last:?}");
    server.switches.set(Faults::default());
    let mut socket = server.connect(path, &right).await.unwrap();
    until(&mut socket, "session.created").await;
    assert_eq!(server.violations.list(), vec![]);
}
