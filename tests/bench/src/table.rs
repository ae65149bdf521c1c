//! `switchboard-bench table`: every figure with its limit, medians over rounds in which product and reference alternate.
//!
//! *Flow*: per round a run of the media pod and one of the naive relay under the same load, in alternating order; a run
//! with TLS to the model; a run with warm sessions; some starts. Then the binary's size and, given its output, the
//! session's own bench. *Guarantees*: a run in which a call was lost or a rule broken is an error, never a figure.
//!
//! Another area is added as one more [`Section`].

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use serde_json::json;
use simulator::load::LONG_REPLY;

use crate::Outcome;
use crate::calls::{self, Measured, Plan, Who};
use crate::cores::Cores;
use crate::figure::{Figure, Limit, Section, Unit};
use crate::frames;
use crate::machine::Machine;
use crate::mounts::Agent;
use crate::ports::free_addresses;
use crate::subject::{Binaries, Place, Subject};

/// Starts measured in a round: one takes milliseconds.
const STARTS: usize = 3;
/// Warm sessions, and calls that take them one after the other: slowly enough that each finds one.
const WARM: Plan = Plan {
    calls: 40,
    rate: 10,
    measure: Duration::from_secs(1),
    call_length: None,
    barge_in_every: None,
    reply: LONG_REPLY,
    session_limit: None,
    warm_sessions: 8,
};

#[derive(Args, Debug)]
pub(crate) struct Table {
    /// How often everything is measured; the median counts.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Calls at once.
    #[arg(long, default_value_t = 300)]
    calls: u32,
    /// How long each run is measured after its ramp.
    #[arg(long, default_value_t = 8)]
    seconds: u64,
    /// How often a caller interrupts.
    #[arg(long, default_value_t = 10)]
    barge_in_seconds: u64,
    /// What `cargo bench -p call-session --bench frames` printed, to be part of the table.
    #[arg(long)]
    frames: Option<PathBuf>,
    /// Write the figures here as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

impl Table {
    /// Measures, prints, and holds the figures against their limits.
    pub(crate) async fn run(self, cores: &Cores) -> anyhow::Result<Outcome> {
        let machine = Machine::of_this(cores.count());
        println!("{machine}\n{}", cores.describe());
        println!(
            "{} rounds; {} calls, each interrupts every {} s; measured for {} s\n",
            self.rounds, self.calls, self.barge_in_seconds, self.seconds
        );
        let binaries = Binaries::beside_this_one()?;
        let mut sections = vec![self.measure_pod(&binaries, cores).await?];
        if let Some(path) = &self.frames {
            sections.push(frames::read(path)?);
        }
        sections.iter().for_each(|section| println!("{section}"));
        if let Some(path) = &self.json {
            let figures: Vec<_> =
                sections.iter().flat_map(|section| &section.figures).map(Figure::to_json).collect();
            let document = json!({
                "machine": machine, "rounds": self.rounds, "calls": self.calls, "seconds": self.seconds,
                "figures": figures,
            });
            std::fs::write(path, serde_json::to_string_pretty(&document)?)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        let broken = sections.iter().flat_map(|section| &section.figures).filter(|figure| !figure.is_ok());
        match broken.count() {
            0 => Ok(Outcome::Good),
            broken => {
                println!("{broken} limit(s) broken");
                Ok(Outcome::Bad)
            }
        }
    }

    async fn measure_pod(&self, binaries: &Binaries, cores: &Cores) -> anyhow::Result<Section> {
        let plan = Plan {
            calls: self.calls,
            rate: 100,
            measure: Duration::from_secs(self.seconds),
            call_length: None,
            barge_in_every: Some(Duration::from_secs(self.barge_in_seconds)),
            reply: LONG_REPLY,
            session_limit: None,
            warm_sessions: 0,
        };
        let mut figures = PodFigures::new();
        for round in 1..=self.rounds {
            eprintln!("round {round} of {}", self.rounds);
            // Who goes first alternates: a machine that slows down disturbs both alike.
            let order = if round % 2 == 1 { [Who::Pod, Who::Relay] } else { [Who::Relay, Who::Pod] };
            for who in order.into_iter().chain([Who::PodWithTls]) {
                figures.add(who, &calls::measure(binaries, cores, who, plan).await?);
            }
            let warm = calls::measure(binaries, cores, Who::Pod, WARM).await?;
            figures.first_audio.ours.push(warm.report.first_audio.p99);
            for _ in 0..STARTS {
                figures.start.ours.push(start(binaries, cores).await?);
            }
        }
        let media = binaries.media()?;
        let bytes = std::fs::metadata(&media).with_context(|| media.display().to_string())?.len();
        figures.binary.ours.push(bytes as f64 / 1e6);
        Ok(figures.into_section())
    }
}

/// Milliseconds from the start of a pod's process to its first `/readyz`.
async fn start(binaries: &Binaries, cores: &Cores) -> anyhow::Result<f64> {
    // Nothing answers there: a pod is ready without its model.
    let [model] = free_addresses()?;
    let agent = Agent { model, authority_pem: None, warm_sessions: 0, redis_url: None };
    let subject = Subject::start(binaries, cores, Place::for_pod()?, &agent).await?;
    let started_after = subject.started_after;
    subject.stop().await?;
    Ok(1000.0 * started_after.as_secs_f64())
}

/// The media pod's figures; the limits are promises of this project.
struct PodFigures {
    processor: Figure,
    to_model_median: Figure,
    to_model_tail: Figure,
    to_phone_median: Figure,
    to_phone_tail: Figure,
    clear: Figure,
    first_audio: Figure,
    memory: Figure,
    processor_tls: Figure,
    memory_tls: Figure,
    start: Figure,
    binary: Figure,
}

impl PodFigures {
    fn new() -> Self {
        let ms = |name: &str, limit| Figure::new(name, Unit::Milliseconds, limit);
        Self {
            processor: ms("processor time of a call's second", Limit::TimesReference(1.2)),
            to_model_median: ms("audio, phone to model: p50", Limit::AtMost(0.6)),
            to_model_tail: ms("audio, phone to model: p99", Limit::AtMost(5.0)),
            to_phone_median: ms("audio, model to phone: p50", Limit::AtMost(0.6)),
            to_phone_tail: ms("audio, model to phone: p99", Limit::AtMost(5.0)),
            clear: ms("model hears the caller, to clear: p99", Limit::AtMost(2.0)),
            first_audio: ms("first audio, warm session: p99", Limit::AtMost(20.0)),
            memory: Figure::new("memory of a call", Unit::Kibibytes, Limit::AtMost(96.0)),
            processor_tls: ms("… processor time with TLS to the model", Limit::None),
            memory_tls: Figure::new("… memory with TLS to the model", Unit::Kibibytes, Limit::None),
            start: ms("start of the process to /readyz", Limit::Below(300.0)),
            binary: Figure::new("release binary", Unit::Megabytes, Limit::Below(25.0)),
        }
    }

    /// One run under the full load.
    fn add(&mut self, who: Who, measured: &Measured) {
        let Measured { report, process, kib_per_call } = measured;
        let side = |figure: &mut Figure, value: f64| match who {
            Who::Pod => figure.ours.push(value),
            Who::Relay => figure.reference.push(value),
            Who::PodWithTls => {}
        };
        side(&mut self.processor, process.milliseconds_per_call_second);
        side(&mut self.to_model_median, report.to_model.p50);
        side(&mut self.to_model_tail, report.to_model.p99);
        side(&mut self.to_phone_median, report.to_phone.p50);
        side(&mut self.to_phone_tail, report.to_phone.p99);
        side(&mut self.clear, report.event_to_clear.p99);
        side(&mut self.memory, *kib_per_call);
        if who == Who::PodWithTls {
            self.processor_tls.ours.push(process.milliseconds_per_call_second);
            self.memory_tls.ours.push(*kib_per_call);
        }
    }

    fn into_section(self) -> Section {
        let Self {
            processor,
            to_model_median,
            to_model_tail,
            to_phone_median,
            to_phone_tail,
            clear,
            first_audio,
            memory,
            processor_tls,
            memory_tls,
            start,
            binary,
        } = self;
        let figures = vec![
            processor,
            to_model_median,
            to_model_tail,
            to_phone_median,
            to_phone_tail,
            clear,
            first_audio,
            memory,
            processor_tls,
            memory_tls,
            start,
            binary,
        ];
        Section { title: "media pod on one core, beside a naive relay".to_owned(), figures }
    }
}
