//! Full calls on loopback against a naive product: obedient it is accepted by the strict rules, and each fault is named.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod faults;
mod product;
mod relay;
mod rest;

use std::time::Duration;

use futures_util::StreamExt as _;
use product::{NUMBER, PUBLIC, Script, events, start, start_with};
use serde_json::{Value, json};
use simulator::caller::{Patience, Step, Until, Wait};
use simulator::carrier::record::{EndReason, Event, Status, View};
use simulator::carrier::signature::StreamUrlForm;
use simulator::carrier::{Answers, Callee, Carrier};
use simulator::violations::Rule;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

const CALLER: &str = "+15557654321";

async fn call(carrier: &Carrier, steps: Vec<Step>) -> View {
    carrier.place_inbound(CALLER, NUMBER, steps).unwrap().finished().await
}

fn expect_hang_up() -> Vec<Step> {
    vec![Step::ExpectHangUp(Patience { seconds: 10 })]
}

fn position(view: &View, wanted: impl Fn(&Event) -> bool) -> u64 {
    view.timeline.iter().find(|timed| wanted(&timed.event)).map(|timed| timed.at_milliseconds).unwrap()
}

#[tokio::test]
async fn an_obedient_product_is_interrupted_and_hangs_up_without_a_violation() {
    let (carrier, product) = start(Script { closes_after_caller: true, ..Script::default() }).await;
    let steps = vec![
        Step::InterruptAfterMilliseconds(300),
        Step::Say("Stop.".into()),
        Step::ExpectHangUp(Patience { seconds: 10 }),
    ];
    let record = carrier.place_inbound(CALLER, NUMBER, steps).unwrap();
    let view = record.finished().await;
    assert_eq!(carrier.violations().list(), vec![]);
    assert_eq!((view.status, view.end_reason), (Status::Completed, Some(EndReason::HangupVerb)));
    assert_eq!(view.failed_step, None);
    assert_eq!(product.paths(), vec!["/voice", "/action", "/status"]);
    assert_eq!(product.seen.lock().unwrap().wrong_signatures, 0);
    assert_eq!(product.parameter("/status", "CallStatus").as_deref(), Some("completed"));
    assert_eq!(product.parameter("/action", "CallStatus").as_deref(), Some("in-progress"));
    assert_eq!(product.parameter("/voice", "CallStatus").as_deref(), Some("ringing"));

    // The barge-in: the caller speaks, the product clears, the agent is silent, in this order.
    let barge_in = view.timeline.iter().find_map(|timed| match timed.event {
        Event::BargeIn { caller_spoke_at, cleared_at, agent_silent_at } => {
            Some((caller_spoke_at, cleared_at, agent_silent_at))
        }
        _ => None,
    });
    let (spoke, cleared, silent) = barge_in.unwrap();
    assert!(spoke <= cleared && cleared <= silent, "{spoke} {cleared} {silent}");
    assert!(spoke >= position(&view, |event| *event == Event::AgentStartedSpeaking) + 300);
    let order = events(&record);
    let kept =
        ["answered", "streamStarted", "agentStartedSpeaking", "callerStartedSpeaking", "cleared", "bargeIn"];
    let order: Vec<_> = order.iter().filter(|event| kept.contains(&event.as_str())).collect();
    assert_eq!(order, kept.iter().collect::<Vec<_>>());
    assert!(view.heard.voiced_milliseconds >= 300);
    assert!(record.recording().starts_with(b"RIFF"));
}

#[tokio::test]
async fn the_stream_counts_its_messages_and_frames_without_a_gap() {
    let (carrier, product) = start(Script { closes_after_caller: true, ..Script::default() }).await;
    let wait = Wait { until: Until::Silent, seconds: 20 };
    let view = call(&carrier, vec![Step::WaitForAgent(wait), Step::Press("5#".into()), Step::HangUp]).await;
    assert_eq!((view.end_reason, view.failed_step), (Some(EndReason::CallerHungUp), None));
    assert_eq!(carrier.violations().list(), vec![]);
    let messages = product.seen.lock().unwrap().messages.clone();
    assert_eq!(messages[0], json!({"event": "connected", "protocol": "Call", "version": "1.0.0"}));
    let start = &messages[1];
    let sid = start["streamSid"].as_str().unwrap();
    assert_eq!(
        *start,
        json!({
            "event": "start", "sequenceNumber": "1", "streamSid": sid,
            "start": {
                "accountSid": "AC00000000000000000000000000000001", "streamSid": sid, "callSid": view.sid,
                "tracks": ["inbound"], "customParameters": {"token": "abc"},
                "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            },
        })
    );
    for (index, message) in messages[1..].iter().enumerate() {
        assert_eq!(message["sequenceNumber"], (index + 1).to_string());
    }
    let media: Vec<&Value> = messages.iter().filter(|message| message["event"] == "media").collect();
    for (index, message) in media.iter().enumerate() {
        let media = &message["media"];
        assert_eq!(
            (&media["chunk"], &media["timestamp"]),
            (&json!((index + 1).to_string()), &json!((index * 20).to_string()))
        );
        assert_eq!((&media["track"], media["payload"].as_str().unwrap().len()), (&json!("inbound"), 216));
    }
    let rest: Vec<Value> =
        messages[2..].iter().filter(|message| message["event"] != "media").cloned().collect();
    let bodies: Vec<_> = rest
        .iter()
        .map(|message| (&message["event"], &message[message["event"].as_str().unwrap()]))
        .collect();
    let dtmf = |digit: &str| json!({"track": "inbound_track", "digit": digit});
    let stop = json!({"accountSid": "AC00000000000000000000000000000001", "callSid": view.sid});
    assert_eq!(
        bodies,
        vec![
            (&json!("mark"), &json!({"name": "end"})),
            (&json!("dtmf"), &dtmf("5")),
            (&json!("dtmf"), &dtmf("#")),
            (&json!("stop"), &stop),
        ]
    );
}

#[tokio::test]
async fn without_an_action_the_next_verb_runs_after_the_stream() {
    let voice = r#"<Connect><Stream url="wss://voice.test/stream"/></Connect><Say>Bye.</Say>"#;
    let (carrier, product) = start(Script { voice, closes_after_caller: true, ..Script::default() }).await;
    let steps = vec![Step::Say("Hi.".into()), Step::ExpectHangUp(Patience { seconds: 20 })];
    let view = call(&carrier, steps).await;
    assert_eq!((view.end_reason, view.failed_step), (Some(EndReason::TwimlEnded), None));
    assert_eq!(carrier.violations().list(), vec![]);
    assert_eq!(product.paths(), vec!["/voice", "/status"]);
    let verbs: Vec<_> = view
        .timeline
        .iter()
        .filter_map(|timed| match timed.event {
            Event::VerbStarted { verb } => Some(verb),
            _ => None,
        })
        .collect();
    assert_eq!(verbs, vec!["Connect", "Say"]);
}

#[tokio::test]
async fn a_dialled_person_answers_and_the_action_hears_how_it_ended() {
    let voice = r#"<Dial action="/action"><Number>+15558675310</Number></Dial>"#;
    for (answers, status) in [(Answers::Yes, "completed"), (Answers::Busy, "busy")] {
        let callee = Callee {
            number: "+15558675310".into(),
            answers,
            after_milliseconds: 40,
            steps: vec![Step::Say("Hi.".into())],
        };
        let script = Script { voice, ..Script::default() };
        let (carrier, product) = start_with(script, |settings| settings.callees.push(callee)).await;
        let view = call(&carrier, expect_hang_up()).await;
        assert_eq!(carrier.violations().list(), vec![]);
        assert_eq!(product.parameter("/action", "DialCallStatus").as_deref(), Some(status));
        assert_eq!(view.heard.voiced_milliseconds > 0, answers == Answers::Yes);
    }
}

#[tokio::test]
async fn a_rejected_call_is_never_answered() {
    let (carrier, product) = start(Script { voice: r#"<Reject reason="busy"/>"#, ..Script::default() }).await;
    let view = call(&carrier, expect_hang_up()).await;
    assert_eq!((view.status, view.end_reason), (Status::Busy, Some(EndReason::RejectVerb)));
    assert_eq!(product.parameter("/status", "CallStatus").as_deref(), Some("busy"));
    assert_eq!(view.heard.milliseconds, 0);
}

#[tokio::test]
async fn a_step_that_is_not_done_in_time_is_named_and_ends_the_call() {
    let (carrier, _) = start(Script::default()).await;
    let steps = vec![Step::Pause(20), Step::ExpectHangUp(Patience { seconds: 1 })];
    let view = call(&carrier, steps).await;
    assert_eq!(view.end_reason, Some(EndReason::CallerGaveUp));
    assert_eq!(view.failed_step.map(|failure| (failure.step, failure.reason)), Some((2, "not in time")));
}

#[tokio::test]
async fn a_webhook_that_fails_is_replaced_by_its_fallback() {
    let table = [
        ("/never#tt=100", Rule::WebhookTimeout, "11200"),
        ("/round", Rule::WebhookRedirects, "11215"),
        ("/missing", Rule::WebhookStatus, "11200"),
    ];
    for (path, rule, code) in table {
        let (carrier, product) = start_with(Script { voice: "<Hangup/>", ..Script::default() }, |settings| {
            let urls =
                [("voiceUrl", format!("{PUBLIC}{path}")), ("voiceFallbackUrl", format!("{PUBLIC}/voice"))];
            let urls = urls.map(|(name, url)| (name.to_owned(), url));
            settings.numbers[0].set_fields(&urls.into()).unwrap();
        })
        .await;
        let view = call(&carrier, expect_hang_up()).await;
        assert_eq!(carrier.violations().rules(), vec![rule]);
        assert_eq!(view.end_reason, Some(EndReason::HangupVerb));
        assert_eq!(product.paths(), vec!["/voice", "/status"]);
        assert_eq!(product.parameter("/voice", "ErrorCode").as_deref(), Some(code));
        assert_eq!(product.parameter("/voice", "ErrorUrl"), Some(format!("{PUBLIC}{path}")));
    }
}

#[tokio::test]
async fn both_variants_of_what_is_not_published_can_be_chosen() {
    let (carrier, product) =
        start_with(Script::default(), |settings| settings.action_after_hang_up = true).await;
    let view = call(&carrier, vec![Step::Pause(100), Step::HangUp]).await;
    assert_eq!(view.end_reason, Some(EndReason::CallerHungUp));
    assert_eq!(product.paths(), vec!["/voice", "/action", "/status"]);
    assert_eq!(product.parameter("/action", "CallStatus").as_deref(), Some("completed"));
    assert_eq!(carrier.violations().list(), vec![]);

    // The naive product knows one form of the upgrade's URL only.
    let form = StreamUrlForm::TrailingSlash;
    let (carrier, _) = start_with(Script::default(), |settings| settings.stream_url_form = form).await;
    call(&carrier, expect_hang_up()).await;
    assert_eq!(carrier.violations().rules(), vec![Rule::StreamHandshake]);
}

#[tokio::test]
async fn a_second_stream_of_the_same_name_is_recorded() {
    let voice = r#"<Connect><Stream url="wss://voice.test/stream" name="a"/></Connect><Connect><Stream url="wss://voice.test/stream" name="a"/></Connect>"#;
    let (carrier, _) = start(Script { voice, closes_after_caller: true, ..Script::default() }).await;
    let steps = vec![Step::Say("Hi.".into()), Step::Pause(60_000)];
    let _record = carrier.place_inbound(CALLER, NUMBER, steps).unwrap();
    let noticed = async {
        while carrier.violations().count() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), noticed).await.unwrap();
    assert_eq!(carrier.violations().rules(), vec![Rule::StreamName]);
}

#[tokio::test]
async fn a_socket_that_is_no_websocket_any_more_is_recorded() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let edge = format!("https://raw.test=http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let mut socket = tokio_tungstenite::accept_async(tcp).await.unwrap();
        socket.get_mut().write_all(&[0x83, 0x00]).await.unwrap(); // an opcode that there is not
        while let Some(Ok(_)) = socket.next().await {}
    });
    let voice = r#"<Connect><Stream url="wss://raw.test/stream"/></Connect>"#;
    let (carrier, _) = start_with(Script { voice, ..Script::default() }, |settings| {
        settings.edges.push(edge.parse().unwrap());
    })
    .await;
    let view = call(&carrier, expect_hang_up()).await;
    assert_eq!(view.end_reason, Some(EndReason::TwimlEnded));
    assert_eq!(carrier.violations().rules(), vec![Rule::StreamProtocol]);
}

#[tokio::test]
async fn each_broken_rule_is_recorded() {
    let ordinary = Script { closes_after_caller: true, ..Script::default() };
    let messages = |texts: &[&str]| Script {
        first_messages: texts.iter().map(|text| (*text).to_owned()).collect(),
        ..ordinary.clone()
    };
    let silence = "/".repeat(11 * 60 * 8000 / 3 * 4);
    let eleven_minutes =
        format!(r#"{{"event":"media","streamSid":"{{sid}}","media":{{"payload":"{silence}"}}}}"#);
    let table = [
        (Script { status: 500, ..ordinary.clone() }, Rule::WebhookStatus),
        (Script { content_type: "application/json", ..ordinary.clone() }, Rule::WebhookContentType),
        (Script { voice: "no xml", content_type: "text/xml", ..ordinary.clone() }, Rule::TwimlParse),
        (Script { voice: "<Speak>x</Speak>", ..ordinary.clone() }, Rule::TwimlSchema),
        (
            Script {
                voice: r#"<Connect><Stream url="ws://voice.test/stream"/></Connect>"#,
                ..ordinary.clone()
            },
            Rule::StreamScheme,
        ),
        (
            Script { voice: r#"<Connect><Stream url="wss://other.test/x"/></Connect>"#, ..ordinary.clone() },
            Rule::StreamConnect,
        ),
        (
            Script {
                voice: r#"<Connect><Stream url="wss://voice.test/none"/></Connect>"#,
                ..ordinary.clone()
            },
            Rule::StreamHandshake,
        ),
        (Script { refuses_stream: true, ..ordinary.clone() }, Rule::StreamHandshake),
        (Script { voice: "<Redirect>/voice</Redirect>", ..ordinary.clone() }, Rule::TwimlLoop),
        (
            Script { voice: "<Redirect>https://gone.test/voice</Redirect>", ..ordinary.clone() },
            Rule::WebhookUnreachable,
        ),
        (
            Script { voice: r#"<Dial callerId="+15550009999">+15558675310</Dial>"#, ..ordinary.clone() },
            Rule::DialCallerId,
        ),
        (Script { sends_binary: true, ..ordinary.clone() }, Rule::StreamBinaryFrame),
        (Script { status_reply: "thanks", ..ordinary.clone() }, Rule::CallbackReply),
        (
            messages(&[r#"{"event":"media","streamSid":"{sid}","media":{"payload":"UklGRgAA"}}"#]),
            Rule::StreamPayloadHeader,
        ),
        (
            messages(&[eleven_minutes.as_str(), r#"{"event":"clear","streamSid":"{sid}"}"#]),
            Rule::StreamBufferOverflow,
        ),
        (messages(&["{}"]), Rule::StreamInvalidMessage),
        (messages(&[r#"{"event":"clear","streamSid":"MZother"}"#]), Rule::StreamWrongSid),
        (
            messages(&[r#"{"event":"media","streamSid":"{sid}","media":{"payload":"*"}}"#]),
            Rule::StreamPayloadBase64,
        ),
    ];
    let calls = table.into_iter().map(async |(script, rule)| {
        let (carrier, _) = start(script).await;
        call(&carrier, vec![Step::Say("Hi.".into()), Step::ExpectHangUp(Patience { seconds: 10 })]).await;
        assert_eq!(carrier.violations().rules(), vec![rule], "{:?}", carrier.violations().list());
    });
    futures_util::future::join_all(calls).await;
}
