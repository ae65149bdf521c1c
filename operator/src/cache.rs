//! What the API server has, as its watches tell: read instead of asking again at every reconciliation.
//!
//! A [`Cache`] is read by reconcilers; its [`Feeds`] are the same watches as streams, which wake the agents' controller.
//! Both come from one watch, so whoever is woken by a change also reads it. Of Secrets, ConfigMaps and most children
//! only metadata is kept; what a Secret or ConfigMap holds is asked once per version ([`contents`]).

pub mod contents;

use std::fmt::Debug;

use crds::{PhoneNumber, VoiceAgent, VoiceGateway};
use futures_util::future::{self, BoxFuture, Shared};
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt as _, Stream, StreamExt as _};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::Ingress;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::reflector::{ObjectRef, Store, store};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

use crate::voice_agent::build::{AGENT_LABEL, MANAGED_BY};
use contents::Contents;

/// Objects as a watch brings them.
pub type Feed<K> = BoxStream<'static, Result<K, watcher::Error>>;
type Metadata<K> = Store<PartialObjectMeta<K>>;

/// What is known of the cluster. As old as its watches; complete once [`Cache::wait_until_complete`] returned.
pub struct Cache {
    /// Every VoiceGateway.
    pub gateways: Store<DeserializeGuard<VoiceGateway>>,
    /// Every VoiceAgent.
    pub agents: Store<DeserializeGuard<VoiceAgent>>,
    /// Every PhoneNumber.
    pub numbers: Store<DeserializeGuard<PhoneNumber>>,
    /// Which Secrets there are.
    pub secrets: Metadata<Secret>,
    /// Which ConfigMaps there are, the agents' own among them.
    pub config_maps: Metadata<ConfigMap>,
    /// The agents' children.
    pub children: Children,
    /// The media pods, without their spec.
    pub pods: Store<Pod>,
    /// What Secrets and ConfigMaps held when they were last asked.
    pub contents: Contents,
    complete: Shared<BoxFuture<'static, ()>>,
}

/// The agents' children, by kind; ConfigMaps are in [`Cache::config_maps`].
pub struct Children {
    /// Whole, because their status is the agent's.
    pub deployments: Store<Deployment>,
    /// Identities.
    pub service_accounts: Metadata<ServiceAccount>,
    /// Addresses.
    pub services: Metadata<Service>,
    /// Budgets.
    pub budgets: Metadata<PodDisruptionBudget>,
    /// Autoscalers.
    pub autoscalers: Metadata<HorizontalPodAutoscaler>,
    /// Ways in.
    pub ingresses: Metadata<Ingress>,
}

/// The watches behind a [`Cache`]; it fills only while they are polled.
pub struct Feeds {
    pub(crate) gateways: Feed<DeserializeGuard<VoiceGateway>>,
    pub(crate) agents: Feed<DeserializeGuard<VoiceAgent>>,
    pub(crate) numbers: Feed<DeserializeGuard<PhoneNumber>>,
    pub(crate) secrets: Feed<PartialObjectMeta<Secret>>,
    pub(crate) config_maps: Feed<PartialObjectMeta<ConfigMap>>,
    pub(crate) deployments: Feed<Deployment>,
    pub(crate) service_accounts: Feed<PartialObjectMeta<ServiceAccount>>,
    pub(crate) services: Feed<PartialObjectMeta<Service>>,
    pub(crate) budgets: Feed<PartialObjectMeta<PodDisruptionBudget>>,
    pub(crate) autoscalers: Feed<PartialObjectMeta<HorizontalPodAutoscaler>>,
    pub(crate) ingresses: Feed<PartialObjectMeta<Ingress>>,
    pub(crate) pods: Feed<Pod>,
}

impl Cache {
    /// An empty cache and what fills it.
    pub fn new(client: &Client) -> (Self, Feeds) {
        let (key, value) = MANAGED_BY;
        let ours = watcher::Config::default().labels(&format!("{key}={value},{AGENT_LABEL}"));
        let (gateways, gateway_feed) = whole(client, watcher::Config::default());
        let (agents, agent_feed) = whole(client, watcher::Config::default());
        let (numbers, number_feed) = whole(client, watcher::Config::default());
        let (secrets, secret_feed) = whole(client, watcher::Config::default());
        let (config_maps, config_map_feed) = whole(client, watcher::Config::default());
        let (deployments, deployment_feed) = whole(client, ours.clone());
        let (service_accounts, service_account_feed) = whole(client, ours.clone());
        let (services, service_feed) = whole(client, ours.clone());
        let (budgets, budget_feed) = whole(client, ours.clone());
        let (autoscalers, autoscaler_feed) = whole(client, ours.clone());
        let (ingresses, ingress_feed) = whole(client, ours.clone());
        let lean_pods = watch(Api::<Pod>::all(client.clone()), ours).modify(|pod| {
            pod.spec = None;
            pod.metadata.managed_fields = None;
        });
        let (pods, pod_feed) = feed(lean_pods);
        let children = Children { deployments, service_accounts, services, budgets, autoscalers, ingresses };
        let complete = completion(&gateways, &numbers, &secrets, &config_maps, &children, &pods);
        let cache = Self {
            gateways,
            agents,
            numbers,
            secrets,
            config_maps,
            children,
            pods,
            contents: Contents::default(),
            complete,
        };
        let feeds = Feeds {
            gateways: gateway_feed,
            agents: agent_feed,
            numbers: number_feed,
            secrets: secret_feed,
            config_maps: config_map_feed,
            deployments: deployment_feed,
            service_accounts: service_account_feed,
            services: service_feed,
            budgets: budget_feed,
            autoscalers: autoscaler_feed,
            ingresses: ingress_feed,
            pods: pod_feed,
        };
        (cache, feeds)
    }

    /// Waits until every watch has listed once: before that, what is not here may exist all the same.
    pub async fn wait_until_complete(&self) {
        self.complete.clone().await;
    }
}

/// Ends when every store has its first list.
///
/// One future for all who wait: a store wakes only the last who asked it, and the others would wait for ever. The
/// agents' own store is left to their controller for the same reason; it reconciles nobody before that store is full.
fn completion(
    gateways: &Store<DeserializeGuard<VoiceGateway>>,
    numbers: &Store<DeserializeGuard<PhoneNumber>>,
    secrets: &Metadata<Secret>,
    config_maps: &Metadata<ConfigMap>,
    children: &Children,
    pods: &Store<Pod>,
) -> Shared<BoxFuture<'static, ()>> {
    // Without `..`: a new kind of child that is not waited for here does not compile.
    let Children { deployments, service_accounts, services, budgets, autoscalers, ingresses } = children;
    let lists: Vec<BoxFuture<'static, ()>> = vec![
        first_list(gateways),
        first_list(numbers),
        first_list(secrets),
        first_list(config_maps),
        first_list(deployments),
        first_list(service_accounts),
        first_list(services),
        first_list(budgets),
        first_list(autoscalers),
        first_list(ingresses),
        first_list(pods),
    ];
    future::join_all(lists).map(drop).boxed().shared()
}

fn first_list<K>(store: &Store<K>) -> BoxFuture<'static, ()>
where
    K: Resource<DynamicType = ()> + Clone + Send + Sync + 'static,
{
    let store = store.clone();
    // A feed is dropped only when everything ends, and then there is nothing to wait for.
    async move { store.wait_until_ready().await.unwrap_or_default() }.boxed()
}

/// An object of a namespace, if it is known.
pub fn find<K>(store: &Store<K>, namespace: &str, name: &str) -> Option<std::sync::Arc<K>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    store.get(&ObjectRef::new(name).within(namespace))
}

fn whole<K>(client: &Client, config: watcher::Config) -> (Store<K>, Feed<K>)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    feed(watch(Api::<K>::all(client.clone()), config))
}

fn feed<K>(
    events: impl Stream<Item = Result<Event<K>, watcher::Error>> + Send + 'static,
) -> (Store<K>, Feed<K>)
where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static,
{
    let (reader, writer) = store();
    (reader, touched(events.default_backoff().reflect(writer)).boxed())
}

/// The objects of a watch, each after the store has it.
///
/// A list is held back until it is complete, because only then the store takes it over; kube's own `touched_objects`
/// passes it on object by object, and a reconciler woken so early would read the state of before.
fn touched<K: Send + 'static>(
    events: impl Stream<Item = Result<Event<K>, watcher::Error>> + Send + 'static,
) -> impl Stream<Item = Result<K, watcher::Error>> + Send {
    let mut listed = Vec::new();
    events
        .map(move |event| match event {
            Ok(Event::Init) => {
                listed.clear();
                Vec::new()
            }
            Ok(Event::InitApply(object)) => {
                listed.push(Ok(object));
                Vec::new()
            }
            Ok(Event::InitDone) => std::mem::take(&mut listed),
            Ok(Event::Apply(object) | Event::Delete(object)) => vec![Ok(object)],
            Err(error) => vec![Err(error)],
        })
        .flat_map(stream::iter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everybody_who_waits_for_the_first_list_is_woken() {
        let (reader, mut writer) = store::<ConfigMap>();
        let complete = first_list(&reader).shared();
        let waiting = [0; 3].map(|_| tokio::spawn(complete.clone()));
        tokio::task::yield_now().await;
        writer.apply_watcher_event(&Event::Init);
        writer.apply_watcher_event(&Event::InitDone);
        for waiter in waiting {
            waiter.await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_list_is_passed_on_when_the_store_has_it_and_changes_at_once() {
        let events = [
            Event::Init,
            Event::InitApply("dropped by the list that began anew"),
            Event::Init,
            Event::InitApply("a"),
            Event::InitApply("b"),
            Event::InitDone,
            Event::Apply("c"),
            Event::Delete("a"),
        ];
        let passed: Vec<_> = touched(stream::iter(events.map(Ok))).map(Result::unwrap).collect().await;
        assert_eq!(passed, ["a", "b", "c", "a"]);
    }
}
