//! The voice of last resort: a deterministic babble of syllables for machines without espeak-ng.
//!
//! It is not intelligible to people. It has what the tests need: the energy and pauses of speech, a length in
//! proportion to the text, and a waveform that is different for different texts and never repeats within one, so that
//! the recogniser tells the words apart.

use std::f64::consts::TAU;

use super::Speaker;
use super::mulaw::SAMPLE_RATE;

/// Speaks a text; the same text and speaker give the same samples.
pub(super) fn speak(text: &str, speaker: Speaker) -> Vec<i16> {
    let mut babble = Babble { samples: Vec::new(), phase: 0.0, seed: digest(text), pitch: pitch_of(speaker) };
    babble.pause(LEAD_MS);
    for word in text.split_whitespace() {
        let spoken = word.chars().filter(|letter| letter.is_alphanumeric()).collect::<Vec<_>>();
        for letters in spoken.chunks(3) {
            babble.syllable(letters);
        }
        let is_clause_end = word.ends_with(['.', ',', '?', '!', ';', ':']);
        babble.pause(if is_clause_end { CLAUSE_PAUSE_MS } else { WORD_PAUSE_MS });
    }
    babble.samples
}

struct Babble {
    samples: Vec<i16>,
    phase: f64,
    seed: u64,
    pitch: f64,
}

impl Babble {
    fn pause(&mut self, milliseconds: usize) {
        self.samples.resize(self.samples.len() + milliseconds * SAMPLES_PER_MS, 0);
    }

    fn syllable(&mut self, letters: &[char]) {
        let length = (60 + 45 * letters.len()) * SAMPLES_PER_MS;
        for letter in letters {
            self.seed = self.seed.rotate_left(7)
                ^ (u64::from(u32::from(*letter))).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        }
        let draw = |shift: u32, range: f64| (self.seed >> shift & 0xFF) as f64 / 255.0 * range;
        let (glide, first, second) = (draw(8, 0.3) - 0.15, 300.0 + draw(16, 500.0), 900.0 + draw(24, 1500.0));
        for index in 0..length {
            let progress = index as f64 / length as f64;
            self.phase += TAU * self.pitch * (1.0 + glide * progress) / f64::from(SAMPLE_RATE);
            // Ten harmonics, louder near two formants: enough to look like a vowel.
            let voice: f64 = (1..=10)
                .map(|harmonic| {
                    let hertz = self.pitch * f64::from(harmonic);
                    let gain = 1.0 / (1.0 + ((hertz - first) / 150.0).powi(2))
                        + 0.6 / (1.0 + ((hertz - second) / 250.0).powi(2));
                    gain * (self.phase * f64::from(harmonic)).sin()
                })
                .sum();
            let envelope = (progress * std::f64::consts::PI).sin().sqrt();
            self.samples.push((voice * envelope * LOUDNESS).clamp(-30_000.0, 30_000.0) as i16);
        }
    }
}

fn digest(text: &str) -> u64 {
    text.bytes()
        .fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3))
}

const fn pitch_of(speaker: Speaker) -> f64 {
    match speaker {
        Speaker::Caller => 117.3,
        Speaker::Agent => 203.7,
    }
}

const SAMPLES_PER_MS: usize = SAMPLE_RATE as usize / 1000;

/// Quiet before the first word, as a real recording has.
const LEAD_MS: usize = 40;
const WORD_PAUSE_MS: usize = 50;

/// Well below any sensible end-of-turn silence (500 ms), so that a comma does not end a turn.
const CLAUSE_PAUSE_MS: usize = 200;

/// Peak amplitude of one formant: about -12 dBFS once summed.
const LOUDNESS: f64 = 6000.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::voice::mulaw;

    #[test]
    fn speech_is_loud_deterministic_and_different_for_other_words() {
        let hello = speak("Hello, who is there?", Speaker::Caller);
        assert_eq!(hello, speak("Hello, who is there?", Speaker::Caller));
        assert_ne!(hello, speak("Hello, who is here?", Speaker::Caller));
        assert_ne!(hello, speak("Hello, who is there?", Speaker::Agent));
        assert!(mulaw::energy(&mulaw::encode_all(&hello)) > 800);
        assert!((6000..20_000).contains(&hello.len()), "{}", hello.len());
    }
}
