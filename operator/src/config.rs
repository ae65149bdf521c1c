//! The command line and the environment, read once. Each setting has a default, or does not exist.
//!
//! Values are named like their environment variables, because that is what an error message must tell in a pod.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Switchboard: AI voice agents for phone numbers, native to Kubernetes.
#[derive(Clone, Debug, Parser)]
#[command(name = "switchboard", version, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the binary does.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Runs the controllers of VoiceGateway, VoiceAgent and PhoneNumber.
    Operator(Box<OperatorConfig>),
    /// Prints the agent file that the operator would give a VoiceAgent's pods, to run one on a laptop.
    #[command(after_help = RENDER_EXIT_CODES)]
    Render(RenderConfig),
    /// Looks whether an installation can do its work: the kinds are served and may be read, and a replica leads. Prints
    /// what is lacking.
    #[command(after_help = CHECK_EXIT_CODES)]
    Check(CheckConfig),
    /// Looks at the cluster of the current kubeconfig (or, in a pod, at its own) for what kills long calls, and says what
    /// to do about it. Changes nothing.
    #[command(after_help = DOCTOR_EXIT_CODES)]
    Doctor(DoctorConfig),
}

const RENDER_EXIT_CODES: &str =
    "Exit codes: 0 rendered; 1 the files hold no such agent, or an invalid one; 64 wrong usage.";
const CHECK_EXIT_CODES: &str =
    "Exit codes: 0 it can; 1 something is lacking, or the API server does not answer; 64 wrong usage.";
const DOCTOR_EXIT_CODES: &str = "\
Exit codes: 0 all is well; 1 warnings, or something could not be looked at; 2 failures; 64 wrong usage; 69 the API server
does not answer.

Run it with an administrator's kubeconfig: much of what it reads, the operator itself may not. Stores inside the cluster
can be reached from there only; elsewhere they are told as unknown.";

/// Where the operator runs: for every subcommand that has to do with one.
#[derive(Clone, Debug, Args)]
pub struct Home {
    /// Namespace of the operator, and of the Lease that makes one of its replicas the leader.
    #[arg(
        long,
        env = "SWITCHBOARD_NAMESPACE",
        value_name = "SWITCHBOARD_NAMESPACE",
        default_value = "switchboard-system"
    )]
    pub namespace: String,
}

/// What the operator looks after.
#[derive(Clone, Debug, Args)]
pub struct Scope {
    /// Namespaces that the operator looks after, separated by commas; empty means all of them. With a list, rights in these
    /// namespaces (Roles) suffice.
    #[arg(
        long,
        env = "SWITCHBOARD_WATCH_NAMESPACES",
        value_name = "SWITCHBOARD_WATCH_NAMESPACES",
        default_value = "",
        hide_default_value = true
    )]
    pub watch_namespaces: Namespaces,
}

/// Settings of `switchboard operator`.
#[derive(Clone, Debug, Args)]
pub struct OperatorConfig {
    /// Image of the media pods, for agents that name none.
    #[arg(long, env = "SWITCHBOARD_MEDIA_IMAGE", value_name = "SWITCHBOARD_MEDIA_IMAGE")]
    pub media_image: String,
    /// Where /livez, /readyz and /metrics are served.
    #[arg(
        long,
        env = "SWITCHBOARD_HTTP_ADDR",
        value_name = "SWITCHBOARD_HTTP_ADDR",
        default_value = "0.0.0.0:8080"
    )]
    pub http_addr: SocketAddr,
    /// Least seconds between two looks at a number or an account at the carrier where nothing changed here. In such a time at
    /// most 150 numbers and 30 accounts are looked at; a larger fleet takes as many times longer for a round.
    #[arg(long, env = "SWITCHBOARD_RESYNC_SECONDS", value_name = "SWITCHBOARD_RESYNC_SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86400))]
    pub resync_seconds: u64,
    /// PEM file of certificate authorities to trust besides the public ones, for the carrier's REST API.
    #[arg(long, env = "SWITCHBOARD_EXTRA_CA_FILE", value_name = "SWITCHBOARD_EXTRA_CA_FILE")]
    pub extra_ca_file: Option<PathBuf>,
    /// Where it runs.
    #[command(flatten)]
    pub home: Home,
    /// This replica's name; unique among them.
    #[arg(
        long,
        env = "SWITCHBOARD_POD_NAME",
        value_name = "SWITCHBOARD_POD_NAME",
        default_value = "switchboard"
    )]
    pub pod_name: String,
    /// What it looks after.
    #[command(flatten)]
    pub scope: Scope,
    /// Rollouts of agents at a time, when this operator brings another default image than the one before. Each replaces all
    /// pods of an agent, and its calls wait out a drain.
    #[arg(long, env = "SWITCHBOARD_MAX_ROLLOUTS", value_name = "SWITCHBOARD_MAX_ROLLOUTS", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub max_rollouts: u16,
    /// Namespaces, separated by commas, whose pods may read the media pods' metrics: where Prometheus runs. For agents
    /// whose networkPolicy does not say.
    #[arg(
        long,
        env = "SWITCHBOARD_MONITORING_NAMESPACES",
        value_name = "SWITCHBOARD_MONITORING_NAMESPACES",
        default_value = "monitoring,switchboard-monitoring",
        value_delimiter = ','
    )]
    pub monitoring_namespaces: Vec<String>,
    /// Log filter, such as `info` or `operator=debug,info`.
    #[arg(long, env = "SWITCHBOARD_LOG", value_name = "SWITCHBOARD_LOG", default_value = "info")]
    pub log: tracing_subscriber::EnvFilter,
}

/// Which namespaces the operator looks after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Namespaces {
    /// Every one, also those to come.
    All,
    /// These.
    These(BTreeSet<String>),
}

impl FromStr for Namespaces {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        let names: BTreeSet<_> =
            text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
        Ok(if names.is_empty() { Self::All } else { Self::These(names) })
    }
}

/// Settings of `switchboard render`.
#[derive(Clone, Debug, Args)]
pub struct RenderConfig {
    /// File with the VoiceGateway, the VoiceAgent and whatever else belongs to them (ConfigMap, PhoneNumber), as for
    /// kubectl apply; `-` is standard input. May be given several times.
    #[arg(short = 'f', long = "file", required = true)]
    pub files: Vec<PathBuf>,
    /// Which VoiceAgent, where there are several.
    #[arg(long)]
    pub agent: Option<String>,
}

/// Settings of `switchboard check`.
#[derive(Clone, Debug, Args)]
pub struct CheckConfig {
    /// Where the operator runs.
    #[command(flatten)]
    pub home: Home,
    /// What it looks after.
    #[command(flatten)]
    pub scope: Scope,
    /// Seconds to wait for what is lacking. A leader is one that is seen to renew its Lease, every five.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(..=3600))]
    pub wait_seconds: u64,
}

/// Settings of `switchboard doctor`.
#[derive(Clone, Debug, Args)]
pub struct DoctorConfig {
    /// Where the operator runs.
    #[command(flatten)]
    pub home: Home,
    /// How the findings are printed.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    /// Asks the API server alone, neither public URLs nor stores.
    #[arg(long)]
    pub cluster_only: bool,
}

/// Forms of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// For machines: `{"findings": [{check, severity, subject, message, remedy}]}`.
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_are_a_list_and_no_list_is_all() {
        assert_eq!("".parse(), Ok(Namespaces::All));
        assert_eq!(" , ".parse(), Ok(Namespaces::All));
        let two = Namespaces::These(["a".to_owned(), "b".to_owned()].into());
        assert_eq!("b, a,".parse(), Ok(two));
    }
}
