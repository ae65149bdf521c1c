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
//! whole the Secret goes first. A carrier that is only unavailable is waited for; one that refuses the credentials for
//! [`PATIENCE`], because a token that is being replaced is refused for a while.

use std::sync::Arc;
use std::time::Duration;

use crds::conditions::{ConditionType, Reason, Status, find_condition};
use crds::{DeletionPolicy, NumberSourceType, PhoneNumber, PhoneNumberStatus};
use jiff::Timestamp;
use kube::ResourceExt as _;
use kube::runtime::events::EventType;
use twilio::NumberSid;
use twilio::rest::{Client, Fault, NumberUpdate, VoiceConfiguration};

use super::observe::Identity;
use super::{diff, observe, purchase, status};
use crate::apply::{FIELD_MANAGER, apply_status};
use crate::context::Context;
use crate::finding::Finding;
use crate::report::{self, Error};
use crate::voice_gateway::carrier::{self, Carrier};

/// How long a carrier that refuses the credentials is asked again. Replacing a token by hand takes minutes; longer, and a
/// namespace whose account is closed would hang for nothing.
const PATIENCE: Duration = Duration::from_secs(600);
/// How often it is asked, besides at once when the Secret changes.
const RETRY: Duration = Duration::from_secs(30);

/// How the way back ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Released {
    Restored,
    NothingToDo,
    UsedByOthers,
    GivenBack,
    GaveUp(Because),
}

/// Why there is no way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Because {
    NobodyToAsk,
    CredentialsRefused,
    Refused,
}

impl Because {
    const fn sentence(self) -> &'static str {
        match self {
            Self::NobodyToAsk => "the VoiceGateway or its credentials are gone",
            Self::CredentialsRefused => "the carrier has refused the credentials for ten minutes",
            Self::Refused => "the carrier refused",
        }
    }
}

/// Whether a deleted number may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Nothing is left to do for it.
    Done,
    /// Its status says what is waited for.
    LookAgain(Duration),
}

/// Puts back what was found.
pub(super) async fn release(number: &PhoneNumber, context: &Context) -> Result<Way, Error> {
    let is_bought = number.spec.source.kind == NumberSourceType::Purchase;
    let is_to_go = is_bought && number.spec.deletion_policy == DeletionPolicy::Release;
    let released = if is_to_go { give_back(number, context).await } else { restore(number, context).await };
    let now = Timestamp::now();
    if let Err(Error::Carrier(_)) = released {
        wait(number, &carrier_away(is_to_go), now, context).await?;
    }
    let released = released?;
    let left = patience(number, now);
    if released == Released::GaveUp(Because::CredentialsRefused) && !left.is_zero() {
        wait(number, &credentials_refused(is_to_go), now, context).await?;
        return Ok(Way::LookAgain(RETRY.min(left)));
    }
    context.number_looks.forget(&number.uid().unwrap_or_default());
    tell(number, released, is_to_go, context).await;
    Ok(Way::Done)
}

/// How much longer refused credentials are waited for: since they were refused first, which the status tells, so that a
/// new leader goes on counting; and not from before the deletion.
fn patience(number: &PhoneNumber, now: Timestamp) -> Duration {
    let conditions = number.status.as_ref().map_or(&[][..], |s| &s.conditions);
    let refused = find_condition(conditions, ConditionType::InSync).filter(|c| {
        c.status == Status::False.to_string() && c.reason == Reason::CredentialsRejected.to_string()
    });
    let since = match (refused, &number.metadata.deletion_timestamp) {
        (Some(refused), Some(deleted)) => refused.last_transition_time.0.max(deleted.0),
        (Some(_) | None, _) => now,
    };
    PATIENCE.saturating_sub(Duration::try_from(now.duration_since(since)).unwrap_or_default())
}

const fn task(is_to_go: bool) -> &'static str {
    if is_to_go { "give the number back" } else { "put its former webhooks back" }
}

fn credentials_refused(is_to_go: bool) -> Finding {
    let sentence = format!(
        "Deleted, and waits up to {} minutes for credentials that the carrier takes, to {}: correct them (see the \
         VoiceGateway's conditions), or set deletionPolicy to Retain to leave the number as it is",
        PATIENCE.as_secs() / 60,
        task(is_to_go),
    );
    Finding::no(Reason::CredentialsRejected, sentence)
}

fn carrier_away(is_to_go: bool) -> Finding {
    let sentence = format!(
        "Deleted, and waits for the carrier, which cannot be asked now, to {}: it is tried again by itself; set \
         deletionPolicy to Retain to leave the number as it is",
        task(is_to_go),
    );
    Finding::unknown(Reason::CarrierUnavailable, sentence)
}

/// Says what is waited for.
async fn wait(
    number: &PhoneNumber,
    waits_for: &Finding,
    now: Timestamp,
    context: &Context,
) -> Result<(), Error> {
    let status = status::leaving(number, waits_for, now);
    if number.status.as_ref() == Some(&status) {
        return Ok(());
    }
    let version = number.resource_version();
    apply_status(&context.client, number, &status, FIELD_MANAGER, version.as_deref()).await?;
    let before = number.status.as_ref().map_or(&[][..], |s| &s.conditions);
    report::tell_transition(context, number, before, &status.conditions).await;
    Ok(())
}

async fn tell(number: &PhoneNumber, released: Released, is_to_go: bool, context: &Context) {
    let (kind, reason, note) = match released {
        Released::NothingToDo => return,
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
        Released::GaveUp(because) if is_to_go => {
            let why = because.sentence();
            let note = format!("the number was not given back: {why}; release it in the carrier's console");
            (EventType::Warning, "ReleaseAbandoned", note)
        }
        Released::GaveUp(because) => {
            let why = because.sentence();
            let note = format!(
                "the number's former webhooks were not put back: {why}; set them in the carrier's console"
            );
            (EventType::Warning, "RestoreAbandoned", note)
        }
    };
    report::tell(context, number, kind, reason, &note).await;
}

async fn restore(number: &PhoneNumber, context: &Context) -> Result<Released, Error> {
    let Some(status) = &number.status else { return Ok(Released::NothingToDo) };
    let Some(original) = &status.original else { return Ok(Released::NothingToDo) };
    if number.spec.deletion_policy == DeletionPolicy::Retain {
        return Ok(Released::NothingToDo);
    }
    let Some(Ok(sid)) = status.sid.as_ref().map(|sid| sid.parse::<NumberSid>()) else {
        return Ok(Released::NothingToDo);
    };
    if observe::find_earlier_claimant(number, &Identity::of(number), context).is_some() {
        // The number belongs to another object, which knows what to put back.
        return Ok(Released::NothingToDo);
    }
    let former = diff::to_configuration(original);
    with_carrier(number, context, async |client| put_back(client, &sid, status, &former).await).await
}

/// Gives a bought number back for good.
async fn give_back(number: &PhoneNumber, context: &Context) -> Result<Released, Error> {
    let Some(status) = number.status.as_ref().filter(|s| s.purchase.is_some()) else {
        return Ok(Released::NothingToDo);
    };
    if observe::find_claimant(number, &Identity::of(number), context, |_| true).is_some() {
        return Ok(Released::UsedByOthers);
    }
    let sid = status.sid.as_ref().and_then(|sid| sid.parse::<NumberSid>().ok());
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
        if found.voice.voice_url.is_some_and(|url| !status.has_told(&url)) {
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
        return Ok(Released::GaveUp(Because::NobodyToAsk));
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
            context.carriers.heed(&namespace, &number.spec.gateway_ref.name, &error)?;
            match (error.fault(), &error) {
                (Fault::User, twilio::rest::Error::Authentication { .. }) => {
                    Ok(Released::GaveUp(Because::CredentialsRefused))
                }
                (Fault::User, _) => Ok(Released::GaveUp(Because::Refused)),
                (Fault::Twilio | Fault::Us, _) => Err(error.into()),
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
    status: &PhoneNumberStatus,
    former: &VoiceConfiguration,
) -> Result<Released, twilio::rest::Error> {
    let now = client.fetch_number(sid).await?.voice;
    if now.voice_url.as_deref().is_some_and(|url| status.has_told(url)) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, NumberVerbs as _};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// Deleted at second 1000.
    fn deleted() -> PhoneNumber {
        let mut number = testing::number();
        number.metadata.deletion_timestamp = Some(Time(at(1000)));
        number
    }

    fn refused(number: PhoneNumber, second: i64) -> PhoneNumber {
        let finding = Finding::no(Reason::CredentialsRejected, "a");
        let status = status::leaving(&number, &finding, at(second));
        number.with_status(status)
    }

    #[test]
    fn refused_credentials_are_waited_for_from_the_first_refusal_and_not_for_ever() {
        assert_eq!(patience(&deleted(), at(5000)), PATIENCE, "after an outage of an hour");
        let number = refused(deleted(), 5000);
        assert_eq!(patience(&number, at(5100)), PATIENCE - Duration::from_secs(100));
        assert_eq!(patience(&number, at(5600)), Duration::ZERO);
        assert_eq!(patience(&number, at(9999)), Duration::ZERO);
        assert_eq!(patience(&number, at(4999)), PATIENCE, "another leader's clock is behind");
    }

    #[test]
    fn credentials_that_were_wrong_long_before_the_deletion_get_their_time_all_the_same() {
        let number = refused(deleted(), 10);
        assert_eq!(patience(&number, at(1000)), PATIENCE);
        assert_eq!(patience(&number, at(1600)), Duration::ZERO);
    }

    #[test]
    fn what_was_found_stays_in_the_status_while_it_waits() {
        let before = PhoneNumberStatus {
            sid: Some("PN1".to_owned()),
            voice_url: Some("u".to_owned()),
            entry_agent: Some("sales".to_owned()),
            ..PhoneNumberStatus::default()
        };
        let number = refused(deleted().with_status(before.clone()), 2000);
        let status = number.status.unwrap();
        let conditions: Vec<_> =
            status.conditions.iter().map(|c| format!("{}={} {}", c.type_, c.status, c.reason)).collect();
        assert_eq!(conditions, ["Ready=False CredentialsRejected", "InSync=False CredentialsRejected"]);
        let kept = PhoneNumberStatus { conditions: Vec::new(), ..status };
        assert_eq!(kept, before);
    }
}
