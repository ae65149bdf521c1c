//! How a metric is made: created, registered, and for a family of counters every series at zero.

use std::marker::PhantomData;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use super::labels::Label;

/// A family of counters, one per value of a label.
pub struct CountersBy<L> {
    counters: Vec<IntCounter>,
    label: PhantomData<L>,
}

impl<L: Label> CountersBy<L> {
    /// Adds one.
    pub fn inc(&self, value: L) {
        self.add(value, 1);
    }

    /// Adds `count`.
    pub fn add(&self, value: L, count: u64) {
        let position = L::ALL.iter().position(|candidate| *candidate == value);
        if let Some(counter) = position.and_then(|position| self.counters.get(position)) {
            counter.inc_by(count);
        }
    }

    /// The current count.
    pub fn count(&self, value: L) -> u64 {
        let position = L::ALL.iter().position(|candidate| *candidate == value);
        position.and_then(|position| self.counters.get(position)).map_or(0, IntCounter::get)
    }
}

/// Upper bounds in seconds. A turn feels prompt below 0.8 s and broken above 3 s: most buckets lie there; the long ones
/// are for tools and stalled providers.
const SECONDS: &[f64] = &[0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.2, 2.0, 3.0, 5.0, 10.0, 30.0];

fn added<C: Collector + Clone + 'static>(registry: &Registry, metric: C) -> Result<C, prometheus::Error> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

pub(super) fn gauge(registry: &Registry, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
    added(registry, IntGauge::new(name, help)?)
}

/// A counter whose count something else keeps; it is asked at every scrape.
struct Kept {
    name: &'static str,
    help: &'static str,
    count: fn() -> u64,
    described: IntCounter,
}

impl Collector for Kept {
    fn desc(&self) -> Vec<&Desc> {
        self.described.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let counted = IntCounter::new(self.name, self.help).inspect(|counter| counter.inc_by((self.count)()));
        counted.map(|counter| counter.collect()).unwrap_or_default() // the name was good when it was described
    }
}

/// Registers a counter that `count` keeps.
pub(super) fn kept(
    registry: &Registry,
    name: &'static str,
    help: &'static str,
    count: fn() -> u64,
) -> Result<(), prometheus::Error> {
    let described = IntCounter::new(name, help)?;
    registry.register(Box::new(Kept { name, help, count, described }))
}

pub(super) fn counter(registry: &Registry, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
    added(registry, IntCounter::new(name, help)?)
}

pub(super) fn seconds(registry: &Registry, name: &str, help: &str) -> Result<Histogram, prometheus::Error> {
    let options = HistogramOpts::new(name, help).buckets(SECONDS.to_vec());
    added(registry, Histogram::with_opts(options)?)
}

/// Upper bounds in bytes, up to the bounds of the queues. A frame of audio is some 300, a second of it 11 kB.
const BYTES: &[f64] = &[1024.0, 4096.0, 16384.0, 65536.0, 262_144.0, 1_048_576.0, 2_097_152.0];

pub(super) fn bytes(registry: &Registry, name: &str, help: &str) -> Result<Histogram, prometheus::Error> {
    let options = HistogramOpts::new(name, help).buckets(BYTES.to_vec());
    added(registry, Histogram::with_opts(options)?)
}

pub(super) fn counters<L: Label>(
    registry: &Registry,
    name: &str,
    help: &str,
    label: &str,
) -> Result<CountersBy<L>, prometheus::Error> {
    let family = added(registry, IntCounterVec::new(Opts::new(name, help), &[label])?)?;
    let counters = L::ALL.iter().map(|value| family.with_label_values(&[value.as_str()])).collect();
    Ok(CountersBy { counters, label: PhantomData })
}
