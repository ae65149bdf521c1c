//! Tests of the watched files.

use super::*;

const MINIMAL: &str = r#"
formatVersion: 1
namespace: moving
name: sales
publicUrl: https://voice.example.com
carrier:
  type: Twilio
  twilio:
    accountSid: AC00000000000000000000000000000001
    authTokens: [{name: twilio, key: token}]
persona: {instructions: "Be kind."}
engines:
- {name: main, type: Simulated, simulated: {}}
"#;

fn changed(from: &str, to: &str) -> String {
    assert!(MINIMAL.contains(from), "{from}");
    MINIMAL.replace(from, to)
}

#[test]
fn a_minimal_yaml_file_and_its_json_are_the_same_agent() {
    let agent: AgentFile = parse(MINIMAL).unwrap();
    assert_eq!(parse::<AgentFile>(&serde_json::to_string(&agent).unwrap()).unwrap(), agent);
    assert_eq!(agent.limits.max_call_seconds, 1800);
}

#[test]
fn the_port_of_media_streams_may_be_named() {
    for host in ["voice.example.com:443", "voice.example.com:443/a:b", "[2001:db8::1]", "[2001:db8::1]:443"] {
        assert!(
            parse::<AgentFile>(&changed("https://voice.example.com", &format!("'https://{host}'"))).is_ok(),
            "{host}"
        );
    }
}

#[test]
fn what_is_wrong_is_named() {
    let cases = [
        (changed("formatVersion: 1", "formatVersion: 2"), "formatVersion: "),
        (changed("https://voice", "http://voice"), "publicUrl: "),
        (changed("example.com", "example.com/"), "publicUrl: "),
        (changed("voice.example.com", "voice.example.com:8443"), "publicUrl: must name no port but 443"),
        (changed("voice.example.com", "voice.example.com:8443/b"), "publicUrl: must name no port but 443"),
        (changed("name: sales", "name: Sales"), "name: "),
        (changed("[{name: twilio, key: token}]", "[]"), "carrier.twilio.authTokens: "),
        (changed("name: twilio,", "name: ../twilio,"), "carrier.twilio.authTokens[0]: "),
        (changed("- {name: main, type: Simulated, simulated: {}}", "  []"), "engines: "),
        (format!("{MINIMAL}- {{name: main, type: Simulated, simulated: {{}}}}\n"), "engines[1].name: "),
        (format!("{MINIMAL}limits: {{maxCallSeconds: 0}}\n"), "limits.maxCallSeconds: "),
        (format!("{MINIMAL}maxCallsPerPod: 0\n"), "maxCallsPerPod: "),
        (
            format!("{MINIMAL}overflow: {{type: Message, message: {{text: ' '}}}}\n"),
            "overflow.message.text: ",
        ),
        (format!("{MINIMAL}overflow: {{type: Agent, agent: {{name: ../night}}}}\n"), "overflow.agent.name: "),
        (
            format!("{MINIMAL}overflow: {{type: Forward, forward: {{transferTarget: attic}}}}\n"),
            "overflow.forward.transferTarget: ",
        ),
    ];
    for (text, field) in cases {
        let error = parse::<AgentFile>(&text).unwrap_err();
        assert!(error.to_string().starts_with(field), "expected {field}, got {error}");
    }
}

#[test]
fn unknown_fields_are_ignored_and_a_wrong_type_is_an_error() {
    assert!(parse::<AgentFile>(&format!("{MINIMAL}fromTheFuture: [1]\n")).is_ok());
    assert!(matches!(parse::<AgentFile>(&changed("name: sales", "name: [1]")), Err(FileError::Parse(_))));
}

#[test]
fn a_malformed_keyring_does_not_quote_itself() {
    let error = parse::<Keyring>(r#"{"signing": 12345678}"#).unwrap_err();
    assert_eq!(error.to_string(), "does not parse: malformed document");
}

#[test]
fn the_last_good_version_stays_until_the_next_good_one() {
    let directory = std::env::temp_dir().join(format!("switchboard-agent-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("agent.yaml");
    let metrics = Metrics::register().unwrap();

    std::fs::write(&path, MINIMAL).unwrap();
    let mut watched = Watched::<AgentFile>::load(&path).unwrap();
    let newest = watched.subscribe();
    assert!(!watched.refresh(&metrics));

    std::fs::write(&path, "formatVersion: 1").unwrap();
    assert!(!watched.refresh(&metrics));
    assert!(!watched.refresh(&metrics), "one bad version is reported once");
    assert_eq!(metrics.file_faults.count(FileLabel::Agent), 1);
    assert_eq!(newest.borrow().persona.instructions, "Be kind.");

    std::fs::remove_file(&path).unwrap();
    assert!(!watched.refresh(&metrics));

    std::fs::write(&path, changed("Be kind.", "Be brief.")).unwrap();
    assert!(watched.refresh(&metrics));
    assert_eq!(newest.borrow().persona.instructions, "Be brief.");
    std::fs::remove_dir_all(&directory).unwrap();
}
