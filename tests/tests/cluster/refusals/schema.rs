//! A walk through a schema beside an object: its rules, its limits, and objects that break exactly one limit.

use std::collections::BTreeSet;

use serde_json::{Value, json};

/// An object that breaks one limit.
pub(super) struct Breach {
    /// Which: the field's place in the schema and the limit's keyword.
    pub(super) limit: String,
    /// The field as the API server names it.
    pub(super) field: String,
    pub(super) object: Value,
}

/// The sentences of all rules.
pub(super) fn rules(schema: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    walk(schema, "", &mut |_, node| {
        let rules = node["x-kubernetes-validations"].as_array().into_iter().flatten();
        found.extend(rules.map(|rule| match rule["message"].as_str() {
            Some(sentence) => sentence.to_owned(),
            None => format!("a rule without a sentence: {}", rule["rule"]),
        }));
    });
    found
}

/// All limits of the spec: those of a status are the operator's business.
pub(super) fn limits(schema: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    walk(&schema["properties"]["spec"], "spec", &mut |place, node| {
        let keywords = KEYWORDS.iter().filter(|keyword| !node[**keyword].is_null());
        found.extend(keywords.map(|keyword| format!("{place} {keyword}")));
        let required = node["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
        found.extend(required.map(|field| format!("{place}.{field} required")));
    });
    found
}

/// One broken object for each limit of each field that `object` has.
pub(super) fn breaches(schema: &Value, object: &Value) -> Vec<Breach> {
    let mut found = Vec::new();
    let mut break_at = |place: &str, field: &str, pointer: &str, node: &Value, value: &Value| {
        let mut push = |limit: String, field: String, value: Option<Value>, pointer: &str| {
            let mut object = object.clone();
            let (parent, key) = pointer.rsplit_once('/').unwrap_or_default();
            match (value, object.pointer_mut(parent)) {
                (Some(value), _) => {
                    if let Some(slot) = object.pointer_mut(pointer) {
                        *slot = value;
                    }
                }
                (None, Some(Value::Object(map))) => drop(map.remove(key)),
                (None, _) => {}
            }
            found.push(Breach { limit, field, object });
        };
        for keyword in KEYWORDS.iter().filter(|keyword| !node[**keyword].is_null()) {
            let broken = broken(keyword, &node[*keyword], node, value);
            push(format!("{place} {keyword}"), field.to_owned(), Some(broken), pointer);
        }
        for name in node["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            let (limit, field) = (format!("{place}.{name} required"), format!("{field}.{name}"));
            push(limit, field, None, &format!("{pointer}/{name}"));
        }
    };
    let place = Place { schema: "spec".to_owned(), field: "spec".to_owned(), pointer: "/spec".to_owned() };
    walk_both(&schema["properties"]["spec"], &object["spec"], &place, &mut break_at);
    found
}

/// Removes every rule.
pub(super) fn without_rules(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            map.remove("x-kubernetes-validations");
            map.values_mut().for_each(without_rules);
        }
        Value::Array(list) => list.iter_mut().for_each(without_rules),
        _ => {}
    }
}

/// Fields of spec and status without a description.
pub(super) fn undescribed(schema: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for part in ["spec", "status"] {
        walk(&schema["properties"][part], part, &mut |place, node| {
            let is_silent = node["description"].as_str().unwrap_or_default().trim().is_empty();
            if is_silent && !place.ends_with("[]") {
                found.push(place.to_owned());
            }
        });
    }
    found
}

const KEYWORDS: [&str; 10] = [
    "enum",
    "pattern",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "minItems",
    "maxItems",
    "maxProperties",
    "x-kubernetes-list-map-keys",
];

/// A value that breaks the limit `keyword`, whose setting is `limit`.
fn broken(keyword: &str, limit: &Value, node: &Value, value: &Value) -> Value {
    let number = limit.as_f64().unwrap_or_default();
    let size = limit.as_u64().and_then(|size| usize::try_from(size).ok()).unwrap_or_default();
    let least = node["minLength"].as_u64().and_then(|size| usize::try_from(size).ok()).unwrap_or(1);
    let items = |count: usize| value.as_array().and_then(|list| list.first()).map(|first| vec![first; count]);
    match keyword {
        "enum" => json!("Nonsense"),
        // No pattern allows a control character.
        "pattern" => json!("\u{7f}".repeat(least)),
        "minLength" => json!("a".repeat(size.saturating_sub(1))),
        "maxLength" => json!("a".repeat(size + 1)),
        "minimum" => json!(number as i64 - 1),
        "maximum" => json!(number as i64 + 1),
        "minItems" => json!(items(size.saturating_sub(1))),
        "maxItems" => json!(items(size + 1)),
        "maxProperties" => (0..=size).map(|i| (format!("key-{i}"), json!("a"))).collect(),
        // The same key twice.
        _ => json!(items(2)),
    }
}

fn walk(node: &Value, place: &str, visit: &mut impl FnMut(&str, &Value)) {
    visit(place, node);
    for (name, child) in node["properties"].as_object().into_iter().flatten() {
        walk(child, format!("{place}.{name}").trim_start_matches('.'), visit);
    }
    if node["items"].is_object() {
        walk(&node["items"], &format!("{place}[]"), visit);
    }
}

/// The same field in the schema's words, the API server's, and as a JSON pointer.
struct Place {
    schema: String,
    field: String,
    pointer: String,
}

fn walk_both(
    node: &Value,
    value: &Value,
    place: &Place,
    visit: &mut impl FnMut(&str, &str, &str, &Value, &Value),
) {
    visit(&place.schema, &place.field, &place.pointer, node, value);
    for (name, child) in node["properties"].as_object().into_iter().flatten() {
        if let Some(value) = value.get(name) {
            let next = Place {
                schema: format!("{}.{name}", place.schema),
                field: format!("{}.{name}", place.field),
                pointer: format!("{}/{name}", place.pointer),
            };
            walk_both(child, value, &next, visit);
        }
    }
    if node["items"].is_object() {
        for (index, value) in value.as_array().into_iter().flatten().enumerate() {
            let next = Place {
                schema: format!("{}[]", place.schema),
                field: format!("{}[{index}]", place.field),
                pointer: format!("{}/{index}", place.pointer),
            };
            walk_both(&node["items"], value, &next, visit);
        }
    }
}
