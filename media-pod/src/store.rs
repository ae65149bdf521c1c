//! What pods share about calls: who is on which leg, what came before, what comes next, and how many calls there are.
//!
//! One interface, two stores with the same behaviour (one test-suite runs on both): [`memory`] for a laptop, [`redis`] in
//! a cluster. Every operation is idempotent, so a webhook or a write that is repeated does no harm, and every operation
//! is bounded in time. Time is an argument.
//!
//! A *slot* is a call's place in the agent's capacity. It is reserved when the call is announced, claimed when its stream
//! starts, kept alive by the owner's renewals (so it doubles as the call's lease), and expires by itself.
//!
//! A call for which every pod is full may *wait*: then it is counted, and a slot that becomes free is its own before it
//! is a newcomer's.
//!
//! Values may hold numbers and words; errors and logs never do.

pub mod memory;
pub mod redis;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use call_session::io::Ending;
use call_session::journal::{Entry, Journal};
use call_session::{CallSid, Epoch, Ms, Redacted};
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::clock::UnixMs;
use crate::metrics::CallRefusal;

/// How long a call is remembered: longer than any call lasts, long enough for a late callback and a look at the API.
pub const RETENTION: Duration = Duration::from_secs(24 * 60 * 60);

/// The window of `maxCallsPerCallerPerHour`.
pub const CALLER_WINDOW: Duration = Duration::from_secs(60 * 60);

/// An operation's answer.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// The store did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached, or did not answer in time. It may have done it nevertheless.
    #[error("the store did not answer: {0}")]
    Unavailable(String),
    /// It holds something this build cannot read.
    #[error("the store holds an unreadable {0}")]
    Malformed(&'static str),
    /// Its URL cannot be used.
    #[error("the store's URL cannot be used")]
    Url,
}

/// An agent, by namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AgentKey {
    /// Kubernetes namespace.
    pub namespace: String,
    /// The `VoiceAgent`'s name.
    pub name: String,
}

impl fmt::Display for AgentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What is known of a call when it is announced; never changed afterwards, but by [`Store::assign_call`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CallRecord {
    /// The call.
    pub call: CallSid,
    /// Who answers it.
    pub agent: AgentKey,
    /// When it was announced: the zero of the call's own time, unless it had to wait ([`CallState::origin`]).
    pub origin: UnixMs,
    /// Who calls: E.164, or what the carrier says instead.
    pub from: Redacted<String>,
    /// Who is called.
    pub to: Redacted<String>,
}

/// All the store knows of a call, but its journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallState {
    /// Absent when a callback overtook the announcement, or the store lost it.
    pub record: Option<CallRecord>,
    /// The newest leg that was attached, and the pod that serves it.
    pub leg: Option<Leg>,
    /// The newest leg in which something happened.
    pub progress: Option<Epoch>,
    /// How legs ended.
    pub endings: BTreeMap<Epoch, Ending>,
    /// Whether somebody asked to hang up.
    pub hang_up_requested: bool,
    /// When it was admitted, if it was not at once.
    pub admitted: Option<UnixMs>,
    /// When its agent passed it on to a person.
    pub transferred: Option<UnixMs>,
    /// When the carrier said it is over.
    pub ended: Option<UnixMs>,
}

impl CallState {
    /// The zero of the call's own time, which its limits count from: a caller who waits for a slot uses nothing up.
    pub fn origin(&self) -> Option<UnixMs> {
        self.admitted.or_else(|| Some(self.record.as_ref()?.origin))
    }
}

/// What happens to a call once at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Milestone {
    /// It has a slot, after it had to wait for one.
    Admitted,
    /// Its agent passed it on to a person.
    Transferred,
}

/// A leg of a call and its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leg {
    /// Which.
    pub epoch: Epoch,
    /// The pod.
    pub owner: String,
}

/// A slot to reserve.
#[derive(Clone, Debug)]
pub struct SlotRequest<'a> {
    /// Whose slot.
    pub agent: &'a AgentKey,
    /// For which call.
    pub call: &'a CallSid,
    /// Now.
    pub now: UnixMs,
    /// It expires then, unless it is claimed.
    pub until: UnixMs,
    /// Whether a call that finds every pod full waits for a slot, and until when that is believed if it does not ask again.
    pub waits_until: Option<UnixMs>,
    /// What bounds it.
    pub limits: SlotLimits,
}

/// What bounds slots. The default bounds nothing.
#[derive(Clone, Debug, Default)]
pub struct SlotLimits {
    /// Calls all pods carry together, while no pod has announced its own capacity.
    pub assumed_capacity: Option<u32>,
    /// Whether the announced capacity counts.
    pub is_bound_by_capacity: bool,
    /// Calls at once.
    pub concurrent_calls: Option<u32>,
    /// Calls of this caller within [`CALLER_WINDOW`].
    pub calls_of_caller: Option<(Redacted<String>, u32)>,
    /// Talk time of the agent on this day.
    pub talk_time_per_day: Option<Ms>,
}

/// What became of a [`SlotRequest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reservation {
    /// It has a slot now.
    Granted,
    /// It had one already.
    Held,
    /// It has none.
    Refused(CallRefusal),
}

/// Slots in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slots {
    /// Announced, no stream yet.
    pub reserved: u64,
    /// Announced, and no slot yet.
    pub waiting: u64,
    /// With a stream.
    pub active: u64,
}

/// What became of an attempt to attach a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// The leg is this pod's, and the call's first: streams that met full pods were none.
    First,
    /// The leg is this pod's; older ones are fenced.
    Next,
    /// This epoch was attached before: the token was used twice.
    Used,
    /// A newer leg exists.
    Superseded,
    /// The call is over.
    Over,
}

/// A pod's word that it is alive and carries these calls.
#[derive(Clone, Debug)]
pub struct Renewal<'a> {
    /// The agent it serves.
    pub agent: &'a AgentKey,
    /// Its name.
    pub owner: &'a str,
    /// Calls it takes at most; a leaving pod says how many it still carries.
    pub capacity: u32,
    /// Now.
    pub now: UnixMs,
    /// Believed until then.
    pub until: UnixMs,
    /// Its legs.
    pub legs: &'a [RenewedLeg],
}

/// A leg that goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenewedLeg {
    /// The call.
    pub call: CallSid,
    /// The leg.
    pub epoch: Epoch,
    /// Whether anything has happened in it: legs without progress are not reopened for ever.
    pub has_progressed: bool,
}

/// What a pod learns about a leg it renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It goes on.
    Held,
    /// Somebody asked to hang up.
    HangUpRequested,
    /// A newer leg has taken over.
    Superseded,
    /// The carrier said the call is over.
    Over,
}

/// What [`Store::end_call`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallEnd {
    /// Whether the call had not been ended before.
    pub is_first: bool,
    /// What is known of it; without a leg it never reached an agent.
    pub known: CallState,
}

/// The store. Every method may be called again with the same arguments.
pub trait Store: Send + Sync {
    /// Keeps the record unless the call is known; returns the call as it is then.
    fn create_call<'a>(&'a self, record: &'a CallRecord) -> Answer<'a, CallState>;
    /// The same for an agent that takes the call from another: as long as no leg was attached, the call is this agent's
    /// from now on. What else was known of it stays.
    fn assign_call<'a>(&'a self, record: &'a CallRecord) -> Answer<'a, CallState>;
    /// The call, if anything is known of it.
    fn load_call<'a>(&'a self, call: &'a CallSid) -> Answer<'a, Option<CallState>>;
    /// The agent's newest calls, newest first, over all pods, ended ones too.
    fn list_calls<'a>(&'a self, agent: &'a AgentKey, limit: usize) -> Answer<'a, Vec<CallState>>;
    /// Notes that something happened to the call now, once; when it happened first.
    fn note<'a>(&'a self, call: &'a CallSid, milestone: Milestone, now: UnixMs) -> Answer<'a, UnixMs>;
    /// The carrier says the call is over; also for a call that is not known (yet).
    fn end_call<'a>(&'a self, call: &'a CallSid, now: UnixMs) -> Answer<'a, CallEnd>;
    /// Asks the owner to hang up; false when the call is not known or over.
    fn request_hang_up<'a>(&'a self, call: &'a CallSid) -> Answer<'a, bool>;

    /// Reserves a slot within the limits. A call that has one keeps it. What is left when those who wait have theirs is for
    /// calls that did not wait. A call waits from being refused as full with `waits_until` to the next time it asks.
    fn reserve_slot<'a>(&'a self, request: &'a SlotRequest<'a>) -> Answer<'a, Reservation>;
    /// The call's stream started: its slot is in use until `until`, or a later renewal.
    fn claim_slot<'a>(&'a self, agent: &'a AgentKey, call: &'a CallSid, until: UnixMs) -> Answer<'a, ()>;
    /// Gives the call's slot back.
    fn release_slot<'a>(&'a self, agent: &'a AgentKey, call: &'a CallSid) -> Answer<'a, ()>;
    /// Slots of the agent over all pods.
    fn count_slots<'a>(&'a self, agent: &'a AgentKey, now: UnixMs) -> Answer<'a, Slots>;
    /// Adds to the agent's talk time of the day of `now`.
    fn add_talk_time<'a>(&'a self, agent: &'a AgentKey, now: UnixMs, time: Ms) -> Answer<'a, ()>;

    /// Makes a leg the call's newest, once.
    fn attach<'a>(&'a self, call: &'a CallSid, epoch: Epoch, owner: &'a str) -> Answer<'a, Attachment>;
    /// Keeps the slots of a pod's legs, announces its capacity; how each leg stands, in their order.
    fn renew<'a>(&'a self, renewal: &'a Renewal<'a>) -> Answer<'a, Vec<Standing>>;
    /// How a leg ended. The first word counts.
    fn record_ending<'a>(&'a self, call: &'a CallSid, epoch: Epoch, ending: &'a Ending) -> Answer<'a, ()>;
    /// Adds journal entries; an entry already there stays as it is. They count as progress of their leg.
    fn append_journal<'a>(&'a self, call: &'a CallSid, entries: &'a [Entry]) -> Answer<'a, ()>;
    /// The journal, oldest entry first.
    fn load_journal<'a>(&'a self, call: &'a CallSid) -> Answer<'a, Journal>;
}

/// The newest leg that these entries show to have got anywhere.
fn newest_progress(entries: &[Entry]) -> Option<Epoch> {
    entries.iter().filter(|entry| entry.fact.is_progress()).map(|entry| entry.epoch).max()
}

/// Where a leg stands in the light of what the store knows.
fn standing(epoch: Epoch, newest: Option<Epoch>, is_hang_up_requested: bool, is_over: bool) -> Standing {
    if is_over {
        Standing::Over
    } else if newest.is_some_and(|newest| newest > epoch) {
        Standing::Superseded
    } else if is_hang_up_requested {
        Standing::HangUpRequested
    } else {
        Standing::Held
    }
}
