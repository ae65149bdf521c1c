//! The play-out buffer between a media stream and the caller's ear (protocols: buffering, order, marks, clear).
//!
//! Sans-IO: the owner asks for one frame after another on its media clock and says what the product sent. Guarantees:
//! audio is played in the order received; a mark comes back when all audio before it has been played, at once if nothing
//! waits, and all outstanding ones on a clear; more than ten minutes of waiting audio are thrown away.
//!
//! ```
//! use simulator::carrier::playout::Playout;
//! let mut playout = Playout::default();
//! playout.push_media(&[0x20; 160]).unwrap();
//! assert_eq!(playout.push_mark("end".into()), Vec::<String>::new());
//! let frame = playout.play_frame();
//! assert_eq!((frame.audio, frame.marks), (vec![0x20; 160], vec!["end".to_string()]));
//! ```

use std::collections::VecDeque;

/// Bytes of one frame: 20 ms of 8 kHz μ-law.
pub const FRAME_BYTES: usize = 160;
/// A μ-law sample of zero.
pub const SILENCE: u8 = 0xFF;
/// Ten minutes of 8000 bytes a second.
const CAPACITY: usize = 10 * 60 * 8000;

/// Waiting audio and the marks in it.
#[derive(Debug, Default)]
pub struct Playout {
    audio: VecDeque<u8>,
    /// Name and how many bytes are played in all when it is due.
    marks: VecDeque<(String, u64)>,
    received: u64,
    played: u64,
}

/// What the caller hears in 20 ms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Exactly [`FRAME_BYTES`], filled up with silence.
    pub audio: Vec<u8>,
    /// Marks to send back, in order.
    pub marks: Vec<String>,
}

/// Ten minutes of audio were waiting already; what came was thrown away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than ten minutes of audio waiting")]
pub struct Overflow;

impl Playout {
    /// Audio from the product.
    pub fn push_media(&mut self, audio: &[u8]) -> Result<(), Overflow> {
        if self.audio.len() + audio.len() > CAPACITY {
            return Err(Overflow);
        }
        self.audio.extend(audio);
        self.received += audio.len() as u64;
        Ok(())
    }

    /// A mark from the product; returns the marks to send back now.
    pub fn push_mark(&mut self, name: String) -> Vec<String> {
        if self.audio.is_empty() {
            return vec![name]; // nothing waits, so no older mark does either
        }
        self.marks.push_back((name, self.received));
        Vec::new()
    }

    /// A clear from the product; returns every outstanding mark.
    pub fn clear(&mut self) -> Vec<String> {
        self.audio.clear();
        self.received = self.played;
        self.marks.drain(..).map(|(name, _)| name).collect()
    }

    /// Plays the next 20 ms.
    pub fn play_frame(&mut self) -> Frame {
        let ready = self.audio.len().min(FRAME_BYTES);
        let mut audio: Vec<u8> = self.audio.drain(..ready).collect();
        audio.resize(FRAME_BYTES, SILENCE);
        self.played += ready as u64;
        let due = self.marks.iter().take_while(|(_, at)| *at <= self.played).count();
        Frame { audio, marks: self.marks.drain(..due).map(|(name, _)| name).collect() }
    }

    /// Milliseconds of audio still to be played.
    pub fn waiting_milliseconds(&self) -> u64 {
        (self.audio.len() / 8) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Vec<String> = Vec::new();

    #[test]
    fn an_empty_buffer_plays_silence_and_returns_marks_at_once() {
        let mut playout = Playout::default();
        assert_eq!(playout.play_frame(), Frame { audio: vec![SILENCE; 160], marks: NONE });
        assert_eq!(playout.push_mark("a".into()), vec!["a"]);
        assert_eq!(playout.play_frame().marks, NONE);
    }

    #[test]
    fn a_mark_returns_in_the_frame_that_ends_its_audio_and_not_before() {
        let mut playout = Playout::default();
        playout.push_media(&[1; 200]).unwrap();
        assert_eq!(playout.push_mark("one".into()), NONE);
        playout.push_media(&[2; 200]).unwrap();
        assert_eq!(playout.push_mark("two".into()), NONE);
        assert_eq!(playout.push_mark("three".into()), NONE);
        assert_eq!(playout.play_frame(), Frame { audio: vec![1; 160], marks: NONE });
        let second = playout.play_frame();
        assert_eq!(second.audio, [vec![1; 40], vec![2; 120]].concat());
        assert_eq!(second.marks, vec!["one"]);
        let third = playout.play_frame();
        assert_eq!(third.audio, [vec![2; 80], vec![SILENCE; 80]].concat());
        assert_eq!(third.marks, vec!["two", "three"]);
        assert_eq!(playout.play_frame(), Frame { audio: vec![SILENCE; 160], marks: NONE });
    }

    #[test]
    fn a_clear_silences_at_once_and_returns_every_outstanding_mark_once() {
        let mut playout = Playout::default();
        playout.push_media(&[1; 480]).unwrap();
        playout.push_mark("a".into());
        playout.push_media(&[1; 480]).unwrap();
        playout.push_mark("b".into());
        playout.play_frame();
        assert_eq!(playout.clear(), vec!["a", "b"]);
        assert_eq!(playout.clear(), NONE);
        assert_eq!(playout.play_frame(), Frame { audio: vec![SILENCE; 160], marks: NONE });
        playout.push_media(&[2; 160]).unwrap();
        playout.push_mark("c".into());
        assert_eq!(playout.play_frame(), Frame { audio: vec![2; 160], marks: vec!["c".into()] });
    }

    #[test]
    fn more_than_ten_minutes_are_refused_and_the_rest_plays_on() {
        let mut playout = Playout::default();
        let minute = vec![1; 60 * 8000];
        for _ in 0..10 {
            playout.push_media(&minute).unwrap();
        }
        assert_eq!(playout.push_media(&[1]), Err(Overflow));
        assert_eq!(playout.waiting_milliseconds(), 600_000);
        playout.play_frame();
        playout.push_media(&[1]).unwrap();
    }
}
