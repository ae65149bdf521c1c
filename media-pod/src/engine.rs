//! Speech engines: what turns the caller's audio into the agent's.
pub mod simulated;
