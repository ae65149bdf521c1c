//! A log that nobody reads: standard output of a container is a pipe, and a node whose disk stalls stops emptying it.
//! Calls go on; lines that find no room are dropped and counted.

use std::process::Command;

use anyhow::{Context as _, Result};
use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::timeout;

use crate::hostile::Peer;
use crate::pod::Pod;
use crate::quiet::QuietCall;
use crate::sockets::talk;
use crate::stage::{PATIENCE, Stage};
use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("log: calls go on while nobody reads it", stalled)]
}

const DROPPED: &str = "switchboard_log_lines_dropped_total";
const UNSIGNED: &str = "switchboard_streams_refused_total{reason=\"signature\"}";

async fn stalled() -> Result<()> {
    let stage = Stage::open("stalled log").await?;
    let pod = stage.pod_with("pod", &stage.agent(), into_a_pipe).await?;
    let reader = reader(&pod).await?;
    let quiet = QuietCall::begin(&stage, &pod).await?;
    let before = pod.scrape().await?;

    let stopped = Stopped::stop(reader)?;
    let full = async {
        while pod.scrape().await?.since(&before, DROPPED) < 1.0 {
            for _ in 0..200 {
                Peer::unsigned(&pod).await?; // a line each
            }
        }
        anyhow::Ok(())
    };
    timeout(PATIENCE * 2, full).await.context("no line was dropped")??;
    talk(&stage).await?;
    drop(stopped);

    talk(&stage).await?;
    // Of the call above, or of one before: both say that lines are written again.
    pod.said("the log to go on", |line| line.contains("the leg is over")).await?;
    pod.scrape().await?.ensure_faults(&before, &[DROPPED, UNSIGNED])?;
    quiet.ensure_undisturbed().await?;
    stage.ensure_no_violation().await
}

/// The same program with a process between it and its log; the first line names that process.
fn into_a_pipe(command: &mut Command) {
    let mut piped = Command::new("bash");
    piped.args(["-c", r#"exec > >(exec cat); echo "reader $!"; exec "$0""#]).arg(command.get_program());
    piped.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    piped.env("SWITCHBOARD_LOG", "debug");
    *command = piped;
}

async fn reader(pod: &Pod) -> Result<Pid> {
    let line = pod.said("the log's reader", |line| line.starts_with("reader ")).await?;
    let number = line.trim_start_matches("reader ").parse()?;
    Pid::from_raw(number).with_context(|| line)
}

/// A process that does nothing as long as this lives.
struct Stopped(Pid);

impl Stopped {
    fn stop(process: Pid) -> Result<Self> {
        kill_process(process, Signal::STOP)?;
        Ok(Self(process))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::CONT); // fails only for one that is gone
    }
}
