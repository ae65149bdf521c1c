//! A child process that ends with its owner: SIGTERM and patience, SIGKILL when dropped.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use crate::cores::Cores;

/// Between SIGTERM and SIGKILL.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// How often the end is looked for.
const POLL: Duration = Duration::from_millis(10);

/// The process; killed when dropped.
pub(crate) struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` on the measured core, with both outputs in `log`.
    pub(crate) fn on_measured_core(
        name: &'static str,
        cores: &Cores,
        command: &mut Command,
        log: PathBuf,
    ) -> anyhow::Result<Self> {
        let child = cores.spawn(with_log(command, &log)?).with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name, child, log })
    }

    /// Starts `command` where this thread runs, with both outputs in `log`.
    pub(crate) fn beside(name: &'static str, command: &mut Command, log: PathBuf) -> anyhow::Result<Self> {
        let child = with_log(command, &log)?.spawn().with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name, child, log })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// An error with the end of its log when it is not running any more.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        let Some(status) = self.child.try_wait()? else { return Ok(()) };
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let end = log.lines().rev().take(5).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>();
        bail!("{} ended by itself ({status}); its last words: {}", self.name, end.join(" | "))
    }

    /// Waits until `condition` answers `Some`.
    pub(crate) async fn wait_for<T>(
        &mut self,
        what: &str,
        limit: Duration,
        pause: Duration,
        mut condition: impl AsyncFnMut() -> Option<T>,
    ) -> anyhow::Result<T> {
        let deadline = Instant::now() + limit;
        loop {
            self.check()?;
            if let Some(answer) = condition().await {
                return Ok(answer);
            }
            if Instant::now() >= deadline {
                bail!("{}: {what} did not come within {limit:?}", self.name);
            }
            sleep(pause).await;
        }
    }

    /// SIGTERM, and SIGKILL to a process that does not end in time.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            let _ = kill_process(pid, Signal::TERM); // it may have ended already
        }
        let deadline = Instant::now() + STOP_LIMIT;
        while self.child.try_wait()?.is_none() {
            if Instant::now() >= deadline {
                bail!("{} did not end within {STOP_LIMIT:?} of SIGTERM", self.name);
            }
            sleep(POLL).await;
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only for a process that is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn with_log<'a>(command: &'a mut Command, log: &PathBuf) -> anyhow::Result<&'a mut Command> {
    let output = File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
    let errors = output.try_clone()?;
    // Ctrl-C in a terminal reaches this program only, which then ends the process.
    Ok(command.stdin(Stdio::null()).stdout(output).stderr(errors).process_group(0))
}
