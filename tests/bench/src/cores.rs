//! Which processor core is the measured process's own, and which are everybody else's.
//!
//! A process that shares its core with the load generator would be measured waiting for it. The affinity of a thread is
//! inherited by the threads and processes it starts, so pinning needs no privilege and no tool.

use std::io;
use std::process::{Child, Command};

use anyhow::Context as _;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The division of the cores this process may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cores {
    /// The last one; `None` on a machine with one core, where nothing can be divided.
    measured: Option<usize>,
    rest: Vec<usize>,
}

impl Cores {
    /// Divides the cores this process may use.
    pub(crate) fn divide() -> anyhow::Result<Self> {
        let allowed = sched_getaffinity(None).context("the cores of this process are unknown")?;
        let mut rest: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect();
        let measured = if rest.len() > 1 { rest.pop() } else { None };
        Ok(Self { measured, rest })
    }

    /// Keeps this thread, and those it starts from now on, off the measured core; how many cores are left.
    pub(crate) fn take_the_rest(&self) -> io::Result<usize> {
        pin(&self.rest)?;
        Ok(self.rest.len())
    }

    /// Starts a process that has the measured core for itself.
    pub(crate) fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        let Some(core) = self.measured else { return command.spawn() };
        // A thread of its own: the child inherits the affinity of the thread that starts it.
        std::thread::scope(|scope| {
            let starter = scope.spawn(|| pin(&[core]).and_then(|()| command.spawn()));
            starter.join().unwrap_or_else(|_| Err(io::Error::other("the starting thread panicked")))
        })
    }

    /// How many there are.
    pub(crate) const fn count(&self) -> usize {
        self.rest.len() + if self.measured.is_some() { 1 } else { 0 }
    }

    /// For people: who has which core.
    pub(crate) fn describe(&self) -> String {
        match self.measured {
            Some(core) => format!(
                "the measured process alone on core {core}, the load generator on {} other(s)",
                self.rest.len()
            ),
            None => "one core, shared by all: times say little".to_owned(),
        }
    }
}

fn pin(cores: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    cores.iter().for_each(|core| set.set(*core));
    Ok(sched_setaffinity(None, &set)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_started_on_the_measured_core_and_this_thread_stays_where_it_was() {
        let before = Cores::divide().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "grep Cpus_allowed_list /proc/self/status"]).stdout(std::process::Stdio::piped());
        let said = before.spawn(&mut command).unwrap().wait_with_output().unwrap();
        if let Some(core) = before.measured {
            let said = String::from_utf8(said.stdout).unwrap();
            assert_eq!(said.split_whitespace().last(), Some(core.to_string().as_str()));
        }
        assert_eq!(Cores::divide().unwrap(), before);
    }
}
