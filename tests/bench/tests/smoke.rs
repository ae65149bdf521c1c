//! The soak as its users run it, for seconds: a real media pod under load loses nothing and breaks no rule. No times are
//! judged: the machine of a test may be busy.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::process::Command;

use serde_json::Value;

/// Runs `switchboard-bench soak` for some seconds; its JSON.
fn soak(arguments: &[&str]) -> Value {
    let directory = tempfile::tempdir().unwrap();
    let json = directory.path().join("soak.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard-bench"));
    command.args([
        "soak",
        "--calls",
        "5",
        "--seconds",
        "8",
        "--barge-in-seconds",
        "3",
        "--warm-up-seconds",
        "60",
        "--allow-short",
        // The calls are too short for a session to be replaced in them.
        "--session-seconds",
        "0",
    ]);
    let output = command.args(arguments).arg("--json").arg(&json).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
    serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap()
}

#[test]
fn interrupted_calls_that_follow_each_other_lose_nothing() {
    let found = soak(&["--store", "memory", "--call-seconds", "4"]);
    let report = &found["report"];
    for (figure, least) in [("placed", 10), ("completed", 10), ("bargeIns", 5), ("framesToModel", 1000)] {
        assert!(report[figure].as_u64().unwrap() >= least, "{figure}: {report}");
    }
    for figure in ["violations", "unfinished", "ignoredBargeIns", "framesMissing", "framesAltered"] {
        assert_eq!(report[figure], 0, "{figure}: {report}");
    }
    assert!(found["memory"].as_array().unwrap().len() >= 2, "{found}");
}
