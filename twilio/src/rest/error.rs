//! What can go wrong with a REST request, and whose fault it is.
//!
//! Twilio's error messages quote what was sent (phone numbers among it), so they are never kept: an error carries the
//! code, and [`Code::meaning`] says in our words what Twilio's dictionary says of it.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

/// A request did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The credentials are wrong, may not do this, or their account is not active.
    #[error("Twilio refused the credentials{}", described(*code))]
    Authentication {
        /// Twilio's code.
        code: Option<Code>,
    },
    /// What was named does not exist, or not in this account.
    #[error("Twilio does not know it{}", described(*code))]
    NotFound {
        /// Twilio's code.
        code: Option<Code>,
    },
    /// Too many requests at once. It was not processed, so it is always safe to send again, later.
    #[error("Twilio is asked too often")]
    RateLimited {
        /// When Twilio said so.
        retry_after: Option<Duration>,
    },
    /// Twilio understood the request and will not do it: a wrong value, or a state that does not allow it.
    #[error("Twilio refused the request with status {status}{}", described(*code))]
    InvalidParameter {
        /// HTTP status.
        status: u16,
        /// Twilio's code.
        code: Option<Code>,
    },
    /// Twilio's own trouble. A create may have been done nevertheless.
    #[error("Twilio is unavailable, status {status}")]
    Unavailable {
        /// HTTP status.
        status: u16,
        /// When Twilio said so.
        retry_after: Option<Duration>,
    },
    /// No answer arrived. A create may have been done nevertheless, unless `failure` is `Connect`.
    #[error("no answer from Twilio: {failure}")]
    Transport {
        /// How it failed.
        failure: TransportFailure,
        /// The HTTP client's error, without the URL (it may quote a phone number).
        #[source]
        source: reqwest::Error,
    },
    /// The answer is not what this API answers.
    #[error("unexpected answer from Twilio: {what}")]
    Malformed {
        /// What is wrong.
        what: &'static str,
    },
}

/// How a request failed without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportFailure {
    /// Name resolution, TCP or TLS: the request was never sent.
    Connect,
    /// The deadline passed.
    Timeout,
    /// The connection broke.
    Broken,
}

impl fmt::Display for TransportFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "could not connect",
            Self::Timeout => "not in time",
            Self::Broken => "the connection broke",
        })
    }
}

/// Who has to act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Whoever configured credentials or resources: trying again as it stands cannot help.
    User,
    /// Twilio, or the network on the way: it may heal by itself.
    Twilio,
    /// A bug of ours, or an API change.
    Us,
}

impl Error {
    /// Who has to act.
    pub const fn fault(&self) -> Fault {
        match self {
            Self::Authentication { .. } | Self::NotFound { .. } | Self::InvalidParameter { .. } => {
                Fault::User
            }
            Self::RateLimited { .. } | Self::Unavailable { .. } | Self::Transport { .. } => Fault::Twilio,
            Self::Malformed { .. } => Fault::Us,
        }
    }

    /// Twilio's code, if the answer carried one.
    pub const fn code(&self) -> Option<Code> {
        match self {
            Self::Authentication { code } | Self::NotFound { code } | Self::InvalidParameter { code, .. } => {
                *code
            }
            Self::RateLimited { .. }
            | Self::Unavailable { .. }
            | Self::Transport { .. }
            | Self::Malformed { .. } => None,
        }
    }

    /// How long Twilio asked to wait.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after } | Self::Unavailable { retry_after, .. } => *retry_after,
            Self::Authentication { .. }
            | Self::NotFound { .. }
            | Self::InvalidParameter { .. }
            | Self::Transport { .. }
            | Self::Malformed { .. } => None,
        }
    }

    /// Classifies a refusal. The body may be Twilio's JSON, RFC 9457, a gateway's HTML or nothing.
    pub(super) fn from_answer(status: u16, retry_after: Option<Duration>, body: &[u8]) -> Self {
        let code = serde_json::from_slice::<Refusal>(body).ok().and_then(|refusal| refusal.code).map(Code);
        match (status, code) {
            (429, _) | (_, Some(Code(20429))) => Self::RateLimited { retry_after },
            (401 | 403, _) | (_, Some(Code(20003 | 20005 | 20008))) => Self::Authentication { code },
            (404, _) | (_, Some(Code(20404))) => Self::NotFound { code },
            (408 | 500.., _) => Self::Unavailable { status, retry_after },
            (400..=499, _) => Self::InvalidParameter { status, code },
            _ => Self::Malformed { what: "neither a success nor an error status" },
        }
    }
}

impl From<reqwest::Error> for Error {
    fn from(error: reqwest::Error) -> Self {
        let failure = if error.is_timeout() {
            TransportFailure::Timeout
        } else if error.is_connect() {
            TransportFailure::Connect
        } else {
            TransportFailure::Broken
        };
        Self::Transport { failure, source: error.without_url() }
    }
}

/// The part of an error body that holds no personal data.
#[derive(Deserialize)]
struct Refusal {
    code: Option<u32>,
}

fn described(code: Option<Code>) -> String {
    code.map_or_else(String::new, |code| format!(": {code}"))
}

/// A code of Twilio's error dictionary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Code(pub u32);

impl Code {
    /// The call is not in a state for the action: usually it is over.
    pub const CALL_NOT_IN_STATE: Self = Self(21220);
    /// The number cannot be bought (any more).
    pub const NUMBER_NOT_AVAILABLE: Self = Self(21422);

    /// What the dictionary says, in a few words.
    pub const fn meaning(self) -> Option<&'static str> {
        Some(match self.0 {
            10004 => "too many calls at once",
            20003 => "authentication failed or permission denied",
            20004 => "method not allowed",
            20005 => "the account is not active",
            20008 => "test credentials are not allowed here",
            20404 => "not found",
            20409 => "conflict",
            20422 => "invalid parameter",
            20429 => "too many requests",
            20500 | 20503 => "internal error or unavailable",
            21201 | 21203 | 21211 | 21214 | 21215 | 21216 | 21217 => {
                "the called number is missing, invalid or not allowed"
            }
            21210 | 21212 | 21213 => "the calling number is missing, invalid or not verified",
            21205 | 21402 => "invalid URL",
            21218 => "invalid application",
            21219 | 21608 => "trial accounts reach verified numbers only",
            21220 => "the call is not in a state for this",
            21401 | 21421 => "invalid phone number",
            21403 => "invalid HTTP method",
            21404 => "not available to a trial account",
            21422 => "the number is not available",
            21451 | 21452 => "no number in this area code",
            21610 => "the recipient has unsubscribed",
            21631 => "the number needs an address",
            21649 => "the number needs a regulatory bundle",
            _ => return None,
        })
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.meaning() {
            Some(meaning) => write!(f, "{meaning} (code {})", self.0),
            None => write!(f, "code {}", self.0),
        }
    }
}
