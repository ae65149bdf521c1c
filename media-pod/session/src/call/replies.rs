//! The turn fence: which replies may still be heard.
//!
//! Admission instead of exclusion: audio goes out only for a reply that began since the last interruption. What an
//! interruption ended is remembered for a while, so that neither its name nor its items can come back.

use std::collections::VecDeque;

use crate::io::Ignored;
use crate::{ItemId, ReplyId};

/// Replies of one turn kept at most; a model runs one at a time.
const MAX_REPLIES: usize = 16;

/// Ended names remembered; a model sends stragglers of the last one or two.
const MAX_FENCED: usize = 64;

/// Replies since the last interruption, and what is behind the fence.
#[derive(Clone, Debug, Default)]
pub(super) struct Replies {
    current: VecDeque<Reply>,
    fenced_replies: VecDeque<ReplyId>,
    fenced_items: VecDeque<ItemId>,
}

#[derive(Clone, Debug)]
struct Reply {
    id: ReplyId,
    is_active: bool,
}

impl Replies {
    /// A reply began.
    pub(super) fn begin(&mut self, id: &ReplyId) -> Result<(), Ignored> {
        if self.fenced_replies.contains(id) {
            return Err(Ignored::Stale { input: "reply started" });
        }
        if self.current.iter().any(|reply| reply.id == *id) {
            return Err(Ignored::Unexpected { input: "reply started", state: "this reply has begun" });
        }
        if self.current.len() >= MAX_REPLIES {
            let Some(ended) = self.current.iter().position(|reply| !reply.is_active) else {
                return Err(Ignored::OverLimit { input: "replies" });
            };
            if let Some(reply) = self.current.remove(ended) {
                remember(&mut self.fenced_replies, reply.id);
            }
        }
        self.current.push_back(Reply { id: id.clone(), is_active: true });
        Ok(())
    }

    /// A reply ended; it may still be playing.
    pub(super) fn end(&mut self, id: &ReplyId) -> Result<(), Ignored> {
        match self.current.iter_mut().find(|reply| reply.id == *id) {
            Some(reply) if reply.is_active => {
                reply.is_active = false;
                Ok(())
            }
            Some(_) | None => Err(Ignored::Stale { input: "reply ended" }),
        }
    }

    /// Whether audio of this may be heard.
    pub(super) fn may_sound(&self, id: &ReplyId, item: &ItemId) -> bool {
        self.current.iter().any(|reply| reply.id == *id) && !self.fenced_items.contains(item)
    }

    /// Whether this reply is behind the fence.
    pub(super) fn is_fenced(&self, id: &ReplyId) -> bool {
        self.fenced_replies.contains(id)
    }

    /// Whether this reply is being made.
    pub(super) fn is_active(&self, id: &ReplyId) -> bool {
        self.current.iter().any(|reply| reply.is_active && reply.id == *id)
    }

    /// Whether any reply is being made.
    pub(super) fn is_any_active(&self) -> bool {
        self.current.iter().any(|reply| reply.is_active)
    }

    /// The turn is over: nothing of it is heard any more.
    pub(super) fn fence(&mut self) {
        for reply in std::mem::take(&mut self.current) {
            remember(&mut self.fenced_replies, reply.id);
        }
    }

    /// This item is not heard any more, in whichever reply it comes.
    pub(super) fn fence_item(&mut self, item: ItemId) {
        remember(&mut self.fenced_items, item);
    }
}

fn remember<T: PartialEq>(fenced: &mut VecDeque<T>, id: T) {
    if fenced.contains(&id) {
        return;
    }
    if fenced.len() >= MAX_FENCED {
        fenced.pop_front();
    }
    fenced.push_back(id);
}
