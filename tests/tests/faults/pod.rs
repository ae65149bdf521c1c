//! A media pod as a process, asked only over its doors.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use e2e::{binary, wait_for};
use reqwest::Client;
use serde_json::{Value, json};

use crate::stage::{API_TOKEN, AUTH_TOKEN, Directory, PATIENCE, Process};

/// A running media pod.
pub(crate) struct Pod {
    process: Process,
    mounts: PathBuf,
    http: Client,
    public: SocketAddr,
    api: SocketAddr,
    admin: SocketAddr,
}

/// What an attack or a fault may cost for good, beyond what one call costs: allocators do not give back everything.
const SPARE_KIB: u64 = 32 * 1024;

/// Families whose every increase says that something went wrong, and what.
const FAULTS: &[&str] = &[
    "switchboard_call_panics_total",
    "switchboard_calls_lost_total",
    "switchboard_calls_refused_total",
    "switchboard_file_faults_total",
    "switchboard_log_lines_dropped_total",
    "switchboard_phone_faults_total",
    "switchboard_provider_failures_total",
    "switchboard_provider_faults_total",
    "switchboard_provider_refusals_total",
    "switchboard_records_dropped_total",
    "switchboard_store_failures_total",
    "switchboard_streams_refused_total",
    "switchboard_webhooks_refused_total",
];

/// A model's last word about a reply that was interrupted: comes with ordinary calls.
const WITH_INTERRUPTIONS: &str = "switchboard_provider_faults_total{fault=\"stale\"}";

impl Pod {
    pub(crate) async fn start(
        name: &str,
        agent: &Value,
        directory: &Directory,
        http: Client,
        change: impl FnOnce(&mut Command),
    ) -> Result<Self> {
        let mounts = directory.path().join(name);
        let write = |path: &str, text: &str| write(&mounts, path, text);
        write("agent.json", &agent.to_string())?;
        let key = "MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI=";
        write("keyring.json", &json!({"signing": "k1", "keys": {"k1": key}}).to_string())?;
        write("secrets/twilio/authToken", AUTH_TOKEN)?;
        write("secrets/openai/apiKey", "simulated-model-key")?;
        write("secrets/api/token", API_TOKEN)?;
        let mut command = Command::new(binary("switchboard-media")?);
        command
            .env("SWITCHBOARD_AGENT_FILE", mounts.join("agent.json"))
            .env("SWITCHBOARD_KEYRING_FILE", mounts.join("keyring.json"))
            .env("SWITCHBOARD_SECRETS_DIR", mounts.join("secrets"))
            .env("SWITCHBOARD_PUBLIC_ADDR", "127.0.0.1:0")
            .env("SWITCHBOARD_API_ADDR", "127.0.0.1:0")
            .env("SWITCHBOARD_ADMIN_ADDR", "127.0.0.1:0")
            .env("SWITCHBOARD_POD_NAME", name);
        change(&mut command);
        let process = Process::start(name, &mut command, directory)?;
        let answers = process.line("the pod", |line| line.contains("the pod answers")).await?;
        let door = |name: &str| {
            let (_, after) = answers.split_once(&format!("{name}: ")).with_context(|| answers.clone())?;
            let end =
                after.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ':').unwrap_or(after.len());
            after[..end].parse().with_context(|| answers.clone())
        };
        let (public, api, admin) = (door("public")?, door("api")?, door("admin")?);
        Ok(Self { process, mounts, http, public, api, admin })
    }

    pub(crate) const fn public(&self) -> SocketAddr {
        self.public
    }

    /// Replaces the agent file, as the kubelet does, and waits until it is loaded. Its revision must be a new one.
    pub(crate) async fn load(&self, agent: &Value) -> Result<()> {
        write(&self.mounts, "agent.new", &agent.to_string())?;
        std::fs::rename(self.mounts.join("agent.new"), self.mounts.join("agent.json"))?;
        wait_for("the pod to load its agent file", PATIENCE, async || {
            let load: Value = serde_json::from_str(&self.admin("load").await?)?;
            Ok((load["configRevision"] == agent["revision"]).then_some(()))
        })
        .await
    }

    /// Waits for a line of its log.
    pub(crate) async fn said(&self, what: &str, is_it: impl Fn(&str) -> bool) -> Result<String> {
        self.process.line(what, is_it).await
    }

    /// All series and their values.
    pub(crate) async fn scrape(&self) -> Result<Scrape> {
        self.process.check()?;
        let text = self.admin("metrics").await?;
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let series = lines.filter_map(|line| line.rsplit_once(' '));
        Ok(Scrape(series.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect()))
    }

    /// Waits until series have increased by at least one since `before`.
    pub(crate) async fn until_moved(&self, before: &Scrape, series: &[&str]) -> Result<()> {
        let waited = wait_for(&format!("{series:?}"), PATIENCE * 2, async || {
            let now = self.scrape().await?;
            Ok(series.iter().all(|name| now.since(before, name) > 0.0).then_some(()))
        })
        .await;
        match waited {
            Ok(()) => Ok(()),
            Err(error) => {
                let now = self.scrape().await?;
                let increases: Vec<f64> = series.iter().map(|name| now.since(before, name)).collect();
                Err(error.context(format!("moved by {increases:?}; faults: {:?}", now.faults_since(before))))
            }
        }
    }

    /// What the API knows of a call.
    pub(crate) async fn call(&self, sid: &str) -> Result<Value> {
        let url = format!("http://{}/v1/calls/{sid}", self.api);
        let answer = self.http.get(url).bearer_auth(API_TOKEN).send().await?;
        Ok(answer.error_for_status()?.json().await?)
    }

    /// A person ends a call.
    pub(crate) async fn hang_up(&self, sid: &str) -> Result<()> {
        let url = format!("http://{}/v1/calls/{sid}", self.api);
        self.http.delete(url).bearer_auth(API_TOKEN).send().await?.error_for_status()?;
        Ok(())
    }

    /// Memory of the process that is really there.
    pub(crate) fn resident_kib(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next()).context("a line VmRSS")?;
        Ok(number.parse()?)
    }

    /// What happened since `before` was bounded, and is given back.
    pub(crate) fn ensure_memory(&self, before: u64) -> Result<()> {
        let now = self.resident_kib()?;
        ensure!(now < before + SPARE_KIB, "{before} KiB before, {now} KiB after");
        Ok(())
    }

    /// File descriptors the process has open.
    pub(crate) fn descriptors(&self) -> Result<usize> {
        Ok(std::fs::read_dir(format!("/proc/{}/fd", self.process.id()))?.count())
    }

    async fn admin(&self, path: &str) -> Result<String> {
        let answer = self.http.get(format!("http://{}/{path}", self.admin)).send().await?;
        Ok(answer.error_for_status()?.text().await?)
    }
}

fn write(mounts: &std::path::Path, path: &str, text: &str) -> Result<()> {
    let path = mounts.join(path);
    std::fs::create_dir_all(path.parent().context("a folder")?)?;
    Ok(std::fs::write(path, text)?)
}

/// The metrics at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Scrape(BTreeMap<String, f64>);

impl Scrape {
    /// How much a series has increased since `before`.
    pub(crate) fn since(&self, before: &Self, series: &str) -> f64 {
        let value = |scrape: &Self| scrape.0.get(series).copied().unwrap_or_default();
        value(self) - value(before)
    }

    /// Every series of a fault that has increased, and by how much.
    pub(crate) fn faults_since(&self, before: &Self) -> BTreeMap<String, f64> {
        let is_fault = |name: &str| {
            FAULTS.iter().any(|family| name.split('{').next() == Some(family)) && name != WITH_INTERRUPTIONS
        };
        let moved =
            self.0.keys().filter(|name| is_fault(name)).map(|name| (name.clone(), self.since(before, name)));
        moved.filter(|(_, increase)| *increase > 0.0).collect()
    }

    /// Exactly these series of faults have increased.
    pub(crate) fn ensure_faults(&self, before: &Self, expected: &[&str]) -> Result<()> {
        let moved = self.faults_since(before);
        let names: Vec<&str> = moved.keys().map(String::as_str).collect();
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        ensure!(names == expected, "moved {moved:?}, expected {expected:?}");
        Ok(())
    }

    /// Of a series there is one.
    pub(crate) fn ensure_known(&self, series: &str) -> Result<()> {
        ensure!(self.0.contains_key(series), "there is no series {series}");
        Ok(())
    }
}
