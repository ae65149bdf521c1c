//! Requests to the product: signed forms, within the carrier's limits (protocols: response rules, webhook requests).
//!
//! A request goes to the edge's upstream, is signed over its public URL, may redirect ten times and take 15 s in all; the
//! URL's fragment overrides time and retries. What fails is recorded as the product's violation by the caller of
//! [`Webhooks::request`], who alone knows whether there is a fallback.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HOST, LOCATION};
use tokio::time::{Instant, timeout_at};

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
        let deadline = Instant::now() + overrides.total;
        let mut attempt = 0;
        loop {
            let result =
                timeout_at(deadline, self.attempt(token, callback, form)).await.unwrap_or_else(|_| {
                    let detail = format!("{}: no answer in {:?}", path_of(&callback.url), overrides.total);
                    Err(Refused::new(Rule::WebhookTimeout, detail))
                });
            if result.is_ok() && self.switches.loses_webhook_answer() {
                continue;
            }
            match result {
                Err(refused) if attempt < overrides.retries && overrides.policy.covers(&refused) => {
                    attempt += 1
                }
                other => return other,
            }
        }
    }

    async fn attempt(&self, token: &str, callback: &Callback, form: &Form) -> Result<Reply, Refused> {
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
                let detail = format!("{} answered {}", path_of(&url), status.as_u16());
                return Err(Refused::new(Rule::WebhookStatus, detail));
            }
            return read(response, url).await;
        }
        Err(Refused::new(Rule::WebhookRedirects, path_of(&callback.url)))
    }

    async fn send(
        &self,
        token: &str,
        url: &str,
        is_get: bool,
        form: &Form,
    ) -> Result<reqwest::Response, Refused> {
        let unreachable =
            |why: String| Refused::new(Rule::WebhookUnreachable, format!("{}: {why}", path_of(url)));
        let target = resolve(&self.edges, url).ok_or_else(|| unreachable("no edge maps it".to_owned()))?;
        let address = target.http_url();
        let signed: &[(String, String)] = if is_get { &[] } else { form };
        let request = if is_get { self.http.get(address) } else { self.http.post(address).form(form) };
        request
            .header(HOST, target.host)
            .header("X-Twilio-Signature", sign(&self.auth_token, url, signed))
            .header("I-Twilio-Idempotency-Token", token)
            .send()
            .await
            .map_err(|error| unreachable(error.to_string()))
    }
}

async fn read(mut response: reqwest::Response, url: String) -> Result<Reply, Refused> {
    let broken = |error: reqwest::Error| Refused::new(Rule::WebhookUnreachable, error.to_string());
    let status = response.status().as_u16();
    let header = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let content_type = header.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_lowercase();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(broken)? {
        if body.len() + chunk.len() > MAX_REPLY {
            return Err(Refused::new(Rule::TwimlParse, "the reply is too large"));
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
    fn covers(self, refused: &Refused) -> bool {
        match refused.rule {
            Rule::WebhookUnreachable => self.connect,
            Rule::WebhookTimeout => self.read,
            Rule::WebhookStatus if refused.detail.contains("answered 4") => self.client_errors,
            Rule::WebhookStatus => self.server_errors,
            _ => false, // any other rule is about content: asking again does not change it
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
}
