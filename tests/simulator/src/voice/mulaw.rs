//! G.711 companding and loudness, the simulator's own copy.
//!
//! It shares no code with the product on purpose: a mistake in the product's codec must not hide in the simulator's.
//! Follows G.711 and the vectors of the project's protocol sheet, section 8.

/// Samples, and in μ-law bytes, a second.
pub const SAMPLE_RATE: u32 = 8000;

/// μ-law bytes per millisecond.
pub const BYTES_PER_MS: usize = 8;

/// One 20 ms frame, as the carrier sends it.
pub const FRAME_BYTES: usize = 20 * BYTES_PER_MS;

/// The byte of silence.
pub const SILENCE: u8 = 0xFF;

/// Decodes one μ-law byte.
pub const fn decode(byte: u8) -> i16 {
    let inverted = !byte;
    let magnitude = ((((inverted & 0x0F) as i32) << 3) + BIAS) << ((inverted & 0x70) >> 4);
    (if inverted & 0x80 == 0 { magnitude - BIAS } else { BIAS - magnitude }) as i16
}

/// Encodes one linear sample.
pub const fn encode(sample: i16) -> u8 {
    let wide = sample as i32; // so that -32768 negates safely
    let sign = if wide < 0 { 0x80_u8 } else { 0 };
    let magnitude = if wide < 0 { -wide } else { wide };
    let biased = if magnitude > CLIP { CLIP + BIAS } else { magnitude + BIAS };
    let exponent = (31 - (biased as u32).leading_zeros()) as i32 - 7;
    let mantissa = ((biased >> (exponent + 3)) & 0x0F) as u8;
    !(sign | ((exponent as u8) << 4) | mantissa)
}

/// Encodes a stretch of samples.
pub fn encode_all(samples: &[i16]) -> Vec<u8> {
    samples.iter().map(|sample| encode(*sample)).collect()
}

/// Decodes a stretch of bytes.
pub fn decode_all(mulaw: &[u8]) -> Vec<i16> {
    mulaw.iter().map(|byte| decode(*byte)).collect()
}

/// Loudness: root mean square of the samples, 0 to 32124; 0 of nothing.
pub fn energy(mulaw: &[u8]) -> u32 {
    if mulaw.is_empty() {
        return 0;
    }
    let sum: u64 = mulaw.iter().map(|byte| i64::from(decode(*byte)).pow(2) as u64).sum();
    ((sum / mulaw.len() as u64) as f64).sqrt() as u32
}

/// Decodes one A-law byte (the other half of G.711; the model accepts it as `audio/pcma`).
pub const fn decode_alaw(byte: u8) -> i16 {
    let flipped = byte ^ 0x55;
    let exponent = (flipped & 0x70) >> 4;
    let mantissa = ((flipped & 0x0F) as i32) << 4;
    let magnitude = if exponent == 0 { mantissa + 8 } else { (mantissa + 0x108) << (exponent - 1) };
    (if flipped & 0x80 == 0 { -magnitude } else { magnitude }) as i16
}

/// Encodes one linear sample to A-law.
pub const fn encode_alaw(sample: i16) -> u8 {
    let wide = sample as i32;
    let sign = if wide >= 0 { 0x80_u8 } else { 0 };
    let magnitude = if wide >= 0 { wide } else { -wide - 1 };
    let byte = if magnitude < 256 {
        (magnitude >> 4) as u8
    } else {
        let exponent = (31 - (magnitude as u32).leading_zeros()) as i32 - 7;
        ((exponent as u8) << 4) | ((magnitude >> (exponent + 3)) & 0x0F) as u8
    };
    (sign | byte) ^ 0x55
}

/// G.711's bias: 33 at the 14-bit scale, 132 at 16 bits.
const BIAS: i32 = 0x84;

/// The loudest magnitude that still fits after the bias: 32767 − 132.
const CLIP: i32 = 32635;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codec_follows_the_published_vectors() {
        let encoded = [
            (-32768, 0x00),
            (-32635, 0x00),
            (-16384, 0x0F),
            (-8000, 0x20),
            (-1000, 0x4E),
            (-100, 0x72),
            (-8, 0x7E),
            (-4, 0x7E),
            (0, 0xFF),
            (3, 0xFF),
            (4, 0xFE),
            (16, 0xFD),
            (100, 0xF2),
            (5000, 0xAB),
            (16384, 0x8F),
            (32767, 0x80),
        ];
        for (sample, byte) in encoded {
            assert_eq!(encode(sample), byte, "{sample}");
        }
        let decoded = [
            (0x00, -32124),
            (0x0F, -16764),
            (0x3F, -1980),
            (0x7E, -8),
            (0x7F, 0),
            (0x80, 32124),
            (0xD5, 716),
            (0xFE, 8),
        ];
        for (byte, sample) in decoded {
            assert_eq!(decode(byte), sample, "{byte:02X}");
        }
        for byte in 0..=255 {
            assert_eq!(encode(decode(byte)), if byte == 0x7F { 0xFF } else { byte });
        }
    }

    #[test]
    fn alaw_survives_a_round_trip() {
        for byte in 0..=255 {
            assert_eq!(encode_alaw(decode_alaw(byte)), byte, "{byte:02X} {}", decode_alaw(byte));
        }
    }

    #[test]
    fn silence_has_no_energy_and_a_tone_has_its_own() {
        assert_eq!(energy(&[SILENCE; 160]), 0);
        assert_eq!(energy(&[]), 0);
        let tone = [0xFF, 0xA9, 0xA0, 0xA9, 0xFF, 0x29, 0x20, 0x29].repeat(20);
        let loudness = energy(&tone); // amplitude 8000 / √2
        assert!((5500..5800).contains(&loudness), "{loudness}");
    }
}
