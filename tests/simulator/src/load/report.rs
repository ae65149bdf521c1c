//! What a load run found, as a table for people and as JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::arrived::ArrivedFrames;
use super::board::Figures;
use super::histogram::Percentiles;
use crate::violations::{Violation, Violations};

/// The result of a run. Times are milliseconds.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadReport {
    /// Calls at once.
    pub calls: u32,
    /// How long was measured.
    pub seconds: f64,
    /// Calls begun.
    pub placed: u64,
    /// Calls whose caller hung up as planned.
    pub completed: u64,
    /// The others, by reason.
    pub lost: BTreeMap<&'static str, u64>,
    /// Calls of the lines that were still not over at the end.
    pub unfinished: u64,
    /// Rules the product broke.
    pub violations: u64,
    /// The first of them.
    pub first_violations: Vec<Violation>,
    /// Times a caller talked over the agent.
    pub barge_ins: u64,
    /// … and the agent talked on.
    pub ignored_barge_ins: u64,
    /// Audio frames that reached the model.
    pub frames_to_model: u64,
    /// Audio frames that reached the phone.
    pub frames_to_phone: u64,
    /// Frames of callers that reached no session of the model, and frames of the agent that are missing at the phone and were
    /// not cut by a clear.
    pub frames_missing: u64,
    /// Frames that were not what was sent to their last byte, another call's, or out of order.
    pub frames_altered: u64,
    /// Frames to the phone that no model said: the product's own, to keep a caller company while no model is there.
    pub frames_own: u64,
    /// Sessions of the lean model.
    pub sessions: u64,
    /// Those that were still in use when their announced time was over.
    pub sessions_expired: u64,
    /// From the webhook to the stream's `start`.
    pub setup: Percentiles,
    /// From `start` to the first audio, less the model's own time.
    pub first_audio: Percentiles,
    /// From the model's `speech_started` to the `clear` at the phone.
    pub event_to_clear: Percentiles,
    /// From the caller's first sound over the agent to the `clear`.
    pub speech_to_clear: Percentiles,
    /// Caller's audio on its way through the product.
    pub to_model: Percentiles,
    /// The agent's.
    pub to_phone: Percentiles,
    /// The product's process.
    pub process: Option<ProcessReport>,
}

/// What the process under load used while it was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessReport {
    /// Share of one core.
    pub core_percent: f64,
    /// Processor time of a second of one call.
    pub milliseconds_per_call_second: f64,
    /// Median resident memory.
    pub resident_kib: u64,
    /// Growth by a straight line through all looks.
    pub slope_kib_per_minute: f64,
    /// The load generator's own share of one core.
    pub generator_core_percent: f64,
}

impl ProcessReport {
    pub(super) fn new(
        processor: Duration,
        own: Duration,
        measured: Duration,
        call_time: Duration,
        memory: &[(Duration, u64)],
    ) -> Self {
        let mut sizes: Vec<u64> = memory.iter().map(|(_, kib)| *kib).collect();
        sizes.sort_unstable();
        let share = |part: Duration| 100.0 * part.as_secs_f64() / measured.as_secs_f64().max(1e-9);
        Self {
            core_percent: share(processor),
            milliseconds_per_call_second: 1000.0 * processor.as_secs_f64()
                / call_time.as_secs_f64().max(1e-9),
            resident_kib: sizes.get(sizes.len() / 2).copied().unwrap_or_default(),
            slope_kib_per_minute: slope_kib_per_minute(memory),
            generator_core_percent: share(own),
        }
    }
}

/// Growth of memory by a straight line through all looks (least squares): time of each, and KiB.
pub fn slope_kib_per_minute(points: &[(Duration, u64)]) -> f64 {
    let count = points.len() as f64;
    let minutes = |at: &Duration| at.as_secs_f64() / 60.0;
    let mean_at = points.iter().map(|(at, _)| minutes(at)).sum::<f64>() / count;
    let mean_kib = points.iter().map(|(_, kib)| *kib as f64).sum::<f64>() / count;
    let (mut along, mut spread) = (0.0, 0.0);
    for (at, kib) in points {
        along += (minutes(at) - mean_at) * (*kib as f64 - mean_kib);
        spread += (minutes(at) - mean_at).powi(2);
    }
    if spread > 0.0 { along / spread } else { 0.0 }
}

impl LoadReport {
    pub(super) fn new(
        calls: u32,
        measured: Duration,
        figures: &Figures,
        violations: &Violations,
        process: Option<ProcessReport>,
    ) -> Self {
        let Figures {
            setup,
            first_audio,
            event_to_clear,
            speech_to_clear,
            to_model,
            to_phone,
            placed,
            completed,
            active: _,
            lost,
            barge_ins,
            ignored_barge_ins,
            frames_to_model,
            frames_to_phone,
            frames_missing,
            arrived,
            frames_altered,
            frames_own,
            sessions,
            sessions_expired,
        } = figures;
        let over = completed + lost.values().sum::<u64>();
        Self {
            calls,
            seconds: measured.as_secs_f64(),
            placed: *placed,
            completed: *completed,
            lost: lost.iter().map(|(loss, count)| (loss.name(), *count)).collect(),
            unfinished: placed.saturating_sub(over),
            violations: violations.count(),
            first_violations: violations.list().into_iter().take(10).collect(),
            barge_ins: *barge_ins,
            ignored_barge_ins: *ignored_barge_ins,
            frames_to_model: *frames_to_model,
            frames_to_phone: *frames_to_phone,
            frames_missing: frames_missing + arrived.iter().map(ArrivedFrames::missing).sum::<u64>(),
            frames_altered: *frames_altered,
            frames_own: *frames_own,
            sessions: *sessions,
            sessions_expired: *sessions_expired,
            setup: setup.percentiles(),
            first_audio: first_audio.percentiles(),
            event_to_clear: event_to_clear.percentiles(),
            speech_to_clear: speech_to_clear.percentiles(),
            to_model: to_model.percentiles(),
            to_phone: to_phone.percentiles(),
            process,
        }
    }

    /// Calls that did not go as planned.
    pub fn lost_calls(&self) -> u64 {
        self.lost.values().sum::<u64>() + self.unfinished
    }

    /// No rule broken, no call lost, no frame missing or altered, no interruption ignored, no session used to its end.
    pub fn is_good(&self) -> bool {
        self.violations == 0
            && self.lost_calls() == 0
            && self.frames_missing == 0
            && self.frames_altered == 0
            && self.ignored_barge_ins == 0
            && self.sessions_expired == 0
    }
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} calls at once for {:.0} s: {} placed, {} completed, {} lost, {} violations",
            self.calls,
            self.seconds,
            self.placed,
            self.completed,
            self.lost_calls(),
            self.violations
        )?;
        for (reason, count) in &self.lost {
            writeln!(f, "  lost, {reason}: {count}")?;
        }
        for violation in &self.first_violations {
            writeln!(f, "  {violation}")?;
        }
        writeln!(
            f,
            "{} frames to the model ({} missing), {} to the phone ({} altered, {} the product's own), {} interruptions ({} ignored)",
            self.frames_to_model,
            self.frames_missing,
            self.frames_to_phone,
            self.frames_altered,
            self.frames_own,
            self.barge_ins,
            self.ignored_barge_ins
        )?;
        if self.sessions > 0 {
            writeln!(
                f,
                "{} sessions of the model ({} expired in use)",
                self.sessions, self.sessions_expired
            )?;
        }
        writeln!(
            f,
            "\n{:<42}{:>9}{:>10}{:>10}{:>10}{:>10}",
            "milliseconds", "count", "p50", "p90", "p99", "max"
        )?;
        for (name, row) in [
            ("setup: webhook to start", &self.setup),
            ("first audio after start", &self.first_audio),
            ("model hears speech, to clear at the phone", &self.event_to_clear),
            ("caller speaks, to clear at the phone", &self.speech_to_clear),
            ("audio, phone to model", &self.to_model),
            ("audio, model to phone", &self.to_phone),
        ] {
            if row.count > 0 {
                let Percentiles { count, p50, p90, p99, max } = row;
                writeln!(f, "{name:<42}{count:>9}{p50:>10.3}{p90:>10.3}{p99:>10.3}{max:>10.3}")?;
            }
        }
        let Some(process) = &self.process else { return Ok(()) };
        writeln!(
            f,
            "\n{:.1} % of a core ({:.3} ms a second of a call), {} KiB resident, {:+.1} KiB a minute; load generator {:.1} %",
            process.core_percent,
            process.milliseconds_per_call_second,
            process.resident_kib,
            process.slope_kib_per_minute,
            process.generator_core_percent
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slope_is_that_of_a_straight_line() {
        let points: Vec<_> = (0..10).map(|at| (Duration::from_secs(at * 30), 1000 + at * 50)).collect();
        assert!((slope_kib_per_minute(&points) - 100.0).abs() < 1e-6);
        assert!(slope_kib_per_minute(&points[..1]).abs() < 1e-6);
    }

    #[test]
    fn one_lost_call_or_expired_session_makes_a_run_bad() {
        let violations = Violations::default();
        let mut figures = Figures { placed: 2, completed: 2, ..Figures::default() };
        let report =
            |figures: &Figures| LoadReport::new(2, Duration::from_secs(1), figures, &violations, None);
        assert!(report(&figures).is_good());
        figures.sessions_expired = 1;
        assert!(!report(&figures).is_good());
        figures.sessions_expired = 0;
        figures.completed = 1;
        assert_eq!((report(&figures).unfinished, report(&figures).is_good()), (1, false));
    }
}
