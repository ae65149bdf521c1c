//! The answers: TwiML for a stream, a sentence, a transfer, an end.

use std::time::Duration;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use call_session::Epoch;
use call_session::agent_file::{AgentFile, Carrier, Keyring, TransferTarget};
use twilio::rest::CallStatus;
use twilio::twiml::{self, Connect, Dial, Say, Stream};

use super::after::{Past, Pause, Tally};
use super::carried::{Carried, with_query};
use crate::admission::{Sentence, is_e164};
use crate::clock::UnixMs;
use crate::store::{AgentKey, CallRecord};
use crate::token::{self, Claims, KeyringError, StreamKeys};

/// Name of the `<Parameter>` that carries the stream token.
pub const TOKEN_PARAMETER: &str = "token";

/// A TwiML answer, and what it is in one word.
pub(super) struct Twiml {
    response: twiml::Response,
    pub(super) word: &'static str,
}

impl Twiml {
    /// An empty answer: nothing is left to do for a call that is over.
    pub(super) const fn nothing() -> Self {
        Self { response: twiml::Response::new(), word: "nothing" }
    }

    pub(super) fn hang_up() -> Self {
        Self { response: twiml::Response::new().hang_up(), word: "hang_up" }
    }

    /// The carrier asks there what comes next.
    pub(super) fn ask(url: String) -> Self {
        Self { response: twiml::Response::new().redirect(url), word: "another_agent" }
    }

    /// A sentence, then the call ends.
    pub(super) fn say(Sentence { text, language }: &Sentence) -> Self {
        let response = twiml::Response::new().say(Say::in_language(text, language)).hang_up();
        Self { response, word: "sentence" }
    }
}

impl IntoResponse for Twiml {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, twiml::CONTENT_TYPE)], self.response.to_xml()).into_response()
    }
}

/// Seconds between a waiting caller's questions: how long a free slot stays empty at most.
const WAIT: u32 = 3;

/// The caller waits, and the carrier asks again there.
///
/// A `<Pause>` before anything else lets the phone ring, and costs nobody anything. Whether the carrier goes on ringing
/// through a `<Redirect>` is not documented: if it answers, the caller is told that somebody is there.
pub(super) fn wait(agent: &AgentFile, url: String, status: CallStatus) -> Twiml {
    let response = match status {
        CallStatus::Queued | CallStatus::Initiated | CallStatus::Ringing => twiml::Response::new(),
        CallStatus::InProgress
        | CallStatus::Completed
        | CallStatus::Busy
        | CallStatus::Failed
        | CallStatus::NoAnswer
        | CallStatus::Canceled
        | CallStatus::Unknown => {
            let Sentence { text, language } = Sentence::ours(agent, |phrases| phrases.one_moment);
            twiml::Response::new().say(Say::in_language(&text, &language))
        }
    };
    Twiml { response: response.pause(WAIT).redirect(format!("{url}#{RETRIES}")), word: "wait" }
}

/// A stream that is to be opened for a call.
#[derive(Clone, Copy)]
pub(super) struct NextStream<'a> {
    pub(super) call: &'a CallRecord,
    /// The zero of the call's own time.
    pub(super) origin: UnixMs,
    pub(super) epoch: Epoch,
    pub(super) pause: Pause,
    pub(super) tally: Tally,
    pub(super) past: Past,
}

/// A stream to the call's agent, with a token for this leg, after a while of silence.
pub(super) fn connect(
    agent: &AgentFile,
    keyring: &Keyring,
    next: NextStream<'_>,
    now: UnixMs,
) -> Result<Twiml, KeyringError> {
    let NextStream { call, origin, epoch, pause: Pause(seconds), tally, past } = next;
    // Nobody needs to be told of the first one.
    let is_untaken = past == Past::Untaken && epoch > Epoch(0);
    let Carrier::Twilio { twilio } = &agent.carrier;
    let claims = Claims {
        account: twilio.account_sid.clone(),
        call: call.call.clone(),
        namespace: call.agent.namespace.clone(),
        agent: call.agent.name.clone(),
        epoch,
        expires: now.plus(token::LIFETIME).seconds(),
        origin,
        is_untaken,
    };
    let token = StreamKeys::new(keyring)?.mint(&claims);
    let stream =
        Stream::new(stream_url(&agent.public_url, &call.agent)).with_parameter(TOKEN_PARAMETER, token);
    let begins = now.plus(Duration::from_secs(u64::from(seconds)));
    let carried = Carried { origin: Some(origin), tally, untaken: is_untaken.then_some(begins) };
    let action = Some(action_url(&agent.public_url, &call.agent, epoch, carried));
    let response = twiml::Response::new();
    let response = if seconds > 0 { response.pause(seconds) } else { response };
    Ok(Twiml { response: response.connect(Connect { action, stream }), word: "stream" })
}

/// A call to the target's number. Its end is asked about under the leg's action.
pub(super) fn transfer(agent: &AgentFile, target: &TransferTarget, call: &CallRecord, epoch: Epoch) -> Twiml {
    // Without a caller id Twilio shows the caller's; a caller without a number is shown as the number that was called.
    let has_number = is_e164(call.from.expose());
    let caller_id = Some(call.to.expose().clone()).filter(|called| !has_number && is_e164(called));
    let action = Some(action_url(&agent.public_url, &call.agent, epoch, Carried::default()));
    let dial = Dial { caller_id, action, ..Dial::new(target.phone_number.expose().clone()) };
    Twiml { response: twiml::Response::new().dial(dial), word: "transfer" }
}

/// The public URL of an agent's media stream: what `<Stream>` names, and what the carrier signs on the upgrade.
pub fn stream_url(public_url: &str, agent: &AgentKey) -> String {
    let host_and_path = public_url.strip_prefix("https://").unwrap_or(public_url);
    format!("wss://{host_and_path}/{agent}/twilio/stream")
}

/// Asked for in the URL's fragment (protocol sheet 2.1), which is neither sent nor signed: where no connection is to be had, where
/// one breaks before its answer because the pod behind it died, or where the edge says so with a 502, the carrier tries five times
/// more; by itself it would once, and after a failed connect only. Without an answer here the call is lost, behind a Service the
/// next connection leads elsewhere, and an action asked twice is answered the same.
const RETRIES: &str = "rc=5&rp=5xx,ct,rt";

fn action_url(public_url: &str, agent: &AgentKey, epoch: Epoch, carried: Carried) -> String {
    let url = format!("{public_url}/{agent}/twilio/action/{}", epoch.0);
    format!("{}#{RETRIES}", with_query(url, carried.pairs()))
}
