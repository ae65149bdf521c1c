//! The ConfigMap: the agent file. Pods reload it when it changes; it never rolls them.

use k8s_openapi::api::core::v1::ConfigMap;

use super::metadata;
use crate::voice_agent::validate::ValidatedAgent;

/// File name of the agent file, in the ConfigMap and in the pod.
pub(super) const AGENT_FILE: &str = "agent.json";

pub(super) fn build(agent: &ValidatedAgent) -> ConfigMap {
    let json = serde_json::to_string_pretty(&agent.file).expect("the agent file has only string keys");
    ConfigMap {
        metadata: metadata(agent),
        data: Some([(AGENT_FILE.to_owned(), json)].into()),
        ..ConfigMap::default()
    }
}
