//! Reads everything a number's reconciliation looks at: its gateway, its agents and the other numbers from the cache, the
//! number itself at the carrier.

use std::sync::Arc;

use crds::{NumberSourceType, PhoneNumber, VoiceGateway};
use kube::ResourceExt as _;
use twilio::NumberSid;
use twilio::rest::{Client, Error, IncomingPhoneNumber};

use super::routes::KnownAgent;
use crate::cache;
use crate::context::Context;
use crate::voice_agent::dereference;

/// The number's gateway.
pub(super) fn find_gateway(number: &PhoneNumber, context: &Context) -> Option<Arc<VoiceGateway>> {
    let namespace = number.namespace().unwrap_or_default();
    let found = cache::find(&context.cache.gateways, &namespace, &number.spec.gateway_ref.name)?;
    found.0.as_ref().ok().cloned().map(Arc::new)
}

/// The agents of the number's namespace.
pub(super) fn known_agents(number: &PhoneNumber, context: &Context) -> Vec<KnownAgent> {
    let namespace = number.namespace();
    let agents = context.cache.agents.state_filter(|a| a.namespace() == namespace);
    agents.iter().filter_map(|a| a.0.as_ref().ok()).filter_map(dereference::known).collect()
}

/// The number at the carrier; none where the account does not have it.
pub(super) async fn fetch_number(
    number: &PhoneNumber,
    carrier: &Client,
) -> Result<Option<IncomingPhoneNumber>, Error> {
    let source = &number.spec.source;
    let by_sid = match source.kind {
        NumberSourceType::E164 => {
            return match &source.e164 {
                Some(e164) => carrier.find_number(e164).await,
                None => Ok(None),
            };
        }
        NumberSourceType::SID => source.sid.as_ref(),
        NumberSourceType::Purchase => number.status.as_ref().and_then(|s| s.sid.as_ref()),
    };
    let Some(Ok(sid)) = by_sid.map(|sid| sid.parse::<NumberSid>()) else { return Ok(None) };
    match carrier.fetch_number(&sid).await {
        Ok(found) => Ok(Some(found)),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Which number of the carrier is meant, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Identity {
    sids: Vec<String>,
    e164s: Vec<String>,
}

impl Identity {
    /// By what an object asks for and what it got.
    pub(super) fn of(number: &PhoneNumber) -> Self {
        let (source, status) = (&number.spec.source, number.status.as_ref());
        let both = |a: &Option<String>, b: Option<&Option<String>>| {
            a.iter().chain(b.into_iter().flatten()).cloned().collect()
        };
        Self {
            sids: both(&source.sid, status.map(|s| &s.sid)),
            e164s: both(&source.e164, status.map(|s| &s.e164)),
        }
    }

    /// A number as the carrier shows it.
    pub(super) fn at_carrier(number: &IncomingPhoneNumber) -> Self {
        Self { sids: vec![number.sid.to_string()], e164s: vec![number.phone_number.clone()] }
    }

    fn meets(&self, other: &Self) -> bool {
        self.sids.iter().any(|sid| other.sids.contains(sid))
            || self.e164s.iter().any(|n| other.e164s.contains(n))
    }
}

/// Another object of this namespace that has the same number and is older.
pub(super) fn find_earlier_claimant(
    number: &PhoneNumber,
    identity: &Identity,
    context: &Context,
) -> Option<String> {
    let order = |n: &PhoneNumber| (n.creation_timestamp().map(|t| t.0), n.uid());
    find_claimant(number, identity, context, |other| order(other) < order(number))
}

/// Another object of this namespace that has the same number.
pub(super) fn find_claimant(
    number: &PhoneNumber,
    identity: &Identity,
    context: &Context,
    fits: impl Fn(&PhoneNumber) -> bool,
) -> Option<String> {
    let (namespace, uid) = (number.namespace(), number.uid());
    let claims = |other: &PhoneNumber| {
        other.namespace() == namespace
            && other.uid() != uid
            && fits(other)
            && Identity::of(other).meets(identity)
    };
    let found = context.cache.numbers.state_filter(|n| n.0.as_ref().is_ok_and(claims));
    found.first().map(|n| n.name_any())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, NumberVerbs as _};
    use crds::PhoneNumberStatus;

    const SID: &str = "PN00000000000000000000000000000001";

    fn by_sid() -> PhoneNumber {
        let mut number = testing::number();
        number.spec.source = serde_json::from_value(serde_json::json!({"type": "SID", "sid": SID})).unwrap();
        number
    }

    #[test]
    fn two_objects_mean_the_same_number_by_digits_or_id_asked_for_or_found() {
        let by_digits = testing::number();
        assert!(Identity::of(&by_digits).meets(&Identity::of(&by_digits.clone())));
        assert!(!Identity::of(&by_digits).meets(&Identity::of(&by_sid())), "nobody knows yet");
        let found = PhoneNumberStatus { sid: Some(SID.to_owned()), ..PhoneNumberStatus::default() };
        assert!(Identity::of(&by_digits.with_status(found)).meets(&Identity::of(&by_sid())));
        let found =
            PhoneNumberStatus { e164: Some("+15551230001".to_owned()), ..PhoneNumberStatus::default() };
        assert!(Identity::of(&by_sid().with_status(found)).meets(&Identity::of(&testing::number())));
    }
}
