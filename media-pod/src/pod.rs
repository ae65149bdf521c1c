//! One media pod: its parts, its three doors, its departure.
//!
//! [`Running::start`] loads and validates every file, binds the doors, and only then answers: `/readyz` is true from its
//! first answer on. [`Running::leave`] goes through the departure and closes the doors behind the last call.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use call_session::agent_file::{AgentFile, Keyring, Store as StoreChoice};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::agent::{FileError, Watched};
use crate::calls::Calls;
use crate::clock::{self, Clock};
use crate::config::Config;
use crate::drain::{Departure, Phase, window};
use crate::engine::Engines;
use crate::engine::realtime::{Dialer, TrustError};
use crate::metrics::Metrics;
use crate::secrets::{SecretError, Secrets};
use crate::store::memory::MemoryStore;
use crate::store::redis::RedisStore;
use crate::store::{Store, StoreError};
use crate::traces::Traces;
use crate::traces::delivery::{Delivery, DeliveryError};
use crate::webhook::{self, WebhookState};
use crate::{admin, api, leases, listener, stream};

/// What every part of the pod reaches.
pub(crate) struct Pod {
    agent: watch::Receiver<Arc<AgentFile>>,
    pub(crate) keyring: watch::Receiver<Arc<Keyring>>,
    pub(crate) secrets: Secrets,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) calls: Calls,
    pub(crate) engines: Engines,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) phase: watch::Sender<Phase>,
    /// Owner of this pod's leases.
    pub(crate) owner: String,
    pub(crate) clock: Clock,
    /// Places for sockets before their `start`.
    pub(crate) waiting: Arc<Semaphore>,
    pub(crate) traces: Traces,
}

impl Pod {
    /// The newest agent file.
    pub(crate) fn agent(&self) -> Arc<AgentFile> {
        self.agent.borrow().clone()
    }
}

/// Why a pod does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The agent file cannot be used.
    #[error("SWITCHBOARD_AGENT_FILE: {0}")]
    AgentFile(#[source] FileError),
    /// The keyring cannot be used.
    #[error("SWITCHBOARD_KEYRING_FILE: {0}")]
    Keyring(#[source] FileError),
    /// The extra certificates cannot be used.
    #[error("SWITCHBOARD_EXTRA_CA_FILE: {0}")]
    Trust(#[from] TrustError),
    /// The store's URL cannot be read.
    #[error("SWITCHBOARD_SECRETS_DIR: {0}")]
    Secret(#[from] SecretError),
    /// The store cannot be used.
    #[error("the agent file's store: {0}")]
    Store(#[from] StoreError),
    /// A door cannot be opened.
    #[error("{variable}: {source}")]
    Bind {
        /// The environment variable of its address.
        variable: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// Traces cannot be sent.
    #[error(transparent)]
    Traces(#[from] DeliveryError),
    /// A bug of ours.
    #[error("metrics cannot be registered: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl StartError {
    /// Whether the configuration is to blame, not the machine.
    pub const fn is_configuration(&self) -> bool {
        match self {
            Self::AgentFile(_)
            | Self::Keyring(_)
            | Self::Trust(_)
            | Self::Secret(_)
            | Self::Store(_)
            | Self::Traces(_) => true,
            Self::Bind { .. } | Self::Metrics(_) => false,
        }
    }
}

/// Where the doors are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doors {
    /// The carrier's.
    pub public: SocketAddr,
    /// The API's.
    pub api: SocketAddr,
    /// Probes, metrics, load.
    pub admin: SocketAddr,
}

/// A pod that answers.
pub struct Running {
    pod: Arc<Pod>,
    doors: Doors,
    departure: Departure,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Running {
    /// Starts a pod.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left behind.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let Config {
            agent_file,
            keyring_file,
            secrets_dir,
            public_addr,
            api_addr,
            admin_addr,
            pod_name,
            drain_window,
            lame_duck,
            extra_ca_file,
            log: _,
            traces,
        } = config;
        let metrics = Arc::new(Metrics::register()?);
        let agent = Watched::<AgentFile>::load(&agent_file).map_err(StartError::AgentFile)?;
        let keyring = Watched::<Keyring>::load(&keyring_file).map_err(StartError::Keyring)?;
        let secrets = Secrets::new(secrets_dir);
        let dialer = Dialer::new(extra_ca_file.as_deref())?;
        let (traces, delivery) = match traces {
            None => (Traces::default(), None),
            Some(settings) => {
                let delivery = Delivery::new(&settings, dialer.tls(), &pod_name)?;
                let (traces, spans) = Traces::new(settings.sampling, metrics.clone());
                (traces, Some((delivery, spans)))
            }
        };
        let first = agent.subscribe().borrow().clone();
        let store = open_store(&first, &secrets, extra_ca_file.as_deref())?;
        metrics.call_capacity.set(i64::from(first.max_calls_per_pod));

        let (public, public_door) = bind("SWITCHBOARD_PUBLIC_ADDR", public_addr).await?;
        let (api, api_door) = bind("SWITCHBOARD_API_ADDR", api_addr).await?;
        let (admin, admin_door) = bind("SWITCHBOARD_ADMIN_ADDR", admin_addr).await?;

        let keys = secrets.clone();
        let engines = Engines::new(dialer, Arc::new(move |key| keys.read(key).ok()), metrics.clone());
        let pod = Arc::new(Pod {
            agent: agent.subscribe(),
            keyring: keyring.subscribe(),
            secrets,
            store,
            calls: Calls::new(metrics.clone()),
            engines,
            metrics: metrics.clone(),
            phase: watch::Sender::new(Phase::Serving),
            owner: pod_name,
            clock: clock::system(),
            waiting: Arc::new(Semaphore::new(stream::MOST_WAITING)),
            traces,
        });

        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        for (door, router) in [
            (public_door, public_router(&pod)),
            (api_door, api::router(pod.clone())),
            (admin_door, admin::router(pod.clone())),
        ] {
            tasks.spawn(listener::serve(door, router, metrics.clone(), stop.clone()));
        }
        if let Some((delivery, spans)) = delivery {
            tasks.spawn(delivery.run(spans, metrics.clone(), stop.clone()));
        }
        tasks.spawn(until(stop.clone(), agent.watch(metrics.clone())));
        tasks.spawn(until(stop.clone(), keyring.watch(metrics)));
        tasks.spawn(until(stop.clone(), leases::keep(pod.clone())));
        // It ends by itself, in order, when the pod leaves.
        tasks.spawn(pod.engines.keep_warm(pod.agent.clone(), pod.phase.subscribe(), pod.clock.clone()));
        tasks.spawn(pod.engines.keep_clips(pod.agent.clone(), pod.phase.subscribe()));

        let window = window(drain_window, first.drain.window_seconds);
        let doors = Doors { public, api, admin };
        tracing::info!(agent = %first.name, revision = %first.revision, ?doors, "the pod answers");
        Ok(Self { pod, doors, departure: Departure { lame_duck, window }, tasks, stop })
    }

    /// Where the doors are.
    pub const fn doors(&self) -> Doors {
        self.doors
    }

    /// Leaves: lame duck, no new calls, window, hand-over; then the doors close. Bounded by the window and
    /// [`crate::drain::HAND_OVER`].
    pub async fn leave(self) {
        self.pod.metrics.draining.set(1);
        self.departure.run(&self.pod.phase, || self.pod.calls.idle()).await;
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(CLOSING, self.tasks.wait()).await.is_err() {
            tracing::warn!("the pod exits with tasks still running");
        }
    }
}

/// Time for the doors to close behind the last call.
const CLOSING: Duration = Duration::from_secs(3);

fn open_store(
    agent: &AgentFile,
    secrets: &Secrets,
    extra_ca_file: Option<&Path>,
) -> Result<Arc<dyn Store>, StartError> {
    Ok(match &agent.store {
        StoreChoice::Memory => Arc::new(MemoryStore::default()),
        StoreChoice::Redis { redis } => {
            let url = secrets.read(&redis.url)?;
            // The dialer has just read the file, and knows how to complain.
            Arc::new(match extra_ca_file.and_then(|path| std::fs::read(path).ok()) {
                Some(certificates) => RedisStore::trusting(&url, certificates)?,
                None => RedisStore::new(&url)?,
            })
        }
    })
}

async fn bind(variable: &'static str, address: SocketAddr) -> Result<(SocketAddr, TcpListener), StartError> {
    let failed = |source| StartError::Bind { variable, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    Ok((listener.local_addr().map_err(failed)?, listener))
}

fn public_router(pod: &Arc<Pod>) -> Router {
    let state = WebhookState {
        agent: pod.agent.clone(),
        keyring: pod.keyring.clone(),
        secrets: pod.secrets.clone(),
        store: pod.store.clone(),
        metrics: pod.metrics.clone(),
        clock: pod.clock.clone(),
        traces: pod.traces.clone(),
    };
    let streams = Router::new()
        .route("/{namespace}/{agent}/twilio/stream", get(stream::handle_upgrade))
        .with_state(pod.clone());
    webhook::router(state).merge(streams)
}

async fn until(stop: CancellationToken, work: impl Future<Output = ()>) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
}
