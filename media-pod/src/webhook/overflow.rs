//! What a caller gets whom an agent has no slot for: pure.
//!
//! `overflow.type: Agent` redirects the carrier to the other agent's own voice webhook, so that the other agent's file,
//! limits and overflow decide there, and none of that has to be known here. The agents that had no slot travel in the
//! URL, which the carrier signs: no agent is asked twice for one call, so no chain of agents goes round.

use call_session::agent_file::{AgentFile, Overflow, TransferTarget};

use super::carried::{Carried, with_query};
use crate::admission::{Sentence, sentence_for};
use crate::metrics::CallRefusal;
use crate::store::AgentKey;

/// Query parameter of the voice webhook with the agents that had no slot.
const TRIED: &str = "tried";

/// Agents asked for one call at most. The carrier follows redirects for as long as they come, and somebody is listening to
/// silence meanwhile.
const MOST_AGENTS: usize = 8;

/// Agents of this namespace that had no slot for a call, in the order they were asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tried(Vec<String>);

impl Tried {
    /// Out of a request's query.
    pub(super) fn of_query(query: Option<&str>) -> Self {
        let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        let names = pairs.filter(|(name, _)| name == TRIED).map(|(_, value)| value.into_owned());
        Self(names.take(MOST_AGENTS).collect())
    }

    /// Whether the call came from another agent.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn with(mut self, agent: &str) -> Self {
        self.0.push(agent.to_owned());
        self
    }

    fn holds(&self, agent: &str) -> bool {
        self.0.iter().any(|tried| tried == agent)
    }
}

/// What a caller gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Instead<'a> {
    /// A sentence, then the call ends.
    Say(Sentence),
    /// Another agent, asked at this URL.
    Ask(String),
    /// A person.
    Forward(&'a TransferTarget),
}

/// What the caller of `called` gets, whom the agent refuses.
///
/// Only for want of a slot is anybody else asked. Who calls too often would otherwise be forwarded at the owner's cost,
/// and a spent day is meant to end it.
pub(super) fn instead<'a>(
    agent: &'a AgentFile,
    called: &AgentKey,
    refusal: CallRefusal,
    tried: &Tried,
) -> Instead<'a> {
    let say = || Instead::Say(sentence_for(refusal, agent));
    match refusal {
        CallRefusal::Full | CallRefusal::Concurrency => {}
        CallRefusal::Suspended
        | CallRefusal::CallerRate
        | CallRefusal::DailyMinutes
        | CallRefusal::Attempts => return say(),
    }
    match &agent.overflow {
        Overflow::Message { .. } => say(),
        Overflow::Agent { agent: other } => {
            let tried = tried.clone().with(&called.name);
            if tried.holds(&other.name) || other.name == agent.name || tried.0.len() >= MOST_AGENTS {
                return say();
            }
            Instead::Ask(voice_url(agent, &other.name, &tried, Carried::default()))
        }
        Overflow::Forward { forward } => {
            let target = agent.transfer_targets.iter().find(|target| target.name == forward.transfer_target);
            target.map_or_else(
                || {
                    tracing::error!("the overflow's transfer target is not configured");
                    say()
                },
                Instead::Forward,
            )
        }
    }
}

/// An agent's voice webhook, asked about a call that these agents had no slot for.
pub(super) fn voice_url(agent: &AgentFile, asked: &str, tried: &Tried, carried: Carried) -> String {
    let url = format!("{}/{}/{asked}/twilio/voice", agent.public_url, agent.namespace);
    with_query(url, tried.0.iter().map(|name| (TRIED, name.clone())).chain(carried.pairs()))
}

#[cfg(test)]
mod tests {
    use call_session::Redacted;
    use call_session::agent_file::{OverflowAgent, OverflowForward};

    use super::*;
    use crate::webhook::tests::agent_file;

    fn overflowing_to(overflow: Overflow) -> AgentFile {
        let target = TransferTarget {
            name: "office".to_owned(),
            phone_number: Redacted::new("+15550000009".to_owned()),
        };
        AgentFile { overflow, transfer_targets: vec![target], ..agent_file() }
    }

    fn to_agent(name: &str) -> AgentFile {
        overflowing_to(Overflow::Agent { agent: OverflowAgent { name: name.to_owned() } })
    }

    fn to_target(name: &str) -> AgentFile {
        overflowing_to(Overflow::Forward { forward: OverflowForward { transfer_target: name.to_owned() } })
    }

    fn key(name: &str) -> AgentKey {
        AgentKey { namespace: "moving".to_owned(), name: name.to_owned() }
    }

    fn full<'a>(agent: &'a AgentFile, query: &str) -> Instead<'a> {
        instead(agent, &key("sales"), CallRefusal::Full, &Tried::of_query(Some(query)))
    }

    fn busy(agent: &AgentFile) -> Instead<'_> {
        Instead::Say(sentence_for(CallRefusal::Full, agent))
    }

    #[test]
    fn the_other_agent_is_asked_at_its_own_webhook_and_told_who_was_asked_before() {
        let agent = to_agent("support");
        let ask = |query: &str| {
            Instead::Ask(format!("https://voice.example.com/moving/support/twilio/voice?{query}"))
        };
        assert_eq!(full(&agent, ""), ask("tried=sales"));
        assert_eq!(full(&agent, "tried=night&tried=day"), ask("tried=night&tried=day&tried=sales"));
    }

    #[test]
    fn no_agent_is_asked_twice_and_a_chain_has_an_end() {
        let agent = to_agent("support");
        assert_eq!(full(&agent, "tried=support"), busy(&agent));
        assert_eq!(full(&agent, "tried=day&tried=support&tried=night"), busy(&agent));
        let itself = to_agent("sales");
        assert_eq!(full(&itself, ""), busy(&itself));
        let long: Vec<String> = (0..MOST_AGENTS).map(|number| format!("tried=a{number}")).collect();
        assert!(matches!(full(&agent, &long[..MOST_AGENTS - 2].join("&")), Instead::Ask(_)));
        assert_eq!(full(&agent, &long[..MOST_AGENTS - 1].join("&")), busy(&agent));
        assert_eq!(full(&agent, &long.join("&").repeat(9)), busy(&agent));
    }

    #[test]
    fn a_named_target_is_dialled_and_an_unknown_one_is_not() {
        let agent = to_target("office");
        assert_eq!(full(&agent, ""), Instead::Forward(&agent.transfer_targets[0]));
        let agent = to_target("attic");
        assert_eq!(full(&agent, ""), busy(&agent));
    }

    #[test]
    fn only_for_want_of_a_slot_is_anybody_else_asked() {
        let agent = to_agent("support");
        let get = |refusal| instead(&agent, &key("sales"), refusal, &Tried::default());
        assert!(matches!(get(CallRefusal::Concurrency), Instead::Ask(_)));
        for refusal in [
            CallRefusal::Suspended,
            CallRefusal::CallerRate,
            CallRefusal::DailyMinutes,
            CallRefusal::Attempts,
        ] {
            assert_eq!(get(refusal), Instead::Say(sentence_for(refusal, &agent)));
        }
    }
}
