//! Durations in buckets of two per cent: bounded memory however long a run is, and percentiles at its end.

use std::time::Duration;

use serde::Serialize;

/// Sub-buckets of a power of two: the relative error is below 1/64.
const STEPS: u32 = 64;
/// Nanoseconds fit into 64 bits; the first powers share the linear beginning.
const BUCKETS: usize = (64 * STEPS) as usize;

/// Counted durations.
#[derive(Clone, Debug, Default)]
pub(super) struct Histogram {
    counts: Vec<u64>,
    count: u64,
    longest: Duration,
}

/// What is told of a histogram, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Percentiles {
    /// How many were measured.
    pub count: u64,
    /// Half are below.
    pub p50: f64,
    /// Nine of ten are below.
    pub p90: f64,
    /// 99 of 100 are below.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

impl Percentiles {
    /// One of them, e.g. `told(|them| them.p99)`; none when nothing was measured, which is no zero.
    pub fn told(&self, which: impl Fn(&Self) -> f64) -> Option<f64> {
        (self.count > 0).then(|| which(self))
    }
}

impl Histogram {
    /// Counts one.
    pub(super) fn record(&mut self, duration: Duration) {
        if self.counts.is_empty() {
            self.counts = vec![0; BUCKETS]; // 32 kB, paid only by what is measured
        }
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket(nanoseconds)] += 1;
        self.count += 1;
        self.longest = self.longest.max(duration);
    }

    /// The percentiles; zeros when nothing was measured.
    pub(super) fn percentiles(&self) -> Percentiles {
        Percentiles {
            count: self.count,
            p50: self.below(0.50),
            p90: self.below(0.90),
            p99: self.below(0.99),
            max: milliseconds(self.longest),
        }
    }

    fn below(&self, share: f64) -> f64 {
        let wanted = (self.count as f64 * share).ceil() as u64;
        let mut seen = 0;
        let found = self.counts.iter().position(|count| {
            seen += count;
            seen >= wanted && seen > 0
        });
        let upper = Duration::from_nanos(found.map_or(0, upper_bound));
        milliseconds(upper.min(self.longest))
    }
}

fn bucket(nanoseconds: u64) -> usize {
    let steps = u64::from(STEPS);
    if nanoseconds < steps {
        return nanoseconds as usize;
    }
    // Above the linear beginning: the power of two, and six bits below the leading one.
    let shift = nanoseconds.ilog2() - steps.ilog2();
    ((u64::from(shift) + 1) * steps + ((nanoseconds >> shift) - steps)) as usize
}

/// The largest value of a bucket.
fn upper_bound(bucket: usize) -> u64 {
    let (steps, bucket) = (u64::from(STEPS), bucket as u64);
    if bucket < steps {
        return bucket;
    }
    let shift = bucket / steps - 1;
    ((bucket % steps + steps + 1) << shift) - 1
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_what_falls_into_it_and_is_two_per_cent_wide() {
        for value in [0, 1, 63, 64, 65, 127, 128, 1000, 999_999, 123_456_789, 60_000_000_000] {
            let upper = upper_bound(bucket(value));
            assert!(upper >= value && (upper - value) as f64 <= value as f64 / 64.0, "{value} {upper}");
            assert_eq!(bucket(upper), bucket(value));
            assert_eq!(bucket(upper + 1), bucket(value) + 1);
        }
        assert!(bucket(u64::MAX) < BUCKETS);
    }

    #[test]
    fn percentiles_are_those_of_the_values() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.percentiles(), Percentiles::default());
        assert_eq!(histogram.percentiles().told(|them| them.p99), None);
        (1..=1000).for_each(|ms| histogram.record(Duration::from_millis(ms)));
        let told = histogram.percentiles();
        assert_eq!((told.count, told.max), (1000, 1000.0));
        assert_eq!(told.told(|them| them.max), Some(1000.0));
        for (value, exact) in [(told.p50, 500.0), (told.p90, 900.0), (told.p99, 990.0)] {
            assert!((exact..exact * 1.02).contains(&value), "{value} {exact}");
        }
    }
}
