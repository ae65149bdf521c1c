//! `switchboard-bench soak`: many calls for a long time, with interruptions, and what becomes of the pod's memory.
//!
//! Calls end and others take their lines, so that what an ended call leaves behind shows as well as what a running one
//! gathers. The model's sessions end, too, several in each call: the pod must have replaced each before, in a pause. The
//! state of calls is in Redis, as in a cluster, or in the process, where the newest ended calls are kept.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::{Args, ValueEnum};
use serde_json::json;
use simulator::load::{Load, LoadReport, Usage, slope_kib_per_minute};
use tokio::net::TcpListener;
use tokio::time::{Instant, interval};

use crate::Outcome;
use crate::calls::{Plan, load_plan};
use crate::cores::Cores;
use crate::machine::Machine;
use crate::mounts::Agent;
use crate::redis::Redis;
use crate::subject::{Binaries, Place, Subject};

/// How often the memory is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// Sessions of running calls whose place another took before they ended.
const REPLACEMENTS: &str = "switchboard_model_replacements_total";
/// Looks between two lines of the log: a minute.
const LOOKS_PER_LINE: usize = 12;

#[derive(Args, Debug)]
pub(crate) struct Soak {
    /// How long.
    #[arg(long, default_value_t = 1800)]
    seconds: u64,
    /// Calls at once.
    #[arg(long, default_value_t = 100)]
    calls: u32,
    /// How often a caller interrupts.
    #[arg(long, default_value_t = 10)]
    barge_in_seconds: u64,
    /// How long a call lasts before the next one takes its line; 0: to the end.
    #[arg(long, default_value_t = 180)]
    call_seconds: u64,
    /// What the model says lasts so long: less than a caller takes until the next interruption, so that there are pauses.
    #[arg(long, default_value_t = 5)]
    reply_seconds: u64,
    /// How long a session of the model lives, as it announces; 0: as long as its call.
    #[arg(long, default_value_t = 60)]
    session_seconds: u64,
    /// What the memory does before is not growth: buffers find their size, and the first calls end.
    #[arg(long, default_value_t = 300)]
    warm_up_seconds: u64,
    /// The memory may grow by so many KiB a minute, by a straight line through all looks after the warm-up.
    #[arg(long, default_value_t = 32.0)]
    most_kib_per_minute: f64,
    /// A run with fewer than two looks after its warm-up is judged by its calls only, and not bad for saying nothing of the
    /// memory.
    #[arg(long)]
    allow_short: bool,
    /// Where the pod keeps the state of its calls.
    #[arg(long, value_enum, default_value = "redis")]
    store: StoreKind,
    /// Write what was found here as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum StoreKind {
    /// In a Redis of its own, as in a cluster.
    Redis,
    /// In the process, as on a laptop.
    Memory,
}

/// The pod's memory over time.
#[derive(Debug, Default)]
struct Looks(Vec<(Duration, u64)>);

impl Soak {
    pub(crate) async fn run(self, cores: &Cores) -> anyhow::Result<Outcome> {
        let machine = Machine::of_this(cores.count());
        println!("{machine}\n{}", cores.describe());
        let binaries = Binaries::beside_this_one()?;
        let redis = match self.store {
            StoreKind::Redis => Some(Redis::start().await?),
            StoreKind::Memory => None,
        };
        let model = TcpListener::bind("127.0.0.1:0").await.context("no free port")?;
        let place = Place::for_pod()?;
        let agent = Agent {
            model: model.local_addr()?,
            authority_pem: None,
            warm_sessions: 0,
            redis_url: redis.as_ref().map(Redis::url),
        };
        let plan = Plan {
            calls: self.calls,
            rate: 25,
            measure: Duration::from_secs(self.seconds),
            call_length: (self.call_seconds > 0).then(|| Duration::from_secs(self.call_seconds)),
            barge_in_every: Some(Duration::from_secs(self.barge_in_seconds)),
            reply: Duration::from_secs(self.reply_seconds),
            session_limit: (self.session_seconds > 0).then(|| Duration::from_secs(self.session_seconds)),
            warm_sessions: 0,
        };
        let mut load = Load::begin(load_plan(place, plan, None)?, model)?;
        let subject = Subject::start(&binaries, cores, place, &agent).await?;
        let idle_kib = subject.idle_kib().await?;
        load.watch_process(subject.pid());
        let (report, looks) = watched(load, subject.pid()).await?;
        let replaced = subject.metric(REPLACEMENTS).await?;
        subject.stop().await.context("the pod did not last")?;
        self.judge(&machine, &report, &looks, idle_kib, replaced)
    }

    fn judge(
        &self,
        machine: &Machine,
        report: &LoadReport,
        looks: &Looks,
        idle_kib: u64,
        replaced: f64,
    ) -> anyhow::Result<Outcome> {
        let warm =
            looks.between(Duration::from_secs(self.warm_up_seconds), Duration::from_secs(self.seconds));
        let slope = slope(warm);
        println!("{report}");
        println!("{replaced} sessions of running calls were replaced before their end");
        match (warm, slope) {
            ([(_, first), .., (_, last)], Some(slope)) => println!(
                "memory: {idle_kib} KiB idle; after {} s of warm-up {first} KiB, at the end {last} KiB; \
                 {slope:+.1} KiB a minute over {} looks (limit {:+.1})",
                self.warm_up_seconds,
                warm.len(),
                self.most_kib_per_minute
            ),
            _ => println!("memory: {idle_kib} KiB idle; the run ended before two looks after its warm-up"),
        }
        if let Some(path) = &self.json {
            let looks: Vec<_> = looks.0.iter().map(|(at, kib)| (at.as_secs(), kib)).collect();
            let document = json!({
                "machine": machine, "report": report, "idleKib": idle_kib, "replaced": replaced, "kibPerMinute": slope,
                "mostKibPerMinute": self.most_kib_per_minute, "memory": looks,
            });
            std::fs::write(path, serde_json::to_string_pretty(&document)?)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        let is_level = self.is_level(slope);
        // A soak whose calls are shorter than their sessions says nothing of successors, and does not claim to.
        let is_covered = replaced > 0.0 || self.session_seconds == 0;
        Ok(if report.is_good() && is_level && is_covered { Outcome::Good } else { Outcome::Bad })
    }
}

impl Soak {
    /// Whether the memory stayed level; where that was not measured, whether it need not be.
    fn is_level(&self, slope: Option<f64>) -> bool {
        slope.map_or(self.allow_short, |slope| slope <= self.most_kib_per_minute)
    }
}

/// KiB a minute; one look is no line.
fn slope(looks: &[(Duration, u64)]) -> Option<f64> {
    (looks.len() >= 2).then(|| slope_kib_per_minute(looks))
}

/// Runs the load, and looks at the memory of `pid` meanwhile.
async fn watched(load: Load, pid: u32) -> anyhow::Result<(LoadReport, Looks)> {
    let running = tokio::spawn(load.run());
    let mut running = std::pin::pin!(running);
    let (begun, mut looks, mut clock) = (Instant::now(), Looks::default(), interval(LOOK));
    loop {
        tokio::select! {
            report = running.as_mut() => return Ok((report.context("the load generator panicked")?, looks)),
            _ = clock.tick() => {
                let usage = Usage::of(pid);
                ensure!(usage.is_some(), "the pod ended after {:?}", begun.elapsed());
                looks.0.extend(usage.map(|usage| (begun.elapsed(), usage.resident_kib)));
                looks.tell();
            }
        }
    }
}

impl Looks {
    /// Those after the warm-up and before the hang-ups.
    fn between(&self, warm_up: Duration, hang_ups: Duration) -> &[(Duration, u64)] {
        let first = |limit| self.0.partition_point(|(at, _)| *at < limit);
        self.0.get(first(warm_up)..first(hang_ups)).unwrap_or_default()
    }

    /// A line a minute, for whoever waits.
    fn tell(&self) {
        if let Some((at, kib)) = self.0.last()
            && self.0.len() % LOOKS_PER_LINE == 1
        {
            eprintln!("{:>6.1} min {kib:>9} KiB", at.as_secs_f64() / 60.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        soak: Soak,
    }

    fn soak(arguments: &[&str]) -> Soak {
        Line::parse_from(["soak"].iter().chain(arguments)).soak
    }

    #[test]
    fn memory_that_was_not_measured_is_not_level_unless_a_run_may_be_short() {
        let at = |seconds, kib| (Duration::from_secs(seconds), kib);
        assert_eq!((slope(&[]), slope(&[at(60, 1000)])), (None, None));
        let grown = slope(&[at(60, 1000), at(120, 1100)]);
        assert!(grown.is_some_and(|slope| (slope - 100.0).abs() < 0.01), "{grown:?}");
        let (strict, lenient) = (soak(&[]), soak(&["--allow-short"]));
        assert!(!strict.is_level(None) && strict.is_level(Some(10.0)));
        assert!(lenient.is_level(None) && !lenient.is_level(grown), "what was measured is judged");
    }
}
