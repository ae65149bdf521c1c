//! The stream token: what any pod can check about a media stream without asking anybody.
//!
//! Follows docs/design.md, "Stream token": `v1.<key id>.<payload>.<mac>`, HMAC-SHA256 under a key of the gateway's
//! keyring. The mac is checked first, in constant time; nothing of the payload is looked at before. Single use is not
//! decided here: the store's epoch fences it.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use call_session::agent_file::Keyring;
use call_session::{AccountSid, CallSid, Epoch};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use crate::clock::UnixMs;
use crate::store::AgentKey;

/// How long a token is good for: the carrier opens the stream within seconds of the TwiML that carries it.
pub const LIFETIME: Duration = Duration::from_secs(60);

/// Twilio allows 500 characters for name and value of a `<Parameter>`; nothing longer was ever ours.
const LONGEST_TOKEN: usize = 500;

/// 256 bits, as the keyring says.
const KEY_BYTES: usize = 32;

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The account the call belongs to.
    #[serde(rename = "acc")]
    pub account: AccountSid,
    /// The call.
    pub call: CallSid,
    /// The agent's namespace.
    #[serde(rename = "ns")]
    pub namespace: String,
    /// The agent's name.
    #[serde(rename = "agent")]
    pub agent: String,
    /// Which leg of the call the stream is.
    pub epoch: Epoch,
    /// Good until this second.
    #[serde(rename = "exp")]
    pub expires: u64,
    /// When the call began.
    #[serde(rename = "org")]
    pub origin: UnixMs,
    /// Whether no pod had taken a stream of the call when the token was made, though this is not the first one.
    #[serde(rename = "new", default, skip_serializing_if = "std::ops::Not::not")]
    pub is_untaken: bool,
}

impl Claims {
    /// Whether no stream before this one became a leg, as far as the token tells.
    pub fn is_first(&self) -> bool {
        self.epoch == Epoch(0) || self.is_untaken
    }
}

/// What a stream's own `start` says, and who is asked: a token must agree with it.
#[derive(Clone, Copy, Debug)]
pub struct Bearer<'a> {
    /// `start.accountSid`.
    pub account: &'a AccountSid,
    /// `start.callSid`.
    pub call: &'a CallSid,
    /// The agent this pod serves.
    pub agent: &'a AgentKey,
}

/// Why a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It has not the shape of a token.
    #[error("not a stream token")]
    Malformed,
    /// It is signed by a key that is not in the keyring (any more).
    #[error("signed by an unknown key")]
    UnknownKey,
    /// The mac is wrong.
    #[error("the mac does not match")]
    Forged,
    /// It was made for another account, call or agent.
    #[error("made for another call")]
    Foreign,
    /// It is past its time.
    #[error("expired")]
    Expired,
}

/// A keyring cannot be used. Key material is not quoted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    /// A key is not base64 of 32 bytes.
    #[error("the key {id} is not base64 of {KEY_BYTES} bytes")]
    Key {
        /// Which.
        id: String,
    },
    /// An id holds characters that could not stand in a token.
    #[error("a key id must be 1 to 32 letters, digits, - or _")]
    Id,
    /// The signing key is not among the keys.
    #[error("the signing key is not in the keyring")]
    Signing,
}

/// A parsed keyring. No `Debug`: it holds keys.
#[derive(Clone)]
pub struct StreamKeys {
    signing: String,
    keys: BTreeMap<String, [u8; KEY_BYTES]>,
}

impl StreamKeys {
    /// Parses the mounted document.
    ///
    /// # Errors
    /// [`KeyringError`] for the first key that cannot be used.
    pub fn new(keyring: &Keyring) -> Result<Self, KeyringError> {
        let mut keys = BTreeMap::new();
        for (id, encoded) in &keyring.keys {
            let fits = (1..=32).contains(&id.len())
                && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
            if !fits {
                return Err(KeyringError::Id);
            }
            let key = STANDARD.decode(encoded.expose().trim()).ok().and_then(|bytes| bytes.try_into().ok());
            keys.insert(id.clone(), key.ok_or_else(|| KeyringError::Key { id: id.clone() })?);
        }
        if !keys.contains_key(&keyring.signing) {
            return Err(KeyringError::Signing);
        }
        Ok(Self { signing: keyring.signing.clone(), keys })
    }

    /// A token that says `claims`, signed by the signing key.
    pub fn mint(&self, claims: &Claims) -> String {
        let payload = serde_json::to_vec(claims).expect("strings and numbers always serialise");
        let signed = format!("v1.{}.{}", self.signing, URL_SAFE_NO_PAD.encode(payload));
        let key = self.keys.get(&self.signing).expect("new() refuses a keyring without its signing key");
        let mac = URL_SAFE_NO_PAD.encode(mac(key, &signed));
        format!("{signed}.{mac}")
    }

    /// What a token says, if it is ours, for this stream and in time.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn verify(&self, token: &str, bearer: &Bearer<'_>, now: UnixMs) -> Result<Claims, TokenError> {
        if token.len() > LONGEST_TOKEN {
            return Err(TokenError::Malformed);
        }
        let (signed, claimed_mac) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, payload) = signed.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let id = header.strip_prefix("v1.").ok_or(TokenError::Malformed)?;
        let key = self.keys.get(id).ok_or(TokenError::UnknownKey)?;
        let claimed_mac = URL_SAFE_NO_PAD.decode(claimed_mac).map_err(|_| TokenError::Malformed)?;
        if !bool::from(mac(key, signed).as_slice().ct_eq(&claimed_mac)) {
            return Err(TokenError::Forged);
        }
        let payload = URL_SAFE_NO_PAD.decode(payload).map_err(|_| TokenError::Malformed)?;
        let claims: Claims = serde_json::from_slice(&payload).map_err(|_| TokenError::Malformed)?;
        let is_same = claims.account == *bearer.account
            && claims.call == *bearer.call
            && claims.namespace == bearer.agent.namespace
            && claims.agent == bearer.agent.name;
        if !is_same {
            return Err(TokenError::Foreign);
        }
        if now.seconds() >= claims.expires {
            return Err(TokenError::Expired);
        }
        Ok(claims)
    }
}

fn mac(key: &[u8; KEY_BYTES], signed: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(signed.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

#[cfg(test)]
pub(crate) mod tests {
    use call_session::Redacted;

    use super::*;

    const NOW: UnixMs = UnixMs(1_790_000_000_500);

    pub(crate) fn keyring(signing: &str, keys: &[(&str, u8)]) -> Keyring {
        let keys = keys
            .iter()
            .map(|(id, byte)| ((*id).to_owned(), Redacted::new(STANDARD.encode([*byte; KEY_BYTES]))))
            .collect();
        Keyring { signing: signing.to_owned(), keys }
    }

    fn keys(signing: &str, keys: &[(&str, u8)]) -> StreamKeys {
        StreamKeys::new(&keyring(signing, keys)).unwrap()
    }

    fn agent() -> AgentKey {
        AgentKey { namespace: "moving".to_owned(), name: "sales".to_owned() }
    }

    fn account(last: char) -> AccountSid {
        format!("AC0123456789abcdef0123456789abcde{last}").parse().unwrap()
    }

    fn call(last: char) -> CallSid {
        format!("CA0123456789abcdef0123456789abcde{last}").parse().unwrap()
    }

    fn claims() -> Claims {
        Claims {
            account: account('1'),
            call: call('1'),
            namespace: "moving".to_owned(),
            agent: "sales".to_owned(),
            epoch: Epoch(2),
            expires: NOW.plus(LIFETIME).seconds(),
            origin: UnixMs(1_789_999_990_000),
            is_untaken: false,
        }
    }

    fn verify(keys: &StreamKeys, token: &str, now: UnixMs) -> Result<Claims, TokenError> {
        keys.verify(token, &Bearer { account: &account('1'), call: &call('1'), agent: &agent() }, now)
    }

    #[test]
    fn a_token_has_the_published_form_and_says_what_was_put_in() {
        let keys = keys("k7", &[("k6", 6), ("k7", 7)]);
        let token = keys.mint(&claims());
        let payload = concat!(
            r#"{"acc":"AC0123456789abcdef0123456789abcde1","call":"CA0123456789abcdef0123456789abcde1","#,
            r#""ns":"moving","agent":"sales","epoch":2,"exp":1790000060,"org":1789999990000}"#
        );
        assert!(token.starts_with(&format!("v1.k7.{}.", URL_SAFE_NO_PAD.encode(payload))));
        assert_eq!(verify(&keys, &token, NOW), Ok(claims()));
    }

    #[test]
    fn a_token_tells_that_no_stream_of_the_call_was_taken_before() {
        let keys = keys("k7", &[("k7", 7)]);
        let untaken = Claims { is_untaken: true, ..claims() };
        assert_eq!(verify(&keys, &keys.mint(&untaken), NOW), Ok(untaken.clone()));
        let published = |claims| serde_json::to_string(claims).unwrap();
        assert_eq!(published(&untaken), published(&claims()).replace('}', r#","new":true}"#));
        let first = Claims { epoch: Epoch(0), ..claims() };
        assert!(untaken.is_first() && first.is_first() && !claims().is_first());
    }

    #[test]
    fn a_token_of_the_longest_names_fits_a_parameter() {
        let keys = keys(&"k".repeat(32), &[(&"k".repeat(32), 1)]);
        let longest =
            Claims { namespace: "n".repeat(63), agent: "a".repeat(40), epoch: Epoch(9999), ..claims() };
        let longest = Claims { is_untaken: true, ..longest };
        assert!(keys.mint(&longest).len() + "token".len() < 500);
    }

    #[test]
    fn a_token_is_good_until_its_last_second() {
        let keys = keys("k7", &[("k7", 7)]);
        let token = keys.mint(&claims());
        assert!(verify(&keys, &token, UnixMs(1_790_000_059_999)).is_ok());
        assert_eq!(verify(&keys, &token, UnixMs(1_790_000_060_000)), Err(TokenError::Expired));
    }

    #[test]
    fn a_token_of_a_retired_key_verifies_while_the_key_is_published() {
        let token = keys("k6", &[("k6", 6)]).mint(&claims());
        assert_eq!(verify(&keys("k7", &[("k6", 6), ("k7", 7)]), &token, NOW), Ok(claims()));
        assert_eq!(verify(&keys("k7", &[("k7", 7)]), &token, NOW), Err(TokenError::UnknownKey));
        assert_eq!(verify(&keys("k6", &[("k6", 9)]), &token, NOW), Err(TokenError::Forged));
    }

    #[test]
    fn a_token_for_another_account_call_or_agent_is_foreign() {
        let keys = keys("k7", &[("k7", 7)]);
        let foreign = [
            Claims { account: account('2'), ..claims() },
            Claims { call: call('2'), ..claims() },
            Claims { namespace: "other".to_owned(), ..claims() },
            Claims { agent: "support".to_owned(), ..claims() },
        ];
        for claims in foreign {
            assert_eq!(verify(&keys, &keys.mint(&claims), NOW), Err(TokenError::Foreign));
        }
    }

    #[test]
    fn every_changed_character_is_noticed() {
        let keys = keys("k7", &[("k7", 7)]);
        let token = keys.mint(&claims());
        for position in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[position] = if changed[position] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(verify(&keys, &changed, NOW).is_err(), "position {position}");
        }
        for end in 0..token.len() {
            assert!(verify(&keys, &token[..end], NOW).is_err(), "length {end}");
        }
    }

    #[test]
    fn what_is_no_token_is_malformed_without_a_panic() {
        let keys = keys("k7", &[("k7", 7)]);
        let long = "v1.k7.".to_owned() + &"A".repeat(1000);
        for text in ["", ".", "..", "...", "v1...", "v2.k7.e30.e30", "v1.k7.é.é", long.as_str()] {
            assert!(
                matches!(verify(&keys, text, NOW), Err(TokenError::Malformed | TokenError::UnknownKey)),
                "{text}"
            );
        }
    }

    #[test]
    fn a_keyring_that_cannot_be_used_says_which_key() {
        let error = |keyring: &Keyring| StreamKeys::new(keyring).err().unwrap();
        let mut short = keyring("k7", &[("k7", 7)]);
        short.keys.insert("k8".to_owned(), Redacted::new("c2hvcnQ=".to_owned()));
        assert_eq!(error(&short), KeyringError::Key { id: "k8".to_owned() });
        assert_eq!(error(&keyring("k7", &[("k6", 6)])), KeyringError::Signing);
        assert_eq!(error(&keyring("k.7", &[("k.7", 7)])), KeyringError::Id);
    }
}
