//! A [`ValidatedAgent`] becomes the objects that serve it: pure, one module per kind.
//!
//! Every child is named `<agent>-media`, carries the same labels, and is owned by the agent. A change of configuration
//! changes the ConfigMap alone; what rolls the Deployment is what the process itself needs.

pub mod config_map;
pub mod deployment;
pub mod hpa;
pub mod http_route;
pub mod ingress;
pub mod network_policy;
pub mod pdb;
pub mod pod_monitor;
pub mod service;

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::{Ingress, NetworkPolicy};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use super::validate::{Scale, ValidatedAgent};
use crate::foreign::{HTTPRoute, PodMonitor};

/// Names the agent on every child; the selector of pods.
pub const AGENT_LABEL: &str = "switchboard.dev/agent";
/// The selector of everything the operator made.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "switchboard");

/// Everything an agent consists of.
#[derive(Clone, Debug, PartialEq)]
pub struct Children {
    /// Identity of the pods, with no rights.
    pub service_account: ServiceAccount,
    /// The agent file.
    pub config_map: ConfigMap,
    /// The pods, without their number.
    pub deployment: Deployment,
    /// Who writes that number.
    pub replicas: Replicas,
    /// The pods' address.
    pub service: Service,
    /// At most one pod goes at a time.
    pub pdb: PodDisruptionBudget,
    /// Scales on live calls, if the agent wants so.
    pub hpa: Option<HorizontalPodAutoscaler>,
    /// The way in from the internet, if the gateway wants so.
    pub ingress: Option<Ingress>,
    /// The same as a route of the Gateway API.
    pub http_route: Option<HTTPRoute>,
    /// Who reaches the pods, if the agent wants that limited.
    pub network_policy: Option<NetworkPolicy>,
    /// Who scrapes them, if the agent wants so.
    pub pod_monitor: Option<PodMonitor>,
}

/// Who writes the Deployment's number of pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replicas {
    /// An autoscaler, which never scales up from zero; the operator begins with a number where there is none, or zero.
    Begin(i32),
    /// Somebody who may mean zero; the operator begins with a number where there is none.
    BeginOnce(i32),
    /// The operator, always.
    Fixed(i32),
}

impl Replicas {
    /// The number where there is none.
    pub const fn first(self) -> i32 {
        match self {
            Self::Begin(first) | Self::BeginOnce(first) | Self::Fixed(first) => first,
        }
    }
}

/// Builds all of them.
pub fn build(agent: &ValidatedAgent) -> Children {
    let (replicas, hpa) = match &agent.scale {
        Scale::Autoscaler(scaling) => {
            (Replicas::Begin(scaling.min_replicas), Some(hpa::build(agent, scaling)))
        }
        Scale::Builtin(scaling) => (Replicas::Begin(scaling.min_replicas), None),
        Scale::External(scaling) => (Replicas::BeginOnce(scaling.initial_replicas), None),
        Scale::Manual { replicas } => (Replicas::Fixed(*replicas), None),
    };
    Children {
        service_account: ServiceAccount {
            metadata: metadata(agent),
            automount_service_account_token: Some(false),
            ..ServiceAccount::default()
        },
        config_map: config_map::build(agent),
        deployment: deployment::build(agent),
        replicas,
        service: service::build(agent),
        pdb: pdb::build(agent),
        hpa,
        ingress: ingress::build(agent),
        http_route: http_route::build(agent),
        network_policy: network_policy::build(agent),
        pod_monitor: pod_monitor::build(agent),
    }
}

/// The name of every child of an agent.
pub fn child_name(agent: &str) -> String {
    format!("{agent}-media")
}

/// The path of an agent's webhooks and streams on the gateway's host.
fn public_path(agent: &ValidatedAgent) -> String {
    format!("/{}/{}/twilio", agent.namespace, agent.name)
}

/// Metadata of a child.
fn metadata(agent: &ValidatedAgent) -> ObjectMeta {
    ObjectMeta {
        name: Some(child_name(&agent.name)),
        namespace: Some(agent.namespace.clone()),
        labels: Some(labels(&agent.name)),
        owner_references: agent.owner.clone().map(|o| vec![o]),
        ..ObjectMeta::default()
    }
}

/// The labels of every child and pod.
fn labels(agent: &str) -> BTreeMap<String, String> {
    let pairs = [
        ("app.kubernetes.io/name", "switchboard-media"),
        ("app.kubernetes.io/instance", agent),
        MANAGED_BY,
        (AGENT_LABEL, agent),
    ];
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// What selects the pods. Immutable on a Deployment, so it holds nothing that may change.
fn selector_labels(agent: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(AGENT_LABEL.to_owned(), agent.to_owned())])
}

fn selector(agent: &str) -> LabelSelector {
    LabelSelector { match_labels: Some(selector_labels(agent)), ..LabelSelector::default() }
}

#[cfg(test)]
mod tests;
