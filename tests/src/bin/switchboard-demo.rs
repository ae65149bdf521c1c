//! The main job, shown in a terminal: resources applied to a real Kubernetes, a simulated caller who talks with the
//! agent, interrupts it and hangs up; everything in between is the product. This file only wires; see `e2e::demo`.

use std::process::ExitCode;

use e2e::{demo, sandbox};

fn main() -> ExitCode {
    sandbox::run(|sandbox| {
        sandbox.block_on(demo::run(&sandbox))?;
        Ok(ExitCode::SUCCESS)
    })
}
