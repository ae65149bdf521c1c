//! G.711 μ-law audio as both peers carry it: base64 text, 8000 samples a second, 8 bytes a millisecond.
//!
//! Twilio's `media.payload` *is* the Realtime API's `audio/pcmu` payload, so a frame is re-framed and never decoded.
//! Decoding exists for what needs samples (voice activity, recording, other codecs). Follows G.711 and the table in
//! the project's protocol sheet.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, PAD, STANDARD};
use bytes::Bytes;

use crate::Ms;

/// μ-law bytes per millisecond at 8 kHz.
pub const BYTES_PER_MS: u64 = 8;

/// The μ-law byte of silence (it decodes to 0).
pub const SILENCE: u8 = 0xFF;

/// A stretch of μ-law audio, base64 as received; cloning shares the buffer of the frame it came in.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload {
    base64: Bytes,
    bytes: u64,
}

/// Why a payload is refused. The frame it came in is counted and skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("audio payload is not padded standard base64")]
pub struct InvalidPayload;

impl Payload {
    /// Takes base64 text as it stands in a frame, without copying it.
    ///
    /// # Errors
    /// When a byte is outside the standard alphabet, or the padding or length is wrong.
    pub fn from_base64(base64: Bytes) -> Result<Self, InvalidPayload> {
        let length = base64.len();
        if !length.is_multiple_of(4) {
            return Err(InvalidPayload);
        }
        let padding = base64.iter().rev().take(2).take_while(|b| **b == b'=').count();
        // No early exit and no branch: the compiler checks many bytes at once, and nearly every frame is good.
        let alphabet = |b: &u8| b.is_ascii_alphanumeric() | (*b == b'+') | (*b == b'/');
        let is_clean = |digits: &[u8]| digits.iter().fold(true, |clean, b| clean & alphabet(b));
        if !base64.get(..length - padding).is_some_and(is_clean) {
            return Err(InvalidPayload);
        }
        let bytes = (length / 4 * 3 - padding) as u64;
        Ok(Self { base64, bytes })
    }

    /// Encodes raw μ-law bytes.
    pub fn from_mulaw(mulaw: &[u8]) -> Self {
        Self { base64: Bytes::from(STANDARD.encode(mulaw)), bytes: mulaw.len() as u64 }
    }

    /// Silence of this length.
    pub fn silence(length: Ms) -> Self {
        Self::from_mulaw(&vec![SILENCE; length.0.saturating_mul(BYTES_PER_MS) as usize])
    }

    /// The base64 text, ASCII.
    pub const fn base64(&self) -> &Bytes {
        &self.base64
    }

    /// The base64 text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.base64).unwrap_or_default() // checked ASCII at construction
    }

    /// How many μ-law bytes (samples) it holds.
    pub const fn mulaw_len(&self) -> u64 {
        self.bytes
    }

    /// How long it plays, whole milliseconds rounded down; sum [`Payload::mulaw_len`] where fractions must not be lost.
    pub const fn duration(&self) -> Ms {
        Ms(self.bytes / BYTES_PER_MS)
    }

    /// Decodes to raw μ-law bytes, for what needs samples.
    pub fn to_mulaw(&self) -> Vec<u8> {
        LENIENT.decode(&self.base64).unwrap_or_default() // shape checked at construction
    }
}

/// The last digit may have bits that belong to no byte, as in the message that Twilio itself publishes (RFC 4648 section 3.5).
const LENIENT: GeneralPurpose =
    GeneralPurpose::new(&alphabet::STANDARD, PAD.with_decode_allow_trailing_bits(true));

impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Payload({} bytes)", self.bytes)
    }
}

/// Decodes one μ-law byte to a linear sample (G.711).
pub const fn decode(byte: u8) -> i16 {
    let u = !byte;
    let t = ((((u & 0x0F) as i32) << 3) + 0x84) << ((u & 0x70) >> 4);
    (if u & 0x80 != 0 { 0x84 - t } else { t - 0x84 }) as i16
}

/// Encodes one linear sample to μ-law (G.711, the Sun/CCITT reference).
pub const fn encode(pcm: i16) -> u8 {
    let mut s = pcm as i32; // i32, so that -32768 negates safely
    let sign: u8 = if s < 0 {
        s = -s;
        0x80
    } else {
        0
    };
    if s > 32635 {
        s = 32635;
    }
    s += 0x84; // 132..=32767
    let exponent = (31 - (s as u32).leading_zeros()) as i32 - 7; // 0..=7
    let mantissa = ((s >> (exponent + 3)) & 0x0F) as u8;
    !(sign | ((exponent as u8) << 4) | mantissa)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payload_length_counts_mulaw_bytes_not_base64() {
        for length in [0_usize, 1, 2, 3, 159, 160, 161] {
            let payload = Payload::from_mulaw(&vec![SILENCE; length]);
            assert_eq!(payload.mulaw_len(), length as u64);
            assert_eq!(Payload::from_base64(payload.base64().clone()), Ok(payload.clone()));
            assert_eq!(payload.to_mulaw().len(), length);
        }
        assert_eq!(Payload::from_mulaw(&[SILENCE; 160]).duration(), Ms(20));
    }

    #[test]
    fn bits_that_belong_to_no_byte_are_ignored() {
        for (text, bytes) in [("/////2==", 4), ("no+JhoaJjpz=", 8), ("ab9=", 2)] {
            let payload = Payload::from_base64(Bytes::from_static(text.as_bytes())).unwrap();
            assert_eq!((payload.mulaw_len(), payload.to_mulaw().len()), (bytes, bytes as usize), "{text}");
        }
    }

    #[test]
    fn garbage_is_refused() {
        for text in ["a", "abc", "ab=c", "a===", "====", "ab\"d", "abcd="] {
            assert_eq!(
                Payload::from_base64(Bytes::from_static(text.as_bytes())),
                Err(InvalidPayload),
                "{text}"
            );
        }
    }

    #[test]
    fn codec_follows_the_published_table() {
        let encoded = [
            (-32768, 0x00),
            (-16384, 0x0F),
            (-1000, 0x4E),
            (-4, 0x7E),
            (0, 0xFF),
            (1000, 0xCE),
            (32767, 0x80),
        ];
        for (pcm, byte) in encoded {
            assert_eq!(encode(pcm), byte, "{pcm}");
        }
        for byte in 0..=255_u8 {
            let expected = if byte == 0x7F { 0xFF } else { byte };
            assert_eq!(encode(decode(byte)), expected);
        }
    }
}
