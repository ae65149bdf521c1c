//! The tag at the beginning of every audio frame of a load run: which call, which frame, when it was sent.
//!
//! It survives as long as nobody alters the audio, which the product promises. 24 bytes are 32 characters of base64 without
//! padding, so a tag is written and read without touching the rest of the frame, which a [`Filler`] writes and compares.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::carrier::playout::{FRAME_BYTES, SILENCE};

/// Bytes of a tag.
pub(super) const TAG_BYTES: usize = 24;
/// The same in base64.
const TAG_CHARACTERS: usize = 32;
/// The line of what the model says before it heard anything.
pub(super) const UNKNOWN_LINE: u32 = u32::MAX;
/// Begins every tag; in μ-law it is noise no clip begins with.
const MAGIC: [u8; 3] = *b"SbL";

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sound {
    Silence,
    Speech,
}

/// A frame's tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tag {
    pub(super) sound: Sound,
    /// The line of the load run.
    pub(super) line: u32,
    /// The line's call, counted from 1.
    pub(super) call: u32,
    /// Counted from 0: callers' frames within a call, the model's within a session.
    pub(super) sequence: u32,
    /// Since the run began.
    pub(super) sent: Duration,
}

/// The rest of a frame, encoded once.
#[derive(Clone, Debug)]
pub(super) struct Filler {
    bytes: Vec<u8>,
    text: String,
}

impl Filler {
    /// The part behind the tag of a frame with so many bytes.
    pub(super) fn new(frame: usize, sample: u8) -> Self {
        let bytes = vec![sample; frame - TAG_BYTES];
        Self { text: STANDARD.encode(&bytes), bytes }
    }

    /// Behind a caller's tag. 0x20 is loud, whoever listens.
    pub(super) fn of_caller(sound: Sound) -> Self {
        let sample = match sound {
            Sound::Silence => SILENCE,
            Sound::Speech => 0x20,
        };
        Self::new(FRAME_BYTES, sample)
    }

    /// Whether this, and nothing else, is behind the tag of a frame in base64.
    pub(super) fn ends_base64(&self, frame: &str) -> bool {
        frame.get(TAG_CHARACTERS..) == Some(self.text.as_str())
    }

    /// Whether this, and nothing else, is behind the tag of a frame.
    pub(super) fn ends_bytes(&self, frame: &[u8]) -> bool {
        frame.get(TAG_BYTES..) == Some(self.bytes.as_slice())
    }
}

impl Tag {
    /// The whole frame in base64.
    pub(super) fn frame(&self, filler: &Filler) -> String {
        let mut bytes = [0; TAG_BYTES];
        bytes[..3].copy_from_slice(&MAGIC);
        bytes[3] = u8::from(self.sound == Sound::Speech);
        bytes[4..8].copy_from_slice(&self.line.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.sequence.to_le_bytes());
        let sent = u64::try_from(self.sent.as_nanos()).unwrap_or(u64::MAX);
        bytes[12..20].copy_from_slice(&sent.to_le_bytes());
        bytes[20..].copy_from_slice(&self.call.to_le_bytes());
        let mut text = String::with_capacity(TAG_CHARACTERS + filler.text.len());
        STANDARD.encode_string(bytes, &mut text);
        text.push_str(&filler.text);
        text
    }

    /// The tag at the beginning of a frame in base64.
    pub(super) fn of_base64(text: &str) -> Option<Self> {
        let mut bytes = [0; TAG_BYTES];
        STANDARD.decode_slice(text.get(..TAG_CHARACTERS)?, &mut bytes).ok()?;
        Self::of_bytes(&bytes)
    }

    /// The tag at the beginning of a frame.
    pub(super) fn of_bytes(bytes: &[u8]) -> Option<Self> {
        let (magic, rest) = bytes.split_at_checked(3)?;
        let (kind, rest) = rest.split_first()?;
        let (line, rest) = rest.split_first_chunk()?;
        let (sequence, rest) = rest.split_first_chunk()?;
        let (sent, rest) = rest.split_first_chunk()?;
        let (call, _) = rest.split_first_chunk()?;
        (magic == MAGIC).then(|| Self {
            sound: if *kind == 0 { Sound::Silence } else { Sound::Speech },
            line: u32::from_le_bytes(*line),
            call: u32::from_le_bytes(*call),
            sequence: u32::from_le_bytes(*sequence),
            sent: Duration::from_nanos(u64::from_le_bytes(*sent)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_read_back_and_the_frame_has_its_length() {
        let tag = Tag {
            sound: Sound::Speech,
            line: 7,
            call: 3,
            sequence: 900,
            sent: Duration::from_nanos(123_456_789),
        };
        let filler = Filler::new(160, 0xFF);
        let text = tag.frame(&filler);
        let mut bytes = STANDARD.decode(&text).unwrap();
        assert_eq!(bytes.len(), 160);
        assert_eq!((Tag::of_base64(&text), Tag::of_bytes(&bytes)), (Some(tag), Some(tag)));
        assert!(filler.ends_base64(&text) && filler.ends_bytes(&bytes));
        assert!(!filler.ends_base64(&text[..text.len() - 4]) && !filler.ends_bytes(&bytes[..159]), "cut");
        bytes[100] = 0xFE;
        assert!(!filler.ends_base64(&STANDARD.encode(&bytes)) && !filler.ends_bytes(&bytes), "altered");
        assert_eq!((Tag::of_base64("/////"), Tag::of_bytes(&[0xFF; 160])), (None, None));
    }
}
