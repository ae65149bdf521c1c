//! The files a pod is configured by while it runs: the agent file and the keyring, watched.
//!
//! A file is read anew every second and compared by content: Kubernetes swaps a `..data` symlink, editors rename, and
//! neither is worth an inotify special case for two small files. The last good version stays when a change cannot be
//! used; running calls keep the plan they began with.
//!
//! Must never: change what a running call does, or take a file that does not validate.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use call_session::agent_file::{
    AgentFile, Carrier, EngineKind, FORMAT_VERSION, Keyring, Overflow, SecretRef, Store,
};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::metrics::{FileLabel, Metrics};

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Read(#[from] std::io::Error),
    /// It is larger than any document the operator writes (a ConfigMap holds 1 MiB).
    #[error("is larger than {LARGEST_FILE} bytes")]
    TooLarge,
    /// It does not parse. The parser's words may quote the document, which holds no secret; a keyring's are withheld.
    #[error("does not parse: {0}")]
    Parse(String),
    /// It parses and says something impossible.
    #[error("{field}: {reason}")]
    Value {
        /// Path of the field.
        field: String,
        /// What is wrong with it, and what to change.
        reason: String,
    },
}

/// A document that is loaded from a file and validated.
pub trait Document: DeserializeOwned + Send + Sync + 'static {
    /// Which file it is, in metrics and logs.
    const LABEL: FileLabel;
    /// Whether a parse error may be repeated: not when the document is secret.
    const IS_SECRET: bool;

    /// Checks what the type cannot.
    ///
    /// # Errors
    /// [`FileError::Value`] for the first field that is wrong.
    fn validate(&self) -> Result<(), FileError>;
}

/// A ConfigMap or Secret holds at most 1 MiB.
const LARGEST_FILE: u64 = 1 << 20;

/// How often files are read: a changed instruction is to be live within seconds, and reading two small files costs
/// nothing.
const POLL: Duration = Duration::from_secs(1);

/// Parses and validates a document, JSON or YAML (of which JSON is a subset).
///
/// # Errors
/// [`FileError`].
pub fn parse<D: Document>(text: &str) -> Result<D, FileError> {
    let document: Result<D, String> = if text.trim_start().starts_with('{') {
        serde_json::from_str(text).map_err(|error| error.to_string())
    } else {
        serde_saphyr::from_str(text).map_err(|error| error.to_string())
    };
    let document = document.map_err(|words| {
        FileError::Parse(if D::IS_SECRET { "malformed document".to_owned() } else { words })
    })?;
    document.validate()?;
    Ok(document)
}

/// Loads a document once.
///
/// # Errors
/// [`FileError`].
pub fn load<D: Document>(path: &Path) -> Result<D, FileError> {
    parse(&read(path)?)
}

fn read(path: &Path) -> Result<String, FileError> {
    if std::fs::metadata(path)?.len() > LARGEST_FILE {
        return Err(FileError::TooLarge);
    }
    Ok(std::fs::read_to_string(path)?)
}

/// A document and its newest good version.
pub struct Watched<D> {
    path: PathBuf,
    /// The text last looked at, good or bad, so that one bad version is reported once.
    seen: String,
    newest: watch::Sender<Arc<D>>,
}

impl<D: Document> Watched<D> {
    /// Loads the first version.
    ///
    /// # Errors
    /// [`FileError`]: a pod does not start without a good file.
    pub fn load(path: &Path) -> Result<Self, FileError> {
        let seen = read(path)?;
        let newest = watch::Sender::new(Arc::new(parse(&seen)?));
        Ok(Self { path: path.to_owned(), seen, newest })
    }

    /// The newest good version, now and later.
    pub fn subscribe(&self) -> watch::Receiver<Arc<D>> {
        self.newest.subscribe()
    }

    /// Looks at the file; whether a new good version was taken.
    fn refresh(&mut self, metrics: &Metrics) -> bool {
        let text = match read(&self.path) {
            Ok(text) if text == self.seen => return false,
            Ok(text) => text,
            // A file may be away for an instant while it is replaced; the next look decides.
            Err(FileError::Read(error)) if error.kind() == std::io::ErrorKind::NotFound => return false,
            Err(error) => {
                if !self.seen.is_empty() {
                    report(&self.path, &error, metrics, D::LABEL);
                    self.seen.clear();
                }
                return false;
            }
        };
        let parsed = parse::<D>(&text);
        self.seen = text;
        match parsed {
            Ok(document) => {
                tracing::info!(file = %self.path.display(), "configuration changed");
                self.newest.send_replace(Arc::new(document));
                true
            }
            Err(error) => {
                report(&self.path, &error, metrics, D::LABEL);
                false
            }
        }
    }

    /// Watches the file until dropped.
    pub async fn watch(mut self, metrics: Arc<Metrics>) {
        let mut interval = tokio::time::interval(POLL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            // Reading from a mounted volume is short but may block: off the runtime's workers.
            let outcome = tokio::task::spawn_blocking({
                let metrics = metrics.clone();
                move || {
                    self.refresh(&metrics);
                    self
                }
            })
            .await;
            match outcome {
                Ok(watched) => self = watched,
                Err(error) => {
                    tracing::error!(%error, "a file is no longer watched");
                    return;
                }
            }
        }
    }
}

fn report(path: &Path, error: &FileError, metrics: &Metrics, label: FileLabel) {
    metrics.file_faults.inc(label);
    tracing::warn!(file = %path.display(), %error, "a changed file cannot be used; the last good version stays");
}

fn wrong(field: impl Into<String>, reason: impl Into<String>) -> FileError {
    FileError::Value { field: field.into(), reason: reason.into() }
}

impl Document for AgentFile {
    const LABEL: FileLabel = FileLabel::Agent;
    const IS_SECRET: bool = false;

    fn validate(&self) -> Result<(), FileError> {
        if self.format_version != FORMAT_VERSION {
            let reason = format!("this build reads {FORMAT_VERSION}, the file says {}", self.format_version);
            return Err(wrong("formatVersion", reason));
        }
        path_segment("namespace", &self.namespace)?;
        path_segment("name", &self.name)?;
        let Some(host) = self.public_url.strip_prefix("https://") else {
            return Err(wrong("publicUrl", "must begin with https://"));
        };
        let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '?' | '#' | '@');
        if host.is_empty() || host.starts_with('/') || host.ends_with('/') || host.contains(odd) {
            return Err(wrong("publicUrl", "must be https://host[/prefix], no trailing slash, no query"));
        }
        if port(host).is_some_and(|port| port != "443") {
            // Protocol sheet 1.1: media streams are opened to no other.
            return Err(wrong("publicUrl", "must name no port but 443, the only one of media streams"));
        }
        let Carrier::Twilio { twilio } = &self.carrier;
        if !(1..=2).contains(&twilio.auth_tokens.len()) {
            return Err(wrong("carrier.twilio.authTokens", "must name one or two secrets"));
        }
        for (index, token) in twilio.auth_tokens.iter().enumerate() {
            secret(&format!("carrier.twilio.authTokens[{index}]"), token)?;
        }
        engines(self)?;
        limits(self)?;
        match &self.store {
            Store::Memory => {}
            Store::Redis { redis } => secret("store.redis.url", &redis.url)?,
        }
        if let Some(token) = &self.api_token {
            secret("apiToken", token)?;
        }
        Ok(())
    }
}

/// The port behind a URL's host, if one is written.
fn port(host_and_path: &str) -> Option<&str> {
    let authority = host_and_path.split('/').next()?;
    let (_, port) = authority.rsplit_once(':')?;
    (!port.ends_with(']')).then_some(port) // that is the end of an IPv6 address
}

/// Warm sessions cost sockets, and count against the provider's limits: enough for the calls of one burst.
const MOST_WARM_SESSIONS: u32 = 64;

fn engines(agent: &AgentFile) -> Result<(), FileError> {
    if agent.engines.is_empty() {
        return Err(wrong("engines", "must hold at least one engine"));
    }
    let mut names = BTreeSet::new();
    for (index, engine) in agent.engines.iter().enumerate() {
        let field = format!("engines[{index}]");
        if engine.name.is_empty() || !names.insert(&engine.name) {
            return Err(wrong(format!("{field}.name"), "must be there and unique"));
        }
        match &engine.kind {
            EngineKind::Realtime { realtime } => {
                let scheme = realtime.url.starts_with("ws://") || realtime.url.starts_with("wss://");
                if !scheme || realtime.url.contains(['?', '#']) || realtime.url.parse::<http::Uri>().is_err()
                {
                    let reason = "must be a ws:// or wss:// URL without query";
                    return Err(wrong(format!("{field}.realtime.url"), reason));
                }
                if realtime.model.is_empty() || realtime.voice.is_empty() {
                    return Err(wrong(format!("{field}.realtime"), "must name a model and a voice"));
                }
                secret(&format!("{field}.realtime.apiKey"), &realtime.api_key)?;
                if realtime.warm_sessions_per_pod > MOST_WARM_SESSIONS {
                    let reason = format!("must be at most {MOST_WARM_SESSIONS}");
                    return Err(wrong(format!("{field}.realtime.warmSessionsPerPod"), reason));
                }
            }
            EngineKind::Simulated { simulated: _ } => {}
        }
    }
    Ok(())
}

fn limits(agent: &AgentFile) -> Result<(), FileError> {
    let positive = [
        ("maxCallsPerPod", agent.max_calls_per_pod),
        ("limits.maxCallSeconds", agent.limits.max_call_seconds),
        ("limits.silenceSeconds", agent.limits.silence_seconds),
    ];
    if let Some((field, _)) = positive.into_iter().find(|(_, value)| *value == 0) {
        return Err(wrong(field, "must be at least 1"));
    }
    let mut targets = BTreeSet::new();
    for (index, target) in agent.transfer_targets.iter().enumerate() {
        if target.name.is_empty() || !targets.insert(&target.name) {
            return Err(wrong(format!("transferTargets[{index}].name"), "must be there and unique"));
        }
    }
    for (index, number) in agent.numbers.iter().enumerate() {
        let weights = number.routes.iter().map(|route| u64::from(route.weight)).sum::<u64>();
        if weights == 0 {
            return Err(wrong(format!("numbers[{index}].routes"), "must hold a weight above 0"));
        }
        for route in &number.routes {
            path_segment(&format!("numbers[{index}].routes"), &route.agent)?;
        }
    }
    match &agent.overflow {
        Overflow::Message { message } if message.text.trim().is_empty() => {
            Err(wrong("overflow.message.text", "must say something"))
        }
        Overflow::Message { .. } => Ok(()),
        Overflow::Agent { agent: other } => path_segment("overflow.agent.name", &other.name),
        Overflow::Forward { forward } if targets.contains(&forward.transfer_target) => Ok(()),
        Overflow::Forward { .. } => {
            Err(wrong("overflow.forward.transferTarget", "must be the name of one of transferTargets"))
        }
    }
}

/// Names become parts of URLs, store keys and labels: DNS label characters only.
fn path_segment(field: &str, name: &str) -> Result<(), FileError> {
    let fits = (1..=63).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if fits { Ok(()) } else { Err(wrong(field, "must be a DNS label: a-z, 0-9, -, at most 63 characters")) }
}

/// Secret names and keys become path segments below the secrets directory; they must not leave it.
fn secret(field: &str, reference: &SecretRef) -> Result<(), FileError> {
    for part in [&reference.name, &reference.key] {
        let fits = (1..=253).contains(&part.len())
            && !part.starts_with('.')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if !fits {
            return Err(wrong(field, "name and key must be those of a Secret, without slashes"));
        }
    }
    Ok(())
}

impl Document for Keyring {
    const LABEL: FileLabel = FileLabel::Keyring;
    const IS_SECRET: bool = true;

    fn validate(&self) -> Result<(), FileError> {
        if self.keys.contains_key(&self.signing) {
            Ok(())
        } else {
            Err(wrong("signing", "must be the id of a key in keys"))
        }
    }
}

#[cfg(test)]
#[path = "agent_tests.rs"]
mod tests;
