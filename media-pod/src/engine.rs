//! Speech engines: what turns the caller's audio into the agent's.
//!
//! A [`Session`] is one connection as the call machine sees it: commands in, events out, whatever protocol lies behind.
//! It begins to connect when it is first awaited, and says [`ModelEvent::Ready`] or [`ModelEvent::Lost`] exactly once.
//! A connection may be opened before its call is known; what personalises it is sent afterwards (`realtime`).

pub mod realtime;
pub mod simulated;

use std::sync::Arc;

use call_session::agent_file::{Engine, EngineKind, SecretRef};
use call_session::io::{ModelCommand, ModelEvent};
use call_session::plan::Plan;
use twilio::Secret;

use self::realtime::Dialer;
use crate::metrics::{EngineLabel, Metrics};

/// Reads a key when it is needed, so that a rotated one counts; `None` when it cannot be read.
pub type Keys = Arc<dyn Fn(&SecretRef) -> Option<Secret> + Send + Sync>;

/// How sessions are made.
#[derive(Clone)]
pub struct Engines {
    dialer: Dialer,
    keys: Keys,
    metrics: Arc<Metrics>,
}

/// One connection to a model.
pub enum Session {
    /// Over the Realtime protocol.
    Realtime(Box<realtime::Session>),
    /// Built in.
    Simulated(Box<simulated::Session>),
}

impl Engines {
    /// Engines that trust what `dialer` trusts, with the keys of `keys`.
    pub const fn new(dialer: Dialer, keys: Keys, metrics: Arc<Metrics>) -> Self {
        Self { dialer, keys, metrics }
    }

    /// A session of `engine` for a call of `plan`. Does nothing yet; awaiting [`Session::next_event`] connects.
    pub fn connect(&self, engine: &Engine, plan: &Plan) -> Session {
        match &engine.kind {
            EngineKind::Realtime { realtime } => {
                self.metrics.provider_connects.inc(EngineLabel::Realtime);
                let connection = self.dialer.dial(realtime, (self.keys)(&realtime.api_key));
                Session::Realtime(Box::new(realtime::Session::new(
                    connection,
                    realtime,
                    plan,
                    self.metrics.clone(),
                )))
            }
            EngineKind::Simulated { simulated } => {
                self.metrics.provider_connects.inc(EngineLabel::Simulated);
                Session::Simulated(Box::new(simulated::Session::new(simulated, plan.server_replies())))
            }
        }
    }
}

impl Session {
    /// Takes a command; it takes effect while [`Session::next_event`] is awaited.
    pub fn send(&mut self, command: ModelCommand) {
        match self {
            Self::Realtime(session) => session.send(command),
            Self::Simulated(session) => session.send(command),
        }
    }

    /// The next event. After [`ModelEvent::Lost`] it never returns. Cancel-safe.
    pub async fn next_event(&mut self) -> ModelEvent {
        match self {
            Self::Realtime(session) => session.next_event().await,
            Self::Simulated(session) => session.next_event().await,
        }
    }

    /// Ends the session in order, within a bounded time.
    pub async fn close(self) {
        match self {
            Self::Realtime(session) => session.close().await,
            Self::Simulated(_) => {}
        }
    }
}
