//! `AvailablePhoneNumbers`: what is for sale.
//!
//! Twenty numbers of every kind, country and area code that the simulator knows, all fictitious: the first needs an
//! address on file, the second takes no calls. What the account has is not for sale.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::{Answer, ApiError, Request, invalid};
use crate::carrier::Carrier;

const FIELDS: &[&str] = &[
    "AreaCode",
    "Contains",
    "VoiceEnabled",
    "SmsEnabled",
    "MmsEnabled",
    "FaxEnabled",
    "ExcludeAllAddressRequired",
    "ExcludeLocalAddressRequired",
    "ExcludeForeignAddressRequired",
    "Beta",
    "NearNumber",
    "NearLatLong",
    "Distance",
    "InPostalCode",
    "InRegion",
    "InRateCenter",
    "InLata",
    "InLocality",
    "PageSize",
    "Page",
    "PageToken",
];
/// The path's words for kinds.
const KINDS: &[&str] = &["Local", "TollFree", "Mobile", "National", "Voip", "SharedCost", "MachineToMachine"];
/// Of each kind.
const STOCK: u32 = 20;
/// Where nobody asks for an area: Hilo, as in the documentation's example.
const AREA: u32 = 808;

/// A number for sale.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Offer {
    phone_number: String,
    country: String,
    has_voice: bool,
    address_requirements: &'static str,
}

pub(super) fn search(
    carrier: &Carrier,
    request: &Request<'_>,
    country: &str,
    kind: &str,
    path: &str,
) -> Answer {
    if !KINDS.contains(&kind) || country.len() != 2 || !country.bytes().all(|b| b.is_ascii_uppercase()) {
        return Err(super::unknown_path(carrier, path));
    }
    request.note_unknown(carrier, FIELDS);
    let area = match request.value("AreaCode").map(str::parse::<u32>) {
        None => None,
        Some(Ok(area)) if (200..=999).contains(&area) => Some(area),
        Some(_) => return Err(invalid(carrier, 21451, "AreaCode is not an area code")),
    };
    let contains = request.value("Contains").unwrap_or("**");
    if !(2..=16).contains(&contains.chars().count()) {
        return Err(invalid(carrier, 20422, "Contains must have 2 to 16 characters"));
    }
    let owned: Vec<String> = carrier.numbers().iter().map(|number| number.phone_number.clone()).collect();
    let offers = stock(country, kind, area).into_iter().filter(|offer| {
        !owned.contains(&offer.phone_number)
            && (offer.has_voice || request.value("VoiceEnabled") != Some("true"))
            && has_pattern(&offer.phone_number, contains)
    });
    let offers: Vec<Value> = offers.map(|offer| offer.json()).collect();
    Ok((StatusCode::OK, json!({"available_phone_numbers": offers, "uri": path})))
}

/// Whether a number can be bought, by its digits alone.
pub(super) fn is_for_sale(phone_number: &str) -> bool {
    let area = phone_number.get(2..5).and_then(|area| area.parse().ok());
    [("US", "Local", area), ("US", "TollFree", None), ("GB", "Local", None), ("GB", "Mobile", None)]
        .into_iter()
        .flat_map(|(country, kind, area)| stock(country, kind, area))
        .any(|offer| offer.phone_number == phone_number)
}

/// The first number of an area code that the account does not have.
pub(super) fn first_of_area(carrier: &Carrier, area: &str) -> Result<String, ApiError> {
    let area = area.parse().ok().filter(|area| (200..=999).contains(area));
    let area = area.ok_or_else(|| invalid(carrier, 21451, "AreaCode is not an area code"))?;
    let owned = |offer: &Offer| carrier.numbers().iter().any(|n| n.phone_number == offer.phone_number);
    let free = stock("US", "Local", Some(area)).into_iter().find(|offer| !owned(offer));
    free.map(|offer| offer.phone_number)
        .ok_or_else(|| ApiError::new(400, 21452, "No numbers in this area code"))
}

fn stock(country: &str, kind: &str, area: Option<u32>) -> Vec<Offer> {
    let prefix = match (country, kind, area) {
        ("US" | "CA", "Local", area) => format!("+1{}555", area.unwrap_or(AREA)),
        ("US" | "CA", "TollFree", None | Some(833)) => "+1833555".to_owned(),
        ("GB", "Local", None) => "+44163296".to_owned(),
        ("GB", "Mobile", None) => "+44770090".to_owned(),
        _ => return Vec::new(),
    };
    let offer = |index: u32| Offer {
        phone_number: format!("{prefix}{:04}", 100 + index),
        country: country.to_owned(),
        has_voice: index != 1,
        address_requirements: if index == 0 { "any" } else { "none" },
    };
    (0..STOCK).map(offer).collect()
}

/// Whether the digits have the pattern somewhere; `*` is any digit, a letter the digit of its key.
fn has_pattern(phone_number: &str, pattern: &str) -> bool {
    let digits: Vec<char> = phone_number.trim_start_matches('+').chars().collect();
    let pattern: Vec<char> = pattern.trim_start_matches('+').chars().map(key).collect();
    digits
        .windows(pattern.len().max(1))
        .any(|window| pattern.iter().zip(window).all(|(wanted, digit)| *wanted == '*' || wanted == digit))
}

fn key(character: char) -> char {
    match character.to_ascii_uppercase() {
        'A'..='C' => '2',
        'D'..='F' => '3',
        'G'..='I' => '4',
        'J'..='L' => '5',
        'M'..='O' => '6',
        'P'..='S' => '7',
        'T'..='V' => '8',
        'W'..='Z' => '9',
        other => other,
    }
}

impl Offer {
    fn json(&self) -> Value {
        json!({
            "phone_number": self.phone_number,
            "friendly_name": self.phone_number,
            "iso_country": self.country,
            "region": null,
            "locality": null,
            "postal_code": null,
            "rate_center": null,
            "lata": null,
            "latitude": null,
            "longitude": null,
            "capabilities": {"mms": true, "sms": true, "voice": self.has_voice},
            "address_requirements": self.address_requirements,
            "beta": false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_that_is_offered_can_be_bought() {
        for (country, kind, area) in [
            ("US", "Local", Some(415)),
            ("US", "TollFree", None),
            ("GB", "Mobile", None),
            ("GB", "Local", None),
        ] {
            let offers = stock(country, kind, area);
            assert_eq!(offers.len(), 20, "{country} {kind}");
            assert!(offers.iter().all(|offer| is_for_sale(&offer.phone_number)), "{offers:?}");
        }
        assert!(stock("US", "Mobile", None).is_empty());
        assert!(!is_for_sale("+15551230001") && !is_for_sale("+18085559999") && !is_for_sale(""));
    }

    #[test]
    fn a_pattern_is_found_anywhere_with_wildcards_and_letters() {
        for (pattern, found) in [("808", true), ("5550", true), ("8*85", true), ("JJJ", true), ("999", false)]
        {
            assert_eq!(has_pattern("+18085550100", pattern), found, "{pattern}");
        }
        assert!(!has_pattern("+1", "808"));
    }
}
