//! The operator's metrics. Labels are enums: never a name, an id or an error's text.

use std::time::Duration;

use prometheus::{
    Encoder as _, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};

use crate::report::{Kind, Outcome};

/// Every metric of the process.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    reconciles: IntCounterVec,
    seconds: HistogramVec,
    leader: IntGauge,
}

impl Metrics {
    /// Registers them in a registry of their own.
    ///
    /// # Errors
    /// When a name is invalid or registered twice, which is our bug.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let reconciles = IntCounterVec::new(
            Opts::new("switchboard_operator_reconciles_total", "Reconciliations by kind and outcome."),
            &["kind", "outcome"],
        )?;
        let seconds = HistogramVec::new(
            HistogramOpts::new(
                "switchboard_operator_reconcile_seconds",
                "Duration of a reconciliation by kind.",
            )
            .buckets(vec![0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0]),
            &["kind"],
        )?;
        let leader =
            IntGauge::new("switchboard_operator_leader", "1 while this replica reconciles, else 0.")?;
        registry.register(Box::new(reconciles.clone()))?;
        registry.register(Box::new(seconds.clone()))?;
        registry.register(Box::new(leader.clone()))?;
        Ok(Self { registry, reconciles, seconds, leader })
    }

    /// Counts a reconciliation.
    pub fn reconciled(&self, kind: Kind, outcome: Outcome, took: Duration) {
        self.reconciles.with_label_values(&[kind.as_str(), outcome.as_str()]).inc();
        self.seconds.with_label_values(&[kind.as_str()]).observe(took.as_secs_f64());
    }

    /// Whether this replica reconciles.
    pub fn set_leader(&self, is_leader: bool) {
        self.leader.set(i64::from(is_leader));
    }

    /// The text a scrape gets.
    ///
    /// # Errors
    /// When a metric cannot be written as text, which is our bug.
    pub fn scrape(&self) -> Result<String, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}
