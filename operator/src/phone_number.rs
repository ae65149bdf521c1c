//! PhoneNumber: observe (cache) → diff (pure) → act (carrier) → status; and back again when it is deleted.
//!
//! Guarantees: what a number's webhooks were is in the status before anything is written at the carrier. Every status is
//! written with the version it was computed from, so nothing is decided on an object that changed meanwhile. The carrier
//! is asked on a schedule ([`crate::looks`]), because it tells nobody when somebody changes a number there, and when
//! what is wanted of it changes; not when something in the cluster does.

pub mod diff;
mod observe;
mod purchase;
mod release;
pub mod routes;
pub mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crds::conditions::{self, ConditionType, Reason, Status};
use crds::{NumberSourceType, PhoneNumber, PhoneNumberStatus, VoiceAgent, VoiceGateway};
use futures_util::StreamExt as _;
use jiff::Timestamp;
use kube::core::DeserializeGuard;
use kube::runtime::Controller;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use kube::runtime::finalizer::{Event, finalizer};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, ResourceExt as _};
use twilio::rest::{Client, Fault, IncomingPhoneNumber};

use crate::apply::{FIELD_MANAGER, apply_status};
use crate::cache::NumberFeeds;
use crate::context::{Context, spread};
use crate::finding::Finding;
use crate::looks::Question;
use crate::report::{self, Error, Kind};
use crate::voice_gateway::carrier::{self, Carrier, NoCarrier};
use crate::voice_gateway::names_secret;
use diff::{Desired, Plan, Situation};
use observe::Identity;
use release::Way;
use status::Findings;

/// Holds a deleted number until its webhooks are put back.
pub const FINALIZER: &str = "switchboard.dev/phone-number";

type Guarded = DeserializeGuard<PhoneNumber>;

/// Runs until `stop`.
pub async fn run(
    context: Arc<Context>,
    feeds: NumberFeeds,
    stop: impl Future<Output = ()> + Send + Sync + 'static,
) {
    let NumberFeeds { own, others, gateways, agents, secrets } = feeds;
    let store = context.cache.numbers.clone();
    let (by_gateway, by_agent, by_secret, waiting) =
        (store.clone(), store.clone(), store.clone(), store.clone());
    let known_gateways = context.cache.gateways.clone();
    Controller::for_stream(own, store)
        .watches_stream(gateways, move |gateway| {
            let (namespace, name) = (gateway.namespace(), gateway.name_any());
            numbers(&by_gateway, |n| n.namespace() == namespace && n.spec.gateway_ref.name == name)
        })
        .watches_stream(others, move |other| {
            // Whoever waits for a number that another object has looks again when that one changes or goes.
            let (namespace, name) = (other.namespace(), other.name_any());
            numbers(&waiting, |n| n.namespace() == namespace && n.name_any() != name && status::is_waiting(n))
        })
        .watches_stream(agents, move |agent: DeserializeGuard<VoiceAgent>| {
            let (namespace, name) = (agent.namespace(), agent.name_any());
            let has_route = |n: &PhoneNumber| n.spec.routes.iter().any(|r| r.agent_ref.name == name);
            numbers(&by_agent, |n| n.namespace() == namespace && has_route(n))
        })
        .watches_stream(secrets, move |secret| {
            let namespace = secret.namespace();
            let gateways = names_secret(&known_gateways, &secret);
            numbers(&by_secret, |n| n.namespace() == namespace && gateways.contains(&n.spec.gateway_ref.name))
        })
        .graceful_shutdown_on(stop)
        .run(
            |object, context| report::observe(Kind::PhoneNumber, object, context, reconcile),
            |object, error, context| report::error_policy(Kind::PhoneNumber, &object, error, &context),
            context.clone(),
        )
        .for_each(|result| report::follow(Kind::PhoneNumber, result, &context))
        .await;
}

/// The known numbers that fit.
fn numbers(store: &Store<Guarded>, fits: impl Fn(&PhoneNumber) -> bool) -> Vec<ObjectRef<Guarded>> {
    let numbers = store.state();
    numbers
        .iter()
        .filter(|n| n.0.as_ref().is_ok_and(&fits))
        .map(|n| ObjectRef::from_obj(n.as_ref()))
        .collect()
}

async fn reconcile(number: Arc<PhoneNumber>, context: Arc<Context>) -> Result<Action, Error> {
    context.cache.wait_until_complete().await;
    let api = Api::<PhoneNumber>::namespaced(context.client.clone(), &number.namespace().unwrap_or_default());
    let number = if number.metadata.deletion_timestamp.is_some() {
        // Not from the cache: who puts back twice takes the first time for somebody else's change.
        let Some(fresh) = api.get_opt(&number.name_any()).await? else { return Ok(Action::await_change()) };
        Arc::new(fresh)
    } else {
        number
    };
    let is_leaving = number.metadata.deletion_timestamp.is_some();
    let is_held = number.finalizers().iter().any(|finalizer| finalizer == FINALIZER);
    if is_leaving
        && is_held
        && let Way::LookAgain(after) = release::release(&number, &context).await?
    {
        return Ok(Action::requeue(after));
    }
    let action = finalizer(&api, FINALIZER, number, |event| async {
        match event {
            Event::Apply(number) => bind(&number, &context).await,
            Event::Cleanup(_) => Ok(Action::await_change()),
        }
    })
    .await?;
    Ok(action)
}

/// What the carrier showed of a number, until the next look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    bound: Finding,
    in_sync: Finding,
}

impl Seen {
    /// Nothing can be told, for one reason.
    fn blocked(finding: &Finding) -> Self {
        Self { bound: finding.clone(), in_sync: Finding { status: Status::Unknown, ..finding.clone() } }
    }
}

/// What came of a look.
struct Looked {
    seen: Seen,
    /// What may heal by itself, to be waited for.
    error: Option<twilio::rest::Error>,
}

impl From<Seen> for Looked {
    fn from(seen: Seen) -> Self {
        Self { seen, error: None }
    }
}

/// Makes the number ours and keeps it so.
async fn bind(number: &PhoneNumber, context: &Context) -> Result<Action, Error> {
    let mut draft = Draft::of(number);
    let key = number.uid().unwrap_or_default();
    let ground = match stand(number, context).await? {
        Ok(ground) => ground,
        Err(finding) => {
            context.number_looks.forget(&key);
            draft.conclude(&Findings::blocked(&finding), context).await?;
            return Ok(Action::requeue(spread(context.resync, &key, 0)));
        }
    };
    let question = Question::of((number.metadata.generation, ground.carrier.made_of(), &ground.desired));
    let (looked, due) = match context.number_looks.recall(&key, question) {
        Some((seen, left)) => (seen.into(), left),
        None => {
            let looked = look(&ground, &mut draft, context).await?;
            let due = if looked.error.is_none() {
                context.number_looks.remember(&key, question, looked.seen.clone())
            } else {
                context.number_looks.forget(&key);
                context.resync
            };
            (looked, due)
        }
    };
    let Looked { seen: Seen { bound, in_sync }, error } = looked;
    draft.conclude(&Findings { bound, in_sync, routes: ground.routes }, context).await?;
    match error {
        Some(error) => Err(error.into()),
        None => Ok(Action::requeue(due)),
    }
}

/// Everything in the cluster that a number stands on.
struct Ground {
    carrier: Arc<Carrier>,
    /// Whether all routes lead somewhere.
    routes: Finding,
    /// Which agent takes the calls; none where no route leads anywhere.
    entry: Option<String>,
    /// What the webhooks should be.
    desired: Option<Desired>,
}

/// Looks around in the cluster; the finding where a person must change something first.
async fn stand(number: &PhoneNumber, context: &Context) -> Result<Result<Ground, Finding>, Error> {
    let Some(gateway) = observe::find_gateway(number, context) else {
        let name = &number.spec.gateway_ref.name;
        let sentence = format!("VoiceGateway {name} does not exist in this namespace: create it");
        return Ok(Err(Finding::no(Reason::GatewayNotFound, sentence)));
    };
    let carrier = match carrier::reach(context, &gateway).await? {
        Ok(carrier) => carrier,
        Err(NoCarrier::Missing(missing)) => {
            return Ok(Err(Finding::no(missing.reason(), missing.to_string())));
        }
        Err(NoCarrier::Invalid(invalid)) => {
            return Ok(Err(Finding::no(Reason::InvalidSpec, invalid.to_string())));
        }
    };
    if let Some(by) = observe::find_earlier_claimant(number, &Identity::of(number), context) {
        return Ok(Err(taken(&by)));
    }
    Ok(Ok(ground(number, &gateway, carrier, context)))
}

fn ground(number: &PhoneNumber, gateway: &VoiceGateway, carrier: Arc<Carrier>, context: &Context) -> Ground {
    let routes = routes::resolve(number, &observe::known_agents(number, context));
    let before = number.status.as_ref().and_then(|s| s.entry_agent.as_deref());
    let entry = routes::entry_agent(before, &routes.live);
    let desired = entry.as_ref().map(|entry| Desired {
        base: routes::webhook_base(&gateway.spec.public_url, number, entry),
        fallback_url: number.spec.fallback_url.clone(),
    });
    let routes = match routes.problem {
        None => Finding::yes(Reason::Resolved),
        Some((reason, sentence)) => Finding::no(reason, sentence),
    };
    Ground { carrier, routes, entry, desired }
}

fn taken(by: &str) -> Finding {
    let sentence = format!("PhoneNumber {by} has the same number: delete one of the two");
    Finding::no(Reason::NumberTaken, sentence)
}

/// Looks at the number at the carrier, and does what is to be done.
async fn look(ground: &Ground, draft: &mut Draft<'_>, context: &Context) -> Result<Looked, Error> {
    let number = draft.number;
    let (namespace, gateway) = (number.namespace().unwrap_or_default(), &number.spec.gateway_ref.name);
    context.standing.check()?;
    let found = match ground.carrier.turn().await {
        Ok(turn) => match find(turn.client, draft, context).await? {
            Ok(Found::Number(found)) => act(turn.client, ground, &found, draft, context).await?,
            Ok(Found::Nothing(finding)) => Ok(Seen::blocked(&finding)),
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    };
    Ok(match found {
        Ok(seen) => seen.into(),
        Err(error) => {
            context.carriers.heed(&namespace, gateway, &error)?;
            let (finding, error) = refusal(error);
            // What is known of the number stays known while nobody can be asked.
            let is_bound = finding.status == Status::Unknown && draft.status.sid.is_some();
            let bound = if is_bound { Finding::yes(Reason::NumberFound) } else { finding.clone() };
            Looked { seen: Seen { bound, ..Seen::blocked(&finding) }, error }
        }
    })
}

/// What the carrier has.
enum Found {
    /// The number.
    Number(Box<IncomingPhoneNumber>),
    /// None, for this reason.
    Nothing(Finding),
}

/// Finds the number at the carrier, or buys it. The inner error is the carrier's.
async fn find(
    client: &Client,
    draft: &mut Draft<'_>,
    context: &Context,
) -> Result<Result<Found, twilio::rest::Error>, Error> {
    let number = draft.number;
    let is_to_be_bought = draft.status.sid.is_none();
    if let Some(wish) = number.spec.source.purchase.as_ref().filter(|_| is_to_be_bought) {
        let found = purchase::obtain(wish, client, draft, context).await?;
        if let Ok(Found::Number(_)) = found {
            let note = "the carrier sold a number for this object";
            report::tell(context, number, EventType::Normal, "NumberBought", note).await;
        }
        return Ok(found);
    }
    let sentence = match number.spec.source.kind {
        NumberSourceType::E164 | NumberSourceType::SID => {
            "The account has no such number: check source and the gateway's accountSid"
        }
        NumberSourceType::Purchase => {
            "The number that was bought is not in the account any more, and no second one is bought: delete this \
             PhoneNumber, and create another one to buy another number"
        }
    };
    Ok(observe::fetch_number(number, client).await.map(|found| match found {
        Some(found) => Found::Number(Box::new(found)),
        None => Found::Nothing(Finding::no(Reason::NumberNotFound, sentence)),
    }))
}

/// Decides and does it; what was seen afterwards, or the carrier's error.
async fn act(
    client: &Client,
    ground: &Ground,
    at_carrier: &IncomingPhoneNumber,
    draft: &mut Draft<'_>,
    context: &Context,
) -> Result<Result<Seen, twilio::rest::Error>, Error> {
    let number = draft.number;
    if let Some(by) = observe::find_earlier_claimant(number, &Identity::at_carrier(at_carrier), context) {
        return Ok(Ok(Seen::blocked(&taken(&by))));
    }
    draft.status.sid = Some(at_carrier.sid.to_string());
    draft.status.e164 = Some(at_carrier.phone_number.clone());
    let bound = || Finding::yes(Reason::NumberFound);
    let (Some(entry), Some(desired)) = (&ground.entry, &ground.desired) else {
        let sentence = "No route leads to an agent, so the webhooks are left as they are";
        return Ok(Ok(Seen { bound: bound(), in_sync: Finding::unknown(Reason::AgentNotFound, sentence) }));
    };
    let observed = &at_carrier.voice;
    let is_told = observed.voice_url.as_deref().is_some_and(|url| draft.status.has_told(url));
    let plan = diff::plan(Situation {
        observed,
        desired,
        is_told,
        was_in_sync: status::was_in_sync(number, &desired.voice_url()),
        claim: number.spec.claim_policy,
        drift: number.spec.drift_policy,
    });
    context.metrics.checked_webhooks(plan);
    let original = || diff::original(observed, &desired.base, is_told);
    let in_sync = match plan {
        Plan::Refuse => {
            let sentence = "The number's webhooks belong to another Switchboard: delete its PhoneNumber there, or set \
                            claimPolicy to Force";
            Finding::no(Reason::ClaimedByOther, sentence)
        }
        Plan::LeaveDrifted => {
            let sentence = "Somebody changed the number's webhooks at the carrier: set driftPolicy to Enforce to undo it";
            Finding::no(Reason::WebhooksDrifted, sentence)
        }
        Plan::Keep => {
            draft.status.original.get_or_insert_with(original);
            draft.take(entry, desired);
            Finding::yes(Reason::WebhooksInSync)
        }
        Plan::Write | Plan::Undo => {
            draft.status.original.get_or_insert_with(original);
            status::aim(&mut draft.status, observed.voice_url.as_deref(), entry, desired.voice_url());
            // Before the carrier is touched: from here on the way back is known, whatever happens to this process.
            draft.write(context).await?;
            context.standing.check()?;
            match write(client, at_carrier, desired).await {
                Ok(in_sync) => {
                    if in_sync.status == Status::True {
                        draft.take(entry, desired);
                        draft.is_told = true;
                        tell_write(number, plan, context).await;
                    }
                    in_sync
                }
                Err(error) => return Ok(Err(error)),
            }
        }
    };
    Ok(Ok(Seen { bound: bound(), in_sync }))
}

/// A status being made, and the object it belongs to.
struct Draft<'a> {
    number: &'a PhoneNumber,
    status: PhoneNumberStatus,
    /// As written last.
    written: Option<PhoneNumberStatus>,
    /// Of the object that `status` was computed from.
    version: Option<String>,
    /// An event has said that the number's calls come here, and why.
    is_told: bool,
}

impl<'a> Draft<'a> {
    fn of(number: &'a PhoneNumber) -> Self {
        let written = number.status.clone();
        Self {
            number,
            status: written.clone().unwrap_or_default(),
            written,
            version: number.resource_version(),
            is_told: false,
        }
    }

    /// The carrier has what is desired of it.
    fn take(&mut self, entry: &str, desired: &Desired) {
        self.status.entry_agent = Some(entry.to_owned());
        self.status.voice_url = Some(desired.voice_url());
        self.status.moving_from = None;
        self.status.synced_generation = self.number.metadata.generation;
    }

    /// Writes the status, if it changed and the object did not.
    async fn write(&mut self, context: &Context) -> Result<(), Error> {
        if self.written.as_ref() == Some(&self.status) {
            return Ok(());
        }
        let version = self.version.as_deref();
        let answer = apply_status(&context.client, self.number, &self.status, FIELD_MANAGER, version).await?;
        self.version = answer.resource_version();
        self.written = Some(self.status.clone());
        Ok(())
    }

    /// Sets the conditions, writes, and tells what changed.
    async fn conclude(mut self, findings: &Findings, context: &Context) -> Result<(), Error> {
        self.status = status::conclude(self.number, self.status, findings, Timestamp::now());
        self.write(context).await?;
        let (before, after) =
            (self.number.status.as_ref().map_or(&[][..], |s| &s.conditions), &self.status.conditions);
        // "Ready" would say the same once more.
        if !(self.is_told && conditions::holds(after, ConditionType::Ready)) {
            report::tell_transition(context, self.number, before, after).await;
        }
        Ok(())
    }
}

/// Writes, and reads back: the carrier ignores a voice URL beside an application or a trunk.
async fn write(
    client: &Client,
    number: &IncomingPhoneNumber,
    desired: &Desired,
) -> Result<Finding, twilio::rest::Error> {
    client.update_number(&number.sid, &desired.update()).await?;
    let now = client.fetch_number(&number.sid).await?;
    Ok(if desired.is_met_by(&now.voice) {
        Finding::yes(Reason::WebhooksInSync)
    } else {
        let sentence = "The carrier took the webhooks and shows others: see the number in its console";
        Finding::no(Reason::WriteNotKept, sentence)
    })
}

/// A refusal as a finding; what may heal by itself also as an error to wait for.
fn refusal(error: twilio::rest::Error) -> (Finding, Option<twilio::rest::Error>) {
    let sentence = error.to_string();
    match (error.fault(), &error) {
        (Fault::User, twilio::rest::Error::Authentication { .. }) => (
            Finding::no(
                Reason::CredentialsRejected,
                format!("{sentence}: see the VoiceGateway's conditions"),
            ),
            None,
        ),
        (Fault::User, _) => (Finding::no(Reason::CarrierRefused, sentence), None),
        (Fault::Twilio | Fault::Us, _) => {
            (Finding::unknown(Reason::CarrierUnavailable, sentence), Some(error))
        }
    }
}

async fn tell_write(number: &PhoneNumber, plan: Plan, context: &Context) {
    let (kind, reason, note) = if plan == Plan::Undo {
        (EventType::Warning, "DriftUndone", "somebody had changed the number's webhooks; they are set again")
    } else {
        (EventType::Normal, "WebhooksSet", "the number's calls now come here")
    };
    report::tell(context, number, kind, reason, note).await;
}
