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
        /// Whether the caller cut it short.
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
    /// Something a newer build wrote; kept, not understood.
    #[serde(other)]
    Unknown,
}

/// A call as its journal tells it, oldest entry first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Journal(pub Vec<Entry>);

impl Journal {
    /// Whether the caller has heard the greeting.
    pub fn has_greeted(&self) -> bool {
        self.0.iter().any(|entry| entry.fact == Fact::Greeted)
    }
}
