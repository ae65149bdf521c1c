//! Twilio's identifiers as newtypes, checked by shape (two letters, 32 hexadecimal digits) because they become parts of
//! request paths.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Not an identifier of the expected shape.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a {kind}: expected {prefix} and 32 hexadecimal digits")]
pub struct InvalidSid {
    kind: &'static str,
    prefix: &'static str,
}

macro_rules! sid {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Box<str>);

        impl $name {
            /// The identifier as Twilio writes it.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidSid;
            fn from_str(text: &str) -> Result<Self, InvalidSid> {
                let digits = text.strip_prefix($prefix).unwrap_or_default();
                if digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                    Ok(Self(text.into()))
                } else {
                    Err(InvalidSid { kind: stringify!($name), prefix: $prefix })
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidSid;
            fn try_from(text: String) -> Result<Self, InvalidSid> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(sid: $name) -> Self {
                sid.0.into()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

sid!(
    /// An account: `AC` and 32 hex digits.
    AccountSid, "AC"
);
sid!(
    /// A call: `CA` and 32 hex digits.
    CallSid, "CA"
);
sid!(
    /// A phone number of the account: `PN` and 32 hex digits.
    NumberSid, "PN"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sid_that_would_leave_its_path_segment_is_refused() {
        assert!("PN0123456789abcdef0123456789ABCDEF".parse::<NumberSid>().is_ok());
        assert!("PN0123456789abcdef0123456789abcd/.".parse::<NumberSid>().is_err());
        assert_eq!(
            "CA12".parse::<CallSid>().map_err(|error| error.to_string()),
            Err("not a CallSid: expected CA and 32 hexadecimal digits".to_owned())
        );
    }
}
