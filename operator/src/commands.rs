//! What each subcommand does around the library: reads, prints, and decides the exit code.

use std::io::Read as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use operator::config::{CheckConfig, DoctorConfig, Home, OperatorConfig, Output, RenderConfig, Scope};
use operator::doctor::{self, Reach, report};

pub(super) fn run(config: OperatorConfig) -> anyhow::Result<ExitCode> {
    runtime()?.block_on(operator::run::run(config))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn render(config: &RenderConfig) -> anyhow::Result<ExitCode> {
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
    Ok(ExitCode::SUCCESS)
}

pub(super) fn check(config: CheckConfig) -> anyhow::Result<ExitCode> {
    let CheckConfig { home: Home { namespace }, scope: Scope { watch_namespaces }, wait_seconds } = config;
    runtime()?.block_on(async {
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
        Ok(ExitCode::SUCCESS)
    })
}

pub(super) fn doctor(config: DoctorConfig) -> anyhow::Result<ExitCode> {
    let DoctorConfig { home: Home { namespace }, output, cluster_only } = config;
    let reach = if cluster_only { Reach::Cluster } else { Reach::Everything };
    let examined = runtime()?.block_on(async {
        let client = kube::Client::try_default().await?;
        doctor::examine(&client, &doctor::Settings { namespace, reach }).await
    });
    let report = match examined {
        Ok(report) => report,
        Err(error) => {
            eprintln!("switchboard: the API server does not answer: {error}");
            return Ok(ExitCode::from(report::EXIT_UNAVAILABLE));
        }
    };
    match output {
        Output::Text => println!("{report}"),
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    Ok(ExitCode::from(report.exit_code()))
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Runtime::new().context("the runtime cannot be started")
}
