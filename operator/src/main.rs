//! The binary `switchboard`: the operator, and tools that share its code.

use std::io::Read as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser as _;
use operator::config::{CheckConfig, Cli, Command, RenderConfig};

/// `EX_USAGE`: the command line or the environment is wrong.
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are errors that are none. There is nobody to tell if printing fails.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let done = match cli.command {
        Command::Operator(config) => run(*config),
        Command::Render(config) => render(&config),
        Command::Check(config) => check(config),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("switchboard: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(config: operator::config::OperatorConfig) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("the runtime cannot be started")?;
    Ok(runtime.block_on(operator::run::run(config))?)
}

fn render(config: &RenderConfig) -> anyhow::Result<()> {
    let read = |path: &std::path::PathBuf| {
        let mut text = String::new();
        if path.as_os_str() == "-" {
            std::io::stdin().read_to_string(&mut text).map(|_| text)
        } else {
            std::fs::read_to_string(path)
        }
        .with_context(|| path.display().to_string())
    };
    let files = config.files.iter().map(read).collect::<anyhow::Result<Vec<_>>>()?;
    let file = operator::render::render(files.iter().map(String::as_str), config.agent.as_deref())?;
    println!("{}", serde_json::to_string_pretty(&file)?);
    Ok(())
}

fn check(config: CheckConfig) -> anyhow::Result<()> {
    let CheckConfig { namespace, watch_namespaces, wait_seconds } = config;
    let runtime = tokio::runtime::Runtime::new().context("the runtime cannot be started")?;
    runtime.block_on(async {
        let client = kube::Client::try_default()
            .await
            .context("there is neither a service account nor a kubeconfig to reach the API server with")?;
        let within = Duration::from_secs(wait_seconds);
        match operator::check::check(&client, &namespace, &watch_namespaces, within).await {
            Ok(()) => println!("the kinds are served, and an operator leads"),
            Err(lacks) => {
                anyhow::bail!("{}", lacks.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
            }
        }
        Ok(())
    })
}
