//! The store of a laptop: in the process. Calls die with it, and callbacks reach only the pod that knows them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use call_session::io::Ending;
use call_session::journal::{Entry, Journal};
use call_session::{CallSid, Epoch, Ms};

use super::{
    AgentKey, Answer, Attachment, CALLER_WINDOW, CallEnd, CallRecord, CallState, Leg, Milestone, RETENTION,
    Renewal, Reservation, SlotRequest, Slots, Standing, Store, StoreError, newest_progress, standing,
};
use crate::clock::UnixMs;
use crate::metrics::CallRefusal;

/// Calls that are over and still remembered: a few megabytes of transcripts, and more than the API lists.
pub(super) const MOST_ENDED: usize = 500;

/// A store in memory.
#[derive(Default)]
pub struct MemoryStore {
    contents: Mutex<Contents>,
}

#[derive(Default)]
struct Contents {
    calls: HashMap<CallSid, Call>,
    agents: HashMap<AgentKey, Agent>,
}

#[derive(Default)]
struct Call {
    state: CallState,
    journal: BTreeMap<(Epoch, u64), Entry>,
}

#[derive(Default)]
struct Agent {
    reserved: HashMap<CallSid, UnixMs>,
    active: HashMap<CallSid, UnixMs>,
    waiting: HashMap<CallSid, UnixMs>,
    pods: HashMap<String, (UnixMs, u32)>,
    callers: HashMap<String, HashMap<CallSid, UnixMs>>,
    /// Day and talk time on it.
    talked: (u64, Ms),
}

impl MemoryStore {
    fn with<T>(&self, work: impl FnOnce(&mut Contents) -> T) -> Answer<'_, T>
    where
        T: Send + 'static,
    {
        let answer: Result<T, StoreError> = Ok(work(&mut self.lock()));
        Box::pin(std::future::ready(answer))
    }

    /// A panic of another call while it held the lock left whole values behind: each operation writes one at a time.
    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Contents {
    fn call(&mut self, call: &CallSid) -> &mut Call {
        self.calls.entry(call.clone()).or_default()
    }

    fn agent(&mut self, agent: &AgentKey) -> &mut Agent {
        self.agents.entry(agent.clone()).or_default()
    }

    /// Forgets calls that began, or ended without ever having begun, longer than [`RETENTION`] ago, and of those that are
    /// over all but the newest [`MOST_ENDED`].
    fn forget_old(&mut self, now: UnixMs) {
        let horizon = now.0.saturating_sub(UnixMs::default().plus(RETENTION).0);
        self.calls.retain(|_, call| {
            let began = call.state.record.as_ref().map(|record| record.origin);
            began.or(call.state.ended).is_none_or(|time| time.0 >= horizon)
        });
        let mut ended: Vec<_> =
            self.calls.iter().filter_map(|(sid, call)| Some((call.state.ended?, sid.clone()))).collect();
        ended.sort_unstable();
        for (_, sid) in ended.iter().rev().skip(MOST_ENDED) {
            self.calls.remove(sid);
        }
    }
}

impl Agent {
    fn expire(&mut self, now: UnixMs) {
        self.reserved.retain(|_, until| *until > now);
        self.active.retain(|_, until| *until > now);
        self.waiting.retain(|_, until| *until > now);
        self.pods.retain(|_, (until, _)| *until > now);
    }

    fn reserve(&mut self, request: &SlotRequest<'_>) -> Reservation {
        let SlotRequest { agent: _, call, now, until, waits_until, limits } = request;
        self.expire(*now);
        if self.active.contains_key(*call) || self.reserved.contains_key(*call) {
            return Reservation::Held;
        }
        let had_waited = self.waiting.remove(*call).is_some();
        let (day, talked) = self.talked;
        if day == now.day() && limits.talk_time_per_day.is_some_and(|most| talked >= most) {
            return Reservation::Refused(CallRefusal::DailyMinutes);
        }
        self.callers.retain(|_, calls| {
            calls.retain(|_, at| at.plus(CALLER_WINDOW) > *now);
            !calls.is_empty()
        });
        if let Some((caller, most)) = &limits.calls_of_caller {
            let calls = self.callers.get(caller.expose());
            let count = calls.map_or(0, HashMap::len);
            if !calls.is_some_and(|calls| calls.contains_key(*call)) && count >= *most as usize {
                return Reservation::Refused(CallRefusal::CallerRate);
            }
        }
        let used = self.reserved.len() + self.active.len();
        if limits.concurrent_calls.is_some_and(|most| used >= most as usize) {
            return Reservation::Refused(CallRefusal::Concurrency);
        }
        let announced: u64 = self.pods.values().map(|(_, capacity)| u64::from(*capacity)).sum();
        let capacity =
            if self.pods.is_empty() { limits.assumed_capacity.map(u64::from) } else { Some(announced) };
        let before_it = if had_waited { 0 } else { self.waiting.len() };
        let taken = (used + before_it) as u64;
        if limits.is_bound_by_capacity && capacity.is_some_and(|most| taken >= most) {
            if let Some(until) = waits_until {
                self.waiting.insert((*call).clone(), *until);
            }
            return Reservation::Refused(CallRefusal::Full);
        }
        if let Some((caller, _)) = &limits.calls_of_caller {
            self.callers.entry(caller.expose().clone()).or_default().insert((*call).clone(), *now);
        }
        self.reserved.insert((*call).clone(), *until);
        Reservation::Granted
    }
}

impl Store for MemoryStore {
    fn create_call<'a>(&'a self, record: &'a CallRecord) -> Answer<'a, CallState> {
        self.with(|contents| {
            contents.forget_old(record.origin);
            let state = &mut contents.call(&record.call).state;
            state.record.get_or_insert_with(|| record.clone());
            state.clone()
        })
    }

    fn assign_call<'a>(&'a self, record: &'a CallRecord) -> Answer<'a, CallState> {
        self.with(|contents| {
            contents.forget_old(record.origin);
            let state = &mut contents.call(&record.call).state;
            let known = state.record.get_or_insert_with(|| record.clone());
            if state.leg.is_none() {
                known.agent = record.agent.clone();
            }
            state.clone()
        })
    }

    fn load_call<'a>(&'a self, call: &'a CallSid) -> Answer<'a, Option<CallState>> {
        // A journal alone does not make a call known.
        let is_known = |state: &CallState| *state != CallState::default();
        self.with(|contents| contents.calls.get(call).map(|call| call.state.clone()).filter(is_known))
    }

    fn list_calls<'a>(&'a self, agent: &'a AgentKey, limit: usize) -> Answer<'a, Vec<CallState>> {
        self.with(|contents| {
            let mut calls: Vec<_> = contents
                .calls
                .values()
                .filter_map(|call| {
                    let record = call.state.record.as_ref().filter(|record| record.agent == *agent)?;
                    Some(((record.origin, record.call.clone()), call.state.clone()))
                })
                .collect();
            calls.sort_by(|(one, _), (other, _)| other.cmp(one));
            calls.into_iter().take(limit).map(|(_, state)| state).collect()
        })
    }

    fn note<'a>(&'a self, call: &'a CallSid, milestone: Milestone, now: UnixMs) -> Answer<'a, UnixMs> {
        self.with(|contents| {
            let state = &mut contents.call(call).state;
            let time = match milestone {
                Milestone::Admitted => &mut state.admitted,
                Milestone::Transferred => &mut state.transferred,
            };
            *time.get_or_insert(now)
        })
    }

    fn end_call<'a>(&'a self, call: &'a CallSid, now: UnixMs) -> Answer<'a, CallEnd> {
        self.with(|contents| {
            let state = &mut contents.call(call).state;
            let is_first = state.ended.is_none();
            state.ended.get_or_insert(now);
            CallEnd { is_first, known: state.clone() }
        })
    }

    fn request_hang_up<'a>(&'a self, call: &'a CallSid) -> Answer<'a, bool> {
        self.with(|contents| match contents.calls.get_mut(call) {
            Some(Call { state, .. }) if state.ended.is_none() && state.record.is_some() => {
                state.hang_up_requested = true;
                true
            }
            Some(_) | None => false,
        })
    }

    fn reserve_slot<'a>(&'a self, request: &'a SlotRequest<'a>) -> Answer<'a, Reservation> {
        self.with(|contents| contents.agent(request.agent).reserve(request))
    }

    fn claim_slot<'a>(&'a self, agent: &'a AgentKey, call: &'a CallSid, until: UnixMs) -> Answer<'a, ()> {
        self.with(|contents| {
            let agent = contents.agent(agent);
            agent.reserved.remove(call);
            agent.waiting.remove(call);
            agent.active.insert(call.clone(), until);
        })
    }

    fn release_slot<'a>(&'a self, agent: &'a AgentKey, call: &'a CallSid) -> Answer<'a, ()> {
        self.with(|contents| {
            let agent = contents.agent(agent);
            agent.reserved.remove(call);
            agent.waiting.remove(call);
            agent.active.remove(call);
        })
    }

    fn count_slots<'a>(&'a self, agent: &'a AgentKey, now: UnixMs) -> Answer<'a, Slots> {
        self.with(|contents| {
            let agent = contents.agent(agent);
            agent.expire(now);
            let count = |calls: &HashMap<CallSid, UnixMs>| calls.len() as u64;
            Slots {
                reserved: count(&agent.reserved),
                waiting: count(&agent.waiting),
                active: count(&agent.active),
            }
        })
    }

    fn add_talk_time<'a>(&'a self, agent: &'a AgentKey, now: UnixMs, time: Ms) -> Answer<'a, ()> {
        self.with(|contents| {
            let (day, talked) = &mut contents.agent(agent).talked;
            let before = if *day == now.day() { *talked } else { Ms::ZERO };
            (*day, *talked) = (now.day(), before + time);
        })
    }

    fn attach<'a>(&'a self, call: &'a CallSid, epoch: Epoch, owner: &'a str) -> Answer<'a, Attachment> {
        self.with(|contents| {
            let state = &mut contents.call(call).state;
            if state.ended.is_some() {
                return Attachment::Over;
            }
            match state.leg.as_ref().map(|leg| leg.epoch) {
                Some(newest) if newest > epoch => Attachment::Superseded,
                Some(newest) if newest == epoch => Attachment::Used,
                before => {
                    state.leg = Some(Leg { epoch, owner: owner.to_owned() });
                    if before.is_some() { Attachment::Next } else { Attachment::First }
                }
            }
        })
    }

    fn renew<'a>(&'a self, renewal: &'a Renewal<'a>) -> Answer<'a, Vec<Standing>> {
        let Renewal { agent, owner, capacity, now, until, legs } = renewal;
        self.with(|contents| {
            let pods = contents.agent(agent);
            pods.expire(*now);
            pods.pods.insert((*owner).to_owned(), (*until, *capacity));
            let renew_leg = |leg: &super::RenewedLeg| {
                contents.agent(agent).active.insert(leg.call.clone(), *until);
                let state = &mut contents.call(&leg.call).state;
                if leg.has_progressed {
                    state.progress = state.progress.max(Some(leg.epoch));
                }
                let newest = state.leg.as_ref().map(|leg| leg.epoch);
                standing(leg.epoch, newest, state.hang_up_requested, state.ended.is_some())
            };
            legs.iter().map(renew_leg).collect()
        })
    }

    fn record_ending<'a>(&'a self, call: &'a CallSid, epoch: Epoch, ending: &'a Ending) -> Answer<'a, ()> {
        self.with(|contents| {
            contents.call(call).state.endings.entry(epoch).or_insert_with(|| ending.clone());
        })
    }

    fn append_journal<'a>(&'a self, call: &'a CallSid, entries: &'a [Entry]) -> Answer<'a, ()> {
        self.with(|contents| {
            let call = contents.call(call);
            for entry in entries {
                call.journal.entry((entry.epoch, entry.sequence)).or_insert_with(|| entry.clone());
            }
            call.state.progress = call.state.progress.max(newest_progress(entries));
        })
    }

    fn load_journal<'a>(&'a self, call: &'a CallSid) -> Answer<'a, Journal> {
        self.with(|contents| {
            Journal(
                contents
                    .calls
                    .get(call)
                    .map_or_else(Vec::new, |call| call.journal.values().cloned().collect()),
            )
        })
    }
}
