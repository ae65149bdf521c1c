//! Warm sessions, and the clips rendered beside them, against a few lines of a Realtime server, on loopback.

use std::sync::atomic::{AtomicU32, Ordering};

use call_session::io::ModelEvent;
use call_session::plan::{Plan, Variables};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server;

use super::super::{Engines, Session};
use super::*;
use crate::clock::UnixMs;
use crate::metrics::Label as _;

const DEADLINE: Duration = Duration::from_secs(20);

/// The tests' wall clock, in Unix seconds.
const NOW: u64 = 1_800_000_000;

/// What the server saw, with the number of the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Opened { number: u32, bearer: String },
    Event { number: u32, kind: String },
    Closed { number: u32 },
}

/// A model, a pool that is kept, and the knobs around it.
struct Scene {
    engines: Engines,
    metrics: Arc<Metrics>,
    agent: watch::Sender<Arc<AgentFile>>,
    phase: watch::Sender<Phase>,
    key: Arc<Mutex<&'static str>>,
    seen: mpsc::UnboundedReceiver<Seen>,
    url: String,
}

fn agent(url: &str, count: u32) -> AgentFile {
    crate::agent::parse(&format!(
        "formatVersion: 1\nnamespace: n\nname: a\npublicUrl: 'https://voice.example.com'\n\
         carrier: {{type: Twilio, twilio: {{accountSid: AC00000000000000000000000000000001,\n\
         \x20 authTokens: [{{name: t, key: k}}]}}}}\n\
         persona: {{instructions: Be kind.}}\n\
         engines: [{{name: main, type: Realtime, realtime: {{url: '{url}', model: gpt-realtime-2.1, voice: marin,\n\
         \x20 apiKey: {{name: openai, key: key}}, warmSessionsPerPod: {count}}}}}]\n"
    ))
    .unwrap()
}

impl Scene {
    /// A model whose sessions end `life` seconds from now; the first `dropped` connections are cut at once.
    async fn new(count: u32, life: u64, dropped: u32) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("ws://{}/v1/realtime", listener.local_addr().unwrap());
        let (tell, seen) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let numbers = AtomicU32::new(0);
            while let Ok((tcp, _)) = listener.accept().await {
                let number = numbers.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(serve(tcp, number, NOW + life, number < dropped, tell.clone()));
            }
        });
        let metrics = Arc::new(Metrics::register().unwrap());
        let key = Arc::new(Mutex::new("first"));
        let keys: Keys = {
            let key = key.clone();
            Arc::new(move |_| Some(Secret::new(*key.lock().unwrap())))
        };
        let engines = Engines::new(Dialer::new(None).unwrap(), keys, metrics.clone());
        let agent = watch::Sender::new(Arc::new(agent(&url, count)));
        Self { engines, metrics, agent, phase: watch::Sender::new(Phase::Serving), key, seen, url }
    }

    fn keep(&self) -> tokio::task::JoinHandle<()> {
        let clock: Clock = Arc::new(|| UnixMs(NOW * 1000));
        tokio::spawn(self.engines.keep_warm(self.agent.subscribe(), self.phase.subscribe(), clock))
    }

    fn call(&self) -> Session {
        let plan = Plan::new(&self.agent.borrow(), &Variables::default());
        self.engines.connect(&plan.engines[0], &plan)
    }

    fn counts(&self) -> (i64, [u64; 4]) {
        let counts = WarmLabel::ALL.iter().map(|label| self.metrics.warm_sessions.count(*label));
        (self.metrics.warm_idle.get(), counts.collect::<Vec<_>>().try_into().unwrap())
    }

    /// Waits for a state of the gauge and of the counters (taken, cold, recycled, failed).
    async fn until(&self, wanted: impl Fn(i64, [u64; 4]) -> bool) {
        let reached = async {
            while !wanted(self.counts().0, self.counts().1) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(tokio::time::timeout(DEADLINE, reached).await.is_ok(), "{:?}", self.counts());
    }

    async fn seen(&mut self) -> Seen {
        tokio::time::timeout(DEADLINE, self.seen.recv()).await.unwrap().unwrap()
    }
}

async fn serve(tcp: TcpStream, number: u32, ends: u64, is_cut: bool, tell: mpsc::UnboundedSender<Seen>) {
    let mut bearer = String::new();
    // The size of the error type is the library's.
    #[allow(clippy::result_large_err)]
    let look = |request: &server::Request, response| {
        bearer = request.headers()["authorization"].to_str().unwrap().to_owned();
        Ok(response)
    };
    let mut socket = tokio_tungstenite::accept_hdr_async(tcp, look).await.unwrap();
    if is_cut {
        return;
    }
    let event = |kind: &str| {
        Message::text(
            json!({"type": kind, "event_id": "e", "session": {"type": "realtime", "expires_at": ends}})
                .to_string(),
        )
    };
    socket.send(event("session.created")).await.unwrap();
    let _ = tell.send(Seen::Opened { number, bearer });
    while let Some(Ok(message)) = socket.next().await {
        let Message::Text(text) = message else { continue };
        let kind = serde_json::from_str::<Value>(&text).unwrap()["type"].as_str().unwrap().to_owned();
        match kind.as_str() {
            "session.update" => socket.send(event("session.updated")).await.unwrap(),
            "response.create" => say(&mut socket, &text).await,
            _ => {}
        }
        let _ = tell.send(Seen::Event { number, kind });
    }
    let _ = tell.send(Seen::Closed { number });
}

/// Answers a request with a second of audio, if it asks for the clip's words.
async fn say(socket: &mut tokio_tungstenite::WebSocketStream<TcpStream>, request: &str) {
    if !request.contains("Einen Moment, bitte.") {
        return;
    }
    let audio = call_session::audio::Payload::from_mulaw(&[0x21; 8000]);
    for event in [
        json!({"type": "response.created", "response": {"id": "r1", "status": "in_progress"}}),
        json!({"type": "response.output_audio.delta", "response_id": "r1", "item_id": "i1", "output_index": 0,
            "content_index": 0, "delta": audio.as_str()}),
        json!({"type": "response.done", "response": {"id": "r1", "status": "completed"}}),
    ] {
        socket.send(Message::text(event.to_string())).await.unwrap();
    }
}

const HOUR: u64 = 3600;

#[tokio::test]
async fn a_call_takes_a_warm_session_and_the_shelf_is_filled_again() {
    let mut scene = Scene::new(2, HOUR, 0).await;
    let _keeping = scene.keep();
    scene.until(|idle, _| idle == 2).await;
    for _ in 0..2 {
        assert!(matches!(scene.seen().await, Seen::Opened { bearer, .. } if bearer == "Bearer first"));
    }

    let mut session = scene.call();
    assert_eq!(session.next_event().await, ModelEvent::Ready);
    scene.until(|idle, counts| idle == 2 && counts == [1, 0, 0, 0]).await;
    let mut seen = [scene.seen().await, scene.seen().await];
    seen.sort_by_key(|seen| matches!(seen, Seen::Opened { .. }));
    assert!(
        matches!(&seen[0], Seen::Event { number: 0 | 1, kind } if kind == "session.update"),
        "on a connection that was there already: {seen:?}"
    );
    assert!(matches!(seen[1], Seen::Opened { number: 2, .. }), "one more for the next call: {seen:?}");
    assert_eq!(scene.metrics.provider_connects.count(EngineLabel::Realtime), 3);
}

#[tokio::test]
async fn a_call_that_finds_none_opens_its_own_connection() {
    let scene = Scene::new(1, HOUR, 0).await; // and nobody keeps the pool
    let mut session = scene.call();
    assert_eq!(session.next_event().await, ModelEvent::Ready);
    assert_eq!(scene.counts(), (0, [0, 1, 0, 0]));
}

#[tokio::test]
async fn an_engine_without_warm_sessions_counts_no_cold_start() {
    let scene = Scene::new(0, HOUR, 0).await;
    let _keeping = scene.keep();
    let mut session = scene.call();
    assert_eq!(session.next_event().await, ModelEvent::Ready);
    assert_eq!(scene.counts(), (0, [0, 0, 0, 0]));
}

#[tokio::test]
async fn a_session_that_ends_soon_is_replaced_unused() {
    let mut scene = Scene::new(1, 0, 0).await;
    let _keeping = scene.keep();
    assert!(matches!(scene.seen().await, Seen::Opened { number: 0, .. }));
    let (mut is_closed, mut is_replaced) = (false, false);
    while !(is_closed && is_replaced) {
        match scene.seen().await {
            Seen::Closed { number } => is_closed |= number == 0,
            Seen::Opened { number, .. } => is_replaced |= number == 1,
            Seen::Event { .. } => panic!("nothing is said to a session without a call"),
        }
    }
    scene.until(|_, [taken, cold, recycled, failed]| recycled >= 1 && [taken, cold, failed] == [0; 3]).await;
}

#[tokio::test]
async fn a_rotated_key_and_another_address_replace_the_connections() {
    let mut scene = Scene::new(1, HOUR, 0).await;
    let _keeping = scene.keep();
    scene.until(|idle, _| idle == 1).await;
    *scene.key.lock().unwrap() = "second";
    scene.until(|idle, counts| idle == 1 && counts == [0, 0, 1, 0]).await;
    scene.agent.send_replace(Arc::new(agent(&format!("{}/other", scene.url), 1)));
    scene.until(|idle, counts| idle == 1 && counts == [0, 0, 2, 0]).await;

    let mut session = scene.call();
    assert_eq!(session.next_event().await, ModelEvent::Ready);
    let mut bearers = Vec::new();
    while bearers.len() < 3 {
        if let Seen::Opened { bearer, .. } = scene.seen().await {
            bearers.push(bearer);
        }
    }
    assert_eq!(bearers, ["Bearer first", "Bearer second", "Bearer second"]);
}

#[tokio::test]
async fn a_lost_session_is_counted_and_replaced_after_a_pause() {
    let scene = Scene::new(1, HOUR, 1).await;
    let _keeping = scene.keep();
    scene.until(|idle, counts| idle == 1 && counts == [0, 0, 0, 1]).await;
    assert_eq!(scene.metrics.provider_connects.count(EngineLabel::Realtime), 2);
}

#[tokio::test]
async fn a_leaving_pod_closes_its_warm_sessions_once_it_admits_no_more_calls() {
    let mut scene = Scene::new(2, HOUR, 0).await;
    let keeping = scene.keep();
    scene.until(|idle, _| idle == 2).await;
    scene.phase.send_replace(Phase::LameDuck);
    let mut session = scene.call();
    assert_eq!(session.next_event().await, ModelEvent::Ready, "a lame duck still admits");
    scene.until(|idle, counts| idle == 2 && counts == [1, 0, 0, 0]).await;

    scene.phase.send_replace(Phase::Refusing);
    tokio::time::timeout(DEADLINE, keeping).await.unwrap().unwrap();
    assert_eq!(scene.counts(), (0, [1, 0, 2, 0]));
    let mut closed = 0;
    while closed < 2 {
        closed += u32::from(matches!(scene.seen().await, Seen::Closed { .. }));
    }
    session.send(call_session::io::ModelCommand::Speak(call_session::io::Speech::Reply));
    let spoken = async {
        loop {
            tokio::select! {
                _ = session.next_event() => {}
                seen = scene.seen.recv() => {
                    if matches!(seen, Some(Seen::Event { kind, .. }) if kind == "response.create") {
                        return;
                    }
                }
            }
        }
    };
    assert!(tokio::time::timeout(DEADLINE, spoken).await.is_ok(), "the call keeps the one it took");
}

#[tokio::test(start_paused = true)]
async fn failures_that_come_together_count_once_and_the_pause_grows_to_a_minute() {
    let engine = agent("ws://model", 1).engines.remove(0);
    let EngineKind::Realtime { realtime } = engine.kind else { panic!("a Realtime engine") };
    let mut shelf = Shelf::new(Place { engine: realtime, key: Secret::new("k") }, Instant::now());
    let mut pauses = Vec::new();
    for _ in 0..10 {
        shelf.fail();
        let not_before = shelf.not_before;
        shelf.fail();
        assert_eq!(shelf.not_before, not_before);
        pauses.push((not_before - Instant::now()).as_secs_f64());
        tokio::time::sleep_until(not_before).await;
    }
    for (pause, longest) in pauses.iter().zip([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0, 60.0]) {
        assert!((longest * 0.75..=longest).contains(pause), "{pauses:?}");
    }
}

#[test]
fn a_connection_waits_for_half_of_its_life_and_never_no_time_at_all() {
    let seconds = |expires_at| shelf_life(expires_at, NOW).as_secs();
    assert!((674..=900).contains(&seconds(Some(NOW + HOUR))));
    assert!((674..=900).contains(&seconds(None)));
    assert!((224..=300).contains(&seconds(Some(NOW + 600))));
    assert_eq!(seconds(Some(NOW - 5)), 1);
}

#[tokio::test]
async fn a_clip_is_rendered_in_the_agents_voice_and_until_then_there_are_tones() {
    let mut scene = Scene::new(1, HOUR, 0).await;
    let mut german = agent(&scene.url, 1);
    german.persona.language = "de-DE".to_owned();
    let plan = Plan::new(&german, &Variables::default());
    scene.agent.send_replace(Arc::new(german));
    assert_eq!(scene.engines.clip(&plan), crate::comfort::tone());

    let keeping = tokio::spawn(scene.engines.keep_clips(scene.agent.subscribe(), scene.phase.subscribe()));
    let spoken = call_session::audio::Payload::from_mulaw(&[0x21; 8000]);
    let rendered = async {
        while scene.engines.clip(&plan) != spoken {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, rendered).await.unwrap();
    assert_eq!(scene.counts(), (0, [0, 0, 0, 0]), "calls' warm sessions are left alone");
    while scene.seen().await != (Seen::Closed { number: 0 }) {}
    scene.phase.send_replace(Phase::Refusing);
    tokio::time::timeout(DEADLINE, keeping).await.unwrap().unwrap();
}
