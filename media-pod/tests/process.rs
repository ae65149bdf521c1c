//! The binary: what it says when it cannot start, and how it leaves.

#![allow(clippy::unwrap_used)] // in a test it is an assertion

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

const DEADLINE: Duration = Duration::from_secs(30);

fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard-media"));
    command.env_clear().stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

async fn refusal(command: &mut Command) -> (Option<i32>, String) {
    let output = tokio::time::timeout(DEADLINE, command.output()).await.unwrap().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test]
async fn bad_configuration_names_the_variable_and_exits_64() {
    let cases = [
        ("SWITCHBOARD_PUBLIC_ADDR", "nowhere"),
        ("SWITCHBOARD_LAME_DUCK_SECONDS", "soon"),
        ("SWITCHBOARD_AGENT_FILE", "/nonexistent/agent.json"),
    ];
    for (variable, value) in cases {
        let (code, said) = refusal(binary().env(variable, value)).await;
        assert_eq!(code, Some(64), "{variable}: {said}");
        assert!(said.contains(variable), "{said}");
    }
    let (code, said) = refusal(binary().arg("--no-such-flag")).await;
    assert_eq!(code, Some(64), "{said}");
}

/// A pod with the shortest lame duck that lets a test look at it.
async fn pod(directory: &std::path::Path, lame_duck: &str) -> Child {
    std::fs::create_dir_all(directory.join("secrets")).unwrap();
    std::fs::write(
        directory.join("agent.yaml"),
        "formatVersion: 1\nnamespace: n\nname: a\npublicUrl: https://voice.example.com\n\
         carrier: {type: Twilio, twilio: {accountSid: AC00000000000000000000000000000001, authTokens: [{name: t, key: k}]}}\n\
         persona: {instructions: Be kind.}\nengines: [{name: main, type: Simulated, simulated: {}}]\n",
    )
    .unwrap();
    let key = "MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI=";
    std::fs::write(directory.join("keyring.json"), format!(r#"{{"signing":"k","keys":{{"k":"{key}"}}}}"#))
        .unwrap();
    let mut child = binary()
        .env("SWITCHBOARD_AGENT_FILE", directory.join("agent.yaml"))
        .env("SWITCHBOARD_KEYRING_FILE", directory.join("keyring.json"))
        .env("SWITCHBOARD_SECRETS_DIR", directory.join("secrets"))
        .env("SWITCHBOARD_PUBLIC_ADDR", "127.0.0.1:0")
        .env("SWITCHBOARD_API_ADDR", "127.0.0.1:0")
        .env("SWITCHBOARD_ADMIN_ADDR", "127.0.0.1:0")
        .env("SWITCHBOARD_LAME_DUCK_SECONDS", lame_duck)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let started = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            let log: serde_json::Value = serde_json::from_str(&line).unwrap();
            if log["message"] == "the pod answers" {
                return;
            }
        }
        panic!("it ended before it answered");
    };
    tokio::time::timeout(DEADLINE, started).await.unwrap();
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    child
}

async fn terminate(child: &Child) {
    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
}

#[tokio::test]
async fn sigterm_leaves_in_order_and_a_second_one_at_once() {
    let directory = std::env::temp_dir().join(format!("switchboard-process-{}", std::process::id()));
    let mut patient = pod(&directory, "0").await;
    terminate(&patient).await;
    let status = tokio::time::timeout(DEADLINE, patient.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(0));

    let mut hurried = pod(&directory, "3600").await;
    terminate(&hurried).await;
    let still_here = tokio::time::timeout(Duration::from_millis(300), hurried.wait()).await;
    assert!(still_here.is_err(), "the lame duck stays");
    terminate(&hurried).await;
    let status = tokio::time::timeout(DEADLINE, hurried.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(1));
    std::fs::remove_dir_all(&directory).unwrap();
}
