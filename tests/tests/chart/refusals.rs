//! Wrong values: each is refused, by a sentence that names it.

use std::fs;

use anyhow::{Result, ensure};
use e2e::chart::Chart;
use serde_json::{Map, Value, json};

/// What somebody sets, and what helm must answer.
const CASES: [(&str, &[&str]); 33] = [
    ("replicas: 0.5", &["/replicas", "want integer"]),
    ("replicas: -1", &["/replicas", "minimum"]),
    ("replicas: two", &["/replicas", "want integer"]),
    ("replica: 3", &["additional properties 'replica' not allowed"]),
    ("image: ghcr.io/switchboard-dev/switchboard:1", &["/image", "want object"]),
    ("image: {digest: 0123}", &["/image/digest"]),
    ("image: {pullPolicy: Sometimes}", &["/image/pullPolicy", "IfNotPresent"]),
    ("image: {name: x}", &["/image", "additional properties 'name' not allowed"]),
    (
        "image: {repository: 'localhost:5000/x:latest'}",
        &["image.repository (localhost:5000/x:latest) must not hold a tag or a digest"],
    ),
    ("imagePullSecrets: [regcred]", &["/imagePullSecrets/0", "want object"]),
    ("watchNamespaces: sales", &["/watchNamespaces", "want array"]),
    ("watchNamespaces: [Sales]", &["/watchNamespaces/0"]),
    ("watchNamespaces: [a, a]", &["/watchNamespaces", "equal"]),
    ("resyncSeconds: 0", &["/resyncSeconds", "minimum"]),
    ("maxRollouts: 0", &["/maxRollouts", "minimum"]),
    ("monitoringNamespaces: monitoring", &["/monitoringNamespaces", "want array"]),
    ("monitoringNamespaces: [Monitoring]", &["/monitoringNamespaces/0"]),
    ("proxy: {https: proxy.example.com}", &["/proxy/https"]),
    ("extraEnv: {A: b}", &["/extraEnv", "want array"]),
    ("resources: {request: {cpu: 1}}", &["/resources", "'request' not allowed"]),
    ("terminationGracePeriodSeconds: 10", &["/terminationGracePeriodSeconds", "minimum"]),
    ("livenessProbe: {httpGet: {path: /}}", &["/livenessProbe", "'httpGet' not allowed"]),
    ("podDisruptionBudget: {maxUnavailable: 0}", &["podDisruptionBudget.maxUnavailable is 0"]),
    ("podDisruptionBudget: {minAvailable: 1}", &["/podDisruptionBudget", "'minAvailable' not allowed"]),
    ("podMonitor: {interval: 15}", &["/podMonitor/interval", "want string"]),
    ("commonLabels: {a: 1}", &["/commonLabels/a", "want string"]),
    ("priorityClass: {value: 2000000000}", &["/priorityClass/value", "maximum"]),
    (
        "priorityClass: {create: false, name: switchboard-operator}",
        &["priorityClass.name is switchboard-operator, which this chart makes"],
    ),
    ("crds: {keep: false}", &["/crds", "'keep' not allowed"]),
    ("sampleAgent: {name: Reception}", &["/sampleAgent/name"]),
    ("defaultGateway: {enabled: true}", &["defaultGateway.enabled needs defaultGateway.spec"]),
    (
        "defaultGateway: {enabled: true, spec: {publicUrl: 'https://a.example', carrier: {}}}",
        &["defaultGateway.spec.store is missing"],
    ),
    (
        "{watchNamespaces: [sales], sampleAgent: {enabled: true}}",
        &["sampleAgent.namespace is switchboard-system, which is not among watchNamespaces (sales)"],
    ),
];

pub(crate) fn wrong_values(chart: &Chart) -> Result<()> {
    let file = std::env::temp_dir().join(format!("switchboard-values-{}.yaml", std::process::id()));
    let mut accepted = Vec::new();
    for (values, expected) in CASES {
        fs::write(&file, values)?;
        let said = match chart.template(&["--values", &file.to_string_lossy()], &[]) {
            Ok(_) => "nothing".to_owned(),
            Err(refusal) => format!("{refusal:#}"),
        };
        if !expected.iter().all(|words| said.contains(words)) {
            accepted.push(format!("{values}: expected {expected:?}, helm said {said}"));
        }
    }
    fs::remove_file(&file)?;
    ensure!(accepted.is_empty(), "{}", accepted.join("\n"));
    Ok(())
}

/// Every value at once in a wrong shape, and beside the values of each table one that does not exist: helm names them all.
pub(crate) fn wrong_shapes(chart: &Chart) -> Result<()> {
    let schema: Value =
        serde_json::from_str(&fs::read_to_string(chart.folder().join("values.schema.json"))?)?;
    let mut expected = Vec::new();
    let values = misshapen(&schema, &schema, "", &mut expected);
    let file = std::env::temp_dir().join(format!("switchboard-shapes-{}.json", std::process::id()));
    fs::write(&file, values.to_string())?;
    let answer = chart.template(&["--values", &file.to_string_lossy()], &[]);
    fs::remove_file(&file)?;
    let said = answer.err().map(|refusal| format!("{refusal:#}")).unwrap_or_default();
    let missing: Vec<&String> = expected.iter().filter(|words| !said.contains(*words)).collect();
    ensure!(missing.is_empty(), "not refused: {missing:#?}\nhelm said {said}");
    ensure!(expected.len() > 100, "the schema was not read: {expected:?}");
    Ok(())
}

/// What fits nowhere in a schema, and the words that helm must say about each part of it.
fn misshapen(schema: &Value, root: &Value, path: &str, expected: &mut Vec<String>) -> Value {
    let schema = match schema["$ref"].as_str() {
        Some(reference) => root.pointer(reference.trim_start_matches('#')).unwrap_or(&Value::Null),
        None => schema,
    };
    let Some(properties) = schema["properties"].as_object() else {
        expected.push(format!("at '{path}': "));
        return if schema["type"] == "boolean" { json!([]) } else { json!(true) };
    };
    let mut values = Map::new();
    for (key, schema) in properties {
        values.insert(key.clone(), misshapen(schema, root, &format!("{path}/{key}"), expected));
    }
    if schema["additionalProperties"] == false {
        values.insert("surprise".to_owned(), json!(true));
        expected.push(format!("at '{path}': additional properties 'surprise' not allowed"));
    }
    Value::Object(values)
}
