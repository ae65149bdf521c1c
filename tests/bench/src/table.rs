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
            figures.add_ours(Measure::FirstAudio, warm.report.first_audio.told(|them| them.p99));
            for _ in 0..STARTS {
                figures.add_ours(Measure::Start, Some(start(binaries, cores).await?));
            }
        }
        let media = binaries.media()?;
        let bytes = std::fs::metadata(&media).with_context(|| media.display().to_string())?.len();
        figures.add_ours(Measure::Binary, Some(bytes as f64 / 1e6));
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

/// What is measured of the media pod, in the order of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Measure {
    Processor,
    ToModelMedian,
    ToModelTail,
    ToPhoneMedian,
    ToPhoneTail,
    Clear,
    FirstAudio,
    Memory,
    ProcessorWithTls,
    MemoryWithTls,
    Start,
    Binary,
}

impl Measure {
    const ALL: [Self; 12] = [
        Self::Processor,
        Self::ToModelMedian,
        Self::ToModelTail,
        Self::ToPhoneMedian,
        Self::ToPhoneTail,
        Self::Clear,
        Self::FirstAudio,
        Self::Memory,
        Self::ProcessorWithTls,
        Self::MemoryWithTls,
        Self::Start,
        Self::Binary,
    ];

    /// Nothing measured yet; the limits are promises of this project.
    fn figure(self) -> Figure {
        let ms = |name: &str, limit| Figure::new(name, Unit::Milliseconds, limit);
        match self {
            Self::Processor => ms("processor time of a call's second", Limit::TimesReference(1.2)),
            Self::ToModelMedian => ms("audio, phone to model: p50", Limit::AtMost(0.6)),
            Self::ToModelTail => ms("audio, phone to model: p99", Limit::AtMost(5.0)),
            Self::ToPhoneMedian => ms("audio, model to phone: p50", Limit::AtMost(0.6)),
            Self::ToPhoneTail => ms("audio, model to phone: p99", Limit::AtMost(5.0)),
            Self::Clear => ms("model hears the caller, to clear: p99", Limit::AtMost(2.0)),
            Self::FirstAudio => ms("first audio, warm session: p99", Limit::AtMost(20.0)),
            Self::Memory => Figure::new("memory of a call", Unit::Kibibytes, Limit::AtMost(96.0)),
            Self::ProcessorWithTls => ms("… processor time with TLS to the model", Limit::None),
            Self::MemoryWithTls => {
                Figure::new("… memory with TLS to the model", Unit::Kibibytes, Limit::None)
            }
            Self::Start => ms("start of the process to /readyz", Limit::Below(300.0)),
            Self::Binary => Figure::new("release binary", Unit::Megabytes, Limit::Below(25.0)),
        }
    }
}

/// The media pod's figures: all from the beginning, so that one that is never measured breaks its limit.
struct PodFigures([Figure; Measure::ALL.len()]);

impl PodFigures {
    fn new() -> Self {
        Self(Measure::ALL.map(Measure::figure))
    }

    /// One run under the full load.
    fn add(&mut self, who: Who, measured: &Measured) {
        let Measured { report, process, kib_per_call } = measured;
        let processor = Some(process.milliseconds_per_call_second);
        let memory = Some(*kib_per_call);
        if who == Who::PodWithTls {
            self.add_ours(Measure::ProcessorWithTls, processor);
            return self.add_ours(Measure::MemoryWithTls, memory);
        }
        for (measure, value) in [
            (Measure::Processor, processor),
            (Measure::ToModelMedian, report.to_model.told(|them| them.p50)),
            (Measure::ToModelTail, report.to_model.told(|them| them.p99)),
            (Measure::ToPhoneMedian, report.to_phone.told(|them| them.p50)),
            (Measure::ToPhoneTail, report.to_phone.told(|them| them.p99)),
            (Measure::Clear, report.event_to_clear.told(|them| them.p99)),
            (Measure::Memory, memory),
        ] {
            if who == Who::Relay {
                self.of(measure).reference.extend(value);
            } else {
                self.add_ours(measure, value);
            }
        }
    }

    /// `None` was not measured.
    fn add_ours(&mut self, measure: Measure, value: Option<f64>) {
        self.of(measure).ours.extend(value);
    }

    fn of(&mut self, measure: Measure) -> &mut Figure {
        &mut self.0[measure as usize]
    }

    fn into_section(self) -> Section {
        let title = "media pod on one core, beside a naive relay".to_owned();
        Section { title, figures: self.0.into() }
    }
}

#[cfg(test)]
mod tests {
    use simulator::load::{LoadReport, ProcessReport};

    use super::*;

    #[test]
    fn a_run_that_measured_no_frame_holds_no_limit_of_frames() {
        let (report, process) = (LoadReport::default(), ProcessReport::default());
        let mut figures = PodFigures::new();
        figures.add(Who::Pod, &Measured { report, process, kib_per_call: 50.0 });
        for measure in [
            Measure::ToModelMedian,
            Measure::ToModelTail,
            Measure::ToPhoneMedian,
            Measure::ToPhoneTail,
            Measure::Clear,
        ] {
            assert!(!figures.of(measure).is_ok(), "{measure:?}");
        }
        assert!(figures.of(Measure::Memory).is_ok(), "it was measured");
    }
}
