//! The Realtime engine: a WebSocket to an OpenAI-compatible endpoint, and the protocol machine on it.
//!
//! This file dials and carries frames; what they mean is [`call_session::Realtime`]'s business. Connections are plain
//! (`ws`, for a model beside the pod) or TLS by rustls with the public roots and an optional file of further ones.
//!
//! Must never: log a frame, or send the key anywhere but in the `Authorization` header.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use call_session::Ms;
use call_session::agent_file::RealtimeEngine;
use call_session::io::{ModelCommand, ModelEvent, ModelLoss};
use call_session::plan::Plan;
use call_session::realtime::{Closed, Realtime, RealtimeConfig, RealtimeInput, RealtimeOutput};
use http::header::AUTHORIZATION;
use http::{HeaderValue, StatusCode, Uri};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::client_async_with_config;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{self, handshake};
use twilio::Secret;

use crate::clock;
use crate::duplex::{Bounds, Duplex, Incoming, Transport};
use crate::metrics::{Metrics, ProviderFault};
use crate::timeline::Timeline;

/// Bounds of a model's socket. A message may be large (protocol sheet 5.1: at least 16 MiB); the outbox holds the
/// caller's audio (11 kB a second in base64) and a replayed conversation.
const BOUNDS: Bounds = Bounds { message: call_session::realtime::MAX_FRAME, outbox: 1 << 20 };

/// Name, TCP, TLS and upgrade together. A call machine gives up after 10 s, so that a second attempt still helps.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the model may take to answer a close; nobody waits for it but a finished call's task.
const CLOSING: Duration = Duration::from_secs(1);

/// How often a connection without a call is asked whether it is still there. Below the minute after which proxies and
/// address translators forget an idle connection.
const PING: Duration = Duration::from_secs(20);

/// A close frame of ours: normal, and nothing the peer must know.
const NORMAL: u16 = 1000;

/// Extra roots that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The file cannot be read, or is not PEM.
    #[error("is not a readable PEM file: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
    /// A certificate in it cannot be used, or there is none.
    #[error("holds no usable certificate")]
    Empty,
    /// The TLS library refuses.
    #[error("TLS cannot be configured: {0}")]
    Tls(#[from] rustls::Error),
}

/// Why no connection was opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error("the key cannot be read")]
    Key,
    #[error("the URL is not usable")]
    Url,
    #[error("not in time")]
    TimedOut,
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("refused with status {0}")]
    Status(StatusCode),
    #[error("no WebSocket: {0}")]
    WebSocket(tungstenite::Error),
}

impl DialError {
    /// Whether trying again may help.
    pub(super) fn loss(&self) -> ModelLoss {
        match self {
            Self::Key | Self::Url => ModelLoss::Rejected,
            Self::TimedOut | Self::Io(_) | Self::WebSocket(_) => ModelLoss::Unreachable,
            Self::Status(status) => match *status {
                // Busy, slow or broken: the next attempt may find it better.
                StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => ModelLoss::Unreachable,
                status if status.is_server_error() => ModelLoss::Unreachable,
                _ => ModelLoss::Rejected,
            },
        }
    }
}

/// A connection on its way; it begins when it is awaited, and belongs to no call yet.
pub(super) type Dialing = Pin<Box<dyn Future<Output = Result<Box<Open>, DialError>> + Send>>;

/// Opens connections.
#[derive(Clone)]
pub struct Dialer {
    tls: TlsConnector,
}

impl Dialer {
    /// A dialer that trusts the public roots, and the certificates in a PEM file.
    ///
    /// # Errors
    /// [`TrustError`] when the file holds nothing usable.
    pub fn new(extra_ca_file: Option<&Path>) -> Result<Self, TrustError> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        if let Some(path) = extra_ca_file {
            let certificates = CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>()?;
            let (added, _) = roots.add_parsable_certificates(certificates);
            if added == 0 {
                return Err(TrustError::Empty);
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { tls: TlsConnector::from(Arc::new(config)) })
    }

    /// Whom it trusts, for others who call out.
    pub fn tls(&self) -> ClientConfig {
        ClientConfig::clone(self.tls.config())
    }

    /// A connection to `engine`, opened when it is awaited; without a key it is refused.
    pub(super) fn dial(&self, engine: &RealtimeEngine, key: Option<Secret>) -> Dialing {
        let tls = self.tls.clone();
        let url = engine.url.clone();
        let model = engine.model.clone();
        Box::pin(async move {
            let key = key.ok_or(DialError::Key)?;
            let request = request(&url, &model, key.expose())?;
            let opened = tokio::time::timeout(DIAL_TIMEOUT, open(request, tls)).await;
            Ok(Box::new(Open::new(opened.map_err(|_| DialError::TimedOut)??)))
        })
    }
}

/// The upgrade request: `?model=`, a bearer token, and no `OpenAI-Beta` (protocol sheet 5.1).
fn request(url: &str, model: &str, key: &str) -> Result<handshake::client::Request, DialError> {
    let query: String = form_urlencoded::byte_serialize(model.as_bytes()).collect();
    let mut request = format!("{url}?model={query}").into_client_request().map_err(|_| DialError::Url)?;
    let mut bearer = HeaderValue::from_str(&format!("Bearer {key}")).map_err(|_| DialError::Key)?;
    bearer.set_sensitive(true);
    request.headers_mut().insert(AUTHORIZATION, bearer);
    Ok(request)
}

async fn open(request: handshake::client::Request, tls: TlsConnector) -> Result<Duplex, DialError> {
    let (host, port, is_tls) = peer(request.uri()).ok_or(DialError::Url)?;
    let tcp = TcpStream::connect((host.as_str(), port)).await?;
    tcp.set_nodelay(true)?;
    let transport: Box<dyn Transport> = if is_tls {
        let name = ServerName::try_from(host).map_err(|_| DialError::Url)?;
        Box::new(tls.connect(name, tcp).await?)
    } else {
        Box::new(tcp)
    };
    match client_async_with_config(request, transport, Some(BOUNDS.config())).await {
        Ok((socket, _)) => Ok(Duplex::new(socket, BOUNDS)),
        Err(tungstenite::Error::Http(response)) => Err(DialError::Status(response.status())),
        Err(error) => Err(DialError::WebSocket(error)),
    }
}

/// Host (without an IPv6 address's brackets), port, and whether TLS is asked for.
fn peer(uri: &Uri) -> Option<(String, u16, bool)> {
    let (default_port, is_tls) = match uri.scheme_str()? {
        "ws" => (80, false),
        "wss" => (443, true),
        _ => return None,
    };
    let host = uri.host()?.trim_start_matches('[').trim_end_matches(']').to_owned();
    Some((host, uri.port_u16().unwrap_or(default_port), is_tls))
}

/// A connection, personalised for one call.
pub struct Session {
    link: Link,
    metrics: Arc<Metrics>,
}

enum Link {
    Dialing { dialing: Dialing, config: Box<RealtimeConfig> },
    Open(Box<Open>),
    Gone,
}

/// An open socket and the protocol on it.
pub(super) struct Open {
    socket: Duplex,
    machine: Realtime,
    timeline: Timeline,
}

impl Session {
    /// Personalises a connection for a call of `plan`.
    pub(super) fn new(dialing: Dialing, engine: &RealtimeEngine, plan: &Plan, metrics: Arc<Metrics>) -> Self {
        let config = Box::new(RealtimeConfig::new(engine, plan));
        Self { link: Link::Dialing { dialing, config }, metrics }
    }

    /// Takes a command.
    pub fn send(&mut self, command: ModelCommand) {
        match &mut self.link {
            Link::Open(open) => open.feed(RealtimeInput::Command(command), &self.metrics),
            // Commands are for a session that said it is ready, and has not said that it is lost.
            Link::Dialing { .. } | Link::Gone => tracing::debug!("a command found no model"),
        }
    }

    /// The next event; see [`super::Session::next_event`].
    pub async fn next_event(&mut self) -> ModelEvent {
        loop {
            let event = match &mut self.link {
                Link::Dialing { dialing, config } => match dialing.await {
                    Ok(mut open) => {
                        open.feed(RealtimeInput::Configure(config.clone()), &self.metrics);
                        self.link = Link::Open(open);
                        continue;
                    }
                    Err(error) => {
                        tracing::warn!(%error, "no connection to the model");
                        ModelEvent::Lost { reason: error.loss() }
                    }
                },
                Link::Open(open) => open.next_event(&self.metrics).await,
                Link::Gone => std::future::pending().await,
            };
            if matches!(event, ModelEvent::Lost { .. })
                && let Link::Open(open) = std::mem::replace(&mut self.link, Link::Gone)
            {
                // The call goes on meanwhile; the close is bounded.
                let metrics = self.metrics.clone();
                tokio::spawn(async move { open.close(&metrics).await });
            }
            return event;
        }
    }

    /// Closes the connection in order.
    pub async fn close(self) {
        match self.link {
            Link::Open(open) => open.close(&self.metrics).await,
            Link::Dialing { .. } | Link::Gone => {}
        }
    }
}

impl Open {
    fn new(socket: Duplex) -> Self {
        let timeline = Timeline::begin(Ms::ZERO);
        let machine = Realtime::opened_at(timeline.now(), clock::system()().seconds());
        Self { socket, machine, timeline }
    }

    fn feed(&mut self, input: RealtimeInput, metrics: &Metrics) {
        if let Err(error) = self.machine.handle_input(self.timeline.now(), input) {
            metrics.provider_faults.inc(ProviderFault::from(&error));
            tracing::trace!(%error, "the model's protocol machine ignored an input");
        }
    }

    /// Drains the machine up to the next event, feeding it what comes meanwhile. Cancel-safe.
    async fn next_event(&mut self, metrics: &Metrics) -> ModelEvent {
        loop {
            if let Some(event) = self.step(metrics).await {
                return event;
            }
        }
    }

    /// Waits for `session.created`; the connection can then be kept for a call.
    pub(super) async fn warm_up(&mut self, metrics: &Metrics) -> Result<(), ModelLoss> {
        while !self.machine.is_warm() {
            if let Some(event) = self.step(metrics).await {
                take_unasked(&event, metrics)?;
            }
        }
        Ok(())
    }

    /// Keeps a warm connection alive until it is lost. Cancel-safe.
    pub(super) async fn stay_warm(&mut self, metrics: &Metrics) -> ModelLoss {
        let mut pings = tokio::time::interval_at(Instant::now() + PING, PING);
        loop {
            tokio::select! {
                event = self.step(metrics) => {
                    if let Some(Err(reason)) = event.map(|event| take_unasked(&event, metrics)) {
                        return reason;
                    }
                }
                _ = pings.tick() => {
                    if self.socket.ping().is_err() {
                        return ModelLoss::Closed;
                    }
                }
            }
        }
    }

    /// When the model will end the session, in Unix seconds, as far as it has said so.
    pub(super) const fn expires_at(&self) -> Option<u64> {
        self.machine.expires_at()
    }

    /// Closes the connection in order, within a bounded time.
    pub(super) async fn close(self: Box<Self>, metrics: &Metrics) {
        metrics.model_queue.observe(self.socket.high_water() as f64);
        self.socket.close(NORMAL, "", CLOSING).await;
    }

    /// Drains the machine: up to an event, or up to one input. Cancel-safe: an event is returned in the same step in
    /// which it leaves the machine.
    async fn step(&mut self, metrics: &Metrics) -> Option<ModelEvent> {
        let deadline = loop {
            match self.machine.poll_output() {
                RealtimeOutput::Event(event) => return Some(event),
                RealtimeOutput::Frame(frame) => {
                    if self.socket.queue(frame).is_err() {
                        too_slow(metrics);
                        return Some(ModelEvent::Lost { reason: ModelLoss::Closed });
                    }
                }
                // The machine has said, or says next, that the connection is lost; the socket is closed then.
                RealtimeOutput::Close { code: _ } | RealtimeOutput::Ended => {}
                RealtimeOutput::Wait(deadline) => break deadline,
            }
        };
        let input = match deadline {
            None => read(self.socket.next().await, metrics),
            Some(at) => {
                let moment: Instant = self.timeline.moment(at);
                match tokio::time::timeout_at(moment, self.socket.next()).await {
                    Ok(incoming) => read(incoming, metrics),
                    Err(_) => Some(RealtimeInput::Tick),
                }
            }
        };
        if let Some(input) = input {
            self.feed(input, metrics);
        }
        None
    }
}

/// An event of a connection that belongs to no call yet: its loss counts, a refusal is counted.
fn take_unasked(event: &ModelEvent, metrics: &Metrics) -> Result<(), ModelLoss> {
    match event {
        ModelEvent::Lost { reason } => return Err(*reason),
        ModelEvent::Refused { class } => metrics.provider_refusals.inc(*class),
        // The protocol machine says nothing else before a call is attached.
        _ => {}
    }
    Ok(())
}

/// What a message means to the machine; a binary one nothing.
fn read(incoming: Incoming, metrics: &Metrics) -> Option<RealtimeInput> {
    let code = match incoming {
        Incoming::Text(frame) => return Some(RealtimeInput::Frame(frame)),
        Incoming::Binary => {
            metrics.provider_faults.inc(ProviderFault::Binary);
            return None;
        }
        Incoming::Closed(code) => code,
        Incoming::TooLarge => {
            metrics.provider_faults.inc(ProviderFault::TooLarge);
            None
        }
        Incoming::Stalled => {
            too_slow(metrics);
            None
        }
        Incoming::Broken => None,
    };
    Some(RealtimeInput::Closed(Closed { code }))
}

fn too_slow(metrics: &Metrics) {
    metrics.provider_faults.inc(ProviderFault::TooSlow);
    tracing::warn!("the model does not take what it is sent");
}

#[cfg(test)]
#[path = "realtime/tests.rs"]
mod tests;
