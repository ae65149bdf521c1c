//! The pod's metrics: one struct, registered once, scraped at the admin door.
//!
//! Labels are enums, never names, ids or error text, so the number of series is fixed when the process starts: every
//! series exists from the first scrape on, at zero. The call machine emits events; only this side counts them. The
//! table in `docs/operations.md` is checked against a scrape by a test.

mod families;
mod labels;

use call_session::io::{EndReason, ModelLoss, RefusalClass, ToolOutcome, Usage};
use prometheus::{Encoder, Histogram, IntCounter, IntGauge, Registry, TextEncoder};

pub use self::families::CountersBy;
use self::families::{bytes, counter, counters, gauge, kept, seconds};
pub use self::labels::*;
use crate::telemetry;

/// Every metric of the pod.
pub struct Metrics {
    /// Calls this pod carries now.
    pub active_calls: IntGauge,
    /// `maxCallsPerPod` of the loaded agent file.
    pub call_capacity: IntGauge,
    /// Calls that still ring, over all pods: slots reserved for them, and those that wait for one.
    pub reserved_slots: IntGauge,
    /// Of those, the calls that wait because every pod is full.
    pub waiting_calls: IntGauge,
    /// 1 from SIGTERM on.
    pub draining: IntGauge,
    /// Media streams that became a leg of a call.
    pub legs_started: CountersBy<LegLabel>,
    /// Legs ended.
    pub calls_ended: CountersBy<EndReason>,
    /// Calls that neither side ended.
    pub calls_lost: CountersBy<CallLoss>,
    /// Legs ended by a panic.
    pub call_panics: IntCounter,
    /// Webhooks refused.
    pub webhooks_refused: CountersBy<WebhookRefusal>,
    /// Calls the agent did not take.
    pub calls_refused: CountersBy<CallRefusal>,
    /// Of those, the calls that went elsewhere instead of hearing a sentence.
    pub calls_overflowed: CountersBy<OverflowLabel>,
    /// Streams refused.
    pub streams_refused: CountersBy<StreamRefusal>,
    /// Silent connections closed to make room for others.
    pub connections_shed: IntCounter,
    /// Media-stream frames we could not use.
    pub phone_faults: CountersBy<PhoneFault>,
    /// The most bytes that ever waited for a phone leg.
    pub phone_queue: Histogram,
    /// The most bytes that ever waited for a connection to a model.
    pub model_queue: Histogram,
    /// Inputs that changed nothing in their call.
    pub inputs_ignored: CountersBy<IgnoredInput>,
    /// The carrier's first webhook to the start of the call's first leg.
    pub call_setup: Histogram,
    /// Start of the leg to its first ready model session.
    pub model_ready: Histogram,
    /// Start of the leg to the first audio sent to the phone, where the agent speaks first.
    pub first_audio: Histogram,
    /// End of the caller's turn to the first audio of the answer.
    pub turn_latency: Histogram,
    /// Holes in the agent's speech.
    pub audio_gaps: Histogram,
    /// Connections that their successors took the place of.
    pub model_replacements: IntCounter,
    /// Clips played because no model was there.
    pub clips_played: IntCounter,
    /// Interruptions by the caller.
    pub barge_ins: IntCounter,
    /// Audio of an older turn dropped.
    pub stale_frames_dropped: IntCounter,
    /// Warm sessions that wait for a call.
    pub warm_idle: IntGauge,
    /// What became of warm sessions.
    pub warm_sessions: CountersBy<WarmLabel>,
    /// Connections to a model attempted.
    pub provider_connects: CountersBy<EngineLabel>,
    /// Connections to a model lost or not opened.
    pub provider_failures: CountersBy<ModelLoss>,
    /// Requests the model refused.
    pub provider_refusals: CountersBy<RefusalClass>,
    /// What a model sent that could not be used.
    pub provider_faults: CountersBy<ProviderFault>,
    /// Tools ended.
    pub tool_outcomes: CountersBy<ToolOutcome>,
    /// How long tools ran.
    pub tool_duration: Histogram,
    /// Tokens used.
    pub tokens: CountersBy<TokenLabel>,
    /// Operations on the store that failed.
    pub store_failures: IntCounter,
    /// Records of calls dropped because the store did not take them.
    pub records_dropped: IntCounter,
    /// Spans of traces that were not delivered.
    pub spans_dropped: IntCounter,
    /// Watched files that could not be used after a change.
    pub file_faults: CountersBy<FileLabel>,
    registry: Registry,
}

impl Metrics {
    /// Creates and registers every metric.
    ///
    /// # Errors
    /// When two metrics have one name, or a name is malformed: a bug found by any test that calls this.
    pub fn register() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let r = &registry;
        kept(
            r,
            "switchboard_log_lines_dropped_total",
            "Lines of the log that standard output did not take.",
            telemetry::dropped_lines,
        )?;
        Ok(Self {
            active_calls: gauge(r, "switchboard_active_calls", "Calls this pod carries now.")?,
            call_capacity: gauge(r, "switchboard_call_capacity", "Calls this pod carries at most.")?,
            reserved_slots: gauge(
                r,
                "switchboard_reserved_slots",
                "Calls of the agent that still ring, over all pods: with a slot reserved, or waiting for one.",
            )?,
            waiting_calls: gauge(
                r,
                "switchboard_waiting_calls",
                "Of those, the calls that wait because every pod of the agent is full.",
            )?,
            draining: gauge(r, "switchboard_draining", "1 from SIGTERM on.")?,
            legs_started: counters(
                r,
                "switchboard_legs_started_total",
                "Media streams that became a leg of a call.",
                "leg",
            )?,
            calls_ended: counters(
                r,
                "switchboard_calls_ended_total",
                "Legs of calls ended, by reason.",
                "reason",
            )?,
            calls_lost: counters(
                r,
                "switchboard_calls_lost_total",
                "Calls that ended although neither side wanted them to.",
                "reason",
            )?,
            call_panics: counter(r, "switchboard_call_panics_total", "Legs ended by a bug of ours.")?,
            webhooks_refused: counters(
                r,
                "switchboard_webhooks_refused_total",
                "Webhooks of the carrier refused.",
                "reason",
            )?,
            calls_refused: counters(
                r,
                "switchboard_calls_refused_total",
                "Callers the agent did not take: they heard a sentence, or went elsewhere.",
                "reason",
            )?,
            calls_overflowed: counters(
                r,
                "switchboard_calls_overflowed_total",
                "Calls without a slot that went elsewhere instead of hearing a sentence.",
                "to",
            )?,
            streams_refused: counters(
                r,
                "switchboard_streams_refused_total",
                "Media streams refused before a model session was attached.",
                "reason",
            )?,
            connections_shed: counter(
                r,
                "switchboard_connections_shed_total",
                "Connections without a request, closed because a door was full and another one came.",
            )?,
            phone_faults: counters(
                r,
                "switchboard_phone_faults_total",
                "Frames of the media stream that could not be used, and phone legs too slow.",
                "fault",
            )?,
            phone_queue: bytes(
                r,
                "switchboard_phone_queue_high_water_bytes",
                "The most that ever waited for one phone leg.",
            )?,
            model_queue: bytes(
                r,
                "switchboard_model_queue_high_water_bytes",
                "The most that ever waited for one connection to a model.",
            )?,
            inputs_ignored: counters(
                r,
                "switchboard_inputs_ignored_total",
                "Inputs that changed nothing in their call.",
                "reason",
            )?,
            call_setup: seconds(
                r,
                "switchboard_call_setup_seconds",
                "The carrier's first webhook to the start of the call's first leg.",
            )?,
            model_ready: seconds(
                r,
                "switchboard_model_ready_seconds",
                "Start of the leg to its first ready model session.",
            )?,
            first_audio: seconds(
                r,
                "switchboard_time_to_first_audio_seconds",
                "Start of the leg to the first audio sent to the phone, where the agent speaks first.",
            )?,
            turn_latency: seconds(
                r,
                "switchboard_turn_latency_seconds",
                "End of the caller's turn to the first audio of the answer.",
            )?,
            audio_gaps: seconds(
                r,
                "switchboard_audio_gap_seconds",
                "Holes in the agent's speech: the model paused for longer than what it had sent ahead lasted.",
            )?,
            model_replacements: counter(
                r,
                "switchboard_model_replacements_total",
                "Connections to a model replaced before their provider ended them.",
            )?,
            clips_played: counter(
                r,
                "switchboard_clips_played_total",
                "Clips played to callers while no model was there.",
            )?,
            barge_ins: counter(r, "switchboard_barge_ins_total", "Interruptions by the caller.")?,
            stale_frames_dropped: counter(
                r,
                "switchboard_stale_frames_dropped_total",
                "Audio frames of an interrupted turn that came late and were dropped.",
            )?,
            warm_idle: gauge(r, "switchboard_warm_sessions", "Warm sessions that wait for a call.")?,
            warm_sessions: counters(
                r,
                "switchboard_warm_sessions_total",
                "What became of warm sessions, and of calls that wanted one.",
                "outcome",
            )?,
            provider_connects: counters(
                r,
                "switchboard_provider_connects_total",
                "Connections to a model attempted.",
                "engine",
            )?,
            provider_failures: counters(
                r,
                "switchboard_provider_failures_total",
                "Connections to a model lost, or not opened.",
                "reason",
            )?,
            provider_refusals: counters(
                r,
                "switchboard_provider_refusals_total",
                "Requests the model refused; the connection lived on.",
                "class",
            )?,
            provider_faults: counters(
                r,
                "switchboard_provider_faults_total",
                "Messages of a model, or commands to it, that could not be used and were skipped.",
                "fault",
            )?,
            tool_outcomes: counters(r, "switchboard_tool_outcomes_total", "Tool calls ended.", "outcome")?,
            tool_duration: seconds(r, "switchboard_tool_duration_seconds", "How long tool calls ran.")?,
            tokens: counters(
                r,
                "switchboard_tokens_total",
                "Tokens used, as the model reports them.",
                "kind",
            )?,
            store_failures: counter(
                r,
                "switchboard_store_failures_total",
                "Operations on the store that failed.",
            )?,
            records_dropped: counter(
                r,
                "switchboard_records_dropped_total",
                "Journal and transcript records dropped because the store did not take them.",
            )?,
            spans_dropped: counter(
                r,
                "switchboard_spans_dropped_total",
                "Spans of traces that the receiver did not take, or that came faster than it took them.",
            )?,
            file_faults: counters(
                r,
                "switchboard_file_faults_total",
                "Changed configuration files that could not be used; the last good one stays.",
                "file",
            )?,
            registry,
        })
    }

    /// The scrape, in Prometheus text format.
    pub fn scrape(&self) -> String {
        let mut text = Vec::new();
        // Encoding into memory fails only for families without metrics; what was written until then is still valid.
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics could not be encoded");
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Adds what a reply cost.
    pub fn add_usage(&self, usage: &Usage) {
        let Usage { text_in, text_cached, audio_in, audio_cached, text_out, audio_out } = *usage;
        self.tokens.add(TokenLabel::TextIn, text_in);
        self.tokens.add(TokenLabel::TextCached, text_cached);
        self.tokens.add(TokenLabel::AudioIn, audio_in);
        self.tokens.add(TokenLabel::AudioCached, audio_cached);
        self.tokens.add(TokenLabel::TextOut, text_out);
        self.tokens.add(TokenLabel::AudioOut, audio_out);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The rows `| `name` | type | labels | meaning |` of the chapter "Metrics of a media pod".
    fn documented() -> BTreeSet<(String, String, String)> {
        let text = include_str!("../../docs/operations.md");
        text.lines()
            .filter_map(|line| {
                let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
                let [name, kind, label, _] = cells.as_slice() else { return None };
                let name = name.strip_prefix('`')?.strip_suffix('`')?;
                let label = label.trim_matches('`');
                Some((name.to_owned(), (*kind).to_owned(), label.to_owned()))
            })
            .filter(|(name, ..)| !name.starts_with("switchboard_operator_"))
            .collect()
    }

    #[test]
    fn the_table_in_the_operations_guide_lists_exactly_what_a_scrape_shows() {
        let metrics = Metrics::register().unwrap();
        let scraped: BTreeSet<_> = metrics
            .registry
            .gather()
            .iter()
            .map(|family| {
                let label = family.get_metric()[0].get_label().first().map_or("", |label| label.name());
                let kind = format!("{:?}", family.get_field_type()).to_lowercase();
                (family.name().to_owned(), kind, label.to_owned())
            })
            .collect();
        assert_eq!(scraped, documented());
    }

    #[test]
    fn every_series_exists_before_anything_happened() {
        let metrics = Metrics::register().unwrap();
        let scrape = metrics.scrape();
        assert!(scrape.contains("switchboard_active_calls 0"));
        for reason in StreamRefusal::ALL {
            let series = format!("switchboard_streams_refused_total{{reason=\"{}\"}} 0", reason.as_str());
            assert!(scrape.contains(&series), "{series}");
        }
    }

    #[test]
    fn usage_adds_up_by_kind() {
        let metrics = Metrics::register().unwrap();
        let usage =
            Usage { text_in: 1, text_cached: 2, audio_in: 3, audio_cached: 4, text_out: 5, audio_out: 6 };
        metrics.add_usage(&usage);
        metrics.add_usage(&usage);
        let counts: Vec<u64> = TokenLabel::ALL.iter().map(|kind| metrics.tokens.count(*kind)).collect();
        assert_eq!(counts, [2, 4, 6, 8, 10, 12]);
    }
}
