//! A cluster for people: `up` keeps one running until Ctrl-C, `down` ends it from elsewhere.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use e2e::{Cluster, ClusterOptions, Sandbox, sandbox};

/// A real Kubernetes cluster on this machine, for tests and the demo; needs root.
#[derive(Parser)]
enum Command {
    /// Bring a cluster up, and keep it until Ctrl-C.
    Up,
    /// Show the clusters on this machine.
    List,
    /// End clusters.
    #[command(arg_required_else_help = true)]
    Down {
        /// Running clusters, by name.
        names: Vec<String>,
        /// Remove what crashed runs left, too; running clusters are not touched.
        #[arg(long)]
        all: bool,
    },
}

fn main() -> ExitCode {
    match Command::parse() {
        Command::Up => sandbox::run(|sandbox| up(&sandbox)),
        Command::List => report(list()),
        Command::Down { names, all } => report(down(&names, all)),
    }
}

fn up(sandbox: &Sandbox) -> Result<ExitCode> {
    let cluster = sandbox.block_on(Cluster::up(sandbox, ClusterOptions::default()))?;
    println!("{} is up; Ctrl-C ends it. In another terminal, as root:", sandbox.name());
    println!("    {} kubectl get pods --all-namespaces", cluster.entrance().display());
    println!("Logs are in {}", cluster.log_dir().display());
    // The guardian takes Ctrl-C and ends this process with everything else.
    sandbox.block_on(std::future::pending())
}

fn list() -> Result<()> {
    for found in sandbox::state::list()? {
        let state = if found.is_alive { "running" } else { "left over" };
        println!("{}\t{state}\t{}", found.name, found.directory.display());
    }
    Ok(())
}

fn down(names: &[String], all: bool) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for name in names {
        runtime.block_on(sandbox::state::stop(name))?;
        println!("{name} is down");
    }
    if all {
        let swept = sandbox::state::sweep()?;
        swept.removed.iter().for_each(|name| println!("{name} is removed"));
        if let Some((name, error)) = swept.failed.into_iter().next() {
            return Err(error.context(format!("{name} cannot be removed")));
        }
    }
    Ok(())
}

fn report(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
