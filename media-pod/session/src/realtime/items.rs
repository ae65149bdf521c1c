//! What the model has said on this connection, item by item: how much audio came, and what must not come any more.
//!
//! This is the discard set and the measure for truncation in one bounded table: an item cut by the caller stays in it
//! as cut, so that its late audio is recognised. The oldest item is forgotten first; audio of a forgotten item belongs
//! to a reply that is long over and is dropped for that reason.

use std::collections::VecDeque;

use crate::audio::{BYTES_PER_MS, Payload};
use crate::{ItemId, Ms, ReplyId};

/// Items remembered. A reply has one or two; a caller can interrupt only what is still being played.
const MAX_ITEMS: usize = 64;

/// One message of the agent.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) id: ItemId,
    pub(super) reply: ReplyId,
    pub(super) content_index: u64,
    /// μ-law bytes received.
    bytes: u64,
    sound: Sound,
    words: Words,
}

/// Where an item's audio stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sound {
    Coming,
    Whole,
    /// Cut by the caller: nothing of it is delivered any more.
    Cut,
}

/// Whether an item's transcript was delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Words {
    Missing,
    Delivered,
}

#[derive(Debug, Default)]
pub(super) struct Items(VecDeque<Item>);

impl Items {
    pub(super) fn find(&mut self, id: &str) -> Option<&mut Item> {
        self.0.iter_mut().rev().find(|item| item.id.as_str() == id)
    }

    /// The item, begun now unless it is known.
    pub(super) fn announce(&mut self, id: &str, reply: &ReplyId) -> &mut Item {
        let known = self.0.iter().rposition(|item| item.id.as_str() == id);
        let index = known.unwrap_or_else(|| {
            if self.0.len() == MAX_ITEMS {
                self.0.pop_front();
            }
            self.0.push_back(Item {
                id: id.into(),
                reply: reply.clone(),
                content_index: 0,
                bytes: 0,
                sound: Sound::Coming,
                words: Words::Missing,
            });
            self.0.len() - 1
        });
        &mut self.0[index]
    }

    /// Ends the audio of every item of `reply` that the server did not end.
    pub(super) fn end_reply(&mut self, reply: &ReplyId) -> impl Iterator<Item = ItemId> {
        self.0.iter_mut().filter(move |item| item.reply == *reply).filter_map(Item::end_audio)
    }
}

impl Item {
    /// Counts audio in; false when it must not be delivered.
    pub(super) fn take_audio(&mut self, reply: &str, content_index: u64, audio: &Payload) -> bool {
        if self.sound != Sound::Coming || self.reply.as_str() != reply {
            return false;
        }
        self.content_index = content_index;
        self.bytes += audio.mulaw_len();
        true
    }

    /// The end of the audio, once, if any of it was delivered.
    pub(super) fn end_audio(&mut self) -> Option<ItemId> {
        if self.sound != Sound::Coming || self.bytes == 0 {
            return None;
        }
        self.sound = Sound::Whole;
        Some(self.id.clone())
    }

    /// The transcript is delivered once, and only if it says something.
    pub(super) fn take_transcript(&mut self, text: &str) -> bool {
        let first = self.words == Words::Missing && !text.trim().is_empty();
        if first {
            self.words = Words::Delivered;
        }
        first
    }

    /// Cuts the item at what was heard; the position for the server, never past what came. `None` when there is
    /// nothing to cut or it was cut before.
    pub(super) fn cut(&mut self, heard: Ms) -> Option<Ms> {
        if self.sound == Sound::Cut {
            return None;
        }
        self.sound = Sound::Cut;
        (self.bytes > 0).then(|| heard.min(Ms(self.bytes / BYTES_PER_MS)))
    }
}
