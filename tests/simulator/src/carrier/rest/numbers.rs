//! `IncomingPhoneNumbers`.

use axum::http::{Method, StatusCode};
use serde_json::Value;

use super::{Answer, ApiError, Request, available, invalid, page, refuse};
use crate::carrier::{Carrier, Number, ids};
use crate::violations::Rule;

const LIST_FIELDS: &[&str] =
    &["PhoneNumber", "FriendlyName", "Beta", "Origin", "PageSize", "Page", "PageToken"];

/// `PhoneNumber` matches parts of numbers.
pub(super) fn list(carrier: &Carrier, request: &Request<'_>, path: &str) -> Answer {
    request.note_unknown(carrier, LIST_FIELDS);
    let part = request.value("PhoneNumber").unwrap_or_default();
    let name = request.value("FriendlyName");
    let sid = &carrier.settings().account.sid;
    let found: Vec<Value> = carrier
        .numbers()
        .iter()
        .filter(|number| number.phone_number.contains(part))
        .filter(|number| name.is_none_or(|name| number.friendly_name == name))
        .map(|number| number.json(sid))
        .collect();
    Ok((StatusCode::OK, page(request, path, "incoming_phone_numbers", found)))
}

pub(super) fn fetch_or_update(carrier: &Carrier, request: &Request<'_>, sid: &str, path: &str) -> Answer {
    let mut numbers = carrier.numbers();
    let number = numbers.iter_mut().find(|number| number.sid == sid);
    let number = number.ok_or_else(|| ApiError::not_found(path))?;
    if request.method == Method::POST {
        let unknown = number.update(&request.form).map_err(|refused| refuse(carrier, refused))?;
        for name in unknown {
            carrier.violations().record(Rule::RestField, format!("`{name}` is not a documented field"));
        }
    }
    Ok((StatusCode::OK, number.json(&carrier.settings().account.sid)))
}

/// By `PhoneNumber` or by `AreaCode`; the other fields are those of an update.
pub(super) fn buy(carrier: &Carrier, request: &Request<'_>) -> Answer {
    let phone_number = match (request.value("PhoneNumber"), request.value("AreaCode")) {
        (Some(phone_number), None) => phone_number.to_owned(),
        (None, Some(area)) => available::first_of_area(carrier, area)?,
        (Some(_), Some(_)) | (None, None) => {
            return Err(invalid(carrier, 20422, "one of PhoneNumber and AreaCode is needed"));
        }
    };
    if !is_e164(&phone_number) {
        return Err(invalid(carrier, 21421, "PhoneNumber is not a valid phone number"));
    }
    let mut numbers = carrier.numbers();
    // Sold to this account or to another: no violation, because searching and buying are two requests.
    let is_owned = numbers.iter().any(|number| number.phone_number == phone_number);
    if is_owned || !available::is_for_sale(&phone_number) {
        return Err(ApiError::new(400, 21422, "PhoneNumber is not available"));
    }
    let mut number = Number::new(&ids::sid("PN"), &phone_number);
    let fields = request.form.iter().filter(|(name, _)| !matches!(name.as_str(), "PhoneNumber" | "AreaCode"));
    let fields: Vec<_> = fields.cloned().collect();
    for name in number.update(&fields).map_err(|refused| refuse(carrier, refused))? {
        carrier.violations().record(Rule::RestField, format!("`{name}` is not a documented field"));
    }
    let json = number.json(&carrier.settings().account.sid);
    numbers.push(number);
    Ok((StatusCode::CREATED, json))
}

/// Gone for good.
pub(super) fn release(carrier: &Carrier, sid: &str, path: &str) -> Answer {
    let mut numbers = carrier.numbers();
    let index = numbers.iter().position(|number| number.sid == sid);
    numbers.remove(index.ok_or_else(|| ApiError::not_found(path))?);
    Ok((StatusCode::NO_CONTENT, Value::Null))
}

fn is_e164(text: &str) -> bool {
    text.strip_prefix('+').is_some_and(|digits| {
        (2..=15).contains(&digits.len())
            && digits.bytes().all(|b| b.is_ascii_digit())
            && !digits.starts_with('0')
    })
}
