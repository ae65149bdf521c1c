//! Applies an agent's children: what pods need before the pods, orphans last. What is as it was applied is left alone.

use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::runtime::reflector::Store;
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::build::{AGENT_LABEL, Children, Replicas};
use crate::apply::{REPLICAS_MANAGER, apply, is_not_found};
use crate::cache::find;
use crate::context::Context;

/// Applies everything; returns the Deployment as it is now.
pub(super) async fn apply_children(
    context: &Context,
    agent: &str,
    children: &Children,
) -> Result<Arc<Deployment>, kube::Error> {
    // Without `..`: a new child that is not applied here does not compile.
    let Children {
        service_account,
        config_map,
        deployment,
        replicas,
        service,
        pdb,
        hpa,
        ingress,
        http_route,
        network_policy,
        pod_monitor,
    } = children;
    let known = &context.cache.children;
    keep(context, &known.service_accounts, service_account).await?;
    keep(context, &context.cache.config_maps, config_map).await?;
    keep(context, &known.services, service).await?;
    let deployment = apply_deployment(context, deployment, *replicas).await?;
    keep(context, &known.budgets, pdb).await?;
    let namespace = deployment.namespace().unwrap_or_default();
    let owner = (namespace.as_str(), agent);
    keep_or_delete(context, &known.autoscalers, owner, hpa.as_ref()).await?;
    keep_or_delete(context, &known.ingresses, owner, ingress.as_ref()).await?;
    keep_or_delete(context, &known.network_policies, owner, network_policy.as_ref()).await?;
    let (offer, pod_monitors) = &known.pod_monitors;
    if offer.is_there() {
        keep_or_delete(context, pod_monitors, owner, pod_monitor.as_ref()).await?;
    }
    let (offer, http_routes) = &known.http_routes;
    if offer.is_there() {
        keep_or_delete(context, http_routes, owner, http_route.as_ref()).await?;
    }
    Ok(deployment)
}

/// Applies a child that an agent may have, and deletes it where the agent does not want it any more.
async fn keep_or_delete<K, S>(
    context: &Context,
    known: &Store<S>,
    owner: (&str, &str),
    wanted: Option<&K>,
) -> Result<(), kube::Error>
where
    S: Resource<DynamicType = ()> + Clone + 'static,
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Serialize
        + DeserializeOwned
        + Clone
        + Debug
        + 'static,
{
    if let Some(wanted) = wanted {
        keep(context, known, wanted).await?;
    }
    delete_orphans(context, known, owner, wanted).await
}

/// Applies an object unless it is as it was applied.
async fn keep<K, S>(context: &Context, known: &Store<S>, object: &K) -> Result<(), kube::Error>
where
    S: Resource<DynamicType = ()> + Clone + 'static,
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Serialize
        + DeserializeOwned
        + Clone
        + Debug
        + 'static,
{
    let found = find(known, &object.namespace().unwrap_or_default(), &object.name_any());
    if context.applied.holds(object, found.as_ref().map(|f| f.meta())) {
        return Ok(());
    }
    let answer = apply(&context.client, object).await?;
    context.applied.remember(object, answer.meta());
    Ok(())
}

/// Applies the Deployment without its number of pods, then that number where it is ours to write.
///
/// # Caveats
/// The number has a field manager of its own that applies nothing else: a manager that once applied a field and leaves
/// it out would reset it. While an autoscaler decides, the number is written once, where there is none to keep.
async fn apply_deployment(
    context: &Context,
    deployment: &Deployment,
    replicas: Replicas,
) -> Result<Arc<Deployment>, kube::Error> {
    let (namespace, name) = (deployment.namespace().unwrap_or_default(), deployment.name_any());
    let known = find(&context.cache.children.deployments, &namespace, &name);
    let api = Api::<Deployment>::namespaced(context.client.clone(), &namespace);
    // A watch may not know yet what was made a moment ago; beginning anew would undo what scales it.
    let is_new = known.is_none() && api.get_opt(&name).await?.is_none();
    if is_new && replicas.first() == 0 {
        // The API server's own default is one pod, which would be made before the next request could say none.
        apply(&context.client, &paused(deployment)).await?;
        apply_replicas(&context.client, &namespace, &name, 0).await?;
    }
    let applied = match known {
        Some(known) if context.applied.holds(deployment, Some(&known.metadata)) => known,
        Some(_) | None => {
            let answer = apply(&context.client, deployment).await?;
            context.applied.remember(deployment, &answer.metadata);
            Arc::new(answer)
        }
    };
    let now = applied.spec.as_ref().and_then(|s| s.replicas);
    let wanted = match replicas {
        Replicas::Fixed(wanted) if now != Some(wanted) => Some(wanted),
        // An autoscaler never scales up from zero.
        Replicas::Begin(first) if is_new || now == Some(0) => Some(first),
        Replicas::BeginOnce(first) if is_new => Some(first),
        Replicas::Fixed(_) | Replicas::Begin(_) | Replicas::BeginOnce(_) => None,
    };
    let Some(wanted) = wanted else { return Ok(applied) };
    apply_replicas(&context.client, &namespace, &name, wanted).await.map(Arc::new)
}

/// A Deployment that makes no pods yet.
fn paused(deployment: &Deployment) -> Deployment {
    let mut deployment = deployment.clone();
    deployment.spec.get_or_insert_default().paused = Some(true);
    deployment
}

async fn apply_replicas(
    client: &Client,
    namespace: &str,
    name: &str,
    replicas: i32,
) -> Result<Deployment, kube::Error> {
    let body = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"replicas": replicas},
    });
    let parameters = PatchParams::apply(REPLICAS_MANAGER).force();
    let api = Api::<Deployment>::namespaced(client.clone(), namespace);
    api.patch(name, &parameters, &Patch::Apply(body)).await
}

/// Deletes the children of a kind that the agent has and does not want any more. "Already gone" is success.
async fn delete_orphans<K, S>(
    context: &Context,
    known: &Store<S>,
    (namespace, agent): (&str, &str),
    wanted: Option<&K>,
) -> Result<(), kube::Error>
where
    S: Resource<DynamicType = ()> + Clone + 'static,
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + DeserializeOwned
        + Clone
        + Debug
        + 'static,
{
    let wanted = wanted.map(|w| w.name_any());
    let orphans = known.state_filter(|found| {
        found.meta().deletion_timestamp.is_none()
            && found.namespace().as_deref() == Some(namespace)
            && found.labels().get(AGENT_LABEL).is_some_and(|of| of == agent)
            && Some(found.name_any()) != wanted
    });
    let api = Api::<K>::namespaced(context.client.clone(), namespace);
    for orphan in orphans {
        match api.delete(&orphan.name_any(), &DeleteParams::background()).await {
            Ok(_) => {}
            Err(error) if is_not_found(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
