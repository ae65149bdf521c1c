//! A cluster of two nodes, of which one is drained, cut off or lost: what Switchboard promises of nodes that go.
//!
//! A binary of its own, because its cluster is: nothing else wants pods moved about under it. It needs root, like
//! `cluster`.

mod outages;
mod stage;

use std::{process::ExitCode, sync::Arc};

use e2e::{Cluster, ClusterOptions, Installation, installation::repository, sandbox};
use libtest_mimic::Arguments;

use stage::Stage;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Trials share the nodes.
    arguments.test_threads = Some(1);
    if arguments.list {
        return libtest_mimic::run(&arguments, outages::trials(&Arc::default())).exit_code();
    }
    sandbox::run(|sandbox| {
        let options = ClusterOptions { nodes: 2, ..ClusterOptions::default() };
        let cluster = sandbox.block_on(Cluster::up(&sandbox, options))?;
        let scenario = repository().join("tests/simulator/scenarios/demo.yaml");
        let report = |step: &str| eprintln!("installation: {step}");
        let installation = Installation::install(&cluster, &scenario, report);
        let installation = sandbox.block_on(installation)?;
        let stage = Stage::of(cluster, installation, sandbox.runtime().handle().clone());
        Ok(libtest_mimic::run(&arguments, outages::trials(&Arc::new(stage))).exit_code())
    })
}
