//! An agent's pods as the built-in scaler sees them: pure.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::runtime::reflector::Store;

use super::tally::Load;
use crate::scaler::PodLoad;
use crate::voice_agent::build::AGENT_LABEL;

/// Every pod of an agent, with what the ready ones answered.
pub(super) fn crew(
    agent: &(String, String),
    known: &Store<Pod>,
    answers: &[(Arc<Pod>, Option<Load>)],
) -> Vec<PodLoad> {
    let (namespace, name) = agent;
    let of_agent = known.state_filter(|pod| {
        pod.metadata.namespace.as_ref() == Some(namespace) && pod.labels().get(AGENT_LABEL) == Some(name)
    });
    let answer = |pod: &Pod| answers.iter().find(|(asked, _)| asked.metadata.uid == pod.metadata.uid);
    of_agent.iter().filter_map(|pod| member(pod, answer(pod).map(|(_, load)| load.as_ref()))).collect()
}

/// A pod, with its answer if it was asked; `None` for one that ended and is only still listed.
fn member(pod: &Pod, asked: Option<Option<&Load>>) -> Option<PodLoad> {
    if pod.metadata.deletion_timestamp.is_some() {
        return Some(PodLoad::Leaving);
    }
    let status = pod.status.as_ref();
    let phase = status.and_then(|s| s.phase.as_deref()).unwrap_or("Pending");
    match (asked, phase) {
        (_, "Succeeded" | "Failed") => None,
        (Some(Some(load)), _) if load.draining => Some(PodLoad::Leaving),
        (Some(Some(load)), _) => {
            Some(PodLoad::Serving { calls: load.active_calls, reserved: load.reserved_slots })
        }
        (Some(None), _) => Some(PodLoad::Silent),
        (None, "Pending") => Some(PodLoad::Starting),
        (None, _) => Some(if has_started(pod) { PodLoad::Silent } else { PodLoad::Starting }),
    }
}

/// Whether a pod is ready.
pub(super) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

/// Whether every container got past its startup probe; one that crashes is back before it.
fn has_started(pod: &Pod) -> bool {
    let containers = pod.status.as_ref().and_then(|s| s.container_statuses.as_deref()).unwrap_or_default();
    !containers.is_empty() && containers.iter().all(|c| c.started == Some(true))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(phase: &str, started: bool) -> Pod {
        let container = json!({"name": "media", "image": "", "imageID": "", "ready": false, "restartCount": 0, "started": started});
        let pod =
            json!({"metadata": {"name": "a"}, "status": {"phase": phase, "containerStatuses": [container]}});
        serde_json::from_value(pod).unwrap()
    }

    fn load(draining: bool) -> Load {
        Load { config_revision: "a".to_owned(), active_calls: 3, reserved_slots: 1, draining }
    }

    #[test]
    fn what_a_pod_answers_counts_unless_it_leaves() {
        let serving = PodLoad::Serving { calls: 3, reserved: 1 };
        assert_eq!(member(&pod("Running", true), Some(Some(&load(false)))), Some(serving));
        assert_eq!(member(&pod("Running", true), Some(Some(&load(true)))), Some(PodLoad::Leaving));
        let mut leaving = pod("Running", true);
        leaving.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH));
        assert_eq!(member(&leaving, Some(Some(&load(false)))), Some(PodLoad::Leaving));
    }

    #[test]
    fn a_pod_that_served_and_says_nothing_is_silent_and_one_that_never_did_is_starting() {
        assert_eq!(member(&pod("Running", true), Some(None)), Some(PodLoad::Silent));
        assert_eq!(member(&pod("Running", true), None), Some(PodLoad::Silent));
        assert_eq!(member(&pod("Running", false), None), Some(PodLoad::Starting));
        assert_eq!(member(&pod("Pending", false), None), Some(PodLoad::Starting));
    }

    #[test]
    fn a_pod_that_ended_is_no_pod() {
        assert_eq!(member(&pod("Failed", false), None), None);
        assert_eq!(member(&pod("Succeeded", false), None), None);
    }
}
