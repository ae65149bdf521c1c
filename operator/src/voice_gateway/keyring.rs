//! The stream keyring: made with a random key, and rotated (`rotation`). Each step is one write of the Secret, with the
//! version it was decided on, and all that is remembered between steps is in the Secret.
//!
//! Pods of every agent of the gateway mount it. A keyring that cannot be read is left alone, because calls may be
//! running on it; the condition says so.

mod rotation;

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use call_session::Redacted;
use call_session::agent_file::{KEYRING_FILE, Keyring};
use crds::{StreamKeys, VoiceGateway};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::events::EventType;
use kube::{Api, Resource as _, ResourceExt as _};
use serde_json::json;

use super::pods;
use crate::apply::{FIELD_MANAGER, is_conflict};
use crate::context::Context;
use crate::finding::Finding;
use crate::report;
use crate::voice_agent::build::MANAGED_BY;
pub(super) use rotation::PodKeys;
use rotation::{Ring, Step, Wishes};

/// On a VoiceGateway: another value than before asks for a rotation at once.
pub const ROTATE_ANNOTATION: &str = "switchboard.dev/rotate-stream-keys";
/// On the Secret: when the signing key became that.
const SINCE_ANNOTATION: &str = "switchboard.dev/signing-since";
/// On the Secret: the key that is published and does not sign yet.
const NEXT_ANNOTATION: &str = "switchboard.dev/next-key";
/// On the Secret: the last request for a rotation that was followed.
const ROTATED_FOR_ANNOTATION: &str = "switchboard.dev/rotated-for";

/// The Secret of a gateway's keyring.
pub fn secret_name(gateway: &str) -> String {
    format!("{gateway}-stream-keys")
}

/// Where the keys stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// For the status.
    pub keys: StreamKeys,
    /// For the condition.
    pub rotation: Finding,
    /// When there is something to do again.
    pub look_again: Duration,
}

/// The keyring cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// The API server failed or refused.
    #[error(transparent)]
    Cluster(Box<kube::Error>),
    /// There is a Secret of that name with another content.
    #[error("Secret {0} does not hold a keyring under {KEYRING_FILE}: delete it, and a new one is made")]
    Unreadable(String),
    /// The operating system gave no random bytes.
    #[error("no random bytes")]
    Random,
}

impl From<kube::Error> for KeyringError {
    fn from(error: kube::Error) -> Self {
        Self::Cluster(Box::new(error))
    }
}

/// Reads the keyring, or makes it where there is none, and takes the next step of its rotation.
pub async fn tend(context: &Context, gateway: &VoiceGateway) -> Result<Keys, KeyringError> {
    let name = secret_name(&gateway.name_any());
    let secret = ensure(context, gateway, &name).await?;
    let ring = read(&secret, &name)?;
    let request = gateway.annotations().get(ROTATE_ANNOTATION).cloned();
    let wishes = Wishes { max_age: rotation::days(gateway.spec.stream_keys.max_age_days), request };
    let said = if ring.is_rotating() { pods::fetch_keys(context, gateway).await } else { Vec::new() };
    let now = Timestamp::now();
    let (step, finding) = ring.plan(&wishes, &said, now);
    let (next, word) = match step {
        Step::Wait(look_again) => {
            return Ok(Keys { keys: describe(&ring, name), rotation: finding, look_again });
        }
        Step::Publish(id) => (ring.published(id, random_key()?, wishes.request.clone()), "published"),
        Step::Promote => (ring.promoted(now), "promoted"),
        Step::Retire => (ring.retired(), "retired"),
    };
    write(context, &secret, &next).await?;
    let signing = next.keyring.signing.clone();
    tracing::info!(signing, step = word, "stream keys");
    let note = format!("a stream key was {word}; {signing} signs");
    report::tell(context, gateway, EventType::Normal, "StreamKeysRotated", &note).await;
    if next.is_rotating() {
        let version = format!("{signing}-{}", next.next.as_deref().unwrap_or("none"));
        pods::nudge(context, gateway, &version).await;
    }
    // Nobody has it yet, so where the next step stands is only known when the pods were asked again.
    let (_, rotation) = next.plan(&wishes, &[None], now);
    Ok(Keys { keys: describe(&next, name), rotation, look_again: Duration::from_secs(1) })
}

async fn ensure(context: &Context, gateway: &VoiceGateway, name: &str) -> Result<Secret, KeyringError> {
    let api = Api::<Secret>::namespaced(context.client.clone(), &gateway.namespace().unwrap_or_default());
    if let Some(found) = api.get_opt(name).await? {
        return Ok(found);
    }
    let parameters = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    match api.create(&parameters, &new_secret(gateway, Timestamp::now())?).await {
        Ok(made) => Ok(made),
        // Another replica made it in between.
        Err(error) if is_conflict(&error) => Ok(api.get(name).await?),
        Err(error) => Err(error.into()),
    }
}

/// Writes a ring over the one that was read; a conflict if that changed.
async fn write(context: &Context, secret: &Secret, ring: &Ring) -> Result<(), KeyringError> {
    let Ring { keyring, signing_since, next, rotated_for } = ring;
    let patch = json!({
        "metadata": {
            "resourceVersion": secret.resource_version(),
            "annotations": {
                SINCE_ANNOTATION: signing_since.to_string(),
                NEXT_ANNOTATION: next,
                ROTATED_FOR_ANNOTATION: rotated_for,
            },
        },
        "data": {KEYRING_FILE: ByteString(to_json(keyring))},
    });
    let api = Api::<Secret>::namespaced(context.client.clone(), &secret.namespace().unwrap_or_default());
    let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    api.patch(&secret.name_any(), &parameters, &Patch::Merge(patch)).await?;
    Ok(())
}

fn read(secret: &Secret, name: &str) -> Result<Ring, KeyringError> {
    let bytes = secret.data.as_ref().and_then(|d| d.get(KEYRING_FILE));
    let keyring = bytes.and_then(|b| serde_json::from_slice::<Keyring>(&b.0).ok());
    let keyring = keyring.filter(|Keyring { signing, keys }| keys.contains_key(signing));
    let keyring = keyring.ok_or_else(|| KeyringError::Unreadable(name.to_owned()))?;
    let said = |annotation: &str| secret.annotations().get(annotation).cloned();
    // One that is not in the ring says nothing.
    let next = said(NEXT_ANNOTATION).filter(|id| keyring.keys.contains_key(id) && *id != keyring.signing);
    let since = said(SINCE_ANNOTATION).and_then(|since| since.parse().ok());
    let made = secret.creation_timestamp().map(|Time(made)| made);
    let signing_since = since.or(made).unwrap_or_else(Timestamp::now);
    Ok(Ring { keyring, signing_since, next, rotated_for: said(ROTATED_FOR_ANNOTATION) })
}

fn describe(ring: &Ring, secret_name: String) -> StreamKeys {
    // The API server keeps whole seconds; a finer time would look like a change at every reconciliation.
    let since = Timestamp::from_second(ring.signing_since.as_second()).unwrap_or(ring.signing_since);
    StreamKeys {
        secret_name,
        signing: ring.keyring.signing.clone(),
        signing_since: Some(Time(since)),
        verifying: ring.keyring.keys.keys().cloned().collect(),
    }
}

fn to_json(keyring: &Keyring) -> Vec<u8> {
    serde_json::to_vec(keyring).expect("a keyring has only string keys")
}

fn new_secret(gateway: &VoiceGateway, now: Timestamp) -> Result<Secret, KeyringError> {
    let keyring = Keyring {
        signing: FIRST_KEY.to_owned(),
        keys: BTreeMap::from([(FIRST_KEY.to_owned(), random_key()?)]),
    };
    let (key, value) = MANAGED_BY;
    Ok(Secret {
        metadata: ObjectMeta {
            name: Some(secret_name(&gateway.name_any())),
            namespace: gateway.namespace(),
            labels: Some([(key.to_owned(), value.to_owned())].into()),
            annotations: Some([(SINCE_ANNOTATION.to_owned(), now.to_string())].into()),
            owner_references: gateway.controller_owner_ref(&()).map(|o| vec![o]),
            ..ObjectMeta::default()
        },
        data: Some([(KEYRING_FILE.to_owned(), ByteString(to_json(&keyring)))].into()),
        ..Secret::default()
    })
}

const FIRST_KEY: &str = "k1";

fn random_key() -> Result<Redacted<String>, KeyringError> {
    let mut key = [0; 32];
    let random = rustls::crypto::ring::default_provider().secure_random;
    random.fill(&mut key).map_err(|_| KeyringError::Random)?;
    Ok(Redacted::new(STANDARD.encode(key)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn a_new_keyring_is_readable_and_every_one_is_different() {
        let gateway = testing::gateway();
        let now = Timestamp::from_second(7).unwrap();
        let secrets = [new_secret(&gateway, now).unwrap(), new_secret(&gateway, now).unwrap()];
        assert_ne!(secrets[0].data, secrets[1].data);
        let ring = read(&secrets[0], "default-stream-keys").unwrap();
        assert_eq!((ring.signing_since, &ring.next), (now, &None));
        let keys = describe(&ring, "default-stream-keys".to_owned());
        assert_eq!(keys.signing, "k1");
        assert_eq!(keys.verifying, ["k1"]);
        assert_eq!(secrets[0].metadata.name.as_deref(), Some("default-stream-keys"));
    }

    #[test]
    fn what_the_status_says_survives_the_api_server() {
        let now = "2026-01-02T03:04:05.678Z".parse().unwrap();
        let secret = new_secret(&testing::gateway(), now).unwrap();
        let keys = describe(&read(&secret, "s").unwrap(), "s".to_owned());
        let stored: StreamKeys = serde_json::from_value(serde_json::to_value(&keys).unwrap()).unwrap();
        assert_eq!(stored, keys);
    }

    #[test]
    fn a_keyring_without_its_signing_key_is_refused() {
        let secret = Secret {
            data: Some(
                [(KEYRING_FILE.to_owned(), ByteString(br#"{"signing":"k2","keys":{}}"#.to_vec()))].into(),
            ),
            ..Secret::default()
        };
        assert!(matches!(read(&secret, "a"), Err(KeyringError::Unreadable(_))));
    }
}
