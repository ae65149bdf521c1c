//! WAV files: what callers play and what they heard.
//!
//! Reads mono PCM16 and μ-law at any of the usual speech rates, writes PCM16 at 8 kHz. Follows RIFF/WAVE
//! (Multimedia Programming Interface 1.0); tolerant of extra chunks and of the unknown lengths that programs write
//! when their output is a pipe.

use super::mulaw;

/// Decoded mono sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sound {
    /// Samples a second.
    pub rate: u32,
    /// Linear samples.
    pub samples: Vec<i16>,
}

/// Why a file is not a WAV this program plays.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WavError {
    /// No RIFF/WAVE header, or chunks that do not fit.
    #[error("not a WAV file")]
    NotWav,
    /// A codec, bit depth or channel count this program does not read.
    #[error("WAV must be mono PCM16 or μ-law, not format {format} with {channels} channels and {bits} bits")]
    Unsupported {
        /// The format tag.
        format: u16,
        /// Channels.
        channels: u16,
        /// Bits a sample.
        bits: u16,
    },
    /// A rate speech does not come in.
    #[error("WAV must have 8000 to 48000 samples a second, not {0}")]
    Rate(u32),
}

/// Reads a WAV file.
///
/// # Errors
/// When it is not one, or not mono PCM16 or μ-law at 8 to 48 kHz.
pub fn read(file: &[u8]) -> Result<Sound, WavError> {
    let is_wave = file.starts_with(b"RIFF") && file.get(8..12) == Some(b"WAVE");
    if !is_wave {
        return Err(WavError::NotWav);
    }
    let mut format = None;
    let mut rest = &file[12..];
    while let Some((name, length)) = chunk_header(rest) {
        let body = &rest[8..];
        // A piped WAV says 0x7FFFF000 or so: take what is there.
        let content = &body[..length.min(body.len())];
        match name {
            b"fmt " => format = Some(read_format(content)?),
            b"data" => return format.ok_or(WavError::NotWav).map(|format| format.decode(content)),
            _ => {}
        }
        rest = body.get(length.next_multiple_of(2)..).unwrap_or_default();
    }
    Err(WavError::NotWav)
}

/// Writes samples as PCM16 mono at 8 kHz.
pub fn write(samples: &[i16]) -> Vec<u8> {
    let data: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    write_file(PCM, 2, &data)
}

/// Writes μ-law as PCM16 mono at 8 kHz, so that every player plays it.
pub fn write_mulaw(bytes: &[u8]) -> Vec<u8> {
    write(&mulaw::decode_all(bytes))
}

/// Writes μ-law as it is: half the size.
pub fn write_compact(mulaw: &[u8]) -> Vec<u8> {
    write_file(MULAW, 1, mulaw)
}

fn write_file(format: u16, sample_bytes: u16, data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX - 64);
    let mut file = Vec::with_capacity(44 + data.len());
    file.extend_from_slice(b"RIFF");
    file.extend_from_slice(&(36 + length).to_le_bytes());
    file.extend_from_slice(b"WAVEfmt ");
    file.extend_from_slice(&16_u32.to_le_bytes());
    for half in [format, 1] {
        file.extend_from_slice(&half.to_le_bytes());
    }
    file.extend_from_slice(&mulaw::SAMPLE_RATE.to_le_bytes());
    file.extend_from_slice(&(mulaw::SAMPLE_RATE * u32::from(sample_bytes)).to_le_bytes());
    for half in [sample_bytes, 8 * sample_bytes] {
        file.extend_from_slice(&half.to_le_bytes());
    }
    file.extend_from_slice(b"data");
    file.extend_from_slice(&length.to_le_bytes());
    file.extend_from_slice(data);
    file
}

#[derive(Clone, Copy)]
enum Codec {
    Pcm16,
    Mulaw,
}

#[derive(Clone, Copy)]
struct Format {
    codec: Codec,
    rate: u32,
}

impl Format {
    fn decode(self, data: &[u8]) -> Sound {
        let samples = match self.codec {
            Codec::Mulaw => mulaw::decode_all(data),
            Codec::Pcm16 => data.as_chunks::<2>().0.iter().map(|pair| i16::from_le_bytes(*pair)).collect(),
        };
        Sound { rate: self.rate, samples }
    }
}

fn chunk_header(rest: &[u8]) -> Option<(&[u8], usize)> {
    let length = u32::from_le_bytes(rest.get(4..8)?.try_into().ok()?);
    Some((&rest[..4], length as usize))
}

fn read_format(chunk: &[u8]) -> Result<Format, WavError> {
    let half = |at: usize| Some(u16::from_le_bytes(chunk.get(at..at + 2)?.try_into().ok()?));
    let rate = chunk.get(4..8).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes);
    let (Some(format), Some(channels), Some(rate), Some(bits)) = (half(0), half(2), rate, half(14)) else {
        return Err(WavError::NotWav);
    };
    // 0xFFFE (extensible) names the real format in the first bytes of its GUID.
    let plain = if format == 0xFFFE { half(24).unwrap_or(format) } else { format };
    let codec = match (plain, channels, bits) {
        (PCM, 1, 16) => Codec::Pcm16,
        (MULAW, 1, 8) => Codec::Mulaw,
        _ => return Err(WavError::Unsupported { format, channels, bits }),
    };
    if !(8000..=48000).contains(&rate) {
        return Err(WavError::Rate(rate));
    }
    Ok(Format { codec, rate })
}

/// Format tags of RFC 2361.
const PCM: u16 = 1;
const MULAW: u16 = 7;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let samples = vec![0, 1, -1, i16::MAX, i16::MIN];
        assert_eq!(read(&write(&samples)), Ok(Sound { rate: 8000, samples }));
        let loud = Sound { rate: 8000, samples: vec![32124, 0, -8] };
        assert_eq!(read(&write_compact(&[0x80, 0xFF, 0x7E])), Ok(loud));
    }

    #[test]
    fn a_piped_wav_of_unknown_length_and_with_extra_chunks_is_read() {
        let mut file = write(&[7, 8]);
        file[40..44].copy_from_slice(&0x7FFF_F000_u32.to_le_bytes());
        let mut with_list = file[..36].to_vec();
        with_list.extend_from_slice(b"LIST\x03\x00\x00\x00abc\x00");
        with_list.extend_from_slice(&file[36..]);
        assert_eq!(read(&with_list).map(|sound| sound.samples), Ok(vec![7, 8]));
    }

    #[test]
    fn other_files_are_refused_with_a_reason() {
        assert_eq!(read(b"ID3"), Err(WavError::NotWav));
        assert_eq!(read(&write(&[])[..40]), Err(WavError::NotWav));
        let mut stereo = write(&[1, 2]);
        stereo[22] = 2;
        assert_eq!(read(&stereo), Err(WavError::Unsupported { format: 1, channels: 2, bits: 16 }));
        let mut slow = write(&[1, 2]);
        slow[24..28].copy_from_slice(&4000_u32.to_le_bytes());
        assert_eq!(read(&slow), Err(WavError::Rate(4000)));
    }
}
