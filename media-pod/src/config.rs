//! The process's own configuration: flags and environment, read once and validated before any port is bound.
//!
//! The variables are the table "What the operator gives a media pod" in `docs/design.md`. A bad value names its
//! variable, and the process exits with [`EX_USAGE`]. Whatever belongs to the agent is in the agent file instead.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use crate::traces;

/// Exit code for bad configuration (`EX_USAGE` of sysexits.h).
pub const EX_USAGE: u8 = 64;

/// The configuration of one media pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where the agent file is.
    pub agent_file: PathBuf,
    /// Where the keyring is.
    pub keyring_file: PathBuf,
    /// Below this: `<name>/<key>` for each secret the agent file names.
    pub secrets_dir: PathBuf,
    /// The carrier's door.
    pub public_addr: SocketAddr,
    /// The API's door.
    pub api_addr: SocketAddr,
    /// Probes, metrics, load.
    pub admin_addr: SocketAddr,
    /// Owner of this pod's leases.
    pub pod_name: String,
    /// How long calls may go on after SIGTERM; the agent file's when absent.
    pub drain_window: Option<Duration>,
    /// How long new calls are still admitted after SIGTERM.
    pub lame_duck: Duration,
    /// PEM file with more roots for the model's `wss://` and the receiver of traces.
    pub extra_ca_file: Option<PathBuf>,
    /// Tracing filter.
    pub log: String,
    /// Where traces of calls go; nowhere when absent.
    pub traces: Option<traces::settings::Settings>,
}

/// Bad configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A value that does not fit; names the variable, never a secret (there is none among them).
    #[error("{variable}: {reason}")]
    Value {
        /// The environment variable.
        variable: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The command line does not parse, or asks for help.
    #[error(transparent)]
    Usage(#[from] clap::Error),
}

/// Bridges phone calls with a speech model: one media pod of Switchboard.
#[derive(Parser, Debug)]
#[command(name = "switchboard-media", version)]
struct Arguments {
    /// The agent file, JSON or YAML.
    #[arg(long, env = AGENT_FILE, default_value = "/etc/switchboard/agent/agent.json")]
    agent_file: String,
    /// The stream keyring.
    #[arg(long, env = KEYRING_FILE, default_value = "/etc/switchboard/keyring/keyring.json")]
    keyring_file: String,
    /// Directory of the secrets the agent file names, as <name>/<key>.
    #[arg(long, env = SECRETS_DIR, default_value = "/etc/switchboard/secrets")]
    secrets_dir: String,
    /// Address of the carrier's door.
    #[arg(long, env = PUBLIC_ADDR, default_value = "0.0.0.0:8080")]
    public_addr: String,
    /// Address of the API.
    #[arg(long, env = API_ADDR, default_value = "0.0.0.0:8081")]
    api_addr: String,
    /// Address of probes, metrics and load.
    #[arg(long, env = ADMIN_ADDR, default_value = "0.0.0.0:9090")]
    admin_addr: String,
    /// Name of this pod; the host name when absent.
    #[arg(long, env = POD_NAME)]
    pod_name: Option<String>,
    /// How long calls may go on after SIGTERM; the agent file says it when absent.
    #[arg(long, env = DRAIN_WINDOW)]
    drain_window_seconds: Option<String>,
    /// How long new calls are still admitted after SIGTERM.
    #[arg(long, env = LAME_DUCK, default_value = "12")]
    lame_duck_seconds: String,
    /// PEM file of certificate authorities trusted besides the public ones.
    #[arg(long, env = EXTRA_CA_FILE)]
    extra_ca_file: Option<String>,
    /// Log filter, e.g. info or media_pod=debug.
    #[arg(long, env = LOG, default_value = "info")]
    log: String,
    #[command(flatten)]
    traces: traces::settings::TraceArguments,
}

const AGENT_FILE: &str = "SWITCHBOARD_AGENT_FILE";
const KEYRING_FILE: &str = "SWITCHBOARD_KEYRING_FILE";
const SECRETS_DIR: &str = "SWITCHBOARD_SECRETS_DIR";
const PUBLIC_ADDR: &str = "SWITCHBOARD_PUBLIC_ADDR";
const API_ADDR: &str = "SWITCHBOARD_API_ADDR";
const ADMIN_ADDR: &str = "SWITCHBOARD_ADMIN_ADDR";
const POD_NAME: &str = "SWITCHBOARD_POD_NAME";
const DRAIN_WINDOW: &str = "SWITCHBOARD_DRAIN_WINDOW_SECONDS";
const LAME_DUCK: &str = "SWITCHBOARD_LAME_DUCK_SECONDS";
const EXTRA_CA_FILE: &str = "SWITCHBOARD_EXTRA_CA_FILE";
const LOG: &str = "SWITCHBOARD_LOG";

/// A day: longer drains are a typing mistake (grace periods are seconds to hours).
const LONGEST_SECONDS: u64 = 86_400;

impl Config {
    /// Reads flags (first) and environment.
    ///
    /// # Errors
    /// [`ConfigError::Value`] with the variable's name, or [`ConfigError::Usage`].
    pub fn from_process() -> Result<Self, ConfigError> {
        Self::from_arguments(std::env::args_os())
    }

    fn from_arguments(
        arguments: impl IntoIterator<Item = impl Into<std::ffi::OsString> + Clone>,
    ) -> Result<Self, ConfigError> {
        let Arguments {
            agent_file,
            keyring_file,
            secrets_dir,
            public_addr,
            api_addr,
            admin_addr,
            pod_name,
            drain_window_seconds,
            lame_duck_seconds,
            extra_ca_file,
            log,
            traces,
        } = Arguments::try_parse_from(arguments)?;
        Ok(Self {
            agent_file: path(AGENT_FILE, agent_file)?,
            keyring_file: path(KEYRING_FILE, keyring_file)?,
            secrets_dir: path(SECRETS_DIR, secrets_dir)?,
            public_addr: address(PUBLIC_ADDR, &public_addr)?,
            api_addr: address(API_ADDR, &api_addr)?,
            admin_addr: address(ADMIN_ADDR, &admin_addr)?,
            pod_name: owner(pod_name)?,
            drain_window: drain_window_seconds.map(|text| seconds(DRAIN_WINDOW, &text)).transpose()?,
            lame_duck: seconds(LAME_DUCK, &lame_duck_seconds)?,
            extra_ca_file: extra_ca_file.map(|text| path(EXTRA_CA_FILE, text)).transpose()?,
            log: filter(log)?,
            traces: traces.settings()?,
        })
    }
}

fn wrong(variable: &'static str, reason: impl Into<String>) -> ConfigError {
    ConfigError::Value { variable, reason: reason.into() }
}

fn path(variable: &'static str, text: String) -> Result<PathBuf, ConfigError> {
    if text.is_empty() {
        return Err(wrong(variable, "expected a path, got nothing"));
    }
    Ok(PathBuf::from(text))
}

fn address(variable: &'static str, text: &str) -> Result<SocketAddr, ConfigError> {
    text.parse().map_err(|_| wrong(variable, format!("expected address:port, got {text:?}")))
}

fn seconds(variable: &'static str, text: &str) -> Result<Duration, ConfigError> {
    match text.parse::<u64>() {
        Ok(seconds) if seconds <= LONGEST_SECONDS => Ok(Duration::from_secs(seconds)),
        _ => Err(wrong(variable, format!("expected whole seconds up to {LONGEST_SECONDS}, got {text:?}"))),
    }
}

fn filter(text: String) -> Result<String, ConfigError> {
    match tracing_subscriber::EnvFilter::try_new(&text) {
        Ok(_) => Ok(text),
        Err(error) => Err(wrong(LOG, format!("not a tracing filter: {error}"))),
    }
}

/// The name given, else the host's: in Kubernetes both are the pod's name.
fn owner(given: Option<String>) -> Result<String, ConfigError> {
    let name = match given {
        Some(name) => name,
        None => std::fs::read_to_string("/proc/sys/kernel/hostname")
            .map_err(|error| wrong(POD_NAME, format!("not set, and the host name is unreadable: {error}")))?
            .trim()
            .to_owned(),
    };
    let fits =
        !name.is_empty() && name.len() <= 253 && name.bytes().all(|b| b.is_ascii_graphic() && b != b':');
    if fits { Ok(name) } else { Err(wrong(POD_NAME, "expected a host name without spaces or colons")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Config, ConfigError> {
        Config::from_arguments(std::iter::once("switchboard-media").chain(arguments.iter().copied()))
    }

    #[test]
    fn defaults_are_those_of_the_published_table() {
        let config = parsed(&["--pod-name", "sales-media-0"]).unwrap();
        let expected = Config {
            agent_file: "/etc/switchboard/agent/agent.json".into(),
            keyring_file: "/etc/switchboard/keyring/keyring.json".into(),
            secrets_dir: "/etc/switchboard/secrets".into(),
            public_addr: ([0, 0, 0, 0], 8080).into(),
            api_addr: ([0, 0, 0, 0], 8081).into(),
            admin_addr: ([0, 0, 0, 0], 9090).into(),
            pod_name: "sales-media-0".to_owned(),
            drain_window: None,
            lame_duck: Duration::from_secs(12),
            extra_ca_file: None,
            log: "info".to_owned(),
            traces: None,
        };
        assert_eq!(config, expected);
    }

    #[test]
    fn a_bad_value_names_its_variable() {
        let cases = [
            ("--public-addr", "8080", PUBLIC_ADDR),
            ("--admin-addr", "host:1", ADMIN_ADDR),
            ("--lame-duck-seconds", "-1", LAME_DUCK),
            ("--drain-window-seconds", "5m", DRAIN_WINDOW),
            ("--agent-file", "", AGENT_FILE),
            ("--pod-name", "a b", POD_NAME),
            ("--log", "media_pod=loud", LOG),
        ];
        for (flag, value, variable) in cases {
            let error = parsed(&[&format!("{flag}={value}")]).unwrap_err();
            assert!(error.to_string().starts_with(&format!("{variable}: ")), "{error}");
        }
    }
}
