//! The states of a call, as enums with data; every transition is one method here, and nothing else assigns a state.
//!
//! Five small machines run beside each other, because they change for different reasons:
//! [`Phase`] (is the call going on), [`Link`] (is there a model), [`Floor`] (who speaks), [`Opening`] (was the caller
//! greeted), [`Patience`] (was the silent caller asked). `docs/session.md` shows them together.

use crate::io::{Ending, Ignored, ModelLoss};
use crate::{Ms, Redacted, ReplyId, ToolCallId};

/// Whether the call goes on.
///
/// ```text
/// Open ──part──► Parting ──end──► Ended
///  │ ▲              │                ▲
///  │ └────stay──────┘ (interrupted)  │
///  └──────────────end────────────────┘
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The conversation.
    Open,
    /// The call ends as soon as what was said is heard.
    Parting(Parting),
    /// Over; nothing follows.
    Ended,
}

/// An end that waits for its words to be heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parting {
    /// How the call will end.
    pub(crate) ending: Ending,
    /// The tool call that asked for it, still without its output; none when the machine itself ends the call.
    pub(crate) asked_by: Option<Asked>,
}

/// A tool call that is answered by the machine itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Which call.
    pub(crate) call: ToolCallId,
    /// The reply that made it.
    pub(crate) reply: ReplyId,
    /// The tool.
    pub(crate) name: String,
    /// JSON text.
    pub(crate) arguments: Redacted<String>,
    /// The connection that waits for its output.
    pub(crate) connection: u32,
    /// When it came.
    pub(crate) at: Ms,
}

impl Phase {
    /// `Open` → `Parting`. False when the call is already about to end.
    pub(crate) fn part(&mut self, parting: Parting) -> bool {
        let is_open = *self == Self::Open;
        if is_open {
            *self = Self::Parting(parting);
        }
        is_open
    }

    /// `Parting` → `Open`, only where a tool call asked for the end: its words were not heard.
    pub(crate) fn stay(&mut self) -> Option<Asked> {
        let Self::Parting(Parting { asked_by, .. }) = self else { return None };
        let asked = asked_by.take()?;
        *self = Self::Open;
        Some(asked)
    }

    /// Any → `Ended`. False when it ended before.
    pub(crate) fn end(&mut self) -> bool {
        !matches!(std::mem::replace(self, Self::Ended), Self::Ended)
    }
}

/// The way to the model.
///
/// ```text
/// Connecting ──ready──► Ready
///   ▲     │               │
///   │     └─────lose──────┤ ◄──replace (its successor is ready)
///   └──retry── BackingOff ◄┘──lose, nothing left──► Down
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// Asked for; `Ready` or `Lost` follows.
    Connecting(Attempt),
    /// The next attempt waits for its time.
    BackingOff(Attempt),
    /// Up.
    Ready {
        /// The attempt that succeeded.
        attempt: Attempt,
        /// Since when.
        since: Ms,
        /// Whether it will last.
        lease: Lease,
    },
    /// No engine is left.
    Down,
}

/// Which engine, and how often it failed in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    /// Index into the plan's engines.
    pub(crate) engine: usize,
    /// Failures of this engine since it last proved itself.
    pub(crate) failures: u32,
}

/// Whether a connection will last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lease {
    /// As far as is known.
    Running,
    /// The provider will end it before long; what will take its place.
    Expiring(Successor),
}

/// The connection that takes an expiring one's place: opened beside it, so that the call is never without a model.
///
/// ```text
/// Wanted ──prepare──► Connecting ──ready──► Ready ──replace──► (in use)
///   ▲                   │  │                  │
///   └────────lose───────┘  └─lose, rejected   │
///   └────────lose──────────────┼──────────────┘
///                              ▼
///                           Refused
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Successor {
    /// The next attempt is due, or waits for its time.
    Wanted {
        /// In a row.
        failures: u32,
    },
    /// Asked for; `Ready` or `Lost` follows.
    Connecting {
        /// In a row.
        failures: u32,
    },
    /// Up, and waits for a pause.
    Ready,
    /// Trying again does not help: the expiring connection is used to its end.
    Refused,
}

/// Failures in a row after which the next engine is tried.
const MAX_FAILURES: u32 = 4;

/// A connection that lived this long has proved itself: its loss starts a new count. Less would let a model that
/// connects and fails at once be tried forever.
const PROVEN: Ms = Ms::from_secs(10);

impl Link {
    /// For errors.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Connecting(_) => "connecting",
            Self::BackingOff(_) => "backing off",
            Self::Ready { .. } => "ready",
            Self::Down => "down",
        }
    }

    /// Whether the model listens.
    pub(crate) const fn is_ready(&self) -> bool {
        matches!(self, Self::Ready { .. })
    }

    /// `Connecting` → `Ready`.
    pub(crate) fn ready(&mut self, now: Ms) -> Result<(), Ignored> {
        let Self::Connecting(attempt) = *self else {
            return Err(Ignored::Unexpected { input: "ready", state: self.name() });
        };
        *self = Self::Ready { attempt, since: now, lease: Lease::Running };
        Ok(())
    }

    /// The provider will end this connection: a successor is wanted. Saying so again changes nothing.
    pub(crate) fn expire(&mut self) {
        if let Self::Ready { lease, .. } = self
            && *lease == Lease::Running
        {
            *lease = Lease::Expiring(Successor::Wanted { failures: 0 });
        }
    }

    /// Whether the connection will be replaced.
    pub(crate) const fn is_expiring(&self) -> bool {
        matches!(self, Self::Ready { lease: Lease::Expiring(_), .. })
    }

    /// Whether the connection can be replaced at once.
    pub(crate) const fn has_successor(&self) -> bool {
        matches!(self, Self::Ready { lease: Lease::Expiring(Successor::Ready), .. })
    }

    /// Successor `Wanted` → `Connecting`, on the same engine; which.
    pub(crate) fn prepare(&mut self) -> Option<usize> {
        let Self::Ready { attempt, lease: Lease::Expiring(successor), .. } = self else { return None };
        let Successor::Wanted { failures } = *successor else { return None };
        *successor = Successor::Connecting { failures };
        Some(attempt.engine)
    }

    /// Successor `Connecting` → `Ready`.
    pub(crate) fn successor_ready(&mut self) -> Result<(), Ignored> {
        match self {
            Self::Ready { lease: Lease::Expiring(successor @ Successor::Connecting { .. }), .. } => {
                *successor = Successor::Ready;
                Ok(())
            }
            _ => Err(Ignored::Unexpected { input: "successor ready", state: self.name() }),
        }
    }

    /// Successor `Connecting` or `Ready` → `Wanted`, or → `Refused`; failures in a row, if another attempt may help.
    pub(crate) fn lose_successor(&mut self, reason: ModelLoss) -> Result<Option<u32>, Ignored> {
        let (next, failures) = match self {
            Self::Ready { lease: Lease::Expiring(successor), .. } => match *successor {
                Successor::Connecting { failures } => (successor, failures + 1),
                Successor::Ready => (successor, 1),
                Successor::Wanted { .. } | Successor::Refused => {
                    return Err(Ignored::Unexpected { input: "successor lost", state: self.name() });
                }
            },
            _ => return Err(Ignored::Unexpected { input: "successor lost", state: self.name() }),
        };
        if reason == ModelLoss::Rejected {
            *next = Successor::Refused;
            return Ok(None);
        }
        *next = Successor::Wanted { failures };
        Ok(Some(failures))
    }

    /// `Ready` → `Ready` on the successor, which has yet to prove itself.
    pub(crate) const fn replace(&mut self, now: Ms) {
        if let Self::Ready { attempt, .. } = *self {
            let attempt = Attempt { failures: 0, ..attempt };
            *self = Self::Ready { attempt, since: now, lease: Lease::Running };
        }
    }

    /// `Connecting` or `Ready` → `BackingOff` on the same engine, or on the next one, or → `Down`.
    pub(crate) fn lose(
        &mut self,
        now: Ms,
        reason: ModelLoss,
        counts: u32,
        engines: usize,
    ) -> Result<(), Ignored> {
        let mut attempt = match *self {
            Self::Connecting(attempt) => attempt,
            Self::Ready { attempt, since, .. } if now.since(since) < PROVEN => attempt,
            Self::Ready { attempt, .. } => Attempt { failures: 0, ..attempt },
            Self::BackingOff(_) | Self::Down => {
                return Err(Ignored::Unexpected { input: "lost", state: self.name() });
            }
        };
        attempt.failures += counts;
        if reason == ModelLoss::Rejected || attempt.failures >= MAX_FAILURES {
            attempt = Attempt { engine: attempt.engine + 1, failures: 0 };
        }
        *self = if attempt.engine < engines { Self::BackingOff(attempt) } else { Self::Down };
        Ok(())
    }

    /// `BackingOff` → `Connecting`; which engine.
    pub(crate) fn retry(&mut self) -> Option<usize> {
        let Self::BackingOff(attempt) = *self else { return None };
        *self = Self::Connecting(attempt);
        Some(attempt.engine)
    }
}

/// Who is expected to speak. What the agent is saying is in the replies and the playback ledger, not here.
///
/// ```text
///          take                 yield_to_model
/// Open ───────────► Caller ───────────────────► Awaiting ──answered, open──► Open
///   ▲                 │                            │
///   └──────open───────┘ (noise, connection lost)   └──take──► Caller
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Floor {
    /// Nobody in particular.
    Open,
    /// The caller is speaking.
    Caller(Claim),
    /// The model owes an answer.
    Awaiting {
        /// When the caller stopped; none when something else made the model answer.
        since: Option<Ms>,
    },
}

/// Whether the caller's speech counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// It is a turn.
    Turn,
    /// Over the agent's words and so far too short to count.
    Unconfirmed,
}

impl Floor {
    /// The caller begins to speak.
    pub(crate) fn take(&mut self, claim: Claim) -> Result<(), Ignored> {
        if let Self::Caller(_) = self {
            return Err(Ignored::Unexpected { input: "speech started", state: "the caller is speaking" });
        }
        *self = Self::Caller(claim);
        Ok(())
    }

    /// The caller's speech lasted long enough. False when there is none to confirm.
    pub(crate) fn confirm(&mut self) -> bool {
        let is_claimed = *self == Self::Caller(Claim::Unconfirmed);
        if is_claimed {
            *self = Self::Caller(Claim::Turn);
        }
        is_claimed
    }

    /// The caller stops: a turn awaits its answer, noise leaves the floor as if it had not been.
    pub(crate) fn release(&mut self, now: Ms) -> Result<Claim, Ignored> {
        let Self::Caller(claim) = *self else {
            return Err(Ignored::Unexpected { input: "speech stopped", state: "the caller is not speaking" });
        };
        *self = match claim {
            Claim::Turn => Self::Awaiting { since: Some(now) },
            Claim::Unconfirmed => Self::Open,
        };
        Ok(claim)
    }

    /// The model was asked to speak; a speaking caller keeps the floor.
    pub(crate) fn await_reply(&mut self) {
        if *self == Self::Open {
            *self = Self::Awaiting { since: None };
        }
    }

    /// The agent's answer goes out; when the caller had stopped, if this answers a turn.
    pub(crate) fn answered(&mut self) -> Option<Ms> {
        let Self::Awaiting { since } = *self else { return None };
        *self = Self::Open;
        since
    }

    /// Nobody is heard or expected any more.
    pub(crate) fn open(&mut self) {
        *self = Self::Open;
    }
}

/// The greeting.
///
/// ```text
/// Due ──ask──► Asked ──begin──► Saying ──over──► Over
///  ▲             │                │
///  └───again─────┴────────────────┘ (connection lost before a sound of it went out)
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    /// To be said as soon as the model is ready.
    Due,
    /// The model was asked to say it.
    Asked,
    /// The model says it.
    Saying {
        /// Its reply.
        reply: ReplyId,
        /// Whether a sound of it went out.
        is_audible: bool,
    },
    /// Said, given up, or not wanted.
    Over,
}

impl Opening {
    /// `Due` → `Asked`.
    pub(crate) fn ask(&mut self) -> bool {
        let is_due = *self == Self::Due;
        if is_due {
            *self = Self::Asked;
        }
        is_due
    }

    /// `Asked` → `Saying`: the first reply after asking is it.
    pub(crate) fn begin(&mut self, reply: &ReplyId) {
        if *self == Self::Asked {
            *self = Self::Saying { reply: reply.clone(), is_audible: false };
        }
    }

    /// A sound of a reply went out.
    pub(crate) fn sound(&mut self, of: &ReplyId) {
        if let Self::Saying { reply, is_audible } = self
            && reply == of
        {
            *is_audible = true;
        }
    }

    /// Whether this reply is the greeting and no sound of it went out.
    pub(crate) fn is_unheard(&self, of: &ReplyId) -> bool {
        matches!(self, Self::Saying { reply, is_audible: false } if reply == of)
    }

    /// Whether it is to be said and no sound of it went out.
    pub(crate) const fn is_pending(&self) -> bool {
        matches!(self, Self::Due | Self::Asked | Self::Saying { is_audible: false, .. })
    }

    /// Back to `Due`, if nothing of it went out.
    pub(crate) fn again(&mut self) {
        if self.is_pending() {
            *self = Self::Due;
        }
    }

    /// → `Over`; whether anything of it was heard.
    pub(crate) fn over(&mut self) -> bool {
        matches!(std::mem::replace(self, Self::Over), Self::Saying { is_audible: true, .. })
    }

    /// Whether it is still to be heard, wholly or in part.
    pub(crate) fn is_going_on(&self) -> bool {
        *self != Self::Over
    }
}

/// How long the agent bears silence.
///
/// ```text
/// Fresh ──exhaust──► Asked ──exhaust──► (the call ends)
///   ▲                  │
///   └─────renew────────┘ (the caller spoke or pressed a key)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// The caller was not asked since last heard.
    Fresh,
    /// The caller was asked whether they are there.
    Asked,
}

impl Patience {
    /// The caller gave a sign of life.
    pub(crate) fn renew(&mut self) {
        *self = Self::Fresh;
    }

    /// It was silent for too long: what it was before.
    pub(crate) fn exhaust(&mut self) -> Self {
        std::mem::replace(self, Self::Asked)
    }
}

/// Whether this pod keeps the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stay {
    /// Yes.
    Here,
    /// Until the next pause between utterances.
    Leaving,
}
