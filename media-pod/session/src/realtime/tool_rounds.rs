//! Tool calls of the model and what became of them (protocol sheet 5.9).
//!
//! The calls of one reply are a round. A round is ready when its reply is over and every output was sent: then the
//! model is asked once to go on. A reply that the server began by itself after it had acknowledged every output has
//! already answered the round.

use std::collections::VecDeque;

use crate::{ReplyId, ToolCallId};

/// Calls without an answer kept at once, and call ids remembered against repetition. A reply makes one to three.
const MAX_CALLS: usize = 128;

/// The calls of one reply.
#[derive(Debug)]
pub(super) struct Round {
    reply: ReplyId,
    stage: Stage,
    calls: Vec<(ToolCallId, Output)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The reply may make more calls.
    ReplyActive,
    ReplyOver,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Output {
    Awaited,
    Sent,
    /// The server said that it is part of the conversation.
    Acknowledged,
}

#[derive(Debug, Default)]
pub(super) struct ToolRounds {
    open: Vec<Round>,
    seen: VecDeque<ToolCallId>,
}

/// Why a call of the model is not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallRefused {
    Repeated,
    TooMany,
}

impl ToolRounds {
    /// Notes a call of the active reply.
    pub(super) fn begin(&mut self, reply: &ReplyId, call: &ToolCallId) -> Result<(), CallRefused> {
        if self.seen.contains(call) || self.calls().any(|(known, _)| known == call) {
            return Err(CallRefused::Repeated);
        }
        if self.calls().count() >= MAX_CALLS {
            return Err(CallRefused::TooMany);
        }
        if self.seen.len() == MAX_CALLS {
            self.seen.pop_front();
        }
        self.seen.push_back(call.clone());
        let round =
            self.open.iter_mut().find(|round| round.reply == *reply && round.stage == Stage::ReplyActive);
        let entry = (call.clone(), Output::Awaited);
        match round {
            Some(round) => round.calls.push(entry),
            None => {
                self.open.push(Round { reply: reply.clone(), stage: Stage::ReplyActive, calls: vec![entry] })
            }
        }
        Ok(())
    }

    /// Whether the output of `call` may be sent: once per call.
    pub(super) fn take_output(&mut self, call: &ToolCallId) -> bool {
        let awaited = self.output_mut(call.as_str()).filter(|output| **output == Output::Awaited);
        awaited.map(|output| *output = Output::Sent).is_some()
    }

    /// The server acknowledged an output.
    pub(super) fn acknowledge(&mut self, call: &str) {
        self.open.iter_mut().for_each(|round| round.acknowledge(call));
    }

    /// The reply that made calls is over.
    pub(super) fn end_reply(&mut self, reply: &ReplyId) {
        for round in self.open.iter_mut().filter(|round| round.reply == *reply) {
            round.stage = Stage::ReplyOver;
        }
    }

    pub(super) fn has_ready(&self) -> bool {
        self.open.iter().any(Round::is_ready)
    }

    /// Every round the next reply answers.
    pub(super) fn take_ready(&mut self) -> Vec<Round> {
        self.open.extract_if(.., |round| round.is_ready()).collect()
    }

    /// Rounds whose answer did not come about.
    pub(super) fn put_back(&mut self, rounds: Vec<Round>) {
        self.open.splice(0..0, rounds);
    }

    /// A reply that is not ours began: it answers what the server had already acknowledged.
    pub(super) fn answered_by_server(&mut self) {
        self.open.retain(|round| !(round.is_ready() && round.is_acknowledged()));
    }

    fn calls(&self) -> impl Iterator<Item = &(ToolCallId, Output)> {
        self.open.iter().flat_map(|round| &round.calls)
    }

    fn output_mut(&mut self, call: &str) -> Option<&mut Output> {
        let mut calls = self.open.iter_mut().flat_map(|round| &mut round.calls);
        calls.find(|(known, _)| known.as_str() == call).map(|(_, output)| output)
    }
}

impl Round {
    /// The server acknowledged an output, perhaps of this round.
    pub(super) fn acknowledge(&mut self, call: &str) {
        for (known, output) in &mut self.calls {
            if known.as_str() == call && *output == Output::Sent {
                *output = Output::Acknowledged;
            }
        }
    }

    /// Whether every output is part of the conversation: a reply that begins now has seen them.
    pub(super) fn is_acknowledged(&self) -> bool {
        self.calls.iter().all(|(_, output)| *output == Output::Acknowledged)
    }

    fn is_ready(&self) -> bool {
        self.stage == Stage::ReplyOver && self.calls.iter().all(|(_, output)| *output != Output::Awaited)
    }
}
