//! What the steward writes on a pod: pure.
//!
//! Two annotations. A changed annotation makes the kubelet look at the pod at once, and so at its mounted configuration;
//! by itself it would take a minute or two. And the ReplicaSet deletes the pods first that cost least.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use super::tally::Load;

/// The configuration that a pod was last asked to load.
pub(super) const CONFIG_ANNOTATION: &str = "switchboard.dev/config-revision";
/// Read by the ReplicaSet controller; an absent one is 0.
const COST_ANNOTATION: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Annotations by name.
pub(super) type Annotations = BTreeMap<&'static str, String>;

/// What a pod is annotated with, as far as it is not already.
pub(super) fn tend(pod: &Pod, load: &Load, wanted_revision: Option<&str>) -> Annotations {
    let mut annotations = Annotations::new();
    let cost = cost(load.active_calls);
    if pod.annotations().get(COST_ANNOTATION).map_or("0", String::as_str) != cost {
        annotations.insert(COST_ANNOTATION, cost);
    }
    if let Some(wanted) = wanted_revision.filter(|wanted| *wanted != load.config_revision) {
        annotations.extend(ask_for(pod, wanted));
    }
    annotations
}

/// Asks a pod to load a configuration, unless it was asked before.
pub(super) fn ask_for(pod: &Pod, revision: &str) -> Annotations {
    let was_asked = pod.annotations().get(CONFIG_ANNOTATION).is_some_and(|asked| asked == revision);
    let asked = (!was_asked).then(|| (CONFIG_ANNOTATION, revision.to_owned()));
    asked.into_iter().collect()
}

/// Idle pods first, then by powers of two: a call more or less on a busy pod is not worth a write.
fn cost(calls: u32) -> String {
    calls.checked_ilog2().map_or(0, |power| 1_i64 << power).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(annotations: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "a", "annotations": annotations}})).unwrap()
    }

    fn load(calls: u32) -> Load {
        Load { config_revision: "b".to_owned(), active_calls: calls, draining: false, reserved_slots: 0 }
    }

    #[test]
    fn costs_are_coarse_and_idle_pods_cost_least() {
        let costs = [0, 1, 2, 3, 4, 7, 8, 31].map(cost);
        assert_eq!(costs, ["0", "1", "2", "2", "4", "4", "8", "16"]);
    }

    #[test]
    fn nothing_is_written_on_a_pod_that_has_it() {
        assert_eq!(tend(&pod(json!({})), &load(0), Some("b")), Annotations::new());
        assert_eq!(tend(&pod(json!({COST_ANNOTATION: "4"})), &load(6), Some("b")), Annotations::new());
        assert_eq!(tend(&pod(json!({CONFIG_ANNOTATION: "c"})), &load(0), Some("c")), Annotations::new());
        assert_eq!(tend(&pod(json!({})), &load(0), None), Annotations::new());
    }

    #[test]
    fn load_and_configuration_are_one_write() {
        let written = tend(&pod(json!({COST_ANNOTATION: "4", CONFIG_ANNOTATION: "b"})), &load(0), Some("c"));
        let wanted = [(COST_ANNOTATION, "0".to_owned()), (CONFIG_ANNOTATION, "c".to_owned())];
        assert_eq!(written, wanted.into());
    }
}
