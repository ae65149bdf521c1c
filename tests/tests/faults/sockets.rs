//! Peers that keep to no protocol: frames too large, floods, garbage, sockets that say or read nothing. The other call goes
//! on, the counter says what it was, the memory stays bounded.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::{SinkExt as _, StreamExt as _, TryStreamExt as _};
use libtest_mimic::Trial;
use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::hostile::Peer;
use crate::quiet::QuietCall;
use crate::stage::{CALLER, PATIENCE, QUESTION, Stage, spare};
use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("hostile: messages of ten megabytes", oversized),
        trial("hostile: garbage, unknown events and floods of marks", garbage),
        trial("hostile: a model that does not read", deaf_model),
        trial("hostile: a model that sends garbage", garbling_model),
        trial("hostile: streams that never start", never_started),
        trial("hostile: ten thousand half-open sockets", half_open),
        trial("hostile: a thousand half-sent forms", half_sent),
    ]
}

const TOO_LARGE: &str = "switchboard_phone_faults_total{fault=\"too_large\"}";
const MALFORMED: &str = "switchboard_phone_faults_total{fault=\"malformed\"}";
const UNKNOWN: &str = "switchboard_phone_faults_total{fault=\"unknown\"}";
const STALE_INPUT: &str = "switchboard_inputs_ignored_total{reason=\"stale\"}";
const START_TOO_LARGE: &str = "switchboard_streams_refused_total{reason=\"start_too_large\"}";
const TOO_MANY: &str = "switchboard_streams_refused_total{reason=\"too_many_sockets\"}";
const START_TIMEOUT: &str = "switchboard_streams_refused_total{reason=\"start_timeout\"}";
const LOST: &str = "switchboard_streams_refused_total{reason=\"lost\"}";
const MODEL_SLOW: &str = "switchboard_provider_faults_total{fault=\"too_slow\"}";
const STALE: &str = "switchboard_provider_faults_total{fault=\"stale\"}";
const MODEL_TOO_LARGE: &str = "switchboard_provider_faults_total{fault=\"too_large\"}";
const CLOSED: &str = "switchboard_provider_failures_total{reason=\"closed\"}";
const BODY_TIMEOUT: &str = "switchboard_webhooks_refused_total{reason=\"body_timeout\"}";
const SHED: &str = "switchboard_connections_shed_total";

async fn oversized() -> Result<()> {
    let stage = Stage::open("oversized").await?;
    let pod = stage.pod("pod", &stage.agent()).await?;
    let quiet = QuietCall::begin(&stage, &pod).await?;
    let (before, memory) = (pod.scrape().await?, pod.resident_kib()?);
    let ten_megabytes = || format!(r#"{{"event":"media","x":"{}"}}"#, "x".repeat(10 << 20));
    for number in 0..10 {
        let mut early = Peer::upgrade(&pod, number).await?.ok().context("a place for a socket")?;
        let _ = early.send_text(ten_megabytes()).await; // it may be cut off half-way
        early.until_closed().await?;
        let mut late = Peer::call(&pod, 100 + number).await?;
        late.hear().await?;
        let _ = late.send_text(ten_megabytes()).await;
        late.until_closed().await?;
    }
    pod.until_moved(&before, &[TOO_LARGE, START_TOO_LARGE]).await?;
    let after = pod.scrape().await?;
    after.ensure_faults(&before, &[TOO_LARGE, START_TOO_LARGE])?;
    ensure_count(after.since(&before, TOO_LARGE), 10)?;
    ensure_count(after.since(&before, START_TOO_LARGE), 10)?;
    pod.ensure_memory(memory)?;
    quiet.ensure_undisturbed().await?;
    stage.ensure_no_violation().await
}

async fn garbage() -> Result<()> {
    const EACH: usize = 2000;
    let stage = Stage::open("garbage").await?;
    let pod = stage.pod("pod", &stage.agent()).await?;
    let quiet = QuietCall::begin(&stage, &pod).await?;
    let (before, memory) = (pod.scrape().await?, pod.resident_kib()?);
    let mut peer = Peer::call(&pod, 1).await?;
    peer.hear().await?;
    let stream = "MZ00000000000000000000000000000001";
    let marks = (0..50 * EACH).map(|number| {
        let mark = json!({"event": "mark", "sequenceNumber": "3", "streamSid": stream,
            "mark": {"name": format!("e0.g0.m{number}")}});
        Message::text(mark.to_string())
    });
    peer.flood(marks).await?;
    let base64 = vec![peer.media("!!!! not base64 !!!!"); EACH];
    peer.flood(base64).await?;
    peer.flood(vec![Message::text(r#"{"event":"media","media":"#); EACH]).await?;
    peer.flood(vec![Message::binary(vec![0xFF; 160]); EACH]).await?;
    peer.flood(vec![Message::text(r#"{"event":"from_the_future","x":[{}]}"#); EACH]).await?;
    let sid = peer.sid().to_owned();
    peer.stop().await?;
    let after = pod.scrape().await?;
    after.ensure_faults(&before, &[MALFORMED, UNKNOWN])?;
    ensure_count(after.since(&before, MALFORMED), 3 * EACH)?;
    ensure_count(after.since(&before, UNKNOWN), EACH)?;
    // All marks but those of what the agent may have said meanwhile.
    let stale = after.since(&before, STALE_INPUT);
    ensure!(stale > (49 * EACH) as f64, "{stale} stale inputs");
    let known = pod.call(&sid).await?;
    ensure!(known["endReason"] == "caller_hung_up", "{known:#}");
    pod.ensure_memory(memory)?;
    quiet.ensure_undisturbed().await?;
    stage.ensure_no_violation().await
}

async fn deaf_model() -> Result<()> {
    let stage = Stage::open("deaf model").await?;
    let pod = stage.pod("pod", &stage.agent()).await?;
    let quiet = QuietCall::begin(&stage, &pod).await?;
    let deaf = Deaf::listen().await?;
    let mut agent = stage.agent();
    agent["revision"] = json!("deaf");
    agent["engines"] = json!([stage.realtime(&deaf), spare()]);
    pod.load(&agent).await?;
    let (before, memory) = (pod.scrape().await?, pod.resident_kib()?);
    let mut peer = Peer::call(&pod, 1).await?;
    pod.until_moved(&before, &["switchboard_model_ready_seconds_count"]).await?;
    // Far more than a socket's buffers and the pod's own bound together.
    let second = peer.media(&format!("{}w==", "/".repeat(32_001)));
    peer.flood(vec![second; 400]).await?;
    pod.until_moved(&before, &[MODEL_SLOW, CLOSED]).await?;
    let after = pod.scrape().await?;
    after.ensure_faults(&before, &[MODEL_SLOW, CLOSED])?;
    peer.stop().await?;
    pod.ensure_memory(memory)?;
    quiet.ensure_undisturbed().await?;
    stage.ensure_no_violation().await
}

async fn garbling_model() -> Result<()> {
    let stage = Stage::open("garbling model").await?;
    let pod = stage.pod("pod", &stage.agent()).await?;
    let quiet = QuietCall::begin(&stage, &pod).await?;
    let garbling = Garbling::listen().await?;
    let mut agent = stage.agent();
    agent["revision"] = json!("garbling");
    agent["engines"] = json!([stage.realtime(&garbling), spare()]);
    pod.load(&agent).await?;
    let (before, memory) = (pod.scrape().await?, pod.resident_kib()?);
    let mut peer = Peer::call(&pod, 1).await?;
    peer.hear().await?; // behind all that garbage
    pod.until_moved(&before, &[MODEL_TOO_LARGE, CLOSED]).await?;
    let sid = peer.sid().to_owned();
    peer.stop().await?;
    let after = pod.scrape().await?;
    let counted = Garbling::messages().map(|(series, _)| series);
    // What is stale is counted, as no fault: every interruption makes some.
    let faults = counted.into_iter().filter(|series| *series != STALE);
    let expected: Vec<&str> = faults.chain([MODEL_TOO_LARGE, CLOSED]).collect();
    after.ensure_faults(&before, &expected)?;
    for (series, _) in Garbling::messages() {
        ensure_count(after.since(&before, series), Garbling::EACH)?;
    }
    let known = pod.call(&sid).await?;
    ensure!(known["endReason"] == "caller_hung_up", "{known:#}");
    pod.ensure_memory(memory)?;
    quiet.ensure_undisturbed().await?;
    stage.ensure_no_violation().await
}

async fn never_started() -> Result<()> {
    let stage = Stage::open("never started").await?;
    let pod = stage.pod("pod", &stage.agent()).await?;
    let quiet = QuietCall::begin(&stage, &pod).await?;
    let (before, memory) = (pod.scrape().await?, pod.resident_kib()?);
    let mut waiting = Vec::new();
    // On a slow machine the first ones are given up meanwhile, and their places are taken again.
    let refusal = loop {
        match Peer::upgrade(&pod, waiting.len() as u32).await? {
            Ok(peer) => waiting.push(peer),
            Err(status) => break status,
        }
        ensure!(waiting.len() < 5000, "never refused");
    };
    ensure!(refusal == 503 && waiting.len() >= 256, "{refusal} after {}", waiting.len());
    pod.until_moved(&before, &[TOO_MANY, START_TIMEOUT]).await?;
    drop(waiting);
    talk(&stage).await?;
    let moved = pod.scrape().await?.faults_since(&before);
    ensure!(moved.keys().all(|name| [TOO_MANY, START_TIMEOUT, LOST].contains(&name.as_str())), "{moved:?}");
    pod.ensure_memory(memory)?;
    quiet.ensure_undisturbed().await?;
    stage.ensure_no_violation().await
}

async fn half_open() -> Result<()> {
    // What the pod keeps of them, and what is open anyway.
    const MOST_DESCRIPTORS: usize = 1024 + 256 + 128;
    let wanted = raise_descriptors(10_000)?;
    let stage = Stage::open("half-open").await?;
    let pod = stage.pod("pod", &stage.agent()).await?;
    let quiet = QuietCall::begin(&stage, &pod).await?;
    let (before, memory) = (pod.scrape().await?, pod.resident_kib()?);
    let connect = |_| TcpStream::connect(pod.public());
    let sockets: Vec<TcpStream> = {
        let mut opened = futures_util::stream::iter(0..wanted).map(connect).buffer_unordered(64);
        let mut sockets = Vec::new();
        while let Some(socket) = opened.next().await {
            sockets.push(socket?);
        }
        sockets
    };
    pod.until_moved(&before, &[SHED]).await?;
    // They are all there still, and somebody calls.
    talk(&stage).await?;
    let descriptors = pod.descriptors()?;
    ensure!(descriptors < MOST_DESCRIPTORS, "{descriptors} descriptors with {} sockets", sockets.len());
    pod.ensure_memory(memory)?;
    drop(sockets);
    pod.scrape().await?.ensure_faults(&before, &[])?;
    quiet.ensure_undisturbed().await?;
    stage.ensure_no_violation().await
}

async fn half_sent() -> Result<()> {
    // More than the door has places.
    const FORMS: usize = 1024 + 64;
    const HALF: &[u8] = b"POST /moving/sales/twilio/voice HTTP/1.1\r\nHost: voice.example.com\r\n\
        Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 100\r\n\r\nCallSid=CA01";
    raise_descriptors(3 * FORMS as u64)?;
    let stage = Stage::open("half-sent").await?;
    let pod = stage.pod("pod", &stage.agent()).await?;
    let quiet = QuietCall::begin(&stage, &pod).await?;
    let (before, memory) = (pod.scrape().await?, pod.resident_kib()?);
    let send = |_| async {
        let mut socket = TcpStream::connect(pod.public()).await?;
        let _ = socket.write_all(HALF).await; // it may have given way already
        anyhow::Ok(socket)
    };
    let sent = futures_util::stream::iter(0..FORMS).map(send).buffer_unordered(64);
    let sockets: Vec<TcpStream> = sent.try_collect().await?;
    // Nobody sends the rest, and somebody calls.
    talk(&stage).await?;
    pod.ensure_memory(memory)?;
    for mut socket in sockets {
        let mut answer = Vec::new();
        // One that had to give way is cut off.
        let _ = timeout(PATIENCE, socket.read_to_end(&mut answer)).await.context("not closed")?;
        ensure!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 408 "), "{}", answer.escape_ascii());
    }
    let after = pod.scrape().await?;
    after.ensure_faults(&before, &[BODY_TIMEOUT])?;
    let (late, shed) = (after.since(&before, BODY_TIMEOUT), after.since(&before, SHED));
    ensure!(late + shed >= FORMS as f64 && late > shed, "{late} were late, {shed} gave way");
    quiet.ensure_undisturbed().await?;
    stage.ensure_no_violation().await
}

/// An ordinary call from its beginning to its end.
pub(crate) async fn talk(stage: &Stage) -> Result<()> {
    let listen = json!({"waitForAgent": {"seconds": 60}});
    let sid = stage.place(CALLER, &json!([listen, {"say": QUESTION}, listen, "hangUp"])).await?;
    let call = stage.finished(&sid).await?;
    ensure!(call["failedStep"].is_null() && call["endReason"] == "callerHungUp", "{call:#}");
    Ok(())
}

/// Lets this process have so many sockets and some files, or as many as its hard limit allows; the number of sockets.
fn raise_descriptors(sockets: u64) -> Result<u64> {
    const OTHER_FILES: u64 = 1000;
    let mut limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(u64::MAX);
    let wanted = most.min(sockets + OTHER_FILES);
    if limit.current.is_some_and(|current| current < wanted) {
        limit.current = Some(wanted);
        setrlimit(Resource::Nofile, limit)?;
    }
    let possible = sockets.min(wanted.saturating_sub(OTHER_FILES));
    ensure!(possible > 2000, "a limit of {most} files is too low for this trial");
    Ok(possible)
}

fn ensure_count(counted: f64, expected: usize) -> Result<()> {
    ensure!((counted - expected as f64).abs() < 0.5, "counted {counted}, expected {expected}");
    Ok(())
}

/// A model that sets a session up and reads nothing afterwards.
struct Deaf;

impl Deaf {
    /// Its URL.
    async fn listen() -> Result<String> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(4096)?; // so that little fits on the way to it
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let listener = socket.listen(16)?;
        let url = format!("ws://{}/v1/realtime", listener.local_addr()?);
        tokio::spawn(Self::serve(listener));
        Ok(url)
    }

    async fn serve(listener: TcpListener) -> Result<()> {
        let mut deaf = Vec::new();
        loop {
            let (tcp, _) = listener.accept().await?;
            deaf.push(set_up(tcp).await?); // open, and never read again
        }
    }
}

/// A model whose reply comes behind thousands of messages that are none, and before one that is too large; its later
/// connections say nothing.
struct Garbling;

impl Garbling {
    /// Of each kind.
    const EACH: usize = 2000;
    /// Above the protocol sheet's 16 MiB for a message of the model.
    const TOO_LARGE: usize = 17 << 20;

    /// Its URL.
    async fn listen() -> Result<String> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("ws://{}/v1/realtime", listener.local_addr()?);
        tokio::spawn(Self::serve(listener));
        Ok(url)
    }

    /// What counts which message.
    fn messages() -> [(&'static str, Message); 5] {
        let text = |event: Value| Message::text(event.to_string());
        let audio = |reply: &str, delta: &str| {
            text(json!({"type": "response.output_audio.delta", "response_id": reply, "item_id": "item_1",
                "output_index": 0, "content_index": 0, "delta": delta}))
        };
        [
            (
                "switchboard_provider_faults_total{fault=\"not_an_event\"}",
                Message::text(r#"{"type":"response.created","response":"#),
            ),
            ("switchboard_provider_faults_total{fault=\"binary\"}", Message::binary(vec![0xFF; 160])),
            (
                "switchboard_provider_faults_total{fault=\"unknown_event\"}",
                text(json!({"type": "from.the.future", "x": [{}]})),
            ),
            ("switchboard_provider_faults_total{fault=\"malformed\"}", audio("resp_1", "!!! not base64 !!!")),
            (STALE, audio("resp_never_announced", "////")),
        ]
    }

    /// A reply of 200 ms.
    fn reply() -> [Message; 5] {
        let silence = format!("{}////", "/".repeat(2132));
        let response = json!({"id": "resp_1", "status": "in_progress", "output": []});
        let item = json!({"id": "item_1", "type": "message", "role": "assistant", "status": "in_progress", "content": []});
        let part = |name: &str| {
            json!({"type": name, "response_id": "resp_1", "item_id": "item_1", "output_index": 0,
                "content_index": 0, "delta": silence})
        };
        let events = [
            json!({"type": "response.created", "response": response}),
            json!({"type": "response.output_item.added", "response_id": "resp_1", "output_index": 0, "item": item}),
            part("response.output_audio.delta"),
            part("response.output_audio.done"),
            json!({"type": "response.done", "response": {"id": "resp_1", "status": "completed", "output": []}}),
        ];
        events.map(|event| Message::text(event.to_string()))
    }

    async fn serve(listener: TcpListener) -> Result<()> {
        let (tcp, _) = listener.accept().await?;
        let mut socket = set_up(tcp).await?;
        until(&mut socket, "response.create").await?;
        for (_, message) in Self::messages() {
            for _ in 0..Self::EACH {
                socket.feed(message.clone()).await?;
            }
        }
        for message in Self::reply() {
            socket.feed(message).await?;
        }
        // The pod may close before it has read it all.
        let _ = socket.send(Message::text(" ".repeat(Self::TOO_LARGE))).await;
        let mut silent = Vec::new();
        loop {
            let (tcp, _) = listener.accept().await?;
            silent.push(set_up(tcp).await?);
        }
    }
}

/// A session that is set up.
async fn set_up(tcp: TcpStream) -> Result<WebSocketStream<TcpStream>> {
    let mut socket = tokio_tungstenite::accept_async(tcp).await?;
    let event = |name: &str| Message::text(json!({"type": name, "event_id": "e", "session": {}}).to_string());
    socket.send(event("session.created")).await?;
    until(&mut socket, "session.update").await?;
    socket.send(event("session.updated")).await?;
    Ok(socket)
}

/// Reads up to an event of this name.
async fn until(socket: &mut WebSocketStream<TcpStream>, name: &str) -> Result<()> {
    while let Some(message) = socket.next().await {
        let event: Value = serde_json::from_str(message?.to_text()?)?;
        if event["type"] == name {
            return Ok(());
        }
    }
    bail!("closed before {name}")
}
