//! Which kinds of other projects the cluster offers, and watches of them while it does.
//!
//! # Guarantees
//! Nothing is watched that discovery did not list, so a cluster without these kinds sees one small request per kind and
//! [`LOOK`], and no error. A kind that is installed later is found, and one that is removed is forgotten; both wake every
//! agent. While nothing is known yet the cache is not complete.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt as _};
use kube::runtime::watcher::{self, Event};
use kube::{Client, Resource};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

/// Between two questions whether a kind is there.
const LOOK: Duration = Duration::from_secs(15);
/// After a question that was not answered.
const RETRY: Duration = Duration::from_secs(2);

/// Whether a kind is there; `None` until it was asked.
pub(super) type Offered = watch::Receiver<Option<bool>>;

/// A kind that a cluster may lack.
#[derive(Clone, Debug)]
pub struct Offer(Offered);

impl Offer {
    /// Whether it is there.
    pub fn is_there(&self) -> bool {
        *self.0.borrow() == Some(true)
    }

    /// As the watches see it.
    pub(super) fn follow(&self) -> Offered {
        self.0.clone()
    }

    /// A kind that is there, or is not, for good.
    #[cfg(test)]
    pub(super) fn fixed(is_there: bool) -> (Self, watch::Sender<Option<bool>>) {
        let (sender, receiver) = watch::channel(Some(is_there));
        (Self(receiver), sender)
    }
}

/// Rung whenever a kind came or went.
pub(super) type Bell = Arc<mpsc::UnboundedSender<()>>;

/// A kind, and what looks for it: to be driven for ever.
pub(super) fn offer<K>(client: Client, bell: Bell) -> (Offer, impl Future<Output = ()> + Send + 'static)
where
    K: Resource<DynamicType = ()>,
{
    let (sender, receiver) = watch::channel(None);
    let (version, plural) = (K::api_version(&()).into_owned(), K::plural(&()).into_owned());
    let looking = async move {
        loop {
            match is_listed(&client, &version, &plural).await {
                Ok(is_there) => {
                    let before = sender.send_replace(Some(is_there));
                    if before != Some(is_there) {
                        tracing::info!(kind = plural, version, is_there, "looked for a kind");
                        // Whoever listens may have gone.
                        let _ = bell.send(());
                    }
                    sleep(LOOK).await;
                }
                Err(error) => {
                    tracing::warn!(kind = plural, version, %error, "the API server did not say whether it has a kind");
                    sleep(RETRY).await;
                }
            }
        }
    };
    (Offer(receiver), looking)
}

async fn is_listed(client: &Client, version: &str, plural: &str) -> Result<bool, kube::Error> {
    match client.list_api_group_resources(version).await {
        Ok(list) => Ok(list.resources.iter().any(|resource| resource.name == plural)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        Err(error) => Err(error),
    }
}

/// Events of a watch that runs only while the kind is there. That it is not is an empty list.
pub(super) fn while_offered<K>(
    offered: Offered,
    begin: impl Fn() -> BoxStream<'static, Result<Event<K>, watcher::Error>> + Send + 'static,
) -> impl Stream<Item = Result<Event<K>, watcher::Error>> + Send + 'static
where
    K: Clone + Debug + Send + 'static,
{
    let changes = stream::unfold((offered.clone(), None), |(mut offered, before)| async move {
        let now = *offered.wait_for(|now| now.is_some() && *now != before).await.ok()?;
        Some((now, (offered, now)))
    });
    changes.flat_map(move |now| {
        if now == Some(true) {
            let mut offered = offered.clone();
            let gone = async move { drop(offered.wait_for(|now| *now == Some(false)).await) };
            begin().take_until(gone).boxed()
        } else {
            stream::iter([Ok(Event::Init), Ok(Event::InitDone)]).boxed()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(event: &Result<Event<&'static str>, watcher::Error>) -> String {
        match event {
            Ok(Event::Init) => "init".to_owned(),
            Ok(Event::InitDone) => "done".to_owned(),
            Ok(Event::Apply(object) | Event::InitApply(object)) => (*object).to_owned(),
            Ok(Event::Delete(object)) => format!("-{object}"),
            Err(error) => error.to_string(),
        }
    }

    #[tokio::test]
    async fn a_kind_that_is_not_there_is_an_empty_list_and_its_watch_begins_and_ends_with_it() {
        let (offer, is_there) = Offer::fixed(false);
        let begin = || stream::iter([Ok(Event::Apply("a"))]).chain(stream::pending()).boxed();
        let mut events = Box::pin(while_offered(offer.follow(), begin));
        let mut next = async || words(&events.next().await.unwrap());
        assert_eq!((next().await, next().await), ("init".to_owned(), "done".to_owned()));
        assert!(!offer.is_there());
        is_there.send_replace(Some(true));
        assert_eq!(next().await, "a");
        assert!(offer.is_there());
        is_there.send_replace(Some(false));
        assert_eq!((next().await, next().await), ("init".to_owned(), "done".to_owned()));
        is_there.send_replace(Some(true));
        assert_eq!(next().await, "a");
    }

    #[tokio::test]
    async fn before_the_first_answer_there_is_nothing() {
        let (sender, receiver) = watch::channel(None);
        let events = while_offered(receiver, || stream::iter([Ok(Event::Apply("a"))]).boxed());
        drop(sender);
        assert_eq!(events.count().await, 0);
    }
}
