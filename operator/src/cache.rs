//! What the API server has, as its watches tell: read instead of asking again at every reconciliation.
//!
//! A [`Cache`] is read by reconcilers; the feeds of a [`Setup`] are the same watches as streams, which wake the
//! controllers. There is one watch of each kind for all of them, so whoever is woken by a change also reads it. Of
//! Secrets, ConfigMaps and most children only metadata is kept; what a Secret or ConfigMap holds is asked once per
//! version ([`contents`]).

pub mod contents;
mod merge;
pub mod offers;
pub mod watches;

use crds::{PhoneNumber, VoiceAgent, VoiceGateway};
use futures_util::future::{BoxFuture, Shared};
use futures_util::stream::BoxStream;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, PodSpec, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::{Ingress, NetworkPolicy};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use kube::{Client, Resource};

use crate::applied;
use crate::config::Namespaces;
use crate::foreign::{HTTPRoute, PodMonitor};
use crate::voice_agent::build::{AGENT_LABEL, MANAGED_BY};
use contents::Contents;
use offers::Offer;
use watches::{Feed, Property, Tap, Watched, Watches, without_last_applied, without_owners};

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
    /// With status, which is the agent's, and of their pods the images.
    pub deployments: Store<Deployment>,
    /// Identities.
    pub service_accounts: Metadata<ServiceAccount>,
    /// Addresses.
    pub services: Metadata<Service>,
    /// Budgets.
    pub budgets: Metadata<PodDisruptionBudget>,
    /// With their conditions, which are the agent's.
    pub autoscalers: Store<HorizontalPodAutoscaler>,
    /// Ways in.
    pub ingresses: Metadata<Ingress>,
    /// Who reaches the pods.
    pub network_policies: Metadata<NetworkPolicy>,
    /// Who scrapes them, where the cluster has the kind.
    pub pod_monitors: (Offer, Metadata<PodMonitor>),
    /// Ways in, where the cluster has the kind.
    pub http_routes: (Offer, Metadata<HTTPRoute>),
}

/// A cache, what fills it, and what wakes its readers.
pub struct Setup {
    /// Empty, until `watches` run.
    pub cache: Cache,
    /// To be driven.
    pub watches: Watches,
    /// What wakes agents.
    pub agents: Feeds,
    /// What wakes gateways.
    pub gateways: GatewayFeeds,
    /// What wakes numbers.
    pub numbers: NumberFeeds,
}

/// What wakes gateways.
pub struct GatewayFeeds {
    pub(crate) own: Feed<DeserializeGuard<VoiceGateway>>,
    pub(crate) secrets: Feed<PartialObjectMeta<Secret>>,
}

/// What wakes numbers: never a mere status, of whichever kind.
pub struct NumberFeeds {
    pub(crate) own: Feed<DeserializeGuard<PhoneNumber>>,
    /// The same kind once more, for those that wait for another's number.
    pub(crate) others: Feed<DeserializeGuard<PhoneNumber>>,
    pub(crate) gateways: Feed<DeserializeGuard<VoiceGateway>>,
    pub(crate) agents: Feed<DeserializeGuard<VoiceAgent>>,
    pub(crate) secrets: Feed<PartialObjectMeta<Secret>>,
}

/// What wakes agents.
pub struct Feeds {
    pub(crate) gateways: Feed<DeserializeGuard<VoiceGateway>>,
    pub(crate) agents: Feed<DeserializeGuard<VoiceAgent>>,
    /// The same kind once more, for those whose numbers' routes lead to others.
    pub(crate) others: Feed<DeserializeGuard<VoiceAgent>>,
    pub(crate) numbers: Feed<DeserializeGuard<PhoneNumber>>,
    pub(crate) secrets: Feed<PartialObjectMeta<Secret>>,
    pub(crate) config_maps: Feed<PartialObjectMeta<ConfigMap>>,
    pub(crate) deployments: Feed<Deployment>,
    pub(crate) service_accounts: Feed<PartialObjectMeta<ServiceAccount>>,
    pub(crate) services: Feed<PartialObjectMeta<Service>>,
    pub(crate) budgets: Feed<PartialObjectMeta<PodDisruptionBudget>>,
    pub(crate) autoscalers: Feed<HorizontalPodAutoscaler>,
    pub(crate) ingresses: Feed<PartialObjectMeta<Ingress>>,
    pub(crate) network_policies: Feed<PartialObjectMeta<NetworkPolicy>>,
    pub(crate) pod_monitors: Feed<PartialObjectMeta<PodMonitor>>,
    pub(crate) http_routes: Feed<PartialObjectMeta<HTTPRoute>>,
    /// Rings when a kind of another project came or went.
    pub(crate) offers: BoxStream<'static, ()>,
    pub(crate) pods: Feed<Pod>,
}

impl Cache {
    /// An empty cache of these namespaces, and what belongs to it.
    pub fn setup(client: &Client, namespaces: Namespaces) -> Setup {
        let mut watches = Watches::new(client.clone(), namespaces);
        let (key, value) = MANAGED_BY;
        let all = || watcher::Config::default().page_size(PAGE);
        let ours = || all().labels(&format!("{key}={value},{AGENT_LABEL}"));
        let (gateways, gateway_tap) = watches.add(all(), without_owners);
        let (agents, agent_tap) = watches.add(all(), without_owners);
        let (numbers, number_tap) = watches.add(all(), without_owners);
        let (secrets, secret_tap) = watches.add(all(), without_owners);
        let (config_maps, config_map_feed) = fed(&mut watches, all(), lean_child);
        let (deployments, deployment_feed) = fed(&mut watches, ours(), lean_deployment);
        let (service_accounts, service_account_feed) = fed(&mut watches, ours(), lean_child);
        let (services, service_feed) = fed(&mut watches, ours(), lean_child);
        let (budgets, budget_feed) = fed(&mut watches, ours(), lean_child);
        let (autoscalers, autoscaler_feed) = fed(&mut watches, ours(), lean_autoscaler);
        let (ingresses, ingress_feed) = fed(&mut watches, ours(), lean_child);
        let (pods, pod_tap) = watches.add(ours(), lean_pod);
        let (network_policies, network_policy_feed) = fed(&mut watches, ours(), lean_child);
        let (pod_monitor_offer, pod_monitors, pod_monitor_tap) = watches.add_offered(ours(), lean_child);
        let (http_route_offer, http_routes, http_route_tap) = watches.add_offered(ours(), lean_child);
        let children = Children {
            deployments,
            service_accounts,
            services,
            budgets,
            autoscalers,
            ingresses,
            network_policies,
            pod_monitors: (pod_monitor_offer, pod_monitors),
            http_routes: (http_route_offer, http_routes),
        };
        let complete = watches.completion();
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
        let gateway_feeds =
            GatewayFeeds { own: gateway_tap.feed_of(|g| Property::of(g, ())), secrets: secret_tap.feed() };
        let number_feeds = number_feeds(&number_tap, &gateway_tap, &agent_tap, &secret_tap);
        let feeds = Feeds {
            gateways: gateway_tap.feed(),
            agents: agent_tap.feed(),
            others: agent_tap.feed_of(|a| Property::of(a, ())),
            numbers: number_tap.feed(),
            secrets: secret_tap.feed(),
            config_maps: config_map_feed,
            deployments: deployment_feed,
            service_accounts: service_account_feed,
            services: service_feed,
            budgets: budget_feed,
            autoscalers: autoscaler_feed,
            ingresses: ingress_feed,
            network_policies: network_policy_feed,
            pod_monitors: pod_monitor_tap.feed(),
            http_routes: http_route_tap.feed(),
            offers: watches.offers(),
            pods: pod_tap.feed(),
        };
        Setup { cache, watches, agents: feeds, gateways: gateway_feeds, numbers: number_feeds }
    }

    /// Waits until every watch has listed once: before that, what is not here may exist all the same.
    pub async fn wait_until_complete(&self) {
        self.complete.clone().await;
    }
}

fn number_feeds(
    numbers: &Tap<DeserializeGuard<PhoneNumber>>,
    gateways: &Tap<DeserializeGuard<VoiceGateway>>,
    agents: &Tap<DeserializeGuard<VoiceAgent>>,
    secrets: &Tap<PartialObjectMeta<Secret>>,
) -> NumberFeeds {
    NumberFeeds {
        own: numbers.feed_of(|n| Property::of(n, ())),
        // Which number another object has may come from its status alone.
        others: numbers.feed_of(|n| {
            let status = n.0.as_ref().ok().and_then(|n| n.status.as_ref());
            Property::of(n, status.map(|s| (&s.sid, &s.e164)))
        }),
        gateways: gateways.feed_of(|g| Property::of(g, ())),
        agents: agents.feed_of(|a| Property::of(a, ())),
        secrets: secrets.feed(),
    }
}

/// A kind whose every change wakes the agents.
fn fed<K: Watched>(watches: &mut Watches, config: watcher::Config, lean: fn(&mut K)) -> (Store<K>, Feed<K>) {
    let (store, tap) = watches.add(config, lean);
    let feed = tap.feed();
    (store, feed)
}

/// Objects in an answer to a list. A page is in memory as the API server sends it, before anything is dropped: of the
/// largest objects, Deployments with all their owners, a hundred take some 5 MB.
const PAGE: u32 = 100;

/// A child, of which it matters that it is there and whose its fields are.
fn lean_child<K: Resource>(child: &mut K) {
    without_last_applied(child);
    applied::condense(child.meta_mut());
}

/// Its pods are described in the agent; here only their images are read.
fn lean_deployment(deployment: &mut Deployment) {
    lean_child(deployment);
    let Some(template) = deployment.spec.as_mut().map(|spec| &mut spec.template) else { return };
    let containers = std::mem::take(template).spec.map(|pod| pod.containers).unwrap_or_default();
    let lean = |Container { name, image, .. }| Container { name, image, ..Container::default() };
    let containers = containers.into_iter().map(lean).collect();
    template.spec = Some(PodSpec { containers, ..PodSpec::default() });
}

/// What it says of itself is in its conditions.
fn lean_autoscaler(autoscaler: &mut HorizontalPodAutoscaler) {
    lean_child(autoscaler);
    autoscaler.spec = None;
    if let Some(status) = &mut autoscaler.status {
        status.current_metrics = None;
    }
}

fn lean_pod(pod: &mut Pod) {
    without_owners(pod);
    pod.spec = None;
}

/// An object of a namespace, if it is known.
pub fn find<K>(store: &Store<K>, namespace: &str, name: &str) -> Option<std::sync::Arc<K>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    store.get(&ObjectRef::new(name).within(namespace))
}
