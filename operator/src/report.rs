//! Errors of a reconciliation: classified once, and counted, logged and told as an event in one place.
//!
//! A reconciler returns an error only for what may heal by itself: the API server or the carrier did not do what was
//! asked. What a person must change is a condition.

use std::fmt::Debug;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use crds::conditions::{self, ConditionType, Reason};
use futures_util::FutureExt as _;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::core::{DeserializeGuard, error_boundary::InvalidObject};
use kube::runtime::controller::{self, Action};
use kube::runtime::events::{Event, EventType};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::{finalizer, watcher};
use kube::{Resource, ResourceExt as _};
use tracing::Instrument as _;

use crate::apply;
use crate::context::{Context, Failure};
use crate::leader::NotLeading;

/// The kinds that are reconciled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `VoiceGateway`
    VoiceGateway,
    /// `VoiceAgent`
    VoiceAgent,
    /// `PhoneNumber`
    PhoneNumber,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::VoiceGateway, Self::VoiceAgent, Self::PhoneNumber];

    /// The kind's name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::VoiceGateway => "VoiceGateway",
            Self::VoiceAgent => "VoiceAgent",
            Self::PhoneNumber => "PhoneNumber",
        }
    }
}

/// How a reconciliation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// As far as it can go now.
    Ok,
    /// Somebody else wrote at the same time, at the API server or at the carrier.
    Conflict,
    /// The API server failed or refused.
    Cluster,
    /// The carrier failed or refused.
    Carrier,
    /// The object cannot be read.
    Malformed,
    /// Another replica may lead by now.
    NotLeading,
    /// Our bug.
    Panic,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 6] =
        [Self::Ok, Self::Conflict, Self::Cluster, Self::Carrier, Self::Malformed, Self::Panic];

    /// The label's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Conflict => "conflict",
            Self::Cluster => "cluster",
            Self::Carrier => "carrier",
            Self::Malformed => "malformed",
            Self::NotLeading => "not_leading",
            Self::Panic => "panic",
        }
    }
}

/// Why a reconciliation must be tried again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server failed or refused.
    #[error("the API server did not do it: {0}")]
    Cluster(Box<kube::Error>),
    /// The carrier failed or refused.
    #[error(transparent)]
    Carrier(#[from] twilio::rest::Error),
    /// The finalizer could not be added or removed.
    #[error("the finalizer could not be set or removed: {0}")]
    Finalizer(String),
    /// The object changed since it was read.
    #[error("the object changed meanwhile")]
    Stale,
    /// The carrier refused credentials, and there are others.
    #[error("the carrier refused the credentials: the others are tried next")]
    OtherCredentials,
    /// The object does not have the shape of its kind.
    #[error("the object cannot be read: {0}")]
    Malformed(String),
    /// Nothing may be done any more.
    #[error(transparent)]
    NotLeading(#[from] NotLeading),
    /// Our bug.
    #[error("the operator has a bug here and goes on with other objects")]
    Panicked,
}

impl From<kube::Error> for Error {
    fn from(error: kube::Error) -> Self {
        Self::Cluster(Box::new(error))
    }
}

impl From<finalizer::Error<Self>> for Error {
    fn from(error: finalizer::Error<Self>) -> Self {
        match error {
            finalizer::Error::ApplyFailed(error) | finalizer::Error::CleanupFailed(error) => error,
            // A patch that no longer fits, because the object is newer than the cache.
            finalizer::Error::AddFinalizer(kube::Error::Api(status)) if status.code == 422 => Self::Stale,
            finalizer::Error::AddFinalizer(error) | finalizer::Error::RemoveFinalizer(error) => error.into(),
            finalizer::Error::UnnamedObject | finalizer::Error::InvalidFinalizer => {
                Self::Finalizer(error.to_string())
            }
        }
    }
}

impl Error {
    /// Which class it is.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Cluster(error) if apply::is_conflict(error) => Outcome::Conflict,
            Self::Stale | Self::OtherCredentials => Outcome::Conflict,
            Self::Cluster(_) | Self::Finalizer(_) => Outcome::Cluster,
            Self::Carrier(_) => Outcome::Carrier,
            Self::Malformed(_) => Outcome::Malformed,
            Self::NotLeading(_) => Outcome::NotLeading,
            Self::Panicked => Outcome::Panic,
        }
    }

    fn failure(&self, generation: Option<i64>) -> Failure {
        match self {
            Self::Carrier(error) => Failure::Carrier { asked: error.retry_after(), generation },
            Self::Cluster(_)
            | Self::Finalizer(_)
            | Self::Stale
            | Self::OtherCredentials
            | Self::Malformed(_)
            | Self::NotLeading(_)
            | Self::Panicked => Failure::Here,
        }
    }
}

/// Runs a reconciler on one object.
///
/// # Guarantees
/// A malformed object and a panic end this reconciliation alone; each end is counted once. An object that waits for its
/// carrier is left alone until then, whoever wakes it.
pub async fn observe<K, F>(
    kind: Kind,
    object: Arc<DeserializeGuard<K>>,
    context: Arc<Context>,
    reconcile: impl FnOnce(Arc<K>, Arc<Context>) -> F,
) -> Result<Action, Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug,
    F: Future<Output = Result<Action, Error>>,
{
    let started = Instant::now();
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let generation = object.meta().generation;
    let key = format!("{namespace}/{name}");
    if let Some(left) = context.backoff.pause(kind, &key, generation) {
        return Ok(Action::requeue(left));
    }
    let span = tracing::info_span!("reconcile", kind = kind.as_str(), namespace, name, generation);
    let result = match &object.0 {
        Ok(object) => AssertUnwindSafe(reconcile(Arc::new(object.clone()), context.clone()))
            .catch_unwind()
            .instrument(span)
            .await
            .unwrap_or(Err(Error::Panicked)),
        Err(InvalidObject { error, .. }) => Err(Error::Malformed(error.clone())),
    };
    let outcome = result.as_ref().map_or_else(Error::outcome, |_| Outcome::Ok);
    context.metrics.reconciled(kind, outcome, started.elapsed());
    if result.is_ok() {
        context.backoff.succeeded(kind, &key);
    }
    result
}

/// When to try again.
pub fn error_policy<K>(kind: Kind, object: &DeserializeGuard<K>, error: &Error, context: &Context) -> Action
where
    K: Resource<DynamicType = ()>,
{
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let failure = error.failure(object.meta().generation);
    let wait = context.backoff.failed(kind, &format!("{namespace}/{name}"), failure);
    match error.outcome() {
        // Only an edit can help.
        Outcome::Malformed => Action::await_change(),
        Outcome::Ok
        | Outcome::Conflict
        | Outcome::Cluster
        | Outcome::Carrier
        | Outcome::NotLeading
        | Outcome::Panic => Action::requeue(wait),
    }
}

/// Tells how a reconciliation ended: a log line, and an event on the object unless it is an ordinary conflict.
pub async fn follow<K>(
    kind: Kind,
    result: Result<(ObjectRef<K>, Action), controller::Error<Error, watcher::Error>>,
    context: &Context,
) where
    K: Resource<DynamicType = ()>,
{
    let (error, object) = match result {
        // The object went between being queued and being looked at.
        Ok(_) | Err(controller::Error::ObjectNotFound(_)) => return,
        Err(controller::Error::ReconcilerFailed(error, object)) => (error, object),
        Err(controller::Error::QueueError(error)) => {
            tracing::warn!(kind = kind.as_str(), %error, "a watch failed and begins anew");
            return;
        }
        Err(error @ controller::Error::RunnerError(_)) => {
            tracing::error!(kind = kind.as_str(), %error, "the controller's queue failed");
            return;
        }
    };
    let (namespace, name) = (object.namespace.as_deref().unwrap_or_default(), object.name.as_str());
    let outcome = error.outcome();
    match outcome {
        Outcome::Conflict | Outcome::NotLeading => {
            tracing::debug!(kind = kind.as_str(), namespace, name, %error, "will be tried again");
        }
        Outcome::Ok | Outcome::Cluster | Outcome::Carrier | Outcome::Malformed | Outcome::Panic => {
            let outcome = outcome.as_str();
            tracing::warn!(kind = kind.as_str(), namespace, name, outcome, %error, "reconciliation failed");
            let note = error.to_string();
            publish(context, &(*object).into(), EventType::Warning, "ReconcileFailed", &note).await;
        }
    }
}

/// Writes an event on an object. A failed event is a warning in the log, never an error.
pub async fn tell<K>(context: &Context, object: &K, kind: EventType, reason: &str, note: &str)
where
    K: Resource<DynamicType = ()>,
{
    publish(context, &object.object_ref(&()), kind, reason, note).await;
}

async fn publish(context: &Context, object: &ObjectReference, kind: EventType, reason: &str, note: &str) {
    // The API takes 1024 bytes.
    let note = note.chars().take(500).collect::<String>();
    let event = Event {
        type_: kind,
        reason: reason.to_owned(),
        note: Some(note),
        action: "Reconcile".to_owned(),
        secondary: None,
    };
    if let Err(error) = context.recorder.publish(&event, object).await {
        tracing::warn!(reason, %error, "an event was not written");
    }
}

/// Tells that an object became ready or stopped being so, or why it is not has changed; unless it only starts up.
pub async fn tell_transition<K>(context: &Context, object: &K, before: &[Condition], after: &[Condition])
where
    K: Resource<DynamicType = ()>,
{
    let Some((kind, ready)) = transition(before, after) else { return };
    let name = object.meta().name.as_deref().unwrap_or_default();
    tracing::info!(name, status = ready.status, reason = ready.reason, "Ready changed");
    tell(context, object, kind, &ready.reason, &ready.message).await;
}

/// What a person wants to know of a change of conditions: pure. Every event is a write, so that of a new object, which is
/// on its way as it should be, nothing is told before it is ready or cannot be.
fn transition<'a>(before: &[Condition], after: &'a [Condition]) -> Option<(EventType, &'a Condition)> {
    let starts = |c: &Condition| {
        [Reason::Progressing, Reason::GatewayNotReady].iter().any(|reason| reason.to_string() == c.reason)
    };
    let old = conditions::find_condition(before, ConditionType::Ready);
    let new = conditions::find_condition(after, ConditionType::Ready)?;
    if old.is_some_and(|old| (&old.status, &old.reason) == (&new.status, &new.reason)) {
        return None;
    }
    if starts(new) {
        // What was well, or ill, is told to be on its way again; what never was anything else is not.
        return old.is_some_and(|old| !starts(old)).then_some((EventType::Normal, new));
    }
    let is_fine = conditions::holds(after, ConditionType::Ready);
    Some((if is_fine { EventType::Normal } else { EventType::Warning }, new))
}

#[cfg(test)]
mod tests;
