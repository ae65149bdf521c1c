//! `switchboard operator`: door first, then the election, then the controllers, until a signal or a lost Lease.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{Method, Request};
use futures_util::future;
use kube::client::{Body, ClientBuilder};
use kube::{Client, Config};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tower::filter::FilterLayer;
use tower::timeout::TimeoutLayer;
use twilio::rest::{Transport, TransportError};

use crate::cache::{Cache, Setup};
use crate::config::{Home, OperatorConfig, Scope};
use crate::context::{Context, Surroundings};
use crate::leader::{Election, Standing};
use crate::metrics::Metrics;
use crate::{http, phone_number, steward, telemetry, voice_agent, voice_gateway};

/// The operator cannot start, or must not go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Logging is started twice.
    #[error("logging cannot be started")]
    Telemetry(#[from] tracing_subscriber::util::TryInitError),
    /// Our bug.
    #[error("metrics cannot be registered")]
    Metrics(#[from] prometheus::Error),
    /// `SWITCHBOARD_EXTRA_CA_FILE` cannot be read.
    #[error("SWITCHBOARD_EXTRA_CA_FILE cannot be read")]
    ExtraCa(#[source] io::Error),
    /// Its content is no certificate, or TLS cannot be set up.
    #[error("SWITCHBOARD_EXTRA_CA_FILE cannot be used")]
    Transport(#[from] TransportError),
    /// No way to the API server.
    #[error("there is neither a service account nor a kubeconfig to reach the API server with")]
    Cluster(#[from] kube::config::InferConfigError),
    /// The service account or kubeconfig cannot be used.
    #[error("the client of the API server cannot be set up")]
    Client(#[source] Box<kube::Error>),
    /// The HTTP client for media pods cannot be set up.
    #[error("the HTTP client for media pods cannot be set up")]
    PodClient(#[source] reqwest::Error),
    /// `SWITCHBOARD_HTTP_ADDR` cannot be bound.
    #[error("SWITCHBOARD_HTTP_ADDR cannot be bound")]
    Bind(#[source] io::Error),
    /// Signals cannot be listened to.
    #[error("signals cannot be listened to")]
    Signals(#[source] io::Error),
    /// Another replica may lead now; going on would be two leaders.
    #[error("the Lease was lost, so another replica may lead")]
    LeadershipLost,
    /// A controller ended without being told to.
    #[error("a controller ended by itself")]
    ControllerEnded,
}

/// How long reconciliations in progress get after a signal; each request to the carrier has a deadline below it.
const STOPPING: Duration = Duration::from_secs(20);

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start, and when the Lease is lost.
pub async fn run(config: OperatorConfig) -> Result<(), RunError> {
    let OperatorConfig {
        media_image,
        http_addr,
        resync_seconds,
        extra_ca_file,
        home: Home { namespace },
        pod_name,
        scope: Scope { watch_namespaces },
        max_rollouts,
        monitoring_namespaces,
        log,
    } = config;
    telemetry::start(log)?;
    let extra_ca = extra_ca_file.map(std::fs::read).transpose().map_err(RunError::ExtraCa)?;
    let transport = Transport::new(extra_ca.as_deref())?;
    let pods = pod_client().map_err(RunError::PodClient)?;
    let cluster = Config::infer().await?;
    let client = |config| Client::try_from(config).map_err(|e| RunError::Client(Box::new(e)));
    let metrics = Metrics::new()?;
    let listener = TcpListener::bind(http_addr).await.map_err(RunError::Bind)?;
    let door = axum::serve(listener, http::router(metrics.clone())).into_future();
    tokio::spawn(door);
    let mut stopped = std::pin::pin!(stop_signal()?);

    // A process id beside the pod's name, for operators that run outside a pod under the same name.
    let identity = format!("{pod_name}_{}", std::process::id());
    let mut election = Election::new(client(cluster.clone())?, &namespace, identity);
    let standing = election.standing();
    let client = fenced(cluster, standing.clone()).map_err(|e| RunError::Client(Box::new(e)))?;
    tracing::info!("waiting to lead");
    tokio::select! {
        () = election.acquire() => {}
        () = &mut stopped => return Ok(()),
    }
    tracing::info!("leading");
    metrics.set_leader(true);
    let resync = Duration::from_secs(resync_seconds);
    let Setup { cache, watches, agents, gateways, numbers } = Cache::setup(&client, watch_namespaces);
    let surroundings = Surroundings {
        media_image,
        operator_namespace: namespace,
        // An empty list is an empty text, which splits into one empty name.
        monitoring_namespaces: monitoring_namespaces.into_iter().filter(|name| !name.is_empty()).collect(),
        max_rollouts: usize::from(max_rollouts),
    };
    let context = Context::new(client, cache, metrics, transport, pods, surroundings, resync, standing);
    let context = Arc::new(context);
    let stop = CancellationToken::new();
    let stopped_by = || stop.clone().cancelled_owned();
    let controllers = future::join4(
        voice_gateway::run(context.clone(), gateways, stopped_by()),
        voice_agent::run(context.clone(), agents, stopped_by()),
        phone_number::run(context.clone(), numbers, stopped_by()),
        steward::run(context.clone(), stop.clone()),
    );
    // What is on its way still reads the cache, so the watches end last.
    let mut controllers = std::pin::pin!(async {
        tokio::select! {
            _ = controllers => {}
            () = watches.run() => {}
        }
    });
    tokio::select! {
        () = &mut controllers => return Err(RunError::ControllerEnded),
        () = election.keep() => return Err(RunError::LeadershipLost),
        () = &mut stopped => {}
    }
    tracing::info!("stopping");
    stop.cancel();
    if timeout(STOPPING, controllers).await.is_err() {
        tracing::warn!("some reconciliations did not end in time");
    }
    election.release().await;
    Ok(())
}

/// An API server ends whatever is no watch within a minute (its `--request-timeout`). What takes longer goes to nobody: a
/// node or a load balancer in between went, and without a limit whoever asked would wait for ever.
const ANSWER: Duration = Duration::from_secs(65);

/// A client that writes nothing unless this replica leads: the only one that reconcilers have. Every request is answered
/// or fails; a watch only has to begin in time.
fn fenced(config: Config, standing: Standing) -> Result<Client, kube::Error> {
    let check = move |request: Request<Body>| match *request.method() {
        Method::GET => Ok(request),
        _ => standing.check().map(|()| request),
    };
    let (fence, limit) = (FilterLayer::new(check), TimeoutLayer::new(ANSWER));
    Ok(ClientBuilder::try_from(config)?.with_layer(&limit).with_layer(&fence).build())
}

/// Asks pods for their load: plain HTTP to an address of the pod network.
pub(crate) fn pod_client() -> Result<reqwest::Client, reqwest::Error> {
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has the default protocol versions")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    // The client wants a TLS backend; without roots it trusts nobody, and nobody is asked over TLS.
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
}

/// Ends with the first SIGTERM or SIGINT.
fn stop_signal() -> Result<impl Future<Output = ()>, RunError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Signals)?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Secret;
    use kube::Api;

    /// An API server behind a connection that nobody answers any more, asked by a leader.
    async fn asked() -> (TcpListener, Client) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let standing = Standing::default();
        standing.renewed(tokio::time::Instant::now());
        (listener, fenced(Config::new(address.parse().unwrap()), standing).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_nobody_answers_fails() {
        let (_listener, client) = asked().await;
        let began = tokio::time::Instant::now();
        Api::<Secret>::namespaced(client, "moving").get("twilio").await.unwrap_err();
        assert!(began.elapsed() >= ANSWER && began.elapsed() < ANSWER * 2, "{:?}", began.elapsed());
    }
}
