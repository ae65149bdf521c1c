//! The tag at the beginning of every audio frame of a load run: which call, which frame, when it was sent.
//!
//! It survives as long as nobody alters the audio, which the product promises. 24 bytes are 32 characters of base64 without
//! padding, so a tag is written and read without touching the rest of the frame.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

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
    /// Counted from 0 within a call and direction.
    pub(super) sequence: u32,
    /// Since the run began.
    pub(super) sent: Duration,
}

/// The rest of a frame, encoded once.
#[derive(Clone, Debug)]
pub(super) struct Filler(String);

impl Filler {
    /// The part behind the tag of a frame with so many bytes.
    pub(super) fn new(frame: usize, sample: u8) -> Self {
        Self(STANDARD.encode(vec![sample; frame - TAG_BYTES]))
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
        let mut text = String::with_capacity(TAG_CHARACTERS + filler.0.len());
        STANDARD.encode_string(bytes, &mut text);
        text.push_str(&filler.0);
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
        let (sent, _) = rest.split_first_chunk()?;
        (magic == MAGIC).then(|| Self {
            sound: if *kind == 0 { Sound::Silence } else { Sound::Speech },
            line: u32::from_le_bytes(*line),
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
        let tag =
            Tag { sound: Sound::Speech, line: 7, sequence: 900, sent: Duration::from_nanos(123_456_789) };
        let text = tag.frame(&Filler::new(160, 0xFF));
        let bytes = STANDARD.decode(&text).unwrap();
        assert_eq!(bytes.len(), 160);
        assert_eq!((Tag::of_base64(&text), Tag::of_bytes(&bytes)), (Some(tag), Some(tag)));
        assert_eq!((Tag::of_base64("/////"), Tag::of_bytes(&[0xFF; 160])), (None, None));
    }
}
