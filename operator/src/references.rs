//! What a resource refers to by name and key: fetched, or missing with a sentence that names it.
//!
//! A missing reference is a state of the world, not an error: it becomes a condition, and the watch on Secrets and
//! ConfigMaps wakes the resource when it appears. Values of Secrets leave this module only as [`twilio::Secret`].

use std::fmt;

use crds::conditions::Reason;
use crds::{ConfigMapKeyRef, SecretKeyRef};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};

/// Something a resource refers to that is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// No such Secret, or no such key in it.
    Secret(SecretKeyRef),
    /// No such ConfigMap, or no such key in it.
    ConfigMap(ConfigMapKeyRef),
    /// No such VoiceGateway.
    Gateway(String),
    /// The VoiceGateway has no stream keys yet.
    StreamKeys(String),
    /// No such VoiceAgent.
    Agent(String),
    /// The VoiceAgent is on another gateway than this one.
    AgentElsewhere {
        /// Its name.
        agent: String,
        /// The gateway it would have to be on.
        gateway: String,
    },
}

impl Missing {
    /// The word for the condition.
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Secret(_) => Reason::SecretNotFound,
            Self::ConfigMap(_) => Reason::ConfigMapNotFound,
            Self::Gateway(_) => Reason::GatewayNotFound,
            Self::StreamKeys(_) => Reason::GatewayNotReady,
            Self::Agent(_) => Reason::AgentNotFound,
            Self::AgentElsewhere { .. } => Reason::AgentOnOtherGateway,
        }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Secret(SecretKeyRef { name, key }) => {
                write!(f, "Secret {name} with the key {key} does not exist in this namespace: create it")
            }
            Self::ConfigMap(ConfigMapKeyRef { name, key }) => {
                write!(f, "ConfigMap {name} with the key {key} does not exist in this namespace: create it")
            }
            Self::Gateway(name) => {
                write!(
                    f,
                    "VoiceGateway {name} does not exist in this namespace: create it, or change gatewayRef"
                )
            }
            Self::StreamKeys(name) => {
                write!(f, "VoiceGateway {name} has no stream keys yet: see its conditions")
            }
            Self::Agent(name) => {
                write!(f, "VoiceAgent {name} does not exist in this namespace: create it, or change overflow")
            }
            Self::AgentElsewhere { agent, gateway } => {
                write!(
                    f,
                    "VoiceAgent {agent} is not on gateway {gateway}: change overflow, or its gatewayRef"
                )
            }
        }
    }
}

/// The sentence for several missing things.
pub fn sentence(missing: &[Missing]) -> String {
    missing.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Reads one key of a Secret as text. Trailing line ends are dropped: files made by an editor have them.
pub async fn fetch_secret(
    client: &Client,
    namespace: &str,
    reference: &SecretKeyRef,
) -> Result<Result<twilio::Secret, Missing>, kube::Error> {
    let secret = Api::<Secret>::namespaced(client.clone(), namespace).get_opt(&reference.name).await?;
    let value = secret
        .and_then(|s| s.data)
        .and_then(|mut data| data.remove(&reference.key))
        .and_then(|bytes| String::from_utf8(bytes.0).ok());
    Ok(match value {
        Some(text) if !text.trim_end().is_empty() => Ok(twilio::Secret::new(text.trim_end())),
        Some(_) | None => Err(Missing::Secret(reference.clone())),
    })
}
