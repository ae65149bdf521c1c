//! Tests of one leg, on paused time: the phone is a pipe, the model is the built-in one.

use std::sync::atomic::{AtomicBool, Ordering};

use call_session::io::{EndReason, ModelLoss, Next};
use call_session::journal::{Entry, Journal};
use call_session::plan::Variables;
use call_session::{CallSid, Epoch, Start};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::DuplexStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::*;
use crate::calls::Calls;
use crate::clock::UnixMs;
use crate::duplex::{Duplex, Transport};
use crate::engine::realtime::Dialer;
use crate::metrics::PhoneFault;
use crate::phone::BOUNDS;
use crate::scribe::LegId;
use crate::store::memory::MemoryStore;
use crate::store::{
    AgentKey, Answer, Attachment, CallEnd, CallRecord, CallState, Milestone, Renewal, Reservation,
    SlotRequest, Slots, Standing, Store, StoreError,
};

/// A store that can be away.
#[derive(Default)]
struct Flaky {
    inner: MemoryStore,
    is_away: AtomicBool,
}

impl Flaky {
    fn answer<'a, T: Send + 'a>(&self, answer: Answer<'a, T>) -> Answer<'a, T> {
        if self.is_away.load(Ordering::Relaxed) {
            return Box::pin(std::future::ready(Err(StoreError::Unavailable("away".to_owned()))));
        }
        answer
    }
}

macro_rules! delegate {
    ($($name:ident($($argument:ident: $type:ty),*) -> $answer:ty;)+) => {
        impl Store for Flaky {
            $(fn $name<'a>(&'a self, $($argument: $type),*) -> Answer<'a, $answer> {
                self.answer(self.inner.$name($($argument),*))
            })+
        }
    };
}

delegate! {
    create_call(record: &'a CallRecord) -> CallState;
    assign_call(record: &'a CallRecord) -> CallState;
    load_call(call: &'a CallSid) -> Option<CallState>;
    list_calls(agent: &'a AgentKey, limit: usize) -> Vec<CallState>;
    note(call: &'a CallSid, milestone: Milestone, now: UnixMs) -> UnixMs;
    end_call(call: &'a CallSid, now: UnixMs) -> CallEnd;
    request_hang_up(call: &'a CallSid) -> bool;
    reserve_slot(request: &'a SlotRequest<'a>) -> Reservation;
    claim_slot(agent: &'a AgentKey, call: &'a CallSid, until: UnixMs) -> ();
    release_slot(agent: &'a AgentKey, call: &'a CallSid) -> ();
    count_slots(agent: &'a AgentKey, now: UnixMs) -> Slots;
    add_talk_time(agent: &'a AgentKey, now: UnixMs, time: Ms) -> ();
    attach(call: &'a CallSid, epoch: Epoch, owner: &'a str) -> Attachment;
    renew(renewal: &'a Renewal<'a>) -> Vec<Standing>;
    record_ending(call: &'a CallSid, epoch: Epoch, ending: &'a Ending) -> ();
    append_journal(call: &'a CallSid, entries: &'a [Entry]) -> ();
    load_journal(call: &'a CallSid) -> Journal;
}

type Peer = WebSocketStream<DuplexStream>;

/// One leg and what surrounds it.
struct Scene {
    store: Arc<Flaky>,
    metrics: Arc<Metrics>,
    calls: Calls,
    phase: watch::Sender<Phase>,
    call: CallSid,
}

impl Scene {
    fn new() -> Self {
        let metrics = Arc::new(Metrics::register().unwrap());
        Self {
            store: Arc::default(),
            calls: Calls::new(metrics.clone()),
            metrics,
            phase: watch::Sender::new(Phase::Serving),
            call: "CA00000000000000000000000000000001".parse().unwrap(),
        }
    }

    /// A fresh leg that begins with `greeting`, and its phone.
    async fn leg(&self, greeting: &str) -> (Leg, Peer) {
        self.leg_of("type: Simulated, simulated: {}", greeting).await
    }

    /// The same with this engine.
    async fn leg_of(&self, engine: &str, greeting: &str) -> (Leg, Peer) {
        let agent = crate::agent::parse(&format!(
            "formatVersion: 1\nnamespace: n\nname: a\npublicUrl: https://voice.example.com\n\
             carrier: {{type: Twilio, twilio: {{accountSid: AC00000000000000000000000000000001, \
             authTokens: [{{name: t, key: k}}]}}}}\n\
             persona: {{instructions: Be kind., greeting: {{text: '{greeting}'}}}}\n\
             engines: [{{name: main, {engine}}}]\n"
        ))
        .unwrap();
        let plan = Arc::new(Plan::new(&agent, &Variables::default()));
        let timeline = Timeline::begin(Ms(1000));
        let epoch = Epoch(0);
        let (ours, theirs) = tokio::io::duplex(16 * 1024);
        let ours: Box<dyn Transport> = Box::new(ours);
        let socket = WebSocketStream::from_raw_socket(ours, Role::Server, Some(BOUNDS.config())).await;
        let peer = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
        let stream = "MZ00000000000000000000000000000001".parse().unwrap();
        let keys: crate::engine::Keys = Arc::new(|_| Some(twilio::Secret::new("key")));
        let id = LegId { call: self.call.clone(), epoch };
        let leg = Leg {
            call: Call::new(plan.clone(), epoch, Start::Fresh, timeline.now(), 7),
            plan,
            timeline,
            comfort: Comfort::new(timeline.now()),
            phone: Phone::new(Duplex::new(socket, BOUNDS), stream, self.metrics.clone()),
            engines: Engines::new(Dialer::new(None).unwrap(), keys, self.metrics.clone()),
            scribe: Scribe::spawn(self.store.clone(), id, self.metrics.clone()),
            admitted: self.calls.admit(&self.call, epoch, 9).unwrap(),
            phase: Some(self.phase.subscribe()),
            metrics: self.metrics.clone(),
            trace: LegTrace::default(),
            first_model: None,
        };
        (leg, peer)
    }

    async fn ending(&self) -> Option<Ending> {
        let state = self.store.inner.load_call(&self.call).await.unwrap()?;
        state.endings.get(&Epoch(0)).cloned()
    }
}

/// Plays everything at once: takes it and returns its marks, until the socket is closed; the bytes of audio heard.
async fn listen(mut peer: Peer) -> usize {
    let mut heard = 0;
    while let Some(Ok(message)) = peer.next().await {
        let Message::Text(text) = message else { continue };
        let message: serde_json::Value = serde_json::from_str(&text).unwrap();
        match message["event"].as_str() {
            Some("media") => heard += message["media"]["payload"].as_str().unwrap().len(),
            Some("mark") => {
                let echo = serde_json::json!({"event": "mark", "sequenceNumber": "2",
                    "streamSid": message["streamSid"], "mark": message["mark"]});
                peer.send(Message::text(echo.to_string())).await.unwrap();
            }
            _ => {}
        }
    }
    heard
}

/// A text that takes minutes to say.
fn endless() -> String {
    "And so it went on and on and on, as these things do, until nobody remembered how it began. ".repeat(60)
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_does_not_touch_the_call_and_gets_its_ending_afterwards() {
    let scene = Scene::new();
    scene.store.is_away.store(true, Ordering::Relaxed);
    let (leg, mut peer) = scene.leg("Hello.").await;
    let running = tokio::spawn(leg.run());
    let first = peer.next().await.unwrap().unwrap();
    assert!(first.to_text().unwrap().contains("\"media\""), "the caller is greeted");
    peer.send(Message::text(r#"{"event":"stop","sequenceNumber":"9"}"#)).await.unwrap();
    let listening = tokio::spawn(listen(peer));

    let began = Instant::now();
    let ending = running.await.unwrap();
    assert_eq!(ending, Ending { reason: EndReason::CallerHungUp, next: Next::HangUp });
    assert!(began.elapsed() <= Duration::from_secs(5), "the end waits for the store only so long");
    assert_eq!(scene.calls.count(), 0);
    assert_eq!(scene.ending().await, None);
    listening.await.unwrap();

    scene.store.is_away.store(false, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(5)).await; // virtual: past the writer's longest pause
    assert_eq!(scene.ending().await, Some(ending));
    assert!(scene.metrics.store_failures.get() > 0);
}

#[tokio::test(start_paused = true)]
async fn the_ending_is_in_the_store_before_the_phone_is_closed() {
    let scene = Scene::new();
    let (leg, mut peer) = scene.leg("Hello.").await;
    let running = tokio::spawn(leg.run());
    peer.send(Message::text(r#"{"event":"stop","sequenceNumber":"9"}"#)).await.unwrap();
    while let Some(Ok(message)) = peer.next().await {
        if message.is_close() {
            break;
        }
    }
    assert_eq!(scene.ending().await.map(|ending| ending.reason), Some(EndReason::CallerHungUp));
    drop(peer);
    running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_phone_that_does_not_read_ends_its_leg() {
    let scene = Scene::new();
    let (leg, _deaf) = scene.leg(&endless()).await;
    let began = Instant::now();
    let ending = leg.run().await;
    assert_eq!(ending.reason, EndReason::PhoneLost);
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "by time, long before by bytes: {:?}",
        began.elapsed()
    );
    assert_eq!(scene.metrics.phone_faults.count(PhoneFault::TooSlow), 1);
    assert_eq!(scene.metrics.active_calls.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_caller_whose_model_never_answers_hears_a_clip_within_two_seconds_and_an_apology_at_last() {
    // Connections are taken by the kernel; nobody answers on them.
    let silent = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("ws://{}/v1/realtime", silent.local_addr().unwrap());
    let engine = format!(
        "type: Realtime, realtime: {{url: '{url}', model: m, voice: v, apiKey: {{name: o, key: k}}}}"
    );
    let scene = Scene::new();
    let (leg, mut peer) = scene.leg_of(&engine, "Hello.").await;
    let began = Instant::now();
    let running = tokio::spawn(leg.run());
    let first = peer.next().await.unwrap().unwrap();
    assert!(first.to_text().unwrap().contains("\"media\""), "{first}");
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let listening = tokio::spawn(listen(peer));
    let ending = running.await.unwrap();
    assert_eq!(ending.reason, EndReason::ModelUnreachable);
    assert!(matches!(ending.next, Next::SayAndHangUp { .. }));
    assert!(listening.await.unwrap() > 0, "and more clips while it was tried again");
    assert!(scene.metrics.clips_played.get() > 1);
}

#[tokio::test(start_paused = true)]
async fn a_caller_with_a_model_hears_no_clip() {
    let scene = Scene::new();
    let (leg, peer) = scene.leg("Hello.").await;
    let running = tokio::spawn(leg.run());
    let listening = tokio::spawn(listen(peer));
    running.await.unwrap(); // by silence, after a minute
    listening.await.unwrap();
    assert_eq!(scene.metrics.clips_played.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn only_a_leg_s_first_model_session_tells_how_long_a_caller_waited_for_it() {
    let scene = Scene::new();
    let (mut leg, _peer) = scene.leg("Hello.").await;
    let ready = |after| Event::ModelReady { after };
    for event in [ready(Ms(250)), Event::ModelLost { reason: ModelLoss::Closed }, ready(Ms(90_000))] {
        leg.count(&event);
    }
    let histogram = &scene.metrics.model_ready;
    assert_eq!((histogram.get_sample_count(), histogram.get_sample_sum()), (1, 0.25));
}

#[tokio::test(start_paused = true)]
async fn a_leaving_pod_hands_a_busy_call_over_at_the_deadline_at_the_latest() {
    let scene = Scene::new();
    let (leg, peer) = scene.leg(&endless()).await;
    let listening = tokio::spawn(listen(peer));
    let running = tokio::spawn(leg.run());
    let began = Instant::now();
    let deadline = began + Duration::from_secs(15);
    scene.phase.send_replace(Phase::HandingOver { deadline });
    let ending = running.await.unwrap();
    assert_eq!(ending, Ending { reason: EndReason::HandedOver, next: Next::Reconnect });
    assert!(began.elapsed() <= Duration::from_secs(16), "{:?}", began.elapsed());
    listening.await.unwrap();
    assert_eq!(scene.ending().await, Some(ending));
}

#[tokio::test(start_paused = true)]
async fn notices_from_outside_end_the_leg_each_with_its_reason() {
    let cases = [
        (Notice::HangUp, EndReason::OperatorHungUp),
        (Notice::Superseded, EndReason::PhoneLost),
        (Notice::Over, EndReason::CallerHungUp),
    ];
    for (notice, reason) in cases {
        let scene = Scene::new();
        let (leg, peer) = scene.leg("Hello.").await;
        let listening = tokio::spawn(listen(peer));
        let running = tokio::spawn(leg.run());
        assert!(scene.calls.tell_newest(&scene.call, notice));
        assert_eq!(running.await.unwrap().reason, reason, "{notice:?}");
        listening.await.unwrap();
    }
}
