//! `switchboard render`: the agent file of a VoiceAgent, from the files one would apply, by the operator's own code.
//!
//! It knows only what the files hold: Secrets stay references (`<secrets>/<name>/<key>` on the laptop too), and a
//! number enters through the agent that a first reconciliation would choose.

use call_session::agent_file::AgentFile;
use crds::{PhoneNumber, VoiceAgent, VoiceGateway};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt as _;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::phone_number::routes::{self, KnownAgent};
use crate::voice_agent::agent_file::{self, Invalid, OverflowAgent, Sources};
use crate::voice_agent::dereference::absent_overflow_agent;

/// Nothing can be rendered; the sentence says what the files lack.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// Not YAML.
    #[error("not YAML: {0}")]
    Yaml(#[from] serde_saphyr::Error),
    /// A document is not what its kind says.
    #[error("{kind} {name}: {error}")]
    Document {
        /// The document's kind.
        kind: String,
        /// Its name.
        name: String,
        /// What is wrong.
        error: serde_json::Error,
    },
    /// There is no VoiceAgent, or not the one asked for.
    #[error("the files hold no VoiceAgent of that name")]
    NoAgent,
    /// Which one?
    #[error("the files hold several VoiceAgents: choose one with --agent")]
    SeveralAgents,
    /// No gateway for it.
    #[error("the files hold no VoiceGateway {0}, which the agent's gatewayRef names")]
    NoGateway(String),
    /// No instructions for it.
    #[error("the files hold no ConfigMap {0} with the key {1}, which the agent's instructions name")]
    NoConfigMap(String, String),
    /// The spec contradicts itself.
    #[error(transparent)]
    Invalid(#[from] Invalid),
}

/// What the files hold.
#[derive(Debug, Default)]
struct Documents {
    agents: Vec<VoiceAgent>,
    gateways: Vec<VoiceGateway>,
    numbers: Vec<PhoneNumber>,
    config_maps: Vec<ConfigMap>,
}

/// Renders an agent of some files' contents.
pub fn render<'a>(
    files: impl IntoIterator<Item = &'a str>,
    agent: Option<&str>,
) -> Result<AgentFile, RenderError> {
    let mut documents = Documents::default();
    for file in files {
        documents.read(file)?;
    }
    let Documents { agents, gateways, mut numbers, config_maps } = documents;
    let chosen = choose(&agents, agent)?;
    let gateway_name = &chosen.spec.gateway_ref.name;
    let gateway = gateways
        .iter()
        .find(|g| &g.name_any() == gateway_name)
        .ok_or_else(|| RenderError::NoGateway(gateway_name.clone()))?;
    let known: Vec<_> = agents
        .iter()
        .map(|a| KnownAgent { name: a.name_any(), gateway: a.spec.gateway_ref.name.clone() })
        .collect();
    for number in &mut numbers {
        let live = routes::resolve(number, &known).live;
        number.status.get_or_insert_default().entry_agent = routes::entry_agent(None, &live);
    }
    let namespace = chosen.namespace().unwrap_or_else(|| "default".to_owned());
    let absent =
        absent_overflow_agent(&chosen.spec, |name| known.iter().find(|agent| agent.name == name).cloned());
    Ok(agent_file::render(Sources {
        namespace: &namespace,
        name: &chosen.name_any(),
        agent: &chosen.spec,
        gateway: &gateway.spec,
        instructions: instructions(chosen, &config_maps)?,
        numbers: routes::entering(&numbers, &chosen.name_any(), &known),
        overflow_agent: OverflowAgent::of(absent.as_ref()),
    })?)
}

impl Documents {
    fn read(&mut self, file: &str) -> Result<(), RenderError> {
        for document in serde_saphyr::from_multiple::<Value>(file)? {
            match document["kind"].as_str() {
                Some("VoiceAgent") => self.agents.push(typed(document)?),
                Some("VoiceGateway") => self.gateways.push(typed(document)?),
                Some("PhoneNumber") => self.numbers.push(typed(document)?),
                Some("ConfigMap") => self.config_maps.push(typed(document)?),
                Some(_) | None => {}
            }
        }
        Ok(())
    }
}

fn typed<T: DeserializeOwned>(document: Value) -> Result<T, RenderError> {
    let text = |pointer| document.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (kind, name) = (text("/kind"), text("/metadata/name"));
    serde_json::from_value(document).map_err(|error| RenderError::Document { kind, name, error })
}

fn choose<'a>(agents: &'a [VoiceAgent], name: Option<&str>) -> Result<&'a VoiceAgent, RenderError> {
    match (name, agents) {
        (Some(name), agents) => agents.iter().find(|a| a.name_any() == name).ok_or(RenderError::NoAgent),
        (None, [agent]) => Ok(agent),
        (None, []) => Err(RenderError::NoAgent),
        (None, _) => Err(RenderError::SeveralAgents),
    }
}

fn instructions(agent: &VoiceAgent, config_maps: &[ConfigMap]) -> Result<String, RenderError> {
    let instructions = &agent.spec.persona.instructions;
    match (&instructions.text, &instructions.config_map_key_ref) {
        (Some(text), None) => Ok(text.clone()),
        (None, Some(reference)) => {
            let config_map = config_maps.iter().find(|c| c.name_any() == reference.name);
            let text = config_map.and_then(|c| c.data.as_ref()).and_then(|d| d.get(&reference.key));
            text.cloned()
                .ok_or_else(|| RenderError::NoConfigMap(reference.name.clone(), reference.key.clone()))
        }
        (Some(_), Some(_)) | (None, None) => Err(Invalid::Instructions.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_that_is_whole_renders() {
        for (sample, agent) in [("simulated", "reception"), ("realtime", "sales")] {
            let file = std::fs::read_to_string(format!("../manifests/samples/{sample}.yaml")).unwrap();
            let rendered = render([file.as_str()], None).unwrap();
            assert_eq!(rendered.name, agent);
            assert_eq!(rendered.numbers.len(), 1, "{sample}");
            assert_eq!(rendered.revision.len(), 8);
        }
    }

    #[test]
    fn files_are_read_together_and_the_heaviest_route_is_the_way_in() {
        let read = |sample| std::fs::read_to_string(format!("../manifests/samples/{sample}.yaml")).unwrap();
        let (realtime, canary) = (read("realtime"), read("canary"));
        let rendered = render([realtime.as_str(), canary.as_str()], Some("sales")).unwrap();
        let weights: Vec<_> =
            rendered.numbers[1].routes.iter().map(|r| (r.agent.as_str(), r.weight)).collect();
        assert_eq!(weights, [("sales", 90), ("sales-canary", 10)]);
        assert!(matches!(
            render([realtime.as_str(), canary.as_str()], None),
            Err(RenderError::SeveralAgents)
        ));
        assert!(matches!(render([canary.as_str()], None), Err(RenderError::NoGateway(_))));
    }
}
