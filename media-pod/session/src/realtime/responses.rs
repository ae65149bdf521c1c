//! The one active response, the one `response.create` in flight, and what waits behind them.
//!
//! The server begins responses by itself (`create_response`), so ours race with them. A request carries a tag which
//! the server echoes in the response's metadata; a server that never echoes is believed to have answered the request
//! until it says otherwise.
//!
//! ```text
//!            Speak, tool round ready                       response.created (ours)
//!   queue ─────────────────────────▶ request (in flight) ─────────────────────────▶ active
//!     ▲                                │                                              │
//!     └────── refused: busy ───────────┘            response.done ◀───────────────────┘
//!
//!   active:  Running ── caller speaks, server interrupts ──▶ Cancelling ── Interrupt ──▶ Discarded
//!               └────────────── Interrupt (we cancel) ───────────────────────────────────▶ ▲
//! ```

use std::collections::VecDeque;

use super::tool_rounds::Round;
use crate::io::Speech;
use crate::{Ms, ReplyId};

/// Speeches waiting; the call machine asks for one or two at a time.
pub(super) const MAX_QUEUE: usize = 32;

/// A `response.create` without answer for this long: the server has lost it, and with it the turn.
pub(super) const REQUEST_TIMEOUT: Ms = Ms(15_000);

/// A response of which nothing was heard for this long. The call, which knows what its caller hears, has given it up
/// before, unless what came of it still plays.
pub(super) const RESPONSE_STALL: Ms = Ms(30_000);

/// A response that makes no sound gives a sign of life to the call this often.
const SIGN_OF_LIFE: Ms = Ms(1_000);

/// A request is refused at most this often in a row; 250 ms doubling makes about 8 s.
const MAX_REFUSALS: u32 = 6;

/// The first pause after a refusal that names nothing to wait for.
const FIRST_PAUSE: Ms = Ms(250);

#[derive(Debug, Default)]
pub(super) struct Responses {
    pub(super) active: Option<Active>,
    pub(super) request: Option<Request>,
    pub(super) queue: VecDeque<Speech>,
    requests: u64,
    /// The last request believed to be answered by a response that is over by now: its refusal may still be coming.
    settled: Option<Request>,
    echo: Echo,
    refusals: u32,
    not_before: Ms,
}

/// The response that runs.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) reply: ReplyId,
    pub(super) phase: Phase,
    /// The request it is believed to answer, while the server may still refuse that one.
    claimed: Option<Request>,
    heard_from: Ms,
    /// When the call last learned that it goes on.
    told: Ms,
}

/// How far an active response is on its way to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It speaks.
    Running,
    /// The server cancels it; what came so far may be played.
    Cancelling,
    /// The caller interrupted it: nothing of it is delivered any more.
    Discarded,
}

/// A `response.create` in flight.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) tag: String,
    pub(super) wanted: Wanted,
    /// The tool rounds it lets the model answer.
    pub(super) answers: Vec<Round>,
    sent: Ms,
    fate: Fate,
}

/// Why a response was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Speech(Speech),
    /// To go on after tool calls.
    Continuation,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Wanted,
    /// The caller interrupted before it began.
    Unwanted,
}

/// Whether the server echoes our tag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Echo {
    #[default]
    Unknown,
    Seen,
}

/// Whose response began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    Ours,
    /// Ours, and the caller interrupted before it began: it must be cancelled.
    OursUnwanted,
    /// Ours or the server's own; not to be told apart.
    Unclear,
    Server,
}

/// A request that was refused.
#[derive(Debug)]
pub(super) enum Refused {
    /// To be asked again.
    Again(Request),
    /// Too often in a row.
    TooOften,
}

impl Responses {
    /// Whether nothing may be asked for now.
    pub(super) fn is_busy(&self, now: Ms) -> bool {
        self.active.is_some() || self.request.is_some() || now < self.not_before
    }

    /// Notes that a request goes out; its tag.
    pub(super) fn begin_request(&mut self, now: Ms, wanted: Wanted, answers: Vec<Round>) -> &Request {
        self.requests += 1;
        let tag = format!("response_{}", self.requests);
        self.request.insert(Request { tag, wanted, answers, sent: now, fate: Fate::Wanted })
    }

    /// A response began. One that still ran is returned: the server never said that it was over.
    pub(super) fn begin_response(
        &mut self,
        now: Ms,
        reply: ReplyId,
        tag: Option<&str>,
    ) -> (Owner, Option<Active>) {
        self.refusals = 0;
        let (owner, claimed) = match (&self.request, tag) {
            (Some(request), Some(tag)) if request.tag == tag => {
                self.echo = Echo::Seen;
                let owner = if request.fate == Fate::Wanted { Owner::Ours } else { Owner::OursUnwanted };
                self.request = None;
                (owner, None)
            }
            (Some(_), None) if self.echo == Echo::Unknown => (Owner::Unclear, self.request.take()),
            (Some(_) | None, Some(_) | None) => (Owner::Server, None),
        };
        let phase = if owner == Owner::OursUnwanted { Phase::Discarded } else { Phase::Running };
        let replaced = self.active.replace(Active { reply, phase, claimed, heard_from: now, told: now });
        (owner, replaced)
    }

    /// The active response, if it is this one.
    pub(super) fn active(&mut self, reply: &str) -> Option<&mut Active> {
        self.active.as_mut().filter(|active| active.reply.as_str() == reply)
    }

    /// A response is over.
    pub(super) fn end_response(&mut self, now: Ms, reply: &str) -> Option<Active> {
        let mut ended = self.active.take_if(|active| active.reply.as_str() == reply)?;
        self.settled = ended.claimed.take().or_else(|| self.settled.take());
        if let Some(request) = &mut self.request {
            request.sent = now; // it waited for this one
        }
        Some(ended)
    }

    /// The request an error is about: the one it names, or the only one there is.
    fn take_request(&mut self, event_id: Option<&str>) -> Option<Request> {
        let is_meant = |request: &mut Request| event_id.is_none_or(|id| id == request.tag);
        if let Some(in_flight) = self.request.take_if(is_meant) {
            return Some(in_flight);
        }
        let claimed = self.active.as_mut().and_then(|active| active.claimed.take_if(is_meant));
        let is_named = |request: &mut Request| event_id == Some(request.tag.as_str());
        let mut refused = claimed.or_else(|| self.settled.take_if(is_named))?;
        // The response it was taken for is the server's own, and has seen what was acknowledged when it began.
        refused.answers.retain(|round| !round.is_acknowledged());
        Some(refused)
    }

    /// The server acknowledged a tool output; the request that lets the model answer it may be in flight.
    pub(super) fn acknowledge(&mut self, call: &str) {
        let rounds = self.request.iter_mut().flat_map(|request| &mut request.answers);
        rounds.for_each(|round| round.acknowledge(call));
    }

    /// A reply that is not ours began: it answers what the server had already acknowledged. Our request, still in
    /// flight, will be refused and must not be repeated for that.
    pub(super) fn answered_by_server(&mut self) {
        if let Some(request) = &mut self.request {
            request.answers.retain(|round| !round.is_acknowledged());
        }
    }

    /// The server refused a request for now. With a response active its end is waited for, otherwise some time.
    pub(super) fn refuse_for_now(&mut self, now: Ms, event_id: Option<&str>) -> Option<Refused> {
        let request = self.take_request(event_id)?;
        self.refusals += 1;
        if self.refusals > MAX_REFUSALS {
            return Some(Refused::TooOften);
        }
        if self.active.is_none() {
            self.not_before = now + Ms(FIRST_PAUSE.0 << (self.refusals - 1));
        }
        Some(Refused::Again(request))
    }

    /// The server refused a request for good.
    pub(super) fn refuse(&mut self, event_id: &str) {
        self.take_request(Some(event_id));
    }

    /// Puts a speech at the end of the queue; false when the queue is full. One open-ended reply answers for all.
    pub(super) fn enqueue(&mut self, speech: Speech) -> bool {
        if speech == Speech::Reply && self.queue.contains(&speech) {
            return true;
        }
        let has_room = self.queue.len() < MAX_QUEUE;
        if has_room {
            self.queue.push_back(speech);
        }
        has_room
    }

    /// Puts back what a refused request wanted, unless the caller has interrupted it; its tool rounds.
    pub(super) fn requeue(&mut self, request: Request) -> Vec<Round> {
        let Request { tag: _, wanted, answers, sent: _, fate } = request;
        match (wanted, fate) {
            (Wanted::Speech(speech), Fate::Wanted) => self.queue.push_front(speech),
            (Wanted::Speech(_) | Wanted::Continuation, Fate::Wanted | Fate::Unwanted) => {}
        }
        answers
    }

    /// The caller interrupted: what was asked for and has not begun is not wanted any more.
    pub(super) fn abandon_request(&mut self) {
        if let Some(request) = &mut self.request {
            request.fate = Fate::Unwanted;
        }
    }

    /// When the server will have been silent for too long.
    pub(super) fn timeout(&self) -> Option<Ms> {
        match (&self.active, &self.request) {
            (Some(active), _) => Some(active.heard_from + RESPONSE_STALL),
            (None, Some(request)) => Some(request.sent + REQUEST_TIMEOUT),
            (None, None) => None,
        }
    }

    /// The end of a pause after a refusal.
    pub(super) fn pause_end(&self, now: Ms) -> Option<Ms> {
        (now < self.not_before).then_some(self.not_before)
    }
}

impl Active {
    /// The server sent something of it that the call is told in any case.
    pub(super) const fn hear(&mut self, now: Ms) {
        self.heard_from = now;
        self.told = now;
    }

    /// The server sent something of it that is nothing to the call but a sign of life; whether one is due.
    pub(super) fn hear_working(&mut self, now: Ms) -> bool {
        self.heard_from = now;
        let is_due = self.phase == Phase::Running && now >= self.told + SIGN_OF_LIFE;
        if is_due {
            self.told = now;
        }
        is_due
    }
}
