//! What a caller hears: how soon, how well, and what stands in the way.

use super::{ChosenBy, Dashboard, Panel, Row, per_second, per_second_by};

const LATENCY: &str = "switchboard_turn_latency_seconds";
const FIRST_AUDIO: &str = "switchboard_time_to_first_audio_seconds";

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        name: "conversation",
        title: "Switchboard: conversation",
        description: "How soon callers are answered, how the agent sounds, and how models and tools do.",
        chosen_by: ChosenBy::Agent,
        rows: vec![now(), answers(), voice(), model(), tools()],
    }
}

fn quantile(histogram: &str, quantile: &str) -> String {
    format!("histogram_quantile({quantile}, sum by (le) (rate({histogram}_bucket{{pods}}[5m])))")
}

fn now() -> Row {
    let panels = vec![
        Panel::stat("Answer, half of them", "s", "Half of the answers begin sooner after the caller stopped (5 min).")
            .warns(1.2, 2.0)
            .query("", &quantile(LATENCY, "0.5")),
        Panel::stat("Answer, 95 %", "s", "One answer in twenty begins later than this (5 min).")
            .warns(2.0, 3.0)
            .query("", &quantile(LATENCY, "0.95")),
        Panel::stat("First word, 95 %", "s", "One caller in twenty waits longer for the first word (5 min).")
            .warns(2.0, 4.0)
            .query("", &quantile(FIRST_AUDIO, "0.95")),
        Panel::stat("Barge-ins per call", "short", "How often callers talk over the agent: too long answers (5 min).")
            .warns(2.0, 4.0)
            .query("", "sum(rate(switchboard_barge_ins_total{pods}[5m])) / sum(rate(switchboard_calls_ended_total{pods}[5m]))"),
        Panel::stat("Holes per answer", "percentunit", "Holes in the agent's speech over its answers (5 min).")
            .warns(0.05, 0.1)
            .query("", "sum(rate(switchboard_audio_gap_seconds_count{pods}[5m])) / sum(rate(switchboard_turn_latency_seconds_count{pods}[5m]))"),
        Panel::stat("Tools failing", "percentunit", "Tool calls that end without a value (5 min).")
            .warns(0.05, 0.25)
            .query("", r#"sum(rate(switchboard_tool_outcomes_total{pods,outcome!="value"}[5m])) / sum(rate(switchboard_tool_outcomes_total{pods}[5m]))"#),
    ];
    Row { title: "Now", height: 4, panels }
}

fn answers() -> Row {
    let panels = vec![
        Panel::heatmap(
            "Turn latency",
            LATENCY,
            "{pods}",
            "From the end of the caller's words to the first audio of the answer. Below 0.8 s feels prompt, above 3 s broken.",
        ),
        Panel::lines(
            "Turn latency, quantiles",
            "s",
            "Half, 95 % and 99 % of the answers begin sooner than this.",
        )
        .quantiles(LATENCY, "{pods}"),
        Panel::heatmap(
            "First word",
            FIRST_AUDIO,
            "{pods}",
            "From the start of the call's stream to the agent's first audio.",
        ),
        Panel::lines(
            "Model ready",
            "s",
            "From the start of the stream to a model that listens; warm sessions make it short.",
        )
        .quantiles("switchboard_model_ready_seconds", "{pods}"),
    ];
    Row { title: "Answers", height: 9, panels }
}

fn voice() -> Row {
    let panels = vec![
        Panel::heatmap(
            "Holes in the agent's speech",
            "switchboard_audio_gap_seconds",
            "{pods}",
            "The model paused in mid-sentence for longer than what it had sent ahead lasted. Below 0.2 s hardly heard.",
        ),
        Panel::lines("Barge-ins and clips", "ops", "Interruptions by callers, and clips played because no model was there, each second.")
            .query("barge-ins", &per_second("switchboard_barge_ins_total"))
            .query("clips", &per_second("switchboard_clips_played_total")),
        Panel::stack("Phone faults", "ops", "Frames of media streams that could not be used, and phone legs that took nothing, each second.")
            .query("{{fault}}", &per_second_by("fault", "switchboard_phone_faults_total")),
        Panel::lines("Audio dropped and inputs ignored", "ops", "Late audio of interrupted turns, which never reaches a caller, and inputs that changed nothing, each second.")
            .query("late frames", &per_second("switchboard_stale_frames_dropped_total"))
            .query("ignored: {{reason}}", &per_second_by("reason", "switchboard_inputs_ignored_total")),
    ];
    Row { title: "Voice", height: 8, panels }
}

fn model() -> Row {
    let panels = vec![
        Panel::lines("Connections to models", "ops", "Connections attempted each second, by engine.")
            .query("{{engine}}", &per_second_by("engine", "switchboard_provider_connects_total")),
        Panel::stack("Connections lost", "ops", "Connections lost or not opened each second, by reason. Expired ones were used to their end.")
            .query("{{reason}}", &per_second_by("reason", "switchboard_provider_failures_total")),
        Panel::stack("Requests refused", "ops", "What models refused or sent that could not be used, each second. Benign ones are races that do no harm.")
            .query("refused: {{class}}", &per_second_by("class", "switchboard_provider_refusals_total"))
            .query("fault: {{fault}}", &per_second_by("fault", "switchboard_provider_faults_total")),
        Panel::lines("Warm sessions", "short", "Sessions that wait for a call, and what became of others each second. Cold: a call found none.")
            .query("waiting", "sum(switchboard_warm_sessions{pods})")
            .query("{{outcome}}", &per_second_by("outcome", "switchboard_warm_sessions_total")),
    ];
    Row { title: "Models", height: 8, panels }
}

fn tools() -> Row {
    let panels = vec![
        Panel::stack("Tool calls", "ops", "Tool calls ended each second, by outcome.")
            .query("{{outcome}}", &per_second_by("outcome", "switchboard_tool_outcomes_total")),
        Panel::lines("Tool duration", "s", "How long tool calls run; a filler is said when one is slow.")
            .quantiles("switchboard_tool_duration_seconds", "{pods}"),
        Panel::stack("Tokens", "ops", "Tokens each second as the models report them, by kind: what a call costs.")
            .query("{{kind}}", &per_second_by("kind", "switchboard_tokens_total")),
        Panel::lines("Queues", "bytes", "The most that ever waited for one phone leg or model (95 %). Growth means a peer that does not read.")
            .query("phone", "histogram_quantile(0.95, sum by (le) (rate(switchboard_phone_queue_high_water_bytes_bucket{pods}[$__rate_interval])))")
            .query("model", "histogram_quantile(0.95, sum by (le) (rate(switchboard_model_queue_high_water_bytes_bucket{pods}[$__rate_interval])))"),
    ];
    Row { title: "Tools, tokens, queues", height: 8, panels }
}
