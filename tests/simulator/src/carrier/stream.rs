//! The client of a bidirectional media stream (protocols: Media Streams, all of it).
//!
//! *Flow:* connect, upgrade (signed), `connected`, `start`, then every 20 ms of the media clock one frame each way, until
//! the product closes, the person hangs up or a request redirects the call. *Guarantees:* `sequenceNumber` counts all
//! messages from `start` on, `chunk` the frames, `timestamp` their presentation time; marks come back by [`Playout`]'s
//! rules. *Caveats:* sound still waiting when the product closes the socket is not played.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message as Frame};

use super::call::Call;
use super::edge::resolve;
use super::ids;
use super::line::{Interrupt, Line};
use super::message::{self, Message};
use super::playout::Playout;
use super::record::Event;
use super::signature::sign;
use super::trust::Transport;
use super::twiml::Stream;
use super::webhook::path_of;
use crate::faults::PhoneFaults;
use crate::violations::{Refused, Rule, is_breach};
use crate::voice::mulaw::{FRAME_BYTES, SILENCE};

/// For the TCP connection and for the upgrade, each.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Messages waiting for a product that does not read: ten seconds of frames. Echoes of marks do not count: a `clear` brings
/// thousands at once, as many as the product sent.
const UNREAD_MESSAGES: usize = 500;
/// Half a second of frames; more waits where it is counted.
const SEND_BUFFER: usize = 8 * 1024;
/// How long the closing handshake may take before the socket is dropped.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

type Socket = WebSocketStream<Box<dyn Transport>>;

/// How a stream ended, other than by an interruption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StreamEnd {
    /// The product closed the socket.
    Closed,
    /// The socket broke, or was never open.
    Lost,
}

/// Runs a stream to its end.
pub(super) async fn run(call: &Call, line: &mut Line, stream: &Stream) -> Result<StreamEnd, Interrupt> {
    let sid = ids::sid("MZ");
    call.name_stream(stream);
    let socket = match line.wait_for(connect(call, stream)).await? {
        Ok(socket) => socket,
        Err(refused) => {
            let detail = refused.detail.clone();
            call.refuse(refused);
            call.record.note(Event::StreamEnded { by: "notConnected", close_code: None });
            call.tell_stream(stream, &sid, "stream-error", Some(&detail));
            return Ok(StreamEnd::Lost);
        }
    };
    let mut session = Session::start(call, stream, sid.clone(), socket);
    call.record.note(Event::StreamStarted { stream_sid: sid.clone() });
    call.tell_stream(stream, &sid, "stream-started", None);
    let result = session.exchange(line).await;
    let (by, close_code) = match &result {
        Ok((StreamEnd::Closed, code)) => ("product", *code),
        Ok((StreamEnd::Lost, code)) => ("lost", *code),
        Err(Interrupt::Caller(_)) => ("caller", None),
        Err(Interrupt::Command(_)) => ("request", None),
    };
    call.record.note(Event::StreamEnded { by, close_code });
    session.stop(result.is_err()).await;
    call.tell_stream(stream, &sid, "stream-stopped", None);
    result.map(|(end, _)| end)
}

async fn connect(call: &Call, stream: &Stream) -> Result<Socket, Refused> {
    let unreachable =
        |why: String| Refused::new(Rule::StreamConnect, format!("{}: {why}", path_of(&stream.url)));
    let target = resolve(call.carrier.webhooks().edges(), &stream.url)
        .ok_or_else(|| unreachable("no edge maps it".to_owned()))?;
    let transport = timeout(CONNECT_LIMIT, call.carrier.webhooks().trust().connect(&target, prepare))
        .await
        .map_err(|_| unreachable("no connection in time".to_owned()))?
        .map_err(|error| unreachable(error.to_string()))?;
    // TLS is done with or not asked for, while `Host` and the signature are those of the public URL.
    let plain = format!("ws://{}{}", target.host, target.path);
    let malformed = |why: String| Refused::new(Rule::StreamUrl, why);
    let mut request = plain.into_client_request().map_err(|error| malformed(error.to_string()))?;
    let settings = call.carrier.settings();
    let form = settings.switches.faults().phone.stream_url_form.unwrap_or(settings.stream_url_form);
    let signed = form.apply(&stream.url);
    let signature = sign(&settings.account.auth_token, &signed, &[]);
    let value = HeaderValue::from_str(&signature).map_err(|error| malformed(error.to_string()))?;
    request.headers_mut().insert("x-twilio-signature", value);
    let refused =
        |why: String| Refused::new(Rule::StreamHandshake, format!("{}: {why}", path_of(&stream.url)));
    let (socket, _) = timeout(CONNECT_LIMIT, tokio_tungstenite::client_async(request, transport))
        .await
        .map_err(|_| refused("no upgrade in time".to_owned()))?
        .map_err(|error| match error {
            SocketError::Http(response) => refused(format!("answered {}", response.status().as_u16())),
            other => refused(other.to_string()),
        })?;
    Ok(socket)
}

fn prepare(socket: &TcpStream) -> std::io::Result<()> {
    // Without it 20 ms frames would wait for each other's acknowledgements.
    socket.set_nodelay(true)?;
    // A large buffer of the kernel's would hide for a minute that nobody reads; without this it is noticed later.
    let _ = rustix::net::sockopt::set_socket_send_buffer_size(socket, SEND_BUFFER);
    Ok(())
}

/// A message on its way to the product.
struct Outgoing {
    frame: Frame,
    /// A mark's.
    is_echo: bool,
}

struct Session<'a> {
    call: &'a Call,
    sid: String,
    playout: Playout,
    sequence: u64,
    chunk: u64,
    faults: PhoneFaults,
    /// Frames of the media clock so far.
    frames: u64,
    /// The caller's audio that has not been sent yet, and when its first byte was spoken.
    unsent: (Vec<u8>, u64),
    /// Messages kept back by the jitter.
    late: Vec<Outgoing>,
    is_stalled: bool,
    has_overflowed: bool,
    /// Messages that wait for the product, but echoes.
    unread: Arc<AtomicUsize>,
    writer: mpsc::UnboundedSender<Outgoing>,
    reader: futures_util::stream::SplitStream<Socket>,
    writing: tokio::task::JoinHandle<()>,
}

impl<'a> Session<'a> {
    fn start(call: &'a Call, stream: &Stream, sid: String, socket: Socket) -> Self {
        let (mut sink, reader) = socket.split();
        let (writer, mut waiting) = mpsc::unbounded_channel::<Outgoing>();
        let unread = Arc::new(AtomicUsize::new(0));
        let taken = unread.clone();
        let writing = tokio::spawn(async move {
            while let Some(Outgoing { frame, is_echo }) = waiting.recv().await {
                if sink.send(frame).await.is_err() {
                    return;
                }
                if !is_echo {
                    taken.fetch_sub(1, Ordering::Relaxed);
                }
            }
        });
        let mut session = Self {
            call,
            sid,
            playout: Playout::default(),
            sequence: 0,
            chunk: 0,
            faults: call.carrier.switches().faults().phone,
            frames: 0,
            unsent: (Vec::new(), 0),
            late: Vec::new(),
            is_stalled: false,
            has_overflowed: false,
            unread,
            writer,
            reader,
            writing,
        };
        session.write(&json!({"event": "connected", "protocol": "Call", "version": "1.0.0"}));
        let parameters: serde_json::Map<String, Value> =
            stream.parameters.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        let start = json!({
            "accountSid": call.carrier.settings().account.sid,
            "streamSid": session.sid,
            "callSid": call.record.sid,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": parameters,
        });
        session.send("start", "start", start);
        session
    }

    /// Frames both ways until the socket ends; with the close code, if there was one.
    async fn exchange(&mut self, line: &mut Line) -> Result<(StreamEnd, Option<u16>), Interrupt> {
        loop {
            let now = self.frames * 20;
            if self.faults.cut_after_milliseconds.is_some_and(|at| at <= now) {
                return Ok((StreamEnd::Lost, None));
            }
            if self.faults.stall_after_milliseconds.is_some_and(|at| at <= now) {
                line.next_frame().await?;
                line.exchange(&[SILENCE; FRAME_BYTES])?;
                continue;
            }
            tokio::select! {
                biased;
                frame = line.next_frame() => {
                    frame?;
                    self.frames += 1;
                    let played = self.playout.play_frame();
                    let spoken = line.exchange(&played.audio)?;
                    self.echo(played.marks);
                    self.handle_spoken(&spoken.audio, now);
                    if let Some(key) = spoken.key {
                        self.send("dtmf", "dtmf", json!({"track": "inbound_track", "digit": key.to_string()}));
                    }
                }
                received = self.reader.next() => {
                    if let Some(end) = self.handle_received(received, line) {
                        return Ok(end);
                    }
                }
            }
        }
    }

    fn handle_received(
        &mut self,
        received: Option<Result<Frame, SocketError>>,
        line: &mut Line,
    ) -> Option<(StreamEnd, Option<u16>)> {
        match received {
            Some(Ok(Frame::Text(text))) => match message::parse(&text, &self.sid) {
                Ok(message) => self.handle_message(message, line),
                Err(refused) => self.call.refuse(refused),
            },
            Some(Ok(Frame::Binary(_))) => {
                self.call.refuse(Refused::new(Rule::StreamBinaryFrame, "a binary frame"));
            }
            Some(Ok(Frame::Ping(_) | Frame::Pong(_) | Frame::Frame(_))) => {} // the library answers
            Some(Ok(Frame::Close(close))) => {
                return Some((StreamEnd::Closed, close.map(|close| u16::from(close.code))));
            }
            Some(Err(error)) => {
                if is_breach(&error) {
                    self.call.refuse(Refused::new(Rule::StreamProtocol, error.to_string()));
                }
                return Some((StreamEnd::Lost, None));
            }
            None => return Some((StreamEnd::Lost, None)),
        }
        None
    }

    fn handle_message(&mut self, message: Message, line: &mut Line) {
        match message {
            Message::Media(audio) => {
                if let Err(overflow) = self.playout.push_media(&audio)
                    && !std::mem::replace(&mut self.has_overflowed, true)
                {
                    self.call.refuse(Refused::new(Rule::StreamBufferOverflow, overflow.to_string()));
                }
            }
            Message::Mark(name) => {
                let due = self.playout.push_mark(name);
                self.echo(due);
            }
            Message::Clear => {
                line.handle_clear(self.playout.waiting_milliseconds());
                let outstanding = self.playout.clear();
                self.echo(outstanding);
            }
        }
    }

    fn echo(&mut self, marks: impl IntoIterator<Item = String>) {
        for name in marks {
            self.send("mark", "mark", json!({ "name": name }));
        }
    }

    /// One frame of the caller, as the line takes it: whole, joined with others, late or not at all.
    fn handle_spoken(&mut self, audio: &[u8], now: u64) {
        let is_lost = self.frames.checked_rem(self.faults.lose_every_frames.into()) == Some(0);
        if !is_lost {
            if self.unsent.0.is_empty() {
                self.unsent.1 = now;
            }
            self.unsent.0.extend_from_slice(audio);
        }
        let frames = self.faults.frames_per_message.unwrap_or(1).max(1) as usize;
        if self.unsent.0.len() >= frames * FRAME_BYTES {
            let (audio, spoken_at) = std::mem::take(&mut self.unsent);
            self.send_media(&audio, spoken_at);
        }
        let burst = u64::from(self.faults.jitter_milliseconds / 20).max(1);
        if self.frames.is_multiple_of(burst) {
            for frame in std::mem::take(&mut self.late) {
                self.hand_over(frame);
            }
        }
    }

    fn send_media(&mut self, audio: &[u8], timestamp: u64) {
        self.chunk += 1;
        let media = json!({
            "track": "inbound",
            "chunk": self.chunk.to_string(),
            "timestamp": timestamp.to_string(),
            "payload": STANDARD.encode(audio),
        });
        self.send("media", "media", media);
    }

    fn send(&mut self, event: &str, member: &str, body: Value) {
        self.sequence += 1;
        let sequence = self.sequence.to_string();
        let mut message = json!({"event": event, "sequenceNumber": sequence, "streamSid": self.sid});
        message[member] = body;
        self.write(&message);
    }

    fn write(&mut self, message: &Value) {
        let frame = Outgoing { frame: Frame::text(message.to_string()), is_echo: message["event"] == "mark" };
        // What is late holds back all behind it, as on one connection.
        if self.faults.jitter_milliseconds > 0 {
            self.late.push(frame);
        } else {
            self.hand_over(frame);
        }
    }

    fn hand_over(&mut self, message: Outgoing) {
        if !message.is_echo && self.unread.fetch_add(1, Ordering::Relaxed) >= UNREAD_MESSAGES {
            self.unread.fetch_sub(1, Ordering::Relaxed); // it is lost
            if !std::mem::replace(&mut self.is_stalled, true) {
                let detail = "the product stopped reading the media stream";
                self.call.refuse(Refused::new(Rule::StreamStalled, detail));
            }
            return;
        }
        let _ = self.writer.send(message); // the writer is gone with its socket only
    }

    /// Says `stop` where the carrier ends the stream, and closes the socket.
    async fn stop(mut self, by_carrier: bool) {
        for frame in std::mem::take(&mut self.late) {
            self.hand_over(frame);
        }
        self.faults.jitter_milliseconds = 0;
        let now = self.frames * 20;
        let is_past = |at: Option<u64>| at.is_some_and(|at| at <= now);
        if is_past(self.faults.cut_after_milliseconds) || is_past(self.faults.stall_after_milliseconds) {
            self.writing.abort(); // and the socket is closed with its two halves, without a word
            return;
        }
        if by_carrier {
            let stop = json!({"accountSid": self.call.carrier.settings().account.sid, "callSid": self.call.record.sid});
            self.send("stop", "stop", stop);
            let normal = CloseFrame { code: CloseCode::Normal, reason: "".into() };
            self.hand_over(Outgoing { frame: Frame::Close(Some(normal)), is_echo: false });
        }
        drop(self.writer);
        // What the product still says is read and dropped until it closes too; a slow one is left behind.
        let (mut reader, writing) = (self.reader, self.writing);
        let closing = async move { while let Some(Ok(_)) = reader.next().await {} };
        let abort = writing.abort_handle();
        let both = async { tokio::join!(closing, writing) };
        if timeout(CLOSE_LIMIT, both).await.is_err() {
            abort.abort();
        }
    }
}
