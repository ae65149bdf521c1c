//! `switchboard-bench`: what Switchboard costs and whether it lasts, measured on this machine. This file only wires.

mod calls;
mod cores;
mod figure;
mod frames;
mod machine;
mod mounts;
mod ports;
mod process;
mod redis;
mod soak;
mod subject;
mod table;
mod tls;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::cores::Cores;

/// What Switchboard costs and whether it lasts, measured on this machine.
#[derive(Debug, Parser)]
#[command(name = "switchboard-bench", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Speed and memory as one table, beside a naive relay; exit code 1 when a limit is broken.
    Table(table::Table),
    /// Many calls for a long time: nothing lost, no rule broken, memory level; exit code 1 otherwise.
    Soak(soak::Soak),
}

/// Whether everything was as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Good,
    Bad,
}

fn main() -> anyhow::Result<ExitCode> {
    let Arguments { command } = Arguments::parse();
    let cores = Cores::divide()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.take_the_rest()?)
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(async {
        match command {
            Command::Table(table) => table.run(&cores).await,
            Command::Soak(soak) => soak.run(&cores).await,
        }
    })?;
    Ok(match outcome {
        Outcome::Good => ExitCode::SUCCESS,
        Outcome::Bad => ExitCode::FAILURE,
    })
}
