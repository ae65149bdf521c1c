//! Whether a new call is taken, and what its caller hears if not.
//!
//! Slots are reserved over all pods in the store, before the carrier opens the stream; they become calls when it starts
//! and expire by themselves. Without the store the pod counts only its own calls: a caller is better served by one pod
//! too full than by nobody.

use std::time::Duration;

use call_session::agent_file::{AgentFile, Limits, Overflow};
use call_session::plan::Phrases;
use call_session::{Ms, Redacted};

use crate::clock::UnixMs;
use crate::metrics::{CallRefusal, Metrics};
use crate::store::{CallRecord, Reservation, SlotLimits, SlotRequest, Store};
use crate::token;

/// A slot waits for its stream as long as the token that opens it is good.
pub const RESERVATION: Duration = token::LIFETIME;

/// A caller who waits asks again at least this often: three seconds of silence, a sentence, and a slow line.
const WAITING: Duration = Duration::from_secs(12);

/// Whether a call is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It has a slot.
    Admitted,
    /// It has none yet, and asks again in a moment.
    Waits,
    /// It gets a sentence.
    Refused(CallRefusal),
}

/// What decides about calls.
#[derive(Clone, Copy)]
pub struct Admission<'a> {
    /// The agent whose number was called.
    pub agent: &'a AgentFile,
    /// Where slots are.
    pub store: &'a dyn Store,
    /// What this pod carries, and where failures are counted.
    pub metrics: &'a Metrics,
}

impl Admission<'_> {
    /// Decides about a new call and reserves its slot. A call that has a slot keeps it.
    pub async fn admit(&self, call: &CallRecord, now: UnixMs) -> Verdict {
        let is_own = self.is_own(call);
        if is_own && self.agent.suspended {
            return Verdict::Refused(CallRefusal::Suspended);
        }
        // The limits of another agent of the number are not in this one's file; its pods announced their capacity.
        let limits = if is_own { self.own_limits(&call.from) } else { bound_by_capacity(None) };
        let may_wait = self.may_wait(call, now);
        let waits_until = may_wait.then(|| now.plus(WAITING));
        match self.reserve(call, limits, now, waits_until).await {
            Some(Reservation::Granted | Reservation::Held) => Verdict::Admitted,
            Some(Reservation::Refused(CallRefusal::Full | CallRefusal::Concurrency)) if may_wait => {
                Verdict::Waits
            }
            Some(Reservation::Refused(refusal)) => Verdict::Refused(refusal),
            None => self.admit_alone(call, now),
        }
    }

    /// Decides about a new call without the store: by what this pod carries. Who waits asks again, and most likely another
    /// pod.
    pub fn admit_alone(&self, call: &CallRecord, now: UnixMs) -> Verdict {
        let has_room = self.metrics.active_calls.get() < i64::from(self.agent.max_calls_per_pod);
        match self.is_own(call) {
            true if self.agent.suspended => Verdict::Refused(CallRefusal::Suspended),
            true if !has_room && self.may_wait(call, now) => Verdict::Waits,
            true if !has_room => Verdict::Refused(CallRefusal::Full),
            true | false => Verdict::Admitted,
        }
    }

    fn may_wait(&self, call: &CallRecord, now: UnixMs) -> bool {
        now.since(call.origin) < Ms::from_secs(u64::from(self.agent.overflow_wait_seconds))
    }

    /// Keeps a slot for a call that goes on: it was admitted before, so nothing bounds it now.
    pub async fn readmit(&self, call: &CallRecord, now: UnixMs) {
        self.reserve(call, SlotLimits::default(), now, None).await;
    }

    async fn reserve(
        &self,
        call: &CallRecord,
        limits: SlotLimits,
        now: UnixMs,
        waits_until: Option<UnixMs>,
    ) -> Option<Reservation> {
        let until = now.plus(RESERVATION);
        let request = SlotRequest { agent: &call.agent, call: &call.call, now, until, waits_until, limits };
        match self.store.reserve_slot(&request).await {
            Ok(reservation) => Some(reservation),
            Err(error) => {
                self.metrics.store_failures.inc();
                tracing::warn!(%error, "a slot could not be reserved; this pod's own calls decide");
                None
            }
        }
    }

    fn own_limits(&self, caller: &Redacted<String>) -> SlotLimits {
        let Limits {
            max_call_seconds: _,
            silence_seconds: _,
            max_concurrent_calls,
            max_calls_per_caller_per_hour,
            max_minutes_per_day,
        } = &self.agent.limits;
        // Everybody who withholds the number would share one allowance.
        let has_number = is_e164(caller.expose());
        SlotLimits {
            concurrent_calls: *max_concurrent_calls,
            calls_of_caller: max_calls_per_caller_per_hour
                .filter(|_| has_number)
                .map(|most| (caller.clone(), most)),
            talk_time_per_day: max_minutes_per_day.map(|minutes| Ms::from_secs(u64::from(minutes) * 60)),
            ..bound_by_capacity(Some(self.agent.max_calls_per_pod))
        }
    }

    fn is_own(&self, call: &CallRecord) -> bool {
        call.agent.name == self.agent.name && call.agent.namespace == self.agent.namespace
    }
}

fn bound_by_capacity(assumed_capacity: Option<u32>) -> SlotLimits {
    SlotLimits { assumed_capacity, is_bound_by_capacity: true, ..SlotLimits::default() }
}

/// `+` and up to 15 digits. Other values of `From` are names, SIP addresses, or words for a withheld number.
pub fn is_e164(number: &str) -> bool {
    number.strip_prefix('+').is_some_and(|digits| {
        (2..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// A sentence in the carrier's voice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sentence {
    /// The words.
    pub text: String,
    /// BCP 47 tag.
    pub language: String,
}

impl Sentence {
    /// Words the agent's owner wrote, in the agent's language.
    pub fn of(agent: &AgentFile, text: impl Into<String>) -> Self {
        Self { text: text.into(), language: agent.persona.language.clone() }
    }

    /// One of our own sentences, in the agent's language where we speak it.
    pub fn ours(agent: &AgentFile, choose: impl FnOnce(Phrases) -> String) -> Self {
        let phrases = Phrases::of(&agent.persona.language);
        let language = phrases.language.clone();
        Self { text: choose(phrases), language }
    }
}

/// What a caller hears who is not taken.
pub fn sentence_for(refusal: CallRefusal, agent: &AgentFile) -> Sentence {
    match refusal {
        CallRefusal::Suspended => Sentence::ours(agent, |phrases| phrases.not_in_service),
        CallRefusal::Attempts => Sentence::ours(agent, |phrases| phrases.apology),
        CallRefusal::Full
        | CallRefusal::Concurrency
        | CallRefusal::CallerRate
        | CallRefusal::DailyMinutes => {
            match &agent.overflow {
                Overflow::Message { message } => Sentence::of(agent, message.text.clone()),
                // Nobody wrote one: what callers hear of an agent that says nothing about overflow.
                Overflow::Agent { .. } | Overflow::Forward { .. } => {
                    Sentence::ours(agent, |phrases| phrases.all_busy)
                }
            }
        }
    }
}
