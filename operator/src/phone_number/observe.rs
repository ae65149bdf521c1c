//! Reads everything a number's reconciliation looks at, freshly: the object, its gateway, its agents, the carrier.

use crds::{NumberSourceType, PhoneNumber, VoiceGateway};
use kube::api::ListParams;
use kube::core::DeserializeGuard;
use kube::{Api, ResourceExt as _};
use twilio::NumberSid;
use twilio::rest::{Client, Error, IncomingPhoneNumber};

use crate::context::Context;

/// The number's gateway.
pub(super) async fn fetch_gateway(
    number: &PhoneNumber,
    context: &Context,
) -> Result<Option<VoiceGateway>, kube::Error> {
    let namespace = number.namespace().unwrap_or_default();
    let api = Api::<VoiceGateway>::namespaced(context.client.clone(), &namespace);
    api.get_opt(&number.spec.gateway_ref.name).await
}

/// The number at the carrier; none where the account does not have it.
pub(super) async fn fetch_number(
    number: &PhoneNumber,
    carrier: &Client,
) -> Result<Option<IncomingPhoneNumber>, Error> {
    let source = &number.spec.source;
    match source.kind {
        NumberSourceType::E164 => match &source.e164 {
            Some(e164) => carrier.find_number(e164).await,
            None => Ok(None),
        },
        NumberSourceType::SID => {
            let Some(Ok(sid)) = source.sid.as_ref().map(|sid| sid.parse::<NumberSid>()) else {
                return Ok(None);
            };
            match carrier.fetch_number(&sid).await {
                Ok(found) => Ok(Some(found)),
                Err(Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        }
    }
}

/// Another object of this namespace that has the same number and is older.
pub(super) async fn fetch_earlier_claimant(
    number: &PhoneNumber,
    sid: &NumberSid,
    e164: Option<&str>,
    context: &Context,
) -> Result<Option<String>, kube::Error> {
    let namespace = number.namespace().unwrap_or_default();
    let api = Api::<DeserializeGuard<PhoneNumber>>::namespaced(context.client.clone(), &namespace);
    let others = api.list(&ListParams::default()).await?.items.into_iter().filter_map(|n| n.0.ok());
    let order = |n: &PhoneNumber| (n.creation_timestamp().map(|t| t.0), n.uid());
    Ok(others
        .filter(|o| o.uid() != number.uid() && order(o) < order(number))
        .find(|o| names(o, sid, e164))
        .map(|o| o.name_any()))
}

/// Whether an object is about a number of the carrier, by what it asks for or by what it got.
fn names(number: &PhoneNumber, sid: &NumberSid, e164: Option<&str>) -> bool {
    let source = &number.spec.source;
    let bound = number.status.as_ref().and_then(|s| s.sid.as_deref());
    [source.sid.as_deref(), bound].contains(&Some(sid.as_str()))
        || (e164.is_some() && source.e164.as_deref() == e164)
}
