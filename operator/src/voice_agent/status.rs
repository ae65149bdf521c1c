//! The status of an agent: a pure function of what was found and applied.
//!
//! It holds what this writer owns; `activeCalls` and the condition ConfigCurrent belong to the steward, who applies
//! them under a field manager of its own.

use std::sync::Arc;

use crds::conditions::{ConditionType, NewCondition, Reason, Status, set_condition};
use crds::{VoiceAgent, VoiceAgentStatus};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus};

use super::agent_file::Invalid;
use crate::finding::Finding;
use crate::references::{self, Missing};

/// How far a reconciliation came.
#[derive(Clone, Debug)]
pub enum Progress {
    /// Something the spec refers to does not exist; nothing was touched.
    Missing(Vec<Missing>),
    /// The spec contradicts itself; nothing was touched.
    Invalid(Invalid),
    /// The children are applied.
    Applied(Box<Applied>),
}

/// What was applied.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The Deployment as the API server has it.
    pub deployment: Arc<Deployment>,
    /// Where the carrier reaches the agent.
    pub url: String,
    /// All numbers with a route to it.
    pub numbers: Vec<String>,
    /// The agent file's revision.
    pub revision: String,
    /// Whether new calls are turned away.
    pub is_suspended: bool,
    /// Whether what scales the pods can see their load, where that can be asked.
    pub autoscaling: Option<Finding>,
    /// What it refers to and does without.
    pub absent: Option<Missing>,
}

/// The part of a status that this writer owns.
pub fn owned(status: Option<&VoiceAgentStatus>) -> VoiceAgentStatus {
    let mut status = status.cloned().unwrap_or_default();
    status.active_calls = None;
    let stewards = ConditionType::ConfigCurrent.to_string();
    status.conditions.retain(|c| c.type_ != stewards);
    status
}

/// Computes the status.
pub fn compute(agent: &VoiceAgent, progress: &Progress, now: Timestamp) -> VoiceAgentStatus {
    let mut status = owned(agent.status.as_ref());
    let generation = agent.metadata.generation;
    status.observed_generation = generation;
    let mut scaling = None;
    let (resolved, ready) = match progress {
        Progress::Missing(missing) => {
            let reason = missing.first().map_or(Reason::Pending, Missing::reason);
            let words = (Status::False, reason, references::sentence(missing));
            (words.clone(), words)
        }
        Progress::Invalid(invalid) => (resolved(), (Status::False, Reason::InvalidSpec, invalid.to_string())),
        Progress::Applied(applied) => {
            let Applied { deployment, url, numbers, revision, is_suspended, autoscaling, absent } =
                applied.as_ref();
            scaling = autoscaling.clone();
            let pods = deployment.status.clone().unwrap_or_default();
            status.replicas = Some(pods.replicas.unwrap_or_default());
            status.ready_replicas = Some(pods.ready_replicas.unwrap_or_default());
            status.url = Some(url.clone());
            status.numbers.clone_from(numbers);
            status.config_revision = Some(revision.clone());
            let resolved = absent.as_ref().map_or_else(resolved, |absent| {
                (Status::False, absent.reason(), references::sentence(std::slice::from_ref(absent)))
            });
            (resolved, ready(deployment, &pods, *is_suspended))
        }
    };
    let mut set = |kind, (holds, reason, message): (Status, Reason, String)| {
        let new = NewCondition { kind, status: holds, reason, message, observed_generation: generation };
        set_condition(&mut status.conditions, new, now);
    };
    set(ConditionType::Ready, ready);
    set(ConditionType::ReferencesResolved, resolved);
    if let Some(Finding { status: holds, reason, message }) = scaling {
        set(ConditionType::AutoscalingReady, (holds, reason, message));
    } else if matches!(progress, Progress::Applied(_)) {
        let nobodys = ConditionType::AutoscalingReady.to_string();
        status.conditions.retain(|c| c.type_ != nobodys);
    }
    status
}

fn resolved() -> (Status, Reason, String) {
    (Status::True, Reason::Resolved, String::new())
}

fn ready(deployment: &Deployment, pods: &DeploymentStatus, is_suspended: bool) -> (Status, Reason, String) {
    let wanted = deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or_default();
    let serving = pods.ready_replicas.unwrap_or_default();
    // A Deployment status from before the last write says nothing about it.
    let is_current = pods.observed_generation >= deployment.metadata.generation;
    if is_suspended {
        let message =
            "New calls are answered with a sentence: set suspend to false to answer them".to_owned();
        (Status::False, Reason::Suspended, message)
    } else if wanted == 0 {
        (Status::False, Reason::ScaledToZero, "There are no pods: scale up to answer calls".to_owned())
    } else if serving > 0 {
        (Status::True, Reason::Serving, format!("{serving} of {wanted} pods accept calls"))
    } else if let Some(trouble) = trouble(pods).filter(|_| is_current) {
        let message =
            format!("None of {wanted} pods accepts calls: {trouble}. See the pods' events and logs");
        (Status::False, Reason::NoPodReady, message)
    } else {
        (
            Status::False,
            Reason::Progressing,
            format!("{serving} of {wanted} pods accept calls, more are starting"),
        )
    }
}

/// What the Deployment complains about.
fn trouble(pods: &DeploymentStatus) -> Option<String> {
    let conditions = pods.conditions.iter().flatten();
    let failing = conditions.into_iter().find(|c| {
        (c.type_ == "Progressing" && c.status == "False")
            || (c.type_ == "ReplicaFailure" && c.status == "True")
    })?;
    Some(failing.message.clone().or_else(|| failing.reason.clone()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, AgentVerbs as _};
    use crds::SecretKeyRef;
    use k8s_openapi::api::apps::v1::{DeploymentCondition, DeploymentSpec};

    fn applied(wanted: i32, pods: DeploymentStatus) -> Progress {
        Progress::Applied(Box::new(Applied {
            deployment: Arc::new(Deployment {
                spec: Some(DeploymentSpec { replicas: Some(wanted), ..DeploymentSpec::default() }),
                status: Some(pods),
                ..Deployment::default()
            }),
            url: "https://voice.example.com/moving/sales".to_owned(),
            numbers: vec!["+15551230001".to_owned()],
            revision: "9f2c41d0".to_owned(),
            is_suspended: false,
            autoscaling: Some(Finding::yes(Reason::MetricRead)),
            absent: None,
        }))
    }

    fn words(status: &VoiceAgentStatus) -> Vec<String> {
        status.conditions.iter().map(|c| format!("{}={} {}", c.type_, c.status, c.reason)).collect()
    }

    #[test]
    fn one_pod_that_accepts_calls_is_enough_to_be_ready() {
        let pods =
            DeploymentStatus { replicas: Some(2), ready_replicas: Some(1), ..DeploymentStatus::default() };
        let status = compute(&testing::agent(), &applied(2, pods), Timestamp::UNIX_EPOCH);
        assert_eq!(
            words(&status),
            ["Ready=True Serving", "ReferencesResolved=True Resolved", "AutoscalingReady=True MetricRead"]
        );
        assert_eq!(status.conditions[0].message, "1 of 2 pods accept calls");
        assert_eq!((status.replicas, status.ready_replicas), (Some(2), Some(1)));
        assert_eq!(status.config_revision.as_deref(), Some("9f2c41d0"));
        assert_eq!(status.numbers, ["+15551230001"]);
    }

    #[test]
    fn pods_that_do_not_start_are_told_with_the_reason() {
        let stuck = DeploymentCondition {
            type_: "Progressing".to_owned(),
            status: "False".to_owned(),
            message: Some("ReplicaSet has timed out progressing".to_owned()),
            ..DeploymentCondition::default()
        };
        let pods = DeploymentStatus {
            replicas: Some(2),
            conditions: Some(vec![stuck]),
            ..DeploymentStatus::default()
        };
        let status = compute(&testing::agent(), &applied(2, pods), Timestamp::UNIX_EPOCH);
        assert_eq!(words(&status)[0], "Ready=False NoPodReady");
        assert!(status.conditions[0].message.contains("timed out progressing"));
    }

    #[test]
    fn a_missing_secret_is_named_and_what_was_known_stays() {
        let agent = testing::agent().with_status(VoiceAgentStatus {
            replicas: Some(2),
            active_calls: Some(5),
            ..VoiceAgentStatus::default()
        });
        let missing = Missing::Secret(SecretKeyRef { name: "openai".to_owned(), key: "apiKey".to_owned() });
        let status = compute(&agent, &Progress::Missing(vec![missing]), Timestamp::UNIX_EPOCH);
        assert_eq!(words(&status), ["Ready=False SecretNotFound", "ReferencesResolved=False SecretNotFound"]);
        assert!(status.conditions[1].message.contains("Secret openai with the key apiKey"));
        assert_eq!((status.replicas, status.active_calls), (Some(2), None));
    }

    #[test]
    fn a_condition_about_scaling_goes_with_the_autoscaler() {
        let mut agent = testing::agent();
        let Progress::Applied(mut found) = applied(2, DeploymentStatus::default()) else { unreachable!() };
        agent.status = Some(compute(&agent, &Progress::Applied(found.clone()), Timestamp::UNIX_EPOCH));
        found.autoscaling = None;
        let status = compute(&agent, &Progress::Applied(found), Timestamp::UNIX_EPOCH);
        assert_eq!(words(&status), ["Ready=False Progressing", "ReferencesResolved=True Resolved"]);
    }

    #[test]
    fn an_absent_overflow_agent_is_told_and_the_agent_stays_ready() {
        let pods =
            DeploymentStatus { replicas: Some(2), ready_replicas: Some(2), ..DeploymentStatus::default() };
        let Progress::Applied(mut applied) = applied(2, pods) else { unreachable!() };
        applied.absent = Some(Missing::Agent("night".to_owned()));
        applied.autoscaling = None;
        let status = compute(&testing::agent(), &Progress::Applied(applied), Timestamp::UNIX_EPOCH);
        assert_eq!(words(&status), ["Ready=True Serving", "ReferencesResolved=False AgentNotFound"]);
        assert!(status.conditions[1].message.starts_with("VoiceAgent night does not exist"));
    }

    #[test]
    fn suspension_and_zero_pods_are_not_ready() {
        let Progress::Applied(mut suspended) = applied(2, DeploymentStatus::default()) else {
            unreachable!()
        };
        suspended.is_suspended = true;
        let status = compute(&testing::agent(), &Progress::Applied(suspended), Timestamp::UNIX_EPOCH);
        assert_eq!(words(&status)[0], "Ready=False Suspended");
        let status =
            compute(&testing::agent(), &applied(0, DeploymentStatus::default()), Timestamp::UNIX_EPOCH);
        assert_eq!(words(&status)[0], "Ready=False ScaledToZero");
    }
}
