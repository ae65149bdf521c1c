//! Simulated Twilio: numbers, calls, signed webhooks, TwiML and Media Streams, strict by the published protocols.
//!
//! [`Carrier`] is the account: it owns numbers and calls, places inbound calls for simulated callers and serves the REST
//! API with the control API beside it. What happens inside a call is `call`'s; this file only begins calls.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use simulator::carrier::{Account, Carrier, Number, Settings};
//! let mut settings = Settings::new(Account::demo());
//! settings.numbers.push(Number::new("PN00000000000000000000000000000001", "+15551230001"));
//! settings.edges.push("https://voice.example.com=http://127.0.0.1:8080".parse()?);
//! let carrier = Carrier::new(settings, Default::default(), Default::default())?;
//! let call = carrier.place_inbound("+15557654321", "+15551230001", vec![])?;
//! println!("{:?}", call.finished().await.timeline);
//! # Ok(()) }
//! ```

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use self::call::{Entry, Source};
use self::record::{Direction, Facts};
use self::twiml::Callback;
use self::webhook::Webhooks;
use crate::caller::{Caller, Director, InvalidStep, Step};
use crate::faults::Switchboard;
use crate::violations::Violations;
use crate::voice::Registry;

mod call;
mod callback;
mod control;
mod dial;
pub mod edge;
mod ids;
mod line;
pub mod message;
mod number;
pub mod playout;
pub mod record;
mod rest;
pub mod signature;
mod stream;
pub(crate) mod trust;
pub mod twiml;
mod webhook;

pub use self::dial::{Answers, Callee};
pub use self::number::Number;
pub use self::record::Record;
pub use self::trust::{InvalidAuthority, Trust};

/// Calls kept; the oldest finished ones are forgotten first.
const KEPT_CALLS: usize = 2000;
/// Of the newest calls the recordings are kept too: a megabyte a minute each.
const KEPT_RECORDINGS: usize = 50;

/// The account and its credentials.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Account {
    /// `AC…`.
    pub sid: String,
    /// Signs webhooks; password of REST with the account's sid.
    pub auth_token: String,
    /// Secrets of API keys by `SK…`, for REST only.
    #[serde(default)]
    pub api_keys: BTreeMap<String, String>,
}

impl Account {
    /// The account of the demo.
    pub fn demo() -> Self {
        Self {
            sid: "AC00000000000000000000000000000001".to_owned(),
            auth_token: "simulated-auth-token".to_owned(),
            api_keys: BTreeMap::new(),
        }
    }
}

/// What the carrier is given.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The account.
    pub account: Account,
    /// Its numbers at the beginning.
    pub numbers: Vec<Number>,
    /// People who can be called.
    pub callees: Vec<Callee>,
    /// The way from public URLs to the product.
    pub edges: Vec<edge::Edge>,
    /// Whose certificates are believed, where the edge has TLS.
    pub trust: Trust,
    /// Over which form of its URL a stream's upgrade is signed.
    pub stream_url_form: signature::StreamUrlForm,
    /// Whether `<Connect action>` is requested after the caller hung up.
    pub action_after_hang_up: bool,
    /// What fails; the model may share them.
    pub switches: Switchboard,
}

impl Settings {
    /// An account without anything, and the likelier variant of what is not published.
    pub fn new(account: Account) -> Self {
        Self {
            account,
            numbers: Vec::new(),
            callees: Vec::new(),
            edges: Vec::new(),
            trust: Trust::default(),
            stream_url_form: signature::StreamUrlForm::AsIs,
            action_after_hang_up: false,
            switches: Switchboard::default(),
        }
    }
}

/// Why the carrier cannot begin.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up the HTTP client: {0}")]
pub struct SetupError(#[from] reqwest::Error);

/// Why a call cannot be placed.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// The called number is not the account's.
    #[error("{0} is not a number of this account")]
    UnknownNumber(String),
    /// Nobody is asked about calls to it.
    #[error("{0} has no voice URL (or an application or trunk in its place)")]
    NoVoiceUrl(String),
    /// The caller's steps cannot be done.
    #[error(transparent)]
    Steps(#[from] InvalidStep),
}

/// The simulated carrier; clones are the same one.
#[derive(Clone, Debug)]
pub struct Carrier(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: Settings,
    webhooks: Webhooks,
    registry: Registry,
    violations: Violations,
    numbers: Mutex<Vec<Number>>,
    calls: Mutex<Vec<Arc<Record>>>,
    rest_log: rest::RestLog,
}

impl Carrier {
    /// A carrier with this account; calls run on the current tokio runtime.
    pub fn new(settings: Settings, registry: Registry, violations: Violations) -> Result<Self, SetupError> {
        let webhooks = Webhooks::new(
            settings.edges.clone(),
            settings.trust.clone(),
            settings.account.auth_token.clone(),
            settings.switches.clone(),
        )?;
        let numbers = Mutex::new(settings.numbers.clone());
        Ok(Self(Arc::new(Inner {
            settings,
            webhooks,
            registry,
            violations,
            numbers,
            calls: Mutex::default(),
            rest_log: rest::RestLog::default(),
        })))
    }

    /// The REST API and the control API.
    pub fn router(&self) -> axum::Router {
        rest::router(self.clone()).merge(control::router(self.clone()))
    }

    /// A simulated caller dials one of the account's numbers.
    pub fn place_inbound(&self, from: &str, to: &str, steps: Vec<Step>) -> Result<Arc<Record>, PlaceError> {
        let number = self.callable(to)?;
        Ok(self.begin_inbound(from, number, Caller::new(steps, &self.0.registry)?))
    }

    /// The same with a caller who is told what to do while the call goes on.
    pub fn place_directed(&self, from: &str, to: &str) -> Result<(Arc<Record>, Director), PlaceError> {
        let number = self.callable(to)?;
        let (caller, director) = Caller::directed(&self.0.registry);
        Ok((self.begin_inbound(from, number, caller), director))
    }

    /// A number somebody is asked about when it rings, with the URL to ask.
    fn callable(&self, to: &str) -> Result<(Number, Callback), PlaceError> {
        let number = self.numbers().iter().find(|number| number.phone_number == to).cloned();
        let number = number.ok_or_else(|| PlaceError::UnknownNumber(to.to_owned()))?;
        let voice = number.voice().ok_or_else(|| PlaceError::NoVoiceUrl(to.to_owned()))?;
        Ok((number, voice))
    }

    fn begin_inbound(&self, from: &str, (number, voice): (Number, Callback), caller: Caller) -> Arc<Record> {
        let entry = Entry {
            first: Source::Url(voice, Vec::new()),
            fallback: number.fallback(),
            status_callback: number.status_callback(),
            status_events: vec!["completed".to_owned()],
            ring: None,
            ring_limit: Duration::ZERO,
        };
        let facts = Facts {
            sid: ids::sid("CA"),
            from: from.to_owned(),
            to: number.phone_number,
            direction: Direction::Inbound,
            phone_number_sid: Some(number.sid),
        };
        self.begin(facts, entry, caller)
    }

    /// A call by this sid.
    pub fn call(&self, sid: &str) -> Option<Arc<Record>> {
        self.calls().iter().find(|record| record.sid == sid).cloned()
    }

    /// The collector shared with the model.
    pub fn violations(&self) -> &Violations {
        &self.0.violations
    }

    /// What fails.
    pub fn switches(&self) -> &Switchboard {
        &self.0.settings.switches
    }

    fn place_outbound(&self, order: Order) -> Result<Arc<Record>, InvalidStep> {
        let callee = self.0.settings.callees.iter().find(|callee| callee.number == order.to);
        let steps = callee.map(|callee| callee.steps.clone()).unwrap_or_default();
        let answers = callee.filter(|callee| callee.answers == Answers::Yes);
        let entry = Entry {
            first: order.first,
            fallback: order.fallback,
            status_callback: order.status_callback,
            status_events: order.status_events,
            ring: answers.map(|callee| Duration::from_millis(callee.after_milliseconds.into())),
            ring_limit: order.ring_limit,
        };
        let owned = self.numbers().iter().find(|number| number.phone_number == order.from).cloned();
        let facts = Facts {
            sid: ids::sid("CA"),
            from: order.from,
            to: order.to,
            direction: Direction::OutboundApi,
            phone_number_sid: owned.map(|number| number.sid),
        };
        Ok(self.begin(facts, entry, Caller::new(steps, &self.0.registry)?))
    }

    fn begin(&self, facts: Facts, entry: Entry, caller: Caller) -> Arc<Record> {
        let (commands, requests) = mpsc::channel(16);
        let record = Arc::new(Record::new(facts, commands));
        {
            let mut calls = self.calls();
            if calls.len() >= KEPT_CALLS
                && let Some(oldest) = calls.iter().position(|record| record.status().is_final())
            {
                calls.remove(oldest);
            }
            calls.push(record.clone());
            let older = calls.len().saturating_sub(KEPT_RECORDINGS);
            calls[..older]
                .iter()
                .filter(|record| record.status().is_final())
                .for_each(|record| record.forget_audio());
        }
        tokio::spawn(call::run(self.clone(), record.clone(), entry, caller, requests));
        record
    }

    fn settings(&self) -> &Settings {
        &self.0.settings
    }

    fn registry(&self) -> &Registry {
        &self.0.registry
    }

    fn webhooks(&self) -> &Webhooks {
        &self.0.webhooks
    }

    fn rest_log(&self) -> &rest::RestLog {
        &self.0.rest_log
    }

    fn numbers(&self) -> MutexGuard<'_, Vec<Number>> {
        self.0.numbers.lock().unwrap_or_else(PoisonError::into_inner) // a list stays a list
    }

    fn calls(&self) -> MutexGuard<'_, Vec<Arc<Record>>> {
        self.0.calls.lock().unwrap_or_else(PoisonError::into_inner) // a list stays a list
    }
}

/// A call the product asks for.
#[derive(Debug)]
struct Order {
    from: String,
    to: String,
    first: Source,
    fallback: Option<Callback>,
    status_callback: Option<Callback>,
    status_events: Vec<String>,
    ring_limit: Duration,
}
