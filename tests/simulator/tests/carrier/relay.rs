//! A naive relay between the simulated phone network and the simulated model: media ↔ append and delta, nothing else.
//!
//! It proves that the two simulated sides fit together without the product between them: what the caller says is
//! recognised by the model, byte for byte, and an interruption goes all the way round.

use axum::Router;
use axum::extract::State;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::routing::{get, post};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use simulator::caller::{Patience, Step, Wait};
use simulator::carrier::record::{EndReason, Event};
use simulator::carrier::{Account, Carrier, Number, Settings};
use simulator::model::{self, ModelConfig, ModelScript, Turn};
use simulator::violations::Violations;
use simulator::voice::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::product::NUMBER;

const KEY: &str = "relay-key";
const TWIML: &str = r#"<Response><Connect action="https://voice.test/action"><Stream url="wss://voice.test/stream"/></Connect></Response>"#;

type ModelSocket = WebSocketStream<TcpStream>;

fn script() -> ModelScript {
    let say = |heard: &str, words: &str| Turn {
        heard: Some(heard.to_owned()),
        say: Some(words.to_owned()),
        ..Turn::default()
    };
    let long = "We are open from eight in the morning until six in the evening, Monday to Friday, and on Saturday from nine until one.";
    let mut bye = say("goodbye", "Goodbye.");
    bye.call = Some(serde_json::from_value(json!({"tool": "end_call"})).unwrap());
    ModelScript { turns: vec![say("opening hours", long), bye], ..ModelScript::default() }
}

#[tokio::test]
async fn a_whole_conversation_with_a_barge_in_passes_both_strict_sides() {
    let (violations, registry) = (Violations::default(), Registry::default());
    let model_listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let model_address = model_listener.local_addr().unwrap().to_string();
    let config = ModelConfig { script: script(), ..ModelConfig::new(KEY) };
    let model = model::serve(model_listener, config, registry.clone(), violations.clone());

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut settings = Settings::new(Account::demo());
    settings
        .edges
        .push(format!("https://voice.test=http://{}", listener.local_addr().unwrap()).parse().unwrap());
    let mut number = Number::new("PN00000000000000000000000000000001", NUMBER);
    number.set_fields(&[("voiceUrl".to_owned(), "https://voice.test/voice".to_owned())].into()).unwrap();
    settings.numbers.push(number);
    let xml = |text: &'static str| move || async move { ([("content-type", "text/xml")], text) };
    let router = Router::new()
        .route("/voice", post(xml(TWIML)))
        .route("/action", post(xml("<Response><Hangup/></Response>")))
        .route("/stream", get(stream))
        .with_state(model_address);
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let carrier = Carrier::new(settings, registry, violations.clone()).unwrap();

    let steps = vec![
        Step::WaitForAgent(Wait::default()),
        Step::Say("Hello, what are your opening hours?".into()),
        Step::InterruptAfterMilliseconds(800),
        Step::Say("Thank you very much, goodbye.".into()),
        Step::ExpectHangUp(Patience { seconds: 20 }),
    ];
    let view = carrier.place_inbound("+15557654321", NUMBER, steps).unwrap().finished().await;
    assert_eq!(violations.list(), vec![]);
    assert_eq!((view.end_reason, view.failed_step), (Some(EndReason::HangupVerb), None));
    let barge_ins = view.timeline.iter().filter(|timed| matches!(timed.event, Event::BargeIn { .. })).count();
    assert_eq!(barge_ins, 1);
    let sessions = model.sessions();
    let heard: Vec<&str> =
        sessions[0].items.iter().filter(|item| item.role == "user").map(|item| item.text.as_str()).collect();
    assert_eq!(heard, vec!["Hello, what are your opening hours?", "Thank you very much, goodbye."]);
}

async fn stream(State(model): State<String>, upgrade: WebSocketUpgrade) -> axum::response::Response {
    upgrade.on_upgrade(async move |mut phone: WebSocket| {
        while let Some(Ok(Message::Text(text))) = phone.recv().await {
            let message: Value = serde_json::from_str(&text).unwrap();
            if message["event"] == "start" {
                let sid = message["streamSid"].as_str().unwrap().to_owned();
                relay(phone, connect(&model).await, sid).await;
                return;
            }
        }
    })
}

/// A configured session that was asked to greet.
async fn connect(address: &str) -> ModelSocket {
    let url = format!("ws://{address}/v1/realtime?model=gpt-realtime-2.1");
    let mut request = url.into_client_request().unwrap();
    request.headers_mut().insert("authorization", format!("Bearer {KEY}").parse().unwrap());
    let (mut socket, _) = client_async(request, TcpStream::connect(address).await.unwrap()).await.unwrap();
    let format = json!({"type": "audio/pcmu"});
    let tool =
        json!({"type": "function", "name": "end_call", "parameters": {"type": "object", "properties": {}}});
    let session = json!({
        "type": "realtime",
        "audio": {"input": {"format": format}, "output": {"format": format}},
        "tools": [tool],
    });
    send(&mut socket, json!({"type": "session.update", "session": session})).await;
    while let Some(Ok(frame)) = socket.next().await {
        let Frame::Text(text) = frame else { continue };
        let event: Value = serde_json::from_str(&text).unwrap();
        if event["type"] == "session.updated" {
            break;
        }
    }
    let greeting = json!({"instructions": "Say exactly: \"Hello.\""});
    send(&mut socket, json!({"type": "response.create", "response": greeting})).await;
    socket
}

async fn send(socket: &mut ModelSocket, event: Value) {
    socket.send(Frame::text(event.to_string())).await.unwrap();
}

async fn relay(mut phone: WebSocket, mut model: ModelSocket, sid: String) {
    loop {
        tokio::select! {
            received = phone.recv() => {
                let Some(Ok(Message::Text(text))) = received else { return };
                let message: Value = serde_json::from_str(&text).unwrap();
                match message["event"].as_str().unwrap() {
                    "media" => {
                        let append = json!({"type": "input_audio_buffer.append", "audio": message["media"]["payload"]});
                        send(&mut model, append).await;
                    }
                    // Everything up to the goodbye was heard.
                    "mark" => {
                        let _ = phone.send(Message::Close(None)).await;
                        return;
                    }
                    _ => {}
                }
            }
            received = model.next() => {
                let Some(Ok(frame)) = received else { return };
                let Frame::Text(text) = frame else { continue }; // the library answers a ping
                let event: Value = serde_json::from_str(&text).unwrap();
                let reply = match event["type"].as_str().unwrap() {
                    "response.output_audio.delta" => {
                        json!({"event": "media", "streamSid": sid, "media": {"payload": event["delta"]}})
                    }
                    "input_audio_buffer.speech_started" => json!({"event": "clear", "streamSid": sid}),
                    "response.function_call_arguments.done" => {
                        json!({"event": "mark", "streamSid": sid, "mark": {"name": "goodbye"}})
                    }
                    _ => continue,
                };
                if phone.send(Message::Text(reply.to_string().into())).await.is_err() {
                    return;
                }
            }
        }
    }
}
