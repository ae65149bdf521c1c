//! PhoneNumber: observe (clients) → diff (pure) → act (carrier) → status; and back again when it is deleted.
//!
//! Guarantees: what a number's webhooks were is in the status before anything is written at the carrier, and that
//! write fails if the object changed meanwhile. The carrier is asked again on a schedule, because it tells nobody when
//! somebody changes a number there.

pub mod diff;
mod observe;
mod release;
pub mod routes;
pub mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crds::conditions::{Reason, Status};
use crds::{PhoneNumber, PhoneNumberStatus, VoiceAgent, VoiceGateway};
use futures_util::StreamExt as _;
use jiff::Timestamp;
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use kube::runtime::finalizer::{Event, finalizer};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::{Controller, watcher};
use kube::{Api, ResourceExt as _};
use twilio::rest::{Client, Fault, IncomingPhoneNumber};

use crate::apply::{FIELD_MANAGER, apply_status};
use crate::context::{Context, spread};
use crate::finding::Finding;
use crate::report::{self, Error, Kind};
use crate::voice_agent::dereference::fetch_agents;
use crate::voice_gateway::carrier::{self, NoClient};
use diff::{Desired, Plan, Situation};
use routes::Resolution;
use status::Findings;

/// Holds a deleted number until its webhooks are put back.
pub const FINALIZER: &str = "switchboard.dev/phone-number";

type Guarded = DeserializeGuard<PhoneNumber>;

/// Runs until `stop`.
pub async fn run(context: Arc<Context>, stop: impl Future<Output = ()> + Send + Sync + 'static) {
    let client = context.client.clone();
    let all = watcher::Config::default;
    let controller = Controller::new(Api::<Guarded>::all(client.clone()), all());
    let by_gateway = controller.store();
    let by_agent = controller.store();
    let waiting = controller.store();
    controller
        .watches(Api::<DeserializeGuard<VoiceGateway>>::all(client.clone()), all(), move |gateway| {
            let (namespace, name) = (gateway.namespace(), gateway.name_any());
            numbers(&by_gateway, |n| n.namespace() == namespace && n.spec.gateway_ref.name == name)
        })
        .watches(Api::<Guarded>::all(client.clone()), all(), move |other| {
            // Whoever waits for a number that another object has looks again when that one changes or goes.
            let (namespace, name) = (other.namespace(), other.name_any());
            numbers(&waiting, |n| n.namespace() == namespace && n.name_any() != name && status::is_waiting(n))
        })
        .watches(Api::<DeserializeGuard<VoiceAgent>>::all(client), all(), move |agent| {
            let (namespace, name) = (agent.namespace(), agent.name_any());
            let has_route = |n: &PhoneNumber| n.spec.routes.iter().any(|r| r.agent_ref.name == name);
            numbers(&by_agent, |n| n.namespace() == namespace && has_route(n))
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
    let api = Api::<PhoneNumber>::namespaced(context.client.clone(), &number.namespace().unwrap_or_default());
    // Never from a cache: what is recorded about the carrier must not be forgotten.
    let Some(fresh) = api.get_opt(&number.name_any()).await? else { return Ok(Action::await_change()) };
    let action = finalizer(&api, FINALIZER, Arc::new(fresh), |event| async {
        match event {
            Event::Apply(number) => bind(&number, &context).await,
            Event::Cleanup(number) => release::release(&number, &context).await,
        }
    })
    .await?;
    Ok(action)
}

/// Makes the number ours and keeps it so.
async fn bind(number: &PhoneNumber, context: &Context) -> Result<Action, Error> {
    let known = number.status.clone().unwrap_or_default();
    let (status, findings, error) = match look(number, context).await? {
        Look::Blocked { finding, error } => (known, Findings::blocked(&finding), error),
        Look::Absent => {
            let sentence = "The account has no such number: check source and the gateway's accountSid";
            (known, Findings::blocked(&Finding::no(Reason::NumberNotFound, sentence)), None)
        }
        Look::Taken { by } => {
            let sentence = format!("PhoneNumber {by} has the same number: delete one of the two");
            (known, Findings::blocked(&Finding::no(Reason::NumberTaken, sentence)), None)
        }
        Look::Found(found) => act(number, *found, context).await?,
    };
    let status = status::conclude(number, status, findings, Timestamp::now());
    write_status(number, &status, context).await?;
    match error {
        Some(error) => Err(error.into()),
        None => Ok(Action::requeue(spread(context.resync, &number.name_any(), 0))),
    }
}

/// What a look at the cluster and the carrier showed.
enum Look {
    /// A person, or time, must change something first.
    Blocked { finding: Finding, error: Option<twilio::rest::Error> },
    /// The account has no such number.
    Absent,
    /// Another object had it first.
    Taken { by: String },
    /// All is there.
    Found(Box<Found>),
}

/// Everything needed to act.
struct Found {
    gateway: VoiceGateway,
    carrier: Client,
    number: IncomingPhoneNumber,
    routes: Resolution,
}

async fn look(number: &PhoneNumber, context: &Context) -> Result<Look, Error> {
    let blocked = |finding| Ok(Look::Blocked { finding, error: None });
    let Some(gateway) = observe::fetch_gateway(number, context).await? else {
        let name = &number.spec.gateway_ref.name;
        let sentence = format!("VoiceGateway {name} does not exist in this namespace: create it");
        return blocked(Finding::no(Reason::GatewayNotFound, sentence));
    };
    let carrier = match carrier::client(context, &gateway).await? {
        Ok(client) => client,
        Err(NoClient::Missing(missing)) => {
            return blocked(Finding::no(missing.reason(), missing.to_string()));
        }
        Err(NoClient::Invalid(invalid)) => {
            return blocked(Finding::no(Reason::InvalidSpec, invalid.to_string()));
        }
    };
    let found = match observe::fetch_number(number, &carrier).await {
        Ok(Some(found)) => found,
        Ok(None) => return Ok(Look::Absent),
        Err(error) => {
            let (finding, error) = refusal(error);
            return Ok(Look::Blocked { finding, error });
        }
    };
    if let Some(by) =
        observe::fetch_earlier_claimant(number, &found.sid, Some(&found.phone_number), context).await?
    {
        return Ok(Look::Taken { by });
    }
    let agents = fetch_agents(context, &number.namespace().unwrap_or_default()).await?;
    let routes = routes::resolve(number, &agents);
    Ok(Look::Found(Box::new(Found { gateway, carrier, number: found, routes })))
}

/// Decides and does it; returns the status without its conditions, what was found, and what to wait for.
async fn act(
    number: &PhoneNumber,
    found: Found,
    context: &Context,
) -> Result<(PhoneNumberStatus, Findings, Option<twilio::rest::Error>), Error> {
    let Found { gateway, carrier, number: at_carrier, routes } = found;
    let mut status = number.status.clone().unwrap_or_default();
    status.sid = Some(at_carrier.sid.to_string());
    status.e164 = Some(at_carrier.phone_number.clone());
    let routes_finding = match routes.problem {
        None => Finding::yes(Reason::Resolved),
        Some((reason, sentence)) => Finding::no(reason, sentence),
    };
    let findings = |in_sync| Findings {
        bound: Finding::yes(Reason::NumberFound),
        in_sync,
        routes: routes_finding.clone(),
    };
    let Some(entry) = routes::entry_agent(status.entry_agent.as_deref(), &routes.live) else {
        let sentence = "No route leads to an agent, so the webhooks are left as they are";
        return Ok((status, findings(Finding::unknown(Reason::AgentNotFound, sentence)), None));
    };
    let desired = Desired {
        base: routes::webhook_base(&gateway.spec.public_url, number, &entry),
        fallback_url: number.spec.fallback_url.clone(),
    };
    let written = status.voice_url.clone();
    let plan = diff::plan(Situation {
        observed: &at_carrier.voice,
        desired: &desired,
        written: written.as_deref(),
        was_in_sync: status::was_in_sync(number, &desired.voice_url()),
        claim: number.spec.claim_policy,
        drift: number.spec.drift_policy,
    });
    let original = || diff::original(&at_carrier.voice, &desired.base, written.as_deref());
    match plan {
        Plan::Refuse => {
            let sentence = "The number's webhooks belong to another Switchboard: delete its PhoneNumber there, or set \
                            claimPolicy to Force";
            Ok((status, findings(Finding::no(Reason::ClaimedByOther, sentence)), None))
        }
        Plan::LeaveDrifted => {
            let sentence = "Somebody changed the number's webhooks at the carrier: set driftPolicy to Enforce to undo it";
            Ok((status, findings(Finding::no(Reason::WebhooksDrifted, sentence)), None))
        }
        Plan::Keep => {
            status.original.get_or_insert_with(original);
            status.entry_agent = Some(entry);
            status.voice_url = Some(desired.voice_url());
            status.synced_generation = number.metadata.generation;
            Ok((status, findings(Finding::yes(Reason::WebhooksInSync)), None))
        }
        Plan::Write | Plan::Undo => {
            status.original.get_or_insert_with(original);
            status.entry_agent = Some(entry);
            status.voice_url = Some(desired.voice_url());
            // Before the carrier is touched: from here on the way back is known, whatever happens to this process.
            apply_status(
                &context.client,
                number,
                &status,
                FIELD_MANAGER,
                number.resource_version().as_deref(),
            )
            .await?;
            let (in_sync, error) = write(&carrier, &at_carrier, &desired).await;
            if in_sync.status == Status::True {
                status.synced_generation = number.metadata.generation;
                tell_write(number, plan, context).await;
            }
            Ok((status, findings(in_sync), error))
        }
    }
}

/// Writes, and reads back: the carrier ignores a voice URL beside an application or a trunk.
async fn write(
    carrier: &Client,
    number: &IncomingPhoneNumber,
    desired: &Desired,
) -> (Finding, Option<twilio::rest::Error>) {
    let written = async {
        carrier.update_number(&number.sid, &desired.update()).await?;
        carrier.fetch_number(&number.sid).await
    };
    match written.await {
        Ok(now) if desired.is_met_by(&now.voice) => (Finding::yes(Reason::WebhooksInSync), None),
        Ok(_) => {
            let sentence = "The carrier took the webhooks and shows others: see the number in its console";
            (Finding::no(Reason::WriteNotKept, sentence), None)
        }
        Err(error) => refusal(error),
    }
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

async fn write_status(
    number: &PhoneNumber,
    status: &PhoneNumberStatus,
    context: &Context,
) -> Result<(), Error> {
    if number.status.as_ref() == Some(status) {
        return Ok(());
    }
    apply_status(&context.client, number, status, FIELD_MANAGER, None).await?;
    let before = number.status.as_ref().map_or(&[][..], |s| &s.conditions);
    report::tell_transition(context, number, before, &status.conditions).await;
    Ok(())
}
