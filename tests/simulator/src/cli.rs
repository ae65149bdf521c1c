//! The command line: what can be asked of `switchboard-sim`, one module per subcommand.

pub(crate) mod call;
pub(crate) mod load;
pub(crate) mod local;
mod real_model;
pub(crate) mod relay;
mod report;
pub(crate) mod rules;
pub(crate) mod serve;
mod shutdown;
pub(crate) mod test;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// The phone network and the speech model, simulated: everything Switchboard talks to, without accounts.
#[derive(Debug, Parser)]
#[command(name = "switchboard-sim", version)]
pub(crate) struct Arguments {
    /// Log filter, e.g. info or simulator=debug; logs go to standard error.
    #[arg(long, global = true, env = "SWITCHBOARD_SIM_LOG", default_value = "warn")]
    pub(crate) log: String,
    /// Log as JSON.
    #[arg(long, global = true)]
    pub(crate) json_log: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run simulated Twilio and the simulated model until SIGTERM.
    Serve(serve::Serve),
    /// Place a call at a running simulator and follow it.
    Call(call::Call),
    /// A whole call on this machine: phone network, model and one media pod, no accounts, no root.
    Local(Box<local::Local>),
    /// Many calls at once against a running media pod or relay.
    Load(Box<load::Load>),
    /// The naive relay that the product is measured against.
    Relay(relay::RelayCommand),
    /// Agent tests from a file (say, press, expect): exit code 0 all passed, 1 one failed, 2 they could not be run.
    Test(test::Test),
    /// Every rule of the protocols that is enforced, with its section, as a table.
    Rules,
}

/// How a run ended: without a violation and a failed step, or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Passed,
    Failed,
}

impl Outcome {
    const fn passed_if(passed: bool) -> Self {
        if passed { Self::Passed } else { Self::Failed }
    }
}

/// Starts logging to standard error.
pub(crate) fn start_logging(filter: &str, as_json: bool) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter).context("--log is not a filter")?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if as_json {
        builder.json().init();
    } else {
        builder.init();
    }
    Ok(())
}
