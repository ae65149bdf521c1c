//! Every condition type and reason in one place, and how a condition is set.
//!
//! A condition's time moves only when its status flips (`metav1.Condition`), and time is an argument, so whoever
//! computes a status can be tested by comparing values.

use std::fmt;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// What a condition is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConditionType {
    /// All kinds: it does what it is for.
    Ready,
    /// VoiceGateway: the carrier accepts the credentials.
    CredentialsVerified,
    /// VoiceGateway: no key of media streams is being replaced.
    StreamKeysCurrent,
    /// VoiceGateway: session state is known to every pod.
    StoreShared,
    /// VoiceAgent: everything the spec refers to exists.
    ReferencesResolved,
    /// VoiceAgent: every pod has loaded the newest configuration.
    ConfigCurrent,
    /// VoiceAgent: the pods have the image that they should have.
    ImageCurrent,
    /// VoiceAgent: what scales its pods can read their load.
    AutoscalingReady,
    /// PhoneNumber: the number was found in the account.
    Bound,
    /// PhoneNumber: the agents of the routes exist on the gateway.
    RoutesResolved,
    /// PhoneNumber: the webhooks at the carrier are ours.
    InSync,
}

impl fmt::Display for ConditionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Why a condition has its status. The name is the word in the resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The carrier accepted the credentials.
    CredentialsVerified,
    /// The carrier refused the credentials.
    CredentialsRejected,
    /// A Secret, or the key in it, does not exist.
    SecretNotFound,
    /// A ConfigMap, or the key in it, does not exist.
    ConfigMapNotFound,
    /// The VoiceGateway does not exist.
    GatewayNotFound,
    /// The VoiceGateway is not ready.
    GatewayNotReady,
    /// The carrier did not answer, or asked to come back later.
    CarrierUnavailable,
    /// The carrier refused a request for a reason of its own.
    CarrierRefused,
    /// One key signs and verifies.
    KeysCurrent,
    /// A new key waits for all pods to have it.
    KeyPublished,
    /// A new key signs, and the old one still verifies.
    KeyPromoted,
    /// The keyring Secret cannot be read as a keyring.
    KeyringInvalid,
    /// The store is Redis.
    RedisStore,
    /// The store is each pod's memory.
    MemoryStore,
    /// Everything referred to exists.
    Resolved,
    /// The spec contradicts itself or what it refers to.
    InvalidSpec,
    /// Pods accept calls.
    Serving,
    /// Pods are starting.
    Progressing,
    /// Pods are there, and none accepts calls.
    NoPodReady,
    /// New calls are answered with a sentence.
    Suspended,
    /// Scaled to no pods.
    ScaledToZero,
    /// All pods have the newest configuration.
    AllPodsCurrent,
    /// Some pods have not loaded the newest configuration yet.
    PodsBehind,
    /// Pods did not tell what they have.
    LoadUnknown,
    /// The image is the one asked for.
    NewestImage,
    /// A new default image waits for a change of the spec.
    HeldBack,
    /// A new default image waits for the rollouts of other agents.
    RolloutQueued,
    /// The cluster lacks an API that the gateway's exposure needs.
    APIMissing,
    /// Deleted, and a number's calls still come here.
    WaitingForNumbers,
    /// Deleted, and calls are on.
    WaitingForCalls,
    /// The autoscaler reads the metric.
    MetricRead,
    /// The autoscaler cannot read the metric.
    MetricUnavailable,
    /// The autoscaler cannot scale.
    AutoscalerBlocked,
    /// There are as many pods as may be, and more are wanted.
    AtMaximum,
    /// The built-in scaler knows every pod's load.
    LoadsKnown,
    /// The number was found.
    NumberFound,
    /// The account has no such number.
    NumberNotFound,
    /// No number for sale fits.
    NoNumberForSale,
    /// Another PhoneNumber object has the same number.
    NumberTaken,
    /// Another Switchboard uses the number.
    ClaimedByOther,
    /// An agent of a route, or of an overflow, does not exist.
    AgentNotFound,
    /// An agent of a route, or of an overflow, is on another gateway.
    AgentOnOtherGateway,
    /// The webhooks at the carrier are ours.
    WebhooksInSync,
    /// The webhooks at the carrier were changed and are left so.
    WebhooksDrifted,
    /// The carrier did not keep what was written.
    WriteNotKept,
    /// Not known yet.
    Pending,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The three values of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It holds.
    True,
    /// It does not.
    False,
    /// It cannot be told now.
    Unknown,
}

impl From<bool> for Status {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A condition as found now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewCondition {
    /// What it is about.
    pub kind: ConditionType,
    /// Whether it holds.
    pub status: Status,
    /// Why.
    pub reason: Reason,
    /// A sentence for a person: what is wrong and what to do. Never a secret, never a caller's data.
    pub message: String,
    /// The generation of the spec it was found for.
    pub observed_generation: Option<i64>,
}

/// Puts `new` in the place of the condition of its type, or adds it.
///
/// # Guarantees
/// `lastTransitionTime` moves to `now` only when the status changes, so a condition that is set again and again makes
/// no difference, and the status need not be written.
pub fn set_condition(conditions: &mut Vec<Condition>, new: NewCondition, now: Timestamp) {
    let NewCondition { kind, status, reason, message, observed_generation } = new;
    let mut condition = Condition {
        type_: kind.to_string(),
        status: status.to_string(),
        reason: reason.to_string(),
        message,
        observed_generation,
        last_transition_time: Time(now),
    };
    match conditions.iter_mut().find(|c| c.type_ == condition.type_) {
        Some(old) => {
            if old.status == condition.status {
                condition.last_transition_time = old.last_transition_time.clone();
            }
            *old = condition;
        }
        None => conditions.push(condition),
    }
}

/// The condition of a type, if it was set.
pub fn find_condition(conditions: &[Condition], kind: ConditionType) -> Option<&Condition> {
    let name = kind.to_string();
    conditions.iter().find(|c| c.type_ == name)
}

/// Whether the condition of a type is `True`.
pub fn holds(conditions: &[Condition], kind: ConditionType) -> bool {
    find_condition(conditions, kind).is_some_and(|c| c.status == Status::True.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(status: Status, message: &str) -> NewCondition {
        NewCondition {
            kind: ConditionType::Ready,
            status,
            reason: Reason::Serving,
            message: message.to_owned(),
            observed_generation: Some(3),
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn time_moves_only_when_the_status_flips() {
        let mut conditions = Vec::new();
        set_condition(&mut conditions, ready(Status::True, "a"), at(1));
        set_condition(&mut conditions, ready(Status::True, "b"), at(2));
        assert_eq!(conditions.len(), 1);
        assert_eq!(
            (conditions[0].message.as_str(), &conditions[0].last_transition_time),
            ("b", &Time(at(1)))
        );
        set_condition(&mut conditions, ready(Status::False, "c"), at(3));
        assert_eq!(
            (conditions[0].status.as_str(), &conditions[0].last_transition_time),
            ("False", &Time(at(3)))
        );
        assert_eq!(conditions.len(), 1);
    }

    #[test]
    fn conditions_of_other_types_are_left_alone() {
        let mut conditions = Vec::new();
        set_condition(&mut conditions, ready(Status::True, "a"), at(1));
        let bound = NewCondition { kind: ConditionType::Bound, ..ready(Status::Unknown, "b") };
        set_condition(&mut conditions, bound, at(2));
        assert!(holds(&conditions, ConditionType::Ready));
        assert!(!holds(&conditions, ConditionType::Bound));
        assert_eq!(find_condition(&conditions, ConditionType::Bound).unwrap().status, "Unknown");
    }
}
