//! `VoiceGateway`: what agents on one carrier account share and trust.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::SecretKeyRef;
use crate::rule::{needs_member, only_with, short_name};

/// What the agents on one carrier account share and trust: the account and its credentials, the public URL the
/// carrier calls, how that URL reaches the pods, the keys that sign media streams, and the store of session state.
/// Agents and numbers use a gateway of their own namespace, by default the one named `default`.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "switchboard.dev",
    version = "v1alpha1",
    kind = "VoiceGateway",
    plural = "voicegateways",
    shortname = "vgw",
    category = "switchboard",
    namespaced,
    status = "VoiceGatewayStatus",
    derive = "PartialEq",
    doc = "What agents on one carrier account share and trust: account, public URL, exposure, stream keys, store.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#
    ),
    printcolumn(name = "URL", type_ = "string", json_path = ".spec.publicUrl"),
    printcolumn(name = "Store", type_ = "string", json_path = ".spec.store.type"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = short_name()
)]
#[x_kube(
    validation = Rule::new("self.exposure.type != 'Ingress' || self.publicUrl.matches('^https://[^/]+$')")
        .message("with exposure type Ingress, publicUrl is a scheme and a host without a path (https://voice.example.com), because an Ingress does not rewrite paths: remove the path, or set exposure.type to None and route yourself"),
    validation = Rule::new("self.exposure.type != 'HTTPRoute' || self.publicUrl.matches('^https://[^/]+$')")
        .message("with exposure type HTTPRoute, publicUrl is a scheme and a host without a path (https://voice.example.com), because the route does not rewrite paths: remove the path, or set exposure.type to None and route yourself")
)]
#[serde(rename_all = "camelCase")]
pub struct VoiceGatewaySpec {
    /// What the carrier calls from the internet: `https://`, a host, and optionally a path prefix that your own edge
    /// removes; no slash at the end, and no port but 443, the only one it opens media streams to. Webhooks are `<publicUrl>/<namespace>/<agent>/twilio/...`, and their
    /// signatures are checked against this URL, never against the Host header.
    #[schemars(length(min = 9, max = 256))]
    #[x_kube(
        validation = Rule::new("self.startsWith('https://') && isURL(self)")
            .message("publicUrl must be an https:// URL with a host, such as https://voice.example.com: the carrier sends callers' audio there"),
        validation = Rule::new("!self.endsWith('/') && !self.contains('?') && !self.contains('#') && !self.contains('@')")
            .message("publicUrl must not end with '/' nor hold '?', '#' or '@': paths are appended to it"),
        validation = Rule::new("!self.matches('^https://[^/]*:[0-9]*(/|$)') || self.matches('^https://[^/]*:443(/|$)')")
            .message("publicUrl must name no port but 443, the only one that Twilio opens media streams to: let your edge listen on 443 and remove the port")
    )]
    pub public_url: String,
    /// How requests to the public URL reach the media pods.
    #[serde(default)]
    pub exposure: Exposure,
    /// The carrier account that calls come from.
    pub carrier: Carrier,
    /// Where session state lives that more than one pod must know.
    pub store: Store,
    /// The keys that sign the tokens of media streams.
    #[serde(default)]
    pub stream_keys: StreamKeyPolicy,
}

/// When the keys that sign media stream tokens are replaced. A new key is published first, signs when every pod has it,
/// and the old one goes when its last token is past: no call notices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StreamKeyPolicy {
    /// Days after which a key is replaced. To replace it at once, give the annotation
    /// switchboard.dev/rotate-stream-keys another value, such as today's date.
    #[serde(default = "default_max_age_days")]
    #[schemars(range(min = 1, max = 3650))]
    pub max_age_days: u32,
}

impl Default for StreamKeyPolicy {
    fn default() -> Self {
        Self { max_age_days: default_max_age_days() }
    }
}

const fn default_max_age_days() -> u32 {
    90
}

/// How requests to the public URL reach the media pods.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(
    validation = only_with("Ingress", "ingress"),
    validation = needs_member("HTTPRoute", "httpRoute"),
    validation = only_with("HTTPRoute", "httpRoute")
)]
#[serde(rename_all = "camelCase")]
pub struct Exposure {
    /// `Ingress`: one Ingress per agent with the path `/<namespace>/<agent>/twilio`. `HTTPRoute`: the same as a route of
    /// the Gateway API, which the cluster must have. `None`: the operator makes only
    /// Services, and you route to them yourself.
    #[serde(rename = "type", default)]
    pub kind: ExposureType,
    /// Settings of type `Ingress`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<IngressExposure>,
    /// Settings of type `HTTPRoute`.
    #[serde(rename = "httpRoute", default, skip_serializing_if = "Option::is_none")]
    pub http_route: Option<HTTPRouteExposure>,
    /// For how long the edge keeps the connections of a pod that leaves, if you know it: an ALB's deregistration delay, a
    /// load balancer's connection draining. An agent whose pods take longer (`drain.windowSeconds` and 30 seconds) is
    /// not accepted then, because the edge would cut its calls off before they are handed over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 30, max = 86400))]
    pub drain_seconds: Option<u32>,
}

/// The kinds of exposure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ExposureType {
    /// An Ingress per agent.
    #[default]
    Ingress,
    /// A route of the Gateway API per agent.
    HTTPRoute,
    /// Nothing: the user routes.
    None,
}

/// Settings of the Ingress of each agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IngressExposure {
    /// The IngressClass; without it the cluster's default class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub class_name: Option<String>,
    /// A Secret of type kubernetes.io/tls for the host, in the same namespace; without it the controller's default
    /// certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub tls_secret_name: Option<String>,
    /// Annotations for the Ingress, such as the controller's timeouts: a call is one WebSocket, on which the agent may
    /// be silent for minutes (for ingress-nginx set proxy-read-timeout and proxy-send-timeout to "3600").
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub annotations: BTreeMap<String, String>,
}

/// Settings of the HTTPRoute of each agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HTTPRouteExposure {
    /// The Gateways that serve the public URL's host. A call is one WebSocket, on which the agent may be silent for
    /// minutes: the Gateway's idle timeout must allow for that, and its draining for the agents' drain windows.
    #[schemars(length(min = 1, max = 8))]
    pub parent_refs: Vec<GatewayParentRef>,
}

/// A Gateway of the Gateway API, or one listener of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayParentRef {
    /// Name of the Gateway.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its namespace; this one without it. The Gateway must allow routes from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
    /// Name of the listener; all that fit without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub section_name: Option<String>,
}

/// The carrier account that calls come from.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = needs_member("Twilio", "twilio"))]
#[serde(rename_all = "camelCase")]
pub struct Carrier {
    /// Which carrier.
    #[serde(rename = "type")]
    pub kind: CarrierType,
    /// Settings of type `Twilio`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub twilio: Option<TwilioCarrier>,
}

/// The carriers there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CarrierType {
    /// Twilio Programmable Voice.
    Twilio,
}

/// A Twilio account.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TwilioCarrier {
    /// The account, `AC` and 32 hexadecimal digits. Immutable: another account is another gateway.
    #[schemars(length(min = 34, max = 34), regex(pattern = r"^AC[0-9a-fA-F]{32}$"))]
    #[x_kube(
        validation = Rule::new("self == oldSelf")
            .message("accountSid is immutable, because numbers and their former webhooks belong to the account: make a second VoiceGateway for the other account")
    )]
    pub account_sid: String,
    /// One or two keys that hold an auth token of the account (an API key cannot verify signatures). All of them verify
    /// webhook signatures; for REST the first that Twilio takes is used. Two are for the time of a rotation.
    #[schemars(length(min = 1, max = 2))]
    pub auth_token_secret_refs: Vec<SecretKeyRef>,
    /// An API key for the operator's own REST requests (numbers, the account), so that they go on when an auth token is
    /// revoked, and can be revoked without one. Media pods use the auth token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key: Option<TwilioApiKey>,
    /// Base of the REST API: a region of Twilio's, or a simulator.
    #[serde(default = "default_api_base_url")]
    #[schemars(length(min = 8, max = 256), regex(pattern = r"^https?://[^?#]*[^/?#]$"))]
    pub api_base_url: String,
}

/// An API key of a Twilio account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TwilioApiKey {
    /// The key's id, `SK` and 32 hexadecimal digits.
    #[schemars(length(min = 34, max = 34), regex(pattern = r"^SK[0-9a-fA-F]{32}$"))]
    pub sid: String,
    /// The key that holds the API key's secret.
    pub secret_ref: SecretKeyRef,
}

fn default_api_base_url() -> String {
    "https://api.twilio.com".to_owned()
}

/// Where session state lives that more than one pod must know.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = needs_member("Redis", "redis"), validation = only_with("Redis", "redis"))]
#[serde(rename_all = "camelCase")]
pub struct Store {
    /// `Redis`: any pod can answer any request of a call, and calls outlive pods. `Memory`: in each pod alone, for one
    /// pod and for trying things out; the condition StoreShared says what is lost.
    #[serde(rename = "type")]
    pub kind: StoreType,
    /// Settings of type `Redis`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis: Option<RedisStore>,
}

/// The stores there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StoreType {
    /// Redis.
    Redis,
    /// Each pod's memory.
    Memory,
}

/// A Redis server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RedisStore {
    /// The key that holds the URL, `redis://` or `rediss://`, with user and password.
    pub url_secret_ref: SecretKeyRef,
}

/// What the operator found and made.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VoiceGatewayStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The keys that sign media stream tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_keys: Option<StreamKeys>,
    /// Ready, CredentialsVerified, StreamKeysCurrent, StoreShared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    pub conditions: Vec<Condition>,
}

/// The keys that sign media stream tokens, by id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StreamKeys {
    /// The Secret that holds them.
    #[schemars(length(max = 253))]
    pub secret_name: String,
    /// The key that signs new tokens.
    #[schemars(length(max = 63))]
    pub signing: String,
    /// Since when it signs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_since: Option<Time>,
    /// The keys that verify tokens.
    #[schemars(length(max = 16), inner(length(max = 63)))]
    pub verifying: Vec<String>,
}
