//! What the model refuses, in the API's own words (protocol sheet, section 5.6), and which rule was broken by asking.

use serde_json::{Value, json};

use crate::violations::Rule;

/// A refused client event. The session stays open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: &'static str,
    pub(super) message: String,
    pub(super) param: Option<String>,
    /// `None` when a correct client can run into it by a race.
    pub(super) rule: Option<Rule>,
}

impl Refusal {
    /// A required field is absent.
    pub(super) fn missing(param: impl Into<String>) -> Self {
        let param = param.into();
        let message = format!("Missing required parameter: '{param}'.");
        Self::new("missing_required_parameter", message, Some(param))
    }

    /// A field the API does not have.
    pub(super) fn unknown(param: impl Into<String>) -> Self {
        let param = param.into();
        Self::new("unknown_parameter", format!("Unknown parameter: '{param}'."), Some(param))
    }

    /// A value the API does not take. The value itself is not repeated: it may be personal.
    pub(super) fn invalid(param: impl Into<String>, expected: &str) -> Self {
        let param = param.into();
        Self::new("invalid_value", format!("Invalid value: '{param}' must be {expected}."), Some(param))
    }

    /// Anything else.
    pub(super) fn new(code: &'static str, message: impl Into<String>, param: Option<String>) -> Self {
        Self { code, message: message.into(), param, rule: Some(Rule::ModelInvalidEvent) }
    }

    /// The same, breaking a more telling rule.
    #[must_use]
    pub(super) fn breaking(self, rule: Rule) -> Self {
        Self { rule: Some(rule), ..self }
    }

    /// The same, when a race excuses it.
    #[must_use]
    pub(super) fn excused(self) -> Self {
        Self { rule: None, ..self }
    }

    /// The `error` event, without its own id.
    pub(super) fn to_event(&self, client_event: Option<&str>) -> Value {
        json!({"type": "error", "error": {
            "type": "invalid_request_error", "code": self.code, "message": self.message, "param": self.param,
            "event_id": client_event,
        }})
    }
}
