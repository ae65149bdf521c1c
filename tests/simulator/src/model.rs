//! A strict simulated speech-to-speech model: OpenAI's Realtime API (GA) over WebSocket.
//!
//! It hears: server VAD on the real energy of the audio, a transcription that recognises the callers' clips byte for
//! byte ([`crate::voice::Registry`]). It speaks: real voices, faster than real time, by a [`ModelScript`]. It remembers
//! the conversation as the client leaves it, so that a test can ask what the model thinks the caller heard. It refuses
//! what the real service would refuse and records what the client did against the protocol sheet, section 5.
//!
//! The protocol lives in `session` and `replies`, without sockets and clocks; `socket` is the shell.
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! use simulator::model::{self, ModelConfig};
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:4011").await?;
//! let model = model::serve(listener, ModelConfig::new("sk-test"), Default::default(), Default::default());
//! assert!(model.sessions().is_empty());
//! # Ok(())
//! # }
//! ```

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use crate::faults::Switchboard;
use crate::violations::Violations;
use crate::voice::{Registry, Speaker, Voice};

mod behaviour;
mod conversation;
mod fields;
mod format;
mod input_buffer;
mod log;
mod refusal;
mod replies;
mod reply_request;
mod script;
mod session;
#[cfg(test)]
mod session_tests;
mod settings;
mod socket;
#[cfg(test)]
mod socket_tests;
mod tools;

pub use behaviour::Behaviour;
pub use log::{LoggedEvent, LoggedItem, LoggedResponse, LoggedTruncation, SessionLog};
pub use script::{ModelScript, ScriptedCall, Turn};

use session::Session;
use socket::Shared;

/// What one simulated model is like.
#[derive(Clone)]
pub struct ModelConfig {
    /// The only key it takes.
    pub api_key: String,
    /// What it says.
    pub script: ModelScript,
    /// How fast it is.
    pub behaviour: Behaviour,
    /// What fails; the carrier may share them.
    pub switches: Switchboard,
}

impl ModelConfig {
    /// The default script and behaviour under this key.
    pub fn new(api_key: impl Into<String>) -> Self {
        Self {
            api_key: api_key.into(),
            script: ModelScript::default(),
            behaviour: Behaviour::default(),
            switches: Switchboard::default(),
        }
    }
}

impl std::fmt::Debug for ModelConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { api_key: _, script, behaviour, switches: _ } = self;
        f.debug_struct("ModelConfig")
            .field("script", script)
            .field("behaviour", behaviour)
            .finish_non_exhaustive()
    }
}

/// A running simulated model. It runs until [`Model::stop`] or the end of the runtime; clones are handles to the same.
#[derive(Clone, Debug)]
pub struct Model {
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

/// Serves the model on `listener`, in a task of its own; call it inside a runtime.
///
/// `registry` must be the one the callers add their clips to, or everything they say is unintelligible.
pub fn serve(
    listener: TcpListener,
    config: ModelConfig,
    registry: Registry,
    violations: Violations,
) -> Model {
    warm_voices(&config.script);
    let shared = Arc::new(Shared { config, registry, violations, sessions: Sessions::default() });
    let accepting = tokio::spawn(socket::accept(listener, Arc::clone(&shared))).abort_handle();
    Model { shared, accepting }
}

impl Model {
    /// Every session so far, oldest first; of the closed ones the latest thousand.
    pub fn sessions(&self) -> Vec<SessionLog> {
        self.shared.sessions.logs()
    }

    /// Closes the listener and every connection.
    pub fn stop(&self) {
        self.accepting.abort();
    }
}

/// Renders the script's sentences ahead, off the runtime: the first of a kind may take a process.
fn warm_voices(script: &ModelScript) {
    let mut sentences = vec![script.opening.clone(), script.default.clone(), script.idle.clone()];
    sentences.extend(script.turns.iter().flat_map(|turn| turn.say.iter().chain(&turn.then_say).cloned()));
    drop(tokio::task::spawn_blocking(move || {
        for sentence in sentences {
            let _ = Voice::new(Speaker::Agent).render(&sentence); // an unspeakable one is skipped again when it is due
        }
    }));
}

#[derive(Debug, Default)]
struct Sessions {
    last_number: AtomicU64,
    list: Mutex<Vec<Arc<Mutex<Session>>>>,
}

impl Sessions {
    fn open(&self, begin: impl FnOnce(u64) -> Session) -> Arc<Mutex<Session>> {
        let number = self.last_number.fetch_add(1, Ordering::Relaxed) + 1;
        let session = Arc::new(Mutex::new(begin(number)));
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.push(Arc::clone(&session));
        if list.len() > MAX_SESSIONS
            && let Some(oldest) = list.iter().position(|session| !socket::lock(session).log.is_open)
        {
            list.remove(oldest);
        }
        session
    }

    fn logs(&self) -> Vec<SessionLog> {
        let list = self.list.lock().unwrap_or_else(PoisonError::into_inner).clone();
        list.iter().map(|session| socket::lock(session).log()).collect()
    }
}

/// Logs are some kilobytes each.
const MAX_SESSIONS: usize = 1000;
