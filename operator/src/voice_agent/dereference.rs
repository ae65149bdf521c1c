//! Fetches what an agent refers to. Everything missing is collected, so that a person sees it all at once.

use call_session::agent_file::NumberRoutes;
use crds::{PhoneNumber, VoiceAgent, VoiceGateway};
use kube::api::ListParams;
use kube::core::DeserializeGuard;
use kube::{Api, ResourceExt as _};

use super::agent_file::secret_keys;
use crate::context::Context;
use crate::phone_number::routes::{self, KnownAgent};
use crate::references::{self, Missing};

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
}

/// Fetches it.
pub async fn dereference(agent: &VoiceAgent, context: &Context) -> Result<References, kube::Error> {
    let client = &context.client;
    let namespace = agent.namespace().unwrap_or_default();
    let gateway_name = &agent.spec.gateway_ref.name;
    let gateways = Api::<VoiceGateway>::namespaced(client.clone(), &namespace);
    let Some(gateway) = gateways.get_opt(gateway_name).await? else {
        return Ok(References::Missing(vec![Missing::Gateway(gateway_name.clone())]));
    };
    let mut missing =
        references::fetch_missing_secrets(client, &namespace, secret_keys(&agent.spec, &gateway.spec))
            .await?;
    if gateway.status.as_ref().is_none_or(|s| s.stream_keys.is_none()) {
        missing.push(Missing::StreamKeys(gateway_name.clone()));
    }
    let instructions = match &agent.spec.persona.instructions.config_map_key_ref {
        None => agent.spec.persona.instructions.text.clone().unwrap_or_default(),
        Some(reference) => match references::fetch_config_map(client, &namespace, reference).await? {
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
    let (entering, numbers) = fetch_numbers(agent, context).await?;
    Ok(References::Resolved(Box::new(Resolved { gateway, instructions, entering, numbers })))
}

/// The numbers with a route to an agent.
async fn fetch_numbers(
    agent: &VoiceAgent,
    context: &Context,
) -> Result<(Vec<NumberRoutes>, Vec<String>), kube::Error> {
    let namespace = agent.namespace().unwrap_or_default();
    let name = agent.name_any();
    let api = Api::<DeserializeGuard<PhoneNumber>>::namespaced(context.client.clone(), &namespace);
    let numbers: Vec<PhoneNumber> =
        api.list(&ListParams::default()).await?.items.into_iter().filter_map(|n| n.0.ok()).collect();
    let agents = if numbers.iter().any(|n| routes::enters_through(n, &name) && n.spec.routes.len() > 1) {
        fetch_agents(context, &namespace).await?
    } else {
        vec![KnownAgent { name: name.clone(), gateway: agent.spec.gateway_ref.name.clone() }]
    };
    Ok((routes::entering(&numbers, &name, &agents), routes::reaching(&numbers, &name)))
}

/// Every agent of a namespace, as routes see it.
pub async fn fetch_agents(context: &Context, namespace: &str) -> Result<Vec<KnownAgent>, kube::Error> {
    let api = Api::<DeserializeGuard<VoiceAgent>>::namespaced(context.client.clone(), namespace);
    let agents = api.list(&ListParams::default()).await?.items.into_iter().filter_map(|a| a.0.ok());
    Ok(agents
        .filter(|a| a.metadata.deletion_timestamp.is_none())
        .map(|a| KnownAgent { name: a.name_any(), gateway: a.spec.gateway_ref.name })
        .collect())
}
