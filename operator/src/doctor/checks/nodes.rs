//! Nodes: who ends them and how long their pods get, which may vanish within seconds, and what time it is on them.

use std::time::Duration;

use kube::ResourceExt as _;

use super::{Findings, readable};
use crate::doctor::facts::Facts;
use crate::doctor::report::{Check, Finding, Severity};

/// Labels of nodes that the cloud may take back, and the notice it gives.
const SPOT: [(&str, &str, &str); 5] = [
    ("cloud.google.com/gke-spot", "true", "about 15 s"),
    ("cloud.google.com/gke-preemptible", "true", "about 30 s"),
    ("eks.amazonaws.com/capacityType", "SPOT", "2 min"),
    ("karpenter.sh/capacity-type", "spot", "seconds to 2 min"),
    ("kubernetes.azure.com/scalesetpriority", "spot", "30 s"),
];
/// A stream's token lasts a minute or two, so clocks may differ by less than that …
const WRONG_CLOCK: i64 = 30_000;
/// … and what differs by more than NTP leaves is on its way there.
const ODD_CLOCK: i64 = 2_000;

pub(super) fn scaling(facts: &Facts) -> Vec<Finding> {
    let mut findings = Findings::of(Check::NodeScaling);
    let Some(deployments) = findings.known("", &facts.deployments) else { return findings.found };
    let grace = deployments
        .iter()
        .filter_map(|d| {
            let grace = d.spec.as_ref()?.template.spec.as_ref()?.termination_grace_period_seconds?;
            Some((u64::try_from(grace).ok()?, d))
        })
        .max_by_key(|(grace, _)| *grace);
    if let Some(scalers) = findings.known("", &facts.node_scalers)
        && let Some((grace, deployment)) = grace
    {
        for scaler in scalers {
            let Some(longest) = scaler.longest.filter(|longest| *longest < Duration::from_secs(grace)) else {
                continue;
            };
            findings.add(
                Severity::Failure,
                &scaler.name,
                format!(
                    "gives pods {} when it removes a node, and the pods of {} need {}",
                    readable(longest),
                    deployment.name_any(),
                    super::pods::seconds(grace)
                ),
                format!("raise {} to at least {grace} s, or lower drain.windowSeconds", scaler.setting),
            );
        }
    }
    spot(facts, &mut findings);
    findings.or_ok("whatever ends nodes waits for their calls")
}

/// Media pods on nodes that may be taken back.
fn spot(facts: &Facts, findings: &mut Findings) {
    let Some(nodes) = findings.known("", &facts.nodes) else { return };
    let Some(pods) = findings.known("", &facts.pods) else { return };
    for node in nodes {
        let has = |name: &str, value: &str| node.labels().get(name).is_some_and(|found| found == value);
        let Some((_, _, notice)) = SPOT.iter().find(|(name, value, _)| has(name, value)) else { continue };
        let name = node.name_any();
        let count = pods
            .iter()
            .filter(|pod| pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref()) == Some(&name))
            .count();
        if count > 0 {
            findings.add(
                Severity::Warning,
                &name,
                format!("{count} media pods are on a node that may be taken back with a notice of {notice}"),
                "keep media pods off such nodes with podTemplate (nodeSelector, affinity)",
            );
        }
    }
}

pub(super) fn clocks(facts: &Facts) -> Vec<Finding> {
    let mut findings = Findings::of(Check::Clocks);
    if let Some(clocks) = findings.known("", &facts.node_clocks) {
        for (node, ahead) in clocks {
            wrong(&mut findings, &format!("node {node}"), *ahead);
        }
    }
    if let Some(ahead) = findings.known("", &facts.own_clock) {
        wrong(&mut findings, "the machine that runs the doctor", *ahead);
    }
    findings.or_ok("clocks agree")
}

fn wrong(findings: &mut Findings, whose: &str, ahead: i64) {
    if ahead.abs() <= ODD_CLOCK {
        return;
    }
    let severity = if ahead.abs() <= WRONG_CLOCK { Severity::Warning } else { Severity::Failure };
    let direction = if ahead > 0 { "ahead of" } else { "behind" };
    findings.add(
        severity,
        whose,
        format!(
            "its clock is {} ms {direction} the API server's: stream tokens expire too early or too late",
            ahead.abs()
        ),
        "synchronise it (chrony, systemd-timesyncd)",
    );
}
