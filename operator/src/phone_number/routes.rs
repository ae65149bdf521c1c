//! Which agents answer a number, and through which of them its calls enter: pure.
//!
//! The carrier knows one URL per number, that of the *entry agent*. Its pods pick the answering agent by a hash of the
//! call's id (docs/design.md, "Choosing an agent for a number"), so the routes are in the entry agent's document.

use call_session::Redacted;
use call_session::agent_file::{NumberRoutes, Route};
use crds::PhoneNumber;
use crds::conditions::Reason;
use kube::ResourceExt as _;

/// An agent of the number's namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownAgent {
    /// Its name.
    pub name: String,
    /// Its gateway's name.
    pub gateway: String,
}

/// What the routes of a number lead to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolution {
    /// Routes to agents that exist on the number's gateway, in the order they are written.
    pub live: Vec<Route>,
    /// The first thing wrong with the others.
    pub problem: Option<(Reason, String)>,
}

/// Resolves the routes of a number.
pub fn resolve(number: &PhoneNumber, agents: &[KnownAgent]) -> Resolution {
    let gateway = &number.spec.gateway_ref.name;
    let mut resolution = Resolution { live: Vec::new(), problem: None };
    for route in &number.spec.routes {
        let name = &route.agent_ref.name;
        let problem = match agents.iter().find(|a| &a.name == name) {
            Some(agent) if &agent.gateway == gateway => {
                resolution.live.push(Route { agent: name.clone(), weight: route.weight });
                continue;
            }
            Some(agent) => (
                Reason::AgentOnOtherGateway,
                format!(
                    "VoiceAgent {name} is on gateway {} and the number on {gateway}: use an agent of the number's gateway",
                    agent.gateway
                ),
            ),
            None => (
                Reason::AgentNotFound,
                format!("VoiceAgent {name} does not exist in this namespace: create it, or remove the route"),
            ),
        };
        resolution.problem.get_or_insert(problem);
    }
    resolution
}

/// The agent whose URL the carrier gets: the same as before while it has a route, else the one with most calls.
pub fn entry_agent(before: Option<&str>, live: &[Route]) -> Option<String> {
    let stays = before.filter(|b| live.iter().any(|r| r.agent == *b));
    // `max_by_key` would take the last of equals; the first written is what a reader expects.
    let largest = live.iter().map(|r| r.weight).max();
    let first = live.iter().find(|r| Some(r.weight) == largest).map(|r| r.agent.as_str());
    stays.or(first).map(str::to_owned)
}

/// Whether a number's calls enter through an agent, or may still do so.
pub fn enters_through(number: &PhoneNumber, agent: &str) -> bool {
    number.status.as_ref().is_some_and(|status| status.entries().any(|entry| entry == agent))
}

/// The numbers whose calls enter through an agent, or will, with the routes its pods choose from. A number without a live
/// share is left out: then the entry agent answers itself.
///
/// A number that nobody has looked at yet will enter where its routes say, so its first calls find them in the document.
/// Where two objects have the same digits one will wait, and which is known only after a look.
pub fn entering(numbers: &[PhoneNumber], agent: &str, agents: &[KnownAgent]) -> Vec<NumberRoutes> {
    let is_alone =
        |e164: &str| numbers.iter().filter(|n| self::e164(n).as_deref() == Some(e164)).count() == 1;
    // The cheap questions come first: this is asked for every agent, of all numbers.
    let enters = |number: &PhoneNumber| {
        let is_set = enters_through(number, agent);
        let is_new = number.status.is_none() && number.metadata.deletion_timestamp.is_none();
        if !is_set && !is_new {
            return None;
        }
        let routes = resolve(number, agents).live;
        if !is_set && entry_agent(None, &routes).as_deref() != Some(agent) {
            return None;
        }
        let e164 = e164(number)?;
        (is_set || is_alone(&e164)).then_some((e164, routes))
    };
    let has_share = |(_, routes): &(String, Vec<Route>)| routes.iter().any(|r| r.weight > 0);
    let mut entering: Vec<_> = numbers.iter().filter_map(enters).filter(has_share).collect();
    // Sorted, so that the revision does not depend on the order of a list.
    entering.sort_by(|a, b| a.0.cmp(&b.0));
    entering
        .into_iter()
        .map(|(number, routes)| NumberRoutes { number: Redacted::new(number), routes })
        .collect()
}

/// The numbers with a route to an agent.
pub fn reaching(numbers: &[PhoneNumber], agent: &str) -> Vec<String> {
    let has_route = |n: &&PhoneNumber| n.spec.routes.iter().any(|r| r.agent_ref.name == agent);
    numbers.iter().filter(has_route).filter_map(e164).collect()
}

/// A number's digits, as found or as asked for.
pub fn e164(number: &PhoneNumber) -> Option<String> {
    let found = number.status.as_ref().and_then(|s| s.e164.clone());
    found.or_else(|| number.spec.source.e164.clone())
}

/// The path of an agent's webhooks below the public URL.
pub fn webhook_base(public_url: &str, number: &PhoneNumber, agent: &str) -> String {
    format!("{public_url}/{}/{agent}/twilio", number.namespace().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, NumberVerbs as _};
    use crds::FormerEntry;
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn known(name: &str) -> KnownAgent {
        KnownAgent { name: name.to_owned(), gateway: "default".to_owned() }
    }

    fn route(agent: &str, weight: u32) -> Route {
        Route { agent: agent.to_owned(), weight }
    }

    #[test]
    fn routes_to_absent_and_foreign_agents_are_left_out_and_told() {
        let number = testing::number().with_routes(&[("sales", 90), ("gone", 5), ("other", 5)]);
        let other = KnownAgent { gateway: "second".to_owned(), ..known("other") };
        let resolution = resolve(&number, &[known("sales"), other]);
        assert_eq!(resolution.live, [route("sales", 90)]);
        assert_eq!(resolution.problem.unwrap().0, Reason::AgentNotFound);
    }

    #[test]
    fn the_entry_agent_stays_while_it_has_a_route() {
        let live = [route("a", 10), route("b", 90), route("c", 90)];
        assert_eq!(entry_agent(None, &live).as_deref(), Some("b"));
        assert_eq!(entry_agent(Some("a"), &live).as_deref(), Some("a"));
        assert_eq!(entry_agent(Some("gone"), &live).as_deref(), Some("b"));
        assert_eq!(entry_agent(Some("a"), &[]), None);
    }

    #[test]
    fn the_document_of_the_entry_agent_carries_the_live_routes() {
        let numbers = [
            testing::number().with_routes(&[("sales", 90), ("gone", 10)]).entering_through("sales"),
            testing::number().entering_through("support"),
        ];
        let entering = entering(&numbers, "sales", &[known("sales")]);
        assert_eq!(entering.len(), 1);
        assert_eq!(entering[0].number.expose(), "+15551230001");
        assert_eq!(entering[0].routes, [route("sales", 90)]);
    }

    #[test]
    fn a_number_that_is_not_set_yet_is_in_the_document_of_the_agent_that_its_calls_will_enter_through() {
        let agents = [known("sales"), known("support")];
        let new = || testing::number().with_routes(&[("support", 10), ("sales", 90)]);
        let numbers_of = |numbers: &[PhoneNumber], agent| entering(numbers, agent, &agents).len();
        assert_eq!((numbers_of(&[new()], "sales"), numbers_of(&[new()], "support")), (1, 0));
        let set = new().entering_through("support");
        let alone = std::slice::from_ref(&set);
        assert_eq!((numbers_of(alone, "sales"), numbers_of(alone, "support")), (0, 1));
        // Which of two objects with the same number will have it is not known before they were looked at.
        assert_eq!(numbers_of(&[new(), new()], "sales"), 0);
        assert_eq!(
            (numbers_of(&[set.clone(), new()], "sales"), numbers_of(&[set, new()], "support")),
            (0, 1)
        );
        // While the carrier is told another entry it may still call the former one.
        let mut moving = new().entering_through("sales");
        moving.status.get_or_insert_default().moving_from =
            Some(FormerEntry { entry_agent: "support".to_owned(), voice_url: "u".to_owned() });
        let moving = std::slice::from_ref(&moving);
        assert_eq!((numbers_of(moving, "sales"), numbers_of(moving, "support")), (1, 1));
        let refused = new().with_status(crds::PhoneNumberStatus::default());
        assert_eq!(numbers_of(&[refused], "sales"), 0);
        let mut leaving = new();
        leaving.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        assert_eq!(numbers_of(&[leaving], "sales"), 0);
    }

    #[test]
    fn a_number_whose_live_weights_are_all_zero_is_left_to_the_entry_agent() {
        let numbers =
            [testing::number().with_routes(&[("sales", 0), ("gone", 10)]).entering_through("sales")];
        assert!(super::entering(&numbers, "sales", &[known("sales")]).is_empty());
    }
}
