//! `make bench`: what the operator needs for a large fleet, as a table with limits.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use e2e::operator_bench::{Figure, Settings, run, table};
use e2e::sandbox;

/// Measures the operator on a real API server; needs root.
#[derive(Parser)]
struct Arguments {
    /// The binary `switchboard`; build it with --release for figures that mean something.
    #[arg(long)]
    operator: PathBuf,
    /// VoiceAgents; and as many PhoneNumbers.
    #[arg(long, default_value_t = 500)]
    agents: usize,
    /// How long the fleet is watched while nothing changes: at least once around the operator's schedule.
    #[arg(long, default_value_t = 400)]
    steady_seconds: u64,
}

fn main() -> ExitCode {
    let Arguments { operator, agents, steady_seconds } = Arguments::parse();
    sandbox::run(|sandbox| {
        let steady = Duration::from_secs(steady_seconds);
        let figures = sandbox.block_on(run(&sandbox, Settings { operator: &operator, agents, steady }))?;
        println!("{}", table(&figures));
        let is_kept = figures.iter().all(Figure::is_kept);
        Ok(if is_kept { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}
