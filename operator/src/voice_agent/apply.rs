//! Applies an agent's children: what pods need before the pods, orphans last.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::networking::v1::Ingress;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;

use super::build::{AGENT_LABEL, Children, MANAGED_BY, Replicas};
use crate::apply::{REPLICAS_MANAGER, apply, delete_orphans};

/// Applies everything; returns the Deployment as it is now.
pub(super) async fn apply_children(
    client: &Client,
    agent: &str,
    children: &Children,
) -> Result<Deployment, kube::Error> {
    // Without `..`: a new child that is not applied here does not compile.
    let Children { service_account, config_map, deployment, replicas, service, pdb, hpa, ingress } = children;
    apply(client, service_account).await?;
    apply(client, config_map).await?;
    apply(client, service).await?;
    let deployment = apply_deployment(client, deployment, *replicas).await?;
    apply(client, pdb).await?;
    if let Some(hpa) = hpa {
        apply(client, hpa).await?;
    }
    if let Some(ingress) = ingress {
        apply(client, ingress).await?;
    }
    let namespace = deployment.namespace().unwrap_or_default();
    let (key, value) = MANAGED_BY;
    let labels = format!("{key}={value},{AGENT_LABEL}={agent}");
    delete_orphans::<HorizontalPodAutoscaler>(client, &namespace, &labels, hpa.as_ref()).await?;
    delete_orphans::<Ingress>(client, &namespace, &labels, ingress.as_ref()).await?;
    Ok(deployment)
}

/// Applies the Deployment without its number of pods, then that number where it is ours to write.
///
/// # Caveats
/// The number has a field manager of its own that applies nothing else: a manager that once applied a field and leaves
/// it out would reset it. While an autoscaler decides, the number is written once, where there is none to keep.
async fn apply_deployment(
    client: &Client,
    deployment: &Deployment,
    replicas: Replicas,
) -> Result<Deployment, kube::Error> {
    let api = Api::<Deployment>::namespaced(client.clone(), &deployment.namespace().unwrap_or_default());
    let is_new = api.get_opt(&deployment.name_any()).await?.is_none();
    let applied = apply(client, deployment).await?;
    let now = applied.spec.as_ref().and_then(|s| s.replicas);
    let wanted = match replicas {
        Replicas::Fixed(wanted) => Some(wanted),
        // An autoscaler never scales up from zero.
        Replicas::Begin(first) if is_new || now == Some(0) => Some(first),
        Replicas::Begin(_) => None,
    };
    let Some(wanted) = wanted else { return Ok(applied) };
    let body = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": deployment.name_any()},
        "spec": {"replicas": wanted},
    });
    let parameters = PatchParams::apply(REPLICAS_MANAGER).force();
    api.patch(&deployment.name_any(), &parameters, &Patch::Apply(body)).await
}
