//! What trials apply in namespaces of their own, and how they ask what became of it.

use anyhow::{Context, Result, ensure};
use e2e::installation::{OPERATOR_NAMESPACE, condition, resource};
use e2e::{Cluster, wait_for};
use serde_json::{Value, json};

use crate::context::{Ctx, PATIENCE, http_get};

const ACCOUNT: &str = "AC00000000000000000000000000000001";
const TOKEN: &str = "simulated-auth-token";

/// A namespace with a gateway on the simulated carrier and the Redis beside the cluster. Nothing of it is exposed.
pub(crate) async fn namespace_with_gateway(ctx: &Ctx, name: &str) -> Result<String> {
    let namespace = ctx.namespace(name).await?;
    let secret = |name: &str, key: &str, value: &str| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {key: value}});
    let redis = format!("redis://{}:6379/0", ctx.cluster()?.node_address());
    let twilio = json!({
        "accountSid": ACCOUNT,
        "authTokenSecretRefs": [{"name": "twilio", "key": "authToken"}],
        "apiBaseUrl": ctx.installation()?.simulator().carrier_url(),
    });
    let gateway = object(
        "VoiceGateway",
        "default",
        json!({
            "publicUrl": "https://voice.example.com",
            "exposure": {"type": "None"},
            "carrier": {"type": "Twilio", "twilio": twilio},
            "store": {"type": "Redis", "redis": {"urlSecretRef": {"name": "redis", "key": "url"}}},
        }),
    );
    for object in [secret("twilio", "authToken", TOKEN), secret("redis", "url", &redis), gateway] {
        apply(ctx.cluster()?, &namespace, &object).await?;
    }
    Ok(namespace)
}

/// An agent that repeats what it hears.
pub(crate) fn echo(name: &str, scaling: &Value) -> Value {
    let spec = json!({
        "persona": {"instructions": {"text": "Repeat."}},
        "engines": [{"name": "echo", "type": "Simulated", "simulated": {}}],
        "scaling": scaling,
        "drain": {"windowSeconds": 30},
    });
    object("VoiceAgent", name, spec)
}

pub(crate) fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": "switchboard.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

/// `kubectl apply`.
pub(crate) async fn apply(cluster: &Cluster, namespace: &str, object: &Value) -> Result<()> {
    let text = |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_lowercase();
    let file = format!("{namespace}-{}-{}.json", text("/kind"), text("/metadata/name"));
    let path = cluster.state_dir().join(file);
    std::fs::write(&path, object.to_string())?;
    cluster.kubectl(&["apply", "-n", namespace, "-f", &path.to_string_lossy()]).await?;
    Ok(())
}

/// `kubectl patch --type=merge`; `null` removes.
pub(crate) async fn merge(
    cluster: &Cluster,
    namespace: &str,
    kind: &str,
    name: &str,
    patch: &Value,
) -> Result<()> {
    let patch = patch.to_string();
    cluster.kubectl(&["patch", kind, name, "-n", namespace, "--type=merge", "-p", &patch]).await?;
    Ok(())
}

/// Waits until a condition has a reason for the newest generation, and returns it.
pub(crate) async fn told(
    cluster: &Cluster,
    namespace: &str,
    kind: &str,
    name: &str,
    (about, reason): (&str, &str),
) -> Result<Value> {
    wait_for(&format!("{about} of {kind} {name} to say {reason}"), PATIENCE, async || {
        let resource = resource(cluster, namespace, kind, name).await?;
        let found = condition(&resource, about).with_context(|| resource["status"].to_string())?;
        ensure!(found["reason"] == reason, "it says {found}");
        let is_newest = found["observedGeneration"] == resource["metadata"]["generation"];
        Ok(is_newest.then(|| found.clone()))
    })
    .await
}

/// Whether a resource is not there (any more).
pub(crate) async fn is_absent(cluster: &Cluster, namespace: &str, kind: &str, name: &str) -> Result<bool> {
    match resource(cluster, namespace, kind, name).await {
        Ok(_) => Ok(false),
        Err(error) if error.to_string().contains("NotFound") => Ok(true),
        Err(error) => Err(error),
    }
}

/// A counter or gauge of the operator that leads, by its whole name with labels; 0 where it has no such series.
pub(crate) async fn operator_metric(cluster: &Cluster, series: &str) -> Result<f64> {
    let lease = resource(cluster, OPERATOR_NAMESPACE, "lease", "switchboard-operator").await?;
    let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
    let pod = holder.split('_').next().unwrap_or_default();
    let pod = resource(cluster, OPERATOR_NAMESPACE, "pod", pod).await?;
    let address = pod["status"]["podIP"].as_str().context("the leader has an address")?;
    let scrape = http_get(&format!("{address}:8080"), "/metrics").await?;
    let line = scrape.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    Ok(line.unwrap_or("0").parse()?)
}
