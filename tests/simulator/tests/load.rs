//! The load generator and the naive relay against each other: what the benchmark's figures rest on.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::time::Duration;

use simulator::carrier::Account;
use simulator::load::{self, LoadPlan, LoadReport, ModelKind};
use simulator::relay::{self, Relay};
use tokio::net::TcpListener;

const KEY: &str = "load-key";

/// A few seconds of `calls` callers against a relay.
async fn load_on_a_relay(model: ModelKind, calls: u32, barge_in_seconds: u64) -> LoadReport {
    load_on_a_relay_with(model, calls, barge_in_seconds, None).await
}

/// The same with sessions that end.
async fn load_on_a_relay_with(
    model: ModelKind,
    calls: u32,
    barge_in_seconds: u64,
    session_limit: Option<Duration>,
) -> LoadReport {
    let (listener, models) =
        (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let relay = Relay {
        stream_url: "wss://voice.test/stream".to_owned(),
        model: models.local_addr().unwrap().to_string(),
        api_key: KEY.to_owned(),
    };
    let plan = LoadPlan {
        account: Account::demo(),
        edges: vec![format!("https://voice.test=http://{}", listener.local_addr().unwrap()).parse().unwrap()],
        voice_url: "https://voice.test/voice".to_owned(),
        status_url: Some("https://voice.test/status".to_owned()),
        calls,
        rate: 10,
        measure: Duration::from_secs(5),
        call_length: None,
        barge_in_every: Some(Duration::from_secs(barge_in_seconds)),
        model,
        reply: load::LONG_REPLY,
        session_limit,
        api_key: KEY.to_owned(),
        model_tls: None,
        process: Some(std::process::id()),
    };
    tokio::spawn(relay::serve(listener, relay));
    load::run(plan, models).await.unwrap()
}

#[tokio::test]
async fn five_calls_over_the_relay_lose_nothing_and_break_no_rule() {
    let report = load_on_a_relay(ModelKind::Lean, 5, 3).await;
    assert!(report.is_good(), "{report}");
    assert_eq!((report.placed, report.completed), (5, 5));
    assert!(report.barge_ins >= 5, "{report}");
    assert!(report.event_to_clear.count >= 5 && report.setup.count == 5, "{report}");
    assert!(report.to_model.count > 500 && report.to_phone.count > 100, "{report}");
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!((&json["violations"], &json["calls"]), (&0.into(), &5.into()));
}

#[tokio::test]
async fn the_strict_model_hears_the_interruptions_of_the_same_callers() {
    let report = load_on_a_relay(ModelKind::Strict, 2, 5).await;
    assert!(report.is_good(), "{report}");
    assert!(report.barge_ins >= 2 && report.speech_to_clear.count >= 2, "{report}");
}

#[tokio::test]
async fn sessions_that_are_used_until_they_expire_make_a_run_bad() {
    let report = load_on_a_relay_with(ModelKind::Lean, 2, 3, Some(Duration::from_secs(4))).await;
    assert!(!report.is_good() && report.sessions_expired >= 2, "{report}");
}

#[tokio::test]
async fn calls_that_nobody_answers_are_lost_and_the_run_is_bad() {
    let models = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plan = LoadPlan {
        account: Account::demo(),
        edges: Vec::new(),
        voice_url: "https://voice.test/voice".to_owned(),
        status_url: None,
        calls: 2,
        rate: 10,
        measure: Duration::from_millis(100),
        call_length: None,
        barge_in_every: None,
        model: ModelKind::Lean,
        reply: load::LONG_REPLY,
        session_limit: None,
        api_key: KEY.to_owned(),
        model_tls: None,
        process: None,
    };
    let report = load::run(plan, models).await.unwrap();
    assert!(!report.is_good() && report.lost["notAnswered"] >= 2, "{report}");
}
