//! The forms the carrier posts, and pure callbacks: requests whose answer says nothing (protocols: voice webhook request).

use jiff::Timestamp;
use jiff::fmt::rfc2822;

use super::Carrier;
use super::record::{Event, Record, Status};
use super::twiml::{Callback, Stream};
use super::webhook::{Form, path_of};
use crate::violations::{Refused, Rule};

/// The standard parameters of a call at this moment, with those observed in practice beside the documented ones.
pub(super) fn voice_form(carrier: &Carrier, record: &Record) -> Form {
    let mut form = Form::new();
    for (name, value) in [
        ("AccountSid", carrier.settings().account.sid.as_str()),
        ("ApiVersion", "2010-04-01"),
        ("CallSid", &record.sid),
        ("CallStatus", record.status().as_str()),
        ("Called", &record.to),
        ("Caller", &record.from),
        ("Direction", record.direction.as_str()),
        ("From", &record.from),
        ("To", &record.to),
        ("StirVerstat", "TN-Validation-Passed-A"),
    ] {
        set(&mut form, name, value);
    }
    for side in ["Called", "Caller", "From", "To"] {
        for (part, value) in [("City", ""), ("Country", "US"), ("State", ""), ("Zip", "")] {
            set(&mut form, &format!("{side}{part}"), value);
        }
    }
    form
}

/// A call's status callback.
pub(super) fn status_form(carrier: &Carrier, record: &Record, status: Status, sequence: u32) -> Form {
    let mut form = voice_form(carrier, record);
    // A call is queued for the REST API only; its first callback says that dialling began.
    set(&mut form, "CallStatus", if status == Status::Queued { "initiated" } else { status.as_str() });
    if status.is_final() {
        let seconds = record.times().seconds().unwrap_or_default();
        set(&mut form, "CallDuration", &seconds.to_string());
        set(&mut form, "Duration", &((seconds + 59) / 60).to_string()); // whole minutes, begun ones count
    }
    set(&mut form, "CallbackSource", "call-progress-events");
    set(&mut form, "SequenceNumber", &sequence.to_string());
    set(&mut form, "Timestamp", &date(Timestamp::now()));
    form
}

/// A stream's status callback.
pub(super) fn stream_form(
    carrier: &Carrier,
    record: &Record,
    stream: (&Stream, &str),
    event: &str,
    error: Option<&str>,
) -> Form {
    let (stream, sid) = stream;
    let mut form = Form::new();
    set(&mut form, "AccountSid", &carrier.settings().account.sid);
    set(&mut form, "CallSid", &record.sid);
    set(&mut form, "StreamSid", sid);
    set(&mut form, "StreamName", stream.name.as_deref().unwrap_or(sid));
    set(&mut form, "StreamEvent", event);
    if let Some(error) = error {
        set(&mut form, "StreamError", error);
    }
    set(&mut form, "Timestamp", &Timestamp::now().to_string());
    form
}

/// Sends one; a reply other than an empty 2xx is a violation.
pub(super) async fn send(carrier: &Carrier, record: &Record, callback: &Callback, form: &Form) {
    let token = super::ids::sid("IT");
    for _ in 0..=carrier.switches().faults().phone.repeat_callbacks {
        send_once(carrier, record, &token, callback, form).await;
    }
}

async fn send_once(carrier: &Carrier, record: &Record, token: &str, callback: &Callback, form: &Form) {
    let path = path_of(&callback.url);
    let result = carrier.webhooks().request_under(token, callback, form).await;
    let status = result.as_ref().ok().map(|reply| reply.status);
    record.note(Event::CallbackSent { path: path.clone(), status });
    let refused = match result {
        Ok(reply) if reply.body.trim().is_empty() => return,
        Ok(_) => Refused::new(Rule::CallbackReply, format!("{path} answered with a body")),
        Err(refused) => refused,
    };
    record.count_violation();
    carrier.violations().record(refused.rule, format!("call {}: {}", record.sid, refused.detail));
}

/// Sets a parameter, in place of an older value.
pub(super) fn set(form: &mut Form, name: &str, value: &str) {
    match form.iter_mut().find(|(known, _)| known == name) {
        Some((_, old)) => value.clone_into(old),
        None => form.push((name.to_owned(), value.to_owned())),
    }
}

/// A date as the 2010 API writes it, e.g. `Tue, 31 Aug 2010 20:36:28 +0000`.
pub(super) fn date(timestamp: Timestamp) -> String {
    let zoned = timestamp.to_zoned(jiff::tz::TimeZone::UTC);
    rfc2822::to_string(&zoned).unwrap_or_default() // only years outside 0–9999 cannot be written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_the_carrier_does() {
        let timestamp: Timestamp = "2010-08-31T20:36:08Z".parse().unwrap();
        assert_eq!(date(timestamp), "Tue, 31 Aug 2010 20:36:08 +0000");
    }
}
