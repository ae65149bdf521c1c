//! `<Dial>`: another simulated person on the other end of the line (protocols: verbs, `<Dial action>`).
//!
//! Who can be dialled and what they do is part of the scenario ([`Callee`]); a number nobody has rings until the timeout.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::call::Call;
use super::ids;
use super::line::{Interrupt, Line};
use super::record::{Event, Record};
use super::twiml::Dial;
use super::webhook::Form;
use crate::caller::{Caller, Ear, Step};
use crate::violations::{Refused, Rule};
use crate::voice::mulaw::{FRAME_BYTES, SILENCE};

/// A person who can be called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Callee {
    /// E.164.
    pub number: String,
    /// How they take a call.
    #[serde(default)]
    pub answers: Answers,
    /// Milliseconds it rings before they do.
    #[serde(default = "default_ring_milliseconds")]
    pub after_milliseconds: u32,
    /// What they say and do then; at the end they hang up.
    #[serde(default)]
    pub steps: Vec<Step>,
}

const fn default_ring_milliseconds() -> u32 {
    500
}

/// How a person takes a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answers {
    /// They answer.
    #[default]
    Yes,
    /// The line is busy.
    Busy,
    /// They let it ring.
    No,
}

/// How a dialled call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    status: &'static str,
    sid: String,
    duration: Duration,
}

impl Outcome {
    /// What it adds to the action's request.
    pub(super) fn form(&self) -> Form {
        let bridged = self.status == "completed";
        let mut form = vec![
            ("DialCallStatus".to_owned(), self.status.to_owned()),
            ("DialCallSid".to_owned(), self.sid.clone()),
            ("DialBridged".to_owned(), bridged.to_string()),
        ];
        if bridged {
            form.push(("DialCallDuration".to_owned(), self.duration.as_secs().to_string()));
        }
        form
    }
}

/// Rings, connects and waits until the dialled person hangs up.
pub(super) async fn run(call: &Call, line: &mut Line, dial: &Dial) -> Result<Outcome, Interrupt> {
    let sid = ids::sid("CA");
    let outcome = |status, duration| Outcome { status, sid: sid.clone(), duration };
    if !dial.caller_id.as_ref().is_none_or(|number| may_show(call, number)) {
        call.refuse(Refused::new(Rule::DialCallerId, "neither the call's From or To nor the account's"));
        return Ok(outcome("failed", Duration::ZERO));
    }
    for number in &dial.numbers {
        call.record.note(Event::Dialled { number: number.clone() });
    }
    let settings = call.carrier.settings();
    let callees =
        dial.numbers.iter().filter_map(|number| settings.callees.iter().find(|c| c.number == *number));
    let limit = Duration::from_secs(dial.timeout.into());
    let Some(callee) = callees.min_by_key(|callee| callee.after_milliseconds) else {
        line.wait_for(sleep(limit)).await?;
        return Ok(outcome("no-answer", Duration::ZERO));
    };
    let after = Duration::from_millis(callee.after_milliseconds.into());
    line.wait_for(sleep(after.min(limit))).await?;
    match callee.answers {
        Answers::Yes if after <= limit => {}
        Answers::Busy => return Ok(outcome("busy", Duration::ZERO)),
        Answers::No | Answers::Yes => {
            line.wait_for(sleep(limit.saturating_sub(after))).await?;
            return Ok(outcome("no-answer", Duration::ZERO));
        }
    }
    let Ok(mut person) = Caller::new(callee.steps.clone(), call.carrier.registry()) else {
        return Ok(outcome("failed", Duration::ZERO)); // a scenario with impossible steps was refused when it was read
    };
    let mut ear = Ear::default();
    let mut now = 0;
    let mut theirs = vec![SILENCE; FRAME_BYTES];
    loop {
        line.next_frame().await?;
        let spoken = line.exchange(&theirs)?;
        ear.handle_frame(now, &spoken.audio);
        let tick = person.handle_tick(now, &ear);
        now += 20;
        if tick.end.is_some() {
            return Ok(outcome("completed", Duration::from_millis(now)));
        }
        theirs = tick.audio;
    }
}

/// Whether this number may be shown to who is dialled.
fn may_show(call: &Call, number: &str) -> bool {
    let Record { from, to, .. } = &*call.record;
    from == number || to == number || call.carrier.numbers().iter().any(|owned| owned.phone_number == number)
}
