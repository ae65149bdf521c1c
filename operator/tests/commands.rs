//! The binary as people call it: help, output and exit codes of the subcommands that end by themselves.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn switchboard(arguments: &[&str]) -> Output {
    let unreachable = Path::new(env!("CARGO_TARGET_TMPDIR")).join("unreachable.kubeconfig");
    let config = r#"{"apiVersion": "v1", "kind": "Config", "current-context": "a", "users": [{"name": "a", "user": {}}],
        "clusters": [{"name": "a", "cluster": {"server": "http://127.0.0.1:1"}}],
        "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}]}"#;
    std::fs::write(&unreachable, config).expect("a file can be written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard"));
    command.args(arguments).env("KUBECONFIG", unreachable).output().expect("the binary runs")
}

fn sample(name: &str) -> String {
    format!("{}/../manifests/samples/{name}.yaml", env!("CARGO_MANIFEST_DIR"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn every_subcommand_explains_itself_and_its_exit_codes() {
    for subcommand in ["render", "check", "doctor"] {
        let output = switchboard(&[subcommand, "--help"]);
        assert_eq!(output.status.code(), Some(0), "{subcommand}");
        assert!(text(&output.stdout).contains("Exit codes: 0"), "{}", text(&output.stdout));
    }
    let output = switchboard(&["--help"]);
    for subcommand in ["operator", "render", "check", "doctor"] {
        assert!(text(&output.stdout).contains(subcommand), "{subcommand}");
    }
}

#[test]
fn wrong_usage_is_64_and_says_what_is_wrong() {
    for (arguments, words) in [
        (&["render"][..], "--file"),
        (&["render", "-f", "a.yaml", "--agnet", "sales"], "--agnet"),
        (&["check", "--wait-seconds", "soon"], "soon"),
        (&["doctor", "-o", "yaml"], "yaml"),
        (&["docter"], "docter"),
    ] {
        let output = switchboard(arguments);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
        assert!(text(&output.stderr).contains(words), "{}", text(&output.stderr));
    }
}

#[test]
fn an_agent_is_rendered_as_one_document_on_stdout() {
    let output = switchboard(&["render", "-f", &sample("simulated")]);
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&document["name"], &document["formatVersion"]), (&"reception".into(), &1.into()));
}

#[test]
fn what_cannot_be_rendered_is_1_with_a_sentence_and_nothing_on_stdout() {
    for (arguments, words) in [
        (&["render", "-f", &sample("simulated"), "--agent", "nobody"][..], "no VoiceAgent of that name"),
        (&["render", "-f", "/does/not/exist.yaml"], "/does/not/exist.yaml"),
        (&["render", "-f", &sample("canary")], "VoiceGateway default"),
    ] {
        let output = switchboard(arguments);
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(1), String::new()), "{arguments:?}");
        assert!(text(&output.stderr).contains(words), "{}", text(&output.stderr));
    }
}

#[test]
fn an_installation_that_cannot_be_asked_is_1_with_what_is_lacking() {
    let output = switchboard(&["check", "--wait-seconds", "0"]);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(1), String::new()));
    assert!(!output.stderr.is_empty());
}

#[test]
fn a_doctor_who_cannot_ask_says_so_with_a_code_of_its_own() {
    let output = switchboard(&["doctor"]);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(69), String::new()));
    assert!(text(&output.stderr).contains("the API server does not answer"), "{}", text(&output.stderr));
}
