//! Twilio's voice platform, typed: the REST client, the webhook signature, TwiML.
//!
//! Used by the operator (numbers) and by the media pods (webhooks, calls). It holds mechanism only: what to retry, when
//! and how often, and what a refusal means for a resource or a call is decided by its users.
//!
//! ```
//! use twilio::twiml::{Response, Say};
//!
//! let answer = Response::new().say(Say::new("Goodbye.")).hang_up();
//! assert!(answer.to_xml().ends_with("<Response><Say>Goodbye.</Say><Hangup /></Response>"));
//! ```

pub mod rest;
mod secret;
mod sid;
pub mod signature;
pub mod twiml;

pub use secret::Secret;
pub use sid::{AccountSid, CallSid, InvalidSid, NumberSid};
