//! Every sample is what the types say and passes every rule of the schema; every rule refuses what it must with a
//! sentence that says what to change. The rules run here without a cluster, and in the end-to-end tests on the real
//! API server.

// Clippy knows only `#[test]` functions as tests, not what they call.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use crds::{PhoneNumber, VoiceAgent, VoiceGateway};
use kube::core::cel::Validator;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

#[test]
fn every_sample_parses_and_passes_its_rules() {
    let mut checked = 0;
    for path in samples(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/samples")) {
        let documents: Vec<Value> = serde_saphyr::from_multiple(&fs::read_to_string(&path).unwrap()).unwrap();
        for document in documents {
            let kind = document["kind"].as_str().unwrap().to_owned();
            if document["apiVersion"] != "switchboard.dev/v1alpha1" {
                continue;
            }
            let unknown = unknown_fields(&document);
            assert!(unknown.is_empty(), "{}: {kind} has unknown fields {unknown:?}", path.display());
            assert_eq!(refusals(&document, None), [""; 0], "{}: {kind}", path.display());
            checked += 1;
        }
    }
    assert!(checked >= 3, "no samples found");
}

/// Every YAML file below a directory.
fn samples(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(samples(&path));
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            found.push(path);
        }
    }
    found
}

#[test]
fn a_rule_says_what_to_change() {
    let cases: Vec<(Value, &str, Value, &str)> = vec![
        (agent(), "/metadata/name", json!("Sales"), "metadata.name must have at most 40 characters"),
        (agent(), "/metadata/name", json!("a".repeat(41)), "metadata.name must have at most 40 characters"),
        (agent(), "/spec/persona/instructions", json!({}), "exactly one of text and configMapKeyRef"),
        (
            agent(),
            "/spec/persona/instructions",
            json!({"text": "a", "configMapKeyRef": {"name": "a", "key": "b"}}),
            "exactly one of text and configMapKeyRef",
        ),
        (agent(), "/spec/engines/0/type", json!("Realtime"), "type Realtime needs its settings"),
        (agent(), "/spec/engines/0/type", json!("Realtime"), "simulated is read with type Simulated only"),
        (
            agent(),
            "/spec/engines/0/realtime",
            realtime("wss://a.example"),
            "realtime is read with type Realtime only",
        ),
        (agent(), "/spec/engines/0", realtime_engine("https://a.example"), "url must begin with wss://"),
        (agent(), "/spec/engines/0", realtime_engine("wss://a.example?model=b"), "url must not hold '?'"),
        (agent(), "/spec/scaling", json!({"type": "Manual"}), "type Manual needs its settings"),
        (agent(), "/spec/overflow", json!({"type": "Agent"}), "type Agent needs its settings"),
        (
            agent(),
            "/spec/overflow",
            json!({"type": "Agent", "agent": {"agentRef": {"name": "sales"}}}),
            "agentRef names this agent itself",
        ),
        (
            agent(),
            "/spec/overflow",
            json!({"type": "Forward", "forward": {"transferTarget": "attic"}}),
            "transferTarget names no entry of transferTargets",
        ),
        (
            agent(),
            "/spec/scaling",
            json!({"manual": {"replicas": 2}}),
            "manual is read with type Manual only",
        ),
        (
            agent(),
            "/spec/scaling",
            json!({"type": "Manual", "manual": {"replicas": 2}, "autoscaler": {}}),
            "autoscaler is read with type Autoscaler only",
        ),
        (
            agent(),
            "/spec/scaling",
            json!({"autoscaler": {"minReplicas": 5, "maxReplicas": 4}}),
            "minReplicas must not be above maxReplicas",
        ),
        (
            agent(),
            "/spec/scaling",
            json!({"autoscaler": {"targetCallsPerPod": 31}}),
            "targetCallsPerPod must not be above maxCallsPerPod",
        ),
        (agent(), "/spec/scaling", json!({"maxCallsPerPod": 19}), "below the autoscaler's default target"),
        (
            agent(),
            "/spec/scaling",
            json!({"type": "Builtin", "builtin": {"minReplicas": 5, "maxReplicas": 4}}),
            "minReplicas must not be above maxReplicas",
        ),
        (
            agent(),
            "/spec/scaling",
            json!({"type": "Builtin", "builtin": {"targetCallsPerPod": 31}}),
            "builtin.targetCallsPerPod must not be above maxCallsPerPod",
        ),
        (
            agent(),
            "/spec/scaling",
            json!({"type": "Builtin", "maxCallsPerPod": 19}),
            "below the built-in scaler's default target",
        ),
        (agent(), "/spec/scaling", json!({"builtin": {}}), "builtin is read with type Builtin only"),
        (agent(), "/spec/scaling", json!({"external": {}}), "external is read with type External only"),
        (gateway(), "/metadata/name", json!("a.b"), "metadata.name must have at most 40 characters"),
        (
            gateway(),
            "/spec/publicUrl",
            json!("http://voice.example.com"),
            "publicUrl must be an https:// URL",
        ),
        (
            gateway(),
            "/spec/publicUrl",
            json!("https://voice.example.com/"),
            "publicUrl must not end with '/'",
        ),
        (
            gateway(),
            "/spec/publicUrl",
            json!("https://a.example:8443"),
            "publicUrl must name no port but 443",
        ),
        (
            gateway(),
            "/spec/publicUrl",
            json!("https://[2001:db8::1]:8443"),
            "publicUrl must name no port but 443",
        ),
        (
            gateway(),
            "/spec/publicUrl",
            json!("https://a.example:44300/b"),
            "publicUrl must name no port but 443",
        ),
        (
            gateway(),
            "/spec/publicUrl",
            json!("https://voice.example.com/calls"),
            "an Ingress does not rewrite paths",
        ),
        (
            gateway(),
            "/spec/exposure",
            json!({"type": "None", "ingress": {}}),
            "ingress is read with type Ingress only",
        ),
        (gateway(), "/spec/exposure", json!({"type": "HTTPRoute"}), "type HTTPRoute needs its settings"),
        (
            gateway(),
            "/spec/exposure",
            json!({"httpRoute": {"parentRefs": [{"name": "edge"}]}}),
            "httpRoute is read with type HTTPRoute only",
        ),
        (
            agent(),
            "/spec/networkPolicy",
            json!({"type": "None", "doors": {}}),
            "doors is read with type Doors only",
        ),
        (
            agent(),
            "/spec/monitoring",
            json!({"type": "None", "podMonitor": {}}),
            "podMonitor is read with type PodMonitor only",
        ),
        (gateway(), "/spec/store", json!({"type": "Redis"}), "type Redis needs its settings"),
        (
            gateway(),
            "/spec/store",
            json!({"type": "Memory", "redis": {"urlSecretRef": {"name": "a", "key": "b"}}}),
            "redis is read with type Redis only",
        ),
        (gateway(), "/spec/carrier", json!({"type": "Twilio"}), "type Twilio needs its settings"),
        (number(), "/spec/source", json!({"type": "SID"}), "type SID needs its settings"),
        (number(), "/spec/source", json!({"type": "E164"}), "type E164 needs its settings"),
        (number(), "/spec/source", json!({"type": "SID", "e164": "+1"}), "e164 is read with type E164 only"),
        (number(), "/spec/source/sid", json!("PN0"), "sid is read with type SID only"),
        (number(), "/spec/routes", json!([route("a", 1), route("a", 2)]), "routes name an agent twice"),
        (number(), "/spec/routes", json!([route("a", 0)]), "every route has weight 0"),
    ];
    for (mut object, pointer, value, sentence) in cases {
        assert_eq!(refusals(&object, None), [""; 0], "the fixture itself must pass");
        set(&mut object, pointer, value);
        let found = refusals(&object, None);
        assert!(
            found.iter().any(|m| m.contains(sentence)),
            "{pointer}: expected `{sentence}`, found {found:?}"
        );
    }
}

#[test]
fn what_belongs_to_an_account_cannot_be_changed() {
    let cases = [
        (
            gateway(),
            "/spec/carrier/twilio/accountSid",
            json!(format!("AC{}", "1".repeat(32))),
            "accountSid is immutable",
        ),
        (number(), "/spec/source/e164", json!("+15551230002"), "source is immutable"),
        (number(), "/spec/gatewayRef", json!({"name": "other"}), "gatewayRef is immutable"),
    ];
    for (old, pointer, value, sentence) in cases {
        let mut new = old.clone();
        set(&mut new, pointer, value);
        assert_eq!(refusals(&new, None), [""; 0], "{pointer}: anybody may create it so");
        let found = refusals(&new, Some(&old));
        assert!(
            found.iter().any(|m| m.contains(sentence)),
            "{pointer}: expected `{sentence}`, found {found:?}"
        );
    }
}

fn agent() -> Value {
    json!({
        "apiVersion": "switchboard.dev/v1alpha1", "kind": "VoiceAgent", "metadata": {"name": "sales"},
        "spec": {"persona": {"instructions": {"text": "Sell."}}, "engines": [{"name": "a", "type": "Simulated", "simulated": {}}]}
    })
}

fn realtime(url: &str) -> Value {
    json!({"url": url, "model": "m", "apiKeySecretRef": {"name": "a", "key": "b"}})
}

fn realtime_engine(url: &str) -> Value {
    json!({"name": "a", "type": "Realtime", "realtime": realtime(url)})
}

fn gateway() -> Value {
    json!({
        "apiVersion": "switchboard.dev/v1alpha1", "kind": "VoiceGateway", "metadata": {"name": "default"},
        "spec": {
            "publicUrl": "https://voice.example.com:443",
            "carrier": {"type": "Twilio", "twilio": {
                "accountSid": format!("AC{}", "0".repeat(32)), "authTokenSecretRefs": [{"name": "twilio", "key": "authToken"}],
            }},
            "store": {"type": "Memory"},
        }
    })
}

fn number() -> Value {
    json!({
        "apiVersion": "switchboard.dev/v1alpha1", "kind": "PhoneNumber", "metadata": {"name": "main-line"},
        "spec": {"source": {"type": "E164", "e164": "+15551230001"}, "routes": [route("sales", 100)]}
    })
}

fn route(agent: &str, weight: u32) -> Value {
    json!({"agentRef": {"name": agent}, "weight": weight})
}

/// Sets a value, adding the last field of the pointer where it is missing.
fn set(object: &mut Value, pointer: &str, value: Value) {
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    let parent = object.pointer_mut(parent).unwrap();
    match parent {
        Value::Array(items) => items[field.parse::<usize>().unwrap()] = value,
        parent => parent[field] = value,
    }
}

/// The sentences of the rules that refuse an object, or an update of `old` to it.
fn refusals(object: &Value, old: Option<&Value>) -> Vec<String> {
    let definition = crds::manifest::definitions()
        .into_iter()
        .find(|d| d.spec.names.kind == object["kind"])
        .unwrap_or_else(|| panic!("unknown kind {}", object["kind"]));
    let schema = definition.spec.versions[0].schema.clone().unwrap().open_api_v3_schema.unwrap();
    let schema = serde_json::to_value(schema).unwrap();
    match Validator::new().validate(&schema, object, old) {
        Ok(()) => Vec::new(),
        Err(errors) => errors.into_vec().into_iter().map(|e| e.message).collect(),
    }
}

/// Fields of the written object that its type does not have: they get lost on a round trip.
fn unknown_fields(document: &Value) -> Vec<String> {
    match document["kind"].as_str().unwrap() {
        "VoiceAgent" => lost::<VoiceAgent>(document),
        "VoiceGateway" => lost::<VoiceGateway>(document),
        "PhoneNumber" => lost::<PhoneNumber>(document),
        kind => panic!("unknown kind {kind}"),
    }
}

fn lost<T: Serialize + DeserializeOwned>(document: &Value) -> Vec<String> {
    let typed: T = serde_json::from_value(document.clone()).unwrap();
    let mut lost = Vec::new();
    compare(document, &serde_json::to_value(typed).unwrap(), "", &mut lost);
    lost
}

fn compare(written: &Value, read: &Value, path: &str, lost: &mut Vec<String>) {
    match (written, read) {
        (Value::Object(written), Value::Object(read)) => {
            for (key, value) in written {
                match read.get(key) {
                    Some(found) => compare(value, found, &format!("{path}/{key}"), lost),
                    None => lost.push(format!("{path}/{key}")),
                }
            }
        }
        (Value::Array(written), Value::Array(read)) if written.len() == read.len() => {
            for (index, (value, found)) in written.iter().zip(read).enumerate() {
                compare(value, found, &format!("{path}/{index}"), lost);
            }
        }
        (written, read) if written == read => {}
        _ => lost.push(path.to_owned()),
    }
}
