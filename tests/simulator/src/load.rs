//! Load: many callers at once against a running media pod (or the [`crate::relay`]), and what it did to their calls.
//!
//! Both ends of every call are in this process, so one clock measures how long audio, clears and answers take through the
//! product. Callers are lean and as strict as the carrier; the model is the lean one, which tags its audio and has no time of
//! its own, or the strict one ([`crate::model`]), which costs more and checks everything.
//!
//! *Flow:* the model answers; ramp, settle, measure, hang up, report. A run is good when no rule was broken, no call lost,
//! no frame missing and no interruption ignored. *Guarantees:* callers' frames are spread over the 20 ms as strangers'
//! are, so that what is measured is the product's time and not the time in a queue that the generator made.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use self::board::Board;
use self::phone::{Callers, Speech};
use crate::carrier::edge::Edge;
use crate::carrier::{Account, Trust};
use crate::model::{self as strict, Behaviour, ModelConfig, ModelScript};
use crate::violations::Violations;
use crate::voice::{Registry, Speaker, Voice, VoiceError};

mod arrived;
mod board;
mod habit;
mod histogram;
mod model;
mod phone;
mod process;
mod report;
mod tag;

pub use self::histogram::Percentiles;
pub use self::process::Usage;
pub use self::report::{LoadReport, ProcessReport, slope_kib_per_minute};

/// Between the last call of the ramp and the first measurement.
const SETTLE: Duration = Duration::from_secs(2);
/// What a reply lasts unless the plan says something else: longer than the caller listens, who interrupts it.
pub const LONG_REPLY: Duration = Duration::from_secs(20);
/// How often the process under load is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How long the hang-ups may take.
const HANG_UPS: Duration = Duration::from_secs(15);
/// Read and write buffers of a load run's sockets: its messages are small, and there are many sockets.
const SMALL_BUFFER: usize = 4 * 1024;

/// What is to be done.
#[derive(Clone, Debug)]
pub struct LoadPlan {
    /// The carrier's account.
    pub account: Account,
    /// The way from public URLs to the product.
    pub edges: Vec<Edge>,
    /// The number's voice webhook.
    pub voice_url: String,
    /// The number's status callback.
    pub status_url: Option<String>,
    /// Calls at once.
    pub calls: u32,
    /// Calls begun a second.
    pub rate: u32,
    /// How long is measured, after the ramp.
    pub measure: Duration,
    /// How long a call lasts before the next one takes its line; `None`: to the end.
    pub call_length: Option<Duration>,
    /// How often a caller interrupts; `None`: they only listen.
    pub barge_in_every: Option<Duration>,
    /// Who answers.
    pub model: ModelKind,
    /// What a reply of the lean model lasts when nobody interrupts.
    pub reply: Duration,
    /// The lean model's sessions live for so long, as they announce, and are ended then; `None`: as long as their calls.
    pub session_limit: Option<Duration>,
    /// The key the strict model takes.
    pub api_key: String,
    /// Makes the lean model answer `wss`; plain when absent.
    pub model_tls: Option<Arc<rustls::ServerConfig>>,
    /// The product's process, for its processor time and memory.
    pub process: Option<u32>,
}

/// Which simulated model is on the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelKind {
    /// Costs little, measures audio both ways, checks a little.
    Lean,
    /// Checks everything.
    Strict,
}

impl ModelKind {
    /// The model's own part of the time to the first audio.
    fn own_time(self) -> Duration {
        match self {
            Self::Lean => Duration::ZERO,
            Self::Strict => {
                let behaviour = Behaviour::default();
                let (first, updated) =
                    (behaviour.first_audio_milliseconds, behaviour.session_updated_milliseconds);
                Duration::from_millis(first + updated)
            }
        }
    }
}

/// Why a run cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The HTTP client.
    #[error("cannot set up the HTTP client: {0}")]
    Http(#[from] reqwest::Error),
    /// The caller's sentence.
    #[error("the caller's sentence: {0}")]
    Voice(#[from] VoiceError),
}

/// A load run whose model answers already: a product that connects ahead of calls can do so before the first call.
pub struct Load {
    callers: Arc<Callers>,
    process: Option<u32>,
    /// Ends with the run.
    models: JoinSet<()>,
    strict: Option<strict::Model>,
}

/// Runs the plan; the model answers on `model`.
///
/// # Errors
/// [`LoadError`] when it cannot begin. What goes wrong in calls is in the report.
pub async fn run(plan: LoadPlan, model: TcpListener) -> Result<LoadReport, LoadError> {
    Ok(Load::begin(plan, model)?.run().await)
}

impl Load {
    /// Makes the model answer on `model`; no call is placed yet.
    ///
    /// # Errors
    /// [`LoadError`] when the run cannot begin.
    pub fn begin(plan: LoadPlan, model: TcpListener) -> Result<Self, LoadError> {
        let board = Arc::new(Board::new(plan.calls));
        let violations = Violations::default();
        // Fails only when one is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let trust = Trust::default();
        let http = trust.http(&plan.edges).timeout(Duration::from_secs(15)).build()?;
        let mut models = JoinSet::new();
        let (speech, strict) = match plan.model {
            ModelKind::Lean => {
                let (reply, session_limit) = (plan.reply, plan.session_limit);
                let shared = model::Shared::new(board.clone(), violations.clone(), reply, session_limit);
                let shared = Arc::new(shared);
                models.spawn(model::serve(model, shared, plan.model_tls.clone()));
                (Speech::tagged(), None)
            }
            ModelKind::Strict => {
                let registry = Registry::default();
                let clip = Voice::new(Speaker::Caller).render(INTERRUPTION)?;
                registry.add(&clip);
                let script = ModelScript {
                    opening: REPLY.into(),
                    default: REPLY.into(),
                    idle: REPLY.into(),
                    turns: Vec::new(),
                };
                let config = ModelConfig { script, ..ModelConfig::new(plan.api_key.clone()) };
                let server = strict::serve(model, config, registry, violations.clone());
                (Speech::clip(&clip.mulaw), Some(server))
            }
        };
        let (run, process) = (run_number(), plan.process);
        let callers = Arc::new(Callers { plan, board, violations, http, trust, speech, run });
        Ok(Self { callers, process, models, strict })
    }

    /// The product's process, when it was not known before.
    pub const fn watch_process(&mut self, pid: u32) {
        self.process = Some(pid);
    }

    /// Places the calls, measures, hangs up. The model is gone afterwards.
    pub async fn run(self) -> LoadReport {
        let Self { callers, process, models, strict } = self;
        let LoadPlan { calls, rate, measure, .. } = callers.plan;
        let board = &callers.board;
        let began = Instant::now();
        let mut lines = JoinSet::new();
        for line in 0..calls {
            sleep_until(began + Duration::from_secs(1) * line / rate.max(1)).await;
            let callers = callers.clone();
            lines.spawn(async move { callers.keep_calling(line).await });
        }
        sleep(SETTLE).await;
        let process = watch(board, process, measure).await;
        board.end();
        let hang_ups = async { while lines.join_next().await.is_some() {} };
        // A call that hangs is not completed, which the report tells.
        let _ = tokio::time::timeout(HANG_UPS, hang_ups).await;
        if let Some(strict) = strict {
            strict.stop();
        }
        drop(models);
        LoadReport::new(calls, measure, &board.figures(), &callers.violations, process)
    }
}

/// Measures for so long.
async fn watch(board: &Board, process: Option<u32>, measure: Duration) -> Option<ProcessReport> {
    let own = || Usage::of(std::process::id());
    let of_product = || process.and_then(Usage::of);
    let (first, own_first, began) = (of_product(), own(), Instant::now());
    let (mut call_time, mut last, mut memory) = (Duration::ZERO, began, Vec::new());
    board.measure(true);
    while began.elapsed() < measure {
        sleep(LOOK.min(measure.saturating_sub(began.elapsed()))).await;
        let now = Instant::now();
        let active = u32::try_from(board.figures().active).unwrap_or(u32::MAX);
        call_time += (now - last) * active;
        last = now;
        if let Some(usage) = of_product() {
            memory.push((began.elapsed(), usage.resident_kib));
        }
    }
    board.measure(false);
    let (first, end) = (first?, of_product()?);
    let own = own_first.zip(own()).map(|(first, end)| end.processor - first.processor);
    Some(ProcessReport::new(
        end.processor.saturating_sub(first.processor),
        own.unwrap_or_default(),
        began.elapsed(),
        call_time,
        &memory,
    ))
}

/// Differs between two runs, so that a product that outlives them never sees a sid again.
fn run_number() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as u32;
    seconds.wrapping_add(std::process::id() << 16).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Said over the agent, for the strict model.
const INTERRUPTION: &str = "Wait, stop, that is not what I meant.";
/// What the strict model says to everything: long enough to be interrupted.
const REPLY: &str = "Of course. A move within the city usually costs between four hundred and nine hundred dollars, and our surveyor visits you for free before you decide.";
