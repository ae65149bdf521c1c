//! The operator as a process beside the cluster: with the rights of its service account and no others, and where it can
//! be killed, started and measured at will. For what needs no pods.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::Duration,
};

use anyhow::{Context, Result};
use k8s_openapi::api::{authentication::v1::TokenRequest, core::v1::ServiceAccount};
use kube::{Api, api::PostParams};
use serde_json::json;

use crate::{Cluster, Guard, installation::OPERATOR_NAMESPACE, wait_for};

/// How one replica is started.
#[derive(Debug, Clone, Copy)]
pub struct Replica<'a> {
    /// Its name, unique among those that run.
    pub name: &'a str,
    /// Where it serves probes and metrics, on the first node's address.
    pub port: u16,
    /// The binary `switchboard`.
    pub program: &'a Path,
    /// Seconds between two looks at the carrier.
    pub resync_seconds: u32,
}

/// A running replica; dropping it kills it.
#[derive(Debug)]
pub struct Operator {
    process: Guard,
    address: String,
    http: reqwest::Client,
}

impl Operator {
    /// Starts a replica; it waits for the Lease as any other.
    ///
    /// # Errors
    /// When its service account does not exist, or it cannot be started.
    pub async fn start(cluster: &Cluster, replica: Replica<'_>) -> Result<Self> {
        let Replica { name, port, program, resync_seconds } = replica;
        let kubeconfig = kubeconfig(cluster, "switchboard-operator").await?;
        let address = format!("{}:{port}", cluster.node_address());
        let mut command = Command::new(program);
        command
            .arg("operator")
            .env("KUBECONFIG", kubeconfig)
            .env("SWITCHBOARD_MEDIA_IMAGE", "ghcr.io/switchboard-dev/switchboard-media:0.1.0")
            .env("SWITCHBOARD_HTTP_ADDR", &address)
            .env("SWITCHBOARD_RESYNC_SECONDS", resync_seconds.to_string())
            .env("SWITCHBOARD_NAMESPACE", OPERATOR_NAMESPACE)
            .env("SWITCHBOARD_POD_NAME", name);
        let process = cluster.spawn(name, &mut command)?;
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?;
        Ok(Self { process, address, http })
    }

    /// Its process.
    #[must_use]
    pub const fn process(&self) -> &Guard {
        &self.process
    }

    /// Ends it as a Deployment does: asked to, it gives the Lease back.
    ///
    /// # Errors
    /// When it does not end in time.
    pub async fn stop(&self, within: Duration) -> Result<ExitStatus> {
        self.process.terminate(within).await
    }

    /// What a scrape gets.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn metrics(&self) -> Result<String> {
        let response = self.http.get(format!("http://{}/metrics", self.address)).send().await?;
        Ok(response.error_for_status()?.text().await?)
    }

    /// The sum of a metric's samples whose labels contain `labels`.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn metric(&self, name: &str, labels: &str) -> Result<f64> {
        let scrape = self.metrics().await?;
        let lines = scrape.lines().filter_map(|line| line.strip_prefix(name));
        let samples = lines.filter(|rest| rest.starts_with(['{', ' ']) && rest.contains(labels));
        samples.map(|rest| Ok(rest.rsplit(' ').next().unwrap_or_default().parse::<f64>()?)).sum()
    }

    /// Waits until it leads.
    ///
    /// # Errors
    /// When it does not in time; the message has the end of its log.
    pub async fn wait_until_leading(&self, within: Duration) -> Result<()> {
        let leading = wait_for("the operator to lead", within, async || {
            Ok((self.metric("switchboard_operator_leader", "").await? > 0.0).then_some(()))
        });
        leading.await.with_context(|| crate::end_of(self.process.log()))
    }

    /// Memory it holds now, and the most it ever held, in bytes.
    ///
    /// # Errors
    /// When it is gone.
    pub fn memory(&self) -> Result<(u64, u64)> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let of = |field: &str| -> Result<u64> {
            let line =
                status.lines().find_map(|line| line.strip_prefix(field)).context("a field of /proc")?;
            let kibibytes: u64 = line.trim_start_matches(':').trim().trim_end_matches(" kB").parse()?;
            Ok(kibibytes * 1024)
        };
        Ok((of("VmRSS")?, of("VmHWM")?))
    }

    /// Processor time it has used so far.
    ///
    /// # Errors
    /// When it is gone.
    pub fn processor_time(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        // The name, in parentheses, may hold anything; behind it the fields are counted from the third (proc(5)).
        let (_, fields) = stat.rsplit_once(')').context("a name in parentheses")?;
        let ticks = |field: usize| -> Result<u64> {
            Ok(fields.split_whitespace().nth(field - 3).context("a field of /proc")?.parse()?)
        };
        Ok(Duration::from_millis((ticks(14)? + ticks(15)?) * 1000 / USER_HZ))
    }
}

/// Ticks of a second in `/proc`, which the kernel promises to programs.
const USER_HZ: u64 = 100;

/// A kubeconfig that speaks as a service account of the operator's namespace, valid for a day.
async fn kubeconfig(cluster: &Cluster, account: &str) -> Result<PathBuf> {
    let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client(), OPERATOR_NAMESPACE);
    let request: TokenRequest =
        serde_json::from_value(json!({"spec": {"audiences": [], "expirationSeconds": 86_400}}))?;
    let issued = accounts.create_token_request(account, &PostParams::default(), &request).await?;
    let token = issued.status.context("a token request is answered in its status")?.token;
    let admin = fs::read_to_string(cluster.kubeconfig_path())?;
    let mut config: serde_json::Value = serde_json::from_str(&admin).context("the kubeconfig is JSON")?;
    config["users"][0]["user"] = json!({"token": token});
    let path = cluster.state_dir().join(format!("{account}.kubeconfig"));
    fs::write(&path, config.to_string())?;
    Ok(path)
}
