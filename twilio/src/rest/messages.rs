//! Text messages.

use serde::Deserialize;

use super::{Client, Error, Form};

/// A message to send. No `Debug`: it holds numbers and words.
#[derive(Clone)]
pub struct CreateMessage {
    /// E.164.
    pub to: String,
    /// A number of the account.
    pub from: String,
    /// At most 1600 characters.
    pub body: String,
}

/// A message as Twilio accepted it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Message {
    /// `SM…`
    pub sid: String,
    /// `queued`, `sending`, `sent` and so on.
    pub status: String,
}

impl Client {
    /// Sends a message. There is no idempotency key: sent twice, it arrives twice.
    pub async fn create_message(&self, message: &CreateMessage) -> Result<Message, Error> {
        let CreateMessage { to, from, body } = message;
        let form =
            Form::default().set("To", to.as_str()).set("From", from.as_str()).set("Body", body.as_str());
        self.ask(self.post("Messages.json", &form)).await
    }
}
