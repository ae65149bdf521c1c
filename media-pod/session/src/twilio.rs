//! Wire types of Twilio Media Streams: one text message in, one [`Frame`] out, and the three messages that go back.
//!
//! Follows the project's protocol sheet, section 1 (Media Streams). Tolerant of what the sheet leaves open: unknown
//! fields are ignored, unknown events are [`Frame::Unknown`], numbers come as decimal strings or as numbers. A known
//! event of the wrong shape is a typed error; nothing here panics, keeps state or decodes audio.
//!
//! [`Frame::parse`] copies nothing of a media frame: its [`Payload`](crate::audio::Payload) is a slice of the received
//! message, unless the peer wrote the base64 with JSON escapes.

mod encode;
mod frame;
#[cfg(test)]
mod tests;
mod text;

pub use encode::{clear, encode, mark, media};
pub use frame::{Frame, FrameError, MAX_MESSAGE, MediaFormat, Start, Track};
pub(crate) use text::{Number, Text, slice_of};
