//! One WebSocket as a call uses it: text frames in and out, nothing lost when a wait is cancelled, bounded.
//!
//! Both peers of a call (phone and model) are driven by one task, so reading and writing happen in one place:
//! [`Duplex::next`] writes what is queued while it waits for a frame. What the socket does not take stays in the
//! outbox, up to a bound in bytes and in time; above the one [`Duplex::queue`] refuses, after the other [`Duplex::next`]
//! says so, and the owner ends the call: a peer that stopped reading must not fill the pod's memory. Sizes of messages are limited; the library's defaults (64 MiB) are not used.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::CapacityError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

/// What a WebSocket runs on: a plain or TLS connection, or a test's pipe.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// Reading starts with a small buffer: most frames are smaller, and it is paid per call.
const READ_BUFFER: usize = 4 * 1024;

/// Queued frames are gathered up to this size into one write.
const WRITE_BUFFER: usize = 8 * 1024;

/// How much a peer may send and leave unread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// The largest message taken.
    pub(crate) message: usize,
    /// Bytes that may wait in the outbox.
    pub(crate) outbox: usize,
}

/// A peer that takes nothing for this long, while something waits for it, is gone: TCP's own retries would take minutes.
const PATIENCE: Duration = Duration::from_secs(10);

impl Bounds {
    /// The library's configuration for a socket with these bounds.
    pub(crate) fn config(self) -> WebSocketConfig {
        WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(WRITE_BUFFER)
            .max_write_buffer_size(WRITE_BUFFER + self.outbox)
            .max_message_size(Some(self.message))
            .max_frame_size(Some(self.message))
    }
}

/// What came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Incoming {
    /// A text message.
    Text(Bytes),
    /// A binary message, which neither peer should send.
    Binary,
    /// The peer closed, with this code if it said one. Nothing more comes.
    Closed(Option<u16>),
    /// A message was larger than the bound. Nothing more comes.
    TooLarge,
    /// The peer has taken nothing of what waits for it for [`PATIENCE`]. Nothing more comes.
    Stalled,
    /// The connection broke, or the peer broke the protocol of WebSockets. Nothing more comes.
    Broken,
}

/// The peer does not read what it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the peer does not read what it is sent")]
pub(crate) struct OutboxFull;

/// A WebSocket and what waits to be written to it.
pub(crate) struct Duplex {
    socket: WebSocketStream<Box<dyn Transport>>,
    outbox: VecDeque<Message>,
    outbox_bytes: usize,
    /// The most that ever waited.
    high_water: usize,
    bound: usize,
    is_flushed: bool,
    /// Runs while something waits and nothing is taken; made when that first happens, which is hardly ever.
    stall: Option<Pin<Box<Sleep>>>,
    is_stalling: bool,
    is_over: bool,
    is_ping_unanswered: bool,
}

/// The peer has not answered the last ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the peer has not answered the last ping")]
pub(crate) struct PingUnanswered;

impl Duplex {
    /// Takes an open WebSocket that was configured with [`Bounds::config`].
    pub(crate) fn new(socket: WebSocketStream<Box<dyn Transport>>, bounds: Bounds) -> Self {
        Self {
            socket,
            outbox: VecDeque::new(),
            outbox_bytes: 0,
            high_water: 0,
            bound: bounds.outbox,
            is_flushed: true,
            stall: None,
            is_stalling: false,
            is_over: false,
            is_ping_unanswered: false,
        }
    }

    /// Queues a ping; the answer is noticed while [`Duplex::next`] is awaited.
    ///
    /// # Errors
    /// [`PingUnanswered`] when the last one was not answered; no other is sent.
    pub(crate) fn ping(&mut self) -> Result<(), PingUnanswered> {
        if self.is_ping_unanswered {
            return Err(PingUnanswered);
        }
        self.is_ping_unanswered = true;
        self.outbox.push_back(Message::Ping(Bytes::new()));
        Ok(())
    }

    /// Queues a text frame; it leaves while [`Duplex::next`] is awaited.
    ///
    /// # Errors
    /// [`OutboxFull`] when the bound is reached; the frame is dropped.
    pub(crate) fn queue(&mut self, frame: Bytes) -> Result<(), OutboxFull> {
        if self.is_over {
            return Ok(());
        }
        if self.outbox_bytes + frame.len() > self.bound {
            return Err(OutboxFull);
        }
        let Ok(text) = Utf8Bytes::try_from(frame) else {
            tracing::error!("a frame that is not UTF-8 was not sent");
            return Ok(());
        };
        self.outbox_bytes += text.len();
        self.high_water = self.high_water.max(self.outbox_bytes);
        self.outbox.push_back(Message::Text(text));
        Ok(())
    }

    /// Bytes that wait to be written.
    #[cfg(test)]
    const fn outbox_bytes(&self) -> usize {
        self.outbox_bytes
    }

    /// The most bytes that ever waited to be written.
    pub(crate) const fn high_water(&self) -> usize {
        self.high_water
    }

    /// Writes what is queued and waits for the next message. After `Closed`, `TooLarge`, `Stalled` or `Broken` it never
    /// returns. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Incoming {
        if self.is_over {
            return std::future::pending().await;
        }
        let incoming = poll_fn(|cx| self.poll(cx)).await;
        self.is_over = incoming.is_last();
        incoming
    }

    /// Sends what is queued and a close frame, and waits for the peer's; at most for `patience`. The connection is gone
    /// afterwards in any case.
    pub(crate) async fn close(mut self, code: u16, reason: &'static str, patience: Duration) {
        if self.is_over {
            return;
        }
        let frame = CloseFrame { code: CloseCode::from(code), reason: Utf8Bytes::from_static(reason) };
        self.outbox.push_back(Message::Close(Some(frame)));
        let over = async { while !self.next().await.is_last() {} };
        // A peer that does not answer the close loses the connection anyway.
        let _ = tokio::time::timeout(patience, over).await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Incoming> {
        match self.poll_write(cx) {
            Ok(Written::All) => self.is_stalling = false,
            Ok(written) => {
                if self.poll_stall(cx, written).is_ready() {
                    return Poll::Ready(Incoming::Stalled);
                }
            }
            Err(_) => return Poll::Ready(Incoming::Broken),
        }
        loop {
            let message = match Pin::new(&mut self.socket).poll_next(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(Incoming::Closed(None)),
                Poll::Ready(Some(message)) => message,
            };
            match message {
                Ok(Message::Text(text)) => return Poll::Ready(Incoming::Text(text.into())),
                Ok(Message::Binary(_)) => return Poll::Ready(Incoming::Binary),
                Ok(Message::Close(frame)) => {
                    // Lets the library's answer to the close frame leave.
                    let _ = Pin::new(&mut self.socket).poll_flush(cx);
                    return Poll::Ready(Incoming::Closed(frame.map(|frame| frame.code.into())));
                }
                Ok(Message::Pong(_)) => self.is_ping_unanswered = false,
                Ok(Message::Ping(_) | Message::Frame(_)) => {}
                Err(Error::Capacity(CapacityError::MessageTooLong { .. })) => {
                    return Poll::Ready(Incoming::TooLarge);
                }
                Err(Error::ConnectionClosed | Error::AlreadyClosed) => {
                    return Poll::Ready(Incoming::Closed(None));
                }
                Err(_) => return Poll::Ready(Incoming::Broken),
            }
        }
    }

    /// Measures how long the peer has taken nothing.
    fn poll_stall(&mut self, cx: &mut Context<'_>, written: Written) -> Poll<()> {
        let stall = self.stall.get_or_insert_with(|| Box::pin(tokio::time::sleep(PATIENCE)));
        if !self.is_stalling || written == Written::Some {
            stall.as_mut().reset(Instant::now() + PATIENCE);
            self.is_stalling = true;
        }
        stall.as_mut().poll(cx)
    }

    /// Moves the outbox to the socket as far as it goes. An error is reported by reading as well.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<Written, Error> {
        let mut socket = Pin::new(&mut self.socket);
        let mut written = Written::Nothing;
        while !self.outbox.is_empty() {
            match socket.as_mut().poll_ready(cx) {
                Poll::Pending => return Ok(written),
                Poll::Ready(ready) => ready?,
            }
            let Some(message) = self.outbox.pop_front() else { break };
            self.outbox_bytes -= if message.is_text() { message.len() } else { 0 };
            self.is_flushed = false;
            socket.as_mut().start_send(message)?;
            written = Written::Some;
        }
        if !self.is_flushed {
            match socket.poll_flush(cx) {
                Poll::Pending => return Ok(written),
                Poll::Ready(flushed) => flushed?,
            }
            self.is_flushed = true;
        }
        Ok(Written::All)
    }
}

/// How much of what waited was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    Nothing,
    Some,
    All,
}

impl Incoming {
    /// Whether nothing more comes.
    const fn is_last(&self) -> bool {
        match self {
            Self::Closed(_) | Self::TooLarge | Self::Stalled | Self::Broken => true,
            Self::Text(_) | Self::Binary => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{SinkExt as _, StreamExt as _};
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::*;

    const BOUNDS: Bounds = Bounds { message: 1024, outbox: 64 * 1024 };

    type Peer = WebSocketStream<tokio::io::DuplexStream>;

    /// A duplex and its peer, joined by a pipe that holds `pipe` bytes.
    async fn pair(pipe: usize) -> (Duplex, Peer) {
        let (ours, theirs) = tokio::io::duplex(pipe);
        let ours: Box<dyn Transport> = Box::new(ours);
        let socket = WebSocketStream::from_raw_socket(ours, Role::Server, Some(BOUNDS.config())).await;
        let peer = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
        (Duplex::new(socket, BOUNDS), peer)
    }

    fn text(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    #[tokio::test]
    async fn queued_frames_leave_in_order_while_waiting_for_a_frame() {
        let (mut duplex, mut peer) = pair(64).await;
        for n in 0..50 {
            duplex.queue(text(&format!("frame {n}"))).unwrap();
        }
        let reader = tokio::spawn(async move {
            for n in 0..50 {
                assert_eq!(peer.next().await.unwrap().unwrap(), Message::text(format!("frame {n}")));
            }
            peer.send(Message::text("thanks")).await.unwrap();
            peer
        });
        assert_eq!(duplex.next().await, Incoming::Text(text("thanks")));
        assert_eq!(duplex.outbox_bytes(), 0);
        drop(reader.await.unwrap());
        assert!(matches!(duplex.next().await, Incoming::Closed(_) | Incoming::Broken));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_read_fills_the_outbox_and_no_more() {
        let (mut duplex, _peer) = pair(64).await;
        let frame = text(&"x".repeat(1000));
        let mut taken = 0;
        while duplex.queue(frame.clone()).is_ok() {
            taken += 1;
            let _ = tokio::time::timeout(Duration::from_millis(1), duplex.next()).await;
            assert!(taken < 1000);
        }
        assert!(duplex.outbox_bytes() <= BOUNDS.outbox);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_is_given_up_after_a_time_and_one_that_reads_is_not() {
        let (mut duplex, mut peer) = pair(64).await;
        duplex.queue(text(&"x".repeat(1000))).unwrap();
        let began = Instant::now();
        assert!(tokio::time::timeout(PATIENCE / 2, duplex.next()).await.is_err());
        // The peer reads after all; the next wait begins anew.
        let reading = tokio::spawn(async move {
            let message = peer.next().await.unwrap().unwrap();
            (message, peer)
        });
        assert!(tokio::time::timeout(PATIENCE * 3, duplex.next()).await.is_err());
        let (message, _peer) = reading.await.unwrap();
        assert_eq!((message.len(), duplex.outbox_bytes()), (1000, 0));

        duplex.queue(text(&"x".repeat(1000))).unwrap();
        let waiting = Instant::now();
        assert_eq!(duplex.next().await, Incoming::Stalled);
        assert_eq!((waiting - began, waiting.elapsed()), (PATIENCE * 7 / 2, PATIENCE));
    }

    #[tokio::test]
    async fn an_unanswered_ping_is_told_by_the_next() {
        let (mut duplex, mut peer) = pair(4096).await;
        duplex.ping().unwrap();
        assert_eq!(duplex.ping(), Err(PingUnanswered));
        let answering = tokio::spawn(async move {
            assert!(peer.next().await.unwrap().unwrap().is_ping());
            peer.flush().await.unwrap(); // the pong, ahead of the text
            peer.send(Message::text("behind the pong")).await.unwrap();
            peer
        });
        assert_eq!(duplex.next().await, Incoming::Text(text("behind the pong")));
        duplex.ping().unwrap();
        drop(answering.await.unwrap());
    }

    #[tokio::test]
    async fn a_message_above_the_bound_is_told_as_such() {
        let (mut duplex, mut peer) = pair(4096).await;
        peer.send(Message::text("x".repeat(2000))).await.unwrap();
        assert_eq!(duplex.next().await, Incoming::TooLarge);
    }

    #[tokio::test]
    async fn closing_sends_what_was_queued_and_the_code() {
        let (mut duplex, mut peer) = pair(4096).await;
        duplex.queue(text("last words")).unwrap();
        let closing = tokio::spawn(duplex.close(1000, "", Duration::from_secs(5)));
        assert_eq!(peer.next().await.unwrap().unwrap(), Message::text("last words"));
        let Message::Close(Some(frame)) = peer.next().await.unwrap().unwrap() else { panic!("no close") };
        assert_eq!(u16::from(frame.code), 1000);
        while let Some(Ok(_)) = peer.next().await {}
        closing.await.unwrap();
    }
}
