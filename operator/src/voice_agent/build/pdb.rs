//! The PodDisruptionBudget: a drained node takes one pod at a time, and never waits for calls (SIGTERM protects those).

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{metadata, selector};
use crate::voice_agent::validate::ValidatedAgent;

pub(super) fn build(agent: &ValidatedAgent) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: metadata(agent),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(selector(&agent.name)),
            // A pod that never became ready protects no call.
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    }
}
