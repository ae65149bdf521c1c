//! The Realtime engine against a few lines of a Realtime server, on loopback.

use std::sync::Mutex;

use call_session::audio::Payload;
use call_session::plan::Variables;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server;

use super::*;

type Server = WebSocketStream<TcpStream>;

/// An agent whose engine is at `url`.
fn agent(url: &str) -> call_session::agent_file::AgentFile {
    crate::agent::parse(&format!(
        "formatVersion: 1\nnamespace: n\nname: a\npublicUrl: 'https://voice.example.com'\n\
         carrier: {{type: Twilio, twilio: {{accountSid: AC00000000000000000000000000000001,\n\
         \x20 authTokens: [{{name: t, key: k}}]}}}}\n\
         persona: {{instructions: Be kind.}}\n\
         engines: [{{name: main, type: Realtime, realtime: {{url: '{url}', model: gpt-realtime-2.1, voice: marin,\n\
         \x20 apiKey: {{name: openai, key: key}}}}}}]\n"
    ))
    .unwrap()
}

/// A session towards `url`, with this key.
fn session(url: &str, key: Option<&str>) -> super::super::Session {
    let agent = agent(url);
    let plan = Plan::new(&agent, &Variables::default());
    let key = key.map(Secret::new);
    let metrics = Arc::new(Metrics::register().unwrap());
    let keys: super::super::Keys = Arc::new(move |_| key.clone());
    let engines = super::super::Engines::new(Dialer::new(None).unwrap(), keys, metrics);
    engines.connect(&plan.engines[0], &plan)
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("ws://{}/v1/realtime", listener.local_addr().unwrap());
    (listener, url)
}

/// Accepts one connection and says hello; the head of the request beside it.
async fn accept(listener: &TcpListener) -> (Server, server::Request) {
    let (tcp, _) = listener.accept().await.unwrap();
    let head = Mutex::new(None);
    // The size of the error type is the library's.
    #[allow(clippy::result_large_err)]
    let keep = |request: &server::Request, response| {
        *head.lock().unwrap() = Some(request.clone());
        Ok(response)
    };
    let mut socket = tokio_tungstenite::accept_hdr_async(tcp, keep).await.unwrap();
    send(&mut socket, json!({"type": "session.created", "event_id": "e1", "session": {}})).await;
    (socket, head.into_inner().unwrap().unwrap())
}

async fn send(socket: &mut Server, event: Value) {
    socket.send(Message::text(event.to_string())).await.unwrap();
}

async fn receive(socket: &mut Server) -> Value {
    let Message::Text(text) = socket.next().await.unwrap().unwrap() else { panic!("no text") };
    serde_json::from_str(&text).unwrap()
}

#[tokio::test]
async fn a_session_is_configured_before_any_audio_and_carries_audio_both_ways() {
    let (listener, url) = listen().await;
    let server = tokio::spawn(async move {
        let (mut socket, head) = accept(&listener).await;
        assert_eq!(head.uri().query(), Some("model=gpt-realtime-2.1"));
        assert_eq!(head.headers()["authorization"], "Bearer secret");
        assert!(!head.headers().contains_key("openai-beta"));

        let update = receive(&mut socket).await;
        assert_eq!(update["type"], "session.update");
        assert_eq!(update["session"]["instructions"], "Be kind.");
        assert_eq!(update["session"]["audio"]["input"]["format"]["type"], "audio/pcmu");
        send(&mut socket, json!({"type": "session.updated", "event_id": "e2", "session": {}})).await;

        let append = receive(&mut socket).await;
        assert_eq!(append["type"], "input_audio_buffer.append");
        let response = json!({"id": "resp_1", "status": "in_progress"});
        send(&mut socket, json!({"type": "response.created", "event_id": "e3", "response": response})).await;
        let delta = json!({"type": "response.output_audio.delta", "event_id": "e4", "response_id": "resp_1",
            "item_id": "item_1", "output_index": 0, "content_index": 0, "delta": append["audio"]});
        send(&mut socket, delta).await;
        socket.close(None).await.unwrap();
    });

    let mut session = session(&url, Some("secret"));
    assert_eq!(session.next_event().await, ModelEvent::Ready);
    let spoken = Payload::from_mulaw(&[0x12; 160]);
    session.send(ModelCommand::Append(spoken.clone()));
    let reply = call_session::ReplyId::from("resp_1");
    assert_eq!(session.next_event().await, ModelEvent::ReplyStarted { reply: reply.clone() });
    let item = call_session::ItemId::from("item_1");
    assert_eq!(session.next_event().await, ModelEvent::Audio { reply, item, audio: spoken });
    assert_eq!(session.next_event().await, ModelEvent::Lost { reason: ModelLoss::Closed });
    server.await.unwrap();
}

#[tokio::test]
async fn a_refused_upgrade_is_told_from_an_unreachable_model() {
    for (status, expected) in
        [(401, ModelLoss::Rejected), (404, ModelLoss::Rejected), (503, ModelLoss::Unreachable)]
    {
        let (listener, url) = listen().await;
        tokio::spawn(async move {
            let (tcp, _) = listener.accept().await.unwrap();
            #[allow(clippy::result_large_err)]
            let refuse = |_: &server::Request, _| {
                let mut refusal = server::ErrorResponse::new(None);
                *refusal.status_mut() = StatusCode::from_u16(status).unwrap();
                Err(refusal)
            };
            assert!(tokio_tungstenite::accept_hdr_async(tcp, refuse).await.is_err());
        });
        let mut session = session(&url, Some("secret"));
        assert_eq!(session.next_event().await, ModelEvent::Lost { reason: expected }, "{status}");
    }
}

#[tokio::test]
async fn a_closed_port_is_unreachable_and_a_missing_key_is_a_rejection() {
    let (listener, url) = listen().await;
    drop(listener);
    let mut unreachable = session(&url, Some("secret"));
    assert_eq!(unreachable.next_event().await, ModelEvent::Lost { reason: ModelLoss::Unreachable });
    let mut keyless = session(&url, None);
    assert_eq!(keyless.next_event().await, ModelEvent::Lost { reason: ModelLoss::Rejected });
}

#[test]
fn a_url_names_its_peer() {
    let cases = [
        ("wss://api.openai.com/v1/realtime", Some(("api.openai.com", 443, true))),
        ("ws://model:8080/x", Some(("model", 8080, false))),
        ("ws://[::1]:9/", Some(("::1", 9, false))),
        ("https://model/", None),
    ];
    for (url, expected) in cases {
        let found = peer(&url.parse().unwrap());
        let found = found.as_ref().map(|(host, port, tls)| (host.as_str(), *port, *tls));
        assert_eq!(found, expected, "{url}");
    }
}

#[test]
fn a_model_name_is_escaped_in_the_query() {
    let request = request("ws://model/v1", "a&b=c d", "key").unwrap();
    assert_eq!(request.uri().query(), Some("model=a%26b%3Dc+d"));
}
