//! Voice activity by energy, on the caller's μ-law audio. Time is counted in audio, not by the clock.

use call_session::audio::{self, BYTES_PER_MS};

/// Energy is judged in windows of 20 ms: one Media Streams frame.
const WINDOW: usize = 20 * BYTES_PER_MS as usize;

/// Mean amplitude above which a window is loud: about -36 dBFS, between line noise and quiet speech.
const LOUD: u32 = 500;

/// Windows (of the last few) that must be loud before speech has started: 60 ms, so that a click is not speech.
const ONSET: u32 = 3;

/// Quiet windows after which speech has stopped: 500 ms, the Realtime API's default.
const HANGOVER: u32 = 25;

/// What a stretch of audio changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Started,
    Stopped,
}

/// The detector.
#[derive(Debug, Default)]
pub(super) struct Vad {
    window: Vec<u8>,
    is_speaking: bool,
    loud: u32,
    quiet: u32,
}

impl Vad {
    /// Takes audio of any length and says what changed, in order.
    pub(super) fn feed(&mut self, mulaw: &[u8]) -> Vec<Change> {
        let mut changes = Vec::new();
        for byte in mulaw {
            self.window.push(*byte);
            if self.window.len() == WINDOW {
                changes.extend(self.judge());
                self.window.clear();
            }
        }
        changes
    }

    /// Whether the caller speaks now.
    pub(super) const fn is_speaking(&self) -> bool {
        self.is_speaking
    }

    fn judge(&mut self) -> Option<Change> {
        let sum: u32 = self.window.iter().map(|byte| u32::from(audio::decode(*byte).unsigned_abs())).sum();
        if sum / WINDOW as u32 >= LOUD {
            self.loud += 1;
            self.quiet = 0;
        } else {
            self.loud = self.loud.saturating_sub(1);
            self.quiet += 1;
        }
        if !self.is_speaking && self.loud >= ONSET {
            self.is_speaking = true;
            return Some(Change::Started);
        }
        if self.is_speaking && self.quiet >= HANGOVER {
            self.is_speaking = false;
            self.loud = 0;
            return Some(Change::Stopped);
        }
        self.loud = self.loud.min(ONSET);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `ms` of a 500 Hz tone with this amplitude.
    fn tone(ms: usize, amplitude: f32) -> Vec<u8> {
        let sample = |n: usize| (std::f32::consts::TAU * 500.0 * n as f32 / 8000.0).sin() * amplitude;
        (0..ms * 8).map(|n| audio::encode(sample(n) as i16)).collect()
    }

    fn silence(ms: usize) -> Vec<u8> {
        vec![audio::SILENCE; ms * 8]
    }

    #[test]
    fn speech_starts_and_stops_once() {
        let mut vad = Vad::default();
        assert_eq!(vad.feed(&silence(1000)), []);
        assert_eq!(vad.feed(&tone(400, 4000.0)), [Change::Started]);
        assert!(vad.is_speaking());
        assert_eq!(vad.feed(&silence(200)), [], "a pause between words is not the end");
        assert_eq!(vad.feed(&tone(400, 4000.0)), []);
        assert_eq!(vad.feed(&silence(1000)), [Change::Stopped]);
        assert_eq!(vad.feed(&silence(1000)), []);
    }

    #[test]
    fn a_click_and_line_noise_are_not_speech() {
        let mut vad = Vad::default();
        for _ in 0..20 {
            assert_eq!(vad.feed(&tone(20, 20_000.0)), []);
            assert_eq!(vad.feed(&silence(300)), []);
        }
        assert_eq!(vad.feed(&tone(5000, 200.0)), []);
    }

    #[test]
    fn frames_of_any_length_give_the_same_answer() {
        let audio: Vec<u8> = [silence(110), tone(333, 4000.0), silence(1000)].concat();
        let whole = Vad::default().feed(&audio);
        let mut vad = Vad::default();
        let pieces: Vec<Change> = audio.chunks(7).flat_map(|piece| vad.feed(piece)).collect();
        assert_eq!(pieces, whole);
        assert_eq!(whole, [Change::Started, Change::Stopped]);
    }
}
