//! What both ends of a load run share: the clock, the lines, the figures.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::arrived::{Arrival, ArrivedFrames};
use super::histogram::Histogram;
use super::tag::Tag;

/// Shared by the callers and the model of a run.
#[derive(Debug)]
pub(super) struct Board {
    began: Instant,
    /// When the model told of speech on a line, in nanoseconds since the run began; 0: nothing is open.
    speech_told: Vec<AtomicU64>,
    is_measuring: AtomicBool,
    is_over: AtomicBool,
    figures: Mutex<Figures>,
}

/// The golden ratio: the parts of its multiples behind the point are spread most evenly, however many there are.
const GOLDEN: f64 = 1.618_033_988_749_895;

/// Why a call was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Loss {
    /// The webhook did not answer a stream.
    NotAnswered,
    /// The stream could not be opened.
    NoStream,
    /// The stream ended before the caller hung up.
    Dropped,
    /// The caller never heard anything.
    Mute,
}

impl Loss {
    /// As the report names it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::NotAnswered => "notAnswered",
            Self::NoStream => "noStream",
            Self::Dropped => "dropped",
            Self::Mute => "mute",
        }
    }
}

/// Everything counted.
#[derive(Clone, Debug, Default)]
pub(super) struct Figures {
    pub(super) setup: Histogram,
    pub(super) first_audio: Histogram,
    pub(super) event_to_clear: Histogram,
    pub(super) speech_to_clear: Histogram,
    pub(super) to_model: Histogram,
    pub(super) to_phone: Histogram,
    pub(super) placed: u64,
    pub(super) completed: u64,
    pub(super) active: u64,
    pub(super) lost: BTreeMap<Loss, u64>,
    pub(super) barge_ins: u64,
    pub(super) ignored_barge_ins: u64,
    pub(super) frames_to_model: u64,
    pub(super) frames_to_phone: u64,
    pub(super) frames_missing: u64,
    /// Of each line, for what is missing.
    pub(super) arrived: Vec<ArrivedFrames>,
    pub(super) frames_altered: u64,
    pub(super) frames_own: u64,
    pub(super) sessions: u64,
    pub(super) sessions_expired: u64,
}

impl Figures {
    /// A caller's frame came to the model.
    pub(super) fn note_arrival(&mut self, tag: &Tag) {
        let Some(arrived) = self.arrived.get_mut(tag.line as usize) else {
            self.frames_altered += 1;
            return;
        };
        if arrived.is_before(tag.call) {
            self.frames_missing += arrived.missing();
            *arrived = ArrivedFrames::of(tag.call);
        }
        // The last frames of a call may come behind the first ones of the next: nothing follows that could show a gap.
        if arrived.is_of(tag.call) && arrived.note(tag.sequence) == Arrival::Impossible {
            self.frames_altered += 1;
        }
    }
}

impl Board {
    pub(super) fn new(lines: u32) -> Self {
        Self {
            began: Instant::now(),
            speech_told: (0..lines).map(|_| AtomicU64::new(0)).collect(),
            is_measuring: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            figures: Mutex::new(Figures {
                arrived: vec![ArrivedFrames::default(); lines as usize],
                ..Figures::default()
            }),
        }
    }

    /// Time since the run began.
    pub(super) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// How long until this line's next moment within a period; see [`until_phase`].
    pub(super) fn until_phase(&self, line: u32, period: Duration) -> Duration {
        until_phase(self.now(), line, period)
    }

    /// The model tells of speech on this line now.
    pub(super) fn tell_speech(&self, line: u32) {
        let now = u64::try_from(self.now().as_nanos()).unwrap_or(u64::MAX);
        if let Some(told) = self.speech_told.get(line as usize) {
            told.store(now, Ordering::Relaxed);
        }
    }

    /// A clear reached the phone: how long after the model told of the speech, once.
    pub(super) fn since_speech_told(&self, line: u32) -> Option<Duration> {
        let told = self.speech_told.get(line as usize)?.swap(0, Ordering::Relaxed);
        (told > 0).then(|| self.now().saturating_sub(Duration::from_nanos(told)))
    }

    /// Whether latencies count: between ramp and hang-ups.
    pub(super) fn is_measuring(&self) -> bool {
        self.is_measuring.load(Ordering::Relaxed)
    }

    pub(super) fn measure(&self, is_measuring: bool) {
        self.is_measuring.store(is_measuring, Ordering::Relaxed);
    }

    /// Whether everybody should hang up.
    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    pub(super) fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    pub(super) fn figures(&self) -> MutexGuard<'_, Figures> {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner) // numbers stay numbers
    }
}

/// How long from `now` to a line's next moment within a period: lines have moments of their own, evenly spread over it,
/// whenever their calls began.
fn until_phase(now: Duration, line: u32, period: Duration) -> Duration {
    let phase = period.mul_f64(f64::from(line) * GOLDEN % 1.0).as_nanos();
    let period = period.as_nanos();
    let wait = (phase + period - now.as_nanos() % period) % period;
    Duration::from_nanos(u64::try_from(wait).unwrap_or_default()) // below a period
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_frames_are_spread_over_the_period_whenever_they_begin() {
        let period = Duration::from_millis(20);
        let moment = |line| {
            let now = period * line; // a ramp that would align them all
            let wait = until_phase(now, line, period);
            assert!(wait < period);
            (now + wait).as_nanos() % period.as_nanos()
        };
        let mut moments: Vec<_> = (0..100).map(moment).collect();
        moments.sort_unstable();
        let widest = moments.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
        assert!(widest < Duration::from_micros(600).as_nanos(), "{widest} ns without a frame");
    }
}
