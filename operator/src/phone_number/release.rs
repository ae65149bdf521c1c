//! The way back: a deleted number gets the webhooks it had before.
//!
//! # Expected flow
//! 1. Nothing was ever written, `deletionPolicy: Retain`, or an older object has the same number: done.
//! 2. The carrier's side is no longer what was written: somebody else uses the number now; done, with an event.
//! 3. The eight fields are put back and read back.
//!
//! # Caveats
//! Where gateway, credentials or number are gone for good there is nobody to ask: it gives up with an event, so that a
//! namespace can be deleted. A process that had the credentials before goes on with them: of a namespace deleted as a
//! whole the Secret goes first. A carrier that is only unavailable is waited for.

use std::sync::Arc;

use crds::{DeletionPolicy, PhoneNumber};
use kube::ResourceExt as _;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use twilio::NumberSid;
use twilio::rest::{Client, Fault, NumberUpdate};

use super::observe::Identity;
use super::{diff, observe};
use crate::context::Context;
use crate::report::{self, Error};
use crate::voice_gateway::carrier::{self, Carrier};

/// How the way back ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Released {
    Restored,
    NothingToDo,
    UsedByOthers,
    GaveUp(&'static str),
}

/// Puts back what was found.
pub(super) async fn release(number: &PhoneNumber, context: &Context) -> Result<Action, Error> {
    let (kind, reason, note) = match restore(number, context).await? {
        Released::NothingToDo => return Ok(Action::await_change()),
        Released::Restored => {
            (EventType::Normal, "WebhooksRestored", "the number has the webhooks it had before".to_owned())
        }
        Released::UsedByOthers => {
            let note = "somebody else had changed the number's webhooks, so they were left";
            (EventType::Normal, "WebhooksLeft", note.to_owned())
        }
        Released::GaveUp(why) => {
            let note = format!(
                "the number's former webhooks were not put back: {why}; set them in the carrier's console"
            );
            (EventType::Warning, "RestoreAbandoned", note)
        }
    };
    context.number_looks.forget(&number.uid().unwrap_or_default());
    report::tell(context, number, kind, reason, &note).await;
    Ok(Action::await_change())
}

async fn restore(number: &PhoneNumber, context: &Context) -> Result<Released, Error> {
    let status = number.status.as_ref();
    let Some(original) = status.and_then(|s| s.original.as_ref()) else { return Ok(Released::NothingToDo) };
    if number.spec.deletion_policy == DeletionPolicy::Retain {
        return Ok(Released::NothingToDo);
    }
    let Some(Ok(sid)) = status.and_then(|s| s.sid.as_ref()).map(|sid| sid.parse::<NumberSid>()) else {
        return Ok(Released::NothingToDo);
    };
    if observe::find_earlier_claimant(number, &Identity::of(number), context).is_some() {
        // The number belongs to another object, which knows what to put back.
        return Ok(Released::NothingToDo);
    }
    let Some(carrier) = carrier_of(number, context).await? else {
        return Ok(Released::GaveUp("the VoiceGateway or its credentials are gone"));
    };
    let written = status.and_then(|s| s.voice_url.as_deref());
    let update = NumberUpdate::restoring(&diff::to_configuration(original));
    context.standing.check()?;
    let released = match carrier.turn().await {
        Ok(turn) => put_back(turn.client, &sid, written, &update).await,
        Err(error) => Err(error),
    };
    match released {
        Ok(released) => Ok(released),
        Err(error) => {
            let namespace = number.namespace().unwrap_or_default();
            context.carriers.heed(&namespace, &number.spec.gateway_ref.name, &error);
            match error.fault() {
                Fault::User => Ok(Released::GaveUp("the carrier refused")),
                Fault::Twilio | Fault::Us => Err(error.into()),
            }
        }
    }
}

/// The way to the carrier, be it the last one known.
async fn carrier_of(number: &PhoneNumber, context: &Context) -> Result<Option<Arc<Carrier>>, kube::Error> {
    let namespace = number.namespace().unwrap_or_default();
    let reached = match observe::find_gateway(number, context) {
        Some(gateway) => carrier::reach(context, &gateway).await?.ok(),
        None => None,
    };
    Ok(reached.or_else(|| context.carriers.last_known(&namespace, &number.spec.gateway_ref.name)))
}

pub(super) async fn put_back(
    client: &Client,
    sid: &NumberSid,
    written: Option<&str>,
    update: &NumberUpdate,
) -> Result<Released, twilio::rest::Error> {
    let now = client.fetch_number(sid).await?;
    if now.voice.voice_url.as_deref() != written {
        return Ok(Released::UsedByOthers);
    }
    client.update_number(sid, update).await?;
    Ok(Released::Restored)
}
