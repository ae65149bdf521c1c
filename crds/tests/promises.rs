//! Every promise in docs/promises.md names tests that exist, and every trial about the operator is named by a promise.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Suites on a real cluster that are about the operator; the others are about calls and the tests' own harness.
const SUITES: [&str; 11] = [
    "agents",
    "doctor",
    "gateways",
    "leadership",
    "model_based",
    "namespaces",
    "numbers",
    "refusals",
    "robustness",
    "scaling",
    "two_nodes",
];

#[test]
fn every_promise_names_tests_that_exist_and_every_trial_is_named() {
    let page = fs::read_to_string(repository().join("docs/promises.md")).expect("the page of promises");
    let rows =
        page.lines().filter_map(|line| line.strip_suffix(" |")?.rsplit_once("| ")).map(|(_, tests)| tests);
    let named: BTreeSet<&str> = rows
        .flat_map(|tests| tests.split(", "))
        .filter_map(|test| test.strip_prefix('`')?.strip_suffix('`'))
        .collect();
    assert!(named.len() > 100, "{} tests named", named.len());

    let sources: Vec<String> =
        ["crds", "media-pod", "operator", "tests/tests", "twilio"].into_iter().flat_map(sources).collect();
    let functions: BTreeSet<&str> = sources
        .iter()
        .flat_map(|source| source.lines())
        .filter_map(|line| {
            line.trim_start().trim_start_matches("async ").strip_prefix("fn ")?.split_once('(')
        })
        .map(|(name, _)| name)
        .collect();
    let trials: BTreeSet<&str> = sources
        .iter()
        .flat_map(|source| source.split('"'))
        .filter(|text| text.split_once("::").is_some_and(|(suite, name)| is_word(suite) && is_word(name)))
        .collect();
    let unknown: Vec<&&str> =
        named.iter().filter(|test| !functions.contains(**test) && !trials.contains(**test)).collect();
    assert!(unknown.is_empty(), "docs/promises.md names tests that do not exist: {unknown:#?}");

    let is_about_the_operator =
        |trial: &&&str| SUITES.iter().any(|suite| trial.split("::").next() == Some(suite));
    let unnamed: Vec<&&str> =
        trials.iter().filter(is_about_the_operator).filter(|trial| !named.contains(**trial)).collect();
    assert!(unnamed.is_empty(), "docs/promises.md lacks what these trials show: {unnamed:#?}");
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The texts of all Rust files below a folder.
fn sources(folder: &str) -> Vec<String> {
    let mut folders = vec![repository().join(folder)];
    let mut texts = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the repository") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                texts.push(fs::read_to_string(&path).expect("a file of the repository"));
            }
        }
    }
    texts
}
