//! Fuzz targets for everything that peers and people write: what must hold whatever the bytes are.
//!
//! A target takes bytes and panics when something does not hold; it does no I/O and asks no clock, so that each finding
//! is one file. A plain `cargo test` replays the committed `corpus/<target>/*`; a case that once failed stays there.

mod agent_file;
mod call;
mod realtime;
mod stream_token;
mod twilio_frame;
mod webhook_form;

/// Something that reads bytes from outside.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Also its corpus directory.
    pub name: &'static str,
    /// Panics when something does not hold.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "agent_file", run: agent_file::run },
    Target { name: "call", run: call::run },
    Target { name: "realtime", run: realtime::run },
    Target { name: "stream_token", run: stream_token::run },
    Target { name: "twilio_frame", run: twilio_frame::run },
    Target { name: "webhook_form", run: webhook_form::run },
];

/// The target of this name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().find(|target| target.name == name).copied()
}
