//! The thin shell: HTTP upgrade checks (protocol sheet, section 5.1), one task per connection, the wall clock.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::{StatusCode, header};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config};

use super::session::{Output, Session, Setup};
use super::{ModelConfig, Sessions};
use crate::violations::{Rule, Violations, is_breach};
use crate::voice::Registry;

/// What every connection shares.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: ModelConfig,
    pub(super) registry: Registry,
    pub(super) violations: Violations,
    pub(super) sessions: Sessions,
}

/// Accepts connections until dropped; then the connections end, too.
pub(super) async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => drop(connections.spawn(serve_connection(stream, peer, Arc::clone(&shared)))),
                // Out of descriptors: a pause lets some be closed.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve_connection(stream: TcpStream, peer: SocketAddr, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true); // only latency is lost without it
    let faults = shared.config.switches.faults().model;
    tokio::time::sleep(Duration::from_millis(faults.connect_milliseconds)).await;
    let config =
        WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
    let mut model = String::new();
    #[expect(clippy::result_large_err, reason = "the library's own type")]
    let check = |request: &Request, response: Response| match check_upgrade(request, &shared) {
        Ok(name) => {
            model = name;
            Ok(response)
        }
        Err(refused) => Err(refused.into()),
    };
    let Ok(Ok(socket)) = timeout(PATIENCE, accept_hdr_async_with_config(stream, check, Some(config))).await
    else {
        tracing::debug!(%peer, "model connection refused");
        return;
    };
    let session = shared.sessions.open(|number| {
        Session::new(Setup {
            number,
            model,
            opened_at: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            script: shared.config.script.clone(),
            behaviour: shared.config.behaviour.clone(),
            registry: shared.registry.clone(),
            violations: shared.violations.clone(),
            switches: shared.config.switches.clone(),
        })
    });
    let ended = converse(socket, &session, &shared.violations).await;
    tracing::debug!(%peer, cleanly = ended.is_ok(), "model connection over");
    lock(&session).handle_closed();
}

async fn converse(
    mut socket: WebSocketStream<TcpStream>,
    session: &Mutex<Session>,
    violations: &Violations,
) -> Result<(), Error> {
    let began = Instant::now();
    loop {
        let due = loop {
            let output = lock(session).poll(began.elapsed());
            match output {
                Output::Send(event) => send(&mut socket, Message::text(event.to_string())).await?,
                Output::Ping(payload) => {
                    send(&mut socket, Message::Ping(payload.into_bytes().into())).await?
                }
                Output::Close { code, reason } => {
                    let frame = CloseFrame { code: code.into(), reason: reason.into() };
                    return send(&mut socket, Message::Close(Some(frame))).await;
                }
                Output::Cut => return Ok(()),
                Output::Wait(due) => break due,
            }
        };
        tokio::select! {
            () = sleep_until(began + due.min(LONGEST_WAIT)) => {}
            message = socket.next() => match message {
                Some(Ok(Message::Text(text))) => lock(session).handle_text(began.elapsed(), &text),
                Some(Ok(Message::Binary(_))) => lock(session).handle_binary(),
                Some(Ok(Message::Pong(payload))) => lock(session).handle_pong(began.elapsed(), &payload),
                Some(Ok(Message::Ping(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Close(_))) | None => return Ok(()),
                Some(Err(error)) => {
                    if is_breach(&error) {
                        violations.record(Rule::ModelProtocol, error.to_string());
                    }
                    return Err(error);
                }
            },
        }
    }
}

/// Sends, or gives a client up that reads nothing for a long time.
async fn send(socket: &mut WebSocketStream<TcpStream>, message: Message) -> Result<(), Error> {
    timeout(PATIENCE, socket.send(message)).await.unwrap_or(Err(Error::ConnectionClosed))
}

/// The model asked for, or the HTTP answer that refuses.
fn check_upgrade(request: &Request, shared: &Shared) -> Result<String, RefusedUpgrade> {
    let broken = |detail: &str| shared.violations.record(Rule::ModelConnect, detail);
    if request.uri().path() != "/v1/realtime" {
        broken("the path is not /v1/realtime");
        return Err(RefusedUpgrade(StatusCode::NOT_FOUND, "invalid_url".into(), "Invalid URL."));
    }
    if request.headers().contains_key("openai-beta") {
        broken("the header OpenAI-Beta was sent");
        let message = "The Realtime Beta API is no longer supported. Please use the GA shape.";
        return Err(RefusedUpgrade(StatusCode::BAD_REQUEST, "beta_api_shape_disabled".into(), message));
    }
    let query = request.uri().query().unwrap_or_default();
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let modes: Vec<_> = pairs.filter(|(name, _)| matches!(*name, "model" | "intent" | "call_id")).collect();
    let model = match modes[..] {
        [("model", model)] if !model.is_empty() => model.to_owned(),
        _ => {
            broken("the query does not have exactly one model");
            let message = "You must provide a model parameter.";
            return Err(RefusedUpgrade(StatusCode::BAD_REQUEST, "missing_model".into(), message));
        }
    };
    let authorization = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    match authorization.and_then(|value| value.strip_prefix("Bearer ")) {
        Some(key) if key == shared.config.api_key => refuse_by_fault(shared).map_or(Ok(model), Err),
        // A wrong key is a person's mistake, no broken rule.
        Some(_) => Err(RefusedUpgrade(
            StatusCode::UNAUTHORIZED,
            "invalid_api_key".into(),
            "Incorrect API key provided.",
        )),
        None => {
            broken("there is no bearer token");
            let message = "Missing bearer or basic authentication in header.";
            Err(RefusedUpgrade(StatusCode::UNAUTHORIZED, "invalid_api_key".into(), message))
        }
    }
}

/// The refusal that is switched on, if one is.
fn refuse_by_fault(shared: &Shared) -> Option<RefusedUpgrade> {
    let faults = shared.config.switches.faults().model;
    let status = StatusCode::from_u16(faults.refuse_status?).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let code = faults.refuse_code.unwrap_or_else(|| "rate_limit_exceeded".to_owned());
    Some(RefusedUpgrade(status, code.into(), "The request was refused."))
}

/// Status, error code and message of an upgrade that is not granted.
struct RefusedUpgrade(StatusCode, Cow<'static, str>, &'static str);

impl From<RefusedUpgrade> for ErrorResponse {
    fn from(RefusedUpgrade(status, code, message): RefusedUpgrade) -> Self {
        let error = json!({"error": {"type": "invalid_request_error", "code": code, "message": message, "param": null}});
        let mut response = Self::new(Some(error.to_string()));
        *response.status_mut() = status;
        let json = header::HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        response
    }
}

/// A session stays usable for the log whoever panicked over it.
pub(super) fn lock(session: &Mutex<Session>) -> MutexGuard<'_, Session> {
    session.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An append of 15 MiB in base64 is 20 MiB.
const MAX_MESSAGE: usize = 24 * 1024 * 1024;

/// For a handshake, and for a client that does not read.
const PATIENCE: Duration = Duration::from_secs(10);

/// Spurious wake-ups are harmless; an overflowing deadline is not.
const LONGEST_WAIT: Duration = Duration::from_secs(365 * 24 * 3600);
