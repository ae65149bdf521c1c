//! Every reason a condition may have, and every alert, is in the troubleshooting manual, and nothing else is.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

#[test]
fn every_reason_has_an_entry_in_the_manual() {
    let source = read("crds/src/conditions.rs");
    let reasons = variants(&source, "Reason");
    assert!(reasons.len() > 20, "the enum is not where it was");
    let (conditions, _) = manual();
    let documented: BTreeSet<&str> = conditions
        .lines()
        .filter_map(|line| line.strip_prefix("- `"))
        .filter_map(|line| line.split_once(':'))
        .flat_map(|(names, _)| names.split(", ").map(|name| name.trim_matches('`')))
        .collect();
    let reasons: BTreeSet<&str> = reasons.into_iter().collect();
    assert_eq!(documented, reasons, "docs/troubleshooting.md (left) and the reasons of conditions (right)");
}

#[test]
fn every_condition_has_a_chapter_in_the_manual() {
    let source = read("crds/src/conditions.rs");
    let kinds: BTreeSet<&str> = variants(&source, "ConditionType").into_iter().collect();
    let (conditions, _) = manual();
    let documented: BTreeSet<&str> = conditions
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .flat_map(|names| names.split(", "))
        .collect();
    assert_eq!(documented, kinds, "docs/troubleshooting.md (left) and the types of conditions (right)");
}

#[test]
fn every_alert_has_a_row_in_the_manual() {
    let rules = read("charts/switchboard/alerts/switchboard.yaml");
    let alerts: BTreeSet<&str> =
        rules.lines().filter_map(|line| line.trim_start().strip_prefix("- alert: ")).map(str::trim).collect();
    assert!(!alerts.is_empty(), "no alerts found");
    let (_, runbooks) = manual();
    let documented: BTreeSet<&str> = runbooks
        .lines()
        .filter_map(|line| line.strip_prefix("| [`"))
        .filter_map(|line| line.split_once("`](operations.md#"))
        .map(|(alert, rest)| {
            assert!(rest.starts_with(&format!("{})", alert.to_lowercase())), "{alert} leads elsewhere");
            alert
        })
        .collect();
    assert_eq!(documented, alerts, "docs/troubleshooting.md (left) and the alerts (right)");
}

/// The manual before and from its chapter on alerts.
fn manual() -> (&'static str, &'static str) {
    let text: &'static str = read("docs/troubleshooting.md").leak();
    text.split_once("\n## Alerts\n").expect("a chapter on alerts")
}

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The variants of a plain enum in a source file.
fn variants<'a>(source: &'a str, name: &str) -> Vec<&'a str> {
    let begin = format!("pub enum {name} {{");
    let lines = source.lines().skip_while(|line| *line != begin).skip(1).take_while(|line| *line != "}");
    lines.filter_map(|line| line.trim().strip_suffix(',')).filter(|line| !line.starts_with("//")).collect()
}
