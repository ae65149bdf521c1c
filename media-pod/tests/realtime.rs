//! A real pod with a Realtime engine behind TLS, against a few lines of a Realtime server.

#![allow(clippy::unwrap_used)] // in a test it is an assertion

mod harness;

use std::sync::Arc;

use futures_util::{SinkExt as _, StreamExt as _};
use harness::{Heard, Pod, call_sid};
use rustls::pki_types::PrivatePkcs8KeyDer;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

type Socket = WebSocketStream<TlsStream<TcpStream>>;

/// A model behind a certificate that nobody trusts by himself; its PEM and its URL.
async fn model() -> (TcpListener, TlsAcceptor, String, String) {
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key.into())
        .unwrap();
    let listener = TcpListener::bind(("localhost", 0)).await.unwrap();
    let url = format!("wss://localhost:{}/v1/realtime", listener.local_addr().unwrap().port());
    (listener, TlsAcceptor::from(Arc::new(config)), certified.cert.pem(), url)
}

fn engine(url: &str) -> String {
    format!(
        "engines: [{{name: main, type: Realtime, realtime: {{url: '{url}', model: gpt-realtime-2.1, voice: marin, \
         apiKey: {{name: openai, key: key}}}}}}]\n"
    )
}

async fn send(socket: &mut Socket, event: Value) {
    socket.send(Message::text(event.to_string())).await.unwrap();
}

/// The next event of this type; what comes before it is returned as well.
async fn until(socket: &mut Socket, wanted: &str) -> (Vec<String>, Value) {
    let mut before = Vec::new();
    loop {
        let next = tokio::time::timeout(harness::DEADLINE, socket.next()).await.unwrap();
        let Message::Text(text) = next.unwrap().unwrap() else { continue };
        let event: Value = serde_json::from_str(&text).unwrap();
        if event["type"] == wanted {
            return (before, event);
        }
        before.push(event["type"].as_str().unwrap().to_owned());
    }
}

#[tokio::test]
async fn audio_passes_unchanged_both_ways_and_an_interruption_tells_what_was_heard() {
    let (listener, acceptor, pem, url) = model().await;
    let file = std::env::temp_dir().join(format!("switchboard-ca-{}.pem", std::process::id()));
    std::fs::write(&file, pem).unwrap();
    let pod = Pod::start_with(&engine(&url), |config| config.extra_ca_file = Some(file.clone())).await;

    let mut phone = pod.dial(&call_sid(1)).await;
    let (tcp, _) = listener.accept().await.unwrap();
    let mut model = tokio_tungstenite::accept_async(acceptor.accept(tcp).await.unwrap()).await.unwrap();
    send(&mut model, json!({"type": "session.created", "event_id": "e1", "session": {}})).await;
    let (before, _) = until(&mut model, "session.update").await;
    assert_eq!(before, Vec::<String>::new(), "nothing comes before the session is configured");
    send(&mut model, json!({"type": "session.updated", "event_id": "e2", "session": {}})).await;

    until(&mut model, "response.create").await;
    let id = json!({"id": "resp_1", "status": "in_progress", "object": "realtime.response"});
    send(&mut model, json!({"type": "response.created", "event_id": "e3", "response": id})).await;
    let second = call_session::audio::Payload::from_mulaw(&[0x2A; 8000]);
    for number in 0..3 {
        let delta = json!({"type": "response.output_audio.delta", "event_id": format!("d{number}"),
            "response_id": "resp_1", "item_id": "item_1", "output_index": 0, "content_index": 0,
            "delta": second.as_str()});
        send(&mut model, delta).await;
    }
    // One second is played, two are on their way to the caller's ear.
    phone.listen(1000).await;

    phone.say(&[0x55; 160]).await;
    let (_, append) = until(&mut model, "input_audio_buffer.append").await;
    let said = call_session::audio::Payload::from_mulaw(&[0x55; 160]);
    assert_eq!(append["audio"], said.as_str());

    let started = json!({"type": "input_audio_buffer.speech_started", "event_id": "e4", "audio_start_ms": 0,
        "item_id": "user_1"});
    send(&mut model, started).await;
    phone.until(|heard| *heard == Heard::Clear).await;
    let (_, truncate) = until(&mut model, "conversation.item.truncate").await;
    assert_eq!(truncate["item_id"], "item_1");
    let heard = truncate["audio_end_ms"].as_u64().unwrap();
    assert!(heard <= 3000, "never more than was sent: {heard}");

    drop(model);
    pod.until_metric("switchboard_provider_failures_total{reason=\"closed\"}", 1).await;
    assert_eq!(pod.metric("switchboard_active_calls").await, 1, "the call outlives its connection");
    listener.accept().await.unwrap();
    std::fs::remove_file(&file).unwrap();
}

#[tokio::test]
async fn a_certificate_nobody_vouches_for_is_not_accepted() {
    let (listener, acceptor, _, url) = model().await;
    let pod = Pod::start(&engine(&url)).await;
    let _phone = pod.dial(&call_sid(1)).await;
    let (tcp, _) = listener.accept().await.unwrap();
    assert!(acceptor.accept(tcp).await.is_err());
    let failures = "switchboard_provider_failures_total{reason=\"unreachable\"}";
    harness::until(async || match pod.metric(failures).await {
        0 => Err("no connection failed".to_owned()),
        _ => Ok(()),
    })
    .await;
}
