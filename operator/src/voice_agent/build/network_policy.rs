//! The NetworkPolicy: each door of a pod is open to those who need it. What pods reach themselves (models, stores, tools,
//! the carrier) is not limited, because nobody but the user knows where it is.

use std::collections::BTreeMap;

use crds::{NetworkPolicySettings, NetworkPolicyType};
use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::deployment::{ADMIN_PORT, API_PORT, PUBLIC_PORT};
use super::{metadata, selector};
use crate::voice_agent::validate::ValidatedAgent;

/// Every namespace has it, by the API server.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

pub(super) fn build(agent: &ValidatedAgent) -> Option<NetworkPolicy> {
    let settings = match agent.network_policy.kind {
        NetworkPolicyType::None => return None,
        NetworkPolicyType::Doors => agent.network_policy.doors.clone().unwrap_or_default(),
    };
    let NetworkPolicySettings { public_namespaces, api_namespaces, admin_namespaces } = settings;
    // The operator asks every pod for its load, whatever the agent says.
    let mut admin = admin_namespaces.unwrap_or_else(|| agent.surroundings.monitoring_namespaces.clone());
    admin.insert(0, agent.surroundings.operator_namespace.clone());
    admin.dedup();
    let spec = NetworkPolicySpec {
        pod_selector: Some(selector(&agent.name)),
        policy_types: Some(vec!["Ingress".to_owned()]),
        ingress: Some(vec![
            rule(PUBLIC_PORT, public_namespaces.map(|names| vec![namespaces(&names)])),
            rule(API_PORT, Some(vec![api_namespaces.map_or_else(any_pod, |names| namespaces(&names))])),
            rule(ADMIN_PORT, Some(vec![namespaces(&admin)])),
        ]),
        egress: None,
    };
    Some(NetworkPolicy { metadata: metadata(agent), spec: Some(spec) })
}

/// Without peers: from anywhere.
fn rule(port: i32, from: Option<Vec<NetworkPolicyPeer>>) -> NetworkPolicyIngressRule {
    let port = NetworkPolicyPort {
        port: Some(IntOrString::Int(port)),
        protocol: Some("TCP".to_owned()),
        end_port: None,
    };
    NetworkPolicyIngressRule { ports: Some(vec![port]), from }
}

/// Every pod of the cluster.
fn any_pod() -> NetworkPolicyPeer {
    NetworkPolicyPeer { namespace_selector: Some(LabelSelector::default()), ..NetworkPolicyPeer::default() }
}

/// Every pod of some namespaces.
fn namespaces(names: &[String]) -> NetworkPolicyPeer {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;
    let named = match names {
        [name] => LabelSelector {
            match_labels: Some(BTreeMap::from([(NAME_LABEL.to_owned(), name.clone())])),
            match_expressions: None,
        },
        names => LabelSelector {
            match_labels: None,
            match_expressions: Some(vec![LabelSelectorRequirement {
                key: NAME_LABEL.to_owned(),
                operator: "In".to_owned(),
                values: Some(names.to_vec()),
            }]),
        },
    };
    NetworkPolicyPeer { namespace_selector: Some(named), ..NetworkPolicyPeer::default() }
}
