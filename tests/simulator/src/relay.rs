//! The naive relay: media ↔ append and delta, nothing else. What the product is measured against.
//!
//! It is what a competent person writes in an afternoon: one task per call, typed and borrowed JSON, no marks, no token,
//! no signature, no truncation, no store, no limits. It clears when the model hears speech, because without that it would
//! not be an agent. Must never grow features: every one of them would flatter the product.

use std::borrow::Cow;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use axum::routing::{get, post};
use futures_util::{SinkExt as _, StreamExt as _};
use serde::Deserialize;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::header::{AUTHORIZATION, InvalidHeaderValue};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite};

/// What a relay is given.
#[derive(Clone, Debug)]
pub struct Relay {
    /// `wss://` URL of its own stream, for the TwiML.
    pub stream_url: String,
    /// `host:port` of the model, plain.
    pub model: String,
    /// The model's key.
    pub api_key: String,
}

/// Why a call could not be relayed.
#[derive(Debug, thiserror::Error)]
enum RelayError {
    #[error("no connection to the model: {0}")]
    Connect(#[from] std::io::Error),
    #[error("the model's socket: {0}")]
    Model(#[from] tungstenite::Error),
    #[error("the phone's socket: {0}")]
    Phone(#[from] axum::Error),
    #[error("a message is not of the expected form: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the key is not a header value")]
    Key(#[from] InvalidHeaderValue),
}

/// Serves `POST /voice`, `POST /status` and `GET /stream` until the listener fails.
///
/// # Errors
/// Those of the listener.
pub async fn serve(listener: TcpListener, relay: Relay) -> std::io::Result<()> {
    let twiml = format!(
        r#"<Response><Connect><Stream url="{}"/></Connect></Response>"#,
        relay.stream_url.replace('&', "&amp;")
    );
    let router = Router::new()
        .route("/voice", post(|| async move { ([("content-type", "text/xml")], twiml) }))
        .route("/status", post(|| async {}))
        .route("/stream", get(upgrade))
        .with_state(Arc::new(relay));
    axum::serve(axum::serve::ListenerExt::tap_io(listener, |tcp| drop(tcp.set_nodelay(true))), router).await
}

async fn upgrade(State(relay): State<Arc<Relay>>, upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(async move |phone| {
        if let Err(error) = converse(&relay, phone).await {
            tracing::debug!(%error, "a call was not relayed to its end");
        }
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FromPhone<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow)]
    stream_sid: Option<Cow<'a, str>>,
    #[serde(borrow)]
    media: Option<Media<'a>>,
}

#[derive(Deserialize)]
struct Media<'a> {
    #[serde(borrow)]
    payload: Cow<'a, str>,
}

#[derive(Deserialize)]
struct FromModel<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    delta: Option<Cow<'a, str>>,
}

async fn converse(relay: &Relay, mut phone: WebSocket) -> Result<(), RelayError> {
    let sid = loop {
        let Some(message) = phone.recv().await else { return Ok(()) };
        let Message::Text(text) = message? else { continue };
        let message: FromPhone<'_> = serde_json::from_str(&text)?;
        if let ("start", Some(sid)) = (message.event.as_ref(), message.stream_sid) {
            break sid.into_owned();
        }
    };
    let mut model = connect(relay).await?;
    loop {
        tokio::select! {
            message = phone.recv() => {
                let Some(Ok(Message::Text(text))) = message else { break };
                let message: FromPhone<'_> = serde_json::from_str(&text)?;
                match (message.event.as_ref(), message.media) {
                    ("media", Some(media)) => {
                        let append = format!(
                            r#"{{"type":"input_audio_buffer.append","audio":"{}"}}"#, media.payload
                        );
                        model.send(Frame::text(append)).await?;
                    }
                    ("stop", _) => break,
                    _ => {}
                }
            }
            frame = model.next() => {
                let Some(frame) = frame else { break };
                let Frame::Text(text) = frame? else { continue };
                let event: FromModel<'_> = serde_json::from_str(&text)?;
                let message = match (event.kind.as_ref(), event.delta) {
                    ("response.output_audio.delta", Some(delta)) => format!(
                        r#"{{"event":"media","streamSid":"{sid}","media":{{"payload":"{delta}"}}}}"#
                    ),
                    ("input_audio_buffer.speech_started", _) => {
                        format!(r#"{{"event":"clear","streamSid":"{sid}"}}"#)
                    }
                    _ => continue,
                };
                phone.send(Message::Text(message.into())).await?;
            }
        }
    }
    model.close(None).await?;
    Ok(())
}

/// A configured session that was asked to greet.
async fn connect(relay: &Relay) -> Result<WebSocketStream<TcpStream>, RelayError> {
    let url = format!("ws://{}/v1/realtime?model=gpt-realtime-2.1", relay.model);
    let mut request = url.into_client_request()?;
    request.headers_mut().insert(AUTHORIZATION, format!("Bearer {}", relay.api_key).parse()?);
    let tcp = TcpStream::connect(&relay.model).await?;
    tcp.set_nodelay(true)?;
    let (mut model, _) = client_async(request, tcp).await?;
    model.send(Frame::text(SESSION)).await?;
    while let Some(frame) = model.next().await {
        let Frame::Text(text) = frame? else { continue };
        if serde_json::from_str::<FromModel<'_>>(&text)?.kind == "session.updated" {
            break;
        }
    }
    model.send(Frame::text(GREET)).await?;
    Ok(model)
}

const SESSION: &str = r#"{"type":"session.update","session":{"type":"realtime","audio":{"input":{"format":{"type":"audio/pcmu"},"turn_detection":{"type":"server_vad"}},"output":{"format":{"type":"audio/pcmu"}}}}}"#;
const GREET: &str = r#"{"type":"response.create","response":{"instructions":"Greet the caller."}}"#;
