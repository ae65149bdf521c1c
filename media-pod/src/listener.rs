//! One door: a bounded HTTP/1.1 server, and the step from a request to a WebSocket.
//!
//! Bounds that axum's own server does not set: connections at once, and time to send a request's head. A connection
//! above the bound waits in the kernel's backlog; one that is silent is closed. An upgraded connection no longer counts
//! here, its owner bounds it.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderMap, HeaderName, Method, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::duplex::{Bounds, Duplex, Transport};

/// HTTP connections at once, per door. Twilio, probes and scrapers need a few dozen; each costs some 10 kB.
const MOST_CONNECTIONS: usize = 1024;

/// Time to send a request's head, also between the requests of a kept-alive connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);

/// A request's head: form posts of Twilio are in the body, so a small buffer does.
const HEAD_BUFFER: usize = 16 * 1024;

/// Pause after an error of `accept` (no more file descriptors): the next one would fail as well.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long open requests may still take once the door closes.
const CLOSING: Duration = Duration::from_secs(2);

/// Serves until `stop`, then lets open requests end.
pub(crate) async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let connections = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let open = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accept(&listener, &connections) => accepted,
        };
        let Some((stream, permit)) = accepted else { return };
        let service = TowerToHyperService::new(router.clone());
        let stop = stop.clone();
        open.spawn(async move {
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .max_buf_size(HEAD_BUFFER)
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades();
            let mut connection = std::pin::pin!(connection);
            // How a connection ends is its peer's business: a broken one says nothing about us.
            let _ = tokio::select! {
                ended = connection.as_mut() => ended,
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            drop(permit);
        });
    }
    open.close();
    if tokio::time::timeout(CLOSING, open.wait()).await.is_err() {
        tracing::warn!("requests were still open when the door closed");
    }
}

async fn accept(
    listener: &TcpListener,
    connections: &Arc<Semaphore>,
) -> Option<(tokio::net::TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = connections.clone().acquire_owned().await.ok()?; // never closed
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Audio frames are small and must not wait for each other.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "no TCP_NODELAY");
                }
                return Some((stream, permit));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Not a WebSocket upgrade.
#[derive(Debug, thiserror::Error)]
#[error("expected a WebSocket upgrade (RFC 6455)")]
pub(crate) struct NotAnUpgrade;

/// A checked upgrade request: answer with [`Upgrade::response`], then await [`Upgrade::open`].
pub(crate) struct Upgrade {
    accept: String,
    upgraded: OnUpgrade,
}

impl Upgrade {
    /// Takes the upgrade out of a request.
    ///
    /// # Errors
    /// When the request is not a WebSocket handshake of version 13.
    pub(crate) fn of(request: &mut Request) -> Result<Self, NotAnUpgrade> {
        let headers = request.headers();
        let is_handshake = request.method() == Method::GET
            && has_token(headers, &CONNECTION, "upgrade")
            && has_token(headers, &UPGRADE, "websocket")
            && has_token(headers, &SEC_WEBSOCKET_VERSION, "13");
        let key = headers.get(SEC_WEBSOCKET_KEY).filter(|_| is_handshake).ok_or(NotAnUpgrade)?;
        let accept = derive_accept_key(key.as_bytes());
        let upgraded = request.extensions_mut().remove::<OnUpgrade>().ok_or(NotAnUpgrade)?;
        Ok(Self { accept, upgraded })
    }

    /// The answer that makes the peer speak WebSocket.
    pub(crate) fn response(&self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, http::HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, http::HeaderValue::from_static("websocket"));
        if let Ok(accept) = http::HeaderValue::from_str(&self.accept) {
            headers.insert(SEC_WEBSOCKET_ACCEPT, accept); // base64: always a header value
        }
        response
    }

    /// The socket, once the answer has left; `None` when the peer went away before.
    pub(crate) async fn open(self, bounds: Bounds) -> Option<Duplex> {
        let upgraded = self.upgraded.await.ok()?;
        let transport: Box<dyn Transport> = Box::new(TokioIo::new(upgraded));
        let socket = WebSocketStream::from_raw_socket(transport, Role::Server, Some(bounds.config())).await;
        Some(Duplex::new(socket, bounds))
    }
}

/// Whether a comma-separated header holds a token, in any case.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|part| part.trim().eq_ignore_ascii_case(token))
}
