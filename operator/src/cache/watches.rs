//! The watches themselves: one per kind and namespace, begun anew when they break, all driven by one future.
//!
//! # Guarantees
//! A store has a change before any [`Feed`] tells of it. A broken watch is a matter of this module alone: feeds carry no
//! errors, so no controller pauses because of one, and every watch waits for itself (`Pause`).

use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{self, BoxFuture, Shared};
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt as _, StreamExt as _};
use k8s_openapi::NamespaceResourceScope;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{ObjectRef, Store, store};
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot};

use super::merge::Merge;
use super::offers::{self, Bell, Offer};
use crate::config::Namespaces;
use crate::context::spread;

/// Objects as they change. Never an error, and only ends with its [`Watches`].
pub type Feed<K> = BoxStream<'static, Result<K, watcher::Error>>;

/// What can be watched: an object of a namespace.
pub trait Watched:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
}

impl<K> Watched for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static
{
}

/// All watches of the process.
pub struct Watches {
    client: Client,
    namespaces: Namespaces,
    running: Vec<BoxFuture<'static, ()>>,
    listed: Vec<oneshot::Receiver<()>>,
    bell: Bell,
    rung: Option<mpsc::UnboundedReceiver<()>>,
}

impl Watches {
    /// None yet.
    pub fn new(client: Client, namespaces: Namespaces) -> Self {
        let (bell, rung) = mpsc::unbounded_channel();
        let (running, listed) = (Vec::new(), Vec::new());
        Self { client, namespaces, running, listed, bell: Arc::new(bell), rung: Some(rung) }
    }

    /// Adds the watches of a kind. `lean` drops from every object what nobody reads.
    pub(super) fn add<K: Watched>(
        &mut self,
        config: watcher::Config,
        lean: fn(&mut K),
    ) -> (Store<K>, Tap<K>) {
        self.add_with(|api: Api<K>, pause| watch(api, config.clone()).modify(lean).backoff(pause).boxed())
    }

    /// The same of a kind that a cluster may lack: watched only while it is there.
    pub(super) fn add_offered<K: Watched>(
        &mut self,
        config: watcher::Config,
        lean: fn(&mut K),
    ) -> (Offer, Store<K>, Tap<K>) {
        let (offer, looking) = offers::offer::<K>(self.client.clone(), self.bell.clone());
        self.running.push(looking.boxed());
        let (store, tap) = self.add_with(|api: Api<K>, pause| {
            let config = config.clone();
            let begin =
                move || watch(api.clone(), config.clone()).modify(lean).backoff(pause.clone()).boxed();
            offers::while_offered(offer.follow(), begin).boxed()
        });
        (offer, store, tap)
    }

    /// Rings when a kind that a cluster may lack came or went. For one listener.
    pub(super) fn offers(&mut self) -> BoxStream<'static, ()> {
        let Some(mut rung) = self.rung.take() else { return stream::pending().boxed() };
        stream::poll_fn(move |context| rung.poll_recv(context)).boxed()
    }

    fn add_with<K: Watched>(
        &mut self,
        begin: impl Fn(Api<K>, Pause) -> BoxStream<'static, Result<Event<K>, watcher::Error>>,
    ) -> (Store<K>, Tap<K>) {
        let apis: Vec<(Option<String>, Api<K>)> = match &self.namespaces {
            Namespaces::All => vec![(None, Api::all(self.client.clone()))],
            Namespaces::These(names) => {
                let api = |name: &String| (Some(name.clone()), Api::namespaced(self.client.clone(), name));
                names.iter().map(api).collect()
            }
        };
        let (reader, writer) = store();
        let (has_listed, listed) = oneshot::channel();
        let tap = Tap::default();
        let merge = Merge::new(apis.iter().map(|(namespace, _)| namespace.clone()));
        let sources = apis.into_iter().enumerate().map(|(index, (_, api))| {
            let pause = Pause::new(format!("{} {index}", K::kind(&())));
            begin(api, pause).map(move |event| (index, event)).boxed()
        });
        let events = stream::select_all(sources).boxed();
        self.running.push(drive(events, merge, writer, tap.clone(), has_listed).boxed());
        self.listed.push(listed);
        (reader, tap)
    }

    /// Ends when every store has its first lists. Any number may wait for a clone of it.
    pub(super) fn completion(&mut self) -> Shared<BoxFuture<'static, ()>> {
        future::join_all(self.listed.drain(..)).map(drop).boxed().shared()
    }

    /// Drives them; stores and feeds stand still while this is not polled. Never ends.
    pub async fn run(self) {
        future::join_all(self.running).await;
    }
}

/// Follows the watches of one kind.
async fn drive<K>(
    mut events: BoxStream<'static, (usize, Result<Event<K>, watcher::Error>)>,
    mut merge: Merge<K>,
    mut writer: Writer<K>,
    tap: Tap<K>,
    has_listed: oneshot::Sender<()>,
) where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let reader = writer.as_reader();
    let mut has_listed = Some(has_listed);
    while let Some((source, event)) = events.next().await {
        let events = match event {
            Ok(event) => merge.handle(source, event, &reader),
            Err(error) => {
                tracing::warn!(kind = %K::kind(&()), %error, "a watch broke and begins anew");
                if is_refused(&error) { merge.refuse(source) } else { Vec::new() }
            }
        };
        for event in events {
            writer.apply_watcher_event(&event);
            match event {
                Event::Init | Event::InitApply(_) => {}
                Event::InitDone => {
                    reader.state().into_iter().for_each(|object| tap.tell(&Change::Now(object)));
                    // Whoever waits may have gone.
                    let _ = has_listed.take().map(|listed| listed.send(()));
                }
                Event::Apply(object) => tap.tell(&Change::Now(Arc::new(object))),
                Event::Delete(object) => tap.tell(&Change::Gone(Arc::new(object))),
            }
        }
    }
}

/// Whether a namespace may not be read, or not any more: the rights go with it.
fn is_refused(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::InitialListFailed(kube::Error::Api(status)) if matches!(status.code, 403 | 404))
}

/// What happened to an object. All readers share it until they get to it.
#[derive(Debug)]
enum Change<K> {
    Now(Arc<K>),
    Gone(Arc<K>),
}

impl<K> Clone for Change<K> {
    fn clone(&self) -> Self {
        match self {
            Self::Now(object) => Self::Now(object.clone()),
            Self::Gone(object) => Self::Gone(object.clone()),
        }
    }
}

/// Where feeds of a kind come from.
#[derive(Debug)]
pub(super) struct Tap<K>(Arc<Mutex<Vec<mpsc::UnboundedSender<Change<K>>>>>);

impl<K> Default for Tap<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K> Clone for Tap<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K> Tap<K>
where
    K: Resource<DynamicType = ()> + Clone + Send + Sync + 'static,
{
    /// Every change.
    pub(super) fn feed(&self) -> Feed<K> {
        self.changes()
            .map(|change| match change {
                Change::Now(object) | Change::Gone(object) => Ok(Arc::unwrap_or_clone(object)),
            })
            .boxed()
    }

    /// The changes that concern what `property` reads of an object; its end always does.
    pub(super) fn feed_of(&self, property: fn(&K) -> Property) -> Feed<K> {
        let mut seen = std::collections::HashMap::new();
        self.changes()
            .filter_map(move |change| {
                let passes = match &change {
                    Change::Now(object) => {
                        let now = property(object);
                        seen.insert(ObjectRef::from_obj(&**object), now) != Some(now)
                    }
                    Change::Gone(object) => {
                        seen.remove(&ObjectRef::from_obj(&**object));
                        true
                    }
                };
                future::ready(passes.then(|| match change {
                    Change::Now(object) | Change::Gone(object) => Ok(Arc::unwrap_or_clone(object)),
                }))
            })
            .boxed()
    }

    /// Unbounded, because whoever reads only maps an object to names; what waits is what changed within that time.
    fn changes(&self) -> impl stream::Stream<Item = Change<K>> + Send + use<K> {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        stream::poll_fn(move |context| receiver.poll_recv(context))
    }
}

impl<K> Tap<K> {
    fn tell(&self, change: &Change<K>) {
        let mut readers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        readers.retain(|reader| reader.send(change.clone()).is_ok());
    }
}

/// A part of an object, to compare with itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Property(u64);

impl Property {
    /// What a spec's author and the API server decide: identity, generation, deletion, finalizers, annotations. And
    /// what the operator found, as far as `also` says it concerns others.
    pub(super) fn of<K: Resource>(object: &K, also: impl std::hash::Hash) -> Self {
        let meta = object.meta();
        let mut hasher = DefaultHasher::new();
        (&meta.uid, meta.generation, meta.deletion_timestamp.is_some(), &meta.finalizers).hash(&mut hasher);
        (&meta.annotations, also).hash(&mut hasher);
        Self(hasher.finish())
    }
}

/// How long a broken watch waits: short at first, because usually only a connection ended, and never so long that the
/// cluster waits for the operator after the API server came back.
#[derive(Clone, Debug)]
struct Pause {
    name: String,
    failures: u32,
}

const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// A dozen watches then cost an API server that is down three attempts a second.
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

impl Pause {
    const fn new(name: String) -> Self {
        Self { name, failures: 0 }
    }
}

impl Iterator for Pause {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(8)).min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        Some(spread(pause, &self.name, self.failures))
    }
}

impl Backoff for Pause {
    fn reset(&mut self) {
        self.failures = 0;
    }
}

/// Drops what can be large and nobody reads. What was last applied by kubectl quotes whole objects, Secrets too.
pub(super) fn without_last_applied<K: Resource>(object: &mut K) {
    object
        .meta_mut()
        .annotations
        .as_mut()
        .map(|a| a.remove("kubectl.kubernetes.io/last-applied-configuration"));
}

/// And who owns which field: of no interest except on what the operator applies.
pub(super) fn without_owners<K: Resource>(object: &mut K) {
    without_last_applied(object);
    object.meta_mut().managed_fields = None;
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::ResourceExt as _;
    use serde_json::json;

    type Events = Vec<Result<Event<ConfigMap>, watcher::Error>>;

    fn object(name: &str, generation: i64, text: &str) -> ConfigMap {
        let metadata = json!({"namespace": "a", "name": name, "generation": generation});
        serde_json::from_value(json!({"metadata": metadata, "data": {"text": text}})).unwrap()
    }

    /// Follows events to their end; returns the store, and whether its first list was told.
    async fn follow(tap: &Tap<ConfigMap>, events: Events) -> (Store<ConfigMap>, bool) {
        let (reader, writer) = store();
        let (has_listed, mut listed) = oneshot::channel();
        let events = stream::iter(events).map(|event| (0, event)).boxed();
        drive(events, Merge::new([None]), writer, tap.clone(), has_listed).await;
        (reader, listed.try_recv().is_ok())
    }

    async fn names(feed: Feed<ConfigMap>) -> Vec<String> {
        feed.map(|object| object.unwrap().name_any()).collect().await
    }

    #[tokio::test]
    async fn all_feeds_tell_what_the_store_has_and_errors_are_not_theirs() {
        let tap = Tap::default();
        let feeds = [tap.feed(), tap.feed()];
        let (store, was_listed) = follow(
            &tap,
            vec![
                Ok(Event::Init),
                Ok(Event::InitApply(object("a", 1, ""))),
                Ok(Event::InitDone),
                Err(watcher::Error::NoResourceVersion),
                Ok(Event::Apply(object("b", 1, ""))),
                Ok(Event::Delete(object("a", 1, ""))),
            ],
        )
        .await;
        assert!(was_listed);
        assert_eq!(store.state().iter().map(|o| o.name_any()).collect::<Vec<_>>(), ["b"]);
        drop(tap);
        for feed in feeds {
            assert_eq!(names(feed).await, ["a", "b", "a"]);
        }
    }

    #[tokio::test]
    async fn before_the_first_list_is_complete_nothing_is_told() {
        let tap = Tap::default();
        let feed = tap.feed();
        let (store, was_listed) =
            follow(&tap, vec![Ok(Event::Init), Ok(Event::InitApply(object("a", 1, "")))]).await;
        assert!(!was_listed && store.state().is_empty());
        drop(tap);
        assert_eq!(names(feed).await, [""; 0]);
    }

    #[tokio::test]
    async fn a_feed_of_a_property_leaves_out_what_does_not_concern_it() {
        let tap = Tap::default();
        let feed = tap.feed_of(|object| Property::of(object, ()));
        follow(
            &tap,
            vec![
                Ok(Event::Init),
                Ok(Event::InitApply(object("a", 1, "a"))),
                Ok(Event::InitDone),
                Ok(Event::Apply(object("a", 1, "only its status"))),
                Ok(Event::Apply(object("a", 2, "its spec"))),
                Ok(Event::Delete(object("a", 2, "its spec"))),
                Ok(Event::Apply(object("a", 2, "made anew"))),
            ],
        )
        .await;
        drop(tap);
        assert_eq!(names(feed).await, ["a", "a", "a", "a"]);
    }

    #[test]
    fn a_pause_is_short_at_first_and_bounded_and_over_with_a_success() {
        let mut pause = Pause::new("Secret 0".to_owned());
        let pauses: Vec<_> = pause.by_ref().take(12).collect();
        assert!(pauses[0] >= FIRST_PAUSE && pauses[0] < FIRST_PAUSE * 2);
        assert!(pauses.iter().all(|p| *p <= LONGEST_PAUSE.mul_f32(1.25)));
        pause.reset();
        assert!(pause.next().unwrap() < FIRST_PAUSE * 2);
    }

    #[test]
    fn what_kubectl_applied_is_not_kept() {
        let annotations =
            json!({"kubectl.kubernetes.io/last-applied-configuration": "{\"data\":\"secret\"}", "a": "b"});
        let mut object: ConfigMap =
            serde_json::from_value(json!({"metadata": {"annotations": annotations, "managedFields": []}}))
                .unwrap();
        without_owners(&mut object);
        assert_eq!(serde_json::to_value(object).unwrap()["metadata"], json!({"annotations": {"a": "b"}}));
    }
}
