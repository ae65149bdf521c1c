//! One door: a bounded HTTP/1.1 server, and the step from a request to a WebSocket.
//!
//! Bounds that axum's own server does not set: connections at once, and time to send a request's head. When all places are
//! taken and another connection comes, the one that has been without a request for longest gives way, so that sockets
//! which say nothing keep nobody out; where all are busy it waits in the kernel's backlog. A connection is busy from its
//! request's head to the answer: whoever reads a body must do so within a time. An upgraded connection no longer counts
//! here, its owner bounds it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderMap, HeaderName, Method, StatusCode};
use hyper::service::Service as _;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::duplex::{Bounds, Duplex, Transport};
use crate::metrics::Metrics;

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
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) {
    let house = Arc::new(House::new(MOST_CONNECTIONS));
    let open = TaskTracker::new();
    loop {
        let stream = tokio::select! {
            () = stop.cancelled() => break,
            stream = accept(&listener) => stream,
        };
        let seat = tokio::select! {
            () = stop.cancelled() => break,
            seat = house.seat(&metrics) => Arc::new(seat),
        };
        let router = TowerToHyperService::new(router.clone());
        let guest = seat.clone();
        let service = hyper::service::service_fn(move |request| {
            let busy = guest.clone().busy();
            let answer = router.call(request);
            async move {
                let answer = answer.await;
                drop(busy);
                answer
            }
        });
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
                () = seat.left.cancelled() => Ok(()),
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
        });
    }
    open.close();
    if tokio::time::timeout(CLOSING, open.wait()).await.is_err() {
        tracing::warn!("requests were still open when the door closed");
    }
}

async fn accept(listener: &TcpListener) -> tokio::net::TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Audio frames are small and must not wait for each other.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "no TCP_NODELAY");
                }
                return stream;
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The places of a door, and who in them has no request.
struct House {
    places: Arc<Semaphore>,
    idle: Mutex<Idle>,
}

/// Connections without a request, by the order in which they became so.
#[derive(Default)]
struct Idle {
    next: u64,
    since: BTreeMap<u64, CancellationToken>,
}

impl House {
    fn new(places: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(places)), idle: Mutex::default() }
    }

    /// A place, made free by the connection that has been idle for longest if there is no other.
    async fn seat(self: &Arc<Self>, metrics: &Metrics) -> Seat {
        if self.places.available_permits() == 0
            && let Some((_, longest)) = self.idle().since.pop_first()
        {
            longest.cancel();
            metrics.connections_shed.inc();
        }
        let place = self.places.clone().acquire_owned().await.expect("the semaphore is never closed");
        let seat = Seat {
            house: self.clone(),
            left: CancellationToken::new(),
            idle: Mutex::default(),
            _place: place,
        };
        seat.rest();
        seat
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner) // a map is never half changed
    }
}

/// A connection's place.
struct Seat {
    house: Arc<House>,
    /// Cancelled when it must give way.
    left: CancellationToken,
    /// Its number among the idle ones.
    idle: Mutex<Option<u64>>,
    _place: OwnedSemaphorePermit,
}

impl Seat {
    /// It has no request.
    fn rest(&self) {
        let mut idle = self.house.idle();
        let number = idle.next;
        idle.next += 1;
        idle.since.insert(number, self.left.clone());
        *self.number() = Some(number);
    }

    /// It has a request, until this is dropped.
    fn busy(self: Arc<Self>) -> Busy {
        self.wake();
        Busy(self)
    }

    fn wake(&self) {
        let mut idle = self.house.idle();
        if let Some(number) = self.number().take() {
            idle.since.remove(&number);
        }
    }

    fn number(&self) -> MutexGuard<'_, Option<u64>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.wake();
    }
}

/// A request is answered.
struct Busy(Arc<Seat>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.rest();
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
