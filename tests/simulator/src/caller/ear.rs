//! Hearing: whether a voice is speaking, from the sound alone, as a person on the phone would judge it.

use crate::voice::mulaw::energy;

/// Energy of a 20 ms frame from which it counts as voice: about −42 dBFS, above line noise, below quiet speech.
const VOICED: u32 = 250;
/// A voice is silent after this; speech has pauses of up to half a second within it.
const HANG_MILLISECONDS: u64 = 800;

/// What one side sounds like.
#[derive(Clone, Debug, Default)]
pub struct Ear {
    /// Start of the current utterance and end of its last voiced frame.
    utterance: Option<(u64, u64)>,
    /// End of the last voiced frame of all.
    last_voiced: Option<u64>,
    voiced: u64,
}

/// What changed with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// An utterance began with this frame.
    Started,
    /// An utterance is over; its last voiced frame ended at this time.
    Stopped {
        /// Milliseconds of the media clock.
        at: u64,
    },
}

impl Ear {
    /// The frame from `now` to `now + 20`.
    pub fn handle_frame(&mut self, now: u64, mulaw: &[u8]) -> Option<Change> {
        if is_voiced(mulaw) {
            self.voiced += 20;
            self.last_voiced = Some(now + 20);
            let started = self.utterance.is_none();
            self.utterance = Some((self.utterance.map_or(now, |(start, _)| start), now + 20));
            return started.then_some(Change::Started);
        }
        let (_, end) = self.utterance?;
        if now + 20 < end + HANG_MILLISECONDS {
            return None;
        }
        self.utterance = None;
        Some(Change::Stopped { at: end })
    }

    /// The sound was cut: an utterance is over at once, whatever the hang time.
    pub fn cut(&mut self) -> Option<Change> {
        let (_, at) = self.utterance.take()?;
        Some(Change::Stopped { at })
    }

    /// Whether an utterance goes on.
    pub const fn is_speaking(&self) -> bool {
        self.utterance.is_some()
    }

    /// How long it has been going on.
    pub fn speaking_for(&self, now: u64) -> u64 {
        self.utterance.map_or(0, |(start, _)| now.saturating_sub(start))
    }

    /// Whether a voice was heard after this time.
    pub fn heard_since(&self, time: u64) -> bool {
        self.last_voiced.is_some_and(|last| last > time)
    }

    /// Milliseconds of voice in all.
    pub const fn voiced_milliseconds(&self) -> u64 {
        self.voiced
    }
}

/// Whether a frame holds a voice.
fn is_voiced(mulaw: &[u8]) -> bool {
    energy(mulaw) >= VOICED
}
