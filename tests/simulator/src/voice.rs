//! Voices: sentences as telephone audio, and telephone audio back as sentences.
//!
//! [`Voice`] renders a text to μ-law; [`Registry`] remembers what callers were given to say and recognises it again in
//! what arrives at the model, byte for byte. That is the simulated transcription: a transcript is right only when the
//! audio came through intact, so every test that reads a transcript also proves the audio path.
//!
//! ```
//! use simulator::voice::{Registry, Speaker, Voice};
//! let registry = Registry::default();
//! let clip = Voice::new(Speaker::Caller).render("Yes, please.").expect("some voice always speaks");
//! registry.add(&clip);
//! assert_eq!(registry.transcribe(&clip.mulaw), "Yes, please.");
//! ```

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

pub mod clips;
mod espeak;
pub mod mulaw;
mod registry;
mod resample;
mod synthesiser;
pub mod wav;

pub use registry::{Registry, UNINTELLIGIBLE};

/// A text and how it sounds.
#[derive(Clone, PartialEq, Eq)]
pub struct Clip {
    /// The words.
    pub text: String,
    /// The sound: μ-law, 8 kHz.
    pub mulaw: Vec<u8>,
}

/// Which side of the call speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Speaker {
    /// The person on the phone.
    Caller,
    /// The model.
    Agent,
}

/// One side's voice.
#[derive(Clone, Copy, Debug)]
pub struct Voice {
    speaker: Speaker,
}

/// Why there is no clip.
#[derive(Debug, thiserror::Error)]
pub enum VoiceError {
    /// Nothing can be spoken.
    #[error("the text has no letter or digit to speak")]
    Unspeakable,
    /// A recording cannot be read.
    #[error("cannot read the recording {path}")]
    Unreadable {
        /// Where it was looked for.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A recording is of the wrong kind.
    #[error("the recording {path} cannot be played: {source}")]
    Unplayable {
        /// Where it is.
        path: String,
        /// Why.
        source: wav::WavError,
    },
}

impl Clip {
    /// How long it sounds.
    pub const fn duration(&self) -> std::time::Duration {
        std::time::Duration::from_millis((self.mulaw.len() / mulaw::BYTES_PER_MS) as u64)
    }

    /// A recording, with the words spoken in it.
    ///
    /// # Errors
    /// When the file cannot be read or is no mono PCM16 or μ-law WAV.
    pub fn from_wav(path: &Path, text: &str) -> Result<Self, VoiceError> {
        let name = || path.display().to_string();
        let file = std::fs::read(path).map_err(|source| VoiceError::Unreadable { path: name(), source })?;
        let sound = wav::read(&file).map_err(|source| VoiceError::Unplayable { path: name(), source })?;
        let samples = resample::to_telephone(&sound.samples, sound.rate);
        Ok(Self { text: text.to_owned(), mulaw: mulaw::encode_all(&samples) })
    }
}

impl std::fmt::Debug for Clip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Clip({:?}, {} ms)", self.text, self.duration().as_millis())
    }
}

impl Voice {
    /// The voice of one side.
    pub const fn new(speaker: Speaker) -> Self {
        Self { speaker }
    }

    /// Speaks a text: the committed clip if there is one, else espeak-ng, else the built-in synthesiser.
    ///
    /// *Guarantees:* within one process the same text always gives the same bytes. *Caveats:* the first rendering of a
    /// text may start a process and block for tens of milliseconds.
    ///
    /// # Errors
    /// When there is nothing to speak.
    pub fn render(&self, text: &str) -> Result<Clip, VoiceError> {
        let text = text.trim();
        if !text.chars().any(char::is_alphanumeric) {
            return Err(VoiceError::Unspeakable);
        }
        let key = (self.speaker, text.to_owned());
        let lock = || RENDERED.lock().unwrap_or_else(PoisonError::into_inner);
        let known = lock().get(&key).cloned();
        let mulaw = known.unwrap_or_else(|| {
            let rendered = Arc::new(self.speak(text)); // unlocked: others need not wait for a process
            let mut cache = lock();
            if cache.len() >= MAX_RENDERED {
                cache.clear();
            }
            Arc::clone(cache.entry(key).or_insert(rendered))
        });
        Ok(Clip { text: text.to_owned(), mulaw: mulaw.to_vec() })
    }

    /// Speaks a text with espeak-ng or not at all; for making the committed clips.
    pub fn render_with_espeak(&self, text: &str) -> Option<Vec<u8>> {
        let sound = espeak::speak(text, self.speaker)?;
        Some(mulaw::encode_all(&resample::to_telephone(&sound.samples, sound.rate)))
    }

    fn speak(&self, text: &str) -> Vec<u8> {
        clips::find(text, self.speaker)
            .or_else(|| self.render_with_espeak(text))
            .unwrap_or_else(|| mulaw::encode_all(&synthesiser::speak(text, self.speaker)))
    }
}

/// Every sentence spoken so far in this process: callers repeat themselves, and under load by the thousand.
static RENDERED: LazyLock<Mutex<Rendered>> = LazyLock::new(Mutex::default);

type Rendered = HashMap<(Speaker, String), Arc<Vec<u8>>>;

/// At 40 KB a sentence about 40 MB; a scenario has dozens.
const MAX_RENDERED: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_voice_speaks_the_same_words_the_same_way_and_the_sides_differ() {
        let words = "This sentence was never recorded before.";
        let caller = Voice::new(Speaker::Caller).render(words).expect("speaks");
        let again = Voice::new(Speaker::Caller).render(&format!("  {words} ")).expect("speaks");
        let agent = Voice::new(Speaker::Agent).render(words).expect("speaks");
        assert_eq!(caller, again);
        assert_ne!(caller.mulaw, agent.mulaw);
        assert!(caller.duration().as_millis() > 900, "{caller:?}");
        assert!(mulaw::energy(&caller.mulaw) > 500);
    }

    #[test]
    fn punctuation_alone_is_not_spoken() {
        assert!(matches!(Voice::new(Speaker::Caller).render(" … "), Err(VoiceError::Unspeakable)));
    }
}
