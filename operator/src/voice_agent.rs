//! VoiceAgent: dereference (client) → validate → build → apply (client) → status.

pub mod agent_file;
mod apply;
pub mod autoscaling;
pub mod build;
pub mod dereference;
pub mod status;
pub mod validate;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crds::{PhoneNumber, VoiceAgent};
use futures_util::StreamExt as _;
use jiff::Timestamp;
use kube::core::DeserializeGuard;
use kube::runtime::Controller;
use kube::runtime::controller::{self, Action};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Resource as _, ResourceExt as _};

use crate::apply::{FIELD_MANAGER, apply_status};
use crate::cache::{self, Feeds};
use crate::context::{Context, spread};
use crate::report::{self, Error, Kind};
use crate::steward;
use agent_file::OverflowAgent;
use dereference::References;
use status::{Applied, Progress};

type Guarded = DeserializeGuard<VoiceAgent>;

/// Agents that are reconciled at a time; each has one request to the API server under way. Hundreds at once, as when a large
/// fleet is applied, would keep it from answering the Lease's renewal, and the leader would have to go. Numbers need no
/// such bound: they wait for their carrier's turn, and one account must not hold up another's.
const CONCURRENCY: u16 = 16;

/// Runs until `stop`. Polls every feed, so the cache is only alive while this runs.
pub async fn run(
    context: Arc<Context>,
    feeds: Feeds,
    stop: impl Future<Output = ()> + Send + Sync + 'static,
) {
    let Feeds {
        gateways,
        agents: own,
        numbers,
        secrets,
        config_maps,
        deployments,
        service_accounts,
        services,
        budgets,
        autoscalers,
        ingresses,
        pods,
    } = feeds;
    let store = context.cache.agents.clone();
    let by_gateway = store.clone();
    let by_number = store.clone();
    let by_secret = store.clone();
    let by_config_map = store.clone();
    Controller::for_stream(own, store)
        .owns_stream(service_accounts)
        .owns_stream(deployments)
        .owns_stream(services)
        .owns_stream(autoscalers)
        .owns_stream(budgets)
        .owns_stream(ingresses)
        .watches_stream(gateways, move |gateway| {
            let (namespace, name) = (gateway.namespace(), gateway.name_any());
            agents(&by_gateway, |a| a.namespace() == namespace && a.spec.gateway_ref.name == name)
        })
        .watches_stream(numbers, move |number| {
            number.0.map(|number| agents(&by_number, |a| is_reached(a, &number))).unwrap_or_default()
        })
        .watches_stream(secrets, move |secret| {
            let (namespace, name) = (secret.namespace(), secret.name_any());
            agents(&by_secret, |a| {
                a.namespace() == namespace
                    && agent_file::own_secret_keys(&a.spec).iter().any(|r| r.name == name)
            })
        })
        .watches_stream(config_maps, move |config_map| {
            let (namespace, name) = (config_map.namespace(), config_map.name_any());
            agents(&by_config_map, |a| {
                let reference = a.spec.persona.instructions.config_map_key_ref.as_ref();
                a.namespace() == namespace
                    && (reference.is_some_and(|r| r.name == name) || build::child_name(&a.name_any()) == name)
            })
        })
        // Pods wake nobody: they are here for the steward, and their Deployment tells of them.
        .watches_stream(pods, |_| None)
        .with_config(controller::Config::default().concurrency(CONCURRENCY))
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
        let namespace = agent.namespace().unwrap_or_default();
        context.applied.forget(&namespace, &build::child_name(&agent.name_any()));
        return Ok(Action::await_change());
    }
    context.cache.wait_until_complete().await;
    let progress = match dereference::dereference(&agent, &context).await? {
        References::Missing(missing) => Progress::Missing(missing),
        References::Resolved(resolved) => apply_resolved(&agent, *resolved, &context).await?,
    };
    write_status(&agent, &progress, &context).await?;
    let mut resync = spread(context.resync, &agent.name_any(), 0);
    if agent_file::overflow_agent(&agent.spec).is_some() {
        resync = resync.min(OTHER_AGENT);
    }
    Ok(Action::requeue(resync))
}

/// How often it is looked whether another agent is still there: the controller's own watch wakes an agent for itself
/// only. It costs the API server nothing.
const OTHER_AGENT: Duration = Duration::from_secs(15);

async fn apply_resolved(
    agent: &VoiceAgent,
    resolved: dereference::Resolved,
    context: &Context,
) -> Result<Progress, Error> {
    let dereference::Resolved { gateway, instructions, entering, numbers, absent } = resolved;
    let inputs = validate::Resolved {
        agent,
        gateway: &gateway,
        instructions,
        numbers: entering,
        overflow_agent: OverflowAgent::of(absent.as_ref()),
        default_image: &context.media_image,
    };
    let validated = match validate::validate(inputs) {
        Ok(validated) => validated,
        Err(invalid) => return Ok(Progress::Invalid(invalid)),
    };
    let children = build::build(&validated);
    let deployment = apply::apply_children(context, &validated.name, &children).await?;
    let known = agent.status.as_ref().and_then(|s| s.config_revision.as_ref());
    if known.is_some_and(|known| *known != validated.file.revision) {
        // Before the status says so: if this process ends in between, the next one asks again.
        steward::ask_pods(context, &validated.namespace, &validated.name, &validated.file.revision).await;
        context.configured.notify_one();
    }
    let unique: BTreeSet<_> = numbers.into_iter().collect();
    let child = build::child_name(&validated.name);
    let autoscaler = cache::find(&context.cache.children.autoscalers, &validated.namespace, &child);
    Ok(Progress::Applied(Box::new(Applied {
        deployment,
        url: validated.url(),
        numbers: unique.into_iter().collect(),
        revision: validated.file.revision,
        is_suspended: validated.file.suspended,
        autoscaling: autoscaling::finding(&validated.scale, autoscaler.as_deref(), agent.status.as_ref()),
        absent,
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
