//! `PhoneNumber`: a number and its weighted routes.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::rule::{needs_member, only_with};
use crate::{AgentRef, GatewayRef};

/// A phone number of the gateway's account and the agents that answer it. The operator sets the number's webhooks at the
/// carrier, watches them for drift, and puts back what it found when this object is deleted.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "switchboard.dev",
    version = "v1alpha1",
    kind = "PhoneNumber",
    plural = "phonenumbers",
    shortname = "pnum",
    category = "switchboard",
    namespaced,
    status = "PhoneNumberStatus",
    derive = "PartialEq",
    doc = "A phone number of the gateway's account and the agents that answer it.",
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
    printcolumn(name = "Number", type_ = "string", json_path = ".status.e164"),
    printcolumn(name = "Agent", type_ = "string", json_path = ".status.entryAgent"),
    printcolumn(name = "SID", type_ = "string", json_path = ".status.sid", priority = "1"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(
    validation = Rule::new("self.deletionPolicy != 'Release' || self.source.type == 'Purchase'")
        .message("deletionPolicy Release gives a number back to the carrier for good, so it is only for bought ones: set source.type to Purchase, or deletionPolicy to Restore or Retain")
)]
#[serde(rename_all = "camelCase")]
pub struct PhoneNumberSpec {
    /// The VoiceGateway of this namespace whose account owns the number. Immutable.
    #[serde(default)]
    #[x_kube(
        validation = Rule::new("self == oldSelf")
            .message("gatewayRef is immutable, because the number's former webhooks belong to that gateway's account: delete this PhoneNumber and create it anew")
    )]
    pub gateway_ref: GatewayRef,
    /// Which number. Immutable.
    #[x_kube(
        validation = Rule::new("self == oldSelf")
            .message("source is immutable, because the former webhooks of that number must be put back: delete this PhoneNumber and create another one")
    )]
    pub source: NumberSource,
    /// The agents that share the number's calls, all on the same gateway. A hash of the call's id picks one, so every
    /// retry of the same call goes to the same agent.
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(
        validation = Rule::new("self.all(r, self.exists_one(o, o.agentRef.name == r.agentRef.name))")
            .message("routes name an agent twice: add the weights up in one route"),
        validation = Rule::new("self.exists(r, r.weight > 0)")
            .message("every route has weight 0, so no agent would answer: give at least one route a weight above 0")
    )]
    pub routes: Vec<NumberRoute>,
    /// What the carrier asks for instructions when no pod answers: an https URL that returns TwiML.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 9, max = 1024), regex(pattern = r"^https://\S+$"))]
    pub fallback_url: Option<String>,
    /// What to do with a number whose webhooks already point at another Switchboard. `IfUnclaimed`: leave it alone and
    /// say so. `Force`: take it over.
    #[serde(default)]
    pub claim_policy: ClaimPolicy,
    /// What to do when somebody changes the webhooks at the carrier. `Enforce`: set them again. `Warn`: leave them and
    /// say so.
    #[serde(default)]
    pub drift_policy: DriftPolicy,
    /// What happens to the number when this object is deleted. `Restore`: the webhooks become what they were before, and
    /// the number stays in the account. `Retain`: nothing is touched. `Release`: a number that was bought for this object
    /// is given back to the carrier for good; nobody can promise that it can be had again.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// Which number.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(
    validation = needs_member("E164", "e164"),
    validation = only_with("E164", "e164"),
    validation = needs_member("SID", "sid"),
    validation = only_with("SID", "sid"),
    validation = needs_member("Purchase", "purchase"),
    validation = only_with("Purchase", "purchase")
)]
#[serde(rename_all = "camelCase")]
pub struct NumberSource {
    /// `E164`: a number the account owns, by its digits. `SID`: the same by the carrier's id. `Purchase`: a number that is
    /// bought for this object, once; it costs money every month until it is released.
    #[serde(rename = "type")]
    pub kind: NumberSourceType,
    /// The number in E.164 form, for type `E164`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 16), regex(pattern = r"^\+[1-9][0-9]{1,14}$"))]
    pub e164: Option<String>,
    /// The carrier's id of the number, `PN` and 32 hexadecimal digits, for type `SID`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 34, max = 34), regex(pattern = r"^PN[0-9a-fA-F]{32}$"))]
    pub sid: Option<String>,
    /// What to buy, for type `Purchase`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purchase: Option<NumberPurchase>,
}

/// Which number to buy: the first for sale that can take calls and fits. Numbers that need an address or other papers on
/// file come last, and the carrier refuses them where there are none.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("!has(self.areaCode) || self.country in ['US', 'CA']")
        .message("areaCode is for numbers of the US and Canada: remove areaCode, and use contains for the beginning of the number")
)]
#[serde(rename_all = "camelCase")]
pub struct NumberPurchase {
    /// The country, as ISO 3166-1 names it in two letters: `US`, `GB`.
    #[schemars(length(min = 2, max = 2), regex(pattern = r"^[A-Z]{2}$"))]
    pub country: String,
    /// The kind of number.
    #[serde(default)]
    pub number_type: PurchaseType,
    /// North American area code, such as 808.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 200, max = 999))]
    pub area_code: Option<u32>,
    /// Digits that the number has, 2 to 16, in a row; `*` stands for any one digit, letters for their keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 16), regex(pattern = r"^[0-9A-Za-z*]+$"))]
    pub contains: Option<String>,
}

/// The kinds of numbers for sale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PurchaseType {
    /// A number of a city or region.
    #[default]
    Local,
    /// A number that is free for the caller.
    TollFree,
    /// A mobile number.
    Mobile,
}

/// The ways to name a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NumberSourceType {
    /// By its digits.
    E164,
    /// By the carrier's id.
    SID,
    /// By what is bought.
    Purchase,
}

/// One agent's share of a number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NumberRoute {
    /// The agent.
    pub agent_ref: AgentRef,
    /// Its share, in relation to the sum of all weights; 0 takes no calls.
    #[serde(default = "default_weight")]
    #[schemars(range(min = 0, max = 1000))]
    pub weight: u32,
}

const fn default_weight() -> u32 {
    100
}

/// What to do with a number that another Switchboard uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ClaimPolicy {
    /// Leave it alone.
    #[default]
    IfUnclaimed,
    /// Take it over.
    Force,
}

/// What to do about changes at the carrier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DriftPolicy {
    /// Undo them.
    #[default]
    Enforce,
    /// Report them.
    Warn,
}

/// What happens to a number when its object is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// Its former webhooks are put back.
    #[default]
    Restore,
    /// It stays as it is.
    Retain,
    /// It is given back to the carrier, if it was bought for the object.
    Release,
}

/// What the operator found and did.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PhoneNumberStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The carrier's id of the number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 34))]
    pub sid: Option<String>,
    /// The number in E.164 form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub e164: Option<String>,
    /// How the number was bought, for source type `Purchase`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purchase: Option<PurchaseRecord>,
    /// The agent whose pods the carrier asks; it stays the same while it has a route, so that changing weights does not
    /// touch the carrier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    pub entry_agent: Option<String>,
    /// What the carrier was last told to ask for instructions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub voice_url: Option<String>,
    /// While the carrier is told a new `voiceUrl`: what it may still have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moving_from: Option<FormerEntry>,
    /// The generation of the spec that the carrier last had: what differs from it was changed by somebody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub synced_generation: Option<i64>,
    /// The webhooks as they were before, for deletionPolicy `Restore`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original: Option<NumberWebhooks>,
    /// Ready, Bound, RoutesResolved, InSync.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    pub conditions: Vec<Condition>,
}

impl PhoneNumberStatus {
    /// Whether a voice URL is what the carrier was told last, or what it may still have.
    pub fn has_told(&self, voice_url: &str) -> bool {
        let former = self.moving_from.as_ref().map(|former| former.voice_url.as_str());
        [self.voice_url.as_deref(), former].contains(&Some(voice_url))
    }

    /// The agents whose pods the carrier asks, or may still ask.
    pub fn entries(&self) -> impl Iterator<Item = &str> {
        let former = self.moving_from.as_ref().map(|former| former.entry_agent.as_str());
        self.entry_agent.as_deref().into_iter().chain(former)
    }
}

/// Where a number's calls entered before. Whether the carrier has taken what it is told is known only when it says so:
/// until then its calls may come here, and what it shows is nobody else's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FormerEntry {
    /// The agent whose pods the carrier asked.
    #[schemars(length(max = 40))]
    pub entry_agent: String,
    /// What it asked for instructions.
    #[schemars(length(max = 2048))]
    pub voice_url: String,
}

/// How a number was bought. Whatever happens to the operator, no second one is: the candidate is here before it is bought,
/// a number can be bought only once, and at the carrier it is named after this object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PurchaseRecord {
    /// The number that was chosen, in E.164 form.
    #[schemars(length(max = 16))]
    pub candidate: String,
    /// When the carrier was first seen to have it in the account. Without it the purchase is still under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bought_at: Option<Time>,
}

/// The settings of a number that decide where its calls go. Empty: not set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NumberWebhooks {
    /// Asked when a call comes in.
    #[schemars(length(max = 2048))]
    pub voice_url: String,
    /// HTTP method of voiceUrl.
    #[schemars(length(max = 8))]
    pub voice_method: String,
    /// Asked when voiceUrl does not answer.
    #[schemars(length(max = 2048))]
    pub voice_fallback_url: String,
    /// HTTP method of voiceFallbackUrl.
    #[schemars(length(max = 8))]
    pub voice_fallback_method: String,
    /// Told when a call's status changes.
    #[schemars(length(max = 2048))]
    pub status_callback: String,
    /// HTTP method of statusCallback.
    #[schemars(length(max = 8))]
    pub status_callback_method: String,
    /// A TwiML application that overrides voiceUrl.
    #[schemars(length(max = 64))]
    pub voice_application_sid: String,
    /// A SIP trunk that overrides voiceUrl.
    #[schemars(length(max = 64))]
    pub trunk_sid: String,
}
