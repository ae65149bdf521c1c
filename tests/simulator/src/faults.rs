//! Faults and undocumented variants of both simulated sides, as switches: in a scenario, or by the control API while it runs.
//!
//! Nothing here breaks the published protocols' grammar unless it says so: these are things that networks, carriers and
//! models do. What the protocol sheet marks UNCONFIRMED is a switch too, so that each variant can be tried. The phone's
//! switches are read when a stream, webhook or callback begins, the model's when a session does, REST's at each request.
//!
//! ```
//! use simulator::faults::{Faults, Switchboard};
//! let switches = Switchboard::default();
//! switches.set(serde_json::from_str::<Faults>(r#"{"rest": {"status": 503}}"#)?);
//! assert_eq!(switches.rest_fault("GET").map(|fault| fault.status), Some(Some(503)));
//! # Ok::<(), serde_json::Error>(())
//! ```

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::carrier::signature::StreamUrlForm;

/// All switches; everything off by default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Faults {
    /// The carrier's REST API.
    pub rest: RestFaults,
    /// The carrier's calls: streams, webhooks and callbacks.
    pub phone: PhoneFaults,
    /// The model.
    pub model: ModelFaults,
}

/// How the REST API fails.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct RestFaults {
    /// Answer this instead, e.g. 429 or 503; what was asked for is not done.
    pub status: Option<u16>,
    /// The header `Retry-After` with it.
    pub retry_after_seconds: Option<u32>,
    /// The body is a gateway's HTML page instead of an error in JSON.
    pub not_json: bool,
    /// So long until the answer, faulty or not.
    pub delay_milliseconds: u64,
    /// Do what was asked for, and close the connection without an answer.
    pub lose_answers: bool,
    /// Only requests of this method.
    pub method: Option<String>,
    /// Only so many requests; absent: until switched off.
    pub times: Option<u32>,
}

/// How the phone side behaves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct PhoneFaults {
    /// The caller's frames come in bursts this far apart.
    pub jitter_milliseconds: u32,
    /// Every so-manyth frame of the caller is missing; the timestamps show the gap.
    pub lose_every_frames: u32,
    /// Frames of the caller in one message (UNCONFIRMED: 20 ms is only observed).
    pub frames_per_message: Option<u32>,
    /// After so long the carrier neither reads nor writes, and the socket stays open.
    pub stall_after_milliseconds: Option<u64>,
    /// After so long the socket is gone: no `stop`, no close frame.
    pub cut_after_milliseconds: Option<u64>,
    /// What follows a stream that was lost (UNCONFIRMED).
    pub after_lost_stream: AfterLostStream,
    /// Whether `<Connect action>` is requested after the caller hung up (UNCONFIRMED); absent: as the scenario says.
    pub action_after_hang_up: Option<bool>,
    /// What `<Connect action>` has beside the standard parameters (UNCONFIRMED).
    pub action_parameters: BTreeMap<String, String>,
    /// Over which form of its URL the upgrade is signed (UNCONFIRMED); absent: as the scenario says.
    pub stream_url_form: Option<StreamUrlForm>,
    /// So many answers to webhooks are lost on the way; those whose URL wants retries after `rt` are asked for again, under
    /// the same idempotency token.
    pub lose_webhook_answers: u32,
    /// Each pure callback comes so many times more, under the same idempotency token.
    pub repeat_callbacks: u32,
    /// All pure callbacks of a call come at its end, the latest first.
    pub reverse_callbacks: bool,
}

/// What the carrier does when a stream's socket broke.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AfterLostStream {
    /// Request `<Connect action>`, as after a close.
    #[default]
    Action,
    /// Go on with the verb after `<Connect>`.
    NextVerb,
    /// End the call.
    HangUp,
}

/// How the model fails.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct ModelFaults {
    /// Answer the upgrade with this status instead of 101, e.g. 429 or 500.
    pub refuse_status: Option<u16>,
    /// The error's code with it, e.g. `insufficient_quota`.
    pub refuse_code: Option<String>,
    /// Accept the connection and say nothing for so long, not even 101.
    pub connect_milliseconds: u64,
    /// `session.created` comes so late.
    pub session_created_milliseconds: u64,
    /// It never comes.
    pub omit_session_created: bool,
    /// `session.updated` never comes.
    pub omit_session_updated: bool,
    /// `session.updated` comes so much later.
    pub session_updated_milliseconds: u64,
    /// The session lives for so long, as it announces: not an hour.
    pub session_limit_seconds: Option<u64>,
    /// The session expires after so long, unannounced, with the published error and code 1001.
    pub expire_after_milliseconds: Option<u64>,
    /// The connection is closed after so long.
    pub close_after_milliseconds: Option<u64>,
    /// With this code; absent: without a close frame.
    pub close_code: Option<u16>,
    /// Each reply stops after so much audio, and nothing more of it ever comes.
    pub silent_after_milliseconds: Option<u64>,
    /// Each reply has so much more audio (silence), all at once.
    pub flood_milliseconds: u64,
    /// So many replies fail with a rate limit error before a sound.
    pub failing_replies: u32,
    /// Before each reply's audio comes some for an item and a response that were never announced.
    pub unannounced_audio: bool,
    /// Events carry the names of the beta API.
    pub beta_names: bool,
    /// Responses do not repeat the metadata of their request.
    pub omit_metadata: bool,
    /// After each `session.updated` comes an error with this code, which belongs to no request.
    pub error_code: Option<String>,
}

/// The switches, shared by all that reads them; clones are the same ones.
#[derive(Clone, Debug, Default)]
pub struct Switchboard(Arc<Mutex<Faults>>);

impl Switchboard {
    /// These from the beginning.
    pub fn new(faults: Faults) -> Self {
        Self(Arc::new(Mutex::new(faults)))
    }

    /// Replaces all.
    pub fn set(&self, faults: Faults) {
        *self.lock() = faults;
    }

    /// As they are now; counted ones show what is left.
    pub fn faults(&self) -> Faults {
        self.lock().clone()
    }

    /// The fault that a REST request of this method meets; counted down.
    pub fn rest_fault(&self, method: &str) -> Option<RestFaults> {
        let mut faults = self.lock();
        let rest = &mut faults.rest;
        let is_meant = rest.method.as_ref().is_none_or(|only| only == method);
        if *rest == RestFaults::default() || !is_meant || rest.times == Some(0) {
            return None;
        }
        rest.times = rest.times.map(|left| left - 1);
        Some(rest.clone())
    }

    /// Whether the answer to this webhook gets lost; counted down.
    pub(crate) fn loses_webhook_answer(&self) -> bool {
        let mut faults = self.lock();
        let left = faults.phone.lose_webhook_answers;
        faults.phone.lose_webhook_answers = left.saturating_sub(1);
        left > 0
    }

    /// Whether this reply of the model fails; counted down.
    pub(crate) fn fails_reply(&self) -> bool {
        let mut faults = self.lock();
        let left = faults.model.failing_replies;
        faults.model.failing_replies = left.saturating_sub(1);
        left > 0
    }

    fn lock(&self) -> MutexGuard<'_, Faults> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner) // plain data stays usable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_met_as_often_as_said_and_by_its_method_only() {
        let switches = Switchboard::default();
        assert_eq!(switches.rest_fault("GET"), None);
        let rest = RestFaults {
            status: Some(429),
            times: Some(1),
            method: Some("POST".to_owned()),
            ..Default::default()
        };
        switches.set(Faults { rest, ..Faults::default() });
        assert_eq!(switches.rest_fault("GET"), None);
        assert_eq!(switches.rest_fault("POST").and_then(|fault| fault.status), Some(429));
        assert_eq!(switches.rest_fault("POST"), None);
    }

    #[test]
    fn an_unknown_switch_is_refused() {
        assert!(serde_json::from_str::<Faults>(r#"{"rest": {"statsu": 429}}"#).is_err());
    }
}
