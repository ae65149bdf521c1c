//! Which frames of a stream arrived, and which are missing: the caller's at the model, whichever of its sessions heard them,
//! and the agent's at the phone. Pure: what is counted is told, nothing is recorded here.

/// Frames of an hour and more: a sequence beyond is no frame of ours.
const MOST_FRAMES: u32 = 1 << 18;

/// A line's running call at the model. Sessions that replace each other hear parts of it, some of them twice.
#[derive(Clone, Debug, Default)]
pub(super) struct ArrivedFrames {
    call: u32,
    /// A bit a frame.
    frames: Vec<u64>,
    count: u32,
    /// After the last one that arrived.
    beyond: u32,
}

/// What a frame turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// For the first time, or replayed to another session.
    Expected,
    /// Later than any call lasts.
    Impossible,
}

impl ArrivedFrames {
    /// Notes a frame.
    pub(super) fn note(&mut self, sequence: u32) -> Arrival {
        if sequence >= MOST_FRAMES {
            return Arrival::Impossible;
        }
        let (word, bit) = ((sequence / 64) as usize, 1 << (sequence % 64));
        if self.frames.len() <= word {
            self.frames.resize(word + 1, 0);
        }
        self.count += u32::from(self.frames[word] & bit == 0);
        self.frames[word] |= bit;
        self.beyond = self.beyond.max(sequence + 1);
        Arrival::Expected
    }

    /// Whether this call came later, and ends the one noted here.
    pub(super) const fn is_before(&self, call: u32) -> bool {
        self.call < call
    }

    /// Whether it is this call that is noted here.
    pub(super) const fn is_of(&self, call: u32) -> bool {
        self.call == call
    }

    /// The call's, as yet without a frame.
    pub(super) fn of(call: u32) -> Self {
        Self { call, ..Self::default() }
    }

    /// Frames before the last one that never arrived.
    pub(super) fn missing(&self) -> u64 {
        u64::from(self.beyond - self.count) // at most one is counted for each place
    }
}

/// The agent's audio at the phone: deltas of one session after the other, cut by clears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AgentAudio {
    /// Exactly this one follows, or the first one of another session.
    Next(u32),
    /// What was said before a clear is over; the product may have dropped the rest of it.
    Cleared { next: u32 },
}

impl AgentAudio {
    /// A delta came: how many before it are missing; none for one that was there before.
    pub(super) const fn note(&mut self, sequence: u32) -> Option<u32> {
        let missing = match *self {
            _ if sequence == 0 => 0, // of another session
            Self::Next(next) | Self::Cleared { next } if sequence < next => return None,
            Self::Next(next) => sequence - next,
            Self::Cleared { .. } => 0,
        };
        *self = Self::Next(sequence + 1);
        Some(missing)
    }

    /// The phone was told to forget what it has not played.
    pub(super) const fn clear(&mut self) {
        let (Self::Next(next) | Self::Cleared { next }) = *self;
        *self = Self::Cleared { next };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_may_come_to_several_sessions_and_twice_but_none_may_be_missing() {
        let mut arrived = ArrivedFrames::of(1);
        // The next session hears the last second again, and its frames may be read first.
        (0..100).chain(50..200).chain(95..102).for_each(|frame| {
            assert_eq!(arrived.note(frame), Arrival::Expected);
        });
        assert_eq!(arrived.missing(), 0);
        arrived.note(205);
        assert_eq!(arrived.missing(), 5);
        assert!(arrived.is_of(1) && arrived.is_before(2) && !arrived.is_before(1));
        assert_eq!(ArrivedFrames::default().note(u32::MAX), Arrival::Impossible);
    }

    #[test]
    fn a_call_whose_first_frames_never_came_misses_them() {
        let mut arrived = ArrivedFrames::of(1);
        arrived.note(3);
        assert_eq!(arrived.missing(), 3);
    }

    #[test]
    fn the_agents_audio_has_gaps_after_a_clear_only() {
        let mut audio = AgentAudio::Next(0);
        assert_eq!((audio.note(0), audio.note(1), audio.note(3)), (Some(0), Some(0), Some(1)));
        assert_eq!(audio.note(3), None, "it was there before");
        audio.clear();
        assert_eq!((audio.note(2), audio.note(9), audio.note(11)), (None, Some(0), Some(1)));
        assert_eq!((audio.note(0), audio.note(1)), (Some(0), Some(0)), "another session");
        assert_eq!(AgentAudio::Next(0).note(2), Some(2), "the beginning is missing");
    }
}
