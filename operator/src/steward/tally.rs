//! What the loads of an agent's pods add up to: pure.

use crds::conditions::{ConditionType, Reason, find_condition, set_condition};
use crds::{VoiceAgent, VoiceAgentStatus};
use jiff::Timestamp;
use serde::Deserialize;

use crate::finding::Finding;

/// What a pod says of itself; the rest of its answer is for others.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Load {
    /// The agent file it has loaded.
    pub config_revision: String,
    /// Calls it carries.
    pub active_calls: u32,
    /// Whether it is on its way out.
    #[serde(default)]
    pub draining: bool,
    /// Slots of the whole agent that are reserved for calls that still ring, as this pod last heard.
    #[serde(default)]
    pub reserved_slots: u32,
}

/// The steward's part of an agent's status; `None` where it says so already.
pub(super) fn tally(agent: &VoiceAgent, loads: &[Option<Load>], now: Timestamp) -> Option<VoiceAgentStatus> {
    let before = agent.status.clone().unwrap_or_default();
    let wanted = before.config_revision.clone()?;
    let known: Vec<_> = loads.iter().flatten().collect();
    // A pod that does not answer may carry calls: a sum without it would be a lie, so the last one stays.
    let active_calls = if known.len() == loads.len() {
        i32::try_from(known.iter().map(|l| u64::from(l.active_calls)).sum::<u64>()).ok()
    } else {
        before.active_calls
    };
    let kind = ConditionType::ConfigCurrent;
    let conditions = find_condition(&before.conditions, kind).cloned().into_iter().collect();
    let mut status = VoiceAgentStatus { active_calls, conditions, ..VoiceAgentStatus::default() };
    let condition = current(&wanted, loads).condition(kind, agent.metadata.generation);
    set_condition(&mut status.conditions, condition, now);
    let is_told = before.active_calls == status.active_calls
        && find_condition(&before.conditions, kind) == status.conditions.first();
    (!is_told).then_some(status)
}

/// Whether ConfigCurrent is about the newest configuration.
pub(super) fn speaks_of_newest(status: &VoiceAgentStatus) -> bool {
    let condition = find_condition(&status.conditions, ConditionType::ConfigCurrent);
    let newest = status.config_revision.as_deref().unwrap_or_default();
    condition.is_some_and(|c| c.message.contains(newest))
}

fn current(wanted: &str, loads: &[Option<Load>]) -> Finding {
    let all = loads.len();
    let silent = loads.iter().filter(|l| l.is_none()).count();
    let behind = loads.iter().flatten().filter(|l| l.config_revision != wanted).count();
    if behind > 0 {
        let sentence = format!(
            "{} of {all} pods have configuration {wanted}, {behind} have another: it arrives within seconds, at most a \
             minute or two; if it does not, see the pods' logs for why they refuse it",
            all - behind - silent
        );
        Finding::no(Reason::PodsBehind, sentence)
    } else if silent > 0 {
        Finding::unknown(
            Reason::LoadUnknown,
            format!("{silent} of {all} pods do not answer on their admin port whether they have {wanted}"),
        )
    } else if all == 0 {
        Finding::unknown(Reason::NoPodReady, format!("No pod is ready to load configuration {wanted}"))
    } else {
        let message = format!("{all} of {all} pods have configuration {wanted}");
        Finding { message, ..Finding::yes(Reason::AllPodsCurrent) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, AgentVerbs as _};

    fn agent() -> VoiceAgent {
        testing::agent().with_status(VoiceAgentStatus {
            config_revision: Some("b".to_owned()),
            replicas: Some(2),
            ..VoiceAgentStatus::default()
        })
    }

    fn load(revision: &str, calls: u32) -> Option<Load> {
        Some(Load {
            config_revision: revision.to_owned(),
            active_calls: calls,
            draining: false,
            reserved_slots: 0,
        })
    }

    fn words(status: &VoiceAgentStatus) -> String {
        let condition = &status.conditions[0];
        format!("{}={} {}", condition.type_, condition.status, condition.reason)
    }

    #[test]
    fn calls_add_up_and_all_pods_have_the_revision() {
        let status = tally(&agent(), &[load("b", 3), load("b", 4)], Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(status.active_calls, Some(7));
        assert_eq!(words(&status), "ConfigCurrent=True AllPodsCurrent");
        assert_eq!(status.conditions[0].message, "2 of 2 pods have configuration b");
        assert_eq!((status.replicas, status.conditions.len()), (None, 1), "only what the steward owns");
    }

    #[test]
    fn nothing_is_written_twice() {
        let mut agent = agent();
        let told = tally(&agent, &[load("b", 3)], Timestamp::UNIX_EPOCH).unwrap();
        let status = agent.status.get_or_insert_default();
        status.active_calls = told.active_calls;
        status.conditions = told.conditions;
        assert_eq!(tally(&agent, &[load("b", 3)], Timestamp::now()), None);
        assert!(tally(&agent, &[load("b", 2)], Timestamp::now()).is_some());
    }

    #[test]
    fn a_silent_pod_holds_the_sum() {
        let mut agent = agent();
        agent.status.get_or_insert_default().active_calls = Some(9);
        let status = tally(&agent, &[load("b", 3), None], Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(status.active_calls, Some(9));
        assert_eq!(words(&status), "ConfigCurrent=Unknown LoadUnknown");
    }

    #[test]
    fn a_condition_about_an_older_configuration_is_known_as_such() {
        let mut status = tally(&agent(), &[load("b", 0)], Timestamp::UNIX_EPOCH).unwrap();
        status.config_revision = Some("b".to_owned());
        assert!(speaks_of_newest(&status));
        status.config_revision = Some("9f2c41d0".to_owned());
        assert!(!speaks_of_newest(&status));
        assert!(!speaks_of_newest(&VoiceAgentStatus::default()));
    }

    #[test]
    fn a_pod_with_an_older_configuration_is_told() {
        let status = tally(&agent(), &[load("b", 0), load("a", 1), None], Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(words(&status), "ConfigCurrent=False PodsBehind");
        assert!(status.conditions[0].message.starts_with("1 of 3 pods have configuration b, 1 have another"));
    }

    #[test]
    fn an_agent_that_was_never_rendered_is_left_alone() {
        assert_eq!(tally(&testing::agent(), &[], Timestamp::UNIX_EPOCH), None);
    }
}
