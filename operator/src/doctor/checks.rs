//! What is wrong with a cluster, from what was found in it: pure, one function per check.
//!
//! Every check says something: that all is well, what is not and what to do, or that it could not look.

mod edge;
mod installation;
mod nodes;
mod pods;
#[cfg(test)]
mod tests;

use std::time::Duration;

use super::facts::{Facts, Found};
use super::report::{Check, Finding, Severity};

/// Makes every check.
pub fn examine(facts: &Facts) -> Vec<Finding> {
    [
        installation::api_versions(facts),
        installation::definitions(facts),
        installation::rights(facts),
        installation::operator(facts),
        installation::resources(facts),
        pods::metrics(facts),
        pods::store(facts),
        pods::grace_period(facts),
        pods::budgets(facts),
        edge::ingresses(facts),
        edge::public_urls(facts),
        nodes::scaling(facts),
        nodes::clocks(facts),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The findings of one check; without any, all is well.
struct Findings {
    check: Check,
    found: Vec<Finding>,
}

impl Findings {
    const fn of(check: Check) -> Self {
        Self { check, found: Vec::new() }
    }

    fn add(
        &mut self,
        severity: Severity,
        subject: &str,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.found.push(Finding::new(self.check, severity, subject, message, remedy));
    }

    /// What was found, or a finding that it could not be asked, with its consequence.
    fn known<'a, T>(&mut self, subject: &str, found: &'a Found<T>) -> Option<&'a T> {
        match found {
            Ok(found) => Some(found),
            Err(why) => {
                self.add(
                    Severity::Unknown,
                    subject,
                    format!("not known: {why}"),
                    "run the doctor with the right to read this, from where it can be reached",
                );
                None
            }
        }
    }

    /// The findings, or the sentence that there is none.
    fn or_ok(self, sentence: impl Into<String>) -> Vec<Finding> {
        if self.found.is_empty() { vec![Finding::ok(self.check, sentence)] } else { self.found }
    }
}

/// `1 h 30 min`, `270 s`: as people write it.
fn readable(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 3600, seconds % 3600 / 60, seconds % 60) {
        (0, _, _) if seconds < 600 => format!("{seconds} s"),
        (0, minutes, 0) => format!("{minutes} min"),
        (hours, 0, 0) => format!("{hours} h"),
        (hours, minutes, 0) => format!("{hours} h {minutes} min"),
        _ => format!("{seconds} s"),
    }
}
