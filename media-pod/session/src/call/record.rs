//! What was said and done: the model's memory for the next connection, and the journal for the next pod.
//!
//! Bounded: the oldest entries of the memory are dropped first. What quotes somebody reaches the journal only with
//! `recovery: WithContext`.

use std::collections::VecDeque;

use crate::agent_file::RecoveryKind;
use crate::io::{HistoryItem, Output};
use crate::journal::{Entry, Fact, Journal};
use crate::{Epoch, Ms, Redacted, ToolCallId};

/// Entries kept for a replay; with [`MAX_TEXT`] about an hour of lively talk.
const MAX_ITEMS: usize = 400;

/// Bytes of text kept for a replay.
const MAX_TEXT: usize = 128 * 1024;

/// The conversation so far, as the model must remember it: in the order in which it happened, which is not always the
/// order in which it became known.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    items: VecDeque<(Ms, HistoryItem)>,
    text: usize,
}

impl Memory {
    /// What the journal tells, and whether it breaks off while the agent was speaking or about to, and nothing has been
    /// said or done since. A tool that was started and never ended is told as unknown: it is not run again.
    pub(super) fn from_journal(journal: Journal) -> (Self, Cut) {
        let mut reading = Reading::default();
        for entry in journal.0 {
            reading.take(entry);
        }
        reading.end_leg();
        (reading.memory, reading.cut)
    }

    /// Adds what happened at a time, dropping the oldest beyond the bounds.
    pub(super) fn push(&mut self, at: Ms, item: HistoryItem) {
        self.text += text_len(&item);
        let later = self.items.iter().rev().take_while(|(time, _)| *time > at).count();
        self.items.insert(self.items.len() - later, (at, item));
        while self.items.len() > MAX_ITEMS || (self.text > MAX_TEXT && self.items.len() > 1) {
            self.text -= self.items.pop_front().map_or(0, |(_, oldest)| text_len(&oldest));
        }
    }

    /// All of it, oldest first.
    pub(super) fn items(&self) -> Vec<HistoryItem> {
        self.items.iter().map(|(_, item)| item.clone()).collect()
    }

    /// Whether the last entry is one the agent has to answer.
    pub(super) fn owes_reply(&self) -> bool {
        match self.items.back().map(|(_, item)| item) {
            Some(HistoryItem::Caller(_) | HistoryItem::System(_) | HistoryItem::Tool { .. }) => true,
            Some(HistoryItem::Agent(_)) | None => false,
        }
    }
}

/// A journal, read so far.
#[derive(Default)]
struct Reading {
    memory: Memory,
    cut: Cut,
    /// The time of the last entry.
    last: Ms,
    /// Keys that make one text.
    digits: String,
    /// What was heard of words that have no end yet.
    heard: Option<Redacted<String>>,
    /// Tools that have not ended yet.
    started: Vec<(ToolCallId, String, Redacted<String>)>,
}

impl Reading {
    fn take(&mut self, Entry { at, fact, .. }: Entry) {
        if !matches!(fact, Fact::Digit { .. }) {
            self.end_digits();
        }
        // A leg that is attached has said nothing yet: what was owed to the caller before is owed still.
        if !matches!(fact, Fact::Attached | Fact::Unknown) {
            self.cut = Cut::Clean;
        }
        match fact {
            Fact::Attached => self.end_leg(),
            Fact::CallerSaid { text } => self.memory.push(at, HistoryItem::Caller(text)),
            Fact::AgentSaid { text, interrupted: _ } => {
                self.heard.take_if(|heard| text.expose().starts_with(heard.expose().as_str()));
                self.memory.push(at, HistoryItem::Agent(text));
            }
            Fact::AgentHeard { text } => self.heard = Some(text),
            Fact::Digit { digit } => self.digits.push(*digit.expose()),
            Fact::ToolStarted { call, name, arguments } => self.started.push((call, name, arguments)),
            Fact::ToolEnded { call: ended, output } => {
                if let Some(index) = self.started.iter().position(|(call, ..)| *call == ended) {
                    let (call, name, arguments) = self.started.remove(index);
                    self.memory.push(at, HistoryItem::Tool { call, name, arguments, output });
                }
            }
            Fact::CutOff => self.cut = Cut::InMidSentence,
            Fact::Greeted | Fact::Left | Fact::Unknown => {}
        }
        self.last = self.last.max(at);
    }

    fn end_digits(&mut self) {
        if !self.digits.is_empty() {
            self.memory.push(self.last, pressed(&std::mem::take(&mut self.digits)));
        }
    }

    /// What a leg has left without an end has none: its pod died, or was in a hurry.
    fn end_leg(&mut self) {
        self.end_digits();
        for (call, name, arguments) in self.started.drain(..) {
            let output = Redacted::new(OUTCOME_UNKNOWN.to_owned());
            self.memory.push(self.last, HistoryItem::Tool { call, name, arguments, output });
        }
        if let Some(text) = self.heard.take() {
            self.memory.push(self.last, HistoryItem::Agent(text));
            self.cut = Cut::InMidSentence;
        }
    }
}

/// How a journal ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Cut {
    /// With nothing owed, or with what the conversation itself shows to be owed.
    #[default]
    Clean,
    /// With words of which more was to come.
    InMidSentence,
}

/// What the model is told of a tool whose outcome died with a pod.
const OUTCOME_UNKNOWN: &str =
    "Error: it is unknown whether this was done. Do not repeat it without asking the caller.";

/// What the model is told of keys.
pub(super) fn pressed(digits: &str) -> HistoryItem {
    HistoryItem::System(Redacted::new(format!("The caller pressed {digits} on the phone's keypad.")))
}

fn text_len(item: &HistoryItem) -> usize {
    match item {
        HistoryItem::Caller(text) | HistoryItem::Agent(text) | HistoryItem::System(text) => {
            text.expose().len()
        }
        HistoryItem::Tool { call, name, arguments, output } => {
            call.as_str().len() + name.len() + arguments.expose().len() + output.expose().len()
        }
    }
}

/// Writes this leg's journal entries, numbered from 1 without gaps.
#[derive(Clone, Debug)]
pub(super) struct Scribe {
    epoch: Epoch,
    recovery: RecoveryKind,
    sequence: u64,
    durable: u64,
}

impl Scribe {
    /// A journal to be begun, or gone on with if this epoch has entries already.
    pub(super) fn new(epoch: Epoch, recovery: RecoveryKind, journal: &Journal) -> Self {
        let own = journal.0.iter().filter(|entry| entry.epoch == epoch);
        let sequence = own.map(|entry| entry.sequence).max().unwrap_or_default();
        Self { epoch, recovery, sequence, durable: sequence }
    }

    /// The entry for a fact; none when the plan keeps nothing that was said.
    pub(super) fn write(&mut self, at: Ms, fact: Fact) -> Option<Output> {
        let fact = match self.recovery {
            RecoveryKind::WithContext => fact,
            RecoveryKind::WithoutContext => unquoted(fact)?,
        };
        self.sequence += 1;
        Some(Output::Journal(Entry { epoch: self.epoch, sequence: self.sequence, at, fact }))
    }

    /// The last entry written.
    pub(super) const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The store holds everything up to here. False when it says nothing new.
    pub(super) fn set_durable(&mut self, up_to: u64) -> bool {
        let is_news = up_to > self.durable && up_to <= self.sequence;
        if is_news {
            self.durable = up_to;
        }
        is_news
    }

    /// Whether the store holds this entry.
    pub(super) const fn is_durable(&self, sequence: u64) -> bool {
        sequence <= self.durable
    }
}

/// The fact without what it quotes; none when nothing is left.
fn unquoted(fact: Fact) -> Option<Fact> {
    match fact {
        Fact::Attached | Fact::Greeted | Fact::Left | Fact::CutOff => Some(fact),
        Fact::ToolStarted { call, name, arguments: _ } => {
            Some(Fact::ToolStarted { call, name, arguments: Redacted::default() })
        }
        Fact::ToolEnded { call, output: _ } => Some(Fact::ToolEnded { call, output: Redacted::default() }),
        Fact::CallerSaid { .. }
        | Fact::AgentSaid { .. }
        | Fact::AgentHeard { .. }
        | Fact::Digit { .. }
        | Fact::Unknown => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_keeps_the_newest_within_its_bounds() {
        let mut memory = Memory::default();
        for n in 0..1000 {
            memory.push(Ms(n), HistoryItem::Caller(Redacted::new(n.to_string())));
        }
        assert_eq!(memory.items().len(), MAX_ITEMS);
        assert_eq!(memory.items().last(), Some(&HistoryItem::Caller(Redacted::new("999".to_owned()))));
        for _ in 0..10 {
            memory.push(Ms(1000), HistoryItem::Agent(Redacted::new("x".repeat(MAX_TEXT / 4))));
        }
        assert_eq!(memory.items().len(), 4);
        memory.push(Ms(1000), HistoryItem::Agent(Redacted::new("x".repeat(2 * MAX_TEXT))));
        assert_eq!(memory.items().len(), 1);
    }

    #[test]
    fn a_journal_without_context_quotes_nobody() {
        let mut scribe = Scribe::new(Epoch(0), RecoveryKind::WithoutContext, &Journal::default());
        let call = ToolCallId::from("t1");
        let arguments = Redacted::new("secret".to_owned());
        let started = Fact::ToolStarted { call: call.clone(), name: "book".to_owned(), arguments };
        let Some(Output::Journal(entry)) = scribe.write(Ms(1), started) else {
            panic!("a start is on record")
        };
        assert_eq!(
            entry.fact,
            Fact::ToolStarted { call, name: "book".to_owned(), arguments: Redacted::default() }
        );
        assert_eq!(scribe.write(Ms(2), Fact::CallerSaid { text: Redacted::new("secret".to_owned()) }), None);
        assert_eq!(scribe.sequence(), 1);
    }

    #[test]
    fn a_journal_goes_on_where_this_epoch_left_off() {
        let entry =
            |epoch, sequence| Entry { epoch: Epoch(epoch), sequence, at: Ms(0), fact: Fact::Attached };
        let journal = Journal(vec![entry(0, 1), entry(0, 2), entry(1, 1)]);
        let mut scribe = Scribe::new(Epoch(1), RecoveryKind::WithContext, &journal);
        scribe.write(Ms(1), Fact::Greeted);
        assert_eq!(scribe.sequence(), 2);
        assert!(scribe.is_durable(1) && !scribe.is_durable(2));
        assert!(!scribe.set_durable(3) && scribe.set_durable(2));
    }
}
