//! A phone that plays 8 bytes a millisecond in virtual time, echoes a mark when everything before it was played, and
//! on a clear echoes all marks it still holds. Each item has a voice (a byte value) of its own, so the phone knows how
//! much of which item its caller heard.

use std::collections::{BTreeMap, VecDeque};

use call_session::audio::{BYTES_PER_MS, Payload};
use call_session::io::{MarkName, PhoneCommand};
use call_session::{ItemId, Ms};

#[derive(Default)]
pub(crate) struct Phone {
    /// In μ-law bytes on the phone's clock: when everything queued will have been played.
    ends_at: u64,
    marks: VecDeque<(Ms, MarkName)>,
    /// Taken off their way back, to arrive late or never.
    strays: VecDeque<(Ms, MarkName)>,
    sounds: Vec<Sound>,
    voices: BTreeMap<ItemId, u8>,
    /// Whether marks are lost on their way back.
    pub(crate) is_deaf: bool,
}

#[derive(Clone, Copy)]
struct Sound {
    voice: u8,
    from: u64,
    to: u64,
}

impl Phone {
    /// Audio of an item.
    pub(crate) fn voice(&mut self, item: &ItemId, bytes: u64) -> Payload {
        let next = self.voices.len() as u8;
        let voice = *self.voices.entry(item.clone()).or_insert(next);
        Payload::from_mulaw(&vec![voice; bytes as usize])
    }

    pub(crate) fn take(&mut self, now: Ms, command: &PhoneCommand) {
        let clock = now.0 * BYTES_PER_MS;
        match command {
            PhoneCommand::Audio(audio) => {
                let from = self.ends_at.max(clock);
                self.ends_at = from + audio.mulaw_len();
                self.sounds.push(Sound { voice: audio.to_mulaw()[0], from, to: self.ends_at });
            }
            PhoneCommand::Mark(name) => {
                let at = Ms(self.ends_at.max(clock).div_ceil(BYTES_PER_MS));
                if !self.is_deaf {
                    self.marks.push_back((at, *name));
                }
            }
            PhoneCommand::Clear => {
                self.sounds.retain(|sound| sound.from < clock);
                for sound in &mut self.sounds {
                    sound.to = sound.to.min(clock);
                }
                self.ends_at = self.ends_at.min(clock);
                for (at, _) in self.marks.iter_mut().chain(&mut self.strays) {
                    *at = (*at).min(now);
                }
            }
        }
    }

    /// Whether the caller is hearing something.
    pub(crate) const fn is_playing(&self, now: Ms) -> bool {
        self.ends_at > now.0 * BYTES_PER_MS
    }

    pub(crate) fn next_echo(&self) -> Option<Ms> {
        self.marks.front().map(|(at, _)| *at)
    }

    pub(crate) fn pop_echo(&mut self, now: Ms) -> Option<MarkName> {
        self.marks.pop_front_if(|(at, _)| *at <= now).map(|(_, name)| name)
    }

    /// The network loses the next mark on its way back.
    pub(crate) fn lose_mark(&mut self) {
        self.strays.extend(self.marks.pop_front());
    }

    /// A lost mark that turns up after all, behind marks that were sent after it; never before its audio was played.
    pub(crate) fn find_mark(&mut self, now: Ms) -> Option<MarkName> {
        self.strays.pop_front_if(|(at, _)| *at <= now).map(|(_, name)| name)
    }

    /// How much of an item the caller has heard by now, in μ-law bytes.
    pub(crate) fn heard(&self, item: &ItemId, now: Ms) -> u64 {
        let clock = now.0 * BYTES_PER_MS;
        let Some(voice) = self.voices.get(item) else { return 0 };
        let sounds = self.sounds.iter().filter(|sound| sound.voice == *voice);
        sounds.map(|sound| sound.to.min(clock).saturating_sub(sound.from)).sum()
    }
}
