//! Which children are as they were applied, so that nothing is sent where nothing changed.
//!
//! # Guarantees
//! A child is left alone only if the same object was applied before *and* the API server still lists exactly the fields
//! that this applied as the operator's. Whoever changes or removes one of them takes it from the operator's entry in
//! `managedFields`, so a foreign edit is seen in metadata alone and undone. A process that begins knows nothing and
//! applies everything once, which changes nothing.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry, ObjectMeta};
use kube::Resource;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::apply::FIELD_MANAGER;

type Digest = [u8; 32];
/// Kind, namespace, name.
type Key = (String, String, String);

/// What was applied, by object.
#[derive(Debug, Default)]
pub struct Memory(Mutex<HashMap<Key, Trace>>);

/// What an application left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Trace {
    wanted: Digest,
    uid: Option<String>,
    owned: String,
}

impl Memory {
    /// Whether `object` was applied and `found` still is what came of it.
    pub fn holds<K>(&self, object: &K, found: Option<&ObjectMeta>) -> bool
    where
        K: Resource<DynamicType = ()> + Serialize,
    {
        let Some(now) = found.and_then(|found| trace(object, found)) else { return false };
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&key(object)) == Some(&now)
    }

    /// Remembers that `object` was applied, with the answer's metadata.
    pub fn remember<K>(&self, object: &K, answer: &ObjectMeta)
    where
        K: Resource<DynamicType = ()> + Serialize,
    {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match trace(object, answer) {
            Some(trace) => known.insert(key(object), trace),
            None => known.remove(&key(object)),
        };
    }

    /// Forgets the objects of a name, whatever their kind.
    pub fn forget(&self, namespace: &str, name: &str) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(_, of, called), _| (of.as_str(), called.as_str()) != (namespace, name));
    }
}

fn key<K: Resource<DynamicType = ()>>(object: &K) -> Key {
    let meta = object.meta();
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    (K::kind(&()).into_owned(), text(&meta.namespace), text(&meta.name))
}

/// `None` where the object is on its way out or has no entry of ours.
fn trace<K: Serialize>(object: &K, found: &ObjectMeta) -> Option<Trace> {
    let ours = found.managed_fields.iter().flatten().find(|entry| is_ours(entry))?;
    if found.deletion_timestamp.is_some() {
        return None;
    }
    let owned = fingerprint(ours.fields_v1.as_ref());
    Some(Trace { wanted: digest(object), uid: found.uid.clone(), owned })
}

/// Drops of who owns which field all that [`Memory`] does not compare. As trees of field names that is most of what a
/// child takes in memory, and others' entries are larger than ours.
pub fn condense(meta: &mut ObjectMeta) {
    let ours = meta.managed_fields.take().into_iter().flatten().find(is_ours);
    meta.managed_fields = ours.map(|entry| {
        let fields = Value::String(fingerprint(entry.fields_v1.as_ref()));
        vec![ManagedFieldsEntry { fields_v1: Some(FieldsV1(fields)), ..entry }]
    });
}

fn is_ours(entry: &ManagedFieldsEntry) -> bool {
    entry.manager.as_deref() == Some(FIELD_MANAGER)
        && entry.operation.as_deref() == Some("Apply")
        && entry.subresource.is_none()
}

/// The same for a set of fields as the API server shows it and as [`condense`] leaves it.
fn fingerprint(fields: Option<&FieldsV1>) -> String {
    match fields {
        // The API server shows an object.
        Some(FieldsV1(Value::String(fingerprint))) => fingerprint.clone(),
        fields => hex::encode(digest(&fields)),
    }
}

fn digest(value: &impl Serialize) -> Digest {
    let json = serde_json::to_vec(value).expect("Kubernetes objects have only string keys");
    Sha256::digest(json).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::ResourceExt as _;
    use serde_json::json;

    fn wanted(text: &str) -> ConfigMap {
        let object = json!({"metadata": {"namespace": "moving", "name": "sales-media"}, "data": {"a": text}});
        serde_json::from_value(object).unwrap()
    }

    /// As the API server shows it, with the fields that are the operator's.
    fn found(uid: &str, fields: serde_json::Value) -> ObjectMeta {
        serde_json::from_value(json!({
            "namespace": "moving", "name": "sales-media", "uid": uid,
            "managedFields": [
                {"manager": "kubectl-edit", "operation": "Update", "fieldsV1": {"f:data": {"f:b": {}}}},
                {"manager": "switchboard-operator", "operation": "Apply", "fieldsV1": fields},
            ],
        }))
        .unwrap()
    }

    fn applied() -> (Memory, ObjectMeta) {
        let (memory, answer) = (Memory::default(), found("1", json!({"f:data": {"f:a": {}}})));
        memory.remember(&wanted("x"), &answer);
        (memory, answer)
    }

    #[test]
    fn the_same_object_is_not_applied_again() {
        let (memory, answer) = applied();
        assert!(memory.holds(&wanted("x"), Some(&answer)));
    }

    #[test]
    fn what_is_kept_of_the_owners_is_small_and_compares_like_all_of_them() {
        let (memory, mut answer) = applied();
        condense(&mut answer);
        assert!(memory.holds(&wanted("x"), Some(&answer)));
        let kept = answer.managed_fields.clone().unwrap();
        assert!(kept.len() == 1 && kept[0].fields_v1.as_ref().unwrap().0.is_string(), "{kept:?}");
        condense(&mut answer);
        assert!(memory.holds(&wanted("x"), Some(&answer)), "once is as good as twice");

        let mut taken = found("1", json!({"f:data": {}}));
        condense(&mut taken);
        assert!(!memory.holds(&wanted("x"), Some(&taken)));
        let mut foreign = found("1", json!({}));
        foreign.managed_fields.as_mut().unwrap().truncate(1);
        condense(&mut foreign);
        assert_eq!(foreign.managed_fields, None);
    }

    #[test]
    fn another_object_and_an_absent_one_are_applied() {
        let (memory, answer) = applied();
        assert!(!memory.holds(&wanted("y"), Some(&answer)));
        assert!(!memory.holds(&wanted("x"), None));
        assert!(!Memory::default().holds(&wanted("x"), Some(&answer)));
    }

    #[test]
    fn a_foreign_edit_and_a_second_object_of_the_name_are_seen() {
        let (memory, answer) = applied();
        assert!(!memory.holds(&wanted("x"), Some(&found("1", json!({})))), "a field was taken over");
        assert!(!memory.holds(&wanted("x"), Some(&found("2", json!({"f:data": {"f:a": {}}})))));
        let mut stripped = answer.clone();
        stripped.managed_fields = None;
        assert!(!memory.holds(&wanted("x"), Some(&stripped)));
        let mut leaving = answer;
        leaving.deletion_timestamp =
            serde_json::from_value(json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}))
                .map(|m: ObjectMeta| m.deletion_timestamp)
                .unwrap();
        assert!(!memory.holds(&wanted("x"), Some(&leaving)));
    }

    #[test]
    fn what_is_forgotten_is_applied_again() {
        let (memory, answer) = applied();
        memory.forget("moving", &wanted("x").name_any());
        assert!(!memory.holds(&wanted("x"), Some(&answer)));
    }
}
