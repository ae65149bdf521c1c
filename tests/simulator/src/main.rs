//! `switchboard-sim`: simulated Twilio, simulated model and callers. This file only wires.

mod cli;

use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::{Arguments, Command, Outcome};

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    cli::start_logging(&arguments.log, arguments.json_log)?;
    let outcome = match arguments.command {
        Command::Serve(serve) => cli::serve::run(serve).await?,
        Command::Call(call) => cli::call::run(call).await?,
        Command::Local(local) => cli::local::run(*local).await?,
        Command::Load(load) => cli::load::run(*load).await?,
        Command::Relay(relay) => cli::relay::run(relay).await?,
        Command::Rules => {
            print!("{}", cli::rules::table());
            Outcome::Passed
        }
        Command::Test(test) => match cli::test::run(test).await {
            Ok(outcome) => outcome,
            Err(error) => {
                eprintln!("Error: {error:#}");
                return Ok(ExitCode::from(2));
            }
        },
    };
    Ok(match outcome {
        Outcome::Passed => ExitCode::SUCCESS,
        Outcome::Failed => ExitCode::FAILURE,
    })
}
