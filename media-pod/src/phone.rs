//! The phone leg: a media stream after its `start`, as the call machine sees it.
//!
//! Turns messages into phone events and commands into messages, and counts what cannot be used. A frame that does not
//! parse is skipped; a message above the limit, or a peer that stops reading, ends the leg.

use std::sync::Arc;
use std::time::Duration;

use call_session::StreamSid;
use call_session::io::{PhoneCommand, PhoneEvent};
use call_session::twilio::{self, Frame};

use crate::duplex::{Bounds, Duplex, Incoming};
use crate::metrics::{Metrics, PhoneFault};

/// Bounds of a media stream. The outbox holds about three minutes of speech that the carrier did not take: TCP alone
/// takes seconds, and the carrier buffers ten minutes, so only a dead or hostile peer gets there. A dead one is mostly
/// found out earlier, by the time for which it takes nothing.
pub(crate) const BOUNDS: Bounds = Bounds { message: twilio::MAX_MESSAGE, outbox: 2 << 20 };

/// How long the carrier may take to answer a close.
const CLOSING: Duration = Duration::from_secs(2);

/// A media stream.
pub(crate) struct Phone {
    socket: Duplex,
    stream: StreamSid,
    metrics: Arc<Metrics>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// The peer stopped reading; reported by the next event.
    Stalled,
    /// The last event was reported.
    Over,
}

impl Phone {
    /// Takes a stream whose `start` was read.
    pub(crate) const fn new(socket: Duplex, stream: StreamSid, metrics: Arc<Metrics>) -> Self {
        Self { socket, stream, metrics, state: State::Open }
    }

    /// Queues a command; it leaves while [`Phone::next_event`] is awaited.
    pub(crate) fn send(&mut self, command: &PhoneCommand) {
        if self.state == State::Open && self.socket.queue(twilio::encode(&self.stream, command)).is_err() {
            self.too_slow();
            self.state = State::Stalled;
        }
    }

    fn too_slow(&self) {
        self.metrics.phone_faults.inc(PhoneFault::TooSlow);
        tracing::warn!("the phone leg does not take what it is sent");
    }

    /// The next event. After [`PhoneEvent::Stopped`] or [`PhoneEvent::Lost`] it never returns. Cancel-safe.
    pub(crate) async fn next_event(&mut self) -> PhoneEvent {
        loop {
            let event = match self.state {
                State::Open => self.read().await,
                State::Stalled => Some(PhoneEvent::Lost),
                State::Over => std::future::pending().await,
            };
            let Some(event) = event else { continue };
            if matches!(event, PhoneEvent::Stopped | PhoneEvent::Lost) {
                self.state = State::Over;
            }
            return event;
        }
    }

    /// Closes the stream normally: the carrier then asks `<Connect action>` what comes next.
    pub(crate) async fn close(self) {
        self.metrics.phone_queue.observe(self.socket.high_water() as f64);
        self.socket.close(1000, "", CLOSING).await;
    }

    async fn read(&mut self) -> Option<PhoneEvent> {
        let message = match self.socket.next().await {
            Incoming::Text(message) => message,
            Incoming::Binary => {
                self.metrics.phone_faults.inc(PhoneFault::Malformed);
                return None;
            }
            Incoming::TooLarge => {
                self.metrics.phone_faults.inc(PhoneFault::TooLarge);
                tracing::warn!("the phone leg sent a message above the limit");
                return Some(PhoneEvent::Lost);
            }
            Incoming::Closed(code) => {
                tracing::debug!(code, "the phone leg closed without a stop");
                return Some(PhoneEvent::Lost);
            }
            Incoming::Stalled => {
                self.too_slow();
                return Some(PhoneEvent::Lost);
            }
            Incoming::Broken => return Some(PhoneEvent::Lost),
        };
        match Frame::parse(&message) {
            Ok(Frame::Unknown(name)) => {
                self.metrics.phone_faults.inc(PhoneFault::Unknown);
                tracing::trace!(event = ?name, "an unknown event of the media stream was skipped");
                None
            }
            Ok(frame) => frame.into_event(),
            Err(error) => {
                self.metrics.phone_faults.inc(PhoneFault::Malformed);
                tracing::trace!(%error, "a frame of the media stream was skipped");
                None
            }
        }
    }
}
