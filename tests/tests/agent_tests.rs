//! `switchboard-sim test` as its users run it: the shipped example passes, a wrong expectation fails and says why.

#![expect(clippy::unwrap_used, reason = "a test's helpers may fail it")]

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;

use e2e::{binary, installation::repository};
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

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

fn path(file: &Scratch) -> String {
    file.0.to_str().unwrap().to_owned()
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
    let file = written(name, text);
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

/// A file of this content.
fn written(name: &str, text: &str) -> Scratch {
    let file = Scratch::new(name);
    std::fs::write(&file.0, text).unwrap();
    file
}

/// A model that is no part of the test's own process: behind TLS, with a key, for whoever has the URL.
struct ElsewhereModel {
    process: Child,
    url: String,
    certificate: String,
}

impl ElsewhereModel {
    /// Starts it, and the end of TLS in front of it.
    fn start(scenario: &Path) -> Self {
        let mut process = Command::new(binary("switchboard-sim").unwrap())
            .args(["serve", "--twilio-addr", "127.0.0.1:0", "--model-addr", "127.0.0.1:0", "--scenario"])
            .arg(scenario)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        let (_, after) = ready.split_once("model=ws://").unwrap_or_else(|| panic!("{ready}"));
        let upstream = after.split('/').next().unwrap().to_owned();

        let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key.into())
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind(("localhost", 0))).unwrap();
        let url = format!("wss://localhost:{}/v1/realtime", listener.local_addr().unwrap().port());
        // Ends with the test's process.
        std::thread::spawn(move || {
            runtime.block_on(async {
                while let Ok((outside, _)) = listener.accept().await {
                    let (acceptor, upstream) = (acceptor.clone(), upstream.clone());
                    tokio::spawn(async move {
                        let mut outside = acceptor.accept(outside).await?;
                        let mut inside = TcpStream::connect(upstream).await?;
                        tokio::io::copy_bidirectional(&mut outside, &mut inside).await
                    });
                }
            });
        });
        Self { process, url, certificate: certified.cert.pem() }
    }
}

impl Drop for ElsewhereModel {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn an_agent_is_tested_with_a_model_that_is_only_a_url_and_a_key() {
    let scenario = written(
        "elsewhere.yaml",
        r#"
model:
  apiKey: key-of-the-model-elsewhere
  script:
    turns:
    - {heard: opening hours, say: "We are open all night."}
    - {heard: goodbye, say: "Goodbye.", call: {tool: end_call}}
"#,
    );
    let model = ElsewhereModel::start(&scenario.0);
    let key = written("key", "key-of-the-model-elsewhere\n");
    let certificate = written("ca.pem", &model.certificate);
    // The case has a script too, which nobody reads.
    let cases = r#"
cases:
- name: hours
  model: {turns: [{heard: opening hours, say: "Not this."}]}
  steps:
  - agent: Example Movers
  - say: "Hello, what are your opening hours?"
  - agent: {contains: open all night, not: not this}
  - say: "Thank you very much, goodbye."
  - tool: {name: end_call, arguments: {}}
  - end: agent_hung_up
"#;
    let (key, certificate) = (path(&key), path(&certificate));
    let arguments = ["--model-url", &model.url, "--model-key-file", &key, "--model-ca-file", &certificate];
    let (code, said, errors) = run_text("elsewhere-cases.yaml", cases, &arguments);
    assert_eq!(code, Some(0), "{said}{errors}");
    assert!(said.ends_with("1 cases, 0 failed\n"), "{said}");

    // A whole call by hand goes the same way.
    let heard = Scratch::new("heard.wav");
    let mut local = Command::new(binary("switchboard-sim").unwrap());
    local.args(["local", "--heard", &path(&heard)]).args(arguments);
    let output = local.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("We are open all night."), "{said}");

    // A wrong key is the model's refusal, not a pass.
    let wrong = written("wrong-key", "another");
    let arguments =
        ["--model-url", &model.url, "--model-key-file", &path(&wrong), "--model-ca-file", &certificate];
    let (code, said, errors) = run_text("elsewhere-wrong.yaml", cases, &arguments);
    assert_eq!(code, Some(1), "{said}{errors}");
    let (code, _, errors) = run_text("elsewhere-no-url.yaml", cases, &["--model-url", "https://x"]);
    assert!(code == Some(2) && errors.contains("ws:// or wss://"), "{errors}");
}

#[test]
fn the_arguments_of_a_real_model_s_tools_are_seen() {
    let scenario = written(
        "transferring.yaml",
        r#"
model:
  apiKey: key-of-the-model-elsewhere
  script:
    turns:
    - {heard: goodbye, say: "I put you through.", call: {tool: transfer, arguments: {target: dispatch}}}
"#,
    );
    let model = ElsewhereModel::start(&scenario.0);
    let key = written("transferring-key", "key-of-the-model-elsewhere");
    let certificate = written("transferring-ca.pem", &model.certificate);
    let (key, certificate) = (path(&key), path(&certificate));
    let arguments = ["--model-url", &model.url, "--model-key-file", &key, "--model-ca-file", &certificate];
    let output = run(&example(), &[&["--only", "transfers to dispatch"], &arguments[..]].concat());
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.ends_with("1 cases, 0 failed\n"), "{said}{}", String::from_utf8_lossy(&output.stderr));
}
