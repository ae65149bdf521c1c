//! The REST API as the product uses it (protocols: Twilio REST): accounts, numbers, calls; strict about what it takes.
//!
//! What the real API would refuse is refused with its code. A wrong password is an answer, not a violation (people mistype
//! them); an unknown path, a body that is no form, an undocumented field or an invalid value is both.

mod available;
mod calls;
mod log;
mod numbers;

pub(super) use self::log::RestLog;

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::number::RefusedField;
use super::{Account, Carrier};
use crate::faults::RestFaults;
use crate::violations::Rule;

/// Numbers or calls on a page without a `PageSize`, and at most.
const PAGE_SIZE: (usize, usize) = (50, 1000);
/// When the account was opened: before any call.
const OPENED: &str = "Thu, 30 Jul 2015 23:19:04 +0000";

pub(super) fn router(carrier: Carrier) -> Router {
    Router::new().route("/2010-04-01/{*path}", any(handle)).with_state(carrier)
}

/// A request, read.
struct Request<'a> {
    method: &'a Method,
    /// Of the body for POST, of the query otherwise.
    form: Vec<(String, String)>,
    query: String,
}

/// An error as the API answers it.
#[derive(Debug)]
struct ApiError {
    status: u16,
    code: u32,
    message: String,
}

impl ApiError {
    fn new(status: u16, code: u32, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    fn not_found(path: &str) -> Self {
        Self::new(404, 20404, format!("The requested resource {path} was not found"))
    }
}

type Answer = Result<(StatusCode, Value), ApiError>;

async fn handle(
    State(carrier): State<Carrier>,
    peer: Option<axum::Extension<ConnectInfo<SocketAddr>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let path = uri.path().to_owned();
    let fault = carrier.switches().rest_fault(method.as_str()).unwrap_or_default();
    if fault.delay_milliseconds > 0 {
        tokio::time::sleep(Duration::from_millis(fault.delay_milliseconds)).await;
    }
    let from = peer.as_deref();
    if let Some(status) = fault.status {
        carrier.rest_log().note(from, &method, &uri, &body, status);
        return faulty(status, &fault);
    }
    let answer = match authenticate(&carrier, &headers) {
        Ok(()) => dispatch(&carrier, &method, &uri, &headers, &body).await,
        Err(error) => Err(error),
    };
    let (status, json) = answer.unwrap_or_else(|error| {
        tracing::debug!(code = error.code, path, "REST request refused");
        let ApiError { status, code, message } = error;
        let more_info = format!("https://www.twilio.com/docs/errors/{code}");
        let body = json!({"code": code, "message": message, "more_info": more_info, "status": status});
        (StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST), body)
    });
    carrier.rest_log().note(from, &method, &uri, &body, status.as_u16());
    let extra = [
        ("Content-Type", "application/json;charset=utf-8"),
        ("Twilio-Request-Id", &super::ids::sid("RQ")),
        ("Twilio-Concurrent-Requests", "1"),
        ("Twilio-Request-Duration", "0.001"),
    ];
    if fault.lose_answers {
        // A body that breaks off: the connection is closed before the answer is whole.
        let broken = futures_util::stream::iter([Err::<Bytes, _>(std::io::Error::other("lost"))]);
        return (status, [("Content-Length", "1000")], Body::from_stream(broken)).into_response();
    }
    let body = if status == StatusCode::NO_CONTENT { String::new() } else { json.to_string() };
    (status, extra, body).into_response()
}

/// An answer as an overloaded API or the gateway before it gives it.
fn faulty(status: u16, fault: &RestFaults) -> Response {
    let code = match status {
        429 => 20429,
        503 => 20503,
        _ => 20500,
    };
    let error = json!({"code": code, "message": "simulated fault", "status": status,
        "more_info": format!("https://www.twilio.com/docs/errors/{code}")});
    let (content_type, body) = if fault.not_json {
        ("text/html", "<html><body><h1>Bad gateway</h1></body></html>".to_owned())
    } else {
        ("application/json;charset=utf-8", error.to_string())
    };
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, [(CONTENT_TYPE, content_type)], body).into_response();
    if let Some(seconds) = fault.retry_after_seconds {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

fn authenticate(carrier: &Carrier, headers: &HeaderMap) -> Result<(), ApiError> {
    let refused = || ApiError::new(401, 20003, "Authenticate");
    let header = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).ok_or_else(refused)?;
    let encoded = header.strip_prefix("Basic ").ok_or_else(refused)?;
    let decoded = STANDARD.decode(encoded).map_err(|_| refused())?;
    let decoded = String::from_utf8(decoded).map_err(|_| refused())?;
    let (user, password) = decoded.split_once(':').ok_or_else(refused)?;
    let account = &carrier.settings().account;
    let expected = if user == account.sid { Some(&account.auth_token) } else { account.api_keys.get(user) };
    if expected.is_some_and(|expected| expected == password) { Ok(()) } else { Err(refused()) }
}

async fn dispatch(carrier: &Carrier, method: &Method, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> Answer {
    let query = uri.query().unwrap_or_default().to_owned();
    let form =
        if *method == Method::POST { read_form(carrier, headers, body)? } else { pairs(query.as_bytes()) };
    let request = Request { method, form, query };
    let path = uri.path();
    let below = path.strip_prefix("/2010-04-01/Accounts/").and_then(|rest| rest.strip_suffix(".json"));
    let Some(below) = below else { return Err(unknown_path(carrier, path)) };
    let segments: Vec<&str> = below.split('/').collect();
    if segments[0] != carrier.settings().account.sid {
        return Err(ApiError::not_found(path));
    }
    match (&segments[1..], method.as_str()) {
        ([], "GET") => Ok((StatusCode::OK, account(carrier))),
        (["AvailablePhoneNumbers", country, kind], "GET") => {
            available::search(carrier, &request, country, kind, path)
        }
        (["IncomingPhoneNumbers"], "GET") => numbers::list(carrier, &request, path),
        (["IncomingPhoneNumbers"], "POST") => numbers::buy(carrier, &request),
        (["IncomingPhoneNumbers", sid], "DELETE") => numbers::release(carrier, sid, path),
        (["IncomingPhoneNumbers", sid], "GET" | "POST") => {
            numbers::fetch_or_update(carrier, &request, sid, path)
        }
        (["Calls"], "GET") => calls::list(carrier, &request, path),
        (["Calls"], "POST") => calls::create(carrier, &request),
        (["Calls", sid], "GET" | "POST") => calls::fetch_or_update(carrier, &request, sid, path).await,
        ([] | ["IncomingPhoneNumbers" | "AvailablePhoneNumbers" | "Calls", ..], _) => {
            carrier.violations().record(Rule::RestPath, format!("{method} {path}"));
            Err(ApiError::new(405, 20004, "Method not allowed"))
        }
        _ => Err(unknown_path(carrier, path)),
    }
}

fn unknown_path(carrier: &Carrier, path: &str) -> ApiError {
    carrier.violations().record(Rule::RestPath, path);
    ApiError::not_found(path)
}

fn account(carrier: &Carrier) -> Value {
    let Account { sid, auth_token, api_keys: _ } = &carrier.settings().account;
    let uri = format!("/2010-04-01/Accounts/{sid}");
    json!({
        "sid": sid,
        "auth_token": auth_token,
        "friendly_name": "Simulated account",
        "status": "active",
        "type": "Full",
        "owner_account_sid": sid,
        "date_created": OPENED,
        "date_updated": OPENED,
        "uri": format!("{uri}.json"),
        "subresource_uris": {
            "calls": format!("{uri}/Calls.json"),
            "incoming_phone_numbers": format!("{uri}/IncomingPhoneNumbers.json"),
        },
    })
}

fn read_form(carrier: &Carrier, headers: &HeaderMap, body: &[u8]) -> Result<Vec<(String, String)>, ApiError> {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !body.is_empty() && !content_type.starts_with("application/x-www-form-urlencoded") {
        carrier.violations().record(Rule::RestBody, format!("content type `{content_type}`"));
        return Ok(Vec::new()); // as the API does: what it cannot read is not there
    }
    Ok(pairs(body))
}

fn pairs(encoded: &[u8]) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(encoded);
    let Ok(mut url) = reqwest::Url::parse("http://form.invalid/") else { return Vec::new() };
    url.set_query(Some(&text));
    url.query_pairs().into_owned().collect()
}

impl Request<'_> {
    /// The last value of a field.
    fn value(&self, name: &str) -> Option<&str> {
        self.form.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn note_unknown(&self, carrier: &Carrier, known: &[&str]) {
        for (name, _) in &self.form {
            if !known.contains(&name.as_str()) {
                carrier.violations().record(Rule::RestField, format!("`{name}` is not a documented field"));
            }
        }
    }
}

/// Records the violation and answers 400.
fn refuse(carrier: &Carrier, refused: RefusedField) -> ApiError {
    carrier.violations().record(refused.rule, refused.message.clone());
    ApiError::new(400, refused.code, refused.message)
}

fn invalid(carrier: &Carrier, code: u32, message: &str) -> ApiError {
    refuse(carrier, RefusedField { rule: Rule::RestValue, code, message: message.to_owned() })
}

/// One page of a list in the envelope of the 2010 API.
fn page(request: &Request<'_>, path: &str, name: &str, items: Vec<Value>) -> Value {
    let number = |field: &str| request.value(field).and_then(|value| value.parse::<usize>().ok());
    let size = number("PageSize").unwrap_or(PAGE_SIZE.0).clamp(1, PAGE_SIZE.1);
    let page = number("Page").unwrap_or_default();
    let (start, total) = (page.saturating_mul(size), items.len());
    let shown: Vec<Value> = items.into_iter().skip(start).take(size).collect();
    let rest = || {
        request.form.iter().filter(|(name, _)| !matches!(name.as_str(), "Page" | "PageSize" | "PageToken"))
    };
    let link = |page: usize| {
        let mut query = reqwest::Url::parse("http://form.invalid/").ok();
        if let Some(url) = &mut query {
            let mut pairs = url.query_pairs_mut();
            pairs.extend_pairs(rest()).append_pair("PageSize", &size.to_string());
            pairs.append_pair("Page", &page.to_string());
            if page > 0 {
                pairs.append_pair("PageToken", &format!("PA{page}")); // to be followed verbatim, not made up
            }
        }
        format!("{path}?{}", query.as_ref().and_then(|url| url.query()).unwrap_or_default())
    };
    let has_next = start + shown.len() < total;
    let own = if request.query.is_empty() { path.to_owned() } else { format!("{path}?{}", request.query) };
    let mut envelope = json!({
        "page": page,
        "page_size": size,
        "start": start,
        "end": (start + shown.len()).saturating_sub(1),
        "uri": own,
        "first_page_uri": link(0),
        "next_page_uri": has_next.then(|| link(page + 1)),
        "previous_page_uri": (page > 0).then(|| link(page - 1)),
    });
    envelope[name] = Value::Array(shown);
    envelope
}
