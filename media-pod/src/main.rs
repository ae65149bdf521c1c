//! The process of one media pod: configuration, logs, signals. Everything else is the library's.

use std::process::ExitCode;

use media_pod::config::{Config, ConfigError, EX_USAGE};
use media_pod::pod::Running;
use media_pod::telemetry;
use tokio::signal::unix::{Signal, SignalKind, signal};

#[tokio::main]
async fn main() -> ExitCode {
    let config = match Config::from_process() {
        Ok(config) => config,
        Err(ConfigError::Usage(usage)) => {
            let _ = usage.print(); // nowhere else to say it
            return if usage.use_stderr() { ExitCode::from(EX_USAGE) } else { ExitCode::SUCCESS };
        }
        Err(error) => return refuse(&error, EX_USAGE),
    };
    let _lines = telemetry::install(&config.log);
    let (mut terminate, mut interrupt) =
        match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
            (Ok(terminate), Ok(interrupt)) => (terminate, interrupt),
            (Err(error), _) | (_, Err(error)) => return refuse(&error, 1),
        };
    let pod = match Running::start(config).await {
        Ok(pod) => pod,
        Err(error) => return refuse(&error, if error.is_configuration() { EX_USAGE } else { 1 }),
    };
    asked_to_leave(&mut terminate, &mut interrupt).await;
    tokio::select! {
        () = pod.leave() => ExitCode::SUCCESS,
        () = asked_to_leave(&mut terminate, &mut interrupt) => {
            tracing::warn!("asked twice: leaving at once");
            ExitCode::FAILURE
        }
    }
}

async fn asked_to_leave(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

fn refuse(error: &dyn std::error::Error, code: u8) -> ExitCode {
    eprintln!("switchboard-media: {error}");
    ExitCode::from(code)
}
