//! `IncomingPhoneNumbers`.

use axum::http::{Method, StatusCode};
use serde_json::Value;

use super::{Answer, ApiError, Request, page, refuse};
use crate::carrier::Carrier;
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
