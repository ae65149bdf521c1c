//! The REST API `2010-04-01`: one account, its numbers, calls and messages.
//!
//! One request per method, one answer or one [`Error`]. Nothing is retried here: creating a call or buying a number has
//! no idempotency key, so only the caller knows whether to look before trying again. Every request has a deadline, every
//! answer a largest size; redirects are not followed, so credentials go nowhere but to the configured host.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use twilio::Secret;
//! use twilio::rest::{Client, Credentials, Transport};
//!
//! let transport = Transport::new(None)?;
//! let account = "AC00000000000000000000000000000000".parse()?;
//! let client = Client::new(transport, "https://api.twilio.com", account, Credentials::AuthToken(Secret::new("…")));
//! let number = client.find_number("+15551112222").await?;
//! # Ok(()) }
//! ```

mod calls;
mod error;
mod messages;
mod numbers;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Method, RequestBuilder, StatusCode};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::{AccountSid, Secret};

pub use calls::{Call, CallInstructions, CallStatus, CreateCall, HangUp};
pub use error::{Code, Error, Fault, TransportFailure};
pub use messages::{CreateMessage, Message};
pub use numbers::{
    AvailableNumber, Capabilities, CountryCode, IncomingPhoneNumber, InvalidCountryCode, NumberKind,
    NumberSearch, NumberUpdate, VoiceConfiguration,
};

/// Twilio answers most requests within a second and gives up on its own side after 15 s or so; longer helps nobody.
const REQUEST_DEADLINE: Duration = Duration::from_secs(15);
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// A full page (1000 numbers of about 1.5 kB) fits; anything larger is not an answer of this API.
const LARGEST_ANSWER: usize = 4 * 1024 * 1024;
/// At 50 numbers a page this is more than any account's filtered list; a page that names itself as the next ends here.
const MOST_PAGES: usize = 200;

/// The connection pool, shared by the clients of all accounts.
#[derive(Clone, Debug)]
pub struct Transport {
    http: reqwest::Client,
}

/// A [`Transport`] could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The extra CA file is not PEM, or holds no certificate.
    #[error("the extra CA certificates are not PEM certificates")]
    ExtraCertificates,
    /// The TLS or HTTP stack refused its settings.
    #[error("the HTTP client could not be set up")]
    Setup(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Transport {
    /// Trusts Mozilla's roots and the certificates of `extra_ca_pem`.
    pub fn new(extra_ca_pem: Option<&[u8]>) -> Result<Self, TransportError> {
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls_config(extra_ca_pem)?)
            .redirect(reqwest::redirect::Policy::none())
            .timeout(REQUEST_DEADLINE)
            .connect_timeout(CONNECT_DEADLINE)
            .user_agent(concat!("switchboard/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| TransportError::Setup(error.into()))?;
        Ok(Self { http })
    }
}

fn tls_config(extra_ca_pem: Option<&[u8]>) -> Result<ClientConfig, TransportError> {
    let mut roots = RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    if let Some(pem) = extra_ca_pem {
        let certificates = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| TransportError::ExtraCertificates)?;
        if certificates.is_empty() {
            return Err(TransportError::ExtraCertificates);
        }
        for certificate in certificates {
            roots.add(certificate).map_err(|_| TransportError::ExtraCertificates)?;
        }
    }
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| TransportError::Setup(error.into()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

/// How the client proves who it is. No `Debug`: it holds secrets.
#[derive(Clone)]
pub enum Credentials {
    /// The account's auth token.
    AuthToken(Secret),
    /// An API key. It cannot verify webhook signatures.
    ApiKey {
        /// `SK…`
        sid: String,
        /// Its secret.
        secret: Secret,
    },
}

/// One account's REST client. Cheap to clone. No `Debug`: it holds credentials.
#[derive(Clone)]
pub struct Client {
    transport: Transport,
    base_url: Arc<str>,
    account: AccountSid,
    credentials: Credentials,
}

impl Client {
    /// A client of `account` at `base_url` (scheme and host, `https://api.twilio.com` in the real world).
    pub fn new(transport: Transport, base_url: &str, account: AccountSid, credentials: Credentials) -> Self {
        Self { transport, base_url: base_url.trim_end_matches('/').into(), account, credentials }
    }

    /// The account itself: the cheapest request that proves the credentials.
    pub async fn fetch_account(&self) -> Result<Account, Error> {
        let path = format!("/2010-04-01/Accounts/{}.json", self.account);
        self.ask(self.request(Method::GET, &path)).await
    }

    /// A path below the account.
    fn path(&self, resource: &str) -> String {
        format!("/2010-04-01/Accounts/{}/{resource}", self.account)
    }

    fn request(&self, method: Method, path_and_query: &str) -> RequestBuilder {
        let (user, password) = match &self.credentials {
            Credentials::AuthToken(token) => (self.account.as_str(), token),
            Credentials::ApiKey { sid, secret } => (sid.as_str(), secret),
        };
        self.transport
            .http
            .request(method, format!("{}{path_and_query}", self.base_url))
            .basic_auth(user, Some(password.expose()))
    }

    fn post(&self, resource: &str, form: &Form) -> RequestBuilder {
        self.request(Method::POST, &self.path(resource)).form(&form.0)
    }

    /// Sends, and reads a typed answer.
    async fn ask<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Error> {
        let body = self.send(request).await?;
        serde_json::from_slice(&body)
            .map_err(|_| Error::Malformed { what: "the answer is not the expected JSON" })
    }

    /// Sends, and reads the body of a success.
    async fn send(&self, request: RequestBuilder) -> Result<Vec<u8>, Error> {
        let mut response = request.send().await?;
        let status = response.status();
        let retry_after = retry_after(&response);
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if body.len() + chunk.len() > LARGEST_ANSWER {
                return Err(Error::Malformed { what: "the answer is too large" });
            }
            body.extend_from_slice(&chunk);
        }
        if status.is_success() {
            Ok(body)
        } else {
            Err(Error::from_answer(status.as_u16(), retry_after, &body))
        }
    }

    /// Reads every page of a list. `next_page_uri` is relative to the host and followed as it stands.
    async fn list<P: Page>(&self, first: String) -> Result<Vec<P::Item>, Error> {
        let mut items = Vec::new();
        let mut next = Some(first);
        for _ in 0..MOST_PAGES {
            let Some(uri) = next else { return Ok(items) };
            if !uri.starts_with('/') {
                return Err(Error::Malformed { what: "next_page_uri is not relative to the host" });
            }
            let page: P = self.ask(self.request(Method::GET, &uri)).await?;
            let (found, following) = page.into_parts();
            items.extend(found);
            next = following.filter(|uri| !uri.is_empty());
        }
        match next {
            None => Ok(items),
            Some(_) => Err(Error::Malformed { what: "the list does not end" }),
        }
    }
}

/// One page of a list.
trait Page: DeserializeOwned {
    type Item;
    /// Its items, and where the next page is.
    fn into_parts(self) -> (Vec<Self::Item>, Option<String>);
}

/// An account as its own REST resource tells it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Account {
    /// Its identifier.
    pub sid: AccountSid,
    /// `active`, `suspended` or `closed`.
    pub status: AccountStatus,
}

/// Whether an account may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccountStatus {
    /// In use.
    Active,
    /// Twilio or the owner suspended it.
    Suspended,
    /// Gone for good.
    Closed,
    /// A status newer than this build.
    #[serde(other)]
    Unknown,
}

/// The fields of a form, in order; absent ones are not sent and so not changed.
#[derive(Default)]
struct Form(Vec<(&'static str, String)>);

impl Form {
    fn set(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.0.push((name, value.into()));
        self
    }

    fn set_some(mut self, name: &'static str, value: Option<&str>) -> Self {
        if let Some(value) = value {
            self.0.push((name, value.to_owned()));
        }
        self
    }

    fn encode(&self) -> String {
        form_urlencoded::Serializer::new(String::new()).extend_pairs(&self.0).finish()
    }
}

/// Seconds of `Retry-After`. The header is undocumented here; its date form is ignored.
fn retry_after(response: &reqwest::Response) -> Option<Duration> {
    if response.status() != StatusCode::TOO_MANY_REQUESTS && !response.status().is_server_error() {
        return None;
    }
    let value = response.headers().get(reqwest::header::RETRY_AFTER)?;
    value.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}
