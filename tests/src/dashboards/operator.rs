//! Whether what was applied is so: at the API server, in the pods, at the carrier.

use super::{ChosenBy, Dashboard, Panel, Row};

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        name: "operator",
        title: "Switchboard: operator",
        description: "Reconciliation, webhooks at the carrier, conditions of all objects, configuration in the pods.",
        chosen_by: ChosenBy::Nothing,
        rows: vec![now(), reconciliation(), objects(), pods()],
    }
}

fn now() -> Row {
    let panels = vec![
        Panel::stat("Leaders", "short", "Operators that reconcile: one, or for some seconds none.")
            .query("", "sum(switchboard_operator_leader{operator})"),
        Panel::stat("Agents that answer", "short", "VoiceAgents whose condition Ready is True.")
            .query("", r#"sum(switchboard_operator_conditions{kind="VoiceAgent",condition="Ready",status="True"})"#),
        Panel::stat("Not ready", "short", "Objects of any kind whose condition Ready is not True.")
            .warns(1.0, 3.0)
            .query("", r#"sum(switchboard_operator_conditions{condition="Ready",status!="True"})"#),
        Panel::stat("Numbers that lead elsewhere", "short", "PhoneNumbers whose webhooks at the carrier are not ours.")
            .warns(1.0, 1.0)
            .query("", r#"sum(switchboard_operator_conditions{kind="PhoneNumber",condition="InSync",status="False"})"#),
        Panel::stat("Behind", "short", "VoiceAgents of which some pods have not loaded the newest configuration.")
            .warns(1.0, 3.0)
            .query("", r#"sum(switchboard_operator_conditions{kind="VoiceAgent",condition="ConfigCurrent",status="False"})"#),
        Panel::stat("Failing", "percentunit", "Reconciliations that must be tried again, conflicts aside (5 min).")
            .warns(0.05, 0.2)
            .query("", r#"sum(rate(switchboard_operator_reconciles_total{outcome!~"ok|conflict"}[5m])) / sum(rate(switchboard_operator_reconciles_total[5m]))"#),
    ];
    Row { title: "Now", height: 4, panels }
}

fn reconciliation() -> Row {
    let panels = vec![
        Panel::stack("Reconciliations", "ops", "Reconciliations each second, by kind.")
            .query("{{kind}}", "sum by (kind) (rate(switchboard_operator_reconciles_total[$__rate_interval]))"),
        Panel::stack("Failures", "ops", "Reconciliations each second that must be tried again: the cluster, the carrier, or a bug.")
            .query("{{kind}} {{outcome}}", r#"sum by (kind, outcome) (rate(switchboard_operator_reconciles_total{outcome!="ok"}[$__rate_interval]))"#),
        Panel::heatmap("Duration", "switchboard_operator_reconcile_seconds", "", "How long reconciliations take; a number's waits for the carrier."),
        Panel::lines("Duration, 95 %", "s", "One reconciliation in twenty takes longer, by kind.").query(
            "{{kind}}",
            "histogram_quantile(0.95, sum by (kind, le) (rate(switchboard_operator_reconcile_seconds_bucket[$__rate_interval])))",
        ),
    ];
    Row { title: "Reconciliation", height: 9, panels }
}

fn objects() -> Row {
    let panels = vec![
        Panel::stack(
            "Webhooks at the carrier",
            "ops",
            "Looks at numbers' webhooks each second, by what was decided. Undo: somebody had changed them.",
        )
        .query(
            "{{plan}}",
            "sum by (plan) (rate(switchboard_operator_webhook_checks_total[$__rate_interval]))",
        ),
        Panel::stack(
            "Conditions that do not hold",
            "short",
            "Objects by the condition that is False or Unknown: kubectl describe says why.",
        )
        .query(
            "{{kind}} {{condition}} {{status}}",
            r#"sum by (kind, condition, status) (switchboard_operator_conditions{status!="True"})"#,
        ),
        Panel::stack(
            "Built-in scaler",
            "ops",
            "Looks of the operator's own scaler at agents each second, by what was decided. Silence: a pod does not tell its load.",
        )
        .query(
            "{{decision}}",
            "sum by (decision) (rate(switchboard_operator_scaler_decisions_total[$__rate_interval]))",
        ),
    ];
    Row { title: "Objects", height: 9, panels }
}

fn pods() -> Row {
    let panels = vec![
        Panel::stack(
            "Configuration refused by pods",
            "ops",
            "Changed files that pods could not use, each second; they keep the last good one.",
        )
        .query(
            "{{agent}} {{file}}",
            "sum by (namespace, agent, file) (rate(switchboard_file_faults_total[$__rate_interval]))",
        ),
        Panel::stack("Pods that leave", "short", "Pods between SIGTERM and their last call, by agent.")
            .query("{{namespace}}/{{agent}}", "sum by (namespace, agent) (switchboard_draining)"),
    ];
    Row { title: "Media pods", height: 8, panels }
}
