//! The built-in voice: syllable-like tones from text, the same every time.
//!
//! Not speech, but shaped like it: one tone per syllable, coloured by its vowel, a melody that falls over a sentence
//! and rises for a question, pauses at punctuation. Enough to hear, to measure, to interrupt, and to trigger a voice
//! activity detector. Rendered as it is needed, so that a long text costs no memory.

use call_session::audio;

/// Samples per millisecond at 8 kHz.
const PER_MS: usize = audio::BYTES_PER_MS as usize;

/// One period of a tone; 64 points keep the error of the lookup below μ-law's own.
const PERIOD: usize = 64;

/// Loudness of the strongest peak: about -10 dBFS, the level of telephone speech.
const PEAK: f32 = 10_000.0;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Segment {
    Syllable { vowel: char, hertz: f32, ms: usize },
    Pause { ms: usize },
}

/// A text being spoken.
#[derive(Debug)]
pub(super) struct Utterance {
    segments: std::vec::IntoIter<Segment>,
    /// Rendered and not taken yet.
    ready: Vec<u8>,
}

impl Utterance {
    /// Prepares to speak `text`.
    pub(super) fn new(text: &str) -> Self {
        Self { segments: segments(text).into_iter(), ready: Vec::new() }
    }

    /// The next stretch, at most `ms` long; empty when everything was said.
    pub(super) fn take(&mut self, ms: usize) -> Vec<u8> {
        let wanted = ms * PER_MS;
        while self.ready.len() < wanted {
            let Some(segment) = self.segments.next() else { break };
            render(segment, &mut self.ready);
        }
        let rest = self.ready.split_off(wanted.min(self.ready.len()));
        std::mem::replace(&mut self.ready, rest)
    }
}

/// Splits a text into syllables and pauses. A syllable is a group of vowels in a word; a word without any has one, a
/// digit is one.
fn segments(text: &str) -> Vec<Segment> {
    let mut segments = Vec::new();
    for sentence in text.split_inclusive(['.', '!', '?']) {
        let first = segments.len();
        for word in sentence.split_whitespace() {
            for (vowel, letters) in syllables(word) {
                segments.push(Segment::Syllable { vowel, hertz: 0.0, ms: 110 + 15 * letters.min(6) });
            }
            let ms = match word.chars().last() {
                Some('.' | '!' | '?') => 320,
                Some(',' | ';' | ':') => 180,
                _ => 45,
            };
            segments.push(Segment::Pause { ms });
        }
        let (from, to) = if sentence.trim_end().ends_with('?') { (135.0, 190.0) } else { (170.0, 115.0) };
        let count = segments.len() - first;
        for (index, segment) in segments[first..].iter_mut().enumerate() {
            if let Segment::Syllable { hertz, .. } = segment {
                *hertz = from + (to - from) * index as f32 / count as f32;
            }
        }
    }
    segments
}

/// The syllables of a word: the vowel that colours each, and how many letters it has.
fn syllables(word: &str) -> Vec<(char, usize)> {
    let mut syllables: Vec<(char, usize)> = Vec::new();
    let mut onset = 0;
    let mut in_vowel = false;
    for letter in word.chars().flat_map(char::to_lowercase).filter(|letter| letter.is_alphanumeric()) {
        let is_vowel = matches!(letter, 'a' | 'e' | 'i' | 'o' | 'u' | 'y') || letter.is_numeric();
        if is_vowel && (!in_vowel || letter.is_numeric()) {
            syllables.push((letter, onset + 1));
            onset = 0;
        } else {
            onset += 1;
        }
        in_vowel = is_vowel;
    }
    match syllables.last_mut() {
        Some((_, letters)) => *letters += onset,
        None if onset > 0 => syllables.push(('e', onset)),
        None => {}
    }
    syllables
}

/// The two resonances that tell vowels apart, in hertz (textbook averages, rounded).
const fn formants(vowel: char) -> (f32, f32) {
    match vowel {
        'a' => (750.0, 1200.0),
        'i' | 'y' => (300.0, 2300.0),
        'o' => (500.0, 900.0),
        'u' => (320.0, 800.0),
        _ => (500.0, 1800.0),
    }
}

fn render(segment: Segment, out: &mut Vec<u8>) {
    match segment {
        Segment::Pause { ms } => out.extend(std::iter::repeat_n(audio::SILENCE, ms * PER_MS)),
        Segment::Syllable { vowel, hertz, ms } => {
            let wave = period(vowel, hertz);
            let samples = ms * PER_MS;
            let (attack, release) = (15 * PER_MS, 40 * PER_MS);
            let step = hertz * PERIOD as f32 / 8000.0;
            for sample in 0..samples {
                let rise = (sample as f32 / attack as f32).min(1.0);
                let fall = ((samples - sample) as f32 / release as f32).min(1.0);
                let position = (sample as f32 * step) as usize % PERIOD;
                out.push(audio::encode((wave[position] * rise * fall) as i16));
            }
        }
    }
}

/// One period of a vowel at a pitch: harmonics below the telephone band's upper edge, weighted by the resonances.
fn period(vowel: char, hertz: f32) -> [f32; PERIOD] {
    let (first, second) = formants(vowel);
    let resonance = |frequency: f32, centre: f32| 1.0 / (1.0 + ((frequency - centre) / 120.0).powi(2));
    let harmonics = (3400.0 / hertz) as usize;
    let mut wave = [0.0_f32; PERIOD];
    for harmonic in 1..=harmonics.min(PERIOD / 2 - 1) {
        let frequency = hertz * harmonic as f32;
        let weight =
            0.05 / harmonic as f32 + resonance(frequency, first) + 0.5 * resonance(frequency, second);
        for (position, sample) in wave.iter_mut().enumerate() {
            let angle = std::f32::consts::TAU * (harmonic * position) as f32 / PERIOD as f32;
            *sample += weight * angle.sin();
        }
    }
    let peak = wave.iter().fold(f32::EPSILON, |peak, sample| peak.max(sample.abs()));
    wave.map(|sample| sample / peak * PEAK)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> Vec<u8> {
        let mut utterance = Utterance::new(text);
        let mut audio = Vec::new();
        loop {
            let stretch = utterance.take(20);
            if stretch.is_empty() {
                return audio;
            }
            audio.extend(stretch);
        }
    }

    #[test]
    fn the_same_text_sounds_the_same_and_longer_text_lasts_longer() {
        let short = whole("Good morning.");
        assert_eq!(short, whole("Good morning."));
        assert!(whole("Good morning. How may I help you today?").len() > 2 * short.len());
    }

    #[test]
    fn it_is_as_loud_as_speech_and_lasts_as_long() {
        let audio = whole("Thank you for calling, how may I help you?");
        let milliseconds = audio.len() / PER_MS;
        assert!((1500..5000).contains(&milliseconds), "{milliseconds} ms");
        let energy: f64 = audio.iter().map(|byte| f64::from(audio::decode(*byte)).powi(2)).sum();
        let level = (energy / audio.len() as f64).sqrt();
        assert!((1000.0..8000.0).contains(&level), "{level}");
    }

    #[test]
    fn syllables_follow_the_vowels_and_digits_speak() {
        assert_eq!(syllables("hello,").len(), 2);
        assert_eq!(syllables("hmm").len(), 1);
        assert_eq!(syllables("42").len(), 2);
        assert_eq!(syllables("—").len(), 0);
    }

    #[test]
    fn nothing_to_say_is_no_audio() {
        assert!(whole("").is_empty());
    }
}
