//! Tests on a real cluster: one is brought up for all of them.
//!
//! They need root, so a feature asks for them: `cargo test -p e2e --features cluster`. A new file beside this one has a
//! `pub(crate) fn trials(ctx: &Arc<Ctx>) -> Vec<Trial>` and a line in [`trials`] here.

mod context;
mod harness;

use std::{process::ExitCode, sync::Arc};

use e2e::{Cluster, ClusterOptions, sandbox};
use libtest_mimic::{Arguments, Trial};

use context::Ctx;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    if arguments.list {
        return libtest_mimic::run(&arguments, trials(&Arc::default())).exit_code();
    }
    sandbox::run(|sandbox| {
        let cluster = sandbox.block_on(Cluster::up(&sandbox, ClusterOptions::default()))?;
        let ctx = Arc::new(Ctx::of(cluster, sandbox.runtime().handle().clone()));
        Ok(libtest_mimic::run(&arguments, trials(&ctx)).exit_code())
    })
}

fn trials(ctx: &Arc<Ctx>) -> Vec<Trial> {
    [harness::trials(ctx)].into_iter().flatten().collect()
}
