//! The media pod of a local run: a child process with its mounts in a temporary directory, asked only over its doors.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use reqwest::Client;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use super::agent::LocalAgent;

/// Until `/readyz` answers.
const START_LIMIT: Duration = Duration::from_secs(30);
/// Between SIGTERM and SIGKILL.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// How often `/readyz` is asked.
const POLL: Duration = Duration::from_millis(50);

/// A running media pod.
#[derive(Debug)]
pub(in crate::cli) struct Pod {
    child: Child,
    http: Client,
    api: SocketAddr,
    api_token: String,
    pub(in crate::cli) public_address: SocketAddr,
    /// Removed when the pod is dropped.
    _mounts: Mounts,
}

impl Pod {
    /// Starts it and waits until it can serve.
    pub(in crate::cli) async fn start(media: &Path, agent: &LocalAgent, log: &str) -> anyhow::Result<Self> {
        ensure!(media.is_file(), "{} is missing: cargo build -p media-pod", media.display());
        let mounts = Mounts::create(agent)?;
        let [public_address, api, admin] = free_addresses()?;
        let mut command = Command::new(media);
        if let Some(path) = &agent.ca_file {
            command.env("SWITCHBOARD_EXTRA_CA_FILE", path);
        }
        let child = command
            .env("SWITCHBOARD_AGENT_FILE", mounts.path("agent/agent.json"))
            .env("SWITCHBOARD_KEYRING_FILE", mounts.path("keyring/keyring.json"))
            .env("SWITCHBOARD_SECRETS_DIR", mounts.path("secrets"))
            .env("SWITCHBOARD_PUBLIC_ADDR", public_address.to_string())
            .env("SWITCHBOARD_API_ADDR", api.to_string())
            .env("SWITCHBOARD_ADMIN_ADDR", admin.to_string())
            .env("SWITCHBOARD_POD_NAME", "local")
            .env("SWITCHBOARD_LAME_DUCK_SECONDS", "0")
            .env("SWITCHBOARD_LOG", log)
            .stdin(std::process::Stdio::null())
            .stdout(std::io::stderr())
            .kill_on_drop(true)
            // Ctrl-C in a terminal reaches this process only, which then ends the pod.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", media.display()))?;
        // The certificates' provider must be there even where every URL is plain.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?;
        let mut pod =
            Self { child, http, api, api_token: agent.api_token.clone(), public_address, _mounts: mounts };
        pod.wait_until_ready(admin).await?;
        Ok(pod)
    }

    async fn wait_until_ready(&mut self, admin: SocketAddr) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        let url = format!("http://{admin}/readyz");
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("the media pod ended at once ({status}); --media-log debug says more");
            }
            if self.http.get(&url).send().await.is_ok_and(|response| response.status().is_success()) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the media pod is not ready after {START_LIMIT:?}");
            sleep(POLL).await;
        }
    }

    /// Returns when the pod ended by itself, with the error that this is.
    pub(in crate::cli) async fn ended(&mut self) -> anyhow::Error {
        match self.child.wait().await {
            Ok(status) => anyhow::anyhow!("the media pod ended ({status})"),
            Err(error) => error.into(),
        }
    }

    /// What the pod's API knows of a call.
    pub(in crate::cli) fn calls(&self) -> Calls {
        Calls { http: self.http.clone(), api: self.api, token: self.api_token.clone() }
    }

    /// SIGTERM, and SIGKILL to a pod that does not end in time.
    pub(in crate::cli) async fn stop(mut self) {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            let _ = kill_process(pid, Signal::TERM); // it may have ended already
        }
        if timeout(STOP_LIMIT, self.child.wait()).await.is_err() {
            println!("the media pod did not end within {STOP_LIMIT:?} of SIGTERM; killed");
            let _ = self.child.kill().await;
        }
    }
}

/// The pod's API, as far as a transcript needs it.
#[derive(Debug)]
pub(in crate::cli) struct Calls {
    http: Client,
    api: SocketAddr,
    token: String,
}

impl Calls {
    /// `GET /v1/calls/{sid}`; `None` while the pod does not know the call.
    pub(in crate::cli) async fn fetch(&self, sid: &str) -> Option<Value> {
        let url = format!("http://{}/v1/calls/{sid}", self.api);
        let response = self.http.get(url).bearer_auth(&self.token).send().await.ok()?;
        response.error_for_status().ok()?.json().await.ok()
    }
}

/// Files as the kubelet would mount them.
#[derive(Debug)]
struct Mounts {
    root: PathBuf,
}

impl Mounts {
    fn create(agent: &LocalAgent) -> anyhow::Result<Self> {
        static PODS: AtomicU32 = AtomicU32::new(0);
        let (process, pod) = (std::process::id(), PODS.fetch_add(1, Ordering::Relaxed));
        let root = std::env::temp_dir().join(format!("switchboard-local-{process}-{pod}"));
        // Fails if it is there already: nobody else's directory is written to.
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&root)
            .with_context(|| format!("cannot create {}", root.display()))?;
        let mounts = Self { root };
        mounts.write("agent/agent.json", &agent.file.to_string())?;
        mounts.write("keyring/keyring.json", &agent.keyring.to_string())?;
        for (path, content) in &agent.secrets {
            mounts.write(&format!("secrets/{path}"), content)?;
        }
        Ok(mounts)
    }

    fn path(&self, below: &str) -> PathBuf {
        self.root.join(below)
    }

    fn write(&self, below: &str, content: &str) -> anyhow::Result<()> {
        let path = self.path(below);
        let folder = path.parent().context("a mounted file has a folder")?;
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        std::fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.root); // what cannot be removed is a few kilobytes in /tmp
    }
}

/// Three loopback addresses that were free a moment ago.
fn free_addresses() -> anyhow::Result<[SocketAddr; 3]> {
    // All are held until all are known, so that they differ.
    let listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0"));
    let mut addresses = Vec::new();
    for listener in &listeners {
        let listener = listener.as_ref().map_err(|error| anyhow::anyhow!("no free port: {error}"))?;
        addresses.push(listener.local_addr()?);
    }
    <[SocketAddr; 3]>::try_from(addresses)
        .map_err(|_| anyhow::anyhow!("three listeners have three addresses"))
}
