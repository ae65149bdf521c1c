//! The way back: a deleted number gets the webhooks it had before.
//!
//! # Expected flow
//! 1. Nothing was ever written, `deletionPolicy: Retain`, or an older object has the same number: done.
//! 2. The carrier's side is no longer what was written: somebody else uses the number now; done, with an event.
//! 3. The eight fields are put back and read back.
//!
//! # Caveats
//! Where gateway, credentials or number are gone for good there is nobody to ask: it gives up with an event, so that a
//! namespace can be deleted. A carrier that is only unavailable is waited for.

use crds::{DeletionPolicy, PhoneNumber};
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use twilio::NumberSid;
use twilio::rest::{Client, Fault, NumberUpdate};

use super::{diff, observe};
use crate::context::Context;
use crate::report::{self, Error};
use crate::voice_gateway::carrier;

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
    let e164 = status.and_then(|s| s.e164.as_deref());
    if observe::fetch_earlier_claimant(number, &sid, e164, context).await?.is_some() {
        // The number belongs to another object, which knows what to put back.
        return Ok(Released::NothingToDo);
    }
    let Some(gateway) = observe::fetch_gateway(number, context).await? else {
        return Ok(Released::GaveUp("the VoiceGateway is gone"));
    };
    let Ok(client) = carrier::client(context, &gateway).await? else {
        return Ok(Released::GaveUp("the credentials are gone"));
    };
    let written = status.and_then(|s| s.voice_url.as_deref());
    let update = NumberUpdate::restoring(&diff::to_configuration(original));
    match put_back(&client, &sid, written, &update).await {
        Ok(released) => Ok(released),
        Err(error) => match error.fault() {
            Fault::User => Ok(Released::GaveUp("the carrier refused")),
            Fault::Twilio | Fault::Us => Err(error.into()),
        },
    }
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
