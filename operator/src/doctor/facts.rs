//! What was found in a cluster: plain data, so that every check is a function and every test a table.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crds::{PhoneNumber, VoiceAgent, VoiceGateway};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

use super::rights::Right;

/// What was found, or why it could not be asked.
pub type Found<T> = Result<T, String>;

/// Everything the checks look at.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The API server's version: major, minor, and as it says it.
    pub version: Version,
    /// Served API versions, such as `apps/v1`.
    pub apis: BTreeSet<String>,
    /// Switchboard's definitions, by name.
    pub definitions: Found<BTreeMap<String, CustomResourceDefinition>>,
    /// Rights that the operator's account lacks.
    pub missing_rights: Found<Vec<Right>>,
    /// The operator.
    pub operator: Found<OperatorFacts>,
    /// Every VoiceGateway.
    pub gateways: Found<Vec<VoiceGateway>>,
    /// Every VoiceAgent.
    pub agents: Found<Vec<VoiceAgent>>,
    /// Every PhoneNumber.
    pub numbers: Found<Vec<PhoneNumber>>,
    /// By namespace, pods for which the custom metrics API knows how many calls they carry.
    pub metrics: BTreeMap<String, Found<usize>>,
    /// By gateway (`namespace/name`), what its Redis says.
    pub stores: BTreeMap<String, Found<StoreFacts>>,
    /// The agents' Deployments.
    pub deployments: Found<Vec<Deployment>>,
    /// The media pods.
    pub pods: Found<Vec<Pod>>,
    /// Every budget in a namespace with an agent.
    pub budgets: Found<Vec<PodDisruptionBudget>>,
    /// The agents' Ingresses.
    pub ingresses: Found<Vec<Ingress>>,
    /// Every class.
    pub classes: Found<Vec<IngressClass>>,
    /// The settings of ingress-nginx controllers, merged: what decides when a reload cuts connections.
    pub nginx: Found<Vec<BTreeMap<String, String>>>,
    /// What may end nodes.
    pub node_scalers: Found<Vec<NodeScaler>>,
    /// Every node.
    pub nodes: Found<Vec<Node>>,
    /// By node, how far its clock is ahead of the API server's, in milliseconds; negative is behind.
    pub node_clocks: Found<BTreeMap<String, i64>>,
    /// The same of the machine that asks.
    pub own_clock: Found<i64>,
    /// By gateway (`namespace/name`), what its public URL says.
    pub urls: BTreeMap<String, UrlFacts>,
}

/// A Kubernetes version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// 1.
    pub major: u32,
    /// 35.
    pub minor: u32,
    /// `v1.35.4`.
    pub text: String,
}

/// The operator as its Deployment and its Lease show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorFacts {
    /// Replicas asked for, and available.
    pub replicas: Option<(i32, i32)>,
    /// Who leads, and how long ago it said so.
    pub lease: Option<(String, Duration)>,
}

/// What `INFO` of a Redis says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreFacts {
    /// Such as `noeviction`.
    pub eviction: Option<String>,
    /// The most it may hold, in bytes; 0 is no limit of its own.
    pub most_memory: u64,
    /// What it holds, in bytes.
    pub memory: u64,
    /// Whether it keeps what it knows over a restart.
    pub is_persistent: bool,
}

/// What ends nodes, and how long it waits for their pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeScaler {
    /// Such as `Deployment kube-system/cluster-autoscaler`.
    pub name: String,
    /// The setting that decides.
    pub setting: &'static str,
    /// The longest grace period it honours; none is no limit.
    pub longest: Option<Duration>,
}

/// What a public URL says to a request that a media pod refuses: it has no signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlFacts {
    /// The URL that was asked.
    pub url: String,
    /// Addresses of its host.
    pub addresses: Found<usize>,
    /// The status of the answer.
    pub status: Found<u16>,
}

/// `namespace/name`.
pub fn key<K: kube::ResourceExt>(object: &K) -> String {
    format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any())
}
