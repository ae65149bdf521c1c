//! Looks up what an agent refers to. Everything missing is collected, so that a person sees it all at once.

use call_session::agent_file::NumberRoutes;
use crds::{PhoneNumber, VoiceAgent, VoiceAgentSpec, VoiceGateway};
use kube::ResourceExt as _;

use super::agent_file::{overflow_agent, secret_keys};
use crate::cache::{self, Cache, contents};
use crate::context::Context;
use crate::phone_number::routes::{self, KnownAgent};
use crate::references::Missing;

/// What an agent refers to.
#[derive(Clone, Debug)]
pub enum References {
    /// All of it exists.
    Resolved(Box<Resolved>),
    /// This does not.
    Missing(Vec<Missing>),
}

/// All that an agent refers to.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// Its gateway.
    pub gateway: VoiceGateway,
    /// Its instructions; empty where the spec names none.
    pub instructions: String,
    /// The numbers that enter through it.
    pub entering: Vec<NumberRoutes>,
    /// All numbers with a route to it, in E.164 form.
    pub numbers: Vec<String>,
    /// What it can do without, and is to be told of: the agent its overflow names.
    pub absent: Option<Missing>,
}

/// Looks it up.
pub async fn dereference(agent: &VoiceAgent, context: &Context) -> Result<References, kube::Error> {
    let Context { client, cache, .. } = context;
    let namespace = agent.namespace().unwrap_or_default();
    let gateway_name = &agent.spec.gateway_ref.name;
    let gateway = cache::find(&cache.gateways, &namespace, gateway_name);
    let Some(gateway) = gateway.and_then(|g| g.0.as_ref().ok().cloned()) else {
        return Ok(References::Missing(vec![Missing::Gateway(gateway_name.clone())]));
    };
    let keys = secret_keys(&agent.spec, &gateway.spec);
    let mut missing = contents::missing_secrets(client, cache, &namespace, keys).await?;
    if gateway.status.as_ref().is_none_or(|s| s.stream_keys.is_none()) {
        missing.push(Missing::StreamKeys(gateway_name.clone()));
    }
    let instructions = match &agent.spec.persona.instructions.config_map_key_ref {
        None => agent.spec.persona.instructions.text.clone().unwrap_or_default(),
        Some(reference) => match contents::config_map_value(client, cache, &namespace, reference).await? {
            Ok(text) => text,
            Err(absent) => {
                missing.push(absent);
                String::new()
            }
        },
    };
    if !missing.is_empty() {
        return Ok(References::Missing(missing));
    }
    let (entering, numbers) = numbers(agent, cache);
    let absent = absent_overflow_agent(&agent.spec, |name| {
        cache::find(&cache.agents, &namespace, name)?.0.as_ref().ok().and_then(known)
    });
    Ok(References::Resolved(Box::new(Resolved { gateway, instructions, entering, numbers, absent })))
}

/// What keeps calls from going to the agent that the overflow names, if it names one. `find` looks agents of the
/// namespace up.
pub fn absent_overflow_agent(
    agent: &VoiceAgentSpec,
    find: impl FnOnce(&str) -> Option<KnownAgent>,
) -> Option<Missing> {
    let name = overflow_agent(agent)?;
    let gateway = &agent.gateway_ref.name;
    match find(name) {
        Some(other) if other.gateway == *gateway => None,
        Some(_) => Some(Missing::AgentElsewhere { agent: name.to_owned(), gateway: gateway.clone() }),
        None => Some(Missing::Agent(name.to_owned())),
    }
}

/// The numbers with a route to an agent: those that enter through it, and all of them.
fn numbers(agent: &VoiceAgent, cache: &Cache) -> (Vec<NumberRoutes>, Vec<String>) {
    let (namespace, name) = (agent.namespace(), agent.name_any());
    let concerns = |number: &PhoneNumber| {
        number.namespace() == namespace
            && (routes::enters_through(number, &name)
                || number.spec.routes.iter().any(|r| r.agent_ref.name == name))
    };
    let numbers = cache.numbers.state_filter(|n| n.0.as_ref().is_ok_and(concerns));
    let numbers: Vec<PhoneNumber> = numbers.iter().filter_map(|n| n.0.as_ref().ok().cloned()).collect();
    if numbers.is_empty() {
        return (Vec::new(), Vec::new());
    }
    let agents = cache.agents.state_filter(|a| a.namespace() == namespace);
    let agents: Vec<_> = agents.iter().filter_map(|a| a.0.as_ref().ok()).filter_map(known).collect();
    (routes::entering(&numbers, &name, &agents), routes::reaching(&numbers, &name))
}

/// PhoneNumbers whose calls the carrier brings to an agent: those that enter through it, whatever their routes say now.
pub fn callers(agent: &VoiceAgent, cache: &Cache) -> Vec<String> {
    let (namespace, name) = (agent.namespace(), agent.name_any());
    let calls = |n: &PhoneNumber| n.namespace() == namespace && routes::enters_through(n, &name);
    let numbers = cache.numbers.state_filter(|n| n.0.as_ref().is_ok_and(calls));
    let mut names: Vec<_> = numbers.iter().map(|n| n.name_any()).collect();
    names.sort();
    names
}

/// An agent as routes see it; one on its way out is none.
pub(crate) fn known(agent: &VoiceAgent) -> Option<KnownAgent> {
    let is_leaving = agent.metadata.deletion_timestamp.is_some();
    (!is_leaving).then(|| KnownAgent { name: agent.name_any(), gateway: agent.spec.gateway_ref.name.clone() })
}
