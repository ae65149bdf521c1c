//! Whether what scales an agent can see its load: the condition AutoscalingReady, a pure function of what was found.
//!
//! Running calls never depend on it: an autoscaler that cannot read its metric holds the number of pods.

use crds::VoiceAgentStatus;
use crds::conditions::{ConditionType, Reason, find_condition};
use k8s_openapi::api::autoscaling::v2::{HorizontalPodAutoscaler, HorizontalPodAutoscalerCondition};

use super::build::hpa::METRIC;
use super::validate::Scale;
use crate::finding::Finding;

/// The finding, where somebody scales whom the operator can ask.
pub fn finding(
    scale: &Scale,
    autoscaler: Option<&HorizontalPodAutoscaler>,
    before: Option<&VoiceAgentStatus>,
) -> Option<Finding> {
    match scale {
        Scale::Autoscaler(_) => Some(of_autoscaler(autoscaler)),
        Scale::Builtin(_) => Some(of_loads(before)),
        Scale::Manual { .. } | Scale::External(_) => None,
    }
}

fn of_autoscaler(autoscaler: Option<&HorizontalPodAutoscaler>) -> Finding {
    let conditions = autoscaler.and_then(|a| a.status.as_ref()).and_then(|s| s.conditions.as_deref());
    let find = |kind: &str| conditions.unwrap_or_default().iter().find(|c| c.type_ == kind);
    let says = |c: &HorizontalPodAutoscalerCondition| c.message.clone().unwrap_or_default();
    if let Some(blocked) = find("AbleToScale").filter(|c| c.status == "False") {
        let sentence = format!(
            "The HorizontalPodAutoscaler cannot scale the Deployment, so the number of pods stays: {}",
            says(blocked)
        );
        return Finding::no(Reason::AutoscalerBlocked, sentence);
    }
    match find("ScalingActive") {
        // Somebody scaled the Deployment to zero: then nothing is asked for, and Ready says so.
        Some(idle) if idle.reason.as_deref() == Some("ScalingDisabled") => {
            Finding::unknown(Reason::Pending, "The HorizontalPodAutoscaler rests while there are no pods")
        }
        None => Finding::unknown(Reason::Pending, "The HorizontalPodAutoscaler has not looked yet"),
        Some(active) if active.status == "True" => of_limits(find("ScalingLimited")),
        Some(active) => Finding::no(
            Reason::MetricUnavailable,
            format!(
                "The HorizontalPodAutoscaler cannot read {METRIC}, so the number of pods stays: check that Prometheus \
                 scrapes the pods' port admin and that the metrics adapter has Switchboard's rules, or set scaling.type to \
                 Builtin. It says: {}",
                says(active)
            ),
        ),
    }
}

fn of_limits(limited: Option<&HorizontalPodAutoscalerCondition>) -> Finding {
    match limited {
        Some(limit) if limit.status == "True" && limit.reason.as_deref() == Some("TooManyReplicas") => {
            let message =
                "The calls want more pods than maxReplicas: raise it, or callers will meet full pods"
                    .to_owned();
            Finding { message, ..Finding::yes(Reason::AtMaximum) }
        }
        Some(_) | None => Finding::yes(Reason::MetricRead),
    }
}

/// The built-in scaler reads what the steward reads, and the steward tells who is silent.
fn of_loads(before: Option<&VoiceAgentStatus>) -> Finding {
    let told = before.and_then(|s| find_condition(&s.conditions, ConditionType::ConfigCurrent));
    match told {
        None => Finding::unknown(Reason::Pending, "The pods have not been asked for their load yet"),
        Some(told) if told.reason == Reason::LoadUnknown.to_string() => Finding::no(
            Reason::LoadUnknown,
            "Some pods do not tell their load, so the number of pods may grow but does not shrink: check that the operator \
             reaches the pods' port admin (NetworkPolicy), and the logs of pods that are not ready",
        ),
        Some(_) => Finding::yes(Reason::LoadsKnown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crds::conditions::{NewCondition, Status, set_condition};
    use crds::{Autoscaler, Builtin, External};
    use jiff::Timestamp;
    use serde_json::json;

    fn of(conditions: serde_json::Value) -> Finding {
        let hpa: HorizontalPodAutoscaler =
            serde_json::from_value(json!({"metadata": {}, "status": {"conditions": conditions}})).unwrap();
        finding(&Scale::Autoscaler(Autoscaler::default()), Some(&hpa), None).unwrap()
    }

    #[test]
    fn a_metric_that_cannot_be_read_is_told_with_what_to_do() {
        let finding = of(json!([
            {"type": "AbleToScale", "status": "True"},
            {"type": "ScalingActive", "status": "False", "reason": "FailedGetPodsMetric", "message": "no metrics API"},
        ]));
        assert_eq!((finding.status, finding.reason), (Status::False, Reason::MetricUnavailable));
        assert!(finding.message.contains("metrics adapter") && finding.message.ends_with("no metrics API"));
    }

    #[test]
    fn an_autoscaler_that_reads_its_metric_is_ready_also_at_its_maximum() {
        let active = json!({"type": "ScalingActive", "status": "True"});
        assert_eq!(of(json!([active])), Finding::yes(Reason::MetricRead));
        let idle = json!({"type": "ScalingLimited", "status": "True", "reason": "TooFewReplicas"});
        assert_eq!(of(json!([active, idle])), Finding::yes(Reason::MetricRead));
        let full = json!({"type": "ScalingLimited", "status": "True", "reason": "TooManyReplicas"});
        let finding = of(json!([active, full]));
        assert_eq!((finding.status, finding.reason), (Status::True, Reason::AtMaximum));
    }

    #[test]
    fn before_its_first_look_and_when_it_cannot_scale_it_is_not_ready() {
        assert_eq!(of(json!([])).status, Status::Unknown);
        let resting = json!({"type": "ScalingActive", "status": "False", "reason": "ScalingDisabled"});
        assert_eq!(of(json!([resting])).status, Status::Unknown);
        let blocked = json!({"type": "AbleToScale", "status": "False", "reason": "FailedGetScale"});
        assert_eq!(of(json!([blocked])).reason, Reason::AutoscalerBlocked);
    }

    #[test]
    fn the_built_in_scaler_is_ready_when_every_pod_tells_its_load() {
        let scale = Scale::Builtin(Builtin::default());
        assert_eq!(finding(&scale, None, None).unwrap().status, Status::Unknown);
        let mut status = VoiceAgentStatus::default();
        let mut told = |reason| {
            let kind = ConditionType::ConfigCurrent;
            let new = NewCondition {
                kind,
                status: Status::True,
                reason,
                message: String::new(),
                observed_generation: None,
            };
            set_condition(&mut status.conditions, new, Timestamp::UNIX_EPOCH);
            finding(&scale, None, Some(&status)).unwrap()
        };
        assert_eq!(told(Reason::AllPodsCurrent), Finding::yes(Reason::LoadsKnown));
        assert_eq!(told(Reason::PodsBehind), Finding::yes(Reason::LoadsKnown));
        assert_eq!(told(Reason::LoadUnknown).status, Status::False);
    }

    #[test]
    fn where_a_person_or_somebody_else_scales_there_is_nothing_to_say() {
        assert_eq!(finding(&Scale::Manual { replicas: 3 }, None, None), None);
        assert_eq!(finding(&Scale::External(External::default()), None, None), None);
    }
}
