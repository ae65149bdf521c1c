//! VoiceAgent: dereference (client) → validate → build → apply (client) → status. A deleted one leaves in order.

pub mod agent_file;
mod apply;
pub mod autoscaling;
pub mod build;
pub mod departure;
pub mod dereference;
pub mod status;
pub mod validate;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crds::{PhoneNumber, PhoneNumberStatus, VoiceAgent};
use futures_util::StreamExt as _;
use jiff::Timestamp;
use kube::core::DeserializeGuard;
use kube::runtime::Controller;
use kube::runtime::controller::{self, Action};
use kube::runtime::events::EventType;
use kube::runtime::finalizer::{Event, finalizer};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, ResourceExt as _};
use tokio::time::Instant;

use crate::apply::{FIELD_MANAGER, apply_status};
use crate::cache::{self, Feeds};
use crate::context::{Context, spread};
use crate::phone_number::routes;
use crate::report::{self, Error, Kind};
use crate::rollouts::{self, Image};
use crate::steward;
use agent_file::OverflowAgent;
use build::AGENT_LABEL;
use departure::{Departure, Scene};
use dereference::References;
use status::{Applied, Progress};

type Guarded = DeserializeGuard<VoiceAgent>;

/// Agents that are reconciled at a time; each has one request to the API server under way. Hundreds at once, as when a large
/// fleet is applied, would keep it from answering the Lease's renewal, and the leader would have to go. Numbers need no
/// such bound: they wait for their carrier's turn, and one account must not hold up another's.
const CONCURRENCY: u16 = 16;

/// Until an agent looks again whether it is its turn to roll out.
const QUEUED: Duration = Duration::from_secs(5);

/// Runs until `stop`. Polls every feed, so the cache is only alive while this runs.
pub async fn run(
    context: Arc<Context>,
    feeds: Feeds,
    stop: impl Future<Output = ()> + Send + Sync + 'static,
) {
    let Feeds {
        gateways,
        agents: own,
        others,
        numbers,
        secrets,
        config_maps,
        deployments,
        service_accounts,
        services,
        budgets,
        autoscalers,
        ingresses,
        network_policies,
        pod_monitors,
        http_routes,
        offers,
        pods,
    } = feeds;
    let store = context.cache.agents.clone();
    let known_numbers = context.cache.numbers.clone();
    let by_overflow = store.clone();
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
        .owns_stream(network_policies)
        .owns_stream(pod_monitors)
        .owns_stream(http_routes)
        .reconcile_all_on(offers)
        .watches_stream(gateways, move |gateway| {
            let (namespace, name) = (gateway.namespace(), gateway.name_any());
            agents(&by_gateway, |a| a.namespace() == namespace && a.spec.gateway_ref.name == name)
        })
        .watches_stream(others, move |other| {
            let (namespace, name) = (other.namespace(), other.name_any());
            let overflowing = agents(&by_overflow, |a| {
                a.namespace() == namespace && agent_file::overflow_agent(&a.spec) == Some(name.as_str())
            });
            [overflowing, entries_to(&known_numbers, &other)].concat()
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

/// The agents whose documents name an agent in a number's routes: whether it is there decides what they say.
fn entries_to(numbers: &Store<DeserializeGuard<PhoneNumber>>, agent: &Guarded) -> Vec<ObjectRef<Guarded>> {
    let (namespace, name) = (agent.namespace().unwrap_or_default(), agent.name_any());
    let has_route = |n: &PhoneNumber| {
        n.namespace().as_deref() == Some(&namespace) && n.spec.routes.iter().any(|r| r.agent_ref.name == name)
    };
    let numbers = numbers.state_filter(|n| n.0.as_ref().is_ok_and(has_route));
    let statuses = numbers.iter().filter_map(|n| n.0.as_ref().ok()?.status.as_ref());
    let entries = statuses.flat_map(PhoneNumberStatus::entries);
    entries.filter(|entry| *entry != name).map(|entry| ObjectRef::new(entry).within(&namespace)).collect()
}

/// Whether a number's calls reach an agent, or did when the agent was last looked at.
fn is_reached(agent: &VoiceAgent, number: &PhoneNumber) -> bool {
    let name = agent.name_any();
    let e164 = number.status.as_ref().and_then(|s| s.e164.as_ref());
    agent.namespace() == number.namespace()
        && (number.spec.routes.iter().any(|r| r.agent_ref.name == name)
            || routes::enters_through(number, &name)
            || e164.is_some_and(|n| agent.status.iter().any(|s| s.numbers.contains(n))))
}

async fn reconcile(agent: Arc<VoiceAgent>, context: Arc<Context>) -> Result<Action, Error> {
    let api = Api::<VoiceAgent>::namespaced(context.client.clone(), &agent.namespace().unwrap_or_default());
    context.cache.wait_until_complete().await;
    let is_leaving = agent.metadata.deletion_timestamp.is_some();
    let is_held = agent.finalizers().iter().any(|finalizer| finalizer == departure::FINALIZER);
    if is_leaving && is_held && !may_go(&agent, &context).await? {
        return Ok(Action::requeue(departure::LOOK));
    }
    let action = finalizer(&api, departure::FINALIZER, agent, |event| async {
        match event {
            Event::Apply(agent) => keep(&agent, &context).await,
            // The garbage collector follows the owner references.
            Event::Cleanup(_) => Ok(Action::await_change()),
        }
    })
    .await?;
    Ok(action)
}

/// Makes an agent what its spec says.
async fn keep(agent: &VoiceAgent, context: &Context) -> Result<Action, Error> {
    let progress = match dereference::dereference(agent, context).await? {
        References::Missing(missing) => Progress::Missing(missing),
        References::Resolved(resolved) => apply_resolved(agent, *resolved, context).await?,
    };
    write_status(agent, &progress, context).await?;
    let again = if progress.is_queued() { QUEUED } else { context.resync };
    Ok(Action::requeue(spread(again, &agent.name_any(), 0)))
}

/// Whether a deleted agent may go; what it waits for is in its status.
async fn may_go(agent: &VoiceAgent, context: &Context) -> Result<bool, Error> {
    let key = (agent.namespace().unwrap_or_default(), agent.name_any());
    let scene = Scene {
        numbers: dereference::callers(agent, &context.cache),
        pods: steward::ask_all(context, &key).await,
        window: Duration::from_secs(u64::from(agent.spec.drain.window_seconds)),
    };
    let departure = context.departures.decide(&key, &scene, Instant::now());
    if let Departure::Go { calls } = departure {
        if calls > 0 {
            let note =
                format!("the drain window has passed with {calls} calls on; the pods drain them as they end");
            report::tell(context, agent, EventType::Warning, "DrainWindowPassed", &note).await;
        }
        context.applied.forget(&key.0, &build::child_name(&key.1));
        context.turns.forget(&key);
        context.departures.forget(&key);
        return Ok(true);
    }
    write_status(agent, &Progress::Leaving(departure::finding(&departure)), context).await?;
    Ok(false)
}

async fn apply_resolved(
    agent: &VoiceAgent,
    resolved: dereference::Resolved,
    context: &Context,
) -> Result<Progress, Error> {
    let dereference::Resolved { gateway, instructions, entering, numbers, absent } = resolved;
    let key = (agent.namespace().unwrap_or_default(), agent.name_any());
    let image = image(agent, &key, context);
    let inputs = validate::Resolved {
        agent,
        gateway: &gateway,
        instructions,
        numbers: entering,
        overflow_agent: OverflowAgent::of(absent.as_ref()),
        image: image.reference().to_owned(),
        surroundings: &context.surroundings,
    };
    let validated = match validate::validate(inputs) {
        Ok(validated) => validated,
        Err(invalid) => return Ok(Progress::Invalid(invalid)),
    };
    let children = build::build(&validated);
    let deployment = apply::apply_children(context, &validated.name, &children).await?;
    context.turns.follow(&key, &deployment);
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
        image,
        lacks_route_api: children.http_route.is_some() && !context.cache.children.http_routes.0.is_there(),
        autoscaling: autoscaling::finding(&validated.scale, autoscaler.as_deref(), agent.status.as_ref()),
        absent,
    })))
}

/// The image for an agent's pods. Who rolls out the newest one already, whoever let them, is in the way of others.
fn image(agent: &VoiceAgent, key: &rollouts::Key, context: &Context) -> Image {
    let Context { cache, surroundings, turns, .. } = context;
    let deployments = &cache.children.deployments;
    let has_pods = cache::find(deployments, &key.0, &build::child_name(&key.1)).is_some();
    rollouts::choose(agent, &surroundings.media_image, has_pods, || {
        let rolling = deployments.state_filter(|d| {
            rollouts::is_rolling(d) && build::deployment::media_image(d) == Some(&surroundings.media_image)
        });
        let owners =
            rolling.iter().filter_map(|d| Some((d.namespace()?, d.labels().get(AGENT_LABEL)?.clone())));
        turns.take(key, owners)
    })
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
