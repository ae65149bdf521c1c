//! Two pods of one agent on one Redis: what one knows, the other can go on with.

#![allow(clippy::unwrap_used)] // in a test it is an assertion

mod harness;

use harness::redis::Redis;
use harness::{API_TOKEN, DEADLINE, GREETING, Heard, PUBLIC_URL, call_sid, token_of};
use serde_json::json;

const ACTION: &str = "/moving/sales/twilio/action/0";

#[tokio::test]
async fn a_call_handed_over_goes_on_at_the_other_pod_with_its_context() {
    let redis = Redis::start("hand-over");
    let (mut leaving, other) = (redis.pod("sales-media-0").await, redis.pod("sales-media-1").await);
    let call = call_sid(1);
    let mut phone = leaving.dial(&call).await;
    phone.listen_until_said(&leaving, 1).await;
    let left = tokio::spawn(leaving.leave());
    phone.until(|heard| *heard == Heard::Closed(Some(1000))).await;
    drop(phone);

    let (status, twiml) = other.webhook(ACTION, &call, "in-progress").await;
    assert_eq!(status, 200);
    let mut phone = other.stream(&call, &token_of(&twiml)).await;
    phone.speak(400).await;
    phone.pause(600).await;
    assert!(phone.listen_until_said(&other, 2).await > 300, "the caller is answered");
    let (_, shown) = other.api("GET", &format!("/v1/calls/{call}"), Some(API_TOKEN)).await;
    let texts: Vec<_> = shown["transcript"].as_array().unwrap().iter().map(|line| &line["text"]).collect();
    assert_eq!(texts, [&json!(GREETING), &json!("One moment please.")], "greeted once");
    assert_eq!(shown["status"], "inProgress");
    left.await.unwrap();
}

#[tokio::test]
async fn a_hang_up_asked_for_at_another_pod_arrives() {
    let redis = Redis::start("hang-up");
    let (here, there) = (redis.pod("sales-media-0").await, redis.pod("sales-media-1").await);
    let call = call_sid(1);
    let mut phone = here.dial(&call).await;
    phone.until(|heard| matches!(heard, Heard::Audio(_))).await;
    let (status, _) = there.api("DELETE", &format!("/v1/calls/{call}"), Some(API_TOKEN)).await;
    assert_eq!(status, 204);
    phone.until(|heard| *heard == Heard::Closed(Some(1000))).await;
    drop(phone);
    here.until_metric("switchboard_calls_ended_total{reason=\"operator_hung_up\"}", 1).await;
    let (_, twiml) = there.webhook(ACTION, &call, "in-progress").await;
    assert!(twiml.contains("<Hangup"), "{twiml}");
}

/// Where the carrier asks when the stream of this TwiML is over.
fn action_of(twiml: &str) -> String {
    let (_, after) = twiml.split_once(&format!(r#"action="{PUBLIC_URL}"#)).expect("a stream");
    after.split(['#', '"']).next().unwrap().replace("&amp;", "&")
}

#[tokio::test]
async fn a_caller_whom_no_pod_has_taken_yet_is_greeted_without_the_store() {
    for is_lost_at_once in [true, false] {
        let mut redis = Redis::start(&format!("untaken-{is_lost_at_once}"));
        let mut leaving =
            redis.pod_with("sales-media-0", |config| config.drain_window = Some(DEADLINE * 10)).await;
        let other = redis.pod("sales-media-1").await;
        let mut holding = leaving.dial(&call_sid(1)).await;
        holding.until(|heard| matches!(heard, Heard::Audio(_))).await;
        let left = tokio::spawn(leaving.leave());
        leaving.until_metric("switchboard_draining", 1).await;

        let call = call_sid(2);
        let twiml = other.announce(&call).await;
        if is_lost_at_once {
            redis.kill();
        }
        let mut turned_away = leaving.stream(&call, &token_of(&twiml)).await;
        assert_eq!(turned_away.hear().await, Heard::Closed(Some(1000)));
        let (_, twiml) = other.webhook(&action_of(&twiml), &call, "in-progress").await;
        if !is_lost_at_once {
            redis.kill();
        }
        let mut phone = other.stream(&call, &token_of(&twiml)).await;
        phone.until(|heard| matches!(heard, Heard::Audio(_))).await;
        assert_eq!(other.metric("switchboard_legs_started_total{leg=\"fresh\"}").await, 1);
        left.abort();
    }
}

#[tokio::test]
async fn a_running_call_survives_the_loss_of_redis() {
    let mut redis = Redis::start("outage");
    let pod = redis.pod("sales-media-0").await;
    let mut phone = pod.dial(&call_sid(1)).await;
    phone.listen_until_said(&pod, 1).await;
    redis.kill();

    phone.speak(400).await;
    phone.pause(600).await;
    phone.listen(300).await; // the caller is answered
    let mut new = pod.dial(&call_sid(2)).await;
    new.until(|heard| matches!(heard, Heard::Audio(_))).await;
    assert!(pod.metric("switchboard_store_failures_total").await > 0);
    phone.stop().await;
    phone.until(|heard| matches!(heard, Heard::Closed(_))).await;
    drop(phone);
    pod.until_metric("switchboard_calls_ended_total{reason=\"caller_hung_up\"}", 1).await;
}
