//! Simulated Twilio: numbers, calls, signed webhooks, TwiML and Media Streams, strict by the published protocols.

pub mod edge;
pub mod message;
pub mod playout;
pub mod signature;
pub mod twiml;
