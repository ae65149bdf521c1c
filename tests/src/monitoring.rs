//! A real Prometheus and prometheus-adapter on the cluster, by the manifests people apply (`manifests/monitoring`).
//!
//! What is changed for tests are periods only: who scales and alerts in minutes cannot be waited for.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::Client;
use serde_json::Value;

use crate::installation::repository;
use crate::{Cluster, OciImage, optional_tool, wait_for};

/// Where the manifests put it.
const NAMESPACE: &str = "switchboard-monitoring";
/// Prometheus, from pods and from beside the cluster.
const PROMETHEUS_URL: &str = "http://prometheus.switchboard-monitoring.svc.cluster.local:9090";
/// Images as the manifests name them, and the programs they hold.
const IMAGES: [(&str, &str); 2] = [
    ("quay.io/prometheus/prometheus:v3.15.0", "prometheus"),
    ("registry.k8s.io/prometheus-adapter/prometheus-adapter:v0.12.0", "prometheus-adapter"),
];
/// What users wait for, and what tests wait for instead.
const PERIODS: [(&str, &str, &str); 3] = [
    ("prometheus.yml", "scrape_interval: 5s", "scrape_interval: 1s"),
    ("prometheus.yml", "evaluation_interval: 15s", "evaluation_interval: 1s"),
    ("adapter.yaml", "--metrics-relist-interval=30s", "--metrics-relist-interval=2s"),
];
/// For anything that takes seconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Prometheus and its adapter on a cluster.
#[derive(Debug)]
pub struct Monitoring {
    http: Client,
    manifests: PathBuf,
}

impl Monitoring {
    /// Gives the node the images and applies the manifests; returns when both programs are ready and the API server has
    /// the custom metrics API. Idempotent.
    ///
    /// # Errors
    /// When a step fails or takes too long; the message has what the pods say.
    pub async fn install(cluster: &Cluster) -> Result<Self> {
        for (reference, program) in IMAGES {
            cluster.import_image(&OciImage::of_binary(reference, &optional_tool(program)?)?).await?;
        }
        let http = Client::builder().no_proxy().timeout(Duration::from_secs(30)).build()?;
        let monitoring = Self { http, manifests: hurried_manifests(cluster.state_dir())? };
        cluster.kubectl(&["apply", "-k", &monitoring.manifests.to_string_lossy()]).await?;
        let rollout = ["rollout", "status", "deployment", "-n", NAMESPACE, "--timeout=120s"];
        if let Err(error) = cluster.kubectl(&rollout).await {
            let pods = cluster.kubectl(&["describe", "pods", "-n", NAMESPACE]).await?;
            let selector = "app.kubernetes.io/part-of=switchboard";
            let logs = cluster.kubectl(&["logs", "-n", NAMESPACE, "-l", selector, "--tail=20"]).await;
            return Err(error.context(format!("{pods}\n{logs:?}")));
        }
        let available = [
            "wait",
            "--for=condition=Available",
            "apiservice/v1beta2.custom.metrics.k8s.io",
            "--timeout=60s",
        ];
        cluster.kubectl(&available).await?;
        Ok(monitoring)
    }

    /// Ends Prometheus, and nothing else.
    ///
    /// # Errors
    /// When it does not end in time.
    pub async fn stop_prometheus(&self, cluster: &Cluster) -> Result<()> {
        scale(cluster, 0).await?;
        let gone = ["wait", "--for=delete", "pod", "-l", "app.kubernetes.io/name=prometheus"];
        cluster.kubectl(&[&gone[..], &["-n", NAMESPACE, "--timeout=60s"]].concat()).await?;
        Ok(())
    }

    /// Starts Prometheus again; what it knew is gone.
    ///
    /// # Errors
    /// When it is not ready in time.
    pub async fn start_prometheus(&self, cluster: &Cluster) -> Result<()> {
        scale(cluster, 1).await?;
        let rollout = ["rollout", "status", "deployment/prometheus", "-n", NAMESPACE, "--timeout=120s"];
        cluster.kubectl(&rollout).await?;
        Ok(())
    }

    /// The series a query yields now.
    ///
    /// # Errors
    /// When Prometheus does not answer, or refuses the query; the message has its words.
    pub async fn query(&self, promql: &str) -> Result<Vec<Value>> {
        let data = self.api("query", &[("query", promql)]).await?;
        ensure!(data["resultType"] == "vector", "{promql} yields no vector");
        Ok(data["result"].as_array().context("a vector is a list")?.clone())
    }

    /// The one number a query yields now; none when it yields nothing.
    ///
    /// # Errors
    /// When Prometheus does not answer, or there are several.
    pub async fn number(&self, promql: &str) -> Result<Option<f64>> {
        let series = self.query(promql).await?;
        ensure!(series.len() <= 1, "{promql} yields {} series", series.len());
        series.first().map(sample).transpose()
    }

    /// The rule groups as Prometheus evaluated them last.
    ///
    /// # Errors
    /// When Prometheus does not answer.
    pub async fn rule_groups(&self) -> Result<Vec<Value>> {
        let data = self.api("rules", &[]).await?;
        Ok(data["groups"].as_array().context("groups are a list")?.clone())
    }

    /// Waits until Prometheus scrapes `count` pods of an agent.
    ///
    /// # Errors
    /// When it does not in time; the message has its targets.
    pub async fn wait_for_pods(&self, namespace: &str, agent: &str, count: f64) -> Result<()> {
        let query = format!(r#"count(switchboard_active_calls{{namespace="{namespace}",agent="{agent}"}})"#);
        let waited = wait_for(&format!("{count} pods to be scraped"), PATIENCE, async || {
            Ok((self.number(&query).await? == Some(count)).then_some(()))
        })
        .await;
        match waited {
            Ok(()) => Ok(()),
            Err(error) => Err(error.context(format!("{:#}", self.api("targets", &[]).await?))),
        }
    }

    async fn api(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value> {
        let request = self.http.post(format!("{PROMETHEUS_URL}/api/v1/{path}")).form(parameters);
        let request = if parameters.is_empty() {
            self.http.get(format!("{PROMETHEUS_URL}/api/v1/{path}"))
        } else {
            request
        };
        let answer: Value = request.send().await?.json().await?;
        ensure!(answer["status"] == "success", "Prometheus says of {parameters:?}: {}", answer["error"]);
        Ok(answer["data"].clone())
    }
}

/// The value of one series of an instant query.
///
/// # Errors
/// When it is not a number.
pub fn sample(series: &Value) -> Result<f64> {
    Ok(series["value"][1].as_str().context("a sample has a value")?.parse()?)
}

async fn scale(cluster: &Cluster, replicas: u32) -> Result<()> {
    let replicas = format!("--replicas={replicas}");
    cluster.kubectl(&["scale", "deployment/prometheus", &replicas, "-n", NAMESPACE]).await?;
    Ok(())
}

/// A copy of the manifests with the tests' periods. What it refers to beside itself is copied along.
fn hurried_manifests(directory: &Path) -> Result<PathBuf> {
    let root = directory.join("monitoring");
    let folders = ["manifests/monitoring", "charts/switchboard/adapter", "charts/switchboard/alerts"];
    for folder in folders.into_iter().chain(["charts/switchboard/dashboards"]) {
        copy_files(&repository().join(folder), &root.join(folder))?;
    }
    let manifests = root.join("manifests/monitoring");
    for (file, users, tests) in PERIODS {
        let path = manifests.join(file);
        let text = fs::read_to_string(&path)?;
        ensure!(text.contains(users), "{file} has no {users:?} to replace");
        fs::write(&path, text.replace(users, tests))?;
    }
    Ok(manifests)
}

fn copy_files(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("{} cannot be read", from.display()))? {
        let path = entry?.path();
        if let Some(name) = path.file_name().filter(|_| path.is_file()) {
            fs::copy(&path, to.join(name))?;
        }
    }
    Ok(())
}
