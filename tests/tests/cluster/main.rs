//! Tests on a real cluster: one is brought up for all of them.
//!
//! They need root, so a feature asks for them: `cargo test -p e2e --features cluster`. A new file beside this one has a
//! `pub(crate) fn trials(ctx: &Arc<Ctx>) -> Vec<Trial>` and a line in [`trials`] here.

mod agents;
mod autoscaling;
mod context;
mod doctor;
mod edge;
mod fixture;
mod gateways;
mod harness;
mod interruptions;
mod leadership;
mod main_job;
mod namespaces;
mod numbers;
mod observability;
mod overflow;
mod refusals;
mod robustness;
mod samples;
mod scaling;

use std::{process::ExitCode, sync::Arc};

use e2e::{Cluster, ClusterOptions, Installation, installation::repository, sandbox};
use libtest_mimic::{Arguments, Trial};

use context::Ctx;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Trials share one installation; two at a time would change it under each other.
    arguments.test_threads = Some(1);
    if arguments.list {
        return libtest_mimic::run(&arguments, trials(&Arc::default())).exit_code();
    }
    sandbox::run(|sandbox| {
        let cluster = sandbox.block_on(Cluster::up(&sandbox, ClusterOptions::default()))?;
        let scenario = repository().join("tests/simulator/scenarios/demo.yaml");
        let report = |step: &str| eprintln!("installation: {step}");
        let installation = Installation::install(&cluster, &scenario, report);
        let installation = sandbox.block_on(installation)?;
        let ctx = Arc::new(Ctx::of(cluster, installation, sandbox.runtime().handle().clone()));
        Ok(libtest_mimic::run(&arguments, trials(&ctx)).exit_code())
    })
}

fn trials(ctx: &Arc<Ctx>) -> Vec<Trial> {
    [
        harness::trials(ctx),
        refusals::trials(ctx),
        main_job::trials(ctx),
        edge::trials(ctx),
        overflow::trials(ctx),
        numbers::trials(ctx),
        gateways::trials(ctx),
        interruptions::trials(ctx),
        scaling::trials(ctx),
        samples::trials(ctx),
        doctor::trials(ctx),
        leadership::trials(ctx),
        namespaces::trials(ctx),
        agents::trials(ctx),
        robustness::trials(ctx),
        // Behind what needs the machine for itself: from here on Prometheus scrapes everybody every second.
        autoscaling::trials(ctx),
        observability::trials(ctx),
    ]
    .into_iter()
    .flatten()
    .collect()
}
