//! `switchboard doctor`: looks at a cluster for what kills long calls, and says what to do about it.
//!
//! # Flow
//! [`gather`] asks the API server, Redis and the public URLs (the only part that does I/O, and it only reads); [`checks`]
//! turns the [`facts`] into findings, purely; [`report`] prints them and decides the exit code.
//!
//! # Caveats
//! It sees what whoever runs it may see, from where they run it: what cannot be asked is a finding of its own, never
//! "all is well". A Redis inside the cluster is reached from inside the cluster only.

pub mod checks;
pub mod facts;
mod gather;
mod probe;
pub mod report;
pub mod rights;

use kube::Client;

use report::Report;

/// What the doctor is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where the operator is.
    pub namespace: String,
    /// Whether public URLs and stores are tried, which are outside the API server.
    pub reach: Reach,
}

/// How far the doctor goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Asks public URLs and stores too.
    Everything,
    /// Asks the API server alone.
    Cluster,
}

/// Examines the cluster.
///
/// # Errors
/// When the API server does not answer; everything else is in the report.
pub async fn examine(client: &Client, settings: &Settings) -> Result<Report, kube::Error> {
    let facts = gather::gather(client, settings).await?;
    Ok(Report::of(checks::examine(&facts)))
}
