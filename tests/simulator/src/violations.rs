//! What the product did that the real services would not have taken: one collector, shared by both simulated sides.
//!
//! Every rule has an id, the section of the protocol fact sheet it comes from and a sentence. Recording one never stops
//! the simulation (the caller goes on, as at the real carrier), but it fails the run: `switchboard-sim` exits non-zero and
//! the control API lists it. A refused *request* that a person's wrong input explains (a wrong password) is no violation.
//!
//! ```
//! use simulator::violations::{Rule, Violations};
//! let violations = Violations::default();
//! violations.record(Rule::StreamInvalidMessage, "field `foo` is not known");
//! assert_eq!(violations.count(), 1);
//! ```

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tokio_tungstenite::tungstenite::Error as SocketError;
use tokio_tungstenite::tungstenite::error::ProtocolError;

/// Violations kept in full; the rest are only counted, so that a flood cannot exhaust the memory.
const KEPT: usize = 1000;

macro_rules! rules {
    ($($(#[doc = $doc:literal])+ $name:ident, $id:literal, $section:literal;)+) => {
        /// A rule of the protocols that the product can break.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Rule {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Rule {
            /// All of them, in the order of the sections.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// Stable name, with the carrier's own code where it has one.
            pub const fn id(self) -> &'static str {
                match self { $(Self::$name => $id,)+ }
            }

            /// Section of the protocol fact sheet.
            pub const fn section(self) -> &'static str {
                match self { $(Self::$name => $section,)+ }
            }

            /// The rule as a sentence.
            pub const fn description(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),+).trim_ascii(),)+ }
            }
        }
    };
}

rules! {
    /// The media stream must be accepted: a TCP connection could not be opened.
    StreamConnect, "twilio-31902-stream-connect", "§1.1";
    /// The media stream's upgrade must be answered with 101.
    StreamHandshake, "twilio-31920-stream-handshake", "§1.1";
    /// A stream's URL must have the scheme wss.
    StreamScheme, "twilio-31922-stream-scheme", "§1.1";
    /// A stream's URL must be well-formed.
    StreamUrl, "twilio-31923-stream-url", "§1.1";
    /// A stream's URL must not have a query string.
    StreamUrlQuery, "twilio-stream-url-query", "§1.1";
    /// A stream's URL names no port but 443.
    StreamUrlPort, "twilio-stream-url-port", "§1.1";
    /// The server must read the media stream as fast as the caller speaks.
    StreamStalled, "twilio-31930-stream-stalled", "§1.8";
    /// At most ten minutes of audio may wait to be played.
    StreamBufferOverflow, "twilio-31931-media-discarded", "§1.4";
    /// Inside Connect a stream's track can only be inbound_track.
    StreamTrack, "twilio-31941-stream-track", "§1.6";
    /// Messages to the carrier are text frames.
    StreamBinaryFrame, "twilio-31950-binary-frame", "§1.1";
    /// A message to the carrier has exactly the documented fields and a known event.
    StreamInvalidMessage, "twilio-31951-invalid-message", "§1.3";
    /// A message to the carrier names this stream's StreamSid.
    StreamWrongSid, "twilio-31951-wrong-stream-sid", "§1.3";
    /// A media payload is padded standard base64.
    StreamPayloadBase64, "twilio-31951-payload-base64", "§1.3";
    /// A media payload is raw audio without a file header.
    StreamPayloadHeader, "twilio-payload-file-header", "§1.3";
    /// The socket must follow the WebSocket protocol.
    StreamProtocol, "twilio-31924-websocket-protocol", "§1.8";
    /// A stream's name is unique in its call.
    StreamName, "twilio-stream-name", "§1.6";
    /// A Parameter's name and value together stay below 500 characters.
    StreamParameterTooLong, "twilio-parameter-too-long", "§1.6";
    /// A webhook must answer.
    WebhookUnreachable, "twilio-11205-webhook-unreachable", "§2.1";
    /// A webhook must answer within 15 seconds in total.
    WebhookTimeout, "twilio-11200-webhook-timeout", "§2.1";
    /// A webhook must answer 2xx.
    WebhookStatus, "twilio-11200-webhook-status", "§2.1";
    /// A webhook may redirect at most ten times.
    WebhookRedirects, "twilio-11215-webhook-redirects", "§2.1";
    /// TwiML has the content type text/xml, application/xml or text/html.
    WebhookContentType, "twilio-12300-content-type", "§2.1";
    /// A webhook's URL is absolute, http or https.
    WebhookUrl, "twilio-11100-webhook-url", "§2.1";
    /// TwiML is well-formed XML with the root Response.
    TwimlParse, "twilio-12100-twiml-parse", "§2.1";
    /// TwiML has only known verbs, nouns and attributes, nested and valued as documented.
    TwimlSchema, "twilio-12200-twiml-schema", "§2.3";
    /// A dialled number is E.164.
    DialNumber, "twilio-13224-dial-number", "§2.3";
    /// A dialled call's callerId is the call's own From or To, or a number of the account.
    DialCallerId, "twilio-dial-caller-id", "§2.3";
    /// A call must not go round in TwiML for ever.
    TwimlLoop, "twilio-twiml-loop", "§2.3";
    /// A pure callback is answered 2xx with an empty body.
    CallbackReply, "twilio-callback-reply", "§2.4";
    /// A REST request has a documented path and method.
    RestPath, "twilio-rest-path", "§4.1";
    /// A REST body is form-encoded.
    RestBody, "twilio-rest-body", "§4.1";
    /// A REST request has documented fields only.
    RestField, "twilio-rest-field", "§4.2";
    /// A REST field has a valid value.
    RestValue, "twilio-rest-value", "§4.6";
    /// The model connection has a bearer token, one documented query and no beta header.
    ModelConnect, "model-connect", "§5.1";
    /// The model's socket must follow the WebSocket protocol.
    ModelProtocol, "model-websocket-protocol", "§5.1";
    /// A model event is JSON in a text frame with a documented type.
    ModelUnknownEvent, "model-unknown-event", "§5.3";
    /// A model event has the documented fields with valid values.
    ModelInvalidEvent, "model-invalid-event", "§5.3";
    /// A session update names its type and has only documented fields and values.
    ModelSessionUpdate, "model-session-update", "§5.2";
    /// The voice does not change after the first audio.
    ModelVoiceChange, "model-voice-change", "§5.2";
    /// Audio is appended only after session.updated.
    ModelEarlyAudio, "model-early-audio", "§5.1";
    /// Appended audio is base64 and at most 15 MiB per event.
    ModelAppend, "model-append", "§5.3";
    /// With turn detection on, or under 100 ms of audio, the buffer is not committed.
    ModelCommit, "model-commit", "§5.3";
    /// No response is created while one is active.
    ModelActiveResponse, "model-active-response", "§5.3";
    /// An item is of a documented shape and its neighbours exist.
    ModelItem, "model-item", "§5.4";
    /// A truncation names an assistant item with audio and a place within the audio sent.
    ModelTruncate, "model-truncate", "§5.3";
    /// A tool output answers a call that was made, once.
    ModelToolOutput, "model-tool-output", "§5.4";
}

/// One broken rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Violation {
    /// The rule's stable name.
    pub rule: &'static str,
    /// Where it stands in the protocol fact sheet.
    pub section: &'static str,
    /// The rule as a sentence.
    pub description: &'static str,
    /// What happened.
    pub detail: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({}): {} {}", self.rule, self.section, self.description, self.detail)
    }
}

/// Something refused by a strict reader: which rule, and what is wrong. The reader's owner records it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The rule that is broken.
    pub rule: Rule,
    /// How; never quotes what a caller said.
    pub detail: String,
}

impl Refused {
    /// A refusal under this rule.
    pub fn new(rule: Rule, detail: impl Into<String>) -> Self {
        Self { rule, detail: detail.into() }
    }
}

/// Whether what ended the reading of a socket is the peer's breach of the WebSocket protocol, and no lost connection.
pub(crate) const fn is_breach(error: &SocketError) -> bool {
    match error {
        SocketError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => false,
        SocketError::Protocol(_) | SocketError::Utf8(_) | SocketError::Capacity(_) => true,
        _ => false, // another's enum: of the network, of TLS or of our own making
    }
}

/// The collector; clones share one list.
#[derive(Clone, Debug, Default)]
pub struct Violations {
    list: Arc<Mutex<Recorded>>,
}

#[derive(Debug, Default)]
struct Recorded {
    kept: Vec<(Rule, Violation)>,
    count: u64,
}

impl Violations {
    /// Records that a rule was broken.
    pub fn record(&self, rule: Rule, detail: impl Into<String>) {
        let violation = Violation {
            rule: rule.id(),
            section: rule.section(),
            description: rule.description(),
            detail: detail.into(),
        };
        tracing::warn!(rule = violation.rule, section = violation.section, detail = %violation.detail, "violation");
        let mut recorded = self.lock();
        recorded.count += 1;
        if recorded.kept.len() < KEPT {
            recorded.kept.push((rule, violation));
        }
    }

    /// Records a refusal.
    pub fn refuse(&self, refused: Refused) {
        self.record(refused.rule, refused.detail);
    }

    /// How many were recorded, including those not kept.
    pub fn count(&self) -> u64 {
        self.lock().count
    }

    /// Those kept, oldest first.
    pub fn list(&self) -> Vec<Violation> {
        self.lock().kept.iter().map(|(_, violation)| violation.clone()).collect()
    }

    /// The rules broken, oldest first, with repetitions.
    pub fn rules(&self) -> Vec<Rule> {
        self.lock().kept.iter().map(|(rule, _)| *rule).collect()
    }

    /// Forgets all, for a test that breaks a rule on purpose and goes on.
    pub fn clear(&self) {
        *self.lock() = Recorded::default();
    }

    fn lock(&self) -> MutexGuard<'_, Recorded> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner) // a list stays a list, whoever panicked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_has_its_own_id_a_section_and_a_sentence() {
        let ids: std::collections::BTreeSet<_> = Rule::ALL.iter().map(|rule| rule.id()).collect();
        assert_eq!(ids.len(), Rule::ALL.len());
        for rule in Rule::ALL {
            assert!(rule.section().starts_with('§'), "{rule:?}");
            assert!(rule.description().ends_with('.'), "{rule:?}");
        }
    }

    #[test]
    fn a_flood_is_counted_but_not_kept() {
        let violations = Violations::default();
        let other = violations.clone();
        for _ in 0..KEPT + 5 {
            other.record(Rule::TwimlParse, "x");
        }
        assert_eq!(violations.count(), KEPT as u64 + 5);
        assert_eq!(violations.list().len(), KEPT);
        violations.clear();
        assert_eq!((other.count(), other.list()), (0, vec![]));
    }
}
