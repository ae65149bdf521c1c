//! `X-Twilio-Signature`: what Twilio signs, and whether a request carries it.
//!
//! Follows Twilio's "Webhooks security" page and its helper libraries: HMAC-SHA1 under the account's auth token over the
//! public URL, exactly as Twilio requested it, then every form parameter by name. The URL comes from configuration, never
//! from the `Host` header. Comparison is in constant time and takes the same path for every key and candidate.
//!
//! Where Twilio's own components disagree (whether a port stands in the signed URL, whether the signed URL of a WebSocket
//! upgrade ends in a slash) each published variant is accepted.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::Secret;

/// The header that carries the signature, in lower case.
pub const SIGNATURE_HEADER: &str = "x-twilio-signature";

/// The request was not signed by a holder of any of the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not match the request")]
pub struct SignatureMismatch;

/// Verifies requests against one or, during a rotation, several auth tokens of an account. Without a token it refuses
/// everything.
#[derive(Clone)]
pub struct Validator {
    auth_tokens: Vec<Secret>,
}

impl Validator {
    /// A validator for these auth tokens. API key secrets do not sign webhooks.
    pub fn new(auth_tokens: impl IntoIterator<Item = Secret>) -> Self {
        Self { auth_tokens: auth_tokens.into_iter().filter(|token| !token.expose().is_empty()).collect() }
    }

    /// A form POST (all decoded parameters, unknown ones too) or a GET (no parameters, its query in `url`).
    pub fn verify(
        &self,
        url: &str,
        parameters: &[(String, String)],
        signature: &str,
    ) -> Result<(), SignatureMismatch> {
        self.verify_any(&port_variants(url), parameters, signature)
    }

    /// A request whose body is not a form: the URL carries the body's hash as `bodySHA256`, and the signature covers the
    /// URL.
    pub fn verify_body(&self, url: &str, body: &[u8], signature: &str) -> Result<(), SignatureMismatch> {
        let hash = hex::encode(Sha256::digest(body));
        let claimed = query_parameter(url, "bodySHA256").ok_or(SignatureMismatch)?;
        let is_same_body = claimed.as_bytes().ct_eq(hash.as_bytes());
        self.verify(url, &[], signature)?;
        if bool::from(is_same_body) { Ok(()) } else { Err(SignatureMismatch) }
    }

    /// The upgrade request of a media stream; `url` is the `wss://` URL handed out in `<Stream>`.
    pub fn verify_upgrade(&self, url: &str, signature: &str) -> Result<(), SignatureMismatch> {
        self.verify_any(&upgrade_variants(url), &[], signature)
    }

    fn verify_any(
        &self,
        urls: &[String],
        parameters: &[(String, String)],
        signature: &str,
    ) -> Result<(), SignatureMismatch> {
        let mut matches = Choice::from(0);
        for token in &self.auth_tokens {
            for url in urls {
                matches |= sign(token, url, parameters).as_bytes().ct_eq(signature.as_bytes());
            }
        }
        if bool::from(matches) { Ok(()) } else { Err(SignatureMismatch) }
    }
}

/// The signature Twilio sends for a request to `url` with these decoded form parameters.
pub fn sign(auth_token: &Secret, url: &str, parameters: &[(String, String)]) -> String {
    let mut mac =
        Hmac::<Sha1>::new_from_slice(auth_token.expose().as_bytes()).expect("HMAC takes keys of any length");
    mac.update(signed_text(url, parameters).as_bytes());
    STANDARD.encode(mac.finalize().into_bytes())
}

/// Decodes an `application/x-www-form-urlencoded` body into its parameters, in their order. It cannot fail: bytes that
/// are no UTF-8 become replacement characters, and then the signature does not match.
pub fn parse_form(body: &[u8]) -> Vec<(String, String)> {
    form_urlencoded::parse(body).into_owned().collect()
}

/// URL, then each name with each of its distinct values, both in byte order.
fn signed_text(url: &str, parameters: &[(String, String)]) -> String {
    let mut by_name: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (name, value) in parameters {
        by_name.entry(name).or_default().insert(value);
    }
    let mut text = strip_unsigned(url);
    for (name, values) in by_name {
        for value in values {
            text.push_str(name);
            text.push_str(value);
        }
    }
    text
}

/// Neither user info nor a fragment is signed.
fn strip_unsigned(url: &str) -> String {
    let url = url.split_once('#').map_or(url, |(before, _)| before);
    let Some(parts) = Parts::split(url) else { return url.to_owned() };
    let host_and_port = parts.authority.rsplit_once('@').map_or(parts.authority, |(_, host)| host);
    format!("{}://{host_and_port}{}", parts.scheme, parts.rest)
}

/// The URL as given, and without its port or with its scheme's default one: voice requests drop the port, messaging ones
/// keep it, and the helper libraries accept both.
fn port_variants(url: &str) -> Vec<String> {
    let mut variants = vec![url.to_owned()];
    let Some(Parts { scheme, authority, rest }) = Parts::split(url) else { return variants };
    match split_port(authority) {
        Some(host) => variants.push(format!("{scheme}://{host}{rest}")),
        // The helper libraries add :80 to everything that is not https, `wss` included; :443 is what it should be.
        None if scheme == "https" => variants.push(format!("{scheme}://{authority}:443{rest}")),
        None if scheme == "wss" => {
            variants.push(format!("{scheme}://{authority}:443{rest}"));
            variants.push(format!("{scheme}://{authority}:80{rest}"));
        }
        None => variants.push(format!("{scheme}://{authority}:80{rest}")),
    }
    variants
}

/// The port variants, each also with a slash at its end: Twilio documents to try that when a handshake does not verify.
fn upgrade_variants(url: &str) -> Vec<String> {
    let mut variants = port_variants(url);
    if !url.ends_with('/') {
        variants.extend(variants.clone().into_iter().map(|variant| variant + "/"));
    }
    variants
}

struct Parts<'a> {
    scheme: &'a str,
    authority: &'a str,
    /// From the path's slash, query included.
    rest: &'a str,
}

impl<'a> Parts<'a> {
    fn split(url: &'a str) -> Option<Self> {
        let (scheme, after) = url.split_once("://")?;
        let end = after.find(['/', '?', '#']).unwrap_or(after.len());
        let (authority, rest) = after.split_at(end);
        Some(Self { scheme, authority, rest })
    }
}

/// The authority before its port, if it has one. An IPv6 address keeps its colons.
fn split_port(authority: &str) -> Option<&str> {
    let (host, port) = authority.rsplit_once(':')?;
    let is_port = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    is_port.then_some(host)
}

fn query_parameter<'a>(url: &'a str, name: &str) -> Option<std::borrow::Cow<'a, str>> {
    let (_, query) = url.split_once('?')?;
    form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value)
}

#[cfg(test)]
mod tests;
