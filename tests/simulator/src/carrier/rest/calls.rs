//! `Calls`: create, fetch, list, redirect and end.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Answer, ApiError, Request, invalid, page};
use crate::carrier::call::Source;
use crate::carrier::callback::date;
use crate::carrier::number::is_absolute_url;
use crate::carrier::record::{Command, Record, Status};
use crate::carrier::twiml::{Callback, is_e164};
use crate::carrier::{Carrier, Order};

/// Documented fields of a create; those not used change nothing here.
const CREATE_FIELDS: &[&str] = &[
    "ApplicationSid",
    "AsyncAmd",
    "AsyncAmdStatusCallback",
    "AsyncAmdStatusCallbackMethod",
    "Byoc",
    "CallReason",
    "CallToken",
    "CallerId",
    "FallbackMethod",
    "FallbackUrl",
    "From",
    "MachineDetection",
    "MachineDetectionSilenceTimeout",
    "MachineDetectionSpeechEndThreshold",
    "MachineDetectionSpeechThreshold",
    "MachineDetectionTimeout",
    "Method",
    "Record",
    "RecordingChannels",
    "RecordingStatusCallback",
    "RecordingStatusCallbackEvent",
    "RecordingStatusCallbackMethod",
    "RecordingTrack",
    "SendDigits",
    "SipAuthPassword",
    "SipAuthUsername",
    "StatusCallback",
    "StatusCallbackEvent",
    "StatusCallbackMethod",
    "TimeLimit",
    "Timeout",
    "To",
    "Trim",
    "Twiml",
    "Url",
];
const UPDATE_FIELDS: &[&str] = &[
    "FallbackMethod",
    "FallbackUrl",
    "Method",
    "Status",
    "StatusCallback",
    "StatusCallbackMethod",
    "TimeLimit",
    "Twiml",
    "Url",
];
const LIST_FIELDS: &[&str] = &[
    "From",
    "Page",
    "PageSize",
    "PageToken",
    "ParentCallSid",
    "StartTime",
    "StartTime<",
    "StartTime>",
    "Status",
    "To",
];
/// Longest `Twiml` of a request.
const MAX_TWIML: usize = 4000;

pub(super) fn create(carrier: &Carrier, request: &Request<'_>) -> Answer {
    request.note_unknown(carrier, CREATE_FIELDS);
    let required = |name: &str, code: u32| {
        request
            .value(name)
            .filter(|value| !value.is_empty())
            .ok_or_else(|| invalid(carrier, code, &format!("No '{name}'")))
    };
    let (to, from) = (required("To", 21201)?, required("From", 21213)?);
    if !is_e164(to) {
        return Err(invalid(carrier, 21211, "The 'To' number is not a valid phone number."));
    }
    if !carrier.numbers().iter().any(|number| number.phone_number == from) {
        return Err(invalid(carrier, 21210, "The 'From' number is neither owned nor verified."));
    }
    let first =
        source(carrier, request)?.ok_or_else(|| invalid(carrier, 21205, "Url or Twiml is required"))?;
    let events: Vec<String> = request
        .form
        .iter()
        .filter(|(name, _)| name == "StatusCallbackEvent")
        .map(|(_, value)| value.clone())
        .collect();
    if let Some(event) = events
        .iter()
        .find(|event| !matches!(event.as_str(), "initiated" | "ringing" | "answered" | "completed"))
    {
        return Err(invalid(carrier, 20422, &format!("StatusCallbackEvent `{event}`; the key is repeated")));
    }
    if request.value("SendDigits").is_some_and(|digits| digits.len() > 32) {
        return Err(invalid(carrier, 20422, "SendDigits is longer than 32 characters"));
    }
    let timeout: u64 = match request.value("Timeout").map(str::parse) {
        None => 60,
        Some(Ok(seconds)) if seconds <= 600 => seconds,
        Some(_) => return Err(invalid(carrier, 20422, "Timeout is not valid")),
    };
    let order = Order {
        from: from.to_owned(),
        to: to.to_owned(),
        first,
        fallback: callback(carrier, request, "FallbackUrl", "FallbackMethod")?,
        status_callback: callback(carrier, request, "StatusCallback", "StatusCallbackMethod")?,
        status_events: if events.is_empty() { vec!["completed".to_owned()] } else { events },
        ring_limit: Duration::from_secs(timeout),
    };
    let record =
        carrier.place_outbound(order).map_err(|error| ApiError::new(500, 20500, error.to_string()))?;
    Ok((StatusCode::CREATED, resource(carrier, &record)))
}

pub(super) async fn fetch_or_update(
    carrier: &Carrier,
    request: &Request<'_>,
    sid: &str,
    path: &str,
) -> Answer {
    let record = carrier.call(sid).ok_or_else(|| ApiError::not_found(path))?;
    if request.method == Method::POST {
        update(carrier, request, &record).await?;
    }
    Ok((StatusCode::OK, resource(carrier, &record)))
}

async fn update(carrier: &Carrier, request: &Request<'_>, record: &Record) -> Result<(), ApiError> {
    request.note_unknown(carrier, UPDATE_FIELDS);
    let not_live = || ApiError::new(400, 21220, "Call is not in-progress. Cannot redirect.");
    let status = record.status();
    if status.is_final() {
        return Err(not_live());
    }
    let command = match request.value("Status") {
        Some("completed") => Command::Complete,
        Some("canceled") if matches!(status, Status::Queued | Status::Ringing) => Command::Complete,
        Some("canceled") => return Err(not_live()),
        Some(_) => return Err(invalid(carrier, 20422, "Status is not valid")),
        None => match source(carrier, request)? {
            Some(_) if status != Status::InProgress => return Err(not_live()),
            Some(Source::Twiml(text)) => Command::Twiml(text),
            Some(Source::Url(callback, _)) => Command::Url(callback),
            None => return Ok(()),
        },
    };
    record.commands.send(command).await.map_err(|_| not_live())
}

pub(super) fn list(carrier: &Carrier, request: &Request<'_>, path: &str) -> Answer {
    request.note_unknown(carrier, LIST_FIELDS);
    let matches = |name: &str, value: &str| request.value(name).is_none_or(|wanted| wanted == value);
    let found: Vec<Value> = carrier
        .calls()
        .iter()
        .rev()
        .filter(|record| matches("To", &record.to) && matches("From", &record.from))
        .filter(|record| matches("Status", record.status().as_str()))
        .map(|record| resource(carrier, record))
        .collect();
    Ok((StatusCode::OK, page(request, path, "calls", found)))
}

/// `Url`, or else `Twiml`.
fn source(carrier: &Carrier, request: &Request<'_>) -> Result<Option<Source>, ApiError> {
    if let Some(callback) = callback(carrier, request, "Url", "Method")? {
        return Ok(Some(Source::Url(callback, Vec::new())));
    }
    let Some(text) = request.value("Twiml").filter(|text| !text.is_empty()) else { return Ok(None) };
    if text.chars().count() > MAX_TWIML {
        return Err(invalid(carrier, 20422, "Twiml is longer than 4000 characters"));
    }
    Ok(Some(Source::Twiml(text.to_owned())))
}

fn callback(
    carrier: &Carrier,
    request: &Request<'_>,
    url: &str,
    method: &str,
) -> Result<Option<Callback>, ApiError> {
    let is_get = match request.value(method) {
        None | Some("POST") => false,
        Some("GET") => true,
        Some(_) => return Err(invalid(carrier, 21403, &format!("{method} is not valid"))),
    };
    match request.value(url) {
        None | Some("") => Ok(None),
        Some(text) if is_absolute_url(text) => Ok(Some(Callback { url: text.to_owned(), is_get })),
        Some(_) => Err(invalid(carrier, 21205, &format!("{url} is not a valid URL"))),
    }
}

fn resource(carrier: &Carrier, record: &Record) -> Value {
    let account = &carrier.settings().account.sid;
    let times = record.times();
    let uri = format!("/2010-04-01/Accounts/{account}/Calls/{}", record.sid);
    json!({
        "sid": record.sid,
        "account_sid": account,
        "parent_call_sid": null,
        "from": record.from,
        "to": record.to,
        "from_formatted": record.from,
        "to_formatted": record.to,
        "phone_number_sid": record.phone_number_sid,
        "status": record.status().as_str(),
        "direction": record.direction.as_str(),
        "answered_by": null,
        "start_time": times.answered.map(date),
        "end_time": times.ended.map(date),
        "duration": times.seconds().map(|seconds| seconds.to_string()),
        "price": null,
        "price_unit": "USD",
        "forwarded_from": null,
        "caller_name": null,
        "group_sid": null,
        "trunk_sid": null,
        "queue_time": "0",
        "stir_verstat": null,
        "api_version": "2010-04-01",
        "date_created": date(times.placed),
        "date_updated": date(times.ended.or(times.answered).unwrap_or(times.placed)),
        "uri": format!("{uri}.json"),
        "subresource_uris": {"recordings": format!("{uri}/Recordings.json")},
    })
}
