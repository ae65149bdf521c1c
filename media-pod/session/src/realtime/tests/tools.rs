//! The tool loop (protocol sheet 5.9).

use super::*;

/// A reply that has made these calls.
fn calling(config: RealtimeConfig, calls: &[&str]) -> Bench {
    let mut bench = Bench::live(config);
    bench.server(created("resp_1", None));
    for call in calls {
        assert_eq!(bench.server(tool_call("resp_1", call, "completed")), [called("resp_1", call)]);
    }
    bench
}

fn acknowledged(call: &str) -> Value {
    json!({"type": "conversation.item.added", "item": {"id": "i", "type": "function_call_output", "call_id": call}})
}

#[test]
fn the_model_goes_on_once_the_reply_is_over_and_every_output_is_in() {
    let mut bench = calling(config(), &["call_1", "call_2"]);
    assert_eq!(bench.tool_output("call_1", "1"), [output_sent("call_1", "1")]);
    assert_eq!(bench.server(done("resp_1", "completed")), [ended("resp_1", ReplyOutcome::Completed)]);
    assert_eq!(bench.tool_output("call_2", "2"), [output_sent("call_2", "2"), asked("response_1")]);
    bench.server(created("resp_2", Some("response_1")));
    assert_eq!(bench.server(done("resp_2", "completed")), [ended("resp_2", ReplyOutcome::Completed)]);
    assert_eq!(bench.deadline(), None);
}

#[test]
fn outputs_that_are_in_before_the_reply_is_over_wait_for_its_end() {
    let mut bench = calling(config(), &["call_1"]);
    assert_eq!(bench.tool_output("call_1", "1"), [output_sent("call_1", "1")]);
    assert_eq!(
        bench.server(done("resp_1", "completed")),
        [ended("resp_1", ReplyOutcome::Completed), asked("response_1")]
    );
}

#[test]
fn an_output_is_sent_once_and_only_for_a_call_of_this_connection() {
    let mut bench = calling(config(), &["call_1"]);
    bench.tool_output("call_1", "1");
    for call in ["call_1", "call_9"] {
        let output = ModelCommand::ToolOutput { call: call.into(), output: "again".to_owned().into() };
        assert_eq!(
            bench.try_input(RealtimeInput::Command(output)),
            Err(RealtimeError::Stale { what: "tool output" })
        );
    }
}

#[test]
fn a_call_is_passed_on_once_and_only_when_it_is_complete() {
    let mut bench = calling(config(), &["call_1"]);
    let repeated = RealtimeError::Stale { what: "tool call" };
    assert_eq!(bench.refused(tool_call("resp_1", "call_1", "completed")), repeated);
    let cut = RealtimeError::Stale { what: "incomplete tool call" };
    assert_eq!(bench.refused(tool_call("resp_1", "call_2", "incomplete")), cut);
    assert_eq!(
        bench.refused(tool_call("resp_7", "call_3", "completed")),
        RealtimeError::Stale { what: "item" }
    );
    let duplicate = json!({"type": "response.function_call_arguments.done", "response_id": "resp_1",
        "item_id": "fc_1", "output_index": 0, "call_id": "call_1", "name": "lookup_order", "arguments": "{}"});
    assert_eq!(bench.server(duplicate), []);
    bench.tool_output("call_1", "1");
    bench.server(done("resp_1", "completed"));
    bench.server(created("resp_2", Some("response_1")));
    assert_eq!(bench.refused(tool_call("resp_2", "call_1", "completed")), repeated, "also after its answer");
}

#[test]
fn a_finished_call_of_an_interrupted_reply_keeps_its_result() {
    let mut bench = calling(patient_config(), &["call_1"]);
    bench.server(bare(SPEECH_STARTED));
    assert_eq!(bench.interrupt(&[]), [cancelled("resp_1")]);
    assert_eq!(bench.tool_output("call_1", "1"), [output_sent("call_1", "1")]);
    bench.server(done("resp_1", "cancelled"));
    bench.server(bare(SPEECH_STOPPED));
    assert_eq!(bench.wait(), [asked("response_1")], "nothing else answered the caller");
}

#[test]
fn a_response_of_the_server_that_is_active_is_waited_for() {
    let mut bench = calling(config(), &["call_1"]);
    bench.server(done("resp_1", "completed"));
    bench.server(bare(SPEECH_STARTED));
    bench.server(bare(SPEECH_STOPPED));
    bench.server(created("resp_2", None));
    assert_eq!(bench.tool_output("call_1", "1"), [output_sent("call_1", "1")]);
    assert_eq!(bench.server(acknowledged("call_1")), []);
    assert_eq!(
        bench.server(done("resp_2", "completed")),
        [ended("resp_2", ReplyOutcome::Completed), asked("response_1")],
        "it began before the output was there"
    );
}

#[test]
fn nothing_is_asked_for_over_the_callers_voice_and_the_servers_answer_counts() {
    let mut bench = calling(config(), &["call_1"]);
    bench.server(done("resp_1", "completed"));
    bench.server(bare(SPEECH_STARTED));
    assert_eq!(bench.tool_output("call_1", "1"), [output_sent("call_1", "1")]);
    assert_eq!(bench.server(acknowledged("call_1")), []);
    assert_eq!(bench.server(bare(SPEECH_STOPPED)), [Out::Told(ModelEvent::SpeechStopped)]);
    assert_eq!(bench.server(created("resp_2", None)), [started("resp_2")]);
    assert_eq!(bench.server(done("resp_2", "completed")), [ended("resp_2", ReplyOutcome::Completed)]);
    assert_eq!(bench.deadline(), None, "resp_2 has seen the output");
}

#[test]
fn a_server_that_acknowledges_nothing_is_asked_in_any_case() {
    let mut bench = calling(config(), &["call_1"]);
    bench.server(done("resp_1", "completed"));
    bench.server(bare(SPEECH_STARTED));
    bench.tool_output("call_1", "1");
    bench.server(bare(SPEECH_STOPPED));
    bench.server(created("resp_2", None));
    assert_eq!(
        bench.server(done("resp_2", "completed")),
        [ended("resp_2", ReplyOutcome::Completed), asked("response_1")]
    );
}

#[test]
fn speech_without_an_end_does_not_hold_a_result_back_for_ever() {
    let mut bench = calling(config(), &["call_1"]);
    bench.server(done("resp_1", "completed"));
    bench.server(bare(SPEECH_STARTED));
    assert_eq!(bench.tool_output("call_1", "1"), [output_sent("call_1", "1")]);
    assert_eq!(bench.deadline(), Some(Ms(60_000)));
    assert_eq!(bench.wait(), [asked("response_1")]);
}

#[test]
fn a_reply_the_call_asks_for_answers_the_tools_as_well() {
    let mut bench = calling(patient_config(), &["call_1"]);
    bench.server(bare(SPEECH_STARTED));
    bench.tool_output("call_1", "1");
    bench.server(done("resp_1", "completed"));
    bench.server(bare(SPEECH_STOPPED));
    assert_eq!(bench.speak(Speech::Reply), [asked("response_1")]);
    bench.server(created("resp_2", Some("response_1")));
    assert_eq!(bench.server(done("resp_2", "completed")), [ended("resp_2", ReplyOutcome::Completed)]);
    assert_eq!(bench.deadline(), None);
}

#[test]
fn words_said_verbatim_do_not_answer_the_tools() {
    let mut bench = calling(config(), &["call_1"]);
    bench.speak(verbatim("One moment."));
    bench.tool_output("call_1", "1");
    let outputs = bench.server(done("resp_1", "completed"));
    assert!(matches!(&outputs[..], [_, Out::Sent(create)] if create["response"]["tool_choice"] == "none"));
    bench.server(created("resp_2", Some("response_1")));
    assert_eq!(
        bench.server(done("resp_2", "completed")),
        [ended("resp_2", ReplyOutcome::Completed), asked("response_2")]
    );
}

#[test]
fn a_continuation_that_was_refused_is_asked_again() {
    let mut bench = calling(config(), &["call_1"]);
    bench.server(done("resp_1", "completed"));
    assert_eq!(bench.tool_output("call_1", "1"), [output_sent("call_1", "1"), asked("response_1")]);
    assert_eq!(
        bench.server(error("conversation_already_has_active_response", Some("response_1"))),
        [refusal(RefusalClass::Benign)]
    );
    // Nothing is known to be active: it waits a little instead of asking in a circle.
    assert_eq!(bench.deadline(), Some(Ms(250)));
    assert_eq!(bench.wait(), [asked("response_2")]);
}

/// A continuation in flight, on a server that echoes our tags or not.
fn going_on(echoes_tags: bool) -> (Bench, &'static str) {
    let mut bench = Bench::live(config());
    let mut request = "response_1";
    if echoes_tags {
        bench.speak(verbatim("Hello."));
        bench.server(created("resp_0", Some("response_1")));
        bench.server(done("resp_0", "completed"));
        request = "response_2";
    }
    bench.server(created("resp_1", None));
    bench.server(tool_call("resp_1", "call_1", "completed"));
    bench.server(done("resp_1", "completed"));
    assert_eq!(bench.tool_output("call_1", "1"), [output_sent("call_1", "1"), asked(request)]);
    (bench, request)
}

#[test]
fn a_continuation_refused_for_a_reply_that_has_seen_the_outputs_is_not_asked_again() {
    for echoes_tags in [true, false] {
        let (mut bench, request) = going_on(echoes_tags);
        bench.server(acknowledged("call_1"));
        assert_eq!(bench.server(created("resp_2", None)), [started("resp_2")]);
        bench.server(error("conversation_already_has_active_response", Some(request)));
        assert_eq!(bench.server(done("resp_2", "completed")), [ended("resp_2", ReplyOutcome::Completed)]);
        assert_eq!(bench.deadline(), None, "resp_2 has seen the output");
    }
}

#[test]
fn a_continuation_refused_for_a_reply_that_began_before_the_outputs_is_asked_again() {
    for echoes_tags in [true, false] {
        let (mut bench, request) = going_on(echoes_tags);
        bench.server(created("resp_2", None));
        bench.server(acknowledged("call_1"));
        bench.server(error("conversation_already_has_active_response", Some(request)));
        let outputs = bench.server(done("resp_2", "completed"));
        let next = if echoes_tags { "response_3" } else { "response_2" };
        assert_eq!(outputs, [ended("resp_2", ReplyOutcome::Completed), asked(next)]);
    }
}

#[test]
fn more_calls_than_can_be_kept_are_refused() {
    let mut bench = Bench::live(config());
    bench.server(created("resp_1", None));
    let refused = (0..200).filter(|n| {
        let event = frame(&tool_call("resp_1", &format!("call_{n}"), "completed"));
        bench.try_input(event) == Err(RealtimeError::QueueFull { what: "tool call" })
    });
    assert_eq!(refused.count(), 200 - 128);
}
