//! What peers, networks and bugs can do to a running media pod: the real binary on real sockets, against the simulator's
//! faults and against peers that keep to no protocol at all. No root, nothing beyond loopback.
//!
//! Each trial has a simulator and one or two pods of its own, and most have a second caller on the same pod to whom nothing
//! may happen ([`quiet::QuietCall`]). `SWITCHBOARD_LOGS=DIR` keeps the processes' logs.

mod bug;
mod fleet;
mod hostile;
mod logs;
mod pod;
mod quiet;
mod service;
mod sockets;
mod stage;
mod table;
mod waiting;

use std::process::ExitCode;

use anyhow::Result;
use libtest_mimic::{Arguments, Failed, Trial};

fn main() -> ExitCode {
    // Fails only where one is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut arguments = Arguments::from_args();
    // Callers mostly talk, listen and wait: many at a time do not need many cores.
    arguments.test_threads.get_or_insert(8);
    let trials = [
        table::trials(),
        sockets::trials(),
        bug::trials(),
        logs::trials(),
        fleet::trials(),
        waiting::trials(),
    ];
    libtest_mimic::run(&arguments, trials.into_iter().flatten().collect()).exit_code()
}

/// A trial on a runtime of its own.
fn trial<F>(name: &str, body: impl FnOnce() -> F + Send + 'static) -> Trial
where
    F: Future<Output = Result<()>>,
{
    Trial::test(name, move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(body()).map_err(|error| Failed::from(format!("{error:#}")))
    })
}
