//! `switchboard-sim test` as its users run it: the shipped example passes, a wrong expectation fails and says why.

#![expect(clippy::unwrap_used, reason = "a test's helpers may fail it")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use e2e::{binary, installation::repository};

/// A file that is gone with its test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("agent-tests-{}-{name}", std::process::id())))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn run(file: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary("switchboard-sim").unwrap());
    command.arg("test").arg(file).args(arguments).output().unwrap()
}

fn example() -> PathBuf {
    repository().join("tests/simulator/scenarios/agent-tests.yaml")
}

/// Runs a file of this content.
fn run_text(name: &str, text: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    let file = Scratch::new(name);
    std::fs::write(&file.0, text).unwrap();
    let output = run(&file.0, arguments);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn the_shipped_example_passes_and_its_report_says_so() {
    let report = Scratch::new("passing.xml");
    let output = run(&example(), &["--junit", report.0.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.ends_with("3 cases, 0 failed\n"), "{said}");
    let xml = std::fs::read_to_string(&report.0).unwrap();
    let document = roxmltree::Document::parse(&xml).unwrap();
    let suite = document.descendants().find(|node| node.has_tag_name("testsuite")).unwrap();
    let figure = |name: &str| suite.attribute(name).unwrap();
    assert_eq!((figure("name"), figure("tests"), figure("failures")), ("Example Movers", "3", "0"));
}

#[test]
fn each_kind_of_expectation_fails_with_what_was_expected_and_heard() {
    let text = r#"
patience: 10s
cases:
- name: words
  steps: [{agent: {contains: pizza}}]
- name: latency
  steps: [{agent: {contains: "Example Movers", within: 1ms}}]
- name: unwanted
  steps: [{agent: {contains: "Example Movers", not: movers}}]
- name: tool
  steps: [{tool: {name: end_call, arguments: {id: 1}, patience: 1s}}]
- name: transfer
  steps: [{transfer: dispatch}]
- name: end
  steps: [{agent: Example Movers}, hangUp, {end: agent_hung_up}]
"#;
    let report = Scratch::new("failing.xml");
    let junit = report.0.to_str().unwrap().to_owned();
    let (code, said, errors) = run_text("failing.yaml", text, &["--jobs", "6", "--junit", &junit]);
    assert_eq!(code, Some(1), "{said}{errors}");
    assert!(said.ends_with("6 cases, 6 failed\n"), "{said}");
    let xml = std::fs::read_to_string(&report.0).unwrap();
    let document = roxmltree::Document::parse(&xml).unwrap();
    let failures: Vec<String> = document
        .descendants()
        .filter(|node| node.has_tag_name("failure"))
        .map(|node| node.text().unwrap_or_default().to_owned())
        .collect();
    let greeting = "Hello, thank you for calling Example Movers. How can I help you today?";
    let expected = [
        ("step 1 of 1\nexpected the agent to say words containing \"pizza\"\nheard    ", greeting),
        ("step 1 of 1\nexpected the agent to begin within 0.001 s", greeting),
        ("step 1 of 1\nexpected the agent not to say \"movers\"\nheard    ", greeting),
        ("step 1 of 1\nexpected a call of end_call with {\"id\":1}\nheard    ", "no tool was called"),
        ("step 1 of 1\nexpected a transfer to dispatch\nheard    ", "no transfer"),
        ("step 3 of 3\nexpected the call to end: agent_hung_up\nheard    ", "the call ended (caller_hung_up"),
    ];
    assert_eq!(failures.len(), expected.len(), "{failures:#?}");
    for (failure, (begins, contains)) in failures.iter().zip(expected) {
        assert!(failure.starts_with(begins) && failure.contains(contains), "{failure}");
    }
}

#[test]
fn what_cannot_be_run_is_told_apart_from_what_fails() {
    for (name, text, reason) in [
        ("typo.yaml", "cases: [{name: a, steps: [{agent: {contians: x}}]}]", "typo.yaml"),
        ("empty.yaml", "cases: []", "there is no case"),
        ("agent.yaml", "{agent: {persona: {}}, cases: [{name: a, steps: [hangUp]}]}", "not an agent file"),
    ] {
        let (code, said, errors) = run_text(name, text, &[]);
        assert_eq!((code, said.as_str()), (Some(2), ""), "{errors}");
        assert!(errors.contains(reason), "{errors}");
    }
}
