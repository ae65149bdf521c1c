//! The media pod: bridges phone calls (Twilio Media Streams) with a speech model.
//!
//! What happens in a call is decided by `call-session`, which does no I/O; this package owns the sockets, clocks, files
//! and counters around it. One task per call (`bridge`) carries inputs to the machine and its outputs to the peers.
//!
//! Must never: decide anything about a conversation, or let one call's fault touch another.

mod admin;
pub mod admission;
pub mod agent;
mod api;
mod bridge;
pub mod calls;
pub mod clock;
mod comfort;
pub mod config;
pub mod drain;
mod duplex;
pub mod engine;
mod leases;
mod listener;
pub mod metrics;
mod phone;
pub mod pod;
pub mod routing;
mod scribe;
pub mod secrets;
pub mod store;
mod stream;
pub mod telemetry;
mod timeline;
pub mod token;
pub mod traces;
pub mod webhook;
