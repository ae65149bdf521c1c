//! What media pods depend on to keep their calls: metrics, store, time to leave, budgets.

use crds::{ScalingType, StoreType, VoiceAgent};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt as _;

use super::{Findings, readable};
use crate::doctor::facts::{Facts, key};
use crate::doctor::report::{Check, Finding, Severity};
use crate::voice_agent::build::{AGENT_LABEL, child_name, deployment};

/// The custom metrics API's own group.
const METRICS_API: &str = "custom.metrics.k8s.io/";

pub(super) fn metrics(facts: &Facts) -> Vec<Finding> {
    let mut findings = Findings::of(Check::Metrics);
    let Some(agents) = findings.known("", &facts.agents) else { return findings.found };
    let scaled: Vec<&VoiceAgent> =
        agents.iter().filter(|agent| agent.spec.scaling.kind == ScalingType::Autoscaler).collect();
    if scaled.is_empty() {
        return findings.or_ok("no agent is scaled by a metric");
    }
    if !facts.apis.iter().any(|api| api.starts_with(METRICS_API)) {
        for agent in scaled {
            findings.add(
                Severity::Failure,
                &key(agent),
                "is scaled by a HorizontalPodAutoscaler, and no custom metrics API is served: it never scales up",
                "install prometheus-adapter with the rules that come with Switchboard, or change scaling.type",
            );
        }
        return findings.found;
    }
    for (namespace, found) in &facts.metrics {
        match found {
            Err(why) => findings.add(
                Severity::Failure,
                namespace,
                format!("the custom metrics API does not know switchboard_active_calls here: {why}"),
                "check that Prometheus scrapes the media pods (port admin, path /metrics) and the adapter's rules",
            ),
            Ok(0) => findings.add(
                Severity::Warning,
                namespace,
                "no pod here has a value of switchboard_active_calls",
                "check that Prometheus scrapes the media pods (port admin, path /metrics)",
            ),
            Ok(_) => {}
        }
    }
    findings.or_ok("the metric that autoscaling follows is served")
}

pub(super) fn store(facts: &Facts) -> Vec<Finding> {
    let mut findings = Findings::of(Check::Store);
    let Some(gateways) = findings.known("", &facts.gateways) else { return findings.found };
    for gateway in gateways {
        let subject = key(gateway);
        match gateway.spec.store.kind {
            StoreType::Memory => findings.add(
                Severity::Failure,
                &subject,
                "the store is each pod's memory: with more than one pod callbacks reach pods that know nothing, and no \
                 call outlives its pod",
                "set store.type to Redis",
            ),
            StoreType::Redis => {
                let Some(found) = facts.stores.get(&subject) else { continue };
                let Some(store) = findings.known(&subject, found) else { continue };
                match store.eviction.as_deref() {
                    None => findings.add(
                        Severity::Unknown,
                        &subject,
                        "Redis does not say its maxmemory-policy",
                        "make sure that it is noeviction",
                    ),
                    Some("noeviction") => {}
                    Some(policy) => findings.add(
                        Severity::Failure,
                        &subject,
                        format!("Redis has maxmemory-policy {policy}: when its memory is full it forgets running calls"),
                        "set maxmemory-policy to noeviction",
                    ),
                }
                if store.most_memory > 0 && store.memory.saturating_mul(10) > store.most_memory.saturating_mul(8) {
                    findings.add(
                        Severity::Warning,
                        &subject,
                        format!("Redis holds {} of {} bytes", store.memory, store.most_memory),
                        "raise maxmemory: full, it takes no new calls",
                    );
                }
                if !store.is_persistent {
                    findings.add(
                        Severity::Warning,
                        &subject,
                        "Redis keeps nothing over a restart: a restart forgets the calls that run",
                        "switch appendonly on, or run a replica that takes over",
                    );
                }
            }
        }
    }
    findings.or_ok(if gateways.iter().all(|gateway| facts.stores.contains_key(&key(gateway))) {
        "every gateway has a store that keeps running calls"
    } else {
        "no gateway keeps calls in its pods' memory; what its Redis does was not asked"
    })
}

pub(super) fn grace_period(facts: &Facts) -> Vec<Finding> {
    let mut findings = Findings::of(Check::GracePeriod);
    let Some(agents) = findings.known("", &facts.agents) else { return findings.found };
    let Some(deployments) = findings.known("", &facts.deployments) else { return findings.found };
    for agent in agents {
        let deployment = deployments
            .iter()
            .find(|d| d.namespace() == agent.namespace() && d.name_any() == child_name(&agent.name_any()));
        let Some(spec) = deployment.and_then(|d| d.spec.as_ref()?.template.spec.as_ref()) else { continue };
        // 30 s is what Kubernetes gives a pod that says nothing.
        let grace = spec.termination_grace_period_seconds.unwrap_or(30);
        let needed = i64::from(deployment::grace_period(agent.spec.drain.window_seconds));
        if grace < needed {
            findings.add(
                Severity::Failure,
                &key(agent),
                format!("its pods are killed {grace} s after they are told to go; drain.windowSeconds needs {needed} s"),
                "see who changes the Deployment (an admission webhook, perhaps), or lower drain.windowSeconds",
            );
        }
    }
    findings.or_ok("every pod is given its drain window and the time to hand calls over")
}

pub(super) fn budgets(facts: &Facts) -> Vec<Finding> {
    let mut findings = Findings::of(Check::Budgets);
    let Some(agents) = findings.known("", &facts.agents) else { return findings.found };
    let Some(deployments) = findings.known("", &facts.deployments) else { return findings.found };
    let Some(budgets) = findings.known("", &facts.budgets) else { return findings.found };
    for agent in agents {
        let (subject, name) = (key(agent), agent.name_any());
        let selecting: Vec<_> = budgets
            .iter()
            .filter(|budget| budget.namespace() == agent.namespace() && selects(budget, &name))
            .collect();
        let mut others = selecting.iter().filter(|budget| budget.name_any() != child_name(&name)).peekable();
        if let Some(other) = others.peek() {
            findings.add(
                Severity::Failure,
                &subject,
                format!(
                    "PodDisruptionBudget {} selects its pods too: Kubernetes evicts no pod with two",
                    other.name_any()
                ),
                "delete it, or narrow its selector",
            );
        }
        let replicas = deployments
            .iter()
            .find(|d| d.namespace() == agent.namespace() && d.name_any() == child_name(&name))
            .and_then(|d| d.spec.as_ref()?.replicas);
        if replicas == Some(1) {
            findings.add(
                Severity::Warning,
                &subject,
                "it has one pod: while that one goes, new calls wait for its successor, and its calls have nowhere to go",
                "let minReplicas be 2 or more",
            );
        }
        let never = selecting.iter().any(|budget| {
            budget.spec.as_ref().and_then(|s| s.max_unavailable.as_ref()) == Some(&IntOrString::Int(0))
        });
        if never {
            findings.add(
                Severity::Failure,
                &subject,
                "its budget lets no pod go: nodes cannot be drained, and are killed in the end with their calls",
                "let maxUnavailable be 1 or more",
            );
        }
    }
    findings.or_ok("pods may be evicted, one at a time")
}

/// Whether a budget is about an agent's pods. What it matches by expressions is left out: it is no mistake of a name.
fn selects(budget: &k8s_openapi::api::policy::v1::PodDisruptionBudget, agent: &str) -> bool {
    let Some(selector) = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref()) else { return false };
    let labels = [
        ("app.kubernetes.io/name", "switchboard-media"),
        ("app.kubernetes.io/instance", agent),
        ("app.kubernetes.io/managed-by", "switchboard"),
        (AGENT_LABEL, agent),
    ];
    let wanted = selector.match_labels.iter().flatten();
    selector.match_expressions.iter().flatten().next().is_none()
        && wanted.into_iter().all(|(name, value)| labels.contains(&(name, value)))
}

/// Kept here so that every check writes times the same way.
pub(super) fn seconds(seconds: u64) -> String {
    readable(std::time::Duration::from_secs(seconds))
}
