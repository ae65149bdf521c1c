//! What Secrets and ConfigMaps hold, asked once per version, however many agents want to know at the same time.
//!
//! Of a Secret only the names of its keys are remembered, never a value. An object that the watch does not know is
//! asked for all the same: it may be newer than the watch.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use crds::{ConfigMapKeyRef, SecretKeyRef};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client, ResourceExt as _};
use tokio::sync::OnceCell;

use super::{Cache, find};
use crate::references::Missing;

/// What one version of an object held, or a newer one: empty until the first who wanted to know has been answered.
type Version<V> = Arc<OnceCell<Arc<V>>>;

/// Namespace and name.
type Key = (String, String);

/// By object, the version that the watch knew last.
#[derive(Debug)]
struct Known<V>(Mutex<HashMap<Key, (String, Version<V>)>>);

/// What is remembered.
#[derive(Debug, Default)]
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
    let asked = cache.contents.config_maps.version(namespace, name, version);
    let data = asked
        .get_or_try_init(async || {
            let found = Api::<ConfigMap>::namespaced(client.clone(), namespace).get_opt(name).await?;
            Ok::<_, kube::Error>(Arc::new(found.and_then(|c| c.data).unwrap_or_default()))
        })
        .await?;
    Ok(data.get(&reference.key).cloned().ok_or_else(|| Missing::ConfigMap(reference.clone())))
}

async fn secret_keys(
    client: &Client,
    cache: &Cache,
    namespace: &str,
    name: &str,
) -> Result<Arc<BTreeSet<String>>, kube::Error> {
    let version = find(&cache.secrets, namespace, name).and_then(|s| s.resource_version());
    let asked = cache.contents.secrets.version(namespace, name, version);
    let keys = asked.get_or_try_init(async || {
        let found = Api::<Secret>::namespaced(client.clone(), namespace).get_opt(name).await?;
        Ok(Arc::new(found.and_then(|s| s.data).unwrap_or_default().into_keys().collect()))
    });
    keys.await.cloned()
}

impl<V> Default for Known<V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<V> Known<V> {
    /// Where the content of a version is, or is put by whoever asks first. Nobody else sees that of an object without one.
    fn version(&self, namespace: &str, name: &str, version: Option<String>) -> Version<V> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (namespace.to_owned(), name.to_owned());
        let Some(version) = version else {
            known.remove(&key);
            return Version::default();
        };
        match known.get(&key) {
            Some((seen, held)) if *seen == version => held.clone(),
            Some(_) | None => {
                let empty = Version::default();
                known.insert(key, (version, empty.clone()));
                empty
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(known: &Known<u8>, version: Option<&str>) -> Version<u8> {
        known.version("a", "b", version.map(str::to_owned))
    }

    #[tokio::test]
    async fn all_who_want_to_know_of_a_version_at_the_same_time_ask_once() {
        let known = Known::default();
        let asked = std::sync::atomic::AtomicU8::new(0);
        let ask = async || {
            let cell = version(&known, Some("1"));
            let held = cell.get_or_init(async || {
                tokio::task::yield_now().await;
                Arc::new(asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
            });
            **held.await
        };
        assert_eq!(futures_util::future::join3(ask(), ask(), ask()).await, (0, 0, 0));
        assert_eq!(ask().await, 0);
    }

    #[test]
    fn what_a_version_held_is_known_for_that_version_only() {
        let known = Known::default();
        version(&known, Some("1")).set(Arc::new(7)).unwrap();
        assert_eq!(version(&known, Some("1")).get().map(|held| **held), Some(7));
        assert_eq!(known.version("a", "other", Some("1".to_owned())).get(), None);
        assert_eq!(version(&known, Some("2")).get(), None);
        assert_eq!(version(&known, Some("1")).get(), None, "forgotten with the version");
    }

    #[test]
    fn what_the_watch_does_not_know_is_asked_for_every_time() {
        let known = Known::default();
        version(&known, None).set(Arc::new(7)).unwrap();
        assert_eq!(version(&known, None).get(), None);
    }
}
