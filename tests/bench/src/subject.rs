//! The process that is measured: a media pod, or the naive relay, as its users run it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use simulator::load::Usage;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::cores::Cores;
use crate::mounts::{AGENT_PATH, Agent, Mounts, PUBLIC_URL};
use crate::ports::free_addresses;
use crate::process::Process;

/// Until a subject answers; it takes milliseconds.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How often it is asked: the start is measured this exactly.
const POLL: Duration = Duration::from_millis(1);
/// How long warm sessions may take.
const WARM_LIMIT: Duration = Duration::from_secs(30);
/// Between the start and the look at the idle process: what it does at its start is over by then.
const IDLE: Duration = Duration::from_secs(1);

/// Where the binaries are: beside this one.
pub(crate) struct Binaries(PathBuf);

impl Binaries {
    pub(crate) fn beside_this_one() -> anyhow::Result<Self> {
        let own = std::env::current_exe().context("this program's own path is unknown")?;
        Ok(Self(own.parent().unwrap_or_else(|| Path::new("/")).to_owned()))
    }

    pub(crate) fn media(&self) -> anyhow::Result<PathBuf> {
        self.find("switchboard-media", "media-pod")
    }

    pub(crate) fn simulator(&self) -> anyhow::Result<PathBuf> {
        self.find("switchboard-sim", "simulator")
    }

    fn find(&self, name: &str, package: &str) -> anyhow::Result<PathBuf> {
        let path = self.0.join(name);
        ensure!(
            path.is_file(),
            "{} is missing: cargo build -p {package}, in the same profile",
            path.display()
        );
        Ok(path)
    }
}

/// What a run of load must know of its subject.
pub(crate) struct Subject {
    process: Process,
    /// A media pod's admin door.
    admin: Option<SocketAddr>,
    http: reqwest::Client,
    /// From the start of the process to its first answer.
    pub(crate) started_after: Duration,
    _files: Files,
}

enum Files {
    Pod { _mounts: Mounts },
    Relay { _log: TempDir },
}

/// Where a subject will be; known before it runs, because the carrier is told first.
#[derive(Clone, Copy)]
pub(crate) enum Place {
    Pod { public: SocketAddr, api: SocketAddr, admin: SocketAddr },
    Relay { address: SocketAddr },
}

impl Place {
    pub(crate) fn for_pod() -> anyhow::Result<Self> {
        let [public, api, admin] = free_addresses()?;
        Ok(Self::Pod { public, api, admin })
    }

    pub(crate) fn for_relay() -> anyhow::Result<Self> {
        let [address] = free_addresses()?;
        Ok(Self::Relay { address })
    }

    /// Where the carrier sends what is for [`PUBLIC_URL`].
    pub(crate) const fn upstream(self) -> SocketAddr {
        match self {
            Self::Pod { public, .. } => public,
            Self::Relay { address } => address,
        }
    }

    /// The base of its webhooks.
    pub(crate) fn webhooks(self) -> String {
        match self {
            Self::Pod { .. } => format!("{PUBLIC_URL}{AGENT_PATH}"),
            Self::Relay { .. } => PUBLIC_URL.to_owned(),
        }
    }
}

impl Subject {
    /// Starts it and waits for its first answer.
    pub(crate) async fn start(
        binaries: &Binaries,
        cores: &Cores,
        place: Place,
        agent: &Agent,
    ) -> anyhow::Result<Self> {
        // The certificates' provider must be there even where every URL is plain.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?;
        match place {
            Place::Pod { public, api, admin } => {
                let mounts = Mounts::create(agent)?;
                let mut command = Command::new(binaries.media()?);
                command
                    .env("SWITCHBOARD_AGENT_FILE", mounts.path("agent.json"))
                    .env("SWITCHBOARD_KEYRING_FILE", mounts.path("keyring.json"))
                    .env("SWITCHBOARD_SECRETS_DIR", mounts.path("secrets"))
                    .env("SWITCHBOARD_PUBLIC_ADDR", public.to_string())
                    .env("SWITCHBOARD_API_ADDR", api.to_string())
                    .env("SWITCHBOARD_ADMIN_ADDR", admin.to_string())
                    .env("SWITCHBOARD_POD_NAME", "bench-media-0")
                    .env("SWITCHBOARD_LAME_DUCK_SECONDS", "0");
                if agent.authority_pem.is_some() {
                    command.env("SWITCHBOARD_EXTRA_CA_FILE", mounts.path("authority.pem"));
                }
                let begun = Instant::now();
                let mut process =
                    Process::on_measured_core("switchboard-media", cores, &mut command, mounts.path("log"))?;
                let url = format!("http://{admin}/readyz");
                let is_ready = async || http.get(&url).send().await.ok()?.error_for_status().ok();
                process.wait_for("/readyz", START_LIMIT, POLL, is_ready).await?;
                let started_after = begun.elapsed();
                let files = Files::Pod { _mounts: mounts };
                Ok(Self { process, admin: Some(admin), http, started_after, _files: files })
            }
            Place::Relay { address } => {
                let log = tempfile::Builder::new().prefix("switchboard-bench-").tempdir()?;
                let mut command = Command::new(binaries.simulator()?);
                let stream_url = format!("{}/stream", PUBLIC_URL.replacen("https", "wss", 1));
                command.args(["relay", "--addr", &address.to_string(), "--stream-url", &stream_url]);
                command.args(["--model-addr", &agent.model.to_string()]);
                let begun = Instant::now();
                let mut process =
                    Process::on_measured_core("the relay", cores, &mut command, log.path().join("log"))?;
                let is_open = async || TcpStream::connect(address).await.ok();
                process.wait_for("its port", START_LIMIT, POLL, is_open).await?;
                let started_after = begun.elapsed();
                Ok(Self { process, admin: None, http, started_after, _files: Files::Relay { _log: log } })
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Resident memory now, in KiB, once the start is over.
    pub(crate) async fn idle_kib(&self) -> anyhow::Result<u64> {
        sleep(IDLE).await;
        let usage = Usage::of(self.pid()).context("the process is gone")?;
        Ok(usage.resident_kib)
    }

    /// Waits until so many sessions are warm.
    pub(crate) async fn wait_until_warm(&mut self, sessions: u32) -> anyhow::Result<()> {
        let url = self.metrics_url()?;
        let http = self.http.clone();
        let is_warm = async || {
            let now = series(&scrape(&http, &url).await.ok()?, "switchboard_warm_sessions")?;
            (now >= f64::from(sessions)).then_some(())
        };
        self.process.wait_for("its warm sessions", WARM_LIMIT, Duration::from_millis(20), is_warm).await
    }

    /// The value of a pod's series now.
    pub(crate) async fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let scrape = scrape(&self.http, &self.metrics_url()?).await?;
        series(&scrape, name).with_context(|| format!("the pod has no series {name}"))
    }

    fn metrics_url(&self) -> anyhow::Result<String> {
        let admin = self.admin.context("only a media pod has metrics")?;
        Ok(format!("http://{admin}/metrics"))
    }

    /// Ends it in order; an error when it had ended before.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        self.process.check()?;
        self.process.stop().await
    }
}

async fn scrape(http: &reqwest::Client, url: &str) -> reqwest::Result<String> {
    http.get(url).send().await?.error_for_status()?.text().await
}

fn series(scrape: &str, name: &str) -> Option<f64> {
    scrape.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_found_by_its_whole_name() {
        let scrape = "# TYPE a gauge\na_total{outcome=\"cold\"} 3\na 7\n";
        assert_eq!(series(scrape, "a"), Some(7.0));
        assert_eq!(series(scrape, "a_total{outcome=\"cold\"}"), Some(3.0));
        assert_eq!(series(scrape, "a_total"), None);
    }
}
