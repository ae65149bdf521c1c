//! The caller's audio as the model receives it, and the voice activity detection over it.
//!
//! Time is *audio time*: positions in all audio appended since the session began, never the clock (protocol sheet,
//! section 5.5). A peer that stops sending stops time, as at the real service.

use std::collections::VecDeque;
use std::ops::Range;

use super::settings::VoiceActivity;
use crate::voice::mulaw::{self, BYTES_PER_MS, FRAME_BYTES};

/// Where a turn of the caller began or ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Boundary {
    /// Speech began; the padding before it is included.
    Started {
        /// Audio time.
        at_ms: u64,
    },
    /// Speech ended; the silence that proved it is included.
    Stopped {
        /// Audio time.
        at_ms: u64,
        /// The whole turn.
        audio: Vec<u8>,
    },
}

/// Appended and not yet committed audio, as μ-law.
#[derive(Debug, Default)]
pub(super) struct InputBuffer {
    kept: Vec<u8>,
    kept_from: usize,
    examined: usize,
    state: Activity,
}

#[derive(Debug)]
enum Activity {
    Quiet {
        /// Whether each of the latest frames was loud, oldest first.
        recent: VecDeque<bool>,
    },
    Speaking {
        start: usize,
        silent_bytes: usize,
    },
}

impl Default for Activity {
    fn default() -> Self {
        Self::Quiet { recent: VecDeque::new() }
    }
}

impl InputBuffer {
    /// Adds audio; ask [`Self::next_boundary`] afterwards.
    pub(super) fn append(&mut self, mulaw: &[u8]) {
        self.kept.extend_from_slice(mulaw);
        if self.kept.len() > MAX_KEPT {
            self.forget(self.end() - MAX_KEPT);
        }
    }

    /// All audio ever appended.
    pub(super) const fn total_ms(&self) -> u64 {
        to_ms(self.end())
    }

    /// Audio that a commit would take.
    pub(super) const fn uncommitted_ms(&self) -> u64 {
        to_ms(self.kept.len())
    }

    /// Takes everything, as a commit or a clear does.
    pub(super) fn take(&mut self) -> Vec<u8> {
        self.kept_from = self.end();
        self.examined = self.examined.max(self.kept_from);
        self.state = Activity::default();
        std::mem::take(&mut self.kept)
    }

    /// Goes on listening until speech begins or ends, or all audio was examined.
    pub(super) fn next_boundary(&mut self, activity: VoiceActivity) -> Option<Boundary> {
        self.examined = self.examined.max(self.kept_from);
        while self.examined + FRAME_BYTES <= self.end() {
            let frame = self.slice(self.examined..self.examined + FRAME_BYTES);
            let is_loud = mulaw::energy(frame) > activity.loudness;
            self.examined += FRAME_BYTES;
            let boundary = match &mut self.state {
                Activity::Quiet { recent } => {
                    recent.push_back(is_loud);
                    if recent.len() > RECENT_FRAMES {
                        recent.pop_front();
                    }
                    if recent.iter().filter(|loud| **loud).count() < LOUD_FRAMES {
                        None
                    } else {
                        let frames_ago = recent.len() - recent.iter().position(|loud| *loud).unwrap_or(0);
                        Some(self.start_speech(frames_ago, activity))
                    }
                }
                Activity::Speaking { silent_bytes, .. } if is_loud => {
                    *silent_bytes = 0;
                    None
                }
                Activity::Speaking { start, silent_bytes } => {
                    *silent_bytes += FRAME_BYTES;
                    let start = *start;
                    (*silent_bytes >= to_bytes(activity.silence_ms)).then(|| self.stop_speech(start))
                }
            };
            if boundary.is_some() {
                return boundary;
            }
        }
        if let Activity::Quiet { .. } = self.state {
            // Only what may still become padding is worth keeping.
            self.forget(
                self.examined.saturating_sub(to_bytes(activity.padding_ms) + RECENT_FRAMES * FRAME_BYTES),
            );
        }
        None
    }

    fn start_speech(&mut self, frames_ago: usize, activity: VoiceActivity) -> Boundary {
        let loud_from = self.examined - frames_ago * FRAME_BYTES;
        let start = loud_from.saturating_sub(to_bytes(activity.padding_ms)).max(self.kept_from);
        self.state = Activity::Speaking { start, silent_bytes: 0 };
        Boundary::Started { at_ms: to_ms(start) }
    }

    fn stop_speech(&mut self, start: usize) -> Boundary {
        let end = self.examined;
        let audio = self.slice(start.max(self.kept_from)..end).to_vec();
        self.forget(end);
        self.state = Activity::default();
        Boundary::Stopped { at_ms: to_ms(end), audio }
    }

    fn slice(&self, range: Range<usize>) -> &[u8] {
        &self.kept[range.start - self.kept_from..range.end - self.kept_from]
    }

    fn forget(&mut self, before: usize) {
        let gone = before.saturating_sub(self.kept_from).min(self.kept.len());
        self.kept.drain(..gone);
        self.kept_from += gone;
    }

    const fn end(&self) -> usize {
        self.kept_from + self.kept.len()
    }
}

const fn to_ms(bytes: usize) -> u64 {
    (bytes / BYTES_PER_MS) as u64
}

const fn to_bytes(milliseconds: u64) -> usize {
    milliseconds as usize * BYTES_PER_MS
}

/// Speech is 60 ms of sound within 100 ms: a click is not.
const RECENT_FRAMES: usize = 5;
const LOUD_FRAMES: usize = 3;

/// Five minutes: no turn is longer, and a client that never commits must not fill the memory.
const MAX_KEPT: usize = 300 * 1000 * BYTES_PER_MS;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::voice::{Speaker, Voice};

    const ACTIVITY: VoiceActivity = VoiceActivity { loudness: 500, padding_ms: 300, silence_ms: 500 };

    fn boundaries(buffer: &mut InputBuffer, audio: &[u8], chunk: usize) -> Vec<Boundary> {
        let mut found = Vec::new();
        for piece in audio.chunks(chunk) {
            buffer.append(piece);
            found.extend(std::iter::from_fn(|| buffer.next_boundary(ACTIVITY)));
        }
        found
    }

    fn sentence() -> Vec<u8> {
        let clip = Voice::new(Speaker::Caller).render("Where is my order number forty two?").expect("speaks");
        let quiet = |ms: u64| vec![mulaw::SILENCE; to_bytes(ms)];
        [quiet(1000), clip.mulaw, quiet(1000)].concat()
    }

    #[test]
    fn a_sentence_is_one_turn_however_it_is_chopped() {
        let audio = sentence();
        let whole = boundaries(&mut InputBuffer::default(), &audio, 160);
        let [Boundary::Started { at_ms: start }, Boundary::Stopped { at_ms: end, audio: turn }] = &whole[..]
        else {
            panic!("{} boundaries", whole.len());
        };
        assert!((700..=800).contains(start), "{start}");
        assert_eq!(turn.len() as u64, (end - start) * BYTES_PER_MS as u64);
        for chunk in [1, 161, 4000, audio.len()] {
            assert_eq!(boundaries(&mut InputBuffer::default(), &audio, chunk), whole, "{chunk}");
        }
    }

    #[test]
    fn silence_clicks_and_quiet_noise_are_no_speech() {
        let mut audio = vec![mulaw::SILENCE; 8000];
        audio.extend([0x80, 0x00].repeat(80)); // one loud frame
        audio.extend([mulaw::encode(200), mulaw::encode(-200)].repeat(8000));
        let mut buffer = InputBuffer::default();
        assert_eq!(boundaries(&mut buffer, &audio, 160), vec![]);
        assert!(buffer.kept.len() <= to_bytes(400) + FRAME_BYTES, "{}", buffer.kept.len());
        assert_eq!(buffer.total_ms(), to_ms(audio.len()));
    }

    #[test]
    fn speech_goes_on_while_no_audio_comes() {
        let audio = sentence();
        let mut buffer = InputBuffer::default();
        let half = audio.len() / 2;
        assert_eq!(boundaries(&mut buffer, &audio[..half], 160).len(), 1);
        assert!(matches!(buffer.state, Activity::Speaking { .. }));
        assert_eq!(boundaries(&mut buffer, &audio[half..], 160).len(), 1);
        assert!(matches!(buffer.state, Activity::Quiet { .. }));
    }

    #[test]
    fn a_taken_buffer_starts_anew() {
        let mut buffer = InputBuffer::default();
        boundaries(&mut buffer, &sentence()[..12_000], 160);
        assert!(buffer.uncommitted_ms() > 0);
        buffer.take();
        assert_eq!((buffer.uncommitted_ms(), buffer.total_ms()), (0, 1500));
        assert!(matches!(buffer.state, Activity::Quiet { .. }));
        assert_eq!(boundaries(&mut buffer, &[mulaw::SILENCE; 8000], 160), vec![]);
    }
}
