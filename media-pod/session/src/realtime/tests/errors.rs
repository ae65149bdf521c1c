//! Errors of every class (protocol sheet 5.6), before and after the session is there.

use super::*;

fn server_error(about: Option<&str>) -> Value {
    json!({"type": "error", "error": {"type": "server_error", "code": null, "message": "…", "event_id": about}})
}

#[test]
fn fatal_codes_end_the_connection_in_every_state() {
    let codes = [
        ("session_expired", ModelLoss::Expired),
        ("invalid_api_key", ModelLoss::Rejected),
        ("insufficient_quota", ModelLoss::Rejected),
        ("model_not_found", ModelLoss::Rejected),
        ("beta_api_shape_disabled", ModelLoss::Rejected),
    ];
    for (code, reason) in codes {
        assert_eq!(Bench::new().server(error(code, None)), lost(reason), "{code}, opening");
        assert_eq!(Bench::live(config()).server(error(code, None)), lost(reason), "{code}, live");
    }
}

#[test]
fn other_codes_are_refusals_and_the_connection_lives_on() {
    let codes = [
        ("missing_required_parameter", RefusalClass::InvalidRequest),
        ("unknown_parameter", RefusalClass::InvalidRequest),
        ("invalid_value", RefusalClass::InvalidRequest),
        ("invalid_event", RefusalClass::InvalidRequest),
        ("input_audio_buffer_commit_empty", RefusalClass::InvalidRequest),
        ("never_heard_of", RefusalClass::InvalidRequest),
        ("response_cancel_not_active", RefusalClass::Benign),
        ("conversation_already_has_active_response", RefusalClass::Benign),
        ("rate_limit_exceeded", RefusalClass::RateLimited),
    ];
    let mut bench = Bench::live(config());
    for (code, class) in codes {
        assert_eq!(bench.server(error(code, None)), [refusal(class)], "{code}");
    }
    assert_eq!(bench.server(server_error(None)), [refusal(RefusalClass::Server)]);
    assert_eq!(bench.server(json!({"type": "error", "error": {}})), [refusal(RefusalClass::InvalidRequest)]);
    assert_eq!(bench.deadline(), None);
}

#[test]
fn a_session_the_server_refuses_is_rejected() {
    let configuring = || {
        let mut bench = Bench::new();
        bench.server(json!({"type": "session.created", "session": {}}));
        bench.input(RealtimeInput::Configure(Box::new(config())));
        bench
    };
    assert_eq!(
        configuring().server(error("invalid_value", Some("session_update"))),
        lost(ModelLoss::Rejected)
    );
    assert_eq!(configuring().server(error("unknown_parameter", None)), lost(ModelLoss::Rejected));
    assert_eq!(configuring().server(server_error(None)), lost(ModelLoss::Unreachable));
    assert_eq!(configuring().server(error("rate_limit_exceeded", None)), lost(ModelLoss::Unreachable));
}

#[test]
fn a_reply_that_failed_says_why() {
    let failed = |code: &str| {
        json!({"type": "response.done", "response": {"id": "resp_1", "status": "failed",
            "status_details": {"type": "failed", "error": {"type": "…", "code": code, "message": "…"}}}})
    };
    let over = ended("resp_1", ReplyOutcome::Failed);
    let mut bench = Bench::live(config());
    bench.server(created("resp_1", None));
    assert_eq!(
        bench.server(failed("rate_limit_exceeded")),
        [over.clone(), refusal(RefusalClass::RateLimited)]
    );
    bench.server(created("resp_1", None));
    assert_eq!(bench.server(failed("server_error")), [over.clone(), refusal(RefusalClass::Server)]);
    bench.server(created("resp_1", None));
    let [told, closed, end] = lost(ModelLoss::Rejected);
    assert_eq!(bench.server(failed("insufficient_quota")), [over, told, closed, end]);
}

#[test]
fn a_request_refused_for_its_rate_is_asked_again_ever_later_and_then_given_up() {
    let mut bench = Bench::live(config());
    assert_eq!(bench.speak(Speech::Reply), [asked("response_1")]);
    let mut pauses = Vec::new();
    for attempt in 1..=6 {
        let tag = format!("response_{attempt}");
        assert_eq!(
            bench.server(error("rate_limit_exceeded", Some(&tag))),
            [refusal(RefusalClass::RateLimited)]
        );
        pauses.push(bench.deadline().unwrap().since(bench.now).0);
        assert_eq!(bench.wait(), [asked(&format!("response_{}", attempt + 1))]);
    }
    assert_eq!(pauses, [250, 500, 1000, 2000, 4000, 8000]);
    assert_eq!(bench.server(error("rate_limit_exceeded", Some("response_7"))), lost(ModelLoss::Unreachable));
}

#[test]
fn a_request_that_is_wrong_is_not_repeated() {
    let mut bench = Bench::live(config());
    bench.speak(Speech::Reply);
    assert_eq!(
        bench.server(error("invalid_value", Some("response_1"))),
        [refusal(RefusalClass::InvalidRequest)]
    );
    assert_eq!(bench.deadline(), None);
    assert_eq!(bench.speak(Speech::Reply), [asked("response_2")]);
}

#[test]
fn bad_frames_are_refused_by_kind_and_change_nothing() {
    let mut bench = Bench::live(config());
    bench.server(created("resp_1", None));
    let text = |text: &'static str| RealtimeInput::Frame(Bytes::from_static(text.as_bytes()));
    let cases = [
        ("", RealtimeError::NotAnEvent),
        ("[]", RealtimeError::NotAnEvent),
        ("{\"type\":7}", RealtimeError::NotAnEvent),
        ("{\"type\":\"response.created\"", RealtimeError::NotAnEvent),
        ("{\"type\":\"brand.new\",\"delta\":{\"a\":[1]},\"item_id\":null}", RealtimeError::UnknownEvent),
        (
            "{\"type\":\"response.created\",\"response\":{}}",
            RealtimeError::Malformed { event: "response.created" },
        ),
        (
            "{\"type\":\"response.done\",\"response\":null}",
            RealtimeError::Malformed { event: "response.done" },
        ),
        (
            "{\"type\":\"response.audio.delta\",\"response_id\":\"resp_1\",\"item_id\":\"i\",\"delta\":\"no*\"}",
            RealtimeError::Malformed { event: "response.output_audio.delta" },
        ),
        (
            "{\"type\":\"response.output_item.done\",\"response_id\":\"resp_1\",\"item\":{\"type\":\"function_call\",\"status\":\"completed\"}}",
            RealtimeError::Malformed { event: "response.output_item.done" },
        ),
    ];
    for (frame, expected) in cases {
        assert_eq!(bench.try_input(text(frame)), Err(expected), "{frame}");
    }
    let huge = RealtimeInput::Frame(Bytes::from(vec![b' '; MAX_FRAME + 1]));
    assert_eq!(bench.try_input(huge), Err(RealtimeError::TooLarge { size: MAX_FRAME + 1 }));
    assert_eq!(bench.server(audio("resp_1", "item_1", 20)), [heard("resp_1", "item_1", 20)]);
}
