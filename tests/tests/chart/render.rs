//! What helm makes of the chart, without a cluster.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, ensure};
use e2e::chart::{Chart, INSTALL};
use e2e::installation::repository;
use serde_json::{Value, json};

/// What `helm template` is told the cluster has, when it has Prometheus operator.
pub(crate) const MONITORING: [&str; 4] = [
    "monitoring.coreos.com/v1",
    "monitoring.coreos.com/v1/PodMonitor",
    "monitoring.coreos.com/v1/ServiceMonitor",
    "monitoring.coreos.com/v1/PrometheusRule",
];

pub(crate) fn lint(chart: &Chart) -> Result<()> {
    for set in chart.value_sets()? {
        let (folder, set) = (chart.folder().to_string_lossy(), set.to_string_lossy());
        chart.run(&["lint", "--strict", &folder, "--values", &set])?;
    }
    Ok(())
}

pub(crate) fn plain_manifests(chart: &Chart) -> Result<()> {
    let found = fs::read_to_string(repository().join(INSTALL)).context("the manifests cannot be read")?;
    ensure!(
        found == chart.install_manifest()?,
        "{INSTALL} is stale: run `make generate` and commit the result"
    );
    Ok(())
}

pub(crate) fn same_keys(chart: &Chart) -> Result<()> {
    let values: Value = serde_saphyr::from_str(&fs::read_to_string(chart.folder().join("values.yaml"))?)?;
    let schema: Value =
        serde_json::from_str(&fs::read_to_string(chart.folder().join("values.schema.json"))?)?;
    let mut differences = BTreeSet::new();
    compare(&values, &schema, &schema, "", &mut differences);
    ensure!(differences.is_empty(), "{differences:#?}");
    Ok(())
}

/// Keys of the values that the schema lacks, and the other way round. What may be left out need not have a value: probes
/// and resources, whose keys are Kubernetes' own.
fn compare(values: &Value, schema: &Value, root: &Value, path: &str, differences: &mut BTreeSet<String>) {
    let schema = match schema["$ref"].as_str() {
        Some(reference) => root.pointer(reference.trim_start_matches('#')).unwrap_or(&Value::Null),
        None => schema,
    };
    let Some(properties) = schema["properties"].as_object() else { return };
    for (key, schema) in properties {
        let path = format!("{path}/{key}");
        match values.get(key) {
            Some(value) => compare(value, schema, root, &path, differences),
            None if ["/livenessProbe", "/readinessProbe", "/resources"]
                .iter()
                .any(|own| path.starts_with(own)) => {}
            None => drop(differences.insert(format!("{path} is in the schema and not in values.yaml"))),
        }
    }
    for key in values.as_object().into_iter().flat_map(|map| map.keys()) {
        if !properties.contains_key(key) {
            differences.insert(format!("{path}/{key} is in values.yaml and not in the schema"));
        }
    }
}

pub(crate) fn absent_apis(chart: &Chart) -> Result<()> {
    let set = value_set(chart, "everything-values.yaml")?;
    let plain = documents(&chart.template(&["--values", &set], &[])?)?;
    let groups: BTreeSet<&str> = plain
        .iter()
        .filter(|document| document["metadata"]["annotations"]["helm.sh/hook"].is_null())
        .filter_map(|document| document["apiVersion"].as_str()?.split_once('/'))
        .map(|(group, _)| group)
        .collect();
    let served = [
        "apiextensions.k8s.io",
        "apps",
        "networking.k8s.io",
        "policy",
        "rbac.authorization.k8s.io",
        "scheduling.k8s.io",
    ];
    assert_eq!(groups, BTreeSet::from(served), "what every cluster has");
    // Our own kinds wait until the API server knows them: the Job first, then the gateway, then the agent.
    let mut hooks: Vec<(i64, &str)> = plain
        .iter()
        .filter(|document| document["metadata"]["annotations"]["helm.sh/hook"] == "post-install,post-upgrade")
        .filter_map(|document| {
            let weight = document["metadata"]["annotations"]["helm.sh/hook-weight"].as_str()?;
            Some((weight.parse().ok()?, document["kind"].as_str()?))
        })
        .collect();
    hooks.sort_unstable();
    assert_eq!(hooks, [(-1, "Job"), (0, "VoiceGateway"), (1, "VoiceAgent")]);

    let rich = documents(&chart.template(&["--values", &set], &MONITORING)?)?;
    for (kind, count) in [("PodMonitor", 1), ("ServiceMonitor", 1), ("PrometheusRule", 1)] {
        assert_eq!(of_kind(&plain, kind).len(), 0, "{kind}");
        assert_eq!(of_kind(&rich, kind).len(), count, "{kind}");
    }
    // Where the API server knows our kinds, they are part of the release, and follow its values.
    let known = ["switchboard.dev/v1alpha1/VoiceGateway", "switchboard.dev/v1alpha1/VoiceAgent"];
    let known = documents(&chart.template(&["--values", &set], &known)?)?;
    assert_eq!(of_kind(&known, "Job").len(), 0);
    for kind in ["VoiceGateway", "VoiceAgent"] {
        let annotations = &one(&known, kind)?["metadata"]["annotations"];
        assert_eq!(annotations["helm.sh/hook"], Value::Null);
        assert_eq!(annotations["helm.sh/resource-policy"], "keep");
        assert_eq!(annotations["meta.helm.sh/release-name"], "switchboard");
    }
    Ok(())
}

pub(crate) fn everything(chart: &Chart) -> Result<()> {
    let set = value_set(chart, "everything-values.yaml")?;
    let made = documents(&chart.template(&["--values", &set], &MONITORING)?)?;
    let deployment = one(&made, "Deployment")?;
    assert_eq!(deployment["metadata"]["labels"]["team"], "voice");
    assert_eq!(deployment["spec"]["replicas"], 3);
    assert_eq!(deployment["spec"]["strategy"], json!({"type": "Recreate"}));
    let template = &deployment["spec"]["template"];
    assert_eq!(template["metadata"]["labels"]["sidecar.istio.io/inject"], "false");
    assert_eq!(
        template["metadata"]["annotations"],
        json!({"example.com/checked": "yes", "example.com/owner": "voice"})
    );
    let pod = &template["spec"];
    assert_eq!(pod["imagePullSecrets"], json!([{"name": "regcred"}]));
    assert_eq!(pod["priorityClassName"], "switchboard-operator");
    assert_eq!(pod["nodeSelector"], json!({"kubernetes.io/os": "linux"}));
    assert_eq!(pod["tolerations"][0]["key"], "node-role.kubernetes.io/control-plane");
    ensure!(pod["affinity"]["podAntiAffinity"].is_object(), "{pod:#}");
    let spread = &pod["topologySpreadConstraints"][0];
    assert_eq!(spread["topologyKey"], "topology.kubernetes.io/zone");
    assert_eq!(spread["labelSelector"]["matchLabels"], deployment["spec"]["selector"]["matchLabels"]);
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    let container = &pod["containers"][0];
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    assert_eq!(container["imagePullPolicy"], "Always");
    assert_eq!(
        container["image"],
        "registry.example.com:5000/switchboard-dev/switchboard:0.1.0@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
    );
    assert_eq!(container["resources"]["limits"]["memory"], "512Mi");
    let variable = |name: &str| {
        let variables = container["env"].as_array().into_iter().flatten();
        variables.into_iter().find(|variable| variable["name"] == name).map(|found| found["value"].clone())
    };
    for (name, value) in [
        ("SWITCHBOARD_MEDIA_IMAGE", "ghcr.io/switchboard-dev/switchboard-media:0.1.0"),
        ("SWITCHBOARD_LOG", "operator=debug,info"),
        ("SWITCHBOARD_RESYNC_SECONDS", "60"),
        ("SWITCHBOARD_MAX_ROLLOUTS", "2"),
        ("SWITCHBOARD_MONITORING_NAMESPACES", "prometheus,tenants-metrics"),
        ("SWITCHBOARD_EXTRA_CA_FILE", "/etc/switchboard/ca/ca.crt"),
        ("HTTPS_PROXY", "http://proxy.example.com:3128"),
        ("NO_PROXY", ".svc,10.0.0.0/8"),
        ("RUST_BACKTRACE", "1"),
    ] {
        assert_eq!(variable(name), Some(json!(value)), "{name}");
    }
    assert_eq!(variable("HTTP_PROXY"), None, "unset is not empty");
    assert_eq!(variable("SWITCHBOARD_WATCH_NAMESPACES"), None);
    assert_eq!(container["envFrom"][0]["configMapRef"]["name"], "more");
    let mounts: Vec<&Value> =
        container["volumeMounts"].as_array().context("mounts")?.iter().map(|mount| &mount["name"]).collect();
    assert_eq!(mounts, ["extra-ca", "scratch"]);
    assert_eq!(pod["volumes"][0]["configMap"]["name"], "corporate-ca");

    assert_eq!(one(&made, "PodDisruptionBudget")?["spec"]["maxUnavailable"], "50%");
    assert_eq!(one(&made, "NetworkPolicy")?["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
    assert_eq!(one(&made, "PriorityClass")?["value"], 1_000_000);
    assert_eq!(one(&made, "PriorityClass")?["preemptionPolicy"], "Never");
    assert_eq!(one(&made, "ServiceMonitor")?["metadata"]["labels"]["release"], "prometheus");
    let rules = fs::read_to_string(chart.folder().join("alerts/switchboard.yaml"))?;
    let rules: Value = serde_saphyr::from_str(&rules)?;
    assert_eq!(
        one(&made, "PrometheusRule")?["spec"],
        rules,
        "templates in alerts are Prometheus', not helm's"
    );

    let dashboards: Vec<&Value> = of_kind(&made, "ConfigMap")
        .into_iter()
        .filter(|map| map["metadata"]["labels"]["grafana_dashboard"] == "1")
        .collect();
    let files = fs::read_dir(chart.folder().join("dashboards"))?.filter_map(Result::ok);
    let files = files.filter(|file| file.path().extension().is_some_and(|extension| extension == "json"));
    assert_eq!(dashboards.len(), files.count());
    for dashboard in dashboards {
        let (name, text) =
            dashboard["data"].as_object().and_then(|data| data.iter().next()).context("data")?;
        let file = fs::read_to_string(chart.folder().join("dashboards").join(name))?;
        let text: Value = serde_json::from_str(text.as_str().context("text")?)?;
        assert_eq!(text, serde_json::from_str::<Value>(&file)?, "{name} is unaltered");
    }
    let adapter = named(&made, "ConfigMap", "switchboard-operator-adapter-rules")?;
    let text = adapter["data"]["config.yaml"].as_str().context("config.yaml")?;
    let rules: Value = serde_saphyr::from_str(text)?;
    ensure!(rules["rules"].as_array().is_some_and(|rules| !rules.is_empty()), "{text}");
    Ok(())
}

pub(crate) fn namespaced(chart: &Chart) -> Result<()> {
    let set = value_set(chart, "namespaced-values.yaml")?;
    let made = documents(&chart.template(&["--values", &set], &MONITORING)?)?;
    let cluster_wide: Vec<&Value> = made
        .iter()
        .filter(|document| document["metadata"]["namespace"].is_null())
        .map(|document| &document["kind"])
        .collect();
    assert_eq!(cluster_wide, [""; 0], "an administrator of a namespace can install it");
    let roles: BTreeSet<&str> = of_kind(&made, "Role")
        .iter()
        .chain(&of_kind(&made, "RoleBinding"))
        .filter_map(|role| role["metadata"]["namespace"].as_str())
        .collect();
    assert_eq!(roles, BTreeSet::from(["sales", "support", "switchboard-system"]));
    let own = named(&made, "Role", "switchboard-operator")?;
    assert_eq!(own["rules"][1]["resources"], json!(["leases"]), "only the Lease where the operator runs");
    assert_eq!(own["rules"].as_array().map(Vec::len), Some(2));
    let monitor = named(&made, "PodMonitor", "switchboard-operator-media")?;
    assert_eq!(monitor["spec"]["namespaceSelector"], json!({"matchNames": ["sales", "support"]}));
    let container = &one(&made, "Deployment")?["spec"]["template"]["spec"]["containers"][0];
    let watched = json!({"name": "SWITCHBOARD_WATCH_NAMESPACES", "value": "sales,support"});
    ensure!(container["env"].as_array().is_some_and(|env| env.contains(&watched)), "{container:#}");
    Ok(())
}

pub(crate) fn mirror(chart: &Chart) -> Result<()> {
    let set = value_set(chart, "mirror-values.yaml")?;
    let made = documents(&chart.template(&["--values", &set], &[])?)?;
    let deployment = named(&made, "Deployment", "voice-operator")?;
    let pod = &deployment["spec"]["template"]["spec"];
    assert_eq!(pod["containers"][0]["image"], "mirror.example.com/ghcr/switchboard-dev/switchboard:0.1.0");
    assert_eq!(
        pod["containers"][0]["env"][0]["value"],
        "mirror.example.com/ghcr/switchboard-dev/switchboard-media@sha256:fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210"
    );
    assert_eq!(pod["imagePullSecrets"], json!([{"name": "mirror"}]));
    assert_eq!(named(&made, "ConfigMap", "voice-rules")?["metadata"]["namespace"], "monitoring");
    Ok(())
}

/// The path of a value set.
pub(crate) fn value_set(chart: &Chart, name: &str) -> Result<String> {
    let path = chart.folder().join("ci").join(name);
    ensure!(path.exists(), "there is no value set {name}");
    Ok(path.to_string_lossy().into_owned())
}

/// The objects in what helm prints.
pub(crate) fn documents(rendered: &str) -> Result<Vec<Value>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(rendered)?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}

fn of_kind<'a>(documents: &'a [Value], kind: &str) -> Vec<&'a Value> {
    documents.iter().filter(|document| document["kind"] == kind).collect()
}

fn one<'a>(documents: &'a [Value], kind: &str) -> Result<&'a Value> {
    let found = of_kind(documents, kind);
    ensure!(found.len() == 1, "{} of kind {kind}", found.len());
    Ok(found[0])
}

fn named<'a>(documents: &'a [Value], kind: &str, name: &str) -> Result<&'a Value> {
    let found = of_kind(documents, kind).into_iter().find(|document| document["metadata"]["name"] == name);
    found.with_context(|| format!("no {kind} {name}"))
}
