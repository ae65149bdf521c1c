//! What an error of the server means: the end of the connection, a race, or a refusal that is counted.
//!
//! The vendor publishes no complete list of codes (protocol sheet 5.6): what is not known here is our own mistake
//! until shown otherwise, and never ends a call.

use super::client::TRUNCATE;
use super::wire::ErrorBody;
use crate::io::{ModelLoss, RefusalClass};

/// What to do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The connection is of no more use.
    Lost(ModelLoss),
    /// Another response is active: ask again when it is over.
    Busy,
    /// Refused; the connection lives on.
    Refused(RefusalClass),
}

pub(super) fn verdict(error: &ErrorBody<'_>) -> Verdict {
    let code = error.code.as_str().unwrap_or_default();
    let kind = error.kind.as_str().unwrap_or_default();
    match code {
        "session_expired" => Verdict::Lost(ModelLoss::Expired),
        "invalid_api_key" | "insufficient_quota" | "model_not_found" | "beta_api_shape_disabled" => {
            Verdict::Lost(ModelLoss::Rejected)
        }
        "conversation_already_has_active_response" => Verdict::Busy,
        "response_cancel_not_active" => Verdict::Refused(RefusalClass::Benign),
        _ if is_about_truncation(error) => Verdict::Refused(RefusalClass::Benign),
        "rate_limit_exceeded" => Verdict::Refused(RefusalClass::RateLimited),
        _ if kind.starts_with("rate_limit") => Verdict::Refused(RefusalClass::RateLimited),
        "server_error" => Verdict::Refused(RefusalClass::Server),
        _ if kind == "server_error" => Verdict::Refused(RefusalClass::Server),
        _ => Verdict::Refused(RefusalClass::InvalidRequest),
    }
}

/// A truncation races with the end of its item. The server names our event, or at least says what it is about.
fn is_about_truncation(error: &ErrorBody<'_>) -> bool {
    error.event_id.as_str().is_some_and(|id| id.starts_with(TRUNCATE))
        || error.message.as_str().is_some_and(|message| message.contains("is already shorter than"))
}
