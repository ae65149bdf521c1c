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
use crate::rollouts::{Image, Until};

/// How far a reconciliation came.
#[derive(Clone, Debug)]
pub enum Progress {
    /// Something the spec refers to does not exist; nothing was touched.
    Missing(Vec<Missing>),
    /// The spec contradicts itself; nothing was touched.
    Invalid(Invalid),
    /// The children are applied.
    Applied(Box<Applied>),
    /// It is deleted, and waits; nothing was touched.
    Leaving(Finding),
}

impl Progress {
    /// Whether the agent waits for its turn to roll out.
    pub fn is_queued(&self) -> bool {
        matches!(self, Self::Applied(applied) if matches!(applied.image, Image::Held { until: Until::Turn(_), .. }))
    }
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
    /// The pods' image.
    pub image: Image,
    /// The gateway wants a route of an API that the cluster lacks.
    pub lacks_route_api: bool,
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
    let (mut scaling, mut current) = (None, None);
    let (resolved, ready) = match progress {
        Progress::Missing(missing) => {
            let reason = missing.first().map_or(Reason::Pending, Missing::reason);
            let words = (Status::False, reason, references::sentence(missing));
            (Some(words.clone()), words)
        }
        Progress::Invalid(invalid) => {
            (Some(resolved()), (Status::False, Reason::InvalidSpec, invalid.to_string()))
        }
        Progress::Applied(applied) => {
            let Applied {
                deployment,
                url,
                numbers,
                revision,
                is_suspended,
                image,
                lacks_route_api,
                autoscaling,
                absent,
            } = applied.as_ref();
            set_image(&mut status, image, generation);
            current = Some(image.finding());
            scaling = autoscaling.clone();
            let pods = deployment.status.clone().unwrap_or_default();
            status.replicas = Some(pods.replicas.unwrap_or_default());
            status.ready_replicas = Some(pods.ready_replicas.unwrap_or_default());
            status.url = Some(url.clone());
            status.numbers = numbers.iter().take(VoiceAgentStatus::NUMBERS).cloned().collect();
            status.config_revision = Some(revision.clone());
            let resolved = absent.as_ref().map_or_else(resolved, |absent| {
                (Status::False, absent.reason(), references::sentence(std::slice::from_ref(absent)))
            });
            let ready =
                if *lacks_route_api { api_missing() } else { ready(deployment, &pods, *is_suspended) };
            (Some(resolved), ready)
        }
        Progress::Leaving(Finding { status, reason, message }) => (None, (*status, *reason, message.clone())),
    };
    let mut set = |kind, (holds, reason, message): (Status, Reason, String)| {
        let new = NewCondition { kind, status: holds, reason, message, observed_generation: generation };
        set_condition(&mut status.conditions, new, now);
    };
    set(ConditionType::Ready, ready);
    if let Some(resolved) = resolved {
        set(ConditionType::ReferencesResolved, resolved);
    }
    if let Some(Finding { status: holds, reason, message }) = current {
        set(ConditionType::ImageCurrent, (holds, reason, message));
    }
    if let Some(Finding { status: holds, reason, message }) = scaling {
        set(ConditionType::AutoscalingReady, (holds, reason, message));
    } else if matches!(progress, Progress::Applied(_)) {
        let nobodys = ConditionType::AutoscalingReady.to_string();
        status.conditions.retain(|c| c.type_ != nobodys);
    }
    status
}

/// Remembers what was chosen, and for which spec, so that the next operator knows what it would change.
fn set_image(status: &mut VoiceAgentStatus, image: &Image, generation: Option<i64>) {
    status.image = Some(image.reference().to_owned());
    if let Image::Newest(_) = image {
        status.image_generation = generation;
    }
}

fn api_missing() -> (Status, Reason, String) {
    let message = "The gateway's exposure is HTTPRoute, and the cluster has no such kind, so no call comes in: install the \
                   Gateway API (gateway.networking.k8s.io/v1), or choose another exposure";
    (Status::False, Reason::APIMissing, message.to_owned())
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
            image: Image::Newest("media:1".to_owned()),
            lacks_route_api: false,
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
            [
                "Ready=True Serving",
                "ReferencesResolved=True Resolved",
                "ImageCurrent=True NewestImage",
                "AutoscalingReady=True MetricRead"
            ]
        );
        assert_eq!(status.conditions[0].message, "1 of 2 pods accept calls");
        assert_eq!((status.replicas, status.ready_replicas), (Some(2), Some(1)));
        assert_eq!(status.config_revision.as_deref(), Some("9f2c41d0"));
        assert_eq!(status.numbers, ["+15551230001"]);
    }

    #[test]
    fn of_very_many_numbers_the_first_are_told_and_the_rest_of_the_status_too() {
        let Progress::Applied(mut found) = applied(2, DeploymentStatus::default()) else { unreachable!() };
        found.numbers = (0..300).map(|n| format!("+1555123{n:04}")).collect();
        let status = compute(&testing::agent(), &Progress::Applied(found), Timestamp::UNIX_EPOCH);
        assert_eq!((status.numbers.len(), status.numbers[255].as_str()), (256, "+15551230255"));
        assert_eq!(status.config_revision.as_deref(), Some("9f2c41d0"));
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
        assert_eq!(
            words(&status),
            ["Ready=False Progressing", "ReferencesResolved=True Resolved", "ImageCurrent=True NewestImage"]
        );
    }

    #[test]
    fn a_held_image_is_told_and_keeps_the_generation_it_was_chosen_for() {
        let mut agent = testing::agent();
        let Progress::Applied(mut found) = applied(2, DeploymentStatus::default()) else { unreachable!() };
        agent.status = Some(compute(&agent, &Progress::Applied(found.clone()), Timestamp::UNIX_EPOCH));
        let chosen = agent.status.clone().unwrap();
        assert_eq!((chosen.image.as_deref(), chosen.image_generation), (Some("media:1"), Some(1)));
        let (image, newest) = ("media:1".to_owned(), "media:2".to_owned());
        let until = Until::Turn(vec![("moving".to_owned(), "support".to_owned())]);
        found.image = Image::Held { image, newest, until };
        agent.metadata.generation = Some(2);
        let progress = Progress::Applied(found);
        assert!(progress.is_queued());
        let status = compute(&agent, &progress, Timestamp::UNIX_EPOCH);
        assert_eq!((status.image.as_deref(), status.image_generation), (Some("media:1"), Some(1)));
        let told = status.conditions.iter().find(|c| c.type_ == "ImageCurrent").unwrap();
        assert_eq!((told.status.as_str(), told.reason.as_str()), ("False", "RolloutQueued"));
        assert!(told.message.contains("media:2") && told.message.contains("moving/support"));
    }

    #[test]
    fn without_the_api_of_its_way_in_an_agent_is_not_ready() {
        let pods =
            DeploymentStatus { replicas: Some(2), ready_replicas: Some(2), ..DeploymentStatus::default() };
        let Progress::Applied(mut found) = applied(2, pods) else { unreachable!() };
        found.lacks_route_api = true;
        let status = compute(&testing::agent(), &Progress::Applied(found), Timestamp::UNIX_EPOCH);
        assert_eq!(words(&status)[0], "Ready=False APIMissing");
    }

    #[test]
    fn an_absent_overflow_agent_is_told_and_the_agent_stays_ready() {
        let pods =
            DeploymentStatus { replicas: Some(2), ready_replicas: Some(2), ..DeploymentStatus::default() };
        let Progress::Applied(mut applied) = applied(2, pods) else { unreachable!() };
        applied.absent = Some(Missing::Agent("night".to_owned()));
        applied.autoscaling = None;
        let status = compute(&testing::agent(), &Progress::Applied(applied), Timestamp::UNIX_EPOCH);
        let wanted =
            ["Ready=True Serving", "ReferencesResolved=False AgentNotFound", "ImageCurrent=True NewestImage"];
        assert_eq!(words(&status), wanted);
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
