//! How many objects say what in their conditions, for alerts: a number whose webhooks drifted, an agent that is not
//! ready. Counted from the caches, so only the leader knows.

use std::collections::BTreeMap;

use crds::conditions::{ConditionType, Reason};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::cache::Cache;
use crate::report::Kind;

/// Every condition of every kind: what else stands in a status is not ours, and not counted.
const CONDITIONS: [(Kind, &[ConditionType]); 3] = [
    (
        Kind::VoiceGateway,
        &[
            ConditionType::Ready,
            ConditionType::CredentialsVerified,
            ConditionType::StreamKeysCurrent,
            ConditionType::StoreShared,
        ],
    ),
    (
        Kind::VoiceAgent,
        &[
            ConditionType::Ready,
            ConditionType::ReferencesResolved,
            ConditionType::ConfigCurrent,
            ConditionType::AutoscalingReady,
            ConditionType::ImageCurrent,
        ],
    ),
    (
        Kind::PhoneNumber,
        &[ConditionType::Ready, ConditionType::Bound, ConditionType::RoutesResolved, ConditionType::InSync],
    ),
];
const STATUSES: [&str; 3] = ["True", "False", "Unknown"];

/// Counts by kind, condition and status; zeros are there too.
pub type Census = BTreeMap<(&'static str, String, &'static str), i64>;

/// Counts what is in the caches.
pub fn of_cache(cache: &Cache) -> Census {
    let mut census = empty();
    for gateway in cache.gateways.state() {
        let status = gateway.0.as_ref().ok().and_then(|g| g.status.as_ref());
        count(&mut census, Kind::VoiceGateway, status.map_or(&[], |s| &s.conditions));
    }
    for agent in cache.agents.state() {
        let status = agent.0.as_ref().ok().and_then(|a| a.status.as_ref());
        count(&mut census, Kind::VoiceAgent, status.map_or(&[], |s| &s.conditions));
    }
    for number in cache.numbers.state() {
        let status = number.0.as_ref().ok().and_then(|n| n.status.as_ref());
        count(&mut census, Kind::PhoneNumber, status.map_or(&[], |s| &s.conditions));
    }
    census
}

/// Every series, at zero.
pub fn empty() -> Census {
    let conditions = CONDITIONS.iter().flat_map(|(kind, types)| types.iter().map(move |of| (*kind, of)));
    let series =
        conditions.flat_map(|(kind, of)| STATUSES.map(|status| (kind.as_str(), of.to_string(), status)));
    series.map(|series| (series, 0)).collect()
}

/// An agent that somebody closed for the night is not ready, and nobody is to be called for it.
fn count(census: &mut Census, kind: Kind, conditions: &[Condition]) {
    for condition in conditions.iter().filter(|condition| condition.reason != Reason::Suspended.to_string()) {
        let Some(status) = STATUSES.into_iter().find(|status| *status == condition.status) else { continue };
        if let Some(count) = census.get_mut(&(kind.as_str(), condition.type_.clone(), status)) {
            *count += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use crds::conditions::{NewCondition, Status, set_condition};
    use jiff::Timestamp;

    use super::*;

    fn condition(kind: ConditionType, status: Status) -> Condition {
        let mut conditions = Vec::new();
        let message = String::new();
        let new = NewCondition { kind, status, reason: Reason::Pending, message, observed_generation: None };
        set_condition(&mut conditions, new, Timestamp::UNIX_EPOCH);
        conditions.remove(0)
    }

    #[test]
    fn objects_are_counted_by_what_they_say_and_what_is_not_ours_is_not() {
        let mut census = empty();
        let ready = condition(ConditionType::Ready, Status::True);
        let drifted = condition(ConditionType::InSync, Status::False);
        let foreign = Condition { type_: "SomebodyElses".to_owned(), ..ready.clone() };
        count(&mut census, Kind::PhoneNumber, &[ready.clone(), drifted, foreign]);
        count(&mut census, Kind::PhoneNumber, &[ready]);
        let closed = condition(ConditionType::Ready, Status::False);
        let closed = Condition { reason: Reason::Suspended.to_string(), ..closed };
        count(&mut census, Kind::VoiceAgent, &[closed]);
        let found: Vec<_> = census.iter().filter(|(_, count)| **count > 0).collect();
        assert_eq!(
            found,
            [
                (&("PhoneNumber", "InSync".to_owned(), "False"), &1),
                (&("PhoneNumber", "Ready".to_owned(), "True"), &2),
            ]
        );
        assert_eq!(census.len(), empty().len());
    }
}
