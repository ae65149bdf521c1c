//! How the pods run in the cluster: who reaches them, who scrapes them, when a new operator changes their image.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::rule::only_with;

/// Who reaches the pods.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = only_with("Doors", "doors"))]
#[serde(rename_all = "camelCase")]
pub struct NetworkPolicy {
    /// `Doors`: a NetworkPolicy opens each of the pods' three ports to those who need it, and nothing else. It takes a
    /// network plugin that enforces it. `None`: no NetworkPolicy. What the pods reach themselves is never limited.
    #[serde(rename = "type", default)]
    pub kind: NetworkPolicyType,
    /// Settings of type `Doors`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doors: Option<NetworkPolicySettings>,
}

/// The kinds of network policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NetworkPolicyType {
    /// One per agent.
    #[default]
    Doors,
    /// None.
    None,
}

/// From where each port may be reached. Namespaces are named by their names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkPolicySettings {
    /// Namespaces of the edge (Ingress controller, Gateway) that brings the carrier's requests to port 8080. Without it
    /// from anywhere: many edges run on the nodes' own network, and every request is signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 63)))]
    pub public_namespaces: Option<Vec<String>>,
    /// Namespaces whose pods may use the HTTP API on port 8081, which asks for a token. Without it all of the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 63)))]
    pub api_namespaces: Option<Vec<String>>,
    /// Namespaces whose pods may read metrics and load on port 9090, beside the operator's: that of your Prometheus.
    /// Without it those that the operator was installed with (SWITCHBOARD_MONITORING_NAMESPACES).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 63)))]
    pub admin_namespaces: Option<Vec<String>>,
}

/// Who scrapes the pods' metrics.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = only_with("PodMonitor", "podMonitor"))]
#[serde(rename_all = "camelCase")]
pub struct Monitoring {
    /// `None`: nothing of the agent's own, because one PodMonitor of the chart covers all agents, or because Prometheus finds
    /// the pods' port `admin` by other means. `PodMonitor`: a PodMonitor of the agent's own for the Prometheus Operator,
    /// where the cluster has that kind; beside the chart's it would count everything twice.
    #[serde(rename = "type", default)]
    pub kind: MonitoringType,
    /// Settings of type `PodMonitor`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_monitor: Option<PodMonitorSettings>,
}

/// The ways to be scraped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MonitoringType {
    /// As the user arranges it.
    #[default]
    None,
    /// By a PodMonitor.
    PodMonitor,
}

/// The PodMonitor of an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PodMonitorSettings {
    /// Between two scrapes. The autoscaler is as slow as this.
    #[schemars(range(min = 1, max = 300))]
    pub interval_seconds: u32,
    /// Labels of the PodMonitor, for a Prometheus that selects by them (often `release`).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub labels: BTreeMap<String, String>,
}

impl Default for PodMonitorSettings {
    fn default() -> Self {
        Self { interval_seconds: 15, labels: BTreeMap::new() }
    }
}

/// When the default image of a new operator reaches the pods. It is of no concern to agents with an image of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct UpdatePolicy {
    /// `Automatic`: by itself, a few agents at a time (SWITCHBOARD_MAX_ROLLOUTS of the operator). `OnSpecChange`: with the
    /// next change of this agent's spec. The condition ImageCurrent says what is waited for.
    #[serde(rename = "type")]
    pub kind: UpdatePolicyType,
}

/// The update policies there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum UpdatePolicyType {
    /// By itself, a few agents at a time.
    #[default]
    Automatic,
    /// With the next change of the spec.
    OnSpecChange,
}
