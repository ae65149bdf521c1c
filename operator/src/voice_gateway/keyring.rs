//! The stream keyring: made once with a random key, never overwritten.
//!
//! Pods of every agent of the gateway mount it. A keyring that cannot be read is left alone, because calls may be
//! running on it; the condition says so.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use call_session::Redacted;
use call_session::agent_file::{KEYRING_FILE, Keyring};
use crds::{StreamKeys, VoiceGateway};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client, Resource as _, ResourceExt as _};

use crate::apply::{FIELD_MANAGER, is_conflict};
use crate::voice_agent::build::MANAGED_BY;

/// The Secret of a gateway's keyring.
pub fn secret_name(gateway: &str) -> String {
    format!("{gateway}-stream-keys")
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

/// Reads the keyring, or makes it where there is none.
pub async fn ensure(client: &Client, gateway: &VoiceGateway) -> Result<StreamKeys, KeyringError> {
    let api = Api::<Secret>::namespaced(client.clone(), &gateway.namespace().unwrap_or_default());
    let name = secret_name(&gateway.name_any());
    if let Some(found) = api.get_opt(&name).await? {
        return describe(&found, name);
    }
    let parameters = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    match api.create(&parameters, &new_secret(gateway)?).await {
        Ok(made) => describe(&made, name),
        // Another replica made it in between.
        Err(error) if is_conflict(&error) => describe(&api.get(&name).await?, name),
        Err(error) => Err(error.into()),
    }
}

fn describe(secret: &Secret, secret_name: String) -> Result<StreamKeys, KeyringError> {
    let bytes = secret.data.as_ref().and_then(|d| d.get(KEYRING_FILE));
    let keyring = bytes.and_then(|b| serde_json::from_slice::<Keyring>(&b.0).ok());
    match keyring {
        Some(Keyring { signing, keys }) if keys.contains_key(&signing) => {
            Ok(StreamKeys { secret_name, signing, verifying: keys.into_keys().collect() })
        }
        Some(_) | None => Err(KeyringError::Unreadable(secret_name)),
    }
}

fn new_secret(gateway: &VoiceGateway) -> Result<Secret, KeyringError> {
    let keyring = Keyring {
        signing: FIRST_KEY.to_owned(),
        keys: BTreeMap::from([(FIRST_KEY.to_owned(), random_key()?)]),
    };
    let json = serde_json::to_vec(&keyring).expect("a keyring has only string keys");
    let (key, value) = MANAGED_BY;
    Ok(Secret {
        metadata: ObjectMeta {
            name: Some(secret_name(&gateway.name_any())),
            namespace: gateway.namespace(),
            labels: Some([(key.to_owned(), value.to_owned())].into()),
            owner_references: gateway.controller_owner_ref(&()).map(|o| vec![o]),
            ..ObjectMeta::default()
        },
        data: Some([(KEYRING_FILE.to_owned(), ByteString(json))].into()),
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
        let secrets = [new_secret(&gateway).unwrap(), new_secret(&gateway).unwrap()];
        assert_ne!(secrets[0].data, secrets[1].data);
        let keys = describe(&secrets[0], "default-stream-keys".to_owned()).unwrap();
        assert_eq!(keys.signing, "k1");
        assert_eq!(keys.verifying, ["k1"]);
        assert_eq!(secrets[0].metadata.name.as_deref(), Some("default-stream-keys"));
    }

    #[test]
    fn a_keyring_without_its_signing_key_is_refused() {
        let secret = Secret {
            data: Some(
                [(KEYRING_FILE.to_owned(), ByteString(br#"{"signing":"k2","keys":{}}"#.to_vec()))].into(),
            ),
            ..Secret::default()
        };
        assert!(matches!(describe(&secret, "a".to_owned()), Err(KeyringError::Unreadable(_))));
    }
}
