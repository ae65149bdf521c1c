//! VoiceAgent: dereference (client) → validate → build → apply (client) → status.

pub mod agent_file;
mod apply;
pub mod build;
pub mod dereference;
pub mod status;
pub mod validate;

use std::collections::BTreeSet;
use std::sync::Arc;

use crds::{PhoneNumber, VoiceAgent, VoiceGateway};
use futures_util::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::Ingress;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::controller::Action;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::{Controller, watcher};
use kube::{Api, Resource as _, ResourceExt as _};

use crate::apply::{FIELD_MANAGER, apply_status};
use crate::context::{Context, spread};
use crate::report::{self, Error, Kind};
use dereference::References;
use status::{Applied, Progress};

type Guarded = DeserializeGuard<VoiceAgent>;

/// Runs until `stop`.
pub async fn run(context: Arc<Context>, stop: impl Future<Output = ()> + Send + Sync + 'static) {
    let client = context.client.clone();
    let (key, value) = build::MANAGED_BY;
    let ours = watcher::Config::default().labels(&format!("{key}={value},{}", build::AGENT_LABEL));
    let all = watcher::Config::default;
    let controller = Controller::new(Api::<Guarded>::all(client.clone()), all());
    let store = controller.store();
    let by_gateway = store.clone();
    let by_number = store.clone();
    let by_secret = store.clone();
    let by_config_map = store;
    controller
        .owns(Api::<PartialObjectMeta<ServiceAccount>>::all(client.clone()), ours.clone())
        .owns(Api::<PartialObjectMeta<ConfigMap>>::all(client.clone()), ours.clone())
        .owns(Api::<PartialObjectMeta<Deployment>>::all(client.clone()), ours.clone())
        .owns(Api::<PartialObjectMeta<Service>>::all(client.clone()), ours.clone())
        .owns(Api::<PartialObjectMeta<HorizontalPodAutoscaler>>::all(client.clone()), ours.clone())
        .owns(Api::<PartialObjectMeta<PodDisruptionBudget>>::all(client.clone()), ours.clone())
        .owns(Api::<PartialObjectMeta<Ingress>>::all(client.clone()), ours)
        .watches(Api::<DeserializeGuard<VoiceGateway>>::all(client.clone()), all(), move |gateway| {
            let (namespace, name) = (gateway.namespace(), gateway.name_any());
            agents(&by_gateway, |a| a.namespace() == namespace && a.spec.gateway_ref.name == name)
        })
        .watches(Api::<DeserializeGuard<PhoneNumber>>::all(client.clone()), all(), move |number| {
            number.0.map(|number| agents(&by_number, |a| is_reached(a, &number))).unwrap_or_default()
        })
        .watches(Api::<PartialObjectMeta<Secret>>::all(client.clone()), all(), move |secret| {
            let (namespace, name) = (secret.namespace(), secret.name_any());
            agents(&by_secret, |a| {
                a.namespace() == namespace
                    && agent_file::own_secret_keys(&a.spec).iter().any(|r| r.name == name)
            })
        })
        .watches(Api::<PartialObjectMeta<ConfigMap>>::all(client), all(), move |config_map| {
            let (namespace, name) = (config_map.namespace(), config_map.name_any());
            agents(&by_config_map, |a| {
                let reference = a.spec.persona.instructions.config_map_key_ref.as_ref();
                a.namespace() == namespace && reference.is_some_and(|r| r.name == name)
            })
        })
        .graceful_shutdown_on(stop)
        .run(
            |object, context| report::observe(Kind::VoiceAgent, object, context, reconcile),
            |object, error, context| report::error_policy(Kind::VoiceAgent, &object, error, &context),
            context.clone(),
        )
        .for_each(|result| report::follow(Kind::VoiceAgent, result, &context))
        .await;
}

/// The known agents that fit.
fn agents(store: &Store<Guarded>, fits: impl Fn(&VoiceAgent) -> bool) -> Vec<ObjectRef<Guarded>> {
    let agents = store.state();
    agents.iter().filter(|a| a.0.as_ref().is_ok_and(&fits)).map(|a| ObjectRef::from_obj(a.as_ref())).collect()
}

/// Whether a number's calls reach an agent, or did when the agent was last looked at.
fn is_reached(agent: &VoiceAgent, number: &PhoneNumber) -> bool {
    let name = agent.name_any();
    let status = number.status.as_ref();
    let e164 = status.and_then(|s| s.e164.as_ref());
    agent.namespace() == number.namespace()
        && (number.spec.routes.iter().any(|r| r.agent_ref.name == name)
            || status.and_then(|s| s.entry_agent.as_ref()) == Some(&name)
            || e164.is_some_and(|n| agent.status.iter().any(|s| s.numbers.contains(n))))
}

async fn reconcile(agent: Arc<VoiceAgent>, context: Arc<Context>) -> Result<Action, Error> {
    if agent.meta().deletion_timestamp.is_some() {
        // The garbage collector follows the owner references.
        return Ok(Action::await_change());
    }
    let progress = match dereference::dereference(&agent, &context).await? {
        References::Missing(missing) => Progress::Missing(missing),
        References::Resolved(resolved) => apply_resolved(&agent, *resolved, &context).await?,
    };
    write_status(&agent, &progress, &context).await?;
    Ok(Action::requeue(spread(context.resync, &agent.name_any(), 0)))
}

async fn apply_resolved(
    agent: &VoiceAgent,
    resolved: dereference::Resolved,
    context: &Context,
) -> Result<Progress, Error> {
    let dereference::Resolved { gateway, instructions, entering, numbers } = resolved;
    let inputs = validate::Resolved {
        agent,
        gateway: &gateway,
        instructions,
        numbers: entering,
        default_image: &context.media_image,
    };
    let validated = match validate::validate(inputs) {
        Ok(validated) => validated,
        Err(invalid) => return Ok(Progress::Invalid(invalid)),
    };
    let children = build::build(&validated);
    let deployment = apply::apply_children(&context.client, &validated.name, &children).await?;
    let unique: BTreeSet<_> = numbers.into_iter().collect();
    Ok(Progress::Applied(Box::new(Applied {
        deployment,
        url: validated.url(),
        numbers: unique.into_iter().collect(),
        revision: validated.file.revision,
        is_suspended: validated.file.suspended,
    })))
}

async fn write_status(agent: &VoiceAgent, progress: &Progress, context: &Context) -> Result<(), Error> {
    let status = status::compute(agent, progress, Timestamp::now());
    if agent.status.is_some() && status::owned(agent.status.as_ref()) == status {
        return Ok(());
    }
    apply_status(&context.client, agent, &status, FIELD_MANAGER, None).await?;
    let before = agent.status.as_ref().map_or(&[][..], |s| &s.conditions);
    report::tell_transition(context, agent, before, &status.conditions).await;
    Ok(())
}
