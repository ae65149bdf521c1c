//! What must survive a pod: the call's journal.
//!
//! The call machine emits [`Entry`]s in order; the shell appends them to the store off the audio path and says up to
//! where they are durable. A pod that takes the call over reads them back as a [`Journal`]. With
//! `recovery: WithoutContext` entries that quote anybody are never emitted.

use serde::{Deserialize, Serialize};

use crate::{Epoch, Ms, Redacted, ToolCallId};

/// One entry, as stored. Ids are (CallSid, epoch, sequence).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// The leg that wrote it.
    pub epoch: Epoch,
    /// From 1 in each epoch, without gaps.
    pub sequence: u64,
    /// When, since the call's origin.
    pub at: Ms,
    /// What.
    #[serde(flatten)]
    pub fact: Fact,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fact", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Fact {
    /// A leg began to serve the call.
    Attached,
    /// The greeting was heard to its end, or interrupted: it is not said again.
    Greeted,
    /// The caller's words of one turn.
    CallerSaid {
        /// The transcript.
        text: Redacted<String>,
    },
    /// The agent's words of one item, as far as they were heard.
    AgentSaid {
        /// The transcript, cut to what was heard.
        text: Redacted<String>,
        /// Whether it was cut short: by the caller, or by the end of the leg ([`Fact::CutOff`] follows then).
        interrupted: bool,
    },
    /// What was heard so far of an item that is being played; `AgentSaid` takes its place when the item is over. A journal
    /// that ends without it is one of a pod that died in mid-sentence.
    AgentHeard {
        /// The transcript, cut to what was heard.
        text: Redacted<String>,
    },
    /// The caller pressed a key.
    Digit {
        /// `0`–`9`, `*`, `#`, `A`–`D`.
        digit: Redacted<char>,
    },
    /// A tool is about to run.
    ToolStarted {
        /// Its call.
        call: ToolCallId,
        /// Its name.
        name: String,
        /// JSON text.
        arguments: Redacted<String>,
    },
    /// A tool ended.
    ToolEnded {
        /// Its call.
        call: ToolCallId,
        /// What the model was told.
        output: Redacted<String>,
    },
    /// The leg ended and another is to follow: in a pause, or while the caller spoke. The last entry of its leg.
    Left,
    /// The leg ended and another is to follow: while the agent was heard, or the caller waited for it. The next leg speaks
    /// first. The last entry of its leg.
    CutOff,
    /// Something a newer build wrote; kept, not understood.
    #[serde(other)]
    Unknown,
}

impl Fact {
    /// Whether the leg that wrote it got anywhere: to begin and to end is no progress of a call.
    pub const fn is_progress(&self) -> bool {
        match self {
            Self::Attached | Self::Left | Self::CutOff => false,
            Self::Greeted
            | Self::CallerSaid { .. }
            | Self::AgentSaid { .. }
            | Self::AgentHeard { .. }
            | Self::Digit { .. }
            | Self::ToolStarted { .. }
            | Self::ToolEnded { .. }
            | Self::Unknown => true,
        }
    }
}

/// A call as its journal tells it, oldest entry first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Journal(pub Vec<Entry>);

impl Journal {
    /// Whether the caller has heard the greeting, or must be taken to have heard it.
    ///
    /// Words of the agent say so as well as the entry itself: they come after it, and a greeting that the model never
    /// began has no entry. The caller's do not: people say hello before they are greeted. Where entries are missing, the
    /// store has lost some, and a greeting in the middle of a conversation is worse than none.
    pub fn has_greeted(&self) -> bool {
        let tells = |entry: &Entry| match entry.fact {
            Fact::Greeted | Fact::AgentSaid { .. } | Fact::AgentHeard { .. } => true,
            Fact::Attached
            | Fact::CallerSaid { .. }
            | Fact::Digit { .. }
            | Fact::ToolStarted { .. }
            | Fact::ToolEnded { .. }
            | Fact::Left
            | Fact::CutOff
            | Fact::Unknown => false,
        };
        !self.is_whole() || self.0.iter().any(tells)
    }

    /// Whether the last leg did not end in a pause: it was cut off, or its pod died. False where no leg has begun.
    pub(crate) fn breaks_off(&self) -> bool {
        let mut known = self.0.iter().rev().map(|entry| &entry.fact).filter(|fact| **fact != Fact::Unknown);
        known.next().is_some_and(|fact| *fact != Fact::Left)
    }

    /// Whether no entry is missing before the last one of each leg.
    fn is_whole(&self) -> bool {
        let mut legs = self.0.chunk_by(|one, next| one.epoch == next.epoch);
        legs.all(|leg| leg.iter().zip(1..).all(|(entry, sequence)| entry.sequence == sequence))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said() -> Redacted<String> {
        Redacted::new("Hello.".to_owned())
    }

    fn journal(facts: &[(u32, u64, Fact)]) -> Journal {
        let entry = |(epoch, sequence, fact): &(u32, u64, Fact)| Entry {
            epoch: Epoch(*epoch),
            sequence: *sequence,
            at: Ms(*sequence),
            fact: fact.clone(),
        };
        Journal(facts.iter().map(entry).collect())
    }

    #[test]
    fn to_begin_and_to_end_is_no_progress() {
        let idle = [Fact::Attached, Fact::Left, Fact::CutOff];
        assert!(!idle.iter().any(Fact::is_progress));
        assert!(Fact::Greeted.is_progress() && Fact::CallerSaid { text: said() }.is_progress());
    }

    #[test]
    fn whoever_was_spoken_to_was_greeted() {
        let caller = || Fact::CallerSaid { text: said() };
        let agent = || Fact::AgentSaid { text: said(), interrupted: false };
        let rows = [
            (journal(&[]), false),
            (journal(&[(0, 1, Fact::Attached)]), false),
            (journal(&[(0, 1, Fact::Attached), (0, 2, Fact::Greeted)]), true),
            (journal(&[(0, 1, Fact::Attached), (0, 2, agent())]), true),
            (journal(&[(0, 1, Fact::Attached), (0, 2, Fact::AgentHeard { text: said() })]), true),
            // Said before the greeting, in a leg that ended before it.
            (journal(&[(0, 1, Fact::Attached), (0, 2, caller()), (1, 1, Fact::Attached)]), false),
            // The first leg reached no pod.
            (journal(&[(1, 1, Fact::Attached)]), false),
            // The store has lost the beginning, or something in between.
            (journal(&[(0, 4, caller())]), true),
            (journal(&[(0, 1, Fact::Attached), (0, 4, caller())]), true),
            (journal(&[(0, 1, Fact::Attached), (1, 1, Fact::Attached), (1, 3, caller())]), true),
        ];
        for (journal, has_greeted) in rows {
            assert_eq!(journal.has_greeted(), has_greeted, "{journal:?}");
        }
    }
}
