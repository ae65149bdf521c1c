//! What a reconciler's bad end does to others: nothing.

use std::time::Duration;

use crds::PhoneNumber;
use crds::conditions::{NewCondition, Status};
use kube::core::ObjectMeta;

use super::*;
use crate::cache::Cache;
use crate::config::Namespaces;
use crate::leader::Standing;
use crate::metrics::Metrics;
use crate::testing;

/// A context whose API server is not there.
fn context() -> Arc<Context> {
    let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
    let client = kube::Client::try_from(config).unwrap();
    let cache = Cache::setup(&client, Namespaces::All).cache;
    let transport = twilio::rest::Transport::new(None).unwrap();
    let resync = Duration::from_secs(300);
    let standing = Standing::default();
    let context = Context::new(
        client,
        cache,
        Metrics::new().unwrap(),
        transport,
        crate::run::pod_client().unwrap(),
        testing::surroundings(),
        resync,
        standing,
    );
    Arc::new(context)
}

fn named(name: &str) -> Arc<DeserializeGuard<PhoneNumber>> {
    let mut number = testing::number();
    number.metadata.name = Some(name.to_owned());
    Arc::new(DeserializeGuard(Ok(number)))
}

fn poisoned() -> Arc<DeserializeGuard<PhoneNumber>> {
    let metadata = ObjectMeta { name: Some("poison".to_owned()), ..ObjectMeta::default() };
    Arc::new(DeserializeGuard(Err(InvalidObject { error: "no such variant".to_owned(), metadata })))
}

async fn fine(_: Arc<PhoneNumber>, _: Arc<Context>) -> Result<Action, Error> {
    Ok(Action::await_change())
}

async fn buggy(number: Arc<PhoneNumber>, _: Arc<Context>) -> Result<Action, Error> {
    assert!(number.name_any().is_empty(), "a bug");
    Ok(Action::await_change())
}

async fn unavailable(_: Arc<PhoneNumber>, _: Arc<Context>) -> Result<Action, Error> {
    Err(twilio::rest::Error::Unavailable { status: 503, retry_after: None }.into())
}

fn counted(context: &Context, outcome: &str) -> bool {
    let series =
        format!(r#"switchboard_operator_reconciles_total{{kind="PhoneNumber",outcome="{outcome}"}} 1"#);
    context.metrics.scrape().unwrap().lines().any(|line| line == series)
}

#[tokio::test]
async fn a_panic_and_an_unreadable_object_are_counted_and_end_their_own_reconciliation_alone() {
    let context = context();
    let kind = Kind::PhoneNumber;
    let panicked = observe(kind, named("a"), context.clone(), buggy).await;
    assert_eq!(panicked.map_err(|error| error.outcome()), Err(Outcome::Panic));
    let malformed = observe(kind, poisoned(), context.clone(), fine).await;
    let error = malformed.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Malformed);
    // Only an edit helps: it is not tried again until there is one.
    assert_eq!(error_policy(kind, &poisoned(), &error, &context), Action::await_change());
    assert_eq!(observe(kind, named("b"), context.clone(), fine).await.ok(), Some(Action::await_change()));
    for outcome in ["panic", "malformed", "ok"] {
        assert!(counted(&context, outcome), "{outcome}");
    }
}

#[tokio::test]
async fn what_waits_for_its_carrier_is_not_even_looked_at_until_it_is_due_or_edited() {
    let context = context();
    let kind = Kind::PhoneNumber;
    let error = observe(kind, named("a"), context.clone(), unavailable).await.unwrap_err();
    error_policy(kind, &named("a"), &error, &context);
    let woken = observe(kind, named("a"), context.clone(), buggy).await.unwrap();
    assert_ne!(woken, Action::await_change(), "it comes back by itself");
    let mut edited = testing::number();
    edited.metadata.name = Some("a".to_owned());
    edited.metadata.generation = Some(2);
    let edited = Arc::new(DeserializeGuard(Ok(edited)));
    assert_eq!(observe(kind, edited, context.clone(), fine).await.ok(), Some(Action::await_change()));
    assert!(counted(&context, "carrier") && counted(&context, "ok"));
}

#[test]
fn an_event_tells_what_a_person_wants_to_know_and_nothing_of_a_usual_start() {
    let ready = |status: Status, reason: Reason| {
        let mut conditions = Vec::new();
        let new = NewCondition {
            kind: ConditionType::Ready,
            status,
            reason,
            message: String::new(),
            observed_generation: None,
        };
        conditions::set_condition(&mut conditions, new, jiff::Timestamp::UNIX_EPOCH);
        conditions
    };
    let (no, yes) = (Status::False, Status::True);
    let starting = || ready(no, Reason::Progressing);
    let waiting = || ready(no, Reason::GatewayNotReady);
    let serving = || ready(yes, Reason::Serving);
    let stuck = || ready(no, Reason::NoPodReady);
    let unfunded = || ready(no, Reason::CredentialsRejected);
    let (normal, warning) = (Some("Normal"), Some("Warning"));
    for (before, after, told) in [
        (Vec::new(), Vec::new(), None),
        (Vec::new(), starting(), None),
        (Vec::new(), waiting(), None),
        (waiting(), starting(), None),
        (starting(), serving(), normal),
        (serving(), serving(), None),
        (serving(), starting(), normal),
        (starting(), stuck(), warning),
        (stuck(), unfunded(), warning),
        (stuck(), starting(), normal),
        (Vec::new(), unfunded(), warning),
        (unfunded(), Vec::new(), None),
    ] {
        let found = transition(&before, &after).map(|(kind, _)| match kind {
            EventType::Normal => "Normal",
            EventType::Warning => "Warning",
        });
        assert_eq!(found, told, "{before:?} -> {after:?}");
    }
}
