//! One line of a load run: a caller who dials, talks, interrupts and hangs up, over simulated Twilio's side of the wire.
//!
//! *Flow:* the signed webhook, the stream its TwiML names, `connected`, `start`, then 20 ms each way until the time is up;
//! `stop`, close, the status callback. *Guarantees:* what the product sends is read as strictly as
//! [`crate::carrier`] reads it, marks and clears are answered by the same play-out. *Caveats:* what costs a caller of the
//! carrier time (ears, recording, TwiML beyond `<Connect>`) is left out.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::arrived::AgentAudio;
use super::board::{Board, Loss};
use super::habit::{Habit, Move};
use super::model;
use super::tag::{Filler, Sound, Tag, UNKNOWN_LINE};
use super::{LoadPlan, SMALL_BUFFER};
use crate::carrier::edge::resolve;
use crate::carrier::message::{self, Message};
use crate::carrier::playout::{FRAME_BYTES, Playout, SILENCE};
use crate::carrier::signature::sign;
use crate::carrier::trust::{Transport, Trust};
use crate::carrier::twiml::{self, Stream, Verb};
use crate::violations::{Rule, Violations};

/// One frame of audio.
const FRAME: Duration = Duration::from_millis(20);
/// An agent with less to say than this is about to be silent: what the caller says then interrupts nobody, and a product
/// that has nothing left to clear ignored nothing.
const INTERRUPTIBLE: Duration = Duration::from_millis(100);
/// For the upgrade, for the first sound of the agent, for a clear, and for the end of a socket.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a caller's 20 ms sound like.
#[derive(Clone, Debug)]
pub(super) enum Speech {
    /// Tagged frames for the lean model.
    Tagged { silence: Filler, speech: Filler, agent: Filler },
    /// A recorded sentence for the strict model, frame by frame in base64, and silence.
    Clip { silence: String, frames: Vec<String> },
}

impl Speech {
    /// Frames of one utterance.
    pub(super) fn frames(&self) -> u32 {
        match self {
            Self::Tagged { .. } => 50, // a second
            Self::Clip { frames, .. } => u32::try_from(frames.len()).unwrap_or(u32::MAX),
        }
    }
}

/// What all callers of a run share.
#[derive(Debug)]
pub(super) struct Callers {
    pub(super) plan: LoadPlan,
    pub(super) board: Arc<Board>,
    pub(super) violations: Violations,
    pub(super) http: reqwest::Client,
    pub(super) trust: Trust,
    pub(super) speech: Speech,
    /// Part of every sid, so that two runs differ.
    pub(super) run: u32,
}

type Socket = WebSocketStream<Box<dyn Transport>>;

/// Why a call is over.
enum Over {
    HungUp,
    Lost(Loss),
}

impl Callers {
    /// One call after the other on this line, until the run is over.
    pub(super) async fn keep_calling(&self, line: u32) {
        let mut nth = 0;
        while !self.board.is_over() {
            nth += 1;
            self.board.figures().placed += 1;
            match self.call(line, nth).await {
                Over::HungUp => self.board.figures().completed += 1,
                Over::Lost(loss) => {
                    *self.board.figures().lost.entry(loss).or_default() += 1;
                    tokio::time::sleep(Duration::from_secs(1)).await; // no storm on a product that is down
                }
            }
        }
    }

    async fn call(&self, line: u32, nth: u32) -> Over {
        let began = self.board.now();
        let call_sid = format!("CA{:08x}{line:08x}{nth:016x}", self.run);
        let stream_sid = format!("MZ{:08x}{line:08x}{nth:016x}", self.run);
        let Some(stream) = self.ask_for_stream(&call_sid, line).await else {
            return Over::Lost(Loss::NotAnswered);
        };
        let Some(socket) = self.open(&stream).await else { return Over::Lost(Loss::NoStream) };
        let mut leg = Leg {
            callers: self,
            line,
            nth,
            socket,
            stream_sid,
            playout: Playout::default(),
            sequence: 0,
            chunk: 0,
            habit: Habit::new(self.plan.barge_in_every, line, self.speech.frames()),
            interrupted_at: None,
            heard: Heard::Nothing { since: began },
            last_sent: Duration::ZERO,
            agent_audio: AgentAudio::Next(0),
        };
        self.board.figures().active += 1;
        let over = match leg.talk(&call_sid, &stream, began).await {
            Ok(()) if matches!(leg.heard, Heard::Nothing { .. }) => Over::Lost(Loss::Mute),
            Ok(()) => Over::HungUp,
            Err(Gone) => Over::Lost(Loss::Dropped),
        };
        self.board.figures().active -= 1;
        leg.hang_up(&call_sid).await;
        if let Some(url) = &self.plan.status_url
            && self.post(url, &self.form(&call_sid, line, "completed")).await.is_none()
        {
            self.violations.record(Rule::CallbackReply, "a status callback was not answered");
        }
        over
    }

    fn form(&self, call_sid: &str, line: u32, status: &str) -> Vec<(String, String)> {
        let from = format!("+1555{line:07}");
        [
            ("AccountSid", self.plan.account.sid.as_str()),
            ("ApiVersion", "2010-04-01"),
            ("CallSid", call_sid),
            ("CallStatus", status),
            ("Direction", "inbound"),
            ("From", &from),
            ("To", "+15551230001"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }

    /// A signed request; the body of a 2xx answer.
    async fn post(&self, url: &str, form: &[(String, String)]) -> Option<String> {
        let target = resolve(&self.plan.edges, url)?;
        let request = self
            .http
            .post(target.http_url())
            .header("Host", target.host)
            .header("X-Twilio-Signature", sign(&self.plan.account.auth_token, url, form))
            .form(form);
        request.send().await.ok()?.error_for_status().ok()?.text().await.ok()
    }

    async fn ask_for_stream(&self, call_sid: &str, line: u32) -> Option<Stream> {
        let url = &self.plan.voice_url;
        let reply = self.post(url, &self.form(call_sid, line, "ringing")).await?;
        let document =
            twiml::parse(&reply, Some(url)).map_err(|refused| self.violations.refuse(refused)).ok()?;
        document.problems.into_iter().for_each(|problem| self.violations.refuse(problem));
        match document.verbs.into_iter().next()? {
            Verb::Connect { stream, .. } => Some(stream),
            _ => None, // refused or told a sentence: no place
        }
    }

    async fn open(&self, stream: &Stream) -> Option<Socket> {
        let target = resolve(&self.plan.edges, &stream.url)?;
        let mut request = format!("ws://{}{}", target.host, target.path).into_client_request().ok()?;
        let signature = sign(&self.plan.account.auth_token, &stream.url, &[]);
        request.headers_mut().insert("x-twilio-signature", HeaderValue::from_str(&signature).ok()?);
        let transport = self.trust.connect(&target, |socket| socket.set_nodelay(true)).await.ok()?;
        let config =
            WebSocketConfig::default().read_buffer_size(SMALL_BUFFER).write_buffer_size(SMALL_BUFFER);
        let opened = timeout(PATIENCE, client_async_with_config(request, transport, Some(config))).await;
        Some(opened.ok()?.ok()?.0)
    }
}

/// The socket ended before the caller did.
struct Gone;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    /// Since `start` was sent.
    Nothing {
        since: Duration,
    },
    Something,
}

struct Leg<'a> {
    callers: &'a Callers,
    line: u32,
    /// Counted from 1 on this line.
    nth: u32,
    socket: Socket,
    stream_sid: String,
    playout: Playout,
    sequence: u64,
    chunk: u32,
    habit: Habit,
    /// When the caller began to talk over the agent, until the clear.
    interrupted_at: Option<Duration>,
    heard: Heard,
    /// When the model sent the last delta; of one connection or of several after each other.
    last_sent: Duration,
    agent_audio: AgentAudio,
}

impl Leg<'_> {
    async fn talk(&mut self, call_sid: &str, stream: &Stream, began: Duration) -> Result<(), Gone> {
        let board = &self.callers.board;
        self.feed(json!({"event": "connected", "protocol": "Call", "version": "1.0.0"}).to_string()).await?;
        self.begin(call_sid, stream).await?;
        let started = board.now();
        board.figures().setup.record(started - began);
        self.heard = Heard::Nothing { since: started };
        let until = self.callers.plan.call_length.map(|length| started + self.share(length));
        let mut clock = interval_at(Instant::now() + board.until_phase(self.line, FRAME), FRAME);
        clock.set_missed_tick_behavior(MissedTickBehavior::Burst); // a late frame is late, never lost
        loop {
            tokio::select! {
                biased;
                _ = clock.tick() => {
                    let is_time = board.is_over() || until.is_some_and(|until| board.now() >= until);
                    if is_time && self.has_listened() {
                        return Ok(());
                    }
                    self.tick().await?;
                }
                received = self.socket.next() => match received {
                    Some(Ok(Frame::Text(text))) => self.handle(&text).await?,
                    Some(Ok(Frame::Binary(_))) => self.note(Rule::StreamBinaryFrame, "a binary frame"),
                    Some(Ok(Frame::Ping(_) | Frame::Pong(_) | Frame::Frame(_))) => {}
                    Some(Ok(Frame::Close(_)) | Err(_)) | None => return Err(Gone),
                },
            }
        }
    }

    /// Whether the caller has heard something, or has waited for it long enough to know that nothing comes.
    fn has_listened(&self) -> bool {
        match self.heard {
            Heard::Something => true,
            Heard::Nothing { since } => self.callers.board.now() >= since + PATIENCE,
        }
    }

    /// The first calls of the lines end one after the other, and so do all that follow them.
    fn share(&self, length: Duration) -> Duration {
        match self.nth {
            1 => length / 2 + length / 2 * self.line / self.callers.plan.calls.max(1),
            _ => length,
        }
    }

    async fn begin(&mut self, call_sid: &str, stream: &Stream) -> Result<(), Gone> {
        let parameters: serde_json::Map<_, _> =
            stream.parameters.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        self.sequence += 1;
        let start = json!({
            "event": "start",
            "sequenceNumber": self.sequence.to_string(),
            "streamSid": self.stream_sid,
            "start": {
                "accountSid": self.callers.plan.account.sid,
                "streamSid": self.stream_sid,
                "callSid": call_sid,
                "tracks": ["inbound"],
                "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
                "customParameters": parameters,
            },
        });
        self.feed(start.to_string()).await?;
        self.flush().await
    }

    async fn tick(&mut self) -> Result<(), Gone> {
        let is_audible = u128::from(self.playout.waiting_milliseconds()) >= INTERRUPTIBLE.as_millis();
        let played = self.playout.play_frame();
        self.echo(played.marks).await?;
        let audio = match self.habit.next(is_audible) {
            Move::Listen => self.sound(None),
            Move::Speak { nth, interrupts } => {
                if nth == 0 {
                    self.begin_to_speak(interrupts);
                }
                self.sound(Some(nth))
            }
        };
        if self.interrupted_at.is_some_and(|at| self.callers.board.now() > at + PATIENCE) {
            self.interrupted_at = None;
            self.callers.board.figures().ignored_barge_ins += 1;
        }
        self.sequence += 1;
        self.chunk += 1;
        let media = format!(
            r#"{{"event":"media","sequenceNumber":"{}","media":{{"track":"inbound","chunk":"{}","timestamp":"{}","payload":"{audio}"}},"streamSid":"{}"}}"#,
            self.sequence,
            self.chunk,
            (self.chunk - 1) * 20,
            self.stream_sid
        );
        self.feed(media).await?;
        self.flush().await
    }

    fn begin_to_speak(&mut self, interrupts: bool) {
        self.callers.board.figures().barge_ins += u64::from(interrupts);
        self.interrupted_at = interrupts.then(|| self.callers.board.now());
    }

    fn sound(&self, nth: Option<u32>) -> String {
        match &self.callers.speech {
            Speech::Tagged { silence, speech, agent: _ } => {
                let (sound, filler) =
                    if nth.is_some() { (Sound::Speech, speech) } else { (Sound::Silence, silence) };
                let sent = self.callers.board.now();
                let tag = Tag { sound, line: self.line, call: self.nth, sequence: self.chunk, sent };
                tag.frame(filler)
            }
            Speech::Clip { silence, frames } => {
                nth.and_then(|nth| frames.get(nth as usize)).unwrap_or(silence).clone()
            }
        }
    }

    async fn handle(&mut self, text: &str) -> Result<(), Gone> {
        match message::parse(text, &self.stream_sid) {
            Ok(Message::Media(audio)) => self.hear(&audio),
            Ok(Message::Mark(name)) => {
                let due = self.playout.push_mark(name);
                self.echo(due).await?;
                self.flush().await?;
            }
            Ok(Message::Clear) => {
                self.measure_clear();
                self.agent_audio.clear();
                let outstanding = self.playout.clear();
                self.echo(outstanding).await?;
                self.flush().await?;
            }
            Err(refused) => self.callers.violations.refuse(refused),
        }
        Ok(())
    }

    fn hear(&mut self, audio: &[u8]) {
        let board = &self.callers.board;
        let now = board.now();
        let mut figures = board.figures();
        figures.frames_to_phone += 1;
        if let Heard::Nothing { since } = self.heard {
            let own = self.callers.plan.model.own_time();
            figures.first_audio.record((now - since).saturating_sub(own));
            self.heard = Heard::Something;
        }
        if let Speech::Tagged { agent, .. } = &self.callers.speech {
            match Tag::of_bytes(audio) {
                Some(tag)
                    if (tag.line == UNKNOWN_LINE || (tag.line, tag.call) == (self.line, self.nth))
                        && tag.sent > self.last_sent
                        && agent.ends_bytes(audio) =>
                {
                    if board.is_measuring() {
                        figures.to_phone.record(now.saturating_sub(tag.sent));
                    }
                    self.last_sent = tag.sent;
                    match self.agent_audio.note(tag.sequence) {
                        Some(missing) => figures.frames_missing += u64::from(missing),
                        None => figures.frames_altered += 1,
                    }
                }
                Some(_) => figures.frames_altered += 1,
                None => figures.frames_own += 1,
            }
        }
        drop(figures);
        if self.playout.push_media(audio).is_err() {
            self.note(Rule::StreamBufferOverflow, "ten minutes of audio are waiting");
        }
    }

    fn measure_clear(&mut self) {
        let board = &self.callers.board;
        let since_told = board.since_speech_told(self.line);
        let since_spoken = self.interrupted_at.take().map(|at| board.now() - at);
        let mut figures = board.figures();
        if let Some(since) = since_told {
            figures.event_to_clear.record(since);
        }
        if let Some(since) = since_spoken {
            figures.speech_to_clear.record(since);
        }
    }

    async fn echo(&mut self, marks: Vec<String>) -> Result<(), Gone> {
        for name in marks {
            self.sequence += 1;
            let mark = json!({
                "event": "mark", "sequenceNumber": self.sequence.to_string(), "streamSid": self.stream_sid,
                "mark": {"name": name},
            });
            self.feed(mark.to_string()).await?;
        }
        Ok(())
    }

    /// Says `stop`, closes, and waits a while for the other side to close, too.
    async fn hang_up(mut self, call_sid: &str) {
        self.sequence += 1;
        let stop = json!({
            "event": "stop", "sequenceNumber": self.sequence.to_string(), "streamSid": self.stream_sid,
            "stop": {"accountSid": self.callers.plan.account.sid, "callSid": call_sid},
        });
        let closing = async {
            self.socket.feed(Frame::text(stop.to_string())).await?;
            self.socket.close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() })).await?;
            while let Some(Ok(_)) = self.socket.next().await {}
            Ok::<(), tokio_tungstenite::tungstenite::Error>(())
        };
        // A broken or silent peer is left behind.
        let _ = timeout(PATIENCE, closing).await;
    }

    async fn feed(&mut self, text: String) -> Result<(), Gone> {
        self.socket.feed(Frame::text(text)).await.map_err(|_| Gone)
    }

    async fn flush(&mut self) -> Result<(), Gone> {
        self.socket.flush().await.map_err(|_| Gone)
    }

    fn note(&self, rule: Rule, detail: &str) {
        self.callers.violations.record(rule, detail);
    }
}

/// The two kinds of callers.
impl Speech {
    /// Frames for the lean model.
    pub(super) fn tagged() -> Self {
        let (silence, speech) = (Filler::of_caller(Sound::Silence), Filler::of_caller(Sound::Speech));
        Self::Tagged { silence, speech, agent: model::filler() }
    }

    /// A recording, for the strict model.
    pub(super) fn clip(mulaw: &[u8]) -> Self {
        use base64::Engine as _;
        let encode = |frame: &[u8]| base64::engine::general_purpose::STANDARD.encode(frame);
        let frames = mulaw.chunks(FRAME_BYTES).map(|chunk| {
            let mut frame = chunk.to_vec();
            frame.resize(FRAME_BYTES, SILENCE);
            encode(&frame)
        });
        Self::Clip { silence: encode(&[SILENCE; FRAME_BYTES]), frames: frames.collect() }
    }
}
