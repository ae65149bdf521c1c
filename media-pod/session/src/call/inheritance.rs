//! What a leg takes over from those before it: whether the caller was greeted, what the model must remember, and whether
//! the agent has to speak first.
//!
//! Who hears the agent stop in the middle of something, or hears nothing of an agent that has lost its memory, believes
//! to have lost the call: where a leg owes words, or knows of nothing, it does not wait to be spoken to.

use super::record::{Cut, Memory, Scribe};
use super::{Debt, Start};
use crate::agent_file::RecoveryKind;
use crate::io::HistoryItem;
use crate::journal::Journal;
use crate::plan::Plan;
use crate::state::Opening;
use crate::{Epoch, Ms, Redacted};

/// What a model that knows nothing of the conversation is told.
const NOTHING_KNOWN: &str = "The line to the caller was interrupted for a moment in the middle of the call. Nothing of what \
                             was said before is known to you. Say briefly that the line was interrupted, and ask the \
                             caller to tell you again how you can help.";

/// The state in which a leg begins, as far as it depends on the legs before it.
pub(super) struct Inheritance {
    pub(super) opening: Opening,
    pub(super) scribe: Scribe,
    pub(super) memory: Memory,
    pub(super) debt: Debt,
}

impl Inheritance {
    pub(super) fn of(plan: &Plan, epoch: Epoch, start: Start, now: Ms) -> Self {
        let (journal, is_known) = match start {
            Start::Fresh => (Journal::default(), true),
            Start::Resumed(journal) => (journal, true),
            Start::Unknown => (Journal::default(), false),
        };
        let opening = match &plan.greeting {
            Some(_) if is_known && !journal.has_greeted() => Opening::Due,
            Some(_) | None => Opening::Over,
        };
        let scribe = Scribe::new(epoch, plan.recovery, &journal);
        let (memory, cut) = match plan.recovery {
            _ if !is_known => (forgotten(now), Cut::Clean),
            RecoveryKind::WithContext => Memory::from_journal(journal),
            RecoveryKind::WithoutContext if journal.breaks_off() && opening == Opening::Over => {
                (forgotten(now), Cut::Clean)
            }
            RecoveryKind::WithoutContext => (Memory::default(), Cut::Clean),
        };
        let debt = match cut {
            // Before the greeting there is nothing to go on with.
            Cut::InMidSentence if opening == Opening::Over => Debt::Sentence,
            Cut::InMidSentence | Cut::Clean if memory.owes_reply() => Debt::Reply,
            Cut::InMidSentence | Cut::Clean => Debt::None,
        };
        Self { opening, scribe, memory, debt }
    }
}

/// The memory of a leg that has none. It is a memory like any other: each connection of the leg is told.
fn forgotten(now: Ms) -> Memory {
    let mut memory = Memory::default();
    memory.push(now, HistoryItem::System(Redacted::new(NOTHING_KNOWN.to_owned())));
    memory
}
