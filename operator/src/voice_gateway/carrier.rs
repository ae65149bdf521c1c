//! The way to a gateway's carrier: one REST client for all its numbers, made once per version of the credentials.
//!
//! # Guarantees
//! However many numbers wait, a carrier has few requests before it at a time, and none while it asked for a pause; and
//! one of them reads the credentials for all.
//! Where several auth tokens are given (one is being replaced), the one that the carrier takes is used.
//!
//! # Caveats
//! The last client of a gateway is kept as long as the gateway is: when a namespace is deleted as a whole, the Secret
//! goes first, and numbers still have to be given back.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crds::{CarrierType, SecretKeyRef, TwilioApiKey, TwilioCarrier, VoiceGateway};
use k8s_openapi::api::core::v1::Secret;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::Store;
use kube::{Resource as _, ResourceExt as _};
use tokio::sync::{Mutex as Turnstile, Semaphore, SemaphorePermit};
use tokio::time::Instant;
use twilio::AccountSid;
use twilio::rest::{Client, Credentials};

use crate::cache;
use crate::context::Context;
use crate::looks::Question;
use crate::references::{self, Missing};
use crate::report;
use crate::voice_agent::agent_file::Invalid;

/// Requests before a carrier at a time. Twilio answers more than it likes with 429; a thousand numbers at one request
/// of a tenth of a second each are looked at in a quarter of a minute nevertheless.
const TURNS: usize = 8;

/// There is no way; a person must change something.
#[derive(Debug)]
pub enum NoCarrier {
    /// The credentials are not there.
    Missing(Missing),
    /// The spec contradicts itself.
    Invalid(Invalid),
}

/// One gateway's way to its carrier. No `Debug`: it holds credentials.
pub struct Carrier {
    client: Client,
    made_of: Question,
    others: Others,
    turns: Semaphore,
    held: Mutex<Option<Instant>>,
}

impl Carrier {
    fn new(client: Client, made_of: Question, others: Others) -> Self {
        Self { client, made_of, others, turns: Semaphore::new(TURNS), held: Mutex::default() }
    }

    /// What it was made of: another value is another account, address or secret.
    pub const fn made_of(&self) -> Question {
        self.made_of
    }

    /// Waits for a turn to ask.
    ///
    /// # Errors
    /// At once, while the carrier wants to be left alone.
    pub async fn turn(&self) -> Result<Turn<'_>, twilio::rest::Error> {
        let permit = self.turns.acquire().await.expect("the semaphore is never closed");
        let until = *self.held.lock().unwrap_or_else(PoisonError::into_inner);
        match until.map(|until| until.saturating_duration_since(Instant::now())) {
            Some(left) if !left.is_zero() => {
                Err(twilio::rest::Error::RateLimited { retry_after: Some(left) })
            }
            Some(_) | None => Ok(Turn { client: &self.client, _permit: permit }),
        }
    }

    /// Takes note of a refusal: for how long everybody must leave the carrier alone.
    fn heed(&self, asked: Duration) {
        let until = Instant::now() + asked;
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        *held = Some(held.map_or(until, |before| before.max(until)));
    }
}

/// Credentials beside those that are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Others {
    /// There are none.
    None,
    /// They may be the ones that count when those in use are refused.
    Untried,
    /// They were refused when all were tried; that may be another matter at the next look.
    Refused,
}

/// The right to ask the carrier.
pub struct Turn<'a> {
    /// Asks.
    pub client: &'a Client,
    _permit: SemaphorePermit<'a>,
}

/// Namespace and gateway.
type Key = (String, String);

/// The ways to all carriers.
#[derive(Default)]
pub struct Carriers {
    known: Mutex<HashMap<Key, Arc<Carrier>>>,
    /// Held by whoever makes a way, so that the others wait for it instead of making their own.
    making: Mutex<HashMap<Key, Arc<Turnstile<()>>>>,
}

impl Carriers {
    /// The last way that a gateway had, even if it or its Secret is gone.
    pub fn last_known(&self, namespace: &str, gateway: &str) -> Option<Arc<Carrier>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&(namespace.to_owned(), gateway.to_owned())).cloned()
    }

    /// Takes note of an error: a pause that was asked for, or credentials that may have been replaced at the carrier.
    ///
    /// # Errors
    /// When others are to be tried now: then the refusal says nothing about the gateway.
    pub fn heed(
        &self,
        namespace: &str,
        gateway: &str,
        error: &twilio::rest::Error,
    ) -> Result<(), report::Error> {
        let Some(carrier) = self.last_known(namespace, gateway) else { return Ok(()) };
        if let Some(asked) = error.retry_after() {
            carrier.heed(asked);
        }
        if !matches!(error, twilio::rest::Error::Authentication { .. }) {
            return Ok(());
        }
        match carrier.others {
            Others::None => Ok(()),
            Others::Refused => {
                self.forget(namespace, gateway);
                Ok(())
            }
            Others::Untried => {
                self.forget(namespace, gateway);
                Err(report::Error::OtherCredentials)
            }
        }
    }

    /// Forgets a gateway.
    pub fn forget(&self, namespace: &str, gateway: &str) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.remove(&(namespace.to_owned(), gateway.to_owned()));
    }

    fn making(&self, namespace: &str, gateway: &str) -> Arc<Turnstile<()>> {
        let mut making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        making.entry((namespace.to_owned(), gateway.to_owned())).or_default().clone()
    }

    fn remember(&self, namespace: &str, gateway: &str, carrier: &Arc<Carrier>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert((namespace.to_owned(), gateway.to_owned()), carrier.clone());
    }
}

/// The way to a gateway's carrier: the one there is, unless its credentials or address changed.
pub async fn reach(
    context: &Context,
    gateway: &VoiceGateway,
) -> Result<Result<Arc<Carrier>, NoCarrier>, kube::Error> {
    let CarrierType::Twilio = gateway.spec.carrier.kind;
    let invalid = Invalid::MissingMember { path: "carrier", kind: "Twilio", member: "twilio" };
    let Some(twilio) = &gateway.spec.carrier.twilio else { return Ok(Err(NoCarrier::Invalid(invalid))) };
    let Ok(account) = twilio.account_sid.parse::<AccountSid>() else {
        return Ok(Err(NoCarrier::Invalid(Invalid::AccountSid)));
    };
    let (namespace, name) = (gateway.namespace().unwrap_or_default(), gateway.name_any());
    let made_of = made_of(gateway, twilio, &context.cache.secrets);
    let known = || context.carriers.last_known(&namespace, &name).filter(|known| known.made_of == made_of);
    if let Some(known) = known() {
        return Ok(Ok(known));
    }
    let making = context.carriers.making(&namespace, &name);
    let _made_by_one = making.lock().await;
    if let Some(known) = known() {
        return Ok(Ok(known));
    }
    let mut clients = Vec::new();
    for (id, reference) in credentials(twilio) {
        let secret = match references::fetch_secret(&context.client, &namespace, reference).await? {
            Err(missing) => return Ok(Err(NoCarrier::Missing(missing))),
            Ok(secret) => secret,
        };
        let credentials = match id {
            None => Credentials::AuthToken(secret),
            Some(sid) => Credentials::ApiKey { sid: sid.to_owned(), secret },
        };
        let transport = context.transport.clone();
        clients.push(Client::new(transport, &twilio.api_base_url, account.clone(), credentials));
    }
    let Some((client, others)) = accepted(clients).await else {
        return Ok(Err(NoCarrier::Invalid(invalid)));
    };
    let carrier = Arc::new(Carrier::new(client, made_of, others));
    context.carriers.remember(&namespace, &name, &carrier);
    Ok(Ok(carrier))
}

/// The credentials for REST: the API key, if there is one; or the auth tokens, in the order in which they are tried.
fn credentials(twilio: &TwilioCarrier) -> Vec<(Option<&str>, &SecretKeyRef)> {
    match &twilio.api_key {
        Some(TwilioApiKey { sid, secret_ref }) => vec![(Some(sid.as_str()), secret_ref)],
        None => twilio.auth_token_secret_refs.iter().map(|reference| (None, reference)).collect(),
    }
}

/// The first client that the carrier takes; where it takes none or says nothing, the first.
async fn accepted(clients: Vec<Client>) -> Option<(Client, Others)> {
    let first = clients.first()?.clone();
    if clients.len() == 1 {
        return Some((first, Others::None));
    }
    for client in clients {
        match client.fetch_account().await {
            Ok(_) => return Some((client, Others::Untried)),
            Err(twilio::rest::Error::Authentication { .. }) => {}
            Err(_) => return Some((first, Others::Untried)),
        }
    }
    Some((first, Others::Refused))
}

/// Everything a client depends on, with the versions of the Secrets as the watch knows them.
fn made_of(
    gateway: &VoiceGateway,
    twilio: &TwilioCarrier,
    secrets: &Store<PartialObjectMeta<Secret>>,
) -> Question {
    let namespace = gateway.namespace().unwrap_or_default();
    let versions: Vec<_> = credentials(twilio)
        .into_iter()
        .map(|(id, reference)| {
            let secret = cache::find(secrets, &namespace, &reference.name);
            let version = secret.map(|s| (s.uid(), s.resource_version()));
            (id, &reference.name, &reference.key, version)
        })
        .collect();
    Question::of((&gateway.meta().uid, &twilio.account_sid, &twilio.api_base_url, versions))
}

#[cfg(test)]
mod tests {
    use super::*;
    use twilio::rest::Transport;

    fn carrier(others: Others) -> Carrier {
        let account = format!("AC{}", "0".repeat(32)).parse().unwrap();
        let token = Credentials::AuthToken(twilio::Secret::new("token"));
        let client = Client::new(Transport::new(None).unwrap(), "http://127.0.0.1:1", account, token);
        Carrier::new(client, Question::of(1), others)
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_that_the_carrier_asked_for_is_everybodys() {
        let (carriers, carrier) = (Carriers::default(), Arc::new(carrier(Others::None)));
        carriers.remember("moving", "default", &carrier);
        let pause = Duration::from_secs(30);
        let refusal = twilio::rest::Error::RateLimited { retry_after: Some(pause) };
        assert!(carrier.turn().await.is_ok());
        carriers.heed("moving", "default", &refusal).unwrap();
        let held = carrier.turn().await.err().unwrap();
        assert_eq!(held.retry_after(), Some(pause));
        tokio::time::advance(pause).await;
        assert!(carrier.turn().await.is_ok());
    }

    #[tokio::test]
    async fn only_so_many_ask_at_a_time() {
        let carrier = carrier(Others::None);
        let mut turns = Vec::new();
        for _ in 0..TURNS {
            turns.push(carrier.turn().await.unwrap());
        }
        assert!(futures_util::FutureExt::now_or_never(carrier.turn()).is_none());
        turns.pop();
        assert!(futures_util::FutureExt::now_or_never(carrier.turn()).is_some());
    }

    #[tokio::test]
    async fn refused_credentials_are_chosen_anew_where_there_are_others_and_told_when_all_are_refused() {
        let heeded = |others: Others, error: twilio::rest::Error| {
            let carriers = Carriers::default();
            carriers.remember("moving", "default", &Arc::new(carrier(others)));
            let is_told = carriers.heed("moving", "default", &error).is_ok();
            (is_told, carriers.last_known("moving", "default").is_some())
        };
        let refused = || twilio::rest::Error::Authentication { code: None };
        assert_eq!(heeded(Others::Untried, twilio::rest::Error::NotFound { code: None }), (true, true));
        assert_eq!(heeded(Others::Untried, refused()), (false, false));
        assert_eq!(heeded(Others::Refused, refused()), (true, false));
        assert_eq!(heeded(Others::None, refused()), (true, true));
    }
}
