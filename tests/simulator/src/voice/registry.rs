//! Recognises known clips in received audio, byte for byte.
//!
//! Every clip is indexed by a rolling hash of windows at a fixed stride; received audio is scanned at every byte offset,
//! each hit is verified and stretched as far as the bytes agree. Framing, missing frames and silence in between do not
//! matter; a changed byte does: sound that no clip explains is [`UNINTELLIGIBLE`]. Of a clip that is only partly there
//! the words in proportion are returned.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};

use super::{Clip, Speaker, Voice, clips, mulaw};

/// What the transcription says of sound that is not what any caller said.
pub const UNINTELLIGIBLE: &str = "[unintelligible]";

/// The clips callers were given to say. Clones share one list.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    known: Arc<RwLock<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    clips: Vec<Clip>,
    windows: HashMap<u64, Vec<Place>>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    clip: usize,
    offset: usize,
}

/// A stretch of received audio that is a stretch of a clip.
#[derive(Clone, Debug)]
struct Match {
    clip: usize,
    clip_start: usize,
    received: Range<usize>,
}

impl Registry {
    /// A list that knows the sentences carried in the binary, so that callers of another process are understood too.
    pub fn with_shipped_clips() -> Self {
        let registry = Self::default();
        let callers = clips::index().filter(|(_, speaker, _)| *speaker == Speaker::Caller);
        for clip in callers.filter_map(|(_, speaker, words)| Voice::new(speaker).render(words).ok()) {
            registry.add(&clip);
        }
        registry
    }

    /// Makes a clip recognisable. One already known is not added again.
    pub fn add(&self, clip: &Clip) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if !known.clips.contains(clip) {
            known.add(clip.clone());
        }
    }

    /// What is said in a stretch of received μ-law: the words of the clips in it, in order; empty for silence.
    pub fn transcribe(&self, received: &[u8]) -> String {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let matches = known.matches(received);
        let mut words: Vec<String> = Vec::new();
        let mut at = 0;
        for utterance in utterances(&matches) {
            let (first, last) = (&utterance[0], &utterance[utterance.len() - 1]);
            if is_noisy(&received[at..first.received.start.max(at)]) {
                words.push(UNINTELLIGIBLE.to_owned());
            }
            let gaps = utterance.windows(2).map(|pair| pair[0].received.end..pair[1].received.start);
            if gaps.filter(|gap| gap.start < gap.end).any(|gap| is_noisy(&received[gap])) {
                words.push(UNINTELLIGIBLE.to_owned());
            } else {
                words.extend(heard_words(&known.clips[first.clip], utterance));
            }
            at = last.received.end;
        }
        if is_noisy(&received[at..]) {
            words.push(UNINTELLIGIBLE.to_owned());
        }
        words.retain(|word| !word.is_empty());
        words.join(" ")
    }
}

impl Known {
    fn add(&mut self, clip: Clip) {
        let index = self.clips.len();
        let last = clip.mulaw.len().saturating_sub(WINDOW);
        for offset in (0..=last).step_by(STRIDE) {
            let Some(window) = clip.mulaw.get(offset..offset + WINDOW) else { break };
            if is_telling(window) {
                self.windows.entry(hash(window)).or_default().push(Place { clip: index, offset });
            }
        }
        self.clips.push(clip);
    }

    /// The longest agreements, left to right, without overlap.
    fn matches(&self, received: &[u8]) -> Vec<Match> {
        let mut found = Vec::new();
        let mut free = 0; // everything before is explained or given up
        let mut at = 0;
        let mut rolling = None;
        while at + WINDOW <= received.len() {
            let window_hash = match rolling {
                Some(previous) => roll(previous, received[at - 1], received[at + WINDOW - 1]),
                None => hash(&received[at..at + WINDOW]),
            };
            let places = self.windows.get(&window_hash).map_or(&[] as &[Place], Vec::as_slice);
            let best = places
                .iter()
                .filter_map(|place| self.stretch(*place, at, received, free))
                .max_by_key(|candidate| candidate.received.len());
            match best {
                Some(longest) => {
                    free = longest.received.end;
                    at = free;
                    rolling = None;
                    found.push(longest);
                }
                None => {
                    at += 1;
                    rolling = Some(window_hash);
                }
            }
        }
        found
    }

    /// The whole agreement around a hit, or nothing when the hash lied.
    fn stretch(&self, place: Place, at: usize, received: &[u8], free: usize) -> Option<Match> {
        let clip = &self.clips[place.clip].mulaw;
        if clip[place.offset..place.offset + WINDOW] != received[at..at + WINDOW] {
            return None;
        }
        let before = clip[..place.offset].iter().rev().zip(received[free..at].iter().rev());
        let back = before.take_while(|(ours, theirs)| ours == theirs).count();
        let after = clip[place.offset..].iter().zip(&received[at..]);
        let forward = after.take_while(|(ours, theirs)| ours == theirs).count();
        Some(Match { clip: place.clip, clip_start: place.offset - back, received: at - back..at + forward })
    }
}

impl Match {
    const fn clip_range(&self) -> Range<usize> {
        self.clip_start..self.clip_start + (self.received.end - self.received.start)
    }
}

/// Groups matches into utterances: the same clip going forward.
fn utterances(matches: &[Match]) -> Vec<&[Match]> {
    matches
        .chunk_by(|earlier, later| earlier.clip == later.clip && earlier.clip_range().end <= later.clip_start)
        .collect()
}

/// The clip's words whose time was at least half heard; all of them when nearly all its sound was.
fn heard_words(clip: &Clip, utterance: &[Match]) -> Option<String> {
    let mut heard = vec![false; clip.mulaw.len()];
    for stretch in utterance {
        heard[stretch.clip_range()].fill(true);
    }
    let voiced: Vec<usize> = (0..clip.mulaw.len()).filter(|index| !is_quiet(clip.mulaw[*index])).collect();
    let share = |range: Range<usize>| {
        let there = range.clone().filter(|index| heard[*index]).count();
        there * 100 / range.len().max(1)
    };
    let heard_voiced = voiced.iter().filter(|index| heard[**index]).count();
    if heard_voiced * 100 >= voiced.len() * WHOLE_PERCENT {
        return Some(clip.text.clone());
    }
    // Words are spread over the sounding part by their letters: right to a word or so, which is what a test can ask.
    let (start, end) = (*voiced.first()?, *voiced.last()? + 1);
    let words: Vec<&str> = clip.text.split_whitespace().collect();
    let total: usize = words.iter().map(|word| word.chars().count()).sum();
    let place = |letters: usize| start + (end - start) * letters / total.max(1);
    let mut letters = 0;
    let mut kept = Vec::new();
    for word in words {
        let from = place(letters);
        letters += word.chars().count();
        if share(from..place(letters)) >= 50 {
            kept.push(word);
        }
    }
    Some(kept.join(" "))
}

/// Whether a stretch that no clip explains has sound in it, enough to have been speech.
fn is_noisy(stretch: &[u8]) -> bool {
    let loud = stretch.chunks(mulaw::FRAME_BYTES).filter(|frame| mulaw::energy(frame) > NOISE_ENERGY);
    loud.map(<[u8]>::len).sum::<usize>() > NOISE_BYTES
}

/// Windows of near-silence are alike in all clips: only those with a shape of their own are indexed.
fn is_telling(window: &[u8]) -> bool {
    let mut seen = [false; 256];
    window.iter().for_each(|byte| seen[usize::from(*byte)] = true);
    seen.iter().filter(|is_seen| **is_seen).count() >= TELLING_VALUES
}

const fn is_quiet(byte: u8) -> bool {
    mulaw::decode(byte).unsigned_abs() < 64
}

fn hash(window: &[u8]) -> u64 {
    window.iter().fold(0, |sum: u64, byte| sum.wrapping_mul(BASE).wrapping_add(u64::from(*byte) + 1))
}

const fn roll(previous: u64, leaving: u8, entering: u8) -> u64 {
    previous
        .wrapping_sub((leaving as u64 + 1).wrapping_mul(TOP))
        .wrapping_mul(BASE)
        .wrapping_add(entering as u64 + 1)
}

/// One frame: less would match by chance in noise, more would miss audio with many lost frames.
const WINDOW: usize = mulaw::FRAME_BYTES;

/// Every 5 ms: two neighbouring frames always contain an indexed window.
const STRIDE: usize = 40;

/// Of 160 bytes of speech at least this many differ.
const TELLING_VALUES: usize = 12;

/// Sound above this (about -42 dBFS) that no clip explains counts as noise…
const NOISE_ENERGY: u32 = 250;

/// …when there is more than 60 ms of it: a cut frame at either end is no second speaker.
const NOISE_BYTES: usize = 3 * mulaw::FRAME_BYTES;

/// A clip of which this much of the sound arrived was heard whole.
const WHOLE_PERCENT: usize = 97;

/// An odd multiplier with good spread (MMIX's generator, Knuth).
const BASE: u64 = 6_364_136_223_846_793_005;

/// The weight of a window's first byte.
const TOP: u64 = {
    let mut power = 1_u64;
    let mut index = 1;
    while index < WINDOW {
        power = power.wrapping_mul(BASE);
        index += 1;
    }
    power
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::voice::{Speaker, Voice, clips};

    fn registry() -> Registry {
        let registry = Registry::default();
        for (_, speaker, text) in clips::index() {
            if speaker == Speaker::Caller {
                registry.add(&say(text));
            }
        }
        registry
    }

    fn say(text: &str) -> Clip {
        Voice::new(Speaker::Caller).render(text).expect("speaks")
    }

    fn silence(milliseconds: usize) -> Vec<u8> {
        vec![mulaw::SILENCE; milliseconds * mulaw::BYTES_PER_MS]
    }

    const HOURS: &str = "Hello, what are your opening hours?";

    #[test]
    fn every_known_clip_is_recognised_at_any_byte_offset() {
        let registry = registry();
        for (index, (_, _, text)) in clips::index().filter(|(_, who, _)| *who == Speaker::Caller).enumerate()
        {
            let mut audio = vec![mulaw::SILENCE; 1000 + 37 * index];
            audio.extend(say(text).mulaw);
            audio.extend(silence(500));
            assert_eq!(registry.transcribe(&audio), text);
        }
        assert_eq!(registry.transcribe(&silence(2000)), "");
        assert_eq!(registry.transcribe(&[]), "");
    }

    #[test]
    fn two_clips_in_a_row_are_both_heard_and_a_repeated_one_twice() {
        let (hours, yes) = (say(HOURS).mulaw, say("Yes, please.").mulaw);
        let audio = [hours.as_slice(), &silence(300), &yes, &yes].concat();
        assert_eq!(
            registry().transcribe(&audio),
            "Hello, what are your opening hours? Yes, please. Yes, please."
        );
    }

    #[test]
    fn lost_frames_are_forgiven_and_a_cut_clip_gives_the_words_so_far() {
        let registry = registry();
        let whole = say(HOURS).mulaw;
        let mut frames: Vec<&[u8]> = whole.chunks(160).collect();
        frames.remove(30);
        assert_eq!(registry.transcribe(&frames.concat()), HOURS);
        let half = registry.transcribe(&whole[..whole.len() / 2]);
        assert!(half.starts_with("Hello, what") && !half.contains("hours"), "{half}");
        let end = registry.transcribe(&whole[whole.len() / 2..]);
        assert!(end.ends_with("opening hours?") && !end.contains("Hello"), "{end}");
    }

    #[test]
    fn the_synthesisers_babble_is_told_apart_as_well_as_speech() {
        let registry = Registry::default();
        let texts = ["Yes, please.", "Yes, thank you.", HOURS, "Hello, what are your closing hours?"];
        let babble = texts.map(|text| {
            let mulaw = mulaw::encode_all(&crate::voice::synthesiser::speak(text, Speaker::Caller));
            Clip { text: text.to_owned(), mulaw }
        });
        babble.iter().for_each(|clip| registry.add(clip));
        for clip in &babble {
            assert_eq!(registry.transcribe(&clip.mulaw), clip.text);
            let whole = &clip.mulaw;
            let half = registry.transcribe(&whole[..whole.len() / 2]);
            assert!(clip.text.starts_with(&half) && half.len() < clip.text.len(), "{half}");
        }
        let flipped: Vec<u8> = babble[2].mulaw.iter().map(|byte| byte ^ 0x01).collect();
        assert_eq!(registry.transcribe(&flipped), UNINTELLIGIBLE);
    }

    #[test]
    fn altered_audio_is_unintelligible() {
        let registry = registry();
        let whole = say(HOURS).mulaw;
        let louder: Vec<u8> = whole
            .iter()
            .map(|byte| mulaw::encode(mulaw::decode(*byte).saturating_add(mulaw::decode(*byte) / 2)))
            .collect();
        assert_eq!(registry.transcribe(&louder), UNINTELLIGIBLE);
        let every_other: Vec<u8> = whole.iter().copied().step_by(2).collect();
        assert_eq!(registry.transcribe(&every_other), UNINTELLIGIBLE);
        let mut shuffled: Vec<&[u8]> = whole.chunks(80).collect();
        shuffled.reverse();
        assert!(registry.transcribe(&shuffled.concat()).contains(UNINTELLIGIBLE));
        let stranger = Voice::new(Speaker::Agent).render("Hello there, who is this?").expect("speaks");
        assert_eq!(registry.transcribe(&stranger.mulaw), UNINTELLIGIBLE);
    }

    #[test]
    fn noise_between_known_words_is_marked() {
        let stranger = Voice::new(Speaker::Agent).render("Somebody else speaks.").expect("speaks");
        let audio = [say("Yes, please.").mulaw, silence(100), stranger.mulaw].concat();
        assert_eq!(registry().transcribe(&audio), format!("Yes, please. {UNINTELLIGIBLE}"));
    }
}
