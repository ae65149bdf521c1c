//! The binary `switchboard`: the operator, and tools that share its code.

mod commands;

use std::process::ExitCode;

use clap::Parser as _;
use operator::config::{Cli, Command};

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
        Command::Operator(config) => commands::run(*config),
        Command::Render(config) => commands::render(&config),
        Command::Check(config) => commands::check(config),
        Command::Doctor(config) => commands::doctor(config),
    };
    done.unwrap_or_else(|error| {
        eprintln!("switchboard: {error:#}");
        ExitCode::FAILURE
    })
}
