//! JSON schemas for kubeconform, from what an API server says of itself (`/openapi/v3`): Kubernetes' own kinds and every
//! custom one that is installed, of exactly that version, and from no network.
//!
//! They are strict: a field that the API server does not know is refused, where the API server would drop it silently.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// The files' names, as kubeconform wants them told.
pub const LOCATION: &str = "{{.Group}}_{{.ResourceAPIVersion}}_{{.ResourceKind}}.json";

/// A file's name after [`LOCATION`]. Kubernetes' oldest kinds have no group; kubeconform then says the version twice.
fn file_name(group: &str, version: &str, kind: &str) -> String {
    let group = if group.is_empty() { version } else { group };
    format!("{group}_{version}_{}.json", kind.to_lowercase())
}

/// The schema of every kind in one document of `/openapi/v3`, by file name.
#[must_use]
pub fn schemas_of(document: &Value) -> BTreeMap<String, Value> {
    // Some documents describe paths alone.
    let mut schemas = document["components"]["schemas"].as_object().cloned().unwrap_or_default();
    for schema in schemas.values_mut() {
        close(schema);
    }
    let mut files = BTreeMap::new();
    for (name, schema) in &schemas {
        let kinds =
            schema["x-kubernetes-group-version-kind"].as_array().map(Vec::as_slice).unwrap_or_default();
        for kind in kinds {
            let text = |key: &str| kind[key].as_str().unwrap_or_default();
            let file = file_name(text("group"), text("version"), text("kind"));
            files.insert(file, whole(&schemas, name));
        }
    }
    files
}

/// One schema that needs no other file.
fn whole(schemas: &Map<String, Value>, name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}"), "components": {"schemas": schemas}})
}

/// Refuses fields that a schema does not list, at every depth.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            let keeps_unknown = map.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
            let is_listed = map.get("properties").is_some_and(Value::is_object);
            if is_listed && !keeps_unknown && !map.contains_key("additionalProperties") {
                map.insert("additionalProperties".to_owned(), Value::Bool(false));
            }
            map.values_mut().for_each(close);
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_s_schema_is_closed_and_whole() {
        let document = json!({"components": {"schemas": {
            "v1.Thing": {
                "properties": {"spec": {"$ref": "#/components/schemas/v1.Spec"}, "any": {"additionalProperties": {}}},
                "x-kubernetes-group-version-kind": [{"group": "g.dev", "version": "v1", "kind": "Thing"}],
            },
            "v1.Spec": {"properties": {"a": {}}, "x-kubernetes-preserve-unknown-fields": true},
        }}});
        let files = schemas_of(&document);
        assert_eq!(files.keys().collect::<Vec<_>>(), ["g.dev_v1_thing.json"]);
        let schema = &files["g.dev_v1_thing.json"];
        assert_eq!(schema["$ref"], "#/components/schemas/v1.Thing");
        let schemas = &schema["components"]["schemas"];
        assert_eq!(schemas["v1.Thing"]["additionalProperties"], false);
        assert_eq!(schemas["v1.Thing"]["properties"]["any"], json!({"additionalProperties": {}}));
        assert_eq!(schemas["v1.Spec"].get("additionalProperties"), None);
    }
}
