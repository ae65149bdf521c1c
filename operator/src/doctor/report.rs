//! Findings, and how they are told: as text for people, as JSON for machines, and as an exit code.

use std::fmt;

use serde::Serialize;

/// Everything that was looked at. The names are those of `docs/operations.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// The API server is of a supported version and serves what is needed.
    ApiVersions,
    /// The definitions are installed, established and current.
    Definitions,
    /// The operator may do what it must.
    Rights,
    /// The operator runs, and one replica leads.
    Operator,
    /// Gateways, agents and numbers are ready.
    Resources,
    /// The metric that autoscaling follows is served.
    Metrics,
    /// The store is shared, answers, and does not throw calls away.
    Store,
    /// Pods are given the time that their calls need.
    GracePeriod,
    /// The way in does not cut long, quiet connections.
    Edge,
    /// What ends nodes waits for calls.
    NodeScaling,
    /// Pods may be evicted, one at a time.
    Budgets,
    /// Clocks agree.
    Clocks,
    /// The carrier can reach the agents.
    PublicUrl,
}

impl Check {
    /// Its name in output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ApiVersions => "api-versions",
            Self::Definitions => "definitions",
            Self::Rights => "rights",
            Self::Operator => "operator",
            Self::Resources => "resources",
            Self::Metrics => "metrics",
            Self::Store => "store",
            Self::GracePeriod => "grace-period",
            Self::Edge => "edge",
            Self::NodeScaling => "node-scaling",
            Self::Budgets => "budgets",
            Self::Clocks => "clocks",
            Self::PublicUrl => "public-url",
        }
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// It could not be looked at.
    Unknown,
    /// Calls may be cut short on a bad day.
    Warning,
    /// Calls fail, or will.
    Failure,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Unknown => "unknown",
            Self::Warning => "warning",
            Self::Failure => "failure",
        })
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: Check,
    /// How bad it is.
    pub severity: Severity,
    /// What it is about, such as `moving/sales`; empty for the whole cluster.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subject: String,
    /// What was found.
    pub message: String,
    /// What to do; empty where there is nothing to do.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remedy: String,
}

impl Finding {
    /// As it should be.
    pub fn ok(check: Check, message: impl Into<String>) -> Self {
        Self::new(check, Severity::Ok, "", message, "")
    }

    /// Anything else.
    pub fn new(
        check: Check,
        severity: Severity,
        subject: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let (subject, message, remedy) = (subject.into(), message.into(), remedy.into());
        Self { check, severity, subject, message, remedy }
    }
}

/// All findings, in the order of the checks, the worst of each first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The findings.
    pub findings: Vec<Finding>,
}

/// Every check found what it should.
pub const EXIT_OK: u8 = 0;
/// The worst finding is a warning, or something could not be looked at.
pub const EXIT_WARNINGS: u8 = 1;
/// At least one failure.
pub const EXIT_FAILURES: u8 = 2;
/// `EX_UNAVAILABLE`: the API server did not answer, so nothing was looked at.
pub const EXIT_UNAVAILABLE: u8 = 69;

impl Report {
    /// Sorts them.
    pub fn of(mut findings: Vec<Finding>) -> Self {
        findings.sort_by(|a, b| (a.check, b.severity, &a.subject).cmp(&(b.check, a.severity, &b.subject)));
        Self { findings }
    }

    /// The worst finding's.
    pub fn exit_code(&self) -> u8 {
        match self.findings.iter().map(|finding| finding.severity).max() {
            None | Some(Severity::Ok) => EXIT_OK,
            Some(Severity::Unknown | Severity::Warning) => EXIT_WARNINGS,
            Some(Severity::Failure) => EXIT_FAILURES,
        }
    }

    fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Finding { check, severity, subject, message, remedy } in &self.findings {
            let colon = if subject.is_empty() { "" } else { ": " };
            writeln!(f, "{severity:<8} {:<13} {subject}{colon}{message}", check.name())?;
            if !remedy.is_empty() {
                writeln!(f, "{:<8} {:<13} -> {remedy}", "", "")?;
            }
        }
        let [failures, warnings, unknown] =
            [Severity::Failure, Severity::Warning, Severity::Unknown].map(|severity| self.count(severity));
        write!(f, "{failures} failures, {warnings} warnings, {unknown} unknown")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(check: Check, severity: Severity, subject: &str) -> Finding {
        Finding::new(check, severity, subject, "found", "do")
    }

    #[test]
    fn the_worst_finding_decides_the_exit_code() {
        for (severities, code) in [
            (vec![], 0),
            (vec![Severity::Ok], 0),
            (vec![Severity::Ok, Severity::Unknown], 1),
            (vec![Severity::Warning, Severity::Ok], 1),
            (vec![Severity::Warning, Severity::Failure, Severity::Ok], 2),
        ] {
            let findings = severities.iter().map(|severity| finding(Check::Store, *severity, "")).collect();
            assert_eq!(Report::of(findings).exit_code(), code, "{severities:?}");
        }
    }

    #[test]
    fn findings_are_in_the_order_of_the_checks_and_the_worst_first() {
        let report = Report::of(vec![
            finding(Check::PublicUrl, Severity::Failure, "b"),
            finding(Check::Store, Severity::Ok, "a"),
            finding(Check::Store, Severity::Warning, "c"),
            Finding::ok(Check::Rights, "may"),
        ]);
        assert_eq!(
            report.to_string(),
            "ok       rights        may\n\
             warning  store         c: found\n\
             \u{20}                      -> do\n\
             ok       store         a: found\n\
             \u{20}                      -> do\n\
             failure  public-url    b: found\n\
             \u{20}                      -> do\n\
             1 failures, 1 warnings, 0 unknown"
        );
    }

    #[test]
    fn machines_get_the_same_names_as_people() {
        let report = Report::of(vec![finding(Check::GracePeriod, Severity::Failure, "moving/sales")]);
        assert_eq!(
            serde_json::to_value(&report).unwrap(),
            serde_json::json!({"findings": [{
                "check": "grace-period", "severity": "failure", "subject": "moving/sales",
                "message": "found", "remedy": "do",
            }]})
        );
        assert_eq!(serde_json::json!(Check::GracePeriod), Check::GracePeriod.name());
    }
}
