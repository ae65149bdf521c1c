//! Server-side apply, in one place: one field manager per writer, always forced, never a read before a write.
//!
//! Guarantees: applying the same object again changes nothing (no new resourceVersion, so no event). A field that is no
//! longer applied is removed, unless somebody else owns it too.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

/// Owns everything the operator applies.
pub const FIELD_MANAGER: &str = "switchboard-operator";
/// Owns a Deployment's number of pods, and only while the operator decides on it.
pub const REPLICAS_MANAGER: &str = "switchboard-replicas";

/// Applies an object of a namespace.
pub async fn apply<K>(client: &Client, object: &K) -> Result<K, kube::Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Serialize
        + DeserializeOwned
        + Clone
        + Debug,
{
    let api = Api::<K>::namespaced(client.clone(), &object.namespace().unwrap_or_default());
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    api.patch(&object.name_any(), &parameters, &Patch::Apply(object)).await
}

/// Applies a status as a whole: what it leaves out is removed, what other managers wrote stays.
///
/// With `resource_version` the write fails with a conflict if the object changed since it was read.
pub async fn apply_status<K>(
    client: &Client,
    object: &K,
    status: &impl Serialize,
    manager: &str,
    resource_version: Option<&str>,
) -> Result<K, kube::Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned + Clone + Debug,
{
    let api = Api::<K>::namespaced(client.clone(), &object.namespace().unwrap_or_default());
    let mut body = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": {"name": object.name_any()},
        "status": status,
    });
    if let Some(version) = resource_version {
        body["metadata"]["resourceVersion"] = json!(version);
    }
    api.patch_status(&object.name_any(), &PatchParams::apply(manager).force(), &Patch::Apply(body)).await
}

/// The object does not exist.
pub fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// The object changed since it was read, or exists already.
pub fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}
