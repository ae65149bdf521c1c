//! Switchboard itself: API, definitions, rights, the operator, and what its resources say of themselves.

use std::time::Duration;

use crds::conditions::{ConditionType, find_condition};
use crds::manifest;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt as _;

use super::Findings;
use crate::doctor::facts::{Facts, key};
use crate::doctor::report::{Check, Finding, Severity};

/// The oldest minor that is tested or maintained: the newest three when this was released.
const OLDEST_MINOR: u32 = 33;
/// What the operator applies.
const NEEDED: [&str; 8] = [
    "v1",
    "apps/v1",
    "autoscaling/v2",
    "coordination.k8s.io/v1",
    "events.k8s.io/v1",
    "networking.k8s.io/v1",
    "policy/v1",
    "switchboard.dev/v1alpha1",
];
/// A leader says that it leads every few seconds, and gives up after ten without.
const LEASE: Duration = Duration::from_secs(15);

pub(super) fn api_versions(facts: &Facts) -> Vec<Finding> {
    let mut findings = Findings::of(Check::ApiVersions);
    let version = &facts.version;
    if (version.major, version.minor) < (1, OLDEST_MINOR) {
        findings.add(
            Severity::Warning,
            "",
            format!("Kubernetes {} is older than what Switchboard is tried on", version.text),
            format!("update the cluster to 1.{OLDEST_MINOR} or newer"),
        );
    }
    for needed in NEEDED.iter().filter(|needed| !facts.apis.contains(**needed)) {
        findings.add(
            Severity::Failure,
            "",
            format!("the API server does not serve {needed}"),
            if needed.starts_with(crds::GROUP) { INSTALL_DEFINITIONS } else { "update the cluster" },
        );
    }
    findings.or_ok(format!("Kubernetes {}, which serves everything needed", version.text))
}

const INSTALL_DEFINITIONS: &str =
    "kubectl apply -k crds/yaml of the operator's version (the chart installs them too)";

pub(super) fn definitions(facts: &Facts) -> Vec<Finding> {
    let mut findings = Findings::of(Check::Definitions);
    let Some(installed) = findings.known("", &facts.definitions) else { return findings.found };
    for ours in manifest::definitions() {
        let name = ours.name_any();
        let Some(theirs) = installed.get(&name) else {
            findings.add(Severity::Failure, &name, "is not installed", INSTALL_DEFINITIONS);
            continue;
        };
        if !is_established(theirs) {
            findings.add(
                Severity::Failure,
                &name,
                "the API server has not established it",
                format!("see the conditions of kubectl describe crd {name}"),
            );
        }
        if schema(theirs) != schema(&ours) {
            findings.add(
                Severity::Failure,
                &name,
                "is not the definition of this version: fields may be dropped without a word",
                INSTALL_DEFINITIONS,
            );
        }
    }
    findings.or_ok("all definitions are installed and of this version")
}

fn is_established(definition: &CustomResourceDefinition) -> bool {
    let conditions = definition.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Established" && condition.status == "True")
}

/// What decides which fields there are and what they may hold.
fn schema(definition: &CustomResourceDefinition) -> Option<serde_json::Value> {
    let version = definition.spec.versions.iter().find(|version| version.name == crds::VERSION)?;
    serde_json::to_value(&version.schema).ok()
}

pub(super) fn rights(facts: &Facts) -> Vec<Finding> {
    let mut findings = Findings::of(Check::Rights);
    let Some(missing) = findings.known("", &facts.missing_rights) else { return findings.found };
    for right in missing {
        findings.add(
            Severity::Failure,
            "",
            format!("the operator may not {right}"),
            "apply the operator's roles and bindings of this version",
        );
    }
    findings.or_ok("the operator may do what it must")
}

pub(super) fn operator(facts: &Facts) -> Vec<Finding> {
    let mut findings = Findings::of(Check::Operator);
    let Some(operator) = findings.known("", &facts.operator) else { return findings.found };
    let logs = "kubectl logs -l app.kubernetes.io/name=switchboard-operator says why";
    match operator.replicas {
        None => findings.add(
            Severity::Warning,
            "",
            "there is no Deployment switchboard-operator",
            "install it, or name its namespace with --namespace",
        ),
        Some((_, 0)) => findings.add(Severity::Failure, "", "no replica of the operator is available", logs),
        Some((wanted, available)) if available < wanted => {
            findings.add(
                Severity::Warning,
                "",
                format!("{available} of {wanted} replicas are available"),
                logs,
            );
        }
        Some((1, _)) => findings.add(
            Severity::Warning,
            "",
            "the operator has one replica: while its node goes, nothing is scaled or repaired",
            "run two replicas",
        ),
        Some(_) => {}
    }
    match &operator.lease {
        None => findings.add(Severity::Failure, "", "no replica ever led", logs),
        Some((leader, age)) if *age > LEASE => findings.add(
            Severity::Failure,
            leader,
            format!("led until {} ago, and nobody has since", super::readable(*age)),
            logs,
        ),
        Some(_) => {}
    }
    findings.or_ok("the operator runs, and one replica leads")
}

pub(super) fn resources(facts: &Facts) -> Vec<Finding> {
    let mut findings = Findings::of(Check::Resources);
    let mut count = 0;
    if let Some(gateways) = findings.known("", &facts.gateways) {
        count += gateways.len();
        for gateway in gateways {
            let conditions = gateway.status.as_ref().map_or(&[][..], |status| &status.conditions);
            not_ready(&mut findings, &format!("voicegateway {}", key(gateway)), conditions);
        }
    }
    if let Some(agents) = findings.known("", &facts.agents) {
        count += agents.len();
        for agent in agents.iter().filter(|agent| !agent.spec.suspend) {
            let conditions = agent.status.as_ref().map_or(&[][..], |status| &status.conditions);
            not_ready(&mut findings, &format!("voiceagent {}", key(agent)), conditions);
        }
    }
    if let Some(numbers) = findings.known("", &facts.numbers) {
        count += numbers.len();
        for number in numbers {
            let conditions = number.status.as_ref().map_or(&[][..], |status| &status.conditions);
            not_ready(&mut findings, &format!("phonenumber {}", key(number)), conditions);
        }
    }
    findings.or_ok(format!("all {count} gateways, agents and numbers are ready"))
}

fn not_ready(findings: &mut Findings, subject: &str, conditions: &[Condition]) {
    let Some(ready) = find_condition(conditions, ConditionType::Ready) else {
        findings.add(
            Severity::Warning,
            subject,
            "the operator has not looked at it",
            "see the operator's log",
        );
        return;
    };
    if ready.status != "True" {
        let message = format!("is not ready: {}", ready.reason);
        findings.add(Severity::Failure, subject, message, ready.message.clone());
    }
}
