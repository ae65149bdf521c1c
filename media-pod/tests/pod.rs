//! A real pod with the built-in engine, from the carrier's side.

#![allow(clippy::unwrap_used)] // in a test it is an assertion

mod harness;

use harness::{API_TOKEN, GREETING, Heard, Pod, SIMULATED, call_sid, minted_token, token_of};
use serde_json::json;

const ACTIVE: &str = "switchboard_active_calls";

fn ended(reason: &str) -> String {
    format!("switchboard_calls_ended_total{{reason=\"{reason}\"}}")
}

fn refused(reason: &str) -> String {
    format!("switchboard_streams_refused_total{{reason=\"{reason}\"}}")
}

#[tokio::test]
async fn a_caller_is_greeted_interrupts_is_answered_and_hangs_up() {
    let pod = Pod::start(SIMULATED).await;
    let call = call_sid(1);
    let mut phone = pod.dial(&call).await;
    phone.until(|heard| matches!(heard, Heard::Audio(_))).await;
    assert_eq!(pod.metric(ACTIVE).await, 1);

    // The first second is played; what comes afterwards is not marked as played, so the caller speaks over it.
    phone.listen(1000).await;
    phone.speak(400).await;
    phone.until(|heard| *heard == Heard::Clear).await;
    phone.pause(600).await;
    let answer = phone.listen_until_said(&pod, 2).await;
    assert!(answer > 300, "heard {answer} ms of the answer");

    phone.stop().await;
    let last = phone.until(|heard| matches!(heard, Heard::Closed(_))).await;
    assert_eq!(last.last(), Some(&Heard::Closed(Some(1000))));
    pod.until_metric(ACTIVE, 0).await;
    assert_eq!(pod.metric(&ended("caller_hung_up")).await, 1);
    assert_eq!(pod.metric("switchboard_barge_ins_total").await, 1);
    assert_eq!(pod.metric("switchboard_time_to_first_audio_seconds_count").await, 1);

    let (status, shown) = pod.api("GET", &format!("/v1/calls/{call}"), Some(API_TOKEN)).await;
    assert_eq!(
        (status, &shown["status"], &shown["endReason"]),
        (200, &json!("ended"), &json!("caller_hung_up"))
    );
    let first = &shown["transcript"][0];
    assert_eq!((&first["speaker"], &first["interrupted"]), (&json!("agent"), &json!(true)), "{shown}");
    assert_eq!(shown["transcript"][1]["text"], "One moment please.");
}

#[tokio::test]
async fn a_wrong_signature_is_403_and_leaves_nothing() {
    let pod = Pod::start(SIMULATED).await;
    assert_eq!(pod.upgrade("AAAAAAAAAAAAAAAAAAAAAAAAAAA=").await.err(), Some(403));
    assert_eq!(pod.metric(&refused("signature")).await, 1);
    assert_eq!(pod.metric("switchboard_provider_connects_total{engine=\"simulated\"}").await, 0);
}

#[tokio::test]
async fn a_wrong_foreign_or_used_token_closes_with_1008_before_a_model_is_attached() {
    let pod = Pod::start(SIMULATED).await;
    let token = token_of(&pod.announce(&call_sid(1)).await);

    let mut forged = pod.stream(&call_sid(1), &format!("{token}A")).await;
    assert_eq!(forged.hear().await, Heard::Closed(Some(1008)));
    let mut foreign = pod.stream(&call_sid(2), &token).await;
    assert_eq!(foreign.hear().await, Heard::Closed(Some(1008)));
    assert_eq!(pod.metric(&refused("token")).await, 1);
    assert_eq!(pod.metric(&refused("token_foreign")).await, 1);
    assert_eq!(pod.metric("switchboard_provider_connects_total{engine=\"simulated\"}").await, 0);

    let mut rightful = pod.stream(&call_sid(1), &token).await;
    rightful.until(|heard| matches!(heard, Heard::Audio(_))).await;
    let mut again = pod.stream(&call_sid(1), &token).await;
    assert_eq!(again.hear().await, Heard::Closed(Some(1008)));
    assert_eq!(pod.metric(&refused("token_used")).await, 1);
    assert_eq!(pod.metric(ACTIVE).await, 1);
}

#[tokio::test]
async fn garbage_is_counted_and_skipped_and_the_call_goes_on() {
    let pod = Pod::start(SIMULATED).await;
    let mut phone = pod.dial(&call_sid(1)).await;
    phone.listen_until_said(&pod, 1).await;
    for garbage in ["", "{", "[]", "null", r#"{"event":1}"#, r#"{"event":"media","media":{"payload":"!"}}"#] {
        phone.send_text(garbage).await;
    }
    phone.send_text(r#"{"event":"from_the_future","x":[1]}"#).await;
    phone.speak(400).await;
    phone.pause(600).await;
    assert!(phone.listen_until_said(&pod, 2).await > 300);
    assert_eq!(pod.metric("switchboard_phone_faults_total{fault=\"malformed\"}").await, 6);
    assert_eq!(pod.metric("switchboard_phone_faults_total{fault=\"unknown\"}").await, 1);
}

#[tokio::test]
async fn an_oversized_message_ends_that_call_and_no_other() {
    let pod = Pod::start(SIMULATED).await;
    let mut hostile = pod.dial(&call_sid(1)).await;
    let mut other = pod.dial(&call_sid(2)).await;
    hostile.until(|heard| matches!(heard, Heard::Audio(_))).await;
    pod.until_metric(ACTIVE, 2).await;
    hostile.send_text(&format!(r#"{{"event":"media","x":"{}"}}"#, "x".repeat(100_000))).await;
    pod.until_metric(&ended("phone_lost"), 1).await;
    assert_eq!(pod.metric("switchboard_phone_faults_total{fault=\"too_large\"}").await, 1);
    assert_eq!(pod.metric(ACTIVE).await, 1);
    assert!(other.listen_until_said(&pod, 1).await > 500);
}

#[tokio::test]
async fn a_full_pod_closes_normally_and_the_carrier_is_connected_again() {
    let pod = Pod::start(&format!("{SIMULATED}maxCallsPerPod: 1\n")).await;
    let mut first = pod.dial(&call_sid(1)).await;
    first.until(|heard| matches!(heard, Heard::Audio(_))).await;
    let mut second = pod.stream(&call_sid(2), &minted_token(&call_sid(2))).await;
    assert_eq!(second.hear().await, Heard::Closed(Some(1000)));
    assert_eq!(pod.metric(&refused("full")).await, 1);
    let (_, twiml) = pod.webhook("/moving/sales/twilio/action/0", &call_sid(2), "in-progress").await;
    assert!(twiml.contains("<Stream"), "another attempt: {twiml}");
    assert!(first.listen_until_said(&pod, 1).await > 500, "the first call does not notice");

    // Where its stream finds room the call begins, however many found none.
    first.stop().await;
    pod.until_metric(ACTIVE, 0).await;
    let mut second = pod.stream(&call_sid(2), &token_of(&twiml)).await;
    second.until(|heard| matches!(heard, Heard::Audio(_))).await;
    assert_eq!(pod.metric("switchboard_legs_started_total{leg=\"fresh\"}").await, 2);
    assert_eq!(pod.metric("switchboard_legs_started_total{leg=\"resumed\"}").await, 0);
    assert_eq!(pod.metric("switchboard_call_setup_seconds_count").await, 2);
}

#[tokio::test]
async fn a_person_hangs_up_through_the_api() {
    let pod = Pod::start(SIMULATED).await;
    let call = call_sid(1);
    let mut phone = pod.dial(&call).await;
    phone.until(|heard| matches!(heard, Heard::Audio(_))).await;

    for token in [None, Some("wrong"), Some("")] {
        let (status, body) = pod.api("DELETE", &format!("/v1/calls/{call}"), token).await;
        assert_eq!((status, &body["error"]["type"]), (401, &json!("unauthorized")));
    }
    let (status, body) = pod.api("GET", "/v1/calls/CA123", Some(API_TOKEN)).await;
    assert_eq!((status, &body["error"]["type"]), (400, &json!("invalid_request")));
    let (status, body) = pod.api("GET", &format!("/v1/calls/{}", call_sid(9)), Some(API_TOKEN)).await;
    assert_eq!((status, &body["error"]["type"]), (404, &json!("not_found")));
    let (_, listed) = pod.api("GET", "/v1/calls", Some(API_TOKEN)).await;
    let first = &listed["calls"][0];
    assert_eq!((&first["callSid"], &first["status"]), (&json!(call), &json!("inProgress")));

    let (status, _) = pod.api("DELETE", &format!("/v1/calls/{call}"), Some(API_TOKEN)).await;
    assert_eq!(status, 204);
    let last = phone.until(|heard| matches!(heard, Heard::Closed(_))).await;
    assert_eq!(last.last(), Some(&Heard::Closed(Some(1000))));
    pod.until_metric(&ended("operator_hung_up"), 1).await;
    let (_, twiml) = pod.webhook("/moving/sales/twilio/action/0", &call, "in-progress").await;
    assert!(twiml.contains("<Hangup"), "{twiml}");
}

#[tokio::test]
async fn a_leaving_pod_hands_its_call_over_and_the_carrier_connects_again() {
    let mut pod = Pod::start(SIMULATED).await;
    let call = call_sid(1);
    let mut phone = pod.dial(&call).await;
    phone.listen_until_said(&pod, 1).await;
    let leaving = tokio::spawn(pod.leave());
    let last = phone.until(|heard| matches!(heard, Heard::Closed(_))).await;
    assert_eq!(last.last(), Some(&Heard::Closed(Some(1000))));
    tokio::time::timeout(harness::DEADLINE, leaving).await.unwrap().unwrap();
    assert!(tokio::net::TcpStream::connect(pod.doors.public).await.is_err(), "the doors are closed");
}

#[tokio::test]
async fn a_lost_phone_is_connected_again_and_not_greeted_twice() {
    let pod = Pod::start(SIMULATED).await;
    let call = call_sid(1);
    let mut phone = pod.dial(&call).await;
    phone.listen_until_said(&pod, 1).await;
    drop(phone);
    pod.until_metric(&ended("phone_lost"), 1).await;

    let (status, twiml) = pod.webhook("/moving/sales/twilio/action/0", &call, "in-progress").await;
    assert_eq!(status, 200);
    let mut phone = pod.stream(&call, &token_of(&twiml)).await;
    pod.until_metric("switchboard_model_ready_seconds_count", 2).await;
    phone.speak(400).await;
    phone.pause(600).await;
    assert!(phone.listen_until_said(&pod, 2).await > 300, "it is answered");
    assert_eq!(pod.metric("switchboard_legs_started_total{leg=\"resumed\"}").await, 1);
    let (_, shown) = pod.api("GET", &format!("/v1/calls/{call}"), Some(API_TOKEN)).await;
    let texts: Vec<_> = shown["transcript"].as_array().unwrap().iter().map(|line| &line["text"]).collect();
    assert_eq!(texts, [&json!(GREETING), &json!("One moment please.")]);
}

#[tokio::test]
async fn a_socket_without_start_is_closed_and_counted() {
    let pod = Pod::start(SIMULATED).await;
    let silent = pod.silent_stream(&call_sid(1)).await;
    pod.until_metric(&refused("start_timeout"), 1).await;
    drop(silent);
    assert_eq!(pod.metric(ACTIVE).await, 0);
}

#[tokio::test]
async fn the_admin_door_answers_probes_and_load() {
    let pod = Pod::start(&format!("{SIMULATED}maxCallsPerPod: 7\n")).await;
    assert_eq!(pod.admin("/livez").await, "ok\n");
    assert_eq!(pod.admin("/readyz").await, "ok\n");
    let load: serde_json::Value = serde_json::from_str(&pod.admin("/load").await).unwrap();
    let expected = json!({"agent": "sales", "namespace": "moving", "configRevision": "9f2c41d0",
        "signingKey": "k1", "verifyingKeys": ["k1"], "activeCalls": 0, "reservedSlots": 0, "maxCalls": 7,
        "draining": false});
    assert_eq!(load, expected);
    assert_eq!(pod.metric("switchboard_call_capacity").await, 7);
}

#[tokio::test]
async fn what_is_no_start_closes_the_socket_before_anything_is_attached() {
    let pod = Pod::start(SIMULATED).await;
    let stream = call_sid(1).replacen("CA", "MZ", 1);
    let linear = json!({"accountSid": harness::ACCOUNT, "streamSid": stream, "callSid": call_sid(1),
        "tracks": ["inbound"], "customParameters": {},
        "mediaFormat": {"encoding": "audio/l16", "sampleRate": 16000, "channels": 1}});
    let linear = json!({"event": "start", "sequenceNumber": "1", "start": linear, "streamSid": stream});
    let cases = [
        (
            r#"{"event":"media","media":{"track":"inbound","timestamp":"1","payload":"/////w=="}}"#
                .to_owned(),
            "malformed",
        ),
        ("not json".to_owned(), "malformed"),
        (linear.to_string(), "malformed"),
        (format!(r#"{{"event":"future","x":"{}"}}"#, "x".repeat(20_000)), "start_too_large"),
        (format!(r#"{{"event":"future","x":"{}"}}"#, "x".repeat(100_000)), "start_too_large"),
    ];
    for (message, _) in &cases {
        let mut phone = pod.silent_stream(&call_sid(1)).await;
        phone.send_text(message).await;
        assert!(matches!(phone.hear().await, Heard::Closed(_)));
    }
    let mut chatty = pod.silent_stream(&call_sid(1)).await;
    for _ in 0..8 {
        chatty.send_text(r#"{"event":"connected"}"#).await;
    }
    assert_eq!(chatty.hear().await, Heard::Closed(Some(1008)));
    pod.until_metric(&refused("malformed"), 3).await;
    pod.until_metric(&refused("start_too_large"), 3).await;
    assert_eq!(pod.metric("switchboard_legs_started_total{leg=\"fresh\"}").await, 0);
}

#[tokio::test]
async fn sockets_that_wait_for_their_start_are_bounded() {
    let pod = Pod::start(SIMULATED).await;
    let url = format!("wss://voice.example.com{}", harness::STREAM_PATH);
    let signature = twilio::signature::sign(&twilio::Secret::new(harness::AUTH_TOKEN), &url, &[]);
    // On a slow machine the first ones are given up meanwhile, and their places are taken again.
    let mut waiting = Vec::new();
    let refusal = loop {
        match pod.upgrade(&signature).await {
            Ok(socket) => waiting.push(socket),
            Err(status) => break status,
        }
        assert!(waiting.len() < 5000, "never refused");
    };
    assert_eq!(refusal, 503);
    assert!(waiting.len() >= 256, "{}", waiting.len());
    assert_eq!(pod.metric(&refused("too_many_sockets")).await, 1);
    drop(waiting);
    let has_room = async { while pod.upgrade(&signature).await.is_err() {} };
    tokio::time::timeout(harness::DEADLINE, has_room).await.unwrap();
    let mut phone = pod.dial(&call_sid(1)).await;
    phone.until(|heard| matches!(heard, Heard::Audio(_))).await;
}

#[tokio::test]
async fn a_leaving_pod_sends_new_calls_elsewhere_and_lets_running_ones_go_on() {
    let mut pod =
        Pod::start_with(SIMULATED, |config| config.drain_window = Some(harness::DEADLINE * 10)).await;
    let mut phone = pod.dial(&call_sid(1)).await;
    phone.listen_until_said(&pod, 1).await;
    let leaving = tokio::spawn(pod.leave());
    pod.until_metric("switchboard_draining", 1).await;
    let mut new = pod.dial(&call_sid(2)).await;
    assert_eq!(new.hear().await, Heard::Closed(Some(1000)));
    assert_eq!(pod.metric(&refused("draining")).await, 1);
    assert_eq!(pod.admin("/readyz").await, "ok\n");
    let load: serde_json::Value = serde_json::from_str(&pod.admin("/load").await).unwrap();
    assert_eq!((&load["draining"], &load["activeCalls"]), (&json!(true), &json!(1)));

    phone.speak(400).await;
    phone.pause(600).await;
    assert!(phone.listen_until_said(&pod, 2).await > 300, "the caller is answered");
    phone.stop().await;
    phone.until(|heard| matches!(heard, Heard::Closed(_))).await;
    drop(phone);
    tokio::time::timeout(harness::DEADLINE, leaving).await.unwrap().unwrap();
}

#[tokio::test]
async fn fifty_calls_at_once_are_each_greeted_and_interrupted_alone() {
    let pod = Pod::start(&format!("{SIMULATED}maxCallsPerPod: 50\n")).await;
    let mut phones = Vec::new();
    for number in 0..50 {
        phones.push(pod.dial(&call_sid(number)).await);
    }
    let calls = phones.into_iter().map(|mut phone| async move {
        phone.listen(500).await;
        phone.speak(400).await;
        phone.until(|heard| *heard == Heard::Clear).await;
        phone.stop().await;
        phone.until(|heard| matches!(heard, Heard::Closed(_))).await;
    });
    futures_util::future::join_all(calls).await;
    pod.until_metric(&ended("caller_hung_up"), 50).await;
    assert_eq!(pod.metric("switchboard_barge_ins_total").await, 50);
    assert_eq!(pod.metric("switchboard_call_panics_total").await, 0);
    pod.until_metric(ACTIVE, 0).await;
}

#[tokio::test]
async fn a_changed_agent_file_is_live_for_new_calls_and_a_bad_one_is_not() {
    let pod = Pod::start(SIMULATED).await;
    pod.rewrite_agent("00000001", "engines: []\n");
    pod.until_metric("switchboard_file_faults_total{file=\"agent\"}", 1).await;
    assert!(pod.admin("/load").await.contains(r#""configRevision":"9f2c41d0""#), "the last good one stays");

    pod.rewrite_agent("00000002", &format!("{SIMULATED}suspended: true\n"));
    let is_live = async { while !pod.admin("/load").await.contains(r#""configRevision":"00000002""#) {} };
    tokio::time::timeout(harness::DEADLINE, is_live).await.unwrap();
    let twiml = pod.announce(&call_sid(1)).await;
    assert!(twiml.contains("<Say") && !twiml.contains("<Stream"), "{twiml}");
}

#[tokio::test]
async fn a_missing_secret_refuses_and_a_rotated_one_is_used_at_once() {
    let pod = Pod::start(SIMULATED).await;
    pod.rewrite_secret("twilio/token", None);
    let url = format!("wss://voice.example.com{}", harness::STREAM_PATH);
    let sign = |token: &str| twilio::signature::sign(&twilio::Secret::new(token), &url, &[]);
    assert_eq!(pod.upgrade(&sign(harness::AUTH_TOKEN)).await.err(), Some(403));
    pod.rewrite_secret("twilio/token", Some("rotated"));
    assert_eq!(pod.upgrade(&sign(harness::AUTH_TOKEN)).await.err(), Some(403));
    assert!(pod.upgrade(&sign("rotated")).await.is_ok());

    pod.rewrite_secret("api/token", Some("other"));
    assert_eq!(pod.api("GET", "/v1/calls", Some(API_TOKEN)).await.0, 401);
    assert_eq!(pod.api("GET", "/v1/calls", Some("other")).await.0, 200);
}
