//! How fast and how willing the simulated model is. Faults join here as further fields.

use std::time::Duration;

use serde::Deserialize;

/// Latencies and switches of one simulated model.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Behaviour {
    /// From `response.created` to the first audio.
    pub first_audio_milliseconds: u64,
    /// How fast audio is generated: 800 is eight times real time.
    pub speed_percent: u64,
    /// From the commit of a caller's turn to its transcript, which comes whenever it wants.
    pub transcription_milliseconds: u64,
    /// From `session.update` to `session.updated`; audio sent in between is a violation.
    pub session_updated_milliseconds: u64,
    /// Whether `conversation.created` follows `session.created`; the real service was seen doing both.
    pub announces_conversation: bool,
    /// Then the session expires, as the real one does after an hour.
    pub session_limit_seconds: u64,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            first_audio_milliseconds: 150,
            speed_percent: 800,
            transcription_milliseconds: 200,
            session_updated_milliseconds: 20,
            announces_conversation: true,
            session_limit_seconds: 3600,
        }
    }
}

impl Behaviour {
    /// See [`Self::first_audio_milliseconds`].
    pub(super) const fn first_audio(&self) -> Duration {
        Duration::from_millis(self.first_audio_milliseconds)
    }

    /// How long it takes to generate this much audio.
    pub(super) fn generation_time(&self, audio: Duration) -> Duration {
        let percent = u32::try_from(self.speed_percent.max(1)).unwrap_or(u32::MAX);
        audio * 100 / percent
    }
}
