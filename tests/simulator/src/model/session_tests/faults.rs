//! Each switch of the model's faults does what it says, and nothing else happens.

use super::*;

/// A configured client facing these.
fn facing(faults: ModelFaults) -> Client {
    let mut client = Client::facing(faults);
    client.send(json!({"type": "session.update", "session": telephony()}));
    client.wait(20);
    client
}

/// The same after one whole reply.
fn after_a_reply(faults: ModelFaults) -> Client {
    let mut client = facing(faults);
    client.received.clear();
    let request = json!({"instructions": "Say exactly: \"Hello.\"", "metadata": {"purpose": "greeting"}});
    client.send(json!({"type": "response.create", "response": request}));
    client.wait(20_000);
    client
}

#[test]
fn a_session_is_announced_late_or_never() {
    let late = ModelFaults { session_created_milliseconds: 3000, ..ModelFaults::default() };
    let mut client = Client::facing(late);
    assert_eq!(client.types(), [] as [&str; 0]);
    client.wait(3000);
    assert_eq!(client.types(), ["session.created", "conversation.created"]);
    let never = ModelFaults { omit_session_created: true, ..ModelFaults::default() };
    let mut client = facing(never);
    assert_eq!(client.types(), ["session.updated"]);
}

#[test]
fn settings_are_confirmed_late_or_never() {
    let never = ModelFaults { omit_session_updated: true, ..ModelFaults::default() };
    let mut client = facing(never);
    client.wait(60_000);
    assert!(client.all("session.updated").is_empty());
    let late = ModelFaults { session_updated_milliseconds: 5000, ..ModelFaults::default() };
    let mut client = facing(late);
    assert!(client.all("session.updated").is_empty());
    client.wait(5000);
    client.one("session.updated");
}

#[test]
fn a_session_expires_closes_with_a_code_or_is_cut() {
    let expires = ModelFaults { expire_after_milliseconds: Some(2000), ..ModelFaults::default() };
    let mut client = facing(expires);
    client.wait(2000);
    assert_eq!(client.one("error")["error"]["code"], "session_expired");
    assert_eq!(client.closed, Some((1001, "session_expired")));
    for (close_code, closed) in [(Some(1011), (1011, "simulated fault")), (None, (0, "cut"))] {
        let faults =
            ModelFaults { close_after_milliseconds: Some(2000), close_code, ..ModelFaults::default() };
        let mut client = facing(faults);
        assert_eq!(client.closed, None);
        client.wait(2000);
        assert_eq!(client.closed, Some(closed));
    }
}

#[test]
fn a_session_that_ends_soon_says_so_and_does() {
    let soon = ModelFaults { session_limit_seconds: Some(12), ..ModelFaults::default() };
    let mut client = facing(soon);
    let announced = |client: &Client| client.one("session.created")["session"]["expires_at"].clone();
    let an_hour = announced(&facing(ModelFaults::default())).as_u64().unwrap();
    assert_eq!(announced(&client), an_hour - 3600 + 12);
    client.wait(11_900);
    assert_eq!(client.closed, None);
    client.wait(100);
    assert_eq!(client.closed, Some((1001, "session_expired")));
}

#[test]
fn a_reply_stops_in_the_middle_until_it_is_cancelled() {
    let faults = ModelFaults { silent_after_milliseconds: Some(200), ..ModelFaults::default() };
    let mut client = after_a_reply(faults);
    assert!((1..=200 * 8).contains(&client.audio().len()), "{}", client.audio().len());
    assert!(client.all("response.done").is_empty());
    client.send(json!({"type": "response.cancel"}));
    assert_eq!(client.one("response.done")["response"]["status"], "cancelled");
    assert_eq!(client.violations.list(), vec![]);
}

#[test]
fn a_reply_floods_the_client() {
    let honest = after_a_reply(ModelFaults::default()).audio().len();
    let faults = ModelFaults { flood_milliseconds: 60_000, ..ModelFaults::default() };
    let client = after_a_reply(faults);
    assert_eq!(client.audio().len(), honest + 60_000 * 8);
    client.one("response.done");
}

#[test]
fn replies_fail_so_many_times() {
    let faults = ModelFaults { failing_replies: 1, ..ModelFaults::default() };
    let mut client = after_a_reply(faults);
    let response = client.one("response.done")["response"].clone();
    assert_eq!((&response["status"], client.audio().len()), (&json!("failed"), 0));
    assert_eq!(response["status_details"]["error"]["code"], "rate_limit_exceeded");
    client.received.clear();
    client.send(json!({"type": "response.create"}));
    client.wait(20_000);
    assert_eq!(client.one("response.done")["response"]["status"], "completed");
}

#[test]
fn audio_comes_for_an_item_that_was_never_announced() {
    let faults = ModelFaults { unannounced_audio: true, ..ModelFaults::default() };
    let client = after_a_reply(faults);
    let announced: Vec<_> =
        client.all("response.output_item.added").iter().map(|event| event["item"]["id"].clone()).collect();
    let strangers: Vec<_> = client
        .all("response.output_audio.delta")
        .into_iter()
        .filter(|event| !announced.contains(&event["item_id"]))
        .collect();
    assert_eq!(strangers.len(), 1, "{strangers:?}");
}

#[test]
fn events_have_their_beta_names() {
    let faults = ModelFaults { beta_names: true, ..ModelFaults::default() };
    let mut client = after_a_reply(faults);
    let types = client.types();
    for name in ["response.audio.delta", "response.audio_transcript.done", "conversation.item.created"] {
        assert!(types.iter().any(|known| known == name), "{name} in {types:?}");
    }
    assert!(!types.iter().any(|name| name.contains("output_audio") || name == "conversation.item.added"));
}

#[test]
fn metadata_is_not_repeated_and_errors_come_from_nowhere() {
    let honest = after_a_reply(ModelFaults::default());
    assert_eq!(honest.one("response.done")["response"]["metadata"], json!({"purpose": "greeting"}));
    let faults = ModelFaults { omit_metadata: true, ..ModelFaults::default() };
    assert_eq!(after_a_reply(faults).one("response.done")["response"]["metadata"], Value::Null);
    let faults = ModelFaults { error_code: Some("rate_limit_exceeded".to_owned()), ..ModelFaults::default() };
    assert_eq!(facing(faults).one("error")["error"]["code"], "rate_limit_exceeded");
}
