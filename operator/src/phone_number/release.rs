//! The way back: a deleted number gets the webhooks it had before.
//!
//! # Expected flow
//! 1. Nothing was ever written, `deletionPolicy: Retain`, or an older object has the same number: done.
//! 2. The carrier's side is no longer what was written: somebody else uses the number now; done, with an event.
//! 3. The eight fields are put back.
//!
//! With `deletionPolicy: Release` a number that was bought for the object is given back to the carrier instead, unless
//! another object or somebody else uses it now.
//!
//! # Caveats
//! Where gateway, credentials or number are gone for good there is nobody to ask: it gives up with an event, so that a
//! namespace can be deleted. A process that had the credentials before goes on with them: of a namespace deleted as a
//! whole the Secret goes first. A carrier that is only unavailable is waited for.

use std::sync::Arc;

use crds::{DeletionPolicy, NumberSourceType, PhoneNumber};
use kube::ResourceExt as _;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use twilio::NumberSid;
use twilio::rest::{Client, Fault, NumberUpdate, VoiceConfiguration};

use super::observe::Identity;
use super::{diff, observe, purchase};
use crate::context::Context;
use crate::report::{self, Error};
use crate::voice_gateway::carrier::{self, Carrier};

/// How the way back ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Released {
    Restored,
    NothingToDo,
    UsedByOthers,
    GivenBack,
    GaveUp(&'static str),
}

/// Puts back what was found.
pub(super) async fn release(number: &PhoneNumber, context: &Context) -> Result<Action, Error> {
    let is_bought = number.spec.source.kind == NumberSourceType::Purchase;
    let is_to_go = is_bought && number.spec.deletion_policy == DeletionPolicy::Release;
    let released =
        if is_to_go { give_back(number, context).await? } else { restore(number, context).await? };
    context.number_looks.forget(&number.uid().unwrap_or_default());
    let (kind, reason, note) = match released {
        Released::NothingToDo => return Ok(Action::await_change()),
        Released::Restored => {
            (EventType::Normal, "WebhooksRestored", "the number has the webhooks it had before".to_owned())
        }
        Released::UsedByOthers if is_to_go => {
            let note = "somebody else uses the number now, so it was not given back";
            (EventType::Warning, "NumberKept", note.to_owned())
        }
        Released::UsedByOthers => {
            let note = "somebody else had changed the number's webhooks, so they were left";
            (EventType::Normal, "WebhooksLeft", note.to_owned())
        }
        Released::GivenBack => {
            (EventType::Normal, "NumberReleased", "the number was given back to the carrier".to_owned())
        }
        Released::GaveUp(why) if is_to_go => {
            let note = format!("the number was not given back: {why}; release it in the carrier's console");
            (EventType::Warning, "ReleaseAbandoned", note)
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
    if observe::find_earlier_claimant(number, &Identity::of(number), context).is_some() {
        // The number belongs to another object, which knows what to put back.
        return Ok(Released::NothingToDo);
    }
    let written = status.and_then(|s| s.voice_url.as_deref());
    let former = diff::to_configuration(original);
    with_carrier(number, context, async |client| put_back(client, &sid, written, &former).await).await
}

/// Gives a bought number back for good.
async fn give_back(number: &PhoneNumber, context: &Context) -> Result<Released, Error> {
    let status = number.status.as_ref();
    if status.is_none_or(|s| s.purchase.is_none()) {
        return Ok(Released::NothingToDo);
    }
    if observe::find_claimant(number, &Identity::of(number), context, |_| true).is_some() {
        return Ok(Released::UsedByOthers);
    }
    let written = status.and_then(|s| s.voice_url.as_deref());
    let sid = status.and_then(|s| s.sid.as_ref()).and_then(|sid| sid.parse::<NumberSid>().ok());
    with_carrier(number, context, async |client| {
        let found = match &sid {
            Some(sid) => match client.fetch_number(sid).await {
                Ok(found) => Some(found),
                Err(twilio::rest::Error::NotFound { .. }) => None,
                Err(error) => return Err(error),
            },
            // Bought, perhaps, by somebody who died before the answer.
            None => client.find_labelled(&purchase::label(number)).await?,
        };
        let Some(found) = found else { return Ok(Released::NothingToDo) };
        let url = found.voice.voice_url.as_deref();
        if url.is_some() && url != written {
            return Ok(Released::UsedByOthers);
        }
        client.release_number(&found.sid).await.map(|()| Released::GivenBack)
    })
    .await
}

/// Does something at the carrier, if there still is a way, and if it still may be done.
async fn with_carrier(
    number: &PhoneNumber,
    context: &Context,
    act: impl AsyncFnOnce(&Client) -> Result<Released, twilio::rest::Error>,
) -> Result<Released, Error> {
    let Some(carrier) = carrier_of(number, context).await? else {
        return Ok(Released::GaveUp("the VoiceGateway or its credentials are gone"));
    };
    context.standing.check()?;
    let released = match carrier.turn().await {
        Ok(turn) => act(turn.client).await,
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

/// Puts the former webhooks back, unless they are there already (an answer was lost) or somebody else's are.
pub(super) async fn put_back(
    client: &Client,
    sid: &NumberSid,
    written: Option<&str>,
    former: &VoiceConfiguration,
) -> Result<Released, twilio::rest::Error> {
    let now = client.fetch_number(sid).await?.voice;
    if now.voice_url.as_deref() == written {
        client.update_number(sid, &NumberUpdate::restoring(former)).await?;
        return Ok(Released::Restored);
    }
    let is_back = (now.voice_url, now.status_callback, now.voice_application_sid, now.trunk_sid)
        == (
            former.voice_url.clone(),
            former.status_callback.clone(),
            former.voice_application_sid.clone(),
            former.trunk_sid.clone(),
        );
    Ok(if is_back { Released::Restored } else { Released::UsedByOthers })
}
