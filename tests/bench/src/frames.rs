//! The session's cost of a frame, from what its own bench (`cargo bench -p call-session --bench frames`) printed.

use std::path::Path;

use anyhow::{Context as _, ensure};

use crate::figure::{Figure, Limit, Section, Unit};

/// Reads the bench's table: name, then `<reference> ns <session> ns <ratio> <limit>`.
pub(crate) fn read(path: &Path) -> anyhow::Result<Section> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let figures: Vec<Figure> = text.lines().filter_map(row).collect();
    ensure!(!figures.is_empty(), "{} is not what the session's bench prints", path.display());
    Ok(Section { title: "one frame in the session".to_owned(), figures })
}

fn row(line: &str) -> Option<Figure> {
    let mut words = line.split_whitespace().rev();
    let mut next = || words.next();
    let limit: f64 = next()?.parse().ok()?;
    let _ratio: f64 = next()?.parse().ok()?;
    let session: f64 = next().filter(|unit| *unit == "ns").and_then(|_| next())?.parse().ok()?;
    let reference: f64 = next().filter(|unit| *unit == "ns").and_then(|_| next())?.parse().ok()?;
    let name: Vec<_> = words.collect();
    let name = name.into_iter().rev().collect::<Vec<_>>().join(" ");
    let mut figure = Figure::new(name, Unit::Nanoseconds, Limit::TimesReference(limit));
    (figure.ours, figure.reference) = (vec![session], vec![reference]);
    Some(figure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_the_bench_become_figures_and_its_headings_do_not() {
        let figure =
            row("caller's 20 ms -> append                 620 ns     410 ns    0.66    1.50").unwrap();
        assert_eq!(figure.name, "caller's 20 ms -> append");
        assert_eq!(
            (figure.ours.as_slice(), figure.reference.as_slice()),
            ([410.0].as_slice(), [620.0].as_slice())
        );
        assert_eq!((figure.limit, figure.is_ok()), (Limit::TimesReference(1.5), true));
        for heading in
            ["", "path  reference  session  ratio  limit", "session: medians of 15 runs of 4000 frames"]
        {
            assert!(row(heading).is_none(), "{heading}");
        }
    }
}
