//! Kinds of other projects, as far as the operator writes them. A cluster need not have them: nothing here is applied or
//! watched before discovery says that the API is there ([`crate::cache::offers`]).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::CustomResource;
use serde::{Deserialize, Serialize};

/// Which pods Prometheus scrapes (Prometheus Operator, `monitoring.coreos.com/v1`).
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "monitoring.coreos.com",
    version = "v1",
    kind = "PodMonitor",
    namespaced,
    schema = "disabled",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct PodMonitorSpec {
    /// Of the PodMonitor's namespace.
    pub selector: LabelSelector,
    /// Where and how often.
    pub pod_metrics_endpoints: Vec<PodMetricsEndpoint>,
}

/// A port to scrape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodMetricsEndpoint {
    /// The container port's name.
    pub port: String,
    /// The path.
    pub path: String,
    /// As Prometheus writes durations.
    pub interval: String,
    /// Labels of the target that its series get.
    pub relabelings: Vec<Relabeling>,
}

/// A label made of others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Relabeling {
    /// Of these.
    pub source_labels: Vec<String>,
    /// This one.
    pub target_label: String,
}

/// Requests of hosts to Services (Gateway API, `gateway.networking.k8s.io/v1`).
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "gateway.networking.k8s.io",
    version = "v1",
    kind = "HTTPRoute",
    plural = "httproutes",
    namespaced,
    schema = "disabled",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct HTTPRouteSpec {
    /// The Gateways that serve it.
    pub parent_refs: Vec<ParentRef>,
    /// Hosts.
    pub hostnames: Vec<String>,
    /// What goes where.
    pub rules: Vec<RouteRule>,
}

/// A Gateway, or one listener of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ParentRef {
    /// Name of the Gateway.
    pub name: String,
    /// Its namespace; the route's own without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The listener; all of them without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub section_name: Option<String>,
}

/// Matches, and where they go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteRule {
    /// Any of them.
    pub matches: Vec<RouteMatch>,
    /// How long a request may take.
    pub timeouts: RouteTimeouts,
    /// Services.
    pub backend_refs: Vec<BackendRef>,
}

/// What a request looks like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteMatch {
    /// Its path.
    pub path: PathMatch,
}

/// What a path looks like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathMatch {
    /// `PathPrefix`: by whole elements.
    #[serde(rename = "type")]
    pub kind: String,
    /// The prefix.
    pub value: String,
}

/// How long a request may take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteTimeouts {
    /// `0s`: as long as it takes; a call is one request.
    pub request: String,
}

/// A Service's port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendRef {
    /// Name of the Service.
    pub name: String,
    /// Its port.
    pub port: i32,
}
