//! One leg of a call: phone socket ⇄ call machine ⇄ model session, in one task.
//!
//! *Flow*: drain the machine's outputs to the peers, then wait for whichever comes first (phone, model, timer, store,
//! somebody's notice, the pod's departure), feed it in, again. No decision about the conversation is made here; while no
//! model is there to converse, `comfort` says when a clip keeps the caller company.
//!
//! *Guarantees*: the ending is in the store, or two seconds were spent trying, before the phone socket closes, so that
//! `<Connect action>` finds it. What the leg holds is bounded: the phone's outbox, the model's outbox, the scribe's queue.
//!
//! *Errors*: none leave; every end is an [`Ending`].

use std::sync::Arc;
use std::time::Duration;

use call_session::audio::Payload;
use call_session::io::{
    Command, Ending, Event, Input, ModelEvent, Output, PhoneCommand, PhoneEvent, ToolRequest, ToolResult,
};
use call_session::plan::Plan;
use call_session::{Call, Ms, Redacted};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::calls::{Admitted, Notice};
use crate::comfort::Comfort;
use crate::drain::Phase;
use crate::engine::{Engines, Session};
use crate::metrics::{IgnoredInput, Metrics};
use crate::phone::Phone;
use crate::scribe::Scribe;
use crate::timeline::Timeline;
use crate::traces::leg::LegTrace;

/// How long the carrier waits for a socket to close is not known, the caller hears nothing meanwhile: two seconds.
const RECORDING: Duration = Duration::from_secs(2);

/// Everything one leg needs.
pub(crate) struct Leg {
    pub(crate) call: Call,
    pub(crate) plan: Arc<Plan>,
    pub(crate) timeline: Timeline,
    pub(crate) phone: Phone,
    pub(crate) engines: Engines,
    pub(crate) comfort: Comfort,
    pub(crate) scribe: Scribe,
    pub(crate) admitted: Admitted,
    /// `None` once the machine knows that the pod leaves.
    pub(crate) phase: Option<watch::Receiver<Phase>>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) trace: LegTrace,
    /// How long the leg waited for its first model session, once that was ready.
    pub(crate) first_model: Option<Ms>,
}

impl Leg {
    /// Runs the leg to its end.
    pub(crate) async fn run(mut self) -> Ending {
        let mut sessions = Sessions::default();
        let ending = self.converse(&mut sessions).await;
        let Self { scribe, phone, admitted, trace, timeline, .. } = self;
        trace.end(timeline.now(), &ending);
        let Sessions { current, successor } = sessions;
        let close_phone = async {
            scribe.finish(ending.clone(), RECORDING).await;
            phone.close().await;
        };
        tokio::join!(close(current), close(successor), close_phone);
        drop(admitted);
        ending
    }

    async fn converse(&mut self, sessions: &mut Sessions) -> Ending {
        // One timer for the whole leg: it is moved only when the machine asks for another time.
        let mut timer = std::pin::pin!(tokio::time::sleep_until(Instant::now()));
        let mut armed: Option<Ms> = None;
        let mut tool_ends = Vec::new();
        loop {
            match self.drain(sessions, &mut tool_ends) {
                Drained::Wait(at) if at != armed => {
                    armed = at;
                    if let Some(at) = at {
                        timer.as_mut().reset(self.timeline.moment(at));
                    }
                }
                Drained::Wait(_) => {}
                Drained::Ended(ending) => return ending,
            }
            let input = match tool_ends.pop() {
                Some(input) => input,
                None => tokio::select! {
                    () = at(&self.timeline, self.comfort.due()) => {
                        self.keep_company();
                        continue;
                    }
                    event = self.phone.next_event() => Input::Phone(event),
                    input = sessions.next_input() => input,
                    () = timer.as_mut(), if armed.is_some() => {
                        armed = None;
                        Input::Tick
                    }
                    news = self.scribe.news() => news,
                    notice = self.admitted.notice() => self.input_of(notice),
                    deadline = departure(&mut self.phase) => {
                        self.phase = None;
                        Input::Drain { deadline: self.timeline.time_of(deadline) }
                    }
                },
            };
            if let Input::ToolEnded { call, result } = &input {
                self.trace.tool_ended(self.timeline.now(), call, result);
            }
            if let Err(ignored) = self.call.handle_input(self.timeline.now(), input) {
                self.metrics.inputs_ignored.inc(IgnoredInput::from(&ignored));
                tracing::trace!(%ignored, "an input changed nothing");
            }
        }
    }

    /// Carries the machine's outputs to where they belong, up to the next `Wait` or the end.
    fn drain(&mut self, sessions: &mut Sessions, tool_ends: &mut Vec<Input>) -> Drained {
        loop {
            match self.call.poll_output() {
                Output::Wait(at) => return Drained::Wait(at),
                Output::Ended(ending) => return Drained::Ended(ending),
                Output::Phone(command) => self.send(&command),
                Output::Model(command) => {
                    if let Some(session) = &mut sessions.current {
                        session.send(command);
                    }
                }
                // The machine counts the plan's engines itself; an index beyond them finds none and is a bug.
                Output::Connect { engine } => {
                    let engine = self.plan.engines.get(engine);
                    if let Some(engine) = engine {
                        self.trace.connecting(self.timeline.now(), engine);
                    }
                    let current = engine.map(|engine| self.engines.connect(engine, &self.plan));
                    *sessions = Sessions { current, successor: None };
                }
                Output::Prepare { engine } => {
                    let engine = self.plan.engines.get(engine);
                    if let Some(engine) = engine {
                        self.trace.preparing(self.timeline.now(), engine);
                    }
                    sessions.successor = engine.map(|engine| self.engines.connect(engine, &self.plan));
                }
                Output::Switch => {
                    let before = std::mem::replace(&mut sessions.current, sessions.successor.take());
                    // The call goes on meanwhile; the close is bounded.
                    tokio::spawn(close(before));
                }
                Output::Comfort => {
                    tracing::info!("the model says nothing: the caller hears a clip");
                    self.play(self.engines.clip(&self.plan));
                }
                Output::Tool(request) => {
                    self.trace.tool_started(self.timeline.now(), &request);
                    tool_ends.push(run_tool(request));
                }
                Output::Journal(entry) => {
                    if entry.fact.is_progress() {
                        self.admitted.progress();
                    }
                    self.scribe.write(entry);
                }
                Output::Event(event) => self.count(&event),
            }
        }
    }

    fn send(&mut self, command: &PhoneCommand) {
        self.comfort.sent(self.timeline.now(), command);
        self.phone.send(command);
    }

    /// Plays the clip that is due.
    fn keep_company(&mut self) {
        let clip = self.engines.clip(&self.plan);
        if self.comfort.take(self.timeline.now(), &clip).is_some() {
            tracing::info!("no model is there: the caller hears a clip");
            self.play(clip);
        }
    }

    fn play(&mut self, clip: Payload) {
        self.metrics.clips_played.inc();
        self.send(&PhoneCommand::Audio(clip));
    }

    fn input_of(&self, notice: Notice) -> Input {
        match notice {
            Notice::HangUp => Input::Command(Command::HangUp),
            Notice::Superseded => {
                tracing::info!("a newer leg has taken over");
                Input::Phone(PhoneEvent::Lost)
            }
            Notice::Over => Input::Phone(PhoneEvent::Stopped),
        }
    }

    fn count(&mut self, event: &Event) {
        self.trace.handle_event(self.timeline.now(), event);
        let metrics = &self.metrics;
        match event {
            Event::ModelReady { after } => {
                self.comfort.ready();
                // A session after a loss says how long the leg has lasted, not how long the caller waited for it.
                if self.first_model.is_none() {
                    self.first_model = Some(*after);
                    metrics.model_ready.observe(seconds(*after));
                }
                tracing::info!(after_ms = after.0, "the model is ready");
            }
            Event::FirstAudio { after } => {
                // Where the caller speaks first, the wait would be the caller's own.
                if let Some(after) = after {
                    metrics.first_audio.observe(seconds(*after));
                }
                self.admitted.progress();
            }
            Event::TurnAnswered { latency } => {
                metrics.turn_latency.observe(seconds(*latency));
                self.admitted.progress();
                tracing::debug!(latency_ms = latency.0, "the caller was answered");
            }
            Event::BargeIn { heard, sent } => {
                metrics.barge_ins.inc();
                tracing::debug!(heard_ms = heard.0, sent_ms = sent.0, "the caller interrupted");
            }
            Event::AudioGap { silence } => metrics.audio_gaps.observe(seconds(*silence)),
            Event::StaleAudioDropped => metrics.stale_frames_dropped.inc(),
            Event::ToolEnded { name, outcome, took } => {
                metrics.tool_outcomes.inc(*outcome);
                metrics.tool_duration.observe(seconds(*took));
                tracing::debug!(tool = name, ?outcome, took_ms = took.0, "a tool ended");
            }
            Event::ModelLost { reason } => {
                self.comfort.lost(self.timeline.now());
                metrics.provider_failures.inc(*reason);
                tracing::warn!(?reason, "the model is lost");
            }
            Event::ModelReplaced => {
                self.comfort.ready();
                metrics.model_replacements.inc();
                tracing::info!("the model session was replaced");
            }
            Event::SuccessorLost { reason } => {
                metrics.provider_failures.inc(*reason);
                tracing::warn!(?reason, "the model session's successor is lost");
            }
            Event::ModelRefused { class } => metrics.provider_refusals.inc(*class),
            Event::Usage(usage) => metrics.add_usage(usage),
            // The words themselves are in the journal; they are nobody's business here.
            Event::CallerTranscript { .. } | Event::AgentTranscript { .. } | Event::Digit => {}
        }
    }
}

enum Drained {
    Wait(Option<Ms>),
    Ended(Ending),
}

/// The connections to a model.
#[derive(Default)]
struct Sessions {
    current: Option<Session>,
    /// Opened beside the current one, to take its place.
    successor: Option<Session>,
}

impl Sessions {
    /// What either says; pends while there is none. Cancel-safe.
    async fn next_input(&mut self) -> Input {
        tokio::select! {
            event = next_event(&mut self.current) => Input::Model(event),
            event = next_event(&mut self.successor) => Input::Successor(event),
        }
    }
}

async fn next_event(session: &mut Option<Session>) -> ModelEvent {
    match session {
        Some(session) => session.next_event().await,
        None => std::future::pending().await,
    }
}

async fn close(session: Option<Session>) {
    if let Some(session) = session {
        session.close().await;
    }
}

/// Waits for a time of the leg; for ever without one.
async fn at(timeline: &Timeline, time: Option<Ms>) {
    match time {
        Some(time) => tokio::time::sleep_until(timeline.moment(time)).await,
        None => std::future::pending().await,
    }
}

/// When running calls must have left, once the pod says so.
async fn departure(phase: &mut Option<watch::Receiver<Phase>>) -> Instant {
    let Some(phase) = phase else { return std::future::pending().await };
    loop {
        if let Phase::HandingOver { deadline } = *phase.borrow_and_update() {
            return deadline;
        }
        if phase.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// Tools outside of the machine: none can be configured yet, so a request names one that does not exist here.
fn run_tool(request: ToolRequest) -> Input {
    let sentence = "Error: this tool is not available.".to_owned();
    Input::ToolEnded { call: request.call, result: ToolResult::Error(Redacted::new(sentence)) }
}

fn seconds(span: Ms) -> f64 {
    span.0 as f64 / 1000.0
}

#[cfg(test)]
#[path = "bridge_tests.rs"]
mod tests;
