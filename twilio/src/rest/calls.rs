//! Calls: placing one, changing what it does, ending it.

use reqwest::Method;
use serde::Deserialize;

use super::{Client, Code, Error, Form};
use crate::CallSid;

/// A call as Twilio tells it. The numbers it connects are not read: nobody here needs them back.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Call {
    /// Its identifier.
    pub sid: CallSid,
    /// Where it stands.
    pub status: CallStatus,
    /// `inbound`, `outbound-api` or `outbound-dial`.
    #[serde(default)]
    pub direction: Option<String>,
    /// What machine detection said.
    #[serde(default)]
    pub answered_by: Option<String>,
    /// Seconds, once it is over; Twilio writes it as text.
    #[serde(default)]
    pub duration: Option<String>,
}

/// `CallStatus`, in REST answers and in webhooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CallStatus {
    /// Waiting for its turn to be dialled.
    Queued,
    /// Being dialled.
    Initiated,
    /// Ringing; an inbound call's first webhook says so.
    Ringing,
    /// Answered.
    InProgress,
    /// Over after having been answered.
    Completed,
    /// Over: busy.
    Busy,
    /// Over: could not be connected.
    Failed,
    /// Over: nobody answered.
    NoAnswer,
    /// Over: called off before it was answered.
    Canceled,
    /// A status newer than this build.
    #[serde(other)]
    Unknown,
}

impl CallStatus {
    /// Reads the webhook parameter.
    pub fn parse(text: &str) -> Self {
        match text {
            "queued" => Self::Queued,
            "initiated" => Self::Initiated,
            "ringing" => Self::Ringing,
            "in-progress" => Self::InProgress,
            "completed" => Self::Completed,
            "busy" => Self::Busy,
            "failed" => Self::Failed,
            "no-answer" => Self::NoAnswer,
            "canceled" => Self::Canceled,
            _ => Self::Unknown,
        }
    }

    /// Whether the call is over for good.
    pub const fn is_final(self) -> bool {
        match self {
            Self::Completed | Self::Busy | Self::Failed | Self::NoAnswer | Self::Canceled => true,
            Self::Queued | Self::Initiated | Self::Ringing | Self::InProgress | Self::Unknown => false,
        }
    }
}

/// What a call does once it is answered.
#[derive(Clone)]
pub enum CallInstructions {
    /// Ask this URL (by POST).
    Url(String),
    /// Do this: TwiML, at most 4000 characters.
    Twiml(String),
}

impl CallInstructions {
    fn set(&self, form: Form) -> Form {
        match self {
            Self::Url(url) => form.set("Url", url.as_str()).set("Method", "POST"),
            Self::Twiml(xml) => form.set("Twiml", xml.as_str()),
        }
    }
}

/// A call to place. No `Debug`: it holds numbers.
#[derive(Clone)]
pub struct CreateCall {
    /// E.164.
    pub to: String,
    /// A number of the account, or a verified one.
    pub from: String,
    /// What it does.
    pub instructions: CallInstructions,
    /// Told of every state, if set.
    pub status_callback: Option<String>,
    /// How long it rings; Twilio's default is 60 s.
    pub timeout_seconds: Option<u32>,
}

/// How a hang-up went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HangUp {
    /// The call ends now.
    Ended,
    /// It was over already.
    AlreadyOver,
}

impl Client {
    /// Places a call. There is no idempotency key: after an unclear end, look before placing it again.
    pub async fn create_call(&self, call: &CreateCall) -> Result<Call, Error> {
        let CreateCall { to, from, instructions, status_callback, timeout_seconds } = call;
        let mut form = instructions.set(Form::default().set("To", to.as_str()).set("From", from.as_str()));
        if let Some(url) = status_callback {
            form = form.set("StatusCallback", url.as_str());
            for event in ["initiated", "ringing", "answered", "completed"] {
                form = form.set("StatusCallbackEvent", event);
            }
        }
        form = form.set_some("Timeout", timeout_seconds.map(|seconds| seconds.to_string()).as_deref());
        self.ask(self.post("Calls.json", &form)).await
    }

    /// One call.
    pub async fn fetch_call(&self, sid: &CallSid) -> Result<Call, Error> {
        self.ask(self.request(Method::GET, &self.path(&format!("Calls/{sid}.json")))).await
    }

    /// Replaces what a live call is doing; its media stream ends.
    pub async fn redirect_call(&self, sid: &CallSid, instructions: &CallInstructions) -> Result<Call, Error> {
        self.ask(self.post(&format!("Calls/{sid}.json"), &instructions.set(Form::default()))).await
    }

    /// Ends a call in whatever state it is.
    pub async fn hang_up(&self, sid: &CallSid) -> Result<HangUp, Error> {
        let form = Form::default().set("Status", "completed");
        match self.send(self.post(&format!("Calls/{sid}.json"), &form)).await {
            Ok(_) => Ok(HangUp::Ended),
            Err(Error::NotFound { .. }) => Ok(HangUp::AlreadyOver),
            Err(error) if error.code() == Some(Code::CALL_NOT_IN_STATE) => Ok(HangUp::AlreadyOver),
            Err(error) => Err(error),
        }
    }
}
