//! The operator's metrics. Labels are enums: never a name, an id or an error's text.

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Encoder as _, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use crate::census::{self, Census};
use crate::phone_number::diff::Plan;
use crate::report::{Kind, Outcome};
use crate::scaler::Decision;

/// Every metric of the process.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    reconciles: IntCounterVec,
    seconds: HistogramVec,
    leader: IntGauge,
    webhooks: IntCounterVec,
    conditions: IntGaugeVec,
    decisions: IntCounterVec,
}

impl Metrics {
    /// Registers them in a registry of their own.
    ///
    /// # Errors
    /// When a name is invalid or registered twice, which is our bug.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let r = &registry;
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
        let webhooks = IntCounterVec::new(
            Opts::new(
                "switchboard_operator_webhook_checks_total",
                "Looks at a number's webhooks at the carrier, by what was decided.",
            ),
            &["plan"],
        )?;
        let conditions = IntGaugeVec::new(
            Opts::new(
                "switchboard_operator_conditions",
                "Objects by what their conditions say; only the leader counts them.",
            ),
            &["kind", "condition", "status"],
        )?;
        let decisions = IntCounterVec::new(
            Opts::new(
                "switchboard_operator_scaler_decisions_total",
                "Looks of the built-in scaler at an agent, by what it decided.",
            ),
            &["decision"],
        )?;
        // Every series exists from the first scrape on, so that the first error is an increase.
        for kind in Kind::ALL {
            seconds.with_label_values(&[kind.as_str()]);
            for outcome in Outcome::ALL {
                reconciles.with_label_values(&[kind.as_str(), outcome.as_str()]);
            }
        }
        for decision in Decision::LABELS {
            decisions.with_label_values(&[decision]);
        }
        for plan in Plan::ALL {
            webhooks.with_label_values(&[plan.as_str()]);
        }
        let metrics = Self {
            registry: registry.clone(),
            reconciles: added(r, reconciles)?,
            seconds: added(r, seconds)?,
            leader: added(r, leader)?,
            webhooks: added(r, webhooks)?,
            conditions: added(r, conditions)?,
            decisions: added(r, decisions)?,
        };
        metrics.set_conditions(&census::empty());
        Ok(metrics)
    }

    /// Counts a reconciliation.
    pub fn reconciled(&self, kind: Kind, outcome: Outcome, took: Duration) {
        self.reconciles.with_label_values(&[kind.as_str(), outcome.as_str()]).inc();
        self.seconds.with_label_values(&[kind.as_str()]).observe(took.as_secs_f64());
    }

    /// Counts what was decided about a number's webhooks.
    pub fn checked_webhooks(&self, plan: Plan) {
        self.webhooks.with_label_values(&[plan.as_str()]).inc();
    }

    /// How many objects say what in their conditions.
    pub fn set_conditions(&self, census: &Census) {
        for ((kind, condition, status), count) in census {
            self.conditions.with_label_values(&[*kind, condition.as_str(), *status]).set(*count);
        }
    }

    /// Counts a decision about a number of pods.
    pub fn decided(&self, decision: Decision) {
        self.decisions.with_label_values(&[decision.as_str()]).inc();
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

fn added<C: Collector + Clone + 'static>(registry: &Registry, metric: C) -> Result<C, prometheus::Error> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_table_in_the_operations_guide_lists_exactly_what_a_scrape_shows() {
        let rows = include_str!("../../docs/operations.md").lines().filter_map(|line| {
            let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
            let [name, kind, labels, _] = cells.as_slice() else { return None };
            let name = name.strip_prefix('`')?.strip_suffix('`')?;
            let labels = labels.replace(['`', ' '], "");
            Some((name.to_owned(), (*kind).to_owned(), labels))
        });
        let documented: BTreeSet<_> =
            rows.filter(|(name, ..)| name.starts_with("switchboard_operator_")).collect();
        let metrics = Metrics::new().unwrap();
        let scraped: BTreeSet<_> = metrics
            .registry
            .gather()
            .iter()
            .map(|family| {
                let labels: Vec<_> = family.get_metric()[0].get_label().iter().map(|l| l.name()).collect();
                let kind = format!("{:?}", family.get_field_type()).to_lowercase();
                (family.name().to_owned(), kind, labels.join(","))
            })
            .collect();
        assert_eq!(scraped, documented);
    }
}
