//! The three audio formats of the API, to and from the simulator's own μ-law.

use serde_json::{Value, json};

use super::fields::Fields;
use super::refusal::Refusal;
use crate::voice::mulaw;

/// How audio travels in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AudioFormat {
    /// μ-law, 8 kHz: what the telephone speaks.
    Pcmu,
    /// A-law, 8 kHz.
    Pcma,
    /// Linear 16 bit, 24 kHz: the default.
    Pcm,
}

impl AudioFormat {
    /// Reads `{"type": …}`.
    pub(super) fn parse(value: &Value, path: &str) -> Result<Self, Refusal> {
        let fields = Fields::of(value, path, &["type", "rate"])?;
        let format = match fields.word("type", &["audio/pcmu", "audio/pcma", "audio/pcm"])? {
            Some("audio/pcmu") => Self::Pcmu,
            Some("audio/pcma") => Self::Pcma,
            Some(_) => Self::Pcm,
            None => return Err(Refusal::missing(fields.path_of("type"))),
        };
        match (format, fields.value("rate")) {
            (Self::Pcmu | Self::Pcma, Some(_)) => Err(Refusal::unknown(fields.path_of("rate"))),
            (Self::Pcm, Some(rate)) if rate != 24_000 => {
                Err(Refusal::invalid(fields.path_of("rate"), "24000"))
            }
            _ => Ok(format),
        }
    }

    pub(super) fn to_json(self) -> Value {
        match self {
            Self::Pcmu => json!({"type": "audio/pcmu"}),
            Self::Pcma => json!({"type": "audio/pcma"}),
            Self::Pcm => json!({"type": "audio/pcm", "rate": 24_000}),
        }
    }

    /// Received bytes as μ-law. Linear audio is thinned by averaging three samples: good enough to hear energy.
    pub(super) fn decode(self, bytes: Vec<u8>) -> Vec<u8> {
        match self {
            Self::Pcmu => bytes,
            Self::Pcma => bytes.iter().map(|byte| mulaw::encode(mulaw::decode_alaw(*byte))).collect(),
            Self::Pcm => bytes.as_chunks::<6>().0.iter().map(average).collect(),
        }
    }

    /// μ-law as bytes to send.
    pub(super) fn encode(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Pcmu => bytes.to_vec(),
            Self::Pcma => bytes.iter().map(|byte| mulaw::encode_alaw(mulaw::decode(*byte))).collect(),
            Self::Pcm => bytes
                .iter()
                .flat_map(|byte| [mulaw::decode(*byte); 3])
                .flat_map(|sample| sample.to_le_bytes())
                .collect(),
        }
    }
}

fn average(six: &[u8; 6]) -> u8 {
    let sum: i32 = six.as_chunks::<2>().0.iter().map(|pair| i32::from(i16::from_le_bytes(*pair))).sum();
    mulaw::encode((sum / 3) as i16) // a mean of three i16 fits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_carries_audio_both_ways() {
        let audio: Vec<u8> = (0x80..=0xFF).collect();
        for format in [AudioFormat::Pcmu, AudioFormat::Pcm] {
            assert_eq!(format.decode(format.encode(&audio)), audio, "{format:?}");
        }
        assert_eq!(AudioFormat::Pcma.encode(&audio).len(), audio.len());
    }
}
