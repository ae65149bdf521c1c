//! Switchboard installed on a cluster as its users install it: images, `kubectl apply -k manifests/` (or the chart, by
//! whoever asks for the surroundings alone), and beside the cluster a Redis, a public edge and the
//! simulated outside world.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{Cluster, Edge, Guard, OciImage, Simulator, wait_for};

/// Images as the manifests name them, and the binaries they hold.
const IMAGES: [(&str, &str); 2] = [
    ("ghcr.io/switchboard-dev/switchboard:0.1.0", "switchboard"),
    ("ghcr.io/switchboard-dev/switchboard-media:0.1.0", "switchboard-media"),
];
/// Where the operator is installed.
pub const OPERATOR_NAMESPACE: &str = "switchboard-system";
/// Port of the Redis beside the cluster.
const REDIS_PORT: u16 = 6379;

/// Switchboard on a cluster, with everything a call needs.
#[derive(Debug)]
pub struct Installation {
    simulator: Simulator,
    edge: Edge,
    redis: Guard,
    scenario: PathBuf,
    former_number: Value,
}

impl Installation {
    /// Installs it and waits until the operator runs. Agents are reachable from the simulated internet below
    /// `https://voice.example.com`, through the edge.
    ///
    /// # Errors
    /// When a step fails or takes too long; the message has the log concerned.
    pub async fn install(cluster: &Cluster, scenario: &Path, report: impl Fn(&str)) -> Result<Self> {
        let installation = Self::surroundings(cluster, scenario, &report).await?;
        report("kubectl apply -k manifests/");
        apply_manifests(cluster).await?;
        report("waiting for the operator");
        let rollout = ["rollout", "status", "deployment", "-n", OPERATOR_NAMESPACE, "--timeout=120s"];
        if let Err(error) = cluster.kubectl(&rollout).await {
            let pods = cluster.kubectl(&["describe", "pods", "-n", OPERATOR_NAMESPACE]).await?;
            let logs = operator_log(cluster).await.unwrap_or_default();
            return Err(error.context(format!("{pods}\n{logs}")));
        }
        Ok(installation)
    }

    /// Everything an installation needs besides itself: images on the node, Redis, the public edge, and the simulated outside world.
    ///
    /// # Errors
    /// When a step fails or takes too long; the message has the log concerned.
    pub async fn surroundings(cluster: &Cluster, scenario: &Path, report: impl Fn(&str)) -> Result<Self> {
        report("giving the node the images");
        for (reference, name) in IMAGES {
            let image = OciImage::of_binary(reference, &binary(name)?)?;
            cluster.import_image(&image).await?;
        }
        report("starting Redis, the public edge, and the simulated phone network and model");
        let redis = start_redis(cluster).await?;
        let edge = Edge::start(cluster).await?;
        let simulator = Simulator::start(cluster, scenario, Some(&edge)).await?;
        let former_number =
            simulator.numbers().await?.into_iter().next().context("the scenario has no number")?;
        Ok(Self { simulator, edge, redis, scenario: scenario.to_owned(), former_number })
    }

    /// The simulated outside world.
    #[must_use]
    pub const fn simulator(&self) -> &Simulator {
        &self.simulator
    }

    /// The nginx between the simulated internet and the agents' Services.
    #[must_use]
    pub const fn edge(&self) -> &Edge {
        &self.edge
    }

    /// The scenario's first number as it was before anything was applied.
    #[must_use]
    pub const fn former_number(&self) -> &Value {
        &self.former_number
    }

    /// The steps of the scenario's first caller.
    ///
    /// # Errors
    /// When the scenario has none.
    pub fn caller(&self) -> Result<Value> {
        let text = std::fs::read_to_string(&self.scenario).context("the scenario cannot be read")?;
        let scenario: Value = serde_saphyr::from_str(&text)?;
        let steps = scenario["callers"][0]["steps"].clone();
        ensure!(steps.is_array(), "the scenario has no caller with steps");
        Ok(steps)
    }

    /// The Redis.
    #[must_use]
    pub const fn redis(&self) -> &Guard {
        &self.redis
    }
}

/// `kubectl apply -k manifests/`: the definitions, the operator, its account and rights.
///
/// # Errors
/// When the API server goes on refusing one.
pub async fn apply_manifests(cluster: &Cluster) -> Result<()> {
    let manifests = repository().join("manifests");
    // Custom resources can only be applied once their definitions are established; applying twice is idempotent.
    wait_for("the manifests to be applied", Duration::from_secs(60), async || {
        cluster.kubectl(&["apply", "-k", &manifests.to_string_lossy()]).await.map(Some)
    })
    .await
    .map(drop)
}

/// Applies a file of resources in a namespace, which is made if needed.
///
/// # Errors
/// When the API server refuses one; the message is the API server's.
pub async fn apply(cluster: &Cluster, namespace: &str, file: &Path) -> Result<String> {
    if cluster.kubectl(&["get", "namespace", namespace]).await.is_err() {
        cluster.kubectl(&["create", "namespace", namespace]).await?;
        let restricted = "pod-security.kubernetes.io/enforce=restricted";
        cluster.kubectl(&["label", "namespace", namespace, restricted]).await?;
    }
    cluster.kubectl(&["apply", "-n", namespace, "-f", &file.to_string_lossy()]).await
}

/// A resource as JSON, by kubectl's words (`voiceagent sales`).
///
/// # Errors
/// When there is none.
pub async fn resource(cluster: &Cluster, namespace: &str, kind: &str, name: &str) -> Result<Value> {
    let text = cluster.kubectl(&["get", kind, name, "-n", namespace, "-o", "json"]).await?;
    Ok(serde_json::from_str(&text)?)
}

/// A condition of a resource: its status, reason and message.
#[must_use]
pub fn condition<'a>(resource: &'a Value, kind: &str) -> Option<&'a Value> {
    resource["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}

/// Waits until a resource's Ready condition is True for its newest generation.
///
/// # Errors
/// When it is not in time; the message has the resource's status.
pub async fn wait_until_ready(
    cluster: &Cluster,
    namespace: &str,
    kind: &str,
    name: &str,
    within: Duration,
) -> Result<Value> {
    let waited = wait_for(&format!("{kind} {name} to be ready"), within, async || {
        let resource = resource(cluster, namespace, kind, name).await?;
        let is_ready = condition(&resource, "Ready").is_some_and(|ready| {
            ready["status"] == "True" && ready["observedGeneration"] == resource["metadata"]["generation"]
        });
        Ok(is_ready.then_some(resource))
    })
    .await;
    match waited {
        Ok(resource) => Ok(resource),
        Err(error) => {
            let status = resource(cluster, namespace, kind, name).await.map(|found| found["status"].clone());
            let pods = cluster.kubectl(&["get", "pods", "-n", namespace, "-o", "wide"]).await;
            let log = operator_log(cluster).await.unwrap_or_default();
            Err(error.context(format!("status {status:#?}\npods {pods:?}\noperator:\n{log}")))
        }
    }
}

/// The end of the operator's log.
///
/// # Errors
/// When there is no operator.
pub async fn operator_log(cluster: &Cluster) -> Result<String> {
    let selector = "app.kubernetes.io/name=switchboard-operator";
    cluster.kubectl(&["logs", "-n", OPERATOR_NAMESPACE, "-l", selector, "--tail=40"]).await
}

/// A binary of this workspace, from the folder this program was built into.
///
/// # Errors
/// When it was not built.
pub fn binary(name: &str) -> Result<PathBuf> {
    let program = std::env::current_exe().context("this program's own path is unknown")?;
    let found =
        program.ancestors().skip(1).take(2).map(|folder| folder.join(name)).find(|path| path.exists());
    found.with_context(|| format!("{name} is not built: cargo build --workspace --bins"))
}

/// The root of the repository.
#[must_use]
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).unwrap_or_default()
}

async fn start_redis(cluster: &Cluster) -> Result<Guard> {
    let port = REDIS_PORT.to_string();
    let mut command = Command::new("redis-server");
    command.args(["--port", &port, "--bind", &cluster.node_address().to_string()]);
    command.args(["--protected-mode", "no", "--save", "", "--appendonly", "no"]);
    command.current_dir(cluster.state_dir());
    let redis = cluster.spawn("redis", &mut command)?;
    let address = (cluster.node_address(), REDIS_PORT);
    wait_for("Redis", Duration::from_secs(20), async || {
        tokio::net::TcpStream::connect(address).await?;
        Ok(Some(()))
    })
    .await
    .with_context(|| crate::end_of(redis.log()))?;
    Ok(redis)
}
