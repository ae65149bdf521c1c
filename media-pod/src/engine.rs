//! Speech engines: what turns the caller's audio into the agent's.
//!
//! A [`Session`] is one connection as the call machine sees it: commands in, events out, whatever protocol lies behind.
//! It begins to connect when it is first awaited, and says [`ModelEvent::Ready`] or [`ModelEvent::Lost`] exactly once.
//! A connection may be opened before its call is known; what personalises it is sent afterwards (`realtime`).

mod clips;
pub mod realtime;
pub mod simulated;
mod warm;

use std::sync::Arc;

use call_session::agent_file::{AgentFile, Engine, EngineKind, RealtimeEngine, SecretRef};
use call_session::audio::Payload;
use call_session::io::{ModelCommand, ModelEvent};
use call_session::plan::Plan;
use tokio::sync::watch;
use twilio::Secret;

use self::clips::Clips;
use self::realtime::Dialer;
use self::warm::WarmPool;
use crate::clock::Clock;
use crate::drain::Phase;
use crate::metrics::{EngineLabel, Metrics};

/// Reads a key when it is needed, so that a rotated one counts; `None` when it cannot be read.
pub type Keys = Arc<dyn Fn(&SecretRef) -> Option<Secret> + Send + Sync>;

/// How sessions are made.
#[derive(Clone)]
pub struct Engines {
    warm: Arc<WarmPool>,
    clips: Arc<Clips>,
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
    pub fn new(dialer: Dialer, keys: Keys, metrics: Arc<Metrics>) -> Self {
        let warm = Arc::new(WarmPool::new(dialer, keys.clone(), metrics.clone()));
        Self { warm, clips: Arc::new(Clips::new()), keys, metrics }
    }

    /// Keeps the warm sessions that the agent file asks for, until `phase` admits no more calls.
    pub(crate) fn keep_warm(
        &self,
        agent: watch::Receiver<Arc<AgentFile>>,
        phase: watch::Receiver<Phase>,
        clock: Clock,
    ) -> impl Future<Output = ()> + Send + use<> {
        self.warm.clone().keep(agent, phase, clock)
    }

    /// Renders the clips of each agent file that is loaded, until `phase` admits no more calls.
    pub(crate) fn keep_clips(
        &self,
        agent: watch::Receiver<Arc<AgentFile>>,
        phase: watch::Receiver<Phase>,
    ) -> impl Future<Output = ()> + Send + use<> {
        clips::keep(self.clone(), agent, phase)
    }

    /// What a caller of `plan` hears while no model is there.
    pub(crate) fn clip(&self, plan: &Plan) -> Payload {
        self.clips.of(plan)
    }

    /// A session that belongs to no call and leaves the warm ones alone.
    fn open_aside(&self, engine: &RealtimeEngine, plan: &Plan) -> Session {
        self.metrics.provider_connects.inc(EngineLabel::Realtime);
        let dialing = self.warm.dial(engine, (self.keys)(&engine.api_key));
        Session::Realtime(Box::new(realtime::Session::new(dialing, engine, plan, self.metrics.clone())))
    }

    /// A session of `engine` for a call of `plan`: a warm one if there is one. Does nothing yet; awaiting
    /// [`Session::next_event`] connects.
    pub fn connect(&self, engine: &Engine, plan: &Plan) -> Session {
        match &engine.kind {
            EngineKind::Realtime { realtime } => {
                let dialing = self.warm.connect(realtime, (self.keys)(&realtime.api_key));
                let session = realtime::Session::new(dialing, realtime, plan, self.metrics.clone());
                Session::Realtime(Box::new(session))
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
