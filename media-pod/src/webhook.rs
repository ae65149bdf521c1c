//! The carrier's webhooks: a call is announced (`voice`), its stream is over (`action`), it is over (`status`).
//!
//! Follows docs/design.md, "The public door of a media pod". Any pod of the agent answers any of them, in any order, any
//! number of times: what must be known is in the store, and everything written there is written once. A request that is
//! not signed by the carrier for the configured public URL changes nothing.
//!
//! The store may be down: a new call is then answered all the same, and a stream that is over is opened again a few
//! times, because a caller cut off is worse than one who has to hang up twice.

mod after;
mod answer;
mod carried;
mod overflow;
mod request;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use call_session::Epoch;
use call_session::agent_file::{AgentFile, Keyring};
use opentelemetry::trace::SpanKind;
use tokio::sync::watch;

use self::after::{After, Past, Pause, Tally, after_leg, after_transfer, after_unseen};
use self::answer::{NextStream, Twiml};
pub use self::answer::{TOKEN_PARAMETER, stream_url};
use self::carried::Carried;
use self::overflow::{Instead, Tried, instead, voice_url};
use self::request::{CallForm, Refusal, Verified};
use crate::admission::{Admission, Sentence, Verdict, sentence_for};
use crate::clock::{Clock, UnixMs};
use crate::metrics::{CallLoss, CallRefusal, Metrics, OverflowLabel};
use crate::routing::choose_agent;
use crate::secrets::Secrets;
use crate::store::{AgentKey, CallEnd, CallRecord, CallState, Leg, Milestone, Store, StoreError};
use crate::traces::Traces;

/// What the webhooks need. Cheap to clone. No `Debug`: it holds keys.
#[derive(Clone)]
pub struct WebhookState {
    /// The newest agent file.
    pub agent: watch::Receiver<Arc<AgentFile>>,
    /// The newest keyring.
    pub keyring: watch::Receiver<Arc<Keyring>>,
    /// Where the auth tokens are.
    pub secrets: Secrets,
    /// What pods share.
    pub store: Arc<dyn Store>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The time.
    pub clock: Clock,
    /// What becomes visible of a call.
    pub traces: Traces,
}

/// The three webhooks, below the agent's prefix.
pub fn router(state: WebhookState) -> Router {
    Router::new()
        .route("/{namespace}/{agent}/twilio/voice", post(handle_voice))
        .route("/{namespace}/{agent}/twilio/action/{epoch}", post(handle_action))
        .route("/{namespace}/{agent}/twilio/status", post(handle_status))
        .with_state(state)
}

async fn handle_voice(
    State(state): State<WebhookState>,
    Path((namespace, agent)): Path<(String, String)>,
    request: Request,
) -> Response {
    let outcome = async {
        let Verified { agent, form, query } =
            request::verify(&state, &namespace, &agent, "voice", request).await?;
        let webhook = Webhook::new(&state, &agent, &form);
        let (tried, carried) = (Tried::of_query(query.as_deref()), Carried::of_query(query.as_deref()));
        let answer = webhook.answer_voice(&tried, carried).await;
        webhook.traced("webhook voice", answer)
    };
    state.respond(outcome.await)
}

async fn handle_action(
    State(state): State<WebhookState>,
    Path((namespace, agent, epoch)): Path<(String, String, String)>,
    request: Request,
) -> Response {
    let outcome = async {
        let path = format!("action/{epoch}");
        let Verified { agent, form, query } =
            request::verify(&state, &namespace, &agent, &path, request).await?;
        let epoch =
            epoch.parse().map(Epoch).map_err(|_| Refusal::Malformed { what: "the epoch in the path" })?;
        let webhook = Webhook::new(&state, &agent, &form);
        let answer = webhook.answer_action(epoch, Carried::of_query(query.as_deref())).await;
        webhook.traced("webhook action", answer)
    };
    state.respond(outcome.await)
}

async fn handle_status(
    State(state): State<WebhookState>,
    Path((namespace, agent)): Path<(String, String)>,
    request: Request,
) -> Response {
    let outcome = async {
        let Verified { agent, form, query: _ } =
            request::verify(&state, &namespace, &agent, "status", request).await?;
        if form.status.is_final() {
            let webhook = Webhook::new(&state, &agent, &form);
            let noted = webhook.finish().await.map(|()| Twiml::nothing()).map_err(|_| Refusal::Store);
            webhook.traced("webhook status", noted)?;
        }
        Ok(StatusCode::NO_CONTENT)
    };
    state.respond(outcome.await)
}

impl WebhookState {
    fn respond(&self, outcome: Result<impl IntoResponse, Refusal>) -> Response {
        match outcome {
            Ok(answer) => answer.into_response(),
            Err(refusal) => {
                self.metrics.webhooks_refused.inc(refusal.label());
                refusal.into_response()
            }
        }
    }
}

/// One verified request and what it is answered with.
struct Webhook<'a> {
    state: &'a WebhookState,
    agent: &'a AgentFile,
    form: &'a CallForm,
    now: UnixMs,
}

impl<'a> Webhook<'a> {
    fn new(state: &'a WebhookState, agent: &'a AgentFile, form: &'a CallForm) -> Self {
        Self { state, agent, form, now: (state.clock)() }
    }

    /// A call is announced, for the first time or again, or comes over from agents that had no slot for it.
    async fn answer_voice(&self, tried: &Tried, carried: Carried) -> Result<Twiml, Refusal> {
        // Another agent may have let the call wait before it asked this one.
        let has_waited = carried.origin.is_some() || !tried.is_empty();
        let announced = if tried.is_empty() { self.announced(carried) } else { self.own(carried) };
        if self.form.status.is_final() {
            return Ok(Twiml::nothing());
        }
        let store = &self.state.store;
        let known = if tried.is_empty() {
            store.create_call(&announced).await
        } else {
            store.assign_call(&announced).await
        };
        let Some(known) = self.counted(known) else {
            let verdict = self.admission().admit_alone(&announced, self.now);
            let origin = if has_waited { self.now } else { announced.origin };
            return self.answer_new(&announced, origin, verdict, tried);
        };
        if known.ended.is_some() {
            return Ok(Twiml::nothing());
        }
        if let Some(leg) = &known.leg {
            // Announced again after a stream: the carrier fell back to this URL, and the call goes on.
            return self.answer_after(leg.epoch, Some(&known), Carried::default()).await;
        }
        if known.hang_up_requested {
            // While it rang, or waited: no leg is there that could be told.
            self.release(known.record.as_ref()).await;
            return Ok(Twiml::hang_up());
        }
        let origin = known.origin();
        let call = known.record.unwrap_or(announced);
        let verdict = self.admission().admit(&call, self.now).await;
        let origin = if has_waited && verdict == Verdict::Admitted {
            let noted = self.state.store.note(&call.call, Milestone::Admitted, self.now).await;
            self.counted(noted).unwrap_or(self.now)
        } else {
            origin.unwrap_or(call.origin)
        };
        self.answer_new(&call, origin, verdict, tried)
    }

    /// Answers a call that has no stream yet; `origin` is the zero of its own time if it is admitted.
    fn answer_new(
        &self,
        call: &CallRecord,
        origin: UnixMs,
        verdict: Verdict,
        tried: &Tried,
    ) -> Result<Twiml, Refusal> {
        match verdict {
            Verdict::Admitted => {
                let (epoch, pause, tally) = (Epoch(0), Pause::default(), Tally::default());
                self.connect(NextStream { call, origin, epoch, pause, tally, past: Past::Untaken })
            }
            Verdict::Waits => {
                let carried = Carried { origin: Some(call.origin), ..Carried::default() };
                let again = voice_url(self.agent, &self.agent.name, tried, carried);
                Ok(answer::wait(self.agent, again, self.form.status))
            }
            Verdict::Refused(refusal) => Ok(self.answer_refused(call, refusal, tried)),
        }
    }

    fn answer_refused(&self, call: &CallRecord, refusal: CallRefusal, tried: &Tried) -> Twiml {
        let metrics = &self.state.metrics;
        metrics.calls_refused.inc(refusal);
        match instead(self.agent, &call.agent, refusal, tried) {
            Instead::Say(sentence) => Twiml::say(&sentence),
            Instead::Ask(url) => {
                metrics.calls_overflowed.inc(OverflowLabel::Agent);
                tracing::info!(call_sid = %call.call, "no slot is free: another agent is asked");
                Twiml::ask(url)
            }
            Instead::Forward(target) => {
                metrics.calls_overflowed.inc(OverflowLabel::Forward);
                tracing::info!(call_sid = %call.call, "no slot is free: the call is forwarded");
                answer::transfer(self.agent, target, call, Epoch(0))
            }
        }
    }

    /// The stream of `epoch` is over.
    async fn answer_action(&self, epoch: Epoch, carried: Carried) -> Result<Twiml, Refusal> {
        if self.form.status.is_final() {
            // A failure was counted; the status callback says the same once more.
            self.finish().await.ok();
            return Ok(Twiml::nothing());
        }
        if let Some(status) = &self.form.dial_status {
            return Ok(after_transfer(self.agent, status));
        }
        let known = self.counted(self.state.store.load_call(&self.form.call).await);
        let known = known.map(Option::unwrap_or_default);
        if known.as_ref().is_some_and(|known| known.ended.is_some()) {
            return Ok(Twiml::nothing());
        }
        self.answer_after(epoch, known.as_ref(), carried).await
    }

    /// What comes after a leg; nothing is `known` where the store does not answer. Where no record is known the store has just
    /// failed (or lost it) and is not asked again: somebody is waiting on the line.
    async fn answer_after(
        &self,
        epoch: Epoch,
        known: Option<&CallState>,
        carried: Carried,
    ) -> Result<Twiml, Refusal> {
        let record = known.and_then(|known| known.record.as_ref());
        let call = record.cloned().unwrap_or_else(|| self.own(carried));
        let origin = carried.origin.or_else(|| known?.origin()).unwrap_or(self.now);
        let began = if epoch == Epoch(0) { carried.origin } else { carried.untaken };
        let past = Past::of(known, began, self.now);
        let after = match known {
            Some(known) => after_leg(epoch, known, carried.tally, self.agent.recovery.attempts),
            None => after_unseen(epoch, carried.tally),
        };
        match after {
            After::Connect { epoch, pause, tally } => {
                if record.is_some() {
                    self.admission().readmit(&call, self.now).await;
                }
                self.connect(NextStream { call: &call, origin, epoch, pause, tally, past })
            }
            After::HangUp => {
                self.release(record).await;
                Ok(Twiml::hang_up())
            }
            After::Say(text) => {
                self.release(record).await;
                Ok(Twiml::say(&Sentence::of(self.agent, text)))
            }
            After::Transfer(target) => {
                self.release(record).await;
                let noted = self.state.store.note(&call.call, Milestone::Transferred, self.now).await;
                let _ = self.counted(noted);
                Ok(self.transfer(&target, &call, epoch))
            }
            After::GiveUp => {
                self.release(record).await;
                self.state.metrics.calls_lost.inc(CallLoss::Attempts);
                tracing::warn!(call_sid = %call.call, epoch = epoch.0, "the call is given up: no attempts left");
                Ok(self.refuse(CallRefusal::Attempts))
            }
        }
    }

    /// The call is over: its slot is free, its talk time counts once.
    async fn finish(&self) -> Result<(), StoreError> {
        let store = &self.state.store;
        let CallEnd { is_first, known } = self.or_counted(store.end_call(&self.form.call, self.now).await)?;
        let own = self.own_key();
        let agent = known.record.as_ref().map_or(&own, |record| &record.agent);
        if let (true, Some(record)) = (is_first, &known.record) {
            self.trace_whole(record, known.leg.as_ref());
        }
        self.or_counted(store.release_slot(agent, &self.form.call).await)?;
        // A call that was turned away or forwarded at once never talked to the agent.
        if let (true, Some(origin), Some(_)) = (is_first, known.origin(), &known.leg) {
            // The carrier's word is about the whole call, and so about the person it was passed on to as well.
            let time = match known.transferred {
                Some(transferred) => transferred.since(origin),
                None => self.form.duration.unwrap_or_else(|| self.now.since(origin)),
            };
            self.or_counted(store.add_talk_time(agent, self.now, time).await)?;
        }
        Ok(())
    }

    fn connect(&self, next: NextStream<'_>) -> Result<Twiml, Refusal> {
        let keyring = self.state.keyring.borrow().clone();
        answer::connect(self.agent, &keyring, next, self.now).map_err(|error| {
            tracing::error!(%error, "the keyring cannot be used; no stream can be opened");
            Refusal::Keyring
        })
    }

    fn transfer(&self, target: &str, call: &CallRecord, epoch: Epoch) -> Twiml {
        let target = self.agent.transfer_targets.iter().find(|known| known.name == target);
        match target {
            Some(target) => answer::transfer(self.agent, target, call, epoch),
            None => {
                tracing::error!(call_sid = %call.call, "a transfer target is no longer configured");
                Twiml::say(&sentence_for(CallRefusal::Attempts, self.agent))
            }
        }
    }

    fn refuse(&self, refusal: CallRefusal) -> Twiml {
        self.state.metrics.calls_refused.inc(refusal);
        Twiml::say(&sentence_for(refusal, self.agent))
    }

    async fn release(&self, record: Option<&CallRecord>) {
        let Some(record) = record else { return };
        let _ = self.counted(self.state.store.release_slot(&record.agent, &record.call).await);
    }

    fn admission(&self) -> Admission<'_> {
        Admission { agent: self.agent, store: &*self.state.store, metrics: &self.state.metrics }
    }

    /// The call as this request tells it.
    fn announced(&self, carried: Carried) -> CallRecord {
        let name = choose_agent(self.agent, self.form.to.expose(), &self.form.call).to_owned();
        self.answered_by(AgentKey { namespace: self.agent.namespace.clone(), name }, carried)
    }

    /// The same of a call that is this agent's already: another had no slot for it, or its stream is over. Its number may be
    /// shared out here as well; that was done before.
    fn own(&self, carried: Carried) -> CallRecord {
        self.answered_by(self.own_key(), carried)
    }

    fn answered_by(&self, agent: AgentKey, carried: Carried) -> CallRecord {
        CallRecord {
            call: self.form.call.clone(),
            agent,
            origin: carried.origin.unwrap_or(self.now),
            from: self.form.from.clone(),
            to: self.form.to.clone(),
        }
    }

    /// This request as a part of its call's trace.
    fn traced(&self, name: &'static str, answer: Result<Twiml, Refusal>) -> Result<Twiml, Refusal> {
        let mut span = self.state.traces.of_call(&self.form.call).begin(name, SpanKind::Server, self.now);
        match &answer {
            Ok(twiml) => span.set("switchboard.answer", twiml.word),
            Err(refusal) => span.fail(refusal.to_string()),
        }
        span.end((self.state.clock)());
        answer
    }

    /// The call from its announcement to its end.
    fn trace_whole(&self, record: &CallRecord, leg: Option<&Leg>) {
        let mut whole = self.state.traces.of_call(&record.call).whole(record.origin);
        whole.set("switchboard.call_sid", record.call.to_string());
        whole.set("switchboard.agent", record.agent.name.clone());
        whole.set("switchboard.namespace", record.agent.namespace.clone());
        whole.set("switchboard.streams", leg.map_or(0, |leg| i64::from(leg.epoch.0) + 1));
        whole.end(self.now);
    }

    fn own_key(&self) -> AgentKey {
        AgentKey { namespace: self.agent.namespace.clone(), name: self.agent.name.clone() }
    }

    fn counted<T>(&self, answer: Result<T, StoreError>) -> Option<T> {
        self.or_counted(answer).ok()
    }

    fn or_counted<T>(&self, answer: Result<T, StoreError>) -> Result<T, StoreError> {
        answer.inspect_err(|error| {
            self.state.metrics.store_failures.inc();
            tracing::warn!(%error, call_sid = %self.form.call, "the store failed a webhook");
        })
    }
}
