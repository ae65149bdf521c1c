//! Which agent answers a call to a number: docs/design.md, "Choosing an agent for a number".
//!
//! Pure, and published with vectors, so that people can predict where a call goes and every pod decides alike.

use call_session::CallSid;
use call_session::agent_file::{AgentFile, Route};
use sha2::{Digest, Sha256};

/// The agent of `agent`'s namespace that answers `call` to the number `called`: this one, unless the number is listed.
pub fn choose_agent<'a>(agent: &'a AgentFile, called: &str, call: &CallSid) -> &'a str {
    agent
        .numbers
        .iter()
        .find(|number| number.number.expose() == called)
        .and_then(|number| choose_route(&number.routes, call))
        .map_or(&agent.name, |route| &route.agent)
}

/// The route into whose share of the weights the call's hash falls; none when no route has a weight.
fn choose_route<'a>(routes: &'a [Route], call: &CallSid) -> Option<&'a Route> {
    let total: u64 = routes.iter().map(|route| u64::from(route.weight)).sum();
    let mut point = hash(call).checked_rem(total)?;
    for route in routes {
        let weight = u64::from(route.weight);
        if point < weight {
            return Some(route);
        }
        point -= weight;
    }
    None
}

/// The first 8 bytes of SHA-256 over the CallSid, big-endian.
fn hash(call: &CallSid) -> u64 {
    let digest = Sha256::digest(call.as_str());
    digest.iter().take(8).fold(0, |hash, byte| hash << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use call_session::Redacted;
    use call_session::agent_file::NumberRoutes;

    use super::*;
    use crate::webhook::tests::agent_file;

    fn call(number: u32) -> CallSid {
        format!("CA{number:032x}").parse().unwrap()
    }

    fn routes(weights: &[(&str, u32)]) -> Vec<Route> {
        weights.iter().map(|(agent, weight)| Route { agent: (*agent).to_owned(), weight: *weight }).collect()
    }

    /// The published vectors: CallSid, hash, and the agent chosen from sales 90, canary 10.
    const VECTORS: &[(&str, u64, &str)] = &[
        ("CA00000000000000000000000000000000", 0x5240_eab0_9cb8_f935, "sales"),
        ("CA00000000000000000000000000000001", 0xf1d4_275a_b1c1_3055, "sales"),
        ("CA0123456789abcdef0123456789abcdef", 0x1dad_5141_75e9_e944, "sales"),
        ("CAffffffffffffffffffffffffffffffff", 0x871f_804d_9566_2dc1, "sales"),
        ("CA0000000000000000000000000000001f", 0x3184_8cce_2a69_02fe, "canary"),
        ("CA00000000000000000000000000000021", 0x0db7_f0de_1fb1_cb57, "canary"),
    ];

    #[test]
    fn the_published_vectors_hold() {
        let shares = routes(&[("sales", 90), ("canary", 10)]);
        for (sid, expected, agent) in VECTORS {
            let call: CallSid = sid.parse().unwrap();
            assert_eq!(hash(&call), *expected, "{sid}");
            assert_eq!(choose_route(&shares, &call).map(|route| route.agent.as_str()), Some(*agent), "{sid}");
        }
    }

    #[test]
    fn shares_come_out_as_weighted_and_a_weight_of_zero_takes_nothing() {
        let shares = routes(&[("never", 0), ("sales", 90), ("canary", 10)]);
        let count = |agent: &str| {
            let chosen = |number: &u32| choose_route(&shares, &call(*number)).unwrap().agent == agent;
            (0..10_000).filter(chosen).count()
        };
        assert_eq!(count("never"), 0);
        assert!((800..1200).contains(&count("canary")));
    }

    #[test]
    fn a_number_that_is_not_listed_or_has_no_weight_is_answered_by_this_agent() {
        let mut agent = agent_file();
        let number = |number: &str, weights| NumberRoutes {
            number: Redacted::new(number.to_owned()),
            routes: routes(weights),
        };
        agent.numbers =
            vec![number("+15550000001", &[("support", 1)]), number("+15550000002", &[("support", 0)])];
        assert_eq!(choose_agent(&agent, "+15550000001", &call(1)), "support");
        assert_eq!(choose_agent(&agent, "+15550000002", &call(1)), "sales");
        assert_eq!(choose_agent(&agent, "+15550000003", &call(1)), "sales");
    }
}
