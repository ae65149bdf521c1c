//! How many calls there are, where they are, and whether there is room for more.

use super::{ChosenBy, Dashboard, Panel, Row, per_second, per_second_by};

const SERVING: &str = "switchboard_draining{pods} == 0";
const CALLS: &str = "sum(switchboard_active_calls{pods})";
/// Every pod tells the same number of them.
const RINGING: &str = "sum(max by (namespace, agent) (switchboard_reserved_slots{pods}))";
const WAITING: &str = "sum(max by (namespace, agent) (switchboard_waiting_calls{pods}))";
/// A pod that leaves is no room.
const CAPACITY: &str = "sum(switchboard_call_capacity{pods} * on (namespace, pod) group_left () (switchboard_draining{pods} == bool 0))";

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        name: "call-load",
        title: "Switchboard: call load",
        description: "Calls, room for more, and the pods that carry them; who is turned away and why.",
        chosen_by: ChosenBy::Agent,
        rows: vec![now(), load(), arrivals(), ends()],
    }
}

fn now() -> Row {
    let panels = vec![
        Panel::stat("Calls", "short", "Calls on all pods now.").query("", CALLS),
        Panel::stat(
            "Ringing",
            "short",
            "Calls on their way: the carrier was answered, their stream has not begun.",
        )
        .query("", RINGING),
        Panel::stat("Waiting", "short", "Of those, callers who wait for a slot because every pod is full.")
            .warns(1.0, 10.0)
            .query("", WAITING),
        Panel::stat(
            "Room used",
            "percentunit",
            "Calls over what all pods may carry. Full means refused callers.",
        )
        .warns(0.75, 0.9)
        .query("", &format!("{CALLS} / {CAPACITY}")),
        Panel::stat("Pods", "short", "Pods that take calls.").query("", &format!("count({SERVING})")),
        Panel::stat(
            "Refused in 1 h",
            "short",
            "Callers the agent did not take: most heard a sentence instead.",
        )
        .warns(1.0, 10.0)
        .query("", "sum(increase(switchboard_calls_refused_total{pods}[1h]))"),
        Panel::stat(
            "Passed on in 1 h",
            "short",
            "Of those, callers who went to another agent or to a transfer target instead.",
        )
        .query("{{to}}", "sum by (to) (increase(switchboard_calls_overflowed_total{pods}[1h]))"),
        Panel::stat("Lost in 1 h", "short", "Calls that ended although neither side wanted them to.")
            .warns(1.0, 1.0)
            .query("", "sum(increase(switchboard_calls_lost_total{pods}[1h]))"),
    ];
    Row { title: "Now", height: 4, panels }
}

fn load() -> Row {
    let panels = vec![
        Panel::lines(
            "Calls and capacity",
            "short",
            "The lower line must stay below the upper one: between them is room for the next callers.",
        )
        .query("calls", CALLS)
        .query("calls and ringing", &format!("{CALLS} + {RINGING}"))
        .query("capacity", CAPACITY),
        Panel::stack("Pods that serve and leave", "short", "Pods that take calls, and pods on their way out that still carry some.")
            .query("serving", &format!("count({SERVING})"))
            .query("leaving", "sum(switchboard_draining{pods})"),
        Panel::lines(
            "Calls per pod",
            "short",
            "The fullest, the average and the emptiest pod. Far apart: the edge does not spread new streams evenly.",
        )
        .query("fullest", "max(switchboard_active_calls{pods})")
        .query("average", "avg(switchboard_active_calls{pods})")
        .query("emptiest", "min(switchboard_active_calls{pods})")
        .query("may carry", "max(switchboard_call_capacity{pods})"),
        Panel::stack("Calls by agent", "short", "Which agents the calls are with.")
            .query("{{namespace}}/{{agent}}", "sum by (namespace, agent) (switchboard_active_calls{pods})"),
    ];
    Row { title: "Calls, capacity, pods", height: 9, panels }
}

fn arrivals() -> Row {
    let panels = vec![
        Panel::lines(
            "Legs started",
            "ops",
            "Streams that became part of a call each second: fresh ones are callers, resumed ones go on after a pod left or died.",
        )
        .query("{{leg}}", &per_second_by("leg", "switchboard_legs_started_total")),
        Panel::heatmap(
            "Call setup",
            "switchboard_call_setup_seconds",
            "{pods}",
            "From the carrier's first webhook to the start of the call's stream.",
        ),
        Panel::stack("Callers refused", "ops", "Callers each second whom the agent did not take, by reason: they heard a sentence, or were passed on.")
            .query("{{reason}}", &per_second_by("reason", "switchboard_calls_refused_total")),
        Panel::stack(
            "Webhooks and streams refused",
            "ops",
            "What was turned away before it was a call. Full and draining are ordinary: the next pod takes the stream.",
        )
        .query("webhook {{reason}}", &per_second_by("reason", "switchboard_webhooks_refused_total"))
        .query("stream {{reason}}", &per_second_by("reason", "switchboard_streams_refused_total")),
    ];
    Row { title: "Arriving", height: 8, panels }
}

fn ends() -> Row {
    let panels = vec![
        Panel::stack("How legs end", "ops", "Legs of calls ended each second, by reason.")
            .query("{{reason}}", &per_second_by("reason", "switchboard_calls_ended_total")),
        Panel::lines(
            "Hand-overs",
            "ops",
            "Calls each second that a leaving pod handed over, and that another one went on with (also after a crash).",
        )
        .query("handed over", r#"sum(rate(switchboard_calls_ended_total{pods,reason="handed_over"}[$__rate_interval]))"#)
        .query("gone on with", r#"sum(rate(switchboard_legs_started_total{pods,leg="resumed"}[$__rate_interval]))"#),
        Panel::stack("Calls lost", "ops", "Calls each second that ended although neither side wanted them to, by reason.")
            .query("{{reason}}", &per_second_by("reason", "switchboard_calls_lost_total")),
        Panel::lines(
            "Store and bugs",
            "ops",
            "Failed operations on Redis, records it did not take, and legs ended by a bug, each second. All zero when all is well.",
        )
        .query("store failures", &per_second("switchboard_store_failures_total"))
        .query("records dropped", &per_second("switchboard_records_dropped_total"))
        .query("bugs", &per_second("switchboard_call_panics_total")),
    ];
    Row { title: "Ending", height: 8, panels }
}
