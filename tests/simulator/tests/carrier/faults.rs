//! Each switch of the phone's and the REST API's faults does what it says.

use std::collections::BTreeSet;
use std::time::Duration;

use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use simulator::caller::{Patience, Step};
use simulator::carrier::record::{EndReason, View};
use simulator::carrier::{Account, Carrier};
use simulator::violations::Rule;
use tokio::net::TcpListener;

use crate::product::{NUMBER, PUBLIC, Product, Script, events, start, start_with};
use crate::{CALLER, call};

/// A call of so long, under these faults of the phone.
async fn phone_call(faults: Value, milliseconds: u32, script: Script) -> (Carrier, Product, View) {
    let (carrier, product) = start(script).await;
    carrier.switches().set(serde_json::from_value(json!({ "phone": faults })).unwrap());
    let view = call(&carrier, vec![Step::Pause(milliseconds)]).await;
    (carrier, product, view)
}

fn media(product: &Product) -> Vec<(u64, u64, usize)> {
    let seen = product.seen.lock().unwrap();
    let number = |value: &Value| value.as_str().unwrap().parse().unwrap();
    seen.messages
        .iter()
        .filter(|message| message["event"] == "media")
        .map(|message| {
            let media = &message["media"];
            (number(&media["chunk"]), number(&media["timestamp"]), media["payload"].as_str().unwrap().len())
        })
        .collect()
}

#[tokio::test]
async fn frames_are_missing_and_the_timestamps_show_it() {
    let (_, product, _) = phone_call(json!({"loseEveryFrames": 5}), 600, Script::default()).await;
    let media = media(&product);
    assert_eq!(media[..5].iter().map(|frame| frame.0).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    assert_eq!(media[..5].iter().map(|frame| frame.1).collect::<Vec<_>>(), [0, 20, 40, 60, 100]);
}

#[tokio::test]
async fn frames_come_in_other_lengths() {
    let (_, product, _) = phone_call(json!({"framesPerMessage": 3}), 600, Script::default()).await;
    let media = media(&product);
    assert_eq!(media[..3], [(1, 0, 640), (2, 60, 640), (3, 120, 640)]);
}

#[tokio::test]
async fn jitter_changes_when_frames_come_and_not_which() {
    let (_, product, view) = phone_call(json!({"jitterMilliseconds": 200}), 1000, Script::default()).await;
    let media = media(&product);
    assert!(media.len() >= 40, "{}", media.len());
    let stamps: Vec<u64> = media.iter().map(|frame| frame.1).collect();
    assert_eq!(stamps, (0..stamps.len() as u64).map(|index| index * 20).collect::<Vec<_>>());
    assert_eq!(view.end_reason, Some(EndReason::CallerHungUp));
}

#[tokio::test]
async fn a_socket_is_cut_without_a_close_frame_and_any_of_three_things_follows() {
    for (follows, end, paths) in [
        ("action", EndReason::HangupVerb, vec!["/voice", "/action", "/status"]),
        ("nextVerb", EndReason::TwimlEnded, vec!["/voice", "/status"]),
        ("hangUp", EndReason::StreamLost, vec!["/voice", "/status"]),
    ] {
        let faults = json!({"cutAfterMilliseconds": 300, "afterLostStream": follows});
        let (carrier, product) = start(Script::default()).await;
        carrier.switches().set(serde_json::from_value(json!({ "phone": faults })).unwrap());
        let steps = vec![Step::ExpectHangUp(Patience { seconds: 10 })];
        let record = carrier.place_inbound(CALLER, NUMBER, steps).unwrap();
        let view = record.finished().await;
        assert_eq!(
            (view.end_reason, product.paths()),
            (Some(end), paths.into_iter().map(str::to_owned).collect())
        );
        assert!(events(&record).contains(&"streamEnded".to_owned()));
        let seen = product.seen.lock().unwrap();
        assert!(seen.is_cut && !seen.messages.iter().any(|message| message["event"] == "stop"), "{follows}");
        assert_eq!(carrier.violations().list(), vec![]);
    }
}

#[tokio::test]
async fn a_stalled_carrier_says_nothing_more_and_hears_nothing() {
    let (_, product, view) =
        phone_call(json!({"stallAfterMilliseconds": 300}), 1500, Script::default()).await;
    assert!((10..=20).contains(&media(&product).len()), "{}", media(&product).len());
    // The product's sentence was cut off in the caller's ear: it would have sounded for longer.
    assert!(view.heard.voiced_milliseconds < 400, "{:?}", view.heard);
}

#[tokio::test]
async fn a_product_that_stops_reading_is_noticed() {
    let (carrier, _) = start(Script { stops_reading: true, ..Script::default() }).await;
    let record = carrier.place_inbound(CALLER, NUMBER, vec![Step::Pause(60_000)]).unwrap();
    let noticed = async {
        while carrier.violations().count() == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(40), noticed).await.unwrap();
    assert_eq!(carrier.violations().rules(), [Rule::StreamStalled]);
    assert!(!record.status().is_final());
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_under_the_same_token() {
    // The first is lost by the voice webhook, whose number asks for retries.
    let (carrier, product) = start_with(Script::default(), |settings| {
        let voice = [("voiceUrl".to_owned(), format!("{PUBLIC}/voice#rp=rt"))];
        settings.numbers[0].set_fields(&voice.into()).unwrap();
    })
    .await;
    let faults = json!({"phone": {"loseWebhookAnswers": 1}});
    carrier.switches().set(serde_json::from_value(faults).unwrap());
    call(&carrier, vec![Step::Pause(100)]).await;
    assert_eq!(product.paths(), ["/voice", "/voice", "/status"]);
    let tokens = product.seen.lock().unwrap().tokens.clone();
    assert_eq!(tokens[0], tokens[1]);
    assert_ne!(tokens[1], tokens[2]);
    assert_eq!(carrier.violations().list(), vec![]);
}

#[tokio::test]
async fn an_answer_lost_without_a_policy_for_it_is_not_asked_for_again() {
    let (carrier, product, view) = phone_call(json!({"loseWebhookAnswers": 1}), 100, Script::default()).await;
    assert_eq!(product.paths(), ["/voice", "/status"]);
    assert_eq!(view.end_reason, Some(EndReason::WebhookFailed));
    assert_eq!(carrier.violations().rules(), [Rule::WebhookUnreachable]);
}

#[tokio::test]
async fn callbacks_come_repeatedly_and_in_the_wrong_order() {
    let voice = r#"<Connect action="/action"><Stream url="wss://voice.test/stream" statusCallback="https://voice.test/status"/></Connect>"#;
    let script = Script { voice, ..Script::default() };
    let (_, product, _) =
        phone_call(json!({"repeatCallbacks": 1, "reverseCallbacks": true}), 300, script).await;
    let seen = product.seen.lock().unwrap();
    let told: Vec<&str> = seen
        .requests
        .iter()
        .filter(|(path, _)| path == "/status")
        .map(|(_, form)| {
            let event = form.iter().find(|(name, _)| name == "StreamEvent" || name == "CallStatus");
            event.map(|(_, value)| value.as_str()).unwrap()
        })
        .collect();
    let expected = ["completed", "stream-stopped", "stream-started"];
    assert_eq!(told, expected.into_iter().flat_map(|name| [name, name]).collect::<Vec<_>>());
    let tokens: BTreeSet<&String> = seen.tokens.iter().collect();
    assert_eq!(tokens.len(), 4, "the webhook's and one per callback");
}

#[tokio::test]
async fn the_action_comes_after_a_hang_up_with_parameters_of_its_own() {
    let faults = json!({"actionAfterHangUp": true, "actionParameters": {"StreamResult": "y"}});
    let (_, product, view) = phone_call(faults, 300, Script::default()).await;
    assert_eq!(view.end_reason, Some(EndReason::CallerHungUp));
    assert_eq!(product.parameter("/action", "CallStatus").as_deref(), Some("completed"));
    assert_eq!(product.parameter("/action", "StreamResult").as_deref(), Some("y"));
    let faults = json!({"cutAfterMilliseconds": 200, "actionParameters": {"StreamResult": "x"}});
    let (carrier, product) = start(Script::default()).await;
    carrier.switches().set(serde_json::from_value(json!({ "phone": faults })).unwrap());
    call(&carrier, vec![Step::ExpectHangUp(Patience { seconds: 10 })]).await;
    assert_eq!(product.parameter("/action", "StreamResult").as_deref(), Some("x"));
}

#[tokio::test]
async fn the_rest_api_fails_until_it_is_switched_off_by_the_control_api() {
    let (carrier, _) = start(Script::default()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let router = carrier.router();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let (http, account) = (Client::builder().no_proxy().build().unwrap(), Account::demo());
    let switches = format!("{base}/_sim/faults");
    let set = async |rest: Value| {
        let body = json!({ "rest": rest }).to_string();
        http.put(&switches).body(body).send().await.unwrap().status()
    };
    let ask = async || {
        let url = format!("{base}/2010-04-01/Accounts/{}/IncomingPhoneNumbers.json", account.sid);
        http.get(url).basic_auth(&account.sid, Some(&account.auth_token)).send().await
    };

    assert_eq!(set(json!({"status": 429, "retryAfterSeconds": 7, "times": 1})).await, StatusCode::NO_CONTENT);
    let answer = ask().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["retry-after"].to_str().unwrap()), (429, "7"));
    assert_eq!(answer.json::<Value>().await.unwrap()["code"], 20429);
    assert_eq!(ask().await.unwrap().status(), StatusCode::OK, "it failed once");

    set(json!({"status": 502, "notJson": true})).await;
    for _ in 0..3 {
        let answer = ask().await.unwrap();
        assert_eq!(answer.status().as_u16(), 502);
        assert!(!answer.headers().contains_key("retry-after"));
        assert!(answer.text().await.unwrap().starts_with("<html>"));
    }
    set(json!({"status": 503, "method": "POST"})).await;
    assert_eq!(ask().await.unwrap().status(), StatusCode::OK, "only changes fail");
    set(json!({"delayMilliseconds": 300})).await;
    let began = std::time::Instant::now();
    assert_eq!(ask().await.unwrap().status(), StatusCode::OK);
    assert!(began.elapsed() >= Duration::from_millis(300));
    set(json!({"loseAnswers": true})).await;
    let lost = async { ask().await?.bytes().await };
    assert!(lost.await.is_err());

    assert_eq!(set(json!({"statsu": 1})).await, StatusCode::UNPROCESSABLE_ENTITY);
    http.delete(&switches).send().await.unwrap();
    let shown: Value = http.get(&switches).send().await.unwrap().json().await.unwrap();
    assert_eq!(shown["rest"]["status"], Value::Null);
    assert_eq!(ask().await.unwrap().status(), StatusCode::OK);
    assert_eq!(carrier.violations().list(), vec![]);
}
