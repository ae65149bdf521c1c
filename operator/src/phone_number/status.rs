//! The status of a number: a pure function of what was found and done.

use crds::conditions::{ConditionType, Reason, Status, find_condition, set_condition};
use crds::{FormerEntry, PhoneNumber, PhoneNumberStatus};
use jiff::Timestamp;

use crate::finding::Finding;

/// What was found about a number, in the order in which a person wants to know what is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Findings {
    /// The number is in the account.
    pub bound: Finding,
    /// The webhooks are ours.
    pub in_sync: Finding,
    /// All routes lead to agents.
    pub routes: Finding,
}

impl Findings {
    /// Nothing can be told, for one reason.
    pub fn blocked(finding: &Finding) -> Self {
        let unknown = Finding { status: Status::Unknown, ..finding.clone() };
        Self { bound: finding.clone(), in_sync: unknown.clone(), routes: unknown }
    }
}

/// Sets the conditions of a status that otherwise says what is known about the number.
pub fn conclude(
    number: &PhoneNumber,
    mut status: PhoneNumberStatus,
    findings: &Findings,
    now: Timestamp,
) -> PhoneNumberStatus {
    let Findings { bound, in_sync, routes } = findings;
    let generation = number.metadata.generation;
    status.observed_generation = generation;
    let trouble = [bound, in_sync, routes].into_iter().find(|f| f.status != Status::True);
    let ready = match trouble {
        None => Finding::yes(Reason::WebhooksInSync),
        Some(finding) => finding.clone(),
    };
    for (kind, finding) in [
        (ConditionType::Ready, ready),
        (ConditionType::Bound, bound.clone()),
        (ConditionType::RoutesResolved, routes.clone()),
        (ConditionType::InSync, in_sync.clone()),
    ] {
        set_condition(&mut status.conditions, finding.condition(kind, generation), now);
    }
    status
}

/// The carrier, which shows `observed`, is about to be told a voice URL: from here on it may have either.
pub fn aim(status: &mut PhoneNumberStatus, observed: Option<&str>, entry: &str, voice_url: String) {
    let (url, agent) = (status.voice_url.take(), status.entry_agent.take());
    let last = url.zip(agent).map(|(voice_url, entry_agent)| FormerEntry { entry_agent, voice_url });
    let told = [last, status.moving_from.take()].into_iter().flatten();
    status.moving_from =
        told.into_iter().find(|told| observed == Some(&told.voice_url) && told.voice_url != voice_url);
    status.entry_agent = Some(entry.to_owned());
    status.voice_url = Some(voice_url);
}

/// The status of a deleted number that waits: everything else in it is the way back.
pub fn leaving(number: &PhoneNumber, waits_for: &Finding, now: Timestamp) -> PhoneNumberStatus {
    let mut status = number.status.clone().unwrap_or_default();
    for kind in [ConditionType::Ready, ConditionType::InSync] {
        set_condition(
            &mut status.conditions,
            waits_for.clone().condition(kind, number.metadata.generation),
            now,
        );
    }
    status
}

/// Whether the carrier's side once was as this spec wants it: so what differs now was changed by somebody else.
pub fn was_in_sync(number: &PhoneNumber, voice_url: &str) -> bool {
    number.status.as_ref().is_some_and(|status| {
        status.synced_generation.is_some()
            && status.synced_generation == number.metadata.generation
            && status.voice_url.as_deref() == Some(voice_url)
    })
}

/// Whether another object has the number.
pub fn is_waiting(number: &PhoneNumber) -> bool {
    let conditions = number.status.as_ref().map_or(&[][..], |s| &s.conditions);
    find_condition(conditions, ConditionType::Bound)
        .is_some_and(|c| c.reason == Reason::NumberTaken.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, NumberVerbs as _};

    fn fine() -> Findings {
        Findings {
            bound: Finding::yes(Reason::NumberFound),
            in_sync: Finding::yes(Reason::WebhooksInSync),
            routes: Finding::yes(Reason::Resolved),
        }
    }

    fn concluded(findings: Findings) -> PhoneNumberStatus {
        let status = PhoneNumberStatus { voice_url: Some("u".to_owned()), ..PhoneNumberStatus::default() };
        conclude(&testing::number(), status, &findings, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn ready_is_the_first_thing_that_is_wrong() {
        let findings = Findings { in_sync: Finding::no(Reason::ClaimedByOther, "a"), ..fine() };
        let words: Vec<_> = concluded(findings)
            .conditions
            .into_iter()
            .map(|c| format!("{}={} {}", c.type_, c.status, c.reason))
            .collect();
        assert_eq!(
            words,
            [
                "Ready=False ClaimedByOther",
                "Bound=True NumberFound",
                "RoutesResolved=True Resolved",
                "InSync=False ClaimedByOther"
            ]
        );
    }

    #[test]
    fn a_number_that_another_object_has_is_waited_for() {
        let taken = Finding::no(Reason::NumberTaken, "a");
        assert!(is_waiting(&testing::number().with_status(concluded(Findings::blocked(&taken)))));
        assert!(!is_waiting(&testing::number().with_status(concluded(fine()))));
        assert!(!is_waiting(&testing::number()));
    }

    #[test]
    fn while_a_move_is_on_its_way_what_the_carrier_may_have_is_ours() {
        let entry = |agent: &str| (format!("https://a.example/{agent}"), agent.to_owned());
        let mut status = PhoneNumberStatus::default();
        let mut aim = |observed: &str, at: &str| {
            super::aim(&mut status, Some(&entry(observed).0), at, entry(at).0);
            let entries: Vec<String> = status.entries().map(str::to_owned).collect();
            assert!(entries.iter().all(|agent| status.has_told(&entry(agent).0)));
            entries
        };
        assert_eq!(aim("somebody", "a"), ["a"], "what was there before was not ours");
        assert_eq!(aim("a", "b"), ["b", "a"]);
        assert_eq!(aim("a", "b"), ["b", "a"], "the carrier was not told, and is again");
        assert_eq!(aim("a", "c"), ["c", "a"], "nor of this one");
        assert_eq!(aim("c", "d"), ["d", "c"], "it was, and the answer was lost");
        assert_eq!(aim("d", "d"), ["d"], "only another field differs");
        assert_eq!(aim("somebody", "e"), ["e"], "somebody else changed it");
    }

    #[test]
    fn a_difference_is_drift_only_after_the_same_spec_was_in_sync() {
        let synced = PhoneNumberStatus { synced_generation: Some(1), ..concluded(fine()) };
        let number = testing::number().with_status(synced);
        assert!(was_in_sync(&number, "u"));
        assert!(!was_in_sync(&number, "another entry agent"));
        let mut edited = number;
        edited.metadata.generation = Some(2);
        assert!(!was_in_sync(&edited, "u"));
        assert!(!was_in_sync(&testing::number().with_status(concluded(fine())), "u"));
    }
}
