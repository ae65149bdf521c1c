//! The operator: turns VoiceGateway, VoiceAgent and PhoneNumber into running media pods and webhooks at the carrier.
//!
//! Every reconciler is the same five steps: dereference (client) → validate (pure) → build or diff (pure) → apply
//! (client) → status (pure, then one patch). It assumes nothing about why it runs, and what can wait for a person or
//! for another object is a condition, not an error.
//!
//! [`config`] is read once; [`context`] is what reconcilers share; [`report`] is the only place that counts, logs and
//! tells errors; [`render`] prints an agent file for a laptop from the same pure code; [`check`] looks whether an
//! installation can do its work, and [`doctor`] for what kills long calls.

pub mod applied;
pub mod apply;
pub mod cache;
pub mod census;
pub mod check;
pub mod config;
pub mod context;
pub mod doctor;
pub mod finding;
pub mod foreign;
pub mod http;
pub mod leader;
pub mod looks;
pub mod metrics;
pub mod phone_number;
pub mod references;
pub mod render;
pub mod report;
pub mod rollouts;
pub mod run;
pub mod scaler;
pub mod steward;
pub mod telemetry;
#[cfg(test)]
mod testing;
pub mod voice_agent;
pub mod voice_gateway;
