//! Newtypes for identifiers and time, so that one is never passed for another.
//!
//! Sids are checked by shape where they enter (two letters, 32 hex digits: Twilio's published form), because they
//! become parts of store keys and paths.

use std::fmt;
use std::ops::{Add, Sub};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Milliseconds since the call's origin: the moment its voice webhook was first answered. The origin travels with the
/// call, so these values stay comparable when another pod takes the call over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ms(pub u64);

impl Ms {
    /// The call's origin.
    pub const ZERO: Self = Self(0);

    /// A span of whole seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// The span from `earlier` to `self`; zero when `earlier` is later.
    pub const fn since(self, earlier: Self) -> Self {
        Self(self.0.saturating_sub(earlier.0))
    }
}

impl Add for Ms {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sub for Ms {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        self.since(other)
    }
}

/// Which leg of a call this is: 0 for the first media stream, one more for every stream that `<Connect action>` opened
/// afterwards. What an older epoch still sends is ignored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u32);

/// Not an identifier of the expected shape.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a {kind}: expected {prefix} and 32 hexadecimal digits")]
pub struct InvalidId {
    kind: &'static str,
    prefix: &'static str,
}

macro_rules! sid {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Box<str>);

        impl $name {
            /// The identifier as Twilio writes it.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let digits = text.strip_prefix($prefix).unwrap_or_default();
                if digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit()) {
                    Ok(Self(text.into()))
                } else {
                    Err(InvalidId { kind: stringify!($name), prefix: $prefix })
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0.into()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

sid!(
    /// A Twilio account: `AC` and 32 hex digits.
    AccountSid, "AC"
);
sid!(
    /// A phone call: `CA` and 32 hex digits.
    CallSid, "CA"
);
sid!(
    /// A media stream: `MZ` and 32 hex digits.
    StreamSid, "MZ"
);

macro_rules! opaque {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// Cloning shares the text: every audio frame of the model names its reply and its item.
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The identifier as the model wrote it.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                Self::from(&*id.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

opaque!(
    /// One item of the model's conversation (a message or a tool call).
    ItemId
);
opaque!(
    /// One reply of the model: a response in Realtime's words. It may hold several items.
    ReplyId
);
opaque!(
    /// One tool call of the model; its output answers exactly this id.
    ToolCallId
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sid_has_its_prefix_and_32_hex_digits() {
        assert!("CA0123456789abcdef0123456789abcdef".parse::<CallSid>().is_ok());
        assert!("MZ0123456789abcdef0123456789abcdef".parse::<CallSid>().is_err());
        assert!("CA0123".parse::<CallSid>().is_err());
        assert!("CA0123456789abcdef0123456789abcd:f".parse::<CallSid>().is_err());
    }

    #[test]
    fn spans_do_not_wrap() {
        assert_eq!(Ms(3) - Ms(5), Ms::ZERO);
        assert_eq!(Ms(u64::MAX) + Ms(1), Ms(u64::MAX));
    }
}
