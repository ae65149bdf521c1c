//! Requests to the product: signed forms, within the carrier's limits (protocols: response rules, webhook requests).
//!
//! A request goes to the edge's upstream, is signed over its public URL, may redirect ten times and take 15 s in all; the
//! URL's fragment overrides time and retries. What fails is recorded as the product's violation by the caller of
//! [`Webhooks::request`], who alone knows whether there is a fallback.

use std::fmt::Display;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HOST, LOCATION};
use tokio::time::timeout;

use super::edge::{Edge, resolve};
use super::signature::{sign, without_fragment};
use super::trust::Trust;
use super::twiml::Callback;
use crate::faults::Switchboard;
use crate::violations::{Refused, Rule};

/// Bytes of a reply that are read: well beyond any TwiML the carrier takes.
const MAX_REPLY: usize = 256 * 1024;
/// Redirects of one request.
const MAX_REDIRECTS: u32 = 10;
/// Total time of one request without an override.
const TIME_LIMIT: Duration = Duration::from_secs(15);

/// Sends requests to the product.
#[derive(Clone, Debug)]
pub(super) struct Webhooks {
    http: reqwest::Client,
    edges: Vec<Edge>,
    trust: Trust,
    auth_token: String,
    switches: Switchboard,
}

/// A 2xx reply.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) content_type: String,
    pub(super) body: String,
    /// Where it came from, after redirects: the base of relative URLs.
    pub(super) url: String,
}

/// Parameters of a form.
pub(super) type Form = Vec<(String, String)>;

impl Webhooks {
    pub(super) fn new(
        edges: Vec<Edge>,
        trust: Trust,
        auth_token: String,
        switches: Switchboard,
    ) -> Result<Self, reqwest::Error> {
        let redirect = reqwest::redirect::Policy::none();
        // For clients beside this one; fails only when one is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // A connection for each request: kept ones would always lead to the same pod behind a Service.
        let http =
            trust.http(&edges).redirect(redirect).user_agent("TwilioProxy/1.1").pool_max_idle_per_host(0);
        Ok(Self { http: http.build()?, edges, trust, auth_token, switches })
    }

    pub(super) fn edges(&self) -> &[Edge] {
        &self.edges
    }

    pub(super) const fn trust(&self) -> &Trust {
        &self.trust
    }

    /// *Flow:* attempt, follow redirects, retry as the URL's fragment says. *Errors:* the rule that the last attempt broke.
    pub(super) async fn request(&self, callback: &Callback, form: &Form) -> Result<Reply, Refused> {
        self.request_under(&super::ids::sid("IT"), callback, form).await
    }

    /// The same under a given idempotency token, which all attempts carry.
    pub(super) async fn request_under(
        &self,
        token: &str,
        callback: &Callback,
        form: &Form,
    ) -> Result<Reply, Refused> {
        let overrides = Overrides::of(&callback.url);
        let attempts = self.attempts(token, callback, form, overrides);
        timeout(overrides.total, attempts).await.unwrap_or_else(|_| {
            let detail = format!("{}: no answer in {:?}", path_of(&callback.url), overrides.total);
            Err(Refused::new(Rule::WebhookTimeout, detail))
        })
    }

    async fn attempts(
        &self,
        token: &str,
        callback: &Callback,
        form: &Form,
        overrides: Overrides,
    ) -> Result<Reply, Refused> {
        let mut retries = overrides.retries;
        loop {
            let mut result = self.attempt(token, callback, form).await;
            if result.is_ok() && self.switches.loses_webhook_answer() {
                let refused = unreachable(&callback.url, "the answer got lost");
                result = Err(Failure { class: Class::Read, refused });
            }
            match result {
                Ok(reply) => return Ok(reply),
                Err(failure) if retries > 0 && overrides.policy.covers(failure.class) => retries -= 1,
                Err(failure) => return Err(failure.refused),
            }
        }
    }

    async fn attempt(&self, token: &str, callback: &Callback, form: &Form) -> Result<Reply, Failure> {
        let mut url = without_fragment(&callback.url).to_owned();
        let mut is_get = callback.is_get;
        for _ in 0..=MAX_REDIRECTS {
            if is_get && !form.is_empty() && !url.contains("CallSid=") {
                url = with_query(&url, form);
            }
            let response = self.send(token, &url, is_get, form).await?;
            let status = response.status();
            let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            if let (true, Some(location)) = (status.is_redirection(), location) {
                let next = reqwest::Url::parse(&url).and_then(|base| base.join(location));
                url = next.map_err(|error| Refused::new(Rule::WebhookUrl, error.to_string()))?.into();
                is_get = is_get || !matches!(status.as_u16(), 307 | 308);
                continue;
            }
            if !status.is_success() {
                let class = if status.is_client_error() { Class::ClientError } else { Class::ServerError };
                let detail = format!("{} answered {}", path_of(&url), status.as_u16());
                return Err(Failure { class, refused: Refused::new(Rule::WebhookStatus, detail) });
            }
            return read(response, url).await;
        }
        Err(Refused::new(Rule::WebhookRedirects, path_of(&callback.url)).into())
    }

    async fn send(
        &self,
        token: &str,
        url: &str,
        is_get: bool,
        form: &Form,
    ) -> Result<reqwest::Response, Failure> {
        let target = resolve(&self.edges, url).ok_or_else(|| unreachable(url, "no edge maps it"))?;
        let address = target.http_url();
        let signed: &[(String, String)] = if is_get { &[] } else { form };
        let request = if is_get { self.http.get(address) } else { self.http.post(address).form(form) };
        request
            .header(HOST, target.host)
            .header("X-Twilio-Signature", sign(&self.auth_token, url, signed))
            .header("I-Twilio-Idempotency-Token", token)
            .send()
            .await
            .map_err(|error| Failure::of(url, &error))
    }
}

/// A failed attempt: what it is recorded as, and what decides whether another follows.
#[derive(Debug)]
struct Failure {
    class: Class,
    refused: Refused,
}

/// What the retry policy tells apart (protocols: response rules).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// There was no connection, so that nothing can have been sent: `ct`.
    Connect,
    /// The connection broke, or gave no answer, after the request may have arrived: `rt`.
    Read,
    /// `4xx`.
    ClientError,
    /// `5xx`, and what is neither success nor redirection otherwise.
    ServerError,
    /// The answer or the URL is wrong: asking again does not change it.
    Content,
}

impl Failure {
    fn of(url: &str, error: &reqwest::Error) -> Self {
        let class = if error.is_connect() { Class::Connect } else { Class::Read };
        Self { class, refused: unreachable(url, error) }
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        Self { class: Class::Content, refused }
    }
}

fn unreachable(url: &str, why: impl Display) -> Refused {
    Refused::new(Rule::WebhookUnreachable, format!("{}: {why}", path_of(url)))
}

async fn read(mut response: reqwest::Response, url: String) -> Result<Reply, Failure> {
    let status = response.status().as_u16();
    let header = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let content_type = header.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_lowercase();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| Failure::of(&url, &error))? {
        if body.len() + chunk.len() > MAX_REPLY {
            return Err(Refused::new(Rule::TwimlParse, "the reply is too large").into());
        }
        body.extend_from_slice(&chunk);
    }
    let body =
        String::from_utf8(body).map_err(|_| Refused::new(Rule::TwimlParse, "the reply is not UTF-8"))?;
    Ok(Reply { status, content_type, body, url })
}

/// The path of a URL, for timelines and violations.
pub(super) fn path_of(url: &str) -> String {
    reqwest::Url::parse(url).map_or_else(|_| url.to_owned(), |url| url.path().to_owned())
}

fn with_query(url: &str, form: &Form) -> String {
    let Ok(mut parsed) = reqwest::Url::parse(url) else { return url.to_owned() };
    parsed.query_pairs_mut().extend_pairs(form);
    parsed.into()
}

/// What a URL's fragment changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Overrides {
    total: Duration,
    retries: u32,
    policy: Policy,
}

/// Which failures are retried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Policy {
    connect: bool,
    read: bool,
    client_errors: bool,
    server_errors: bool,
}

impl Policy {
    const fn covers(self, class: Class) -> bool {
        match class {
            Class::Connect => self.connect,
            Class::Read => self.read,
            Class::ClientError => self.client_errors,
            Class::ServerError => self.server_errors,
            Class::Content => false,
        }
    }
}

impl Overrides {
    fn of(url: &str) -> Self {
        let mut overrides =
            Self { total: TIME_LIMIT, retries: 1, policy: Policy { connect: true, ..Policy::default() } };
        let fragment = url.split_once('#').map_or("", |(_, fragment)| fragment);
        for (name, value) in fragment.split('&').filter_map(|pair| pair.split_once('=')) {
            match (name, value.parse::<u32>()) {
                ("tt", Ok(milliseconds @ 100..=15_000)) => {
                    overrides.total = Duration::from_millis(milliseconds.into());
                }
                ("rc", Ok(retries @ 0..=5)) => overrides.retries = retries,
                ("rp", _) => {
                    let has = |what: &str| value.split(',').any(|part| part == what || part == "all");
                    overrides.policy = Policy {
                        connect: has("ct"),
                        read: has("rt"),
                        client_errors: has("4xx"),
                        server_errors: has("5xx"),
                    };
                }
                _ => {}
            }
        }
        overrides
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn the_fragment_overrides_time_and_retries() {
        let plain = Overrides::of("https://a/b");
        assert_eq!((plain.total, plain.retries, plain.policy.connect), (TIME_LIMIT, 1, true));
        let set = Overrides::of("https://a/b#tt=5000&rc=3&rp=5xx,rt&e=ashburn");
        let policy = Policy { connect: false, read: true, client_errors: false, server_errors: true };
        assert_eq!(set, Overrides { total: Duration::from_secs(5), retries: 3, policy });
        let wrong = Overrides::of("https://a/b#tt=50000&rc=9");
        assert_eq!((wrong.total, wrong.retries), (TIME_LIMIT, 1));
    }

    /// Each connection reads a request, answers this much of it and ends; how many there were.
    async fn dropping(answer: &'static str) -> (Webhooks, Arc<AtomicU32>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let edge = format!("https://voice.test=http://{}", listener.local_addr().unwrap());
        let taken = Arc::new(AtomicU32::new(0));
        let counter = taken.clone();
        tokio::spawn(async move {
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                counter.fetch_add(1, Ordering::Relaxed);
                assert!(socket.read(&mut [0; 4096]).await.unwrap() > 0);
                socket.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        (webhooks(&edge), taken)
    }

    fn webhooks(edge: &str) -> Webhooks {
        let (edges, switches) = (vec![edge.parse().unwrap()], Switchboard::default());
        Webhooks::new(edges, Trust::default(), "token".to_owned(), switches).unwrap()
    }

    async fn rule_broken(webhooks: &Webhooks, fragment: &str) -> Rule {
        let callback = Callback { url: format!("https://voice.test/voice{fragment}"), is_get: false };
        webhooks.request(&callback, &Form::new()).await.unwrap_err().rule
    }

    #[tokio::test]
    async fn a_connection_lost_after_the_request_is_a_read_and_no_failed_connect() {
        for answer in ["", "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n<Response>"] {
            for (fragment, attempts) in [("", 1), ("#rc=5&rp=5xx,ct", 1), ("#rc=2&rp=rt", 3)] {
                let (webhooks, taken) = dropping(answer).await;
                assert_eq!(rule_broken(&webhooks, fragment).await, Rule::WebhookUnreachable);
                assert_eq!(taken.load(Ordering::Relaxed), attempts, "`{answer}` with `{fragment}`");
            }
        }
    }

    #[tokio::test]
    async fn a_status_is_retried_by_its_own_policy() {
        for (answer, fragment, attempts) in [
            ("HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n", "#rc=2&rp=5xx", 3),
            ("HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n", "#rc=2&rp=4xx,ct,rt", 1),
            ("HTTP/1.1 404 Gone\r\ncontent-length: 0\r\n\r\n", "#rc=2&rp=4xx", 3),
            ("HTTP/1.1 404 Gone\r\ncontent-length: 0\r\n\r\n", "#rc=2&rp=5xx,ct,rt", 1),
        ] {
            let (webhooks, taken) = dropping(answer).await;
            assert_eq!(rule_broken(&webhooks, fragment).await, Rule::WebhookStatus);
            assert_eq!(taken.load(Ordering::Relaxed), attempts, "`{answer}` with `{fragment}`");
        }
    }

    #[tokio::test]
    async fn a_refused_connection_is_a_failed_connect() {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let error = webhooks(&format!("https://voice.test=http://{closed}"))
            .attempt(
                "IT",
                &Callback { url: "https://voice.test/voice".to_owned(), is_get: false },
                &Form::new(),
            )
            .await
            .unwrap_err();
        assert_eq!((error.class, error.refused.rule), (Class::Connect, Rule::WebhookUnreachable));
    }
}
