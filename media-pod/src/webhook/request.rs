//! A webhook request: is it the carrier's, and what does it say. Nothing is believed before the signature was checked.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use call_session::agent_file::{AgentFile, Carrier, TwilioCarrier};
use call_session::{AccountSid, CallSid, Ms, Redacted};
use serde_json::json;
use twilio::rest::CallStatus;
use twilio::signature::{SIGNATURE_HEADER, Validator, parse_form};

use super::WebhookState;
use crate::metrics::WebhookRefusal;

/// The carrier's forms have about 2 kB; SIP headers and the like may add to it.
const LARGEST_BODY: usize = 64 * 1024;

/// The carrier sends a form with its head, in a packet or two; a few retransmissions fit in. Whoever needs longer keeps a
/// place at the door from others, and nothing is known of who it is before the form is there.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// A request that was signed by the carrier for the agent it names.
pub(super) struct Verified {
    pub(super) agent: Arc<AgentFile>,
    pub(super) form: CallForm,
    /// Of the URL, signed with it.
    pub(super) query: Option<String>,
}

/// What the webhooks read of a form.
pub(super) struct CallForm {
    pub(super) call: CallSid,
    pub(super) from: Redacted<String>,
    pub(super) to: Redacted<String>,
    pub(super) status: CallStatus,
    /// How a transfer ended.
    pub(super) dial_status: Option<String>,
    /// How long the call was, once it is over.
    pub(super) duration: Option<Ms>,
}

/// Why a request is not answered. None of them leaves a trace in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("this pod serves another agent")]
    UnknownAgent,
    #[error("expected a form (application/x-www-form-urlencoded)")]
    MediaType,
    #[error("the body is larger than {LARGEST_BODY} bytes, or ended early")]
    Body,
    #[error("the body did not come within {} s", BODY_TIMEOUT.as_secs())]
    Late,
    #[error("the signature is missing or does not match the public URL and the form")]
    Signature,
    #[error("missing or malformed: {what}")]
    Malformed { what: &'static str },
    #[error("the request is for another account")]
    Account,
    #[error("the keyring cannot be used")]
    Keyring,
    #[error("the store did not answer")]
    Store,
}

impl Refusal {
    pub(super) const fn label(self) -> WebhookRefusal {
        match self {
            Self::UnknownAgent => WebhookRefusal::UnknownAgent,
            Self::MediaType | Self::Body | Self::Malformed { .. } | Self::Account => {
                WebhookRefusal::Malformed
            }
            Self::Late => WebhookRefusal::BodyTimeout,
            Self::Signature => WebhookRefusal::Signature,
            Self::Store => WebhookRefusal::Store,
            Self::Keyring => WebhookRefusal::Keyring,
        }
    }

    const fn status(self) -> (StatusCode, &'static str) {
        match self {
            Self::UnknownAgent => (StatusCode::NOT_FOUND, "unknown_agent"),
            Self::MediaType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type"),
            Self::Body => (StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large"),
            Self::Late => (StatusCode::REQUEST_TIMEOUT, "request_timeout"),
            Self::Signature => (StatusCode::FORBIDDEN, "signature"),
            Self::Malformed { .. } => (StatusCode::BAD_REQUEST, "malformed"),
            Self::Account => (StatusCode::FORBIDDEN, "account"),
            Self::Keyring => (StatusCode::SERVICE_UNAVAILABLE, "keyring"),
            Self::Store => (StatusCode::SERVICE_UNAVAILABLE, "store"),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, kind) = self.status();
        let body = axum::Json(json!({"error": {"type": kind, "message": self.to_string()}}));
        let mut response = (status, body).into_response();
        if self == Self::Late {
            // What is left of the body may still come, and is no next request (RFC 9110, 15.5.9).
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// Verifies a request to `…/twilio/<path>`.
///
/// # Errors
/// [`Refusal`], the first that applies: agent, media type, body, signature, form, account.
pub(super) async fn verify(
    state: &WebhookState,
    namespace: &str,
    name: &str,
    path: &str,
    request: Request,
) -> Result<Verified, Refusal> {
    let agent = state.agent.borrow().clone();
    if agent.namespace != namespace || agent.name != name {
        return Err(Refusal::UnknownAgent);
    }
    let (parts, body) = request.into_parts();
    if !is_form(&parts.headers) {
        return Err(Refusal::MediaType);
    }
    let body = read(body).await?;
    let parameters = parse_form(&body);
    let mut url = format!("{}/{namespace}/{name}/twilio/{path}", agent.public_url);
    if let Some(query) = parts.uri.query() {
        url.push('?');
        url.push_str(query);
    }
    let Carrier::Twilio { twilio } = &agent.carrier;
    let signature = parts.headers.get(SIGNATURE_HEADER).and_then(|value| value.to_str().ok());
    validator(state, twilio)
        .verify(&url, &parameters, signature.unwrap_or_default())
        .map_err(|_| Refusal::Signature)?;
    let form = parse_call_form(&parameters, &twilio.account_sid)?;
    Ok(Verified { agent, form, query: parts.uri.query().map(ToOwned::to_owned) })
}

/// The whole body, within its bounds of size and time.
async fn read(body: Body) -> Result<Bytes, Refusal> {
    let read = axum::body::to_bytes(body, LARGEST_BODY);
    tokio::time::timeout(BODY_TIMEOUT, read).await.map_err(|_| Refusal::Late)?.map_err(|_| Refusal::Body)
}

/// A token that cannot be read verifies nothing; the other one of a rotation still does.
fn validator(state: &WebhookState, carrier: &TwilioCarrier) -> Validator {
    let read = |reference| match state.secrets.read(reference) {
        Ok(token) => Some(token),
        Err(error) => {
            tracing::error!(%error, "an auth token cannot be read");
            None
        }
    };
    Validator::new(carrier.auth_tokens.iter().filter_map(read))
}

fn is_form(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

fn parse_call_form(parameters: &[(String, String)], account: &AccountSid) -> Result<CallForm, Refusal> {
    let value = |name: &str| {
        let found = parameters.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    };
    let claimed: AccountSid = value("AccountSid")
        .and_then(|sid| sid.parse().ok())
        .ok_or(Refusal::Malformed { what: "AccountSid" })?;
    if claimed != *account {
        return Err(Refusal::Account);
    }
    let call =
        value("CallSid").and_then(|sid| sid.parse().ok()).ok_or(Refusal::Malformed { what: "CallSid" })?;
    let status = value("CallStatus").ok_or(Refusal::Malformed { what: "CallStatus" })?;
    let seconds = value("CallDuration").and_then(|seconds| seconds.parse().ok());
    Ok(CallForm {
        call,
        from: Redacted::new(value("From").unwrap_or_default().to_owned()),
        to: Redacted::new(value("To").unwrap_or_default().to_owned()),
        status: CallStatus::parse(status),
        dial_status: value("DialCallStatus").map(ToOwned::to_owned),
        duration: seconds.map(Ms::from_secs),
    })
}
