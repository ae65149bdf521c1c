//! Buying a number for an object, once.
//!
//! # Expected flow
//! 1. A number of the account that is named after the object was bought for it, whatever the status says: that is the one.
//! 2. Otherwise a candidate is chosen and recorded in the status; the next steps are about the recorded one.
//! 3. The candidate is bought under the object's name.
//!
//! # Guarantees
//! Whoever dies between 2 and 3, or never hears the answer of 3, leaves the candidate to the next, and a number can be
//! bought only once: if the first attempt was carried out after all, the second is refused, and 1 finds what it bought.
//!
//! # Caveats
//! A number that somebody renames within the seconds of an unclear purchase is not recognised.

use crds::conditions::Reason;
use crds::{NumberPurchase, PhoneNumber, PurchaseRecord, PurchaseType};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;
use twilio::rest::{AvailableNumber, Client, Code, IncomingPhoneNumber, NumberKind, NumberSearch};

use super::{Draft, Found};
use crate::context::Context;
use crate::finding::Finding;
use crate::report::Error;

/// Candidates that are tried in a row, where each was sold to somebody else meanwhile.
const CANDIDATES: usize = 3;

/// Buys, unless it was bought before. The inner error is the carrier's.
pub(super) async fn obtain(
    purchase: &NumberPurchase,
    client: &Client,
    draft: &mut Draft<'_>,
    context: &Context,
) -> Result<Result<Found, twilio::rest::Error>, Error> {
    let label = label(draft.number);
    let Some(search) = search(purchase) else {
        let sentence = "purchase.country is no country code: two capital letters, such as US";
        return Ok(Ok(Found::Nothing(Finding::no(Reason::InvalidSpec, sentence))));
    };
    for _ in 0..CANDIDATES {
        match client.find_labelled(&label).await {
            Ok(Some(found)) => return Ok(Ok(done(found, draft))),
            Ok(None) => {}
            Err(error) => return Ok(Err(error)),
        }
        let candidate = match draft.status.purchase.clone() {
            Some(record) => record.candidate,
            None => match client.search_numbers(&search).await {
                Ok(offers) => match choose(&offers, &label) {
                    Some(offer) => offer.phone_number.clone(),
                    None => return Ok(Ok(Found::Nothing(nothing_fits()))),
                },
                Err(error) => return Ok(Err(error)),
            },
        };
        draft.status.purchase = Some(PurchaseRecord { candidate: candidate.clone(), bought_at: None });
        draft.write(context).await?;
        context.standing.check()?;
        match client.buy_number(&candidate, &label).await {
            Ok(bought) => return Ok(Ok(done(bought, draft))),
            // Somebody has it, perhaps an earlier attempt of ours: the next round looks.
            Err(error) if error.code() == Some(Code::NUMBER_NOT_AVAILABLE) => draft.status.purchase = None,
            Err(error) => return Ok(Err(error)),
        }
    }
    let sentence = "The numbers that were chosen were sold to others meanwhile; it is tried again";
    Ok(Ok(Found::Nothing(Finding::no(Reason::NoNumberForSale, sentence))))
}

/// The name that a bought number has at the carrier: the object's identity, which no other object ever has.
pub(super) fn label(number: &PhoneNumber) -> String {
    format!("switchboard {}", number.uid().unwrap_or_default())
}

fn done(bought: IncomingPhoneNumber, draft: &mut Draft<'_>) -> Found {
    let candidate = bought.phone_number.clone();
    let bought_at = Some(Time(Timestamp::now()));
    draft.status.purchase = Some(PurchaseRecord { candidate, bought_at });
    draft.status.sid = Some(bought.sid.to_string());
    draft.status.e164 = Some(bought.phone_number.clone());
    Found::Number(Box::new(bought))
}

fn nothing_fits() -> Finding {
    let sentence =
        "The carrier has no number for sale that fits source.purchase: ask for less, in a new PhoneNumber";
    Finding::no(Reason::NoNumberForSale, sentence)
}

fn search(purchase: &NumberPurchase) -> Option<NumberSearch> {
    let NumberPurchase { country, number_type, area_code, contains } = purchase;
    Some(NumberSearch {
        country: country.parse().ok()?,
        kind: match number_type {
            PurchaseType::Local => NumberKind::Local,
            PurchaseType::TollFree => NumberKind::TollFree,
            PurchaseType::Mobile => NumberKind::Mobile,
        },
        area_code: *area_code,
        contains: contains.clone(),
        region: None,
        locality: None,
    })
}

/// A number that takes calls, rather one that needs no papers. Which of them depends on who asks, so that many objects
/// with the same wish do not all run after the same number.
fn choose<'a>(offers: &'a [AvailableNumber], label: &str) -> Option<&'a AvailableNumber> {
    let needs_papers =
        |offer: &AvailableNumber| offer.address_requirements.as_deref().is_some_and(|r| r != "none");
    let (free, bound): (Vec<_>, Vec<_>) =
        offers.iter().filter(|offer| offer.capabilities.voice).partition(|offer| !needs_papers(offer));
    let fitting = if free.is_empty() { bound } else { free };
    let sum = label.bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)));
    let index = sum.checked_rem(fitting.len())?;
    fitting.get(index).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use twilio::rest::Capabilities;

    fn offer(phone_number: &str, voice: bool, papers: &str) -> AvailableNumber {
        AvailableNumber {
            phone_number: phone_number.to_owned(),
            capabilities: Capabilities { voice, ..Capabilities::default() },
            address_requirements: Some(papers.to_owned()),
        }
    }

    #[test]
    fn a_number_that_takes_calls_and_needs_no_papers_is_chosen_first() {
        let offers = [offer("+1", false, "none"), offer("+2", true, "any"), offer("+3", true, "none")];
        assert_eq!(choose(&offers, "a").unwrap().phone_number, "+3");
        assert_eq!(choose(&offers[..2], "a").unwrap().phone_number, "+2");
        assert_eq!(choose(&offers[..1], "a"), None);
        assert_eq!(choose(&[], "a"), None);
    }

    #[test]
    fn many_who_want_the_same_run_after_different_numbers() {
        let offers: Vec<_> = (0..20).map(|n| offer(&format!("+{n}"), true, "none")).collect();
        let chosen: std::collections::BTreeSet<_> = (0..20)
            .filter_map(|n| choose(&offers, &format!("switchboard {n}")))
            .map(|o| &o.phone_number)
            .collect();
        assert!(chosen.len() > 8, "{chosen:?}");
        assert_eq!(choose(&offers, "one"), choose(&offers, "one"));
    }
}
