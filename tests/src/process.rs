//! Processes beside the caller: output goes to a log file, and the process ends with its [`Guard`].
//!
//! What a process leaves behind (daemonised children, containers' shims) is not looked after here: it ends with the
//! sandbox, see [`crate::sandbox`].

use std::{
    fs::File,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

use crate::wait::{end_of, wait_for};

/// A running process; dropping this kills it.
#[derive(Debug)]
pub struct Guard {
    name: String,
    log: PathBuf,
    child: Mutex<Child>,
}

impl Guard {
    /// Starts `command` with both its outputs in `log`.
    ///
    /// It gets a process group of its own, so that Ctrl-C in a terminal reaches the caller, which then decides.
    pub(crate) fn spawn(name: &str, command: &mut Command, log: PathBuf) -> Result<Self> {
        let output = File::create(&log).with_context(|| format!("{} cannot be created", log.display()))?;
        let errors = output.try_clone().context("a log's file handle cannot be copied")?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .with_context(|| format!("{name} cannot be started ({})", command.get_program().display()))?;
        Ok(Self { name: name.to_owned(), log, child: Mutex::new(child) })
    }

    /// Where its output goes.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Its process id, as seen from inside the sandbox.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child().id()
    }

    /// An error with the end of its log if it is not running any more.
    ///
    /// # Errors
    /// When it has ended, for whatever reason.
    pub fn check(&self) -> Result<()> {
        match self.ended()? {
            None => Ok(()),
            Some(status) => bail!("{} ended by itself ({status}); {}", self.name, end_of(&self.log)),
        }
    }

    /// Sends `signal` ("TERM", "STOP", …).
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&self, signal: &str) -> Result<()> {
        // Held to the end: without it the id could have been reaped, and be another process's by now.
        let mut child = self.child();
        ensure!(child.try_wait()?.is_none(), "{} has already ended", self.name);
        send_signal(signal, child.id())
    }

    /// Asks it to end with SIGTERM, and waits until it has.
    ///
    /// # Errors
    /// When it is still there after `within`; it goes on running then, until this is dropped.
    pub async fn terminate(&self, within: Duration) -> Result<ExitStatus> {
        self.signal("TERM")?;
        wait_for(&format!("the end of {}", self.name), within, async || self.ended()).await
    }

    fn ended(&self) -> Result<Option<ExitStatus>> {
        self.child().try_wait().with_context(|| format!("{} cannot be waited for", self.name))
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Both fail only for a process that is gone already.
        let mut child = self.child();
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Sends a signal; through the shell, because the standard library has only SIGKILL.
pub(crate) fn send_signal(signal: &str, process: u32) -> Result<()> {
    let status = Command::new("sh")
        .args(["-c", "kill -s \"$0\" \"$1\"", signal, &process.to_string()])
        .stderr(Stdio::null())
        .status()
        .context("sh cannot be run")?;
    ensure!(status.success(), "process {process} cannot be sent SIG{signal}");
    Ok(())
}

/// Runs a short command to its end.
///
/// # Errors
/// When it cannot be started or fails; the message has the command and what it said.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let output =
        command.output().with_context(|| format!("{} cannot be started", command.get_program().display()))?;
    ensure!(
        output.status.success(),
        "{command:?} failed ({}): {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
