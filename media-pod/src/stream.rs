//! The media stream's door: from an upgrade request to a running leg.
//!
//! *Flow*: the upgrade's own signature → a place among the sockets that wait → `start` within five seconds and a few
//! bytes → the token, bound to account, call and agent → the pod's phase and capacity → the leg is attached in the store,
//! once → the call runs.
//!
//! *Guarantees*: nothing of a model is touched before the token was verified; every refusal is counted by reason. A token
//! refused closes with 1008; a full or leaving pod closes normally, and the carrier asks `<Connect action>` for another.
//!
//! *Caveats*: without the store a token is taken at its word (single use is best effort), and a leg that goes on does
//! so without its journal.

use std::hash::{BuildHasher as _, Hasher as _};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse as _, Response};
use call_session::agent_file::{AgentFile, Carrier};
use call_session::io::{EndReason, Ending, Next};
use call_session::plan::{Plan, Variables};
use call_session::twilio::{Frame, Start};
use call_session::{Call, Epoch, Redacted};
use futures_util::FutureExt as _;
use http::StatusCode;
use tokio::sync::OwnedSemaphorePermit;
use tracing::Instrument as _;
use twilio::signature::{SIGNATURE_HEADER, Validator};

use crate::bridge::Leg;
use crate::calls::{Admitted, NotAdmitted};
use crate::comfort::Comfort;
use crate::duplex::{Duplex, Incoming};
use crate::leases::LEASE;
use crate::listener::Upgrade;
use crate::metrics::{CallLoss, LegLabel, Metrics, PhoneFault, StreamRefusal};
use crate::phone::{BOUNDS, Phone};
use crate::pod::Pod;
use crate::scribe::{LegId, Scribe};
use crate::store::{AgentKey, Attachment, CallRecord, StoreError};
use crate::telemetry::call_span;
use crate::timeline::Timeline;
use crate::token::{Bearer, Claims, StreamKeys, TokenError};
use crate::traces::leg::LegTrace;
use crate::webhook::{TOKEN_PARAMETER, stream_url};

/// Sockets that may wait for their `start` at once: a hundred calls a second for two seconds.
pub(crate) const MOST_WAITING: usize = 256;

/// Twilio sends `start` right after `connected`; this is many round trips.
const START_TIMEOUT: Duration = Duration::from_secs(5);

/// `connected` and `start` with all its parameters are below 8 kB.
const MOST_BYTES_BEFORE_START: usize = 16 * 1024;

/// Those two, and a few that mean nothing.
const MOST_MESSAGES_BEFORE_START: usize = 8;

/// How long a refused peer may take to answer the close.
const CLOSING: Duration = Duration::from_secs(1);

/// Policy violation: a stream that may not be here.
const REFUSED: u16 = 1008;

/// A normal end: the carrier goes on with `<Connect action>`.
const NORMAL: u16 = 1000;

/// `GET /{namespace}/{agent}/twilio/stream`.
pub(crate) async fn handle_upgrade(
    State(pod): State<Arc<Pod>>,
    Path((namespace, agent)): Path<(String, String)>,
    mut request: Request,
) -> Response {
    match check_upgrade(&pod, AgentKey { namespace, name: agent }, &mut request) {
        Ok((upgrade, place)) => {
            let response = upgrade.response();
            tokio::spawn(serve(pod, upgrade, place));
            response
        }
        Err(refusal) => {
            pod.metrics.streams_refused.inc(refusal);
            tracing::debug!(?refusal, "a media stream was refused");
            status(refusal).into_response()
        }
    }
}

fn check_upgrade(
    pod: &Pod,
    key: AgentKey,
    request: &mut Request,
) -> Result<(Upgrade, OwnedSemaphorePermit), StreamRefusal> {
    let agent = pod.agent();
    if key != own_key(&agent) {
        return Err(StreamRefusal::UnknownAgent);
    }
    let signature = request.headers().get(SIGNATURE_HEADER).and_then(|value| value.to_str().ok());
    let signature = signature.ok_or(StreamRefusal::Signature)?;
    validator(pod, &agent)
        .verify_upgrade(&stream_url(&agent.public_url, &key), signature)
        .map_err(|_| StreamRefusal::Signature)?;
    let upgrade = Upgrade::of(request).map_err(|_| StreamRefusal::Malformed)?;
    let place = pod.waiting.clone().try_acquire_owned().map_err(|_| StreamRefusal::TooManySockets)?;
    Ok((upgrade, place))
}

/// Every auth token that can be read verifies; without one nothing does.
fn validator(pod: &Pod, agent: &AgentFile) -> Validator {
    let Carrier::Twilio { twilio } = &agent.carrier;
    Validator::new(twilio.auth_tokens.iter().filter_map(|reference| match pod.secrets.read(reference) {
        Ok(token) => Some(token),
        Err(error) => {
            tracing::warn!(%error, "an auth token cannot be read");
            None
        }
    }))
}

const fn status(refusal: StreamRefusal) -> StatusCode {
    match refusal {
        StreamRefusal::Signature => StatusCode::FORBIDDEN,
        StreamRefusal::UnknownAgent => StatusCode::NOT_FOUND,
        StreamRefusal::TooManySockets => StatusCode::SERVICE_UNAVAILABLE,
        // The rest is found out after the upgrade, and said by a close code.
        StreamRefusal::Malformed
        | StreamRefusal::StartTimeout
        | StreamRefusal::StartTooLarge
        | StreamRefusal::Token
        | StreamRefusal::Keyring
        | StreamRefusal::TokenForeign
        | StreamRefusal::TokenExpired
        | StreamRefusal::TokenUsed
        | StreamRefusal::Full
        | StreamRefusal::Draining
        | StreamRefusal::Lost => StatusCode::BAD_REQUEST,
    }
}

/// What an open socket is closed with.
const fn close_code(refusal: StreamRefusal) -> u16 {
    match refusal {
        StreamRefusal::Full | StreamRefusal::Draining => NORMAL,
        StreamRefusal::Signature
        | StreamRefusal::UnknownAgent
        | StreamRefusal::TooManySockets
        | StreamRefusal::Malformed
        | StreamRefusal::StartTimeout
        | StreamRefusal::StartTooLarge
        | StreamRefusal::Token
        | StreamRefusal::Keyring
        | StreamRefusal::TokenForeign
        | StreamRefusal::TokenExpired
        | StreamRefusal::TokenUsed
        | StreamRefusal::Lost => REFUSED,
    }
}

/// One socket, from its upgrade to its end.
async fn serve(pod: Arc<Pod>, upgrade: Upgrade, place: OwnedSemaphorePermit) {
    let Ok(Some(mut socket)) = tokio::time::timeout(START_TIMEOUT, upgrade.open(BOUNDS)).await else {
        pod.metrics.streams_refused.inc(StreamRefusal::Lost);
        return;
    };
    let admission = async {
        let start = tokio::time::timeout(START_TIMEOUT, read_start(&pod, &mut socket))
            .await
            .map_err(|_| StreamRefusal::StartTimeout)??;
        let accepted = accept(&pod, &start).await?;
        Ok((start, accepted))
    };
    let outcome = admission.await;
    drop(place);
    match outcome {
        Ok((start, accepted)) => {
            let span = call_span(&start.call_sid, &start.stream_sid, &accepted.agent.name);
            carry(pod, socket, *start, accepted).instrument(span).await;
        }
        Err(refusal) => {
            pod.metrics.streams_refused.inc(refusal);
            tracing::info!(?refusal, "a media stream was refused");
            socket.close(close_code(refusal), "", CLOSING).await;
        }
    }
}

/// Waits for `start`, within few bytes and messages.
async fn read_start(pod: &Pod, socket: &mut Duplex) -> Result<Box<Start>, StreamRefusal> {
    let mut bytes = 0;
    for _ in 0..MOST_MESSAGES_BEFORE_START {
        let message = match socket.next().await {
            Incoming::Text(message) => message,
            Incoming::Binary => return Err(StreamRefusal::Malformed),
            Incoming::TooLarge => return Err(StreamRefusal::StartTooLarge),
            Incoming::Closed(_) | Incoming::Stalled | Incoming::Broken => return Err(StreamRefusal::Lost),
        };
        bytes += message.len();
        if bytes > MOST_BYTES_BEFORE_START {
            return Err(StreamRefusal::StartTooLarge);
        }
        match Frame::parse(&message) {
            Ok(Frame::Start(start)) if start.media_format.is_telephony() => return Ok(start),
            Ok(Frame::Connected) => {}
            Ok(Frame::Unknown(_)) => pod.metrics.phone_faults.inc(PhoneFault::Unknown),
            Ok(
                Frame::Start(_) | Frame::Media { .. } | Frame::Dtmf { .. } | Frame::Mark { .. } | Frame::Stop,
            )
            | Err(_) => return Err(StreamRefusal::Malformed),
        }
    }
    Err(StreamRefusal::StartTooLarge)
}

/// A stream that may become a leg.
struct Accepted {
    agent: Arc<AgentFile>,
    claims: Claims,
    /// Whether it is the call's first leg.
    leg: LegLabel,
    admitted: Admitted,
}

async fn accept(pod: &Pod, start: &Start) -> Result<Accepted, StreamRefusal> {
    let agent = pod.agent();
    let claims = verify_token(pod, &agent, start)?;
    if !pod.phase.borrow().admits() {
        bounce(pod, &claims).await;
        return Err(StreamRefusal::Draining);
    }
    let admitted = pod.calls.admit(&claims.call, claims.epoch, agent.max_calls_per_pod);
    let admitted = match admitted {
        Ok(admitted) => admitted,
        Err(NotAdmitted::Present) => return Err(StreamRefusal::TokenUsed),
        Err(NotAdmitted::Full) => {
            bounce(pod, &claims).await;
            return Err(StreamRefusal::Full);
        }
    };
    let leg = match pod.stored(pod.store.attach(&claims.call, claims.epoch, &pod.owner).await) {
        Some(Attachment::First) => LegLabel::Fresh,
        Some(Attachment::Next) => LegLabel::Resumed,
        None if claims.is_first() => LegLabel::Fresh,
        None => LegLabel::Resumed,
        Some(Attachment::Used | Attachment::Superseded | Attachment::Over) => {
            return Err(StreamRefusal::TokenUsed);
        }
    };
    Ok(Accepted { agent, claims, leg, admitted })
}

/// Leaves word that this pod is alive and does not take the leg, so that the next one is opened at once.
async fn bounce(pod: &Pod, claims: &Claims) {
    let ending = Ending { reason: EndReason::HandedOver, next: Next::Reconnect };
    pod.stored(pod.store.record_ending(&claims.call, claims.epoch, &ending).await);
}

fn verify_token(pod: &Pod, agent: &AgentFile, start: &Start) -> Result<Claims, StreamRefusal> {
    let keys = StreamKeys::new(&pod.keyring.borrow()).map_err(|error| {
        tracing::error!(%error, "the keyring cannot be used; no stream is accepted");
        StreamRefusal::Keyring
    })?;
    let key = own_key(agent);
    let bearer = Bearer { account: &start.account_sid, call: &start.call_sid, agent: &key };
    let token = start.custom_parameters.get(TOKEN_PARAMETER).ok_or(StreamRefusal::Token)?;
    let claims = keys.verify(token.expose(), &bearer, (pod.clock)()).map_err(|error| match error {
        TokenError::Foreign => StreamRefusal::TokenForeign,
        TokenError::Expired => StreamRefusal::TokenExpired,
        TokenError::Malformed | TokenError::UnknownKey | TokenError::Forged => StreamRefusal::Token,
    })?;
    let Carrier::Twilio { twilio } = &agent.carrier;
    if claims.account == twilio.account_sid { Ok(claims) } else { Err(StreamRefusal::TokenForeign) }
}

/// Carries an accepted stream to the end of its leg. A panic ends this leg and nothing else.
async fn carry(pod: Arc<Pod>, socket: Duplex, start: Start, accepted: Accepted) {
    let leg = LegId { call: accepted.claims.call.clone(), epoch: accepted.claims.epoch };
    pod.metrics.legs_started.inc(accepted.leg);
    match accepted.leg {
        LegLabel::Fresh => {
            let setup = (pod.clock)().since(accepted.claims.origin);
            pod.metrics.call_setup.observe(Duration::from_millis(setup.0).as_secs_f64());
        }
        LegLabel::Resumed => {}
    }
    tracing::info!(epoch = leg.epoch.0, "the call is here");

    let run = async {
        let leg = prepare(&pod, socket, start, accepted).await;
        leg.run().await
    };
    let ending = match isolated(run, &pod.metrics).await {
        Some(ending) => ending,
        None => {
            let ending = Ending { reason: EndReason::Internal, next: Next::Reconnect };
            pod.stored(pod.store.record_ending(&leg.call, leg.epoch, &ending).await);
            ending
        }
    };
    pod.metrics.calls_ended.inc(ending.reason);
    if let Some(loss) = CallLoss::of(ending.reason) {
        pod.metrics.calls_lost.inc(loss);
    }
    tracing::info!(reason = ?ending.reason, "the leg is over");
}

/// Runs a leg so that a bug in it ends it and nothing else; `None` after a panic. What the leg held is dropped with it.
async fn isolated(run: impl Future<Output = Ending>, metrics: &Metrics) -> Option<Ending> {
    let ending = AssertUnwindSafe(run).catch_unwind().await.ok();
    if ending.is_none() {
        metrics.call_panics.inc();
        tracing::error!("a bug ended the leg; another one goes on");
    }
    ending
}

/// Gathers what the leg needs: what is known of the call, the plan, the machine.
async fn prepare(pod: &Pod, socket: Duplex, start: Start, accepted: Accepted) -> Leg {
    let Accepted { agent, claims, leg: label, admitted } = accepted;
    let leg = LegId { call: claims.call.clone(), epoch: claims.epoch };
    let key = own_key(&agent);
    let until = (pod.clock)().plus(LEASE);
    let (claimed, known, beginning) = tokio::join!(
        pod.store.claim_slot(&key, &leg.call, until),
        pod.store.load_call(&leg.call),
        beginning(pod, &leg, label),
    );
    pod.stored(claimed);
    let record = pod.stored(known).flatten().and_then(|state| state.record);
    let plan = Arc::new(Plan::new(&agent, &variables(&agent, &start, record.as_ref())));
    let timeline = Timeline::begin((pod.clock)().since(claims.origin));
    let part = (leg.epoch, &start.stream_sid, &key);
    let trace = LegTrace::begin(&pod.traces.of_call(&leg.call), claims.origin, timeline.now(), part);
    let call = Call::new(plan.clone(), leg.epoch, beginning, timeline.now(), seed());
    Leg {
        call,
        comfort: Comfort::new(timeline.now()),
        plan,
        timeline,
        phone: Phone::new(socket, start.stream_sid, pod.metrics.clone()),
        engines: pod.engines.clone(),
        scribe: Scribe::spawn(pod.store.clone(), leg, pod.metrics.clone()),
        admitted,
        phase: Some(pod.phase.subscribe()),
        metrics: pod.metrics.clone(),
        trace,
        first_model: None,
    }
}

/// How the machine begins. The call's first leg greets, though its stream may not be the first; another one whose journal nobody
/// gives says so.
async fn beginning(pod: &Pod, leg: &LegId, label: LegLabel) -> call_session::Start {
    if leg.epoch == Epoch(0) {
        return call_session::Start::Fresh;
    }
    match (pod.stored(pod.store.load_journal(&leg.call).await), label) {
        (Some(journal), _) => call_session::Start::Resumed(journal),
        (None, LegLabel::Fresh) => call_session::Start::Fresh,
        (None, LegLabel::Resumed) => call_session::Start::Unknown,
    }
}

/// What fills the persona's placeholders. Ours win over the stream's parameters of the same name.
fn variables(agent: &AgentFile, start: &Start, record: Option<&CallRecord>) -> Variables {
    let unknown = Redacted::new("unknown".to_owned());
    let parameters = start.custom_parameters.iter().filter(|(name, _)| *name != TOKEN_PARAMETER);
    parameters
        .fold(Variables::default(), |variables, (name, value)| variables.with(name, value.expose()))
        .with("agent", &agent.name)
        .with("caller", record.map_or(&unknown, |record| &record.from).expose())
        .with("called", record.map_or(&unknown, |record| &record.to).expose())
}

/// Chance for the machine's backoff: the standard library's own random keys.
fn seed() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}

/// The agent's key in tokens, URLs and the store.
pub(crate) fn own_key(agent: &AgentFile) -> AgentKey {
    AgentKey { namespace: agent.namespace.clone(), name: agent.name.clone() }
}

impl Pod {
    /// The store's answer, or none: its failure is counted, and the call goes on without.
    fn stored<T>(&self, answer: Result<T, StoreError>) -> Option<T> {
        answer
            .inspect_err(|error| {
                self.metrics.store_failures.inc();
                tracing::warn!(%error, "the store failed a stream");
            })
            .ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::Calls;

    #[tokio::test]
    async fn a_panic_ends_its_leg_is_counted_and_frees_the_place() {
        let metrics = Arc::new(Metrics::register().unwrap());
        let calls = Calls::new(metrics.clone());
        let call = "CA00000000000000000000000000000001".parse().unwrap();
        let admitted = calls.admit(&call, Epoch(0), 1).unwrap();
        let run = async move {
            let _admitted = admitted;
            tokio::task::yield_now().await;
            panic!("a bug");
        };
        assert_eq!(isolated(run, &metrics).await, None);
        assert_eq!((metrics.call_panics.get(), calls.count()), (1, 0));

        let ending = Ending { reason: EndReason::CallerHungUp, next: Next::HangUp };
        assert_eq!(isolated(std::future::ready(ending.clone()), &metrics).await, Some(ending));
        assert_eq!(metrics.call_panics.get(), 1);
    }
}
