//! The HorizontalPodAutoscaler: a Pods metric of live calls. Up at once, down slowly.

use crds::{Autoscaler, ScaleDown};
use k8s_openapi::api::autoscaling::v2::{
    CrossVersionObjectReference, HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscaler,
    HorizontalPodAutoscalerBehavior, HorizontalPodAutoscalerSpec, MetricIdentifier, MetricSpec, MetricTarget,
    PodsMetricSource,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::{child_name, metadata};
use crate::voice_agent::validate::ValidatedAgent;

/// The gauge every media pod exports.
pub(crate) const METRIC: &str = "switchboard_active_calls";

pub(super) fn build(agent: &ValidatedAgent, scaling: &Autoscaler) -> HorizontalPodAutoscaler {
    let Autoscaler { min_replicas, max_replicas, target_calls_per_pod, scale_down } = scaling;
    HorizontalPodAutoscaler {
        metadata: metadata(agent),
        spec: Some(HorizontalPodAutoscalerSpec {
            scale_target_ref: CrossVersionObjectReference {
                api_version: Some("apps/v1".to_owned()),
                kind: "Deployment".to_owned(),
                name: child_name(&agent.name),
            },
            min_replicas: Some(*min_replicas),
            max_replicas: *max_replicas,
            metrics: Some(vec![MetricSpec {
                type_: "Pods".to_owned(),
                pods: Some(PodsMetricSource {
                    metric: MetricIdentifier { name: METRIC.to_owned(), selector: None },
                    target: MetricTarget {
                        type_: "AverageValue".to_owned(),
                        average_value: Some(Quantity(target_calls_per_pod.to_string())),
                        ..MetricTarget::default()
                    },
                }),
                ..MetricSpec::default()
            }]),
            behavior: Some(behavior(scale_down)),
        }),
        ..HorizontalPodAutoscaler::default()
    }
}

/// Callers do not wait, so up is at once and without the usual tolerance of 10 % (where the API has it): doubling, or
/// four pods, every 15 s. Down is as slow as the agent says: each pod that goes drains.
fn behavior(down: &ScaleDown) -> HorizontalPodAutoscalerBehavior {
    let ScaleDown { stabilization_seconds, pods_per_minute } = *down;
    // The schema's limits are far below what does not fit.
    let seconds = i32::try_from(stabilization_seconds).unwrap_or(i32::MAX);
    let pods = i32::try_from(pods_per_minute).unwrap_or(i32::MAX);
    HorizontalPodAutoscalerBehavior {
        scale_up: Some(HPAScalingRules {
            stabilization_window_seconds: Some(0),
            tolerance: Some(Quantity("0".to_owned())),
            select_policy: Some("Max".to_owned()),
            policies: Some(vec![policy("Percent", 100, 15), policy("Pods", 4, 15)]),
        }),
        scale_down: Some(HPAScalingRules {
            stabilization_window_seconds: Some(seconds),
            tolerance: None,
            select_policy: Some("Max".to_owned()),
            policies: Some(vec![policy("Pods", pods, 60)]),
        }),
    }
}

fn policy(kind: &str, value: i32, period_seconds: i32) -> HPAScalingPolicy {
    HPAScalingPolicy { type_: kind.to_owned(), value, period_seconds }
}
