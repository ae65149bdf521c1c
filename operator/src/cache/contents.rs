//! What Secrets and ConfigMaps hold, asked once per version.
//!
//! Of a Secret only the names of its keys are remembered, never a value. An object that the watch does not know is
//! asked for all the same: it may be newer than the watch.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use crds::{ConfigMapKeyRef, SecretKeyRef};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client, ResourceExt as _};

use super::{Cache, find};
use crate::references::Missing;

/// By namespace and name, a version and what it held.
type Known<V> = Mutex<HashMap<(String, String), (String, Arc<V>)>>;

/// What is remembered.
#[derive(Default)]
pub struct Contents {
    secrets: Known<BTreeSet<String>>,
    config_maps: Known<BTreeMap<String, String>>,
}

/// Which of the keys do not exist.
pub async fn missing_secrets(
    client: &Client,
    cache: &Cache,
    namespace: &str,
    references: impl IntoIterator<Item = SecretKeyRef>,
) -> Result<Vec<Missing>, kube::Error> {
    let references: BTreeSet<_> = references.into_iter().collect();
    let mut missing = Vec::new();
    for reference in references {
        let keys = secret_keys(client, cache, namespace, &reference.name).await?;
        if !keys.contains(&reference.key) {
            missing.push(Missing::Secret(reference));
        }
    }
    Ok(missing)
}

/// One key of a ConfigMap.
pub async fn config_map_value(
    client: &Client,
    cache: &Cache,
    namespace: &str,
    reference: &ConfigMapKeyRef,
) -> Result<Result<String, Missing>, kube::Error> {
    let name = &reference.name;
    let version = find(&cache.config_maps, namespace, name).and_then(|c| c.resource_version());
    let data = match recall(&cache.contents.config_maps, namespace, name, version.as_deref()) {
        Some(data) => data,
        None => {
            let api = Api::<ConfigMap>::namespaced(client.clone(), namespace);
            let found = api.get_opt(name).await?;
            let version = found.as_ref().and_then(ConfigMap::resource_version);
            let data = found.and_then(|c| c.data).unwrap_or_default();
            remember(&cache.contents.config_maps, namespace, name, version, data)
        }
    };
    Ok(data.get(&reference.key).cloned().ok_or_else(|| Missing::ConfigMap(reference.clone())))
}

async fn secret_keys(
    client: &Client,
    cache: &Cache,
    namespace: &str,
    name: &str,
) -> Result<Arc<BTreeSet<String>>, kube::Error> {
    let version = find(&cache.secrets, namespace, name).and_then(|s| s.resource_version());
    if let Some(keys) = recall(&cache.contents.secrets, namespace, name, version.as_deref()) {
        return Ok(keys);
    }
    let found = Api::<Secret>::namespaced(client.clone(), namespace).get_opt(name).await?;
    let version = found.as_ref().and_then(Secret::resource_version);
    let keys = found.and_then(|s| s.data).unwrap_or_default().into_keys().collect();
    Ok(remember(&cache.contents.secrets, namespace, name, version, keys))
}

fn recall<V>(known: &Known<V>, namespace: &str, name: &str, version: Option<&str>) -> Option<Arc<V>> {
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    let key = (namespace.to_owned(), name.to_owned());
    match known.get(&key) {
        Some((seen, held)) if Some(seen.as_str()) == version => Some(held.clone()),
        // Another version, or gone: what is remembered is of no use to anybody.
        Some(_) => {
            known.remove(&key);
            None
        }
        None => None,
    }
}

fn remember<V>(known: &Known<V>, namespace: &str, name: &str, version: Option<String>, held: V) -> Arc<V> {
    let held = Arc::new(held);
    if let Some(version) = version {
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert((namespace.to_owned(), name.to_owned()), (version, held.clone()));
    }
    held
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_version_held_is_recalled_for_that_version_only() {
        let known = Known::<u8>::default();
        assert_eq!(recall(&known, "a", "b", Some("1")), None);
        remember(&known, "a", "b", Some("1".to_owned()), 7);
        assert_eq!(recall(&known, "a", "b", Some("1")).as_deref(), Some(&7));
        assert_eq!(recall(&known, "a", "other", Some("1")), None);
        assert_eq!(recall(&known, "a", "b", Some("2")), None);
        assert_eq!(recall(&known, "a", "b", Some("1")), None, "forgotten with its version");
    }

    #[test]
    fn absence_is_never_remembered() {
        let known = Known::<u8>::default();
        remember(&known, "a", "b", None, 0);
        assert_eq!(recall(&known, "a", "b", None), None);
    }
}
