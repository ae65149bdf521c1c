//! Figures: what was measured how often, its limit, and the table of them.

use std::fmt;

use serde::Serialize;
use serde_json::{Value, json};

/// The unit of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Unit {
    #[serde(rename = "ms")]
    Milliseconds,
    #[serde(rename = "ns")]
    Nanoseconds,
    #[serde(rename = "KiB")]
    Kibibytes,
    #[serde(rename = "MB")]
    Megabytes,
}

/// What a figure may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Limit {
    /// At most so much, in the figure's unit.
    AtMost(f64),
    /// Less than so much, in the figure's unit.
    Below(f64),
    /// At most so many times the reference, by the median of the rounds' ratios.
    TimesReference(f64),
    /// Told for comparison.
    None,
}

/// One figure over all rounds.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) unit: Unit,
    pub(crate) limit: Limit,
    /// One sample a round.
    pub(crate) ours: Vec<f64>,
    /// The reference's, in the same rounds; empty when there is none.
    pub(crate) reference: Vec<f64>,
}

impl Figure {
    pub(crate) fn new(name: impl Into<String>, unit: Unit, limit: Limit) -> Self {
        Self { name: name.into(), unit, limit, ours: Vec::new(), reference: Vec::new() }
    }

    /// Median of the rounds' ratios: what disturbs a round disturbs both sides of it.
    fn ratio(&self) -> Option<f64> {
        let pairs = self.ours.iter().zip(&self.reference);
        median(pairs.map(|(ours, reference)| ours / reference).collect())
    }

    /// Whether the limit holds; a figure with a limit that was never measured does not hold it.
    pub(crate) fn is_ok(&self) -> bool {
        let ours = median(self.ours.clone());
        match self.limit {
            Limit::AtMost(limit) => ours.is_some_and(|ours| ours <= limit),
            Limit::Below(limit) => ours.is_some_and(|ours| ours < limit),
            Limit::TimesReference(limit) => self.ratio().is_some_and(|ratio| ratio <= limit),
            Limit::None => true,
        }
    }

    /// For programs.
    pub(crate) fn to_json(&self) -> Value {
        let side = |samples: &[f64]| {
            let Some(median) = median(samples.to_vec()) else { return Value::Null };
            json!({"median": median, "samples": samples})
        };
        let limit = match self.limit {
            Limit::AtMost(limit) => json!({"atMost": limit}),
            Limit::Below(limit) => json!({"below": limit}),
            Limit::TimesReference(limit) => json!({"timesReference": limit}),
            Limit::None => Value::Null,
        };
        json!({
            "figure": self.name, "unit": self.unit, "switchboard": side(&self.ours), "reference": side(&self.reference),
            "ratio": self.ratio(), "limit": limit, "ok": self.is_ok(),
        })
    }
}

/// Figures under one heading.
#[derive(Clone, Debug)]
pub(crate) struct Section {
    pub(crate) title: String,
    pub(crate) figures: Vec<Figure>,
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<50} {:>12} {:>17} {:>12} {:>6} {:>12}  ok",
            self.title, "switchboard", "lowest … highest", "reference", "ratio", "limit"
        )?;
        self.figures.iter().try_for_each(|figure| writeln!(f, "{figure}"))
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dash = || "–".to_owned();
        let value = |samples: &[f64]| {
            median(samples.to_vec()).map_or_else(dash, |median| format!("{} {}", number(median), self.unit))
        };
        let (lowest, highest) = self
            .ours
            .iter()
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), next| (low.min(*next), high.max(*next)));
        let spread = match self.ours.len() {
            0 | 1 => dash(),
            _ => format!("{} … {}", number(lowest), number(highest)),
        };
        let limit = match self.limit {
            Limit::AtMost(limit) => format!("{} {}", number(limit), self.unit),
            Limit::Below(limit) => format!("< {} {}", number(limit), self.unit),
            Limit::TimesReference(limit) => format!("{limit:.2} x"),
            Limit::None => dash(),
        };
        let verdict = match self.limit {
            Limit::None => "–",
            _ if self.is_ok() => "yes",
            _ => "NO",
        };
        write!(
            f,
            "{:<50} {:>12} {spread:>17} {:>12} {:>6} {limit:>12}  {verdict}",
            self.name,
            value(&self.ours),
            value(&self.reference),
            self.ratio().map_or_else(dash, |ratio| format!("{ratio:.2}")),
        )
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Milliseconds => "ms",
            Self::Nanoseconds => "ns",
            Self::Kibibytes => "KiB",
            Self::Megabytes => "MB",
        })
    }
}

/// Three digits that mean something.
fn number(value: f64) -> String {
    match value.abs() {
        magnitude if magnitude < 1.0 => format!("{value:.3}"),
        magnitude if magnitude < 10.0 => format!("{value:.2}"),
        magnitude if magnitude < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// The middle one; the lower of two.
fn median(mut samples: Vec<f64>) -> Option<f64> {
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len().saturating_sub(1) / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(limit: Limit, ours: &[f64], reference: &[f64]) -> Figure {
        let (ours, reference) = (ours.to_vec(), reference.to_vec());
        Figure { name: "a figure".to_owned(), unit: Unit::Milliseconds, limit, ours, reference }
    }

    #[test]
    fn the_median_is_held_against_the_limit_and_one_bad_round_is_not() {
        assert!(figure(Limit::AtMost(2.0), &[1.0, 9.0, 2.0], &[]).is_ok());
        assert!(!figure(Limit::AtMost(2.0), &[1.0, 9.0, 2.1], &[]).is_ok());
        assert!(!figure(Limit::Below(2.0), &[2.0], &[]).is_ok());
    }

    #[test]
    fn a_ratio_is_taken_within_each_round() {
        // The machine was slow in the second round, for both sides.
        let slow = figure(Limit::TimesReference(1.2), &[1.0, 3.0, 1.1], &[1.0, 3.0, 1.0]);
        assert_eq!((slow.ratio(), slow.is_ok()), (Some(1.0), true));
        assert!(!figure(Limit::TimesReference(1.2), &[1.3], &[1.0]).is_ok());
    }

    #[test]
    fn what_was_not_measured_holds_no_limit() {
        assert!(!figure(Limit::AtMost(2.0), &[], &[]).is_ok());
        assert!(!figure(Limit::TimesReference(2.0), &[1.0], &[]).is_ok());
        assert!(figure(Limit::None, &[], &[]).is_ok());
    }

    #[test]
    fn a_row_says_what_a_person_needs() {
        let row = figure(Limit::AtMost(0.6), &[0.5, 0.7, 0.61], &[0.4, 0.4, 0.4]).to_string();
        let words: Vec<_> = row.split_whitespace().collect();
        let expected =
            ["a", "figure", "0.610", "ms", "0.500", "…", "0.700", "0.400", "ms", "1.52", "0.600", "ms", "NO"];
        assert_eq!(words, expected);
    }
}
