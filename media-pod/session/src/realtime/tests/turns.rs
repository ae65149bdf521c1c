//! Turn flow (protocol sheet 5.7), greeting, the response queue, usage.

use super::*;
use crate::io::Usage;

#[test]
fn a_turn_in_the_usual_order() {
    let mut bench = Bench::live(config());
    assert_eq!(bench.server(bare(SPEECH_STARTED)), [Out::Told(ModelEvent::SpeechStarted)]);
    assert_eq!(bench.server(bare(SPEECH_STOPPED)), [Out::Told(ModelEvent::SpeechStopped)]);
    assert_eq!(bench.server(bare("input_audio_buffer.committed")), []);
    assert_eq!(bench.server(json!({"type": "conversation.item.added", "item": {"type": "message"}})), []);
    assert_eq!(bench.server(created("resp_1", None)), [started("resp_1")]);
    assert_eq!(bench.server(item_added("resp_1", "item_1")), []);
    assert_eq!(bench.server(bare("response.content_part.added")), []);
    assert_eq!(bench.server(audio("resp_1", "item_1", 100)), [heard("resp_1", "item_1", 100)]);
    assert_eq!(bench.server(bare("response.output_audio_transcript.delta")), []);
    assert_eq!(bench.server(audio("resp_1", "item_1", 60)), [heard("resp_1", "item_1", 60)]);
    let of_item =
        |name: &str| json!({"type": name, "response_id": "resp_1", "item_id": "item_1", "transcript": "Hi!"});
    assert_eq!(
        bench.server(of_item("response.output_audio.done")),
        [Out::Told(ModelEvent::AudioDone { item: "item_1".into() })]
    );
    let said = ModelEvent::AgentTranscript { item: "item_1".into(), text: "Hi!".to_owned().into() };
    assert_eq!(bench.server(of_item("response.output_audio_transcript.done")), [Out::Told(said)]);
    let message = json!({"id": "item_1", "type": "message", "status": "completed", "role": "assistant",
                         "content": [{"type": "output_audio", "transcript": "Hi!"}]});
    let item_done = json!({"type": "response.output_item.done", "response_id": "resp_1", "item": message});
    assert_eq!(bench.server(item_done), [], "said and ended already");
    assert_eq!(bench.server(done("resp_1", "completed")), [ended("resp_1", ReplyOutcome::Completed)]);
    let late = json!({"type": "conversation.item.input_audio_transcription.completed", "item_id": "item_u",
                      "content_index": 0, "transcript": "Hello?", "usage": {"type": "duration", "seconds": 1.2}});
    let words = ModelEvent::CallerTranscript { item: "item_u".into(), text: "Hello?".to_owned().into() };
    assert_eq!(bench.server(late), [Out::Told(words)]);
    assert_eq!(bench.deadline(), None);
}

#[test]
fn words_and_end_of_audio_come_from_the_item_when_their_own_events_do_not() {
    let mut bench = Bench::live(config());
    bench.server(created("resp_1", None));
    bench.server(audio("resp_1", "item_1", 20));
    let message = json!({"id": "item_1", "type": "message", "status": "completed",
                         "content": [{"type": "output_audio", "transcript": "Good"},
                                     {"type": "output_audio", "transcript": "day"}]});
    assert_eq!(
        bench.server(json!({"type": "response.output_item.done", "response_id": "resp_1", "item": message})),
        [
            Out::Told(ModelEvent::AgentTranscript {
                item: "item_1".into(),
                text: "Good day".to_owned().into()
            }),
            Out::Told(ModelEvent::AudioDone { item: "item_1".into() }),
        ]
    );
    bench.server(audio("resp_1", "item_2", 20));
    assert_eq!(
        bench.server(done("resp_1", "completed")),
        [
            Out::Told(ModelEvent::AudioDone { item: "item_2".into() }),
            ended("resp_1", ReplyOutcome::Completed),
        ]
    );
}

#[test]
fn audio_of_something_that_never_began_is_dropped() {
    let mut bench = Bench::live(config());
    let stale = RealtimeError::Stale { what: "audio" };
    assert_eq!(bench.refused(audio("resp_1", "item_1", 20)), stale);
    bench.server(created("resp_1", None));
    assert_eq!(bench.refused(audio("resp_0", "item_1", 20)), stale);
    // Never announced, but of the reply that runs: older servers do so.
    assert_eq!(bench.server(audio("resp_1", "item_9", 20)), [heard("resp_1", "item_9", 20)]);
    bench.server(done("resp_1", "completed"));
    assert_eq!(bench.refused(audio("resp_1", "item_9", 20)), stale);
}

#[test]
fn the_greeting_is_said_word_for_word_and_without_tools() {
    let mut bench = Bench::live(config());
    let outputs = bench.speak(verbatim("Hello, this is \"Ann\"."));
    let [Out::Sent(create)] = &outputs[..] else { panic!("{outputs:?}") };
    assert_eq!(create["type"], "response.create");
    assert_eq!(create["response"]["tool_choice"], "none");
    assert_eq!(create["response"]["metadata"], json!({"request": "response_1"}));
    let instructions = create["response"]["instructions"].as_str().unwrap();
    assert!(instructions.ends_with("\n\nHello, this is \"Ann\"."), "{instructions}");
    assert_eq!(bench.server(created("resp_1", Some("response_1"))), [started("resp_1")]);
}

#[test]
fn one_response_at_a_time_and_the_others_wait_in_order() {
    let mut bench = Bench::live(config());
    assert_eq!(bench.speak(Speech::Reply), [asked("response_1")]);
    assert_eq!(bench.speak(verbatim("one")), []);
    assert_eq!(bench.speak(Speech::Reply), []);
    assert_eq!(bench.speak(Speech::Reply), [], "one open-ended reply is enough");
    assert_eq!(bench.server(created("resp_1", Some("response_1"))), [started("resp_1")]);
    let outputs = bench.server(done("resp_1", "completed"));
    assert_eq!(outputs.len(), 2);
    assert_eq!(outputs[0], ended("resp_1", ReplyOutcome::Completed));
    assert!(matches!(&outputs[1], Out::Sent(create) if create["event_id"] == "response_2"
        && create["response"]["tool_choice"] == "none"));
    assert_eq!(bench.server(created("resp_2", Some("response_2"))), [started("resp_2")]);
    assert_eq!(
        bench.server(done("resp_2", "completed")),
        [ended("resp_2", ReplyOutcome::Completed), asked("response_3")]
    );
}

#[test]
fn the_queue_of_speeches_is_bounded() {
    let mut bench = Bench::live(config());
    bench.speak(verbatim("0"));
    let refused = (0..50).filter(|n| {
        let speech = ModelCommand::Speak(verbatim(&n.to_string()));
        bench.try_input(RealtimeInput::Command(speech)) == Err(RealtimeError::QueueFull { what: "speak" })
    });
    assert_eq!(refused.count(), 50 - responses::MAX_QUEUE);
}

#[test]
fn a_request_that_loses_the_race_against_the_server_is_asked_again_afterwards() {
    // The server echoes tags, so its own response is known as such.
    let mut bench = Bench::live(config());
    bench.speak(Speech::Reply);
    bench.server(created("resp_1", Some("response_1")));
    bench.server(done("resp_1", "completed"));
    assert_eq!(bench.speak(Speech::Reply), [asked("response_2")]);
    assert_eq!(bench.server(created("resp_2", None)), [started("resp_2")]);
    assert_eq!(
        bench.server(error("conversation_already_has_active_response", Some("response_2"))),
        [refusal(RefusalClass::Benign)]
    );
    assert_eq!(
        bench.server(done("resp_2", "completed")),
        [ended("resp_2", ReplyOutcome::Completed), asked("response_3")]
    );
}

#[test]
fn a_race_with_a_server_that_echoes_nothing_ends_the_same_way() {
    let mut bench = Bench::live(config());
    assert_eq!(bench.speak(Speech::Reply), [asked("response_1")]);
    assert_eq!(bench.server(created("resp_1", None)), [started("resp_1")]);
    assert_eq!(
        bench.server(error("conversation_already_has_active_response", None)),
        [refusal(RefusalClass::Benign)]
    );
    assert_eq!(
        bench.server(done("resp_1", "completed")),
        [ended("resp_1", ReplyOutcome::Completed), asked("response_2")]
    );
    // This time it is ours: nothing is asked for again.
    assert_eq!(bench.server(created("resp_2", None)), [started("resp_2")]);
    assert_eq!(bench.server(done("resp_2", "completed")), [ended("resp_2", ReplyOutcome::Completed)]);
    assert_eq!(bench.deadline(), None);
}

#[test]
fn our_response_may_begin_after_the_servers_own_without_being_refused() {
    let mut bench = Bench::live(config());
    bench.speak(Speech::Reply);
    bench.server(created("resp_1", Some("response_1")));
    bench.server(done("resp_1", "completed"));
    assert_eq!(bench.speak(Speech::Reply), [asked("response_2")]);
    bench.server(created("resp_2", None));
    assert_eq!(bench.server(done("resp_2", "completed")), [ended("resp_2", ReplyOutcome::Completed)]);
    assert_eq!(bench.speak(verbatim("x")), [], "the second request is still in flight");
    assert_eq!(bench.server(created("resp_3", Some("response_2"))), [started("resp_3")]);
}

#[test]
fn a_turn_the_server_could_not_answer_itself_is_answered_afterwards() {
    let mut bench = Bench::live(RealtimeConfig { server_interrupts: false, ..config() });
    bench.server(created("resp_1", None));
    bench.server(bare(SPEECH_STARTED));
    bench.server(bare(SPEECH_STOPPED));
    assert_eq!(
        bench.server(error("conversation_already_has_active_response", None)),
        [refusal(RefusalClass::Benign)]
    );
    assert_eq!(
        bench.server(done("resp_1", "completed")),
        [ended("resp_1", ReplyOutcome::Completed), asked("response_1")]
    );
}

#[test]
fn every_status_of_a_response_has_its_outcome() {
    let outcomes = [
        ("completed", ReplyOutcome::Completed),
        ("cancelled", ReplyOutcome::Cancelled),
        ("incomplete", ReplyOutcome::Incomplete),
        ("failed", ReplyOutcome::Failed),
        ("brand_new", ReplyOutcome::Completed),
    ];
    let mut bench = Bench::live(config());
    for (status, outcome) in outcomes {
        bench.server(created(status, None));
        assert_eq!(bench.server(done(status, status)), [ended(status, outcome)]);
        assert_eq!(bench.refused(done(status, status)), RealtimeError::Stale { what: "response.done" });
    }
}

#[test]
fn usage_splits_cached_from_fresh_and_lives_with_missing_counts() {
    let full = json!({"total_tokens": 253, "input_tokens": 132, "output_tokens": 121,
        "input_token_details": {"text_tokens": 119, "audio_tokens": 13, "cached_tokens": 64,
            "cached_tokens_details": {"text_tokens": 64, "audio_tokens": 0}},
        "output_token_details": {"text_tokens": 30, "audio_tokens": 91}});
    let without_details = json!({"input_tokens": 10, "output_tokens": 4});
    let cached_without_details =
        json!({"input_token_details": {"text_tokens": 5, "audio_tokens": 9, "cached_tokens": 7}});
    let cases = [
        (
            full,
            Usage {
                text_in: 55,
                text_cached: 64,
                audio_in: 13,
                audio_cached: 0,
                text_out: 30,
                audio_out: 91,
            },
        ),
        (without_details, Usage { text_in: 10, text_out: 4, ..Usage::default() }),
        (cached_without_details, Usage { text_cached: 5, audio_in: 7, audio_cached: 2, ..Usage::default() }),
    ];
    for (usage, expected) in cases {
        let mut bench = Bench::live(config());
        bench.server(created("resp_1", None));
        let event = json!({"type": "response.done", "response": {"id": "resp_1", "status": "completed", "usage": usage}});
        assert_eq!(
            bench.server(event),
            [Out::Told(ModelEvent::Usage(expected)), ended("resp_1", ReplyOutcome::Completed)]
        );
    }
}

#[test]
fn usage_that_cannot_be_read_does_not_keep_a_response_alive() {
    let mut bench = Bench::live(config());
    bench.server(created("resp_1", None));
    let event = json!({"type": "response.done", "response": {"id": "resp_1", "status": 7, "status_details": "no",
                       "metadata": [1], "usage": {"input_token_details": 3}}});
    assert_eq!(bench.server(event), [ended("resp_1", ReplyOutcome::Completed)]);
}

#[test]
fn a_server_that_falls_silent_in_a_reply_or_before_it_is_given_up() {
    let mut bench = Bench::live(config());
    bench.speak(Speech::Reply);
    assert_eq!(bench.deadline(), Some(responses::REQUEST_TIMEOUT));
    assert_eq!(bench.wait(), lost(ModelLoss::Protocol));

    let mut bench = Bench::live(config());
    bench.server(created("resp_1", None));
    bench.pass(Ms(20_000));
    let delta =
        json!({"type": "response.output_audio_transcript.delta", "response_id": "resp_1", "delta": "a"});
    bench.server(delta);
    assert_eq!(bench.deadline(), Some(Ms(20_000) + responses::RESPONSE_STALL));
    assert_eq!(bench.wait(), lost(ModelLoss::Protocol));
}

#[test]
fn a_response_without_a_sound_gives_signs_of_life_once_a_second() {
    let arguments = |response: &str| json!({"type": "response.function_call_arguments.delta", "response_id": response, "delta": "{"});
    let mut bench = Bench::live(config());
    bench.server(created("resp_1", None));
    bench.pass(Ms(999));
    assert_eq!(bench.server(arguments("resp_1")), []);
    bench.pass(Ms(1));
    let working = [Out::Told(ModelEvent::Working { reply: "resp_1".into() })];
    assert_eq!(bench.server(arguments("resp_1")), working);
    assert_eq!(bench.server(arguments("resp_1")), []);
    bench.pass(Ms(1000));
    assert_eq!(bench.server(arguments("resp_2")), [], "of another response");
    assert_eq!(bench.server(arguments("resp_1")), working);
    // Audio says as much.
    bench.pass(Ms(1000));
    bench.server(audio("resp_1", "item_1", 20));
    assert_eq!(bench.server(arguments("resp_1")), []);
    // What the caller interrupted is of no interest any more.
    bench.pass(Ms(1000));
    bench.command(ModelCommand::Interrupt { heard: Vec::new() });
    assert_eq!(bench.server(arguments("resp_1")), []);
}

#[test]
fn a_response_that_is_replaced_without_an_end_has_failed() {
    let mut bench = Bench::live(config());
    bench.server(created("resp_1", None));
    assert_eq!(
        bench.server(created("resp_2", None)),
        [ended("resp_1", ReplyOutcome::Failed), started("resp_2")]
    );
    assert_eq!(bench.refused(created("resp_2", None)), RealtimeError::Stale { what: "response.created" });
}

#[test]
fn a_refusal_may_come_after_the_response_it_was_taken_for_is_over() {
    let mut bench = Bench::live(config());
    bench.speak(Speech::Reply);
    bench.server(created("resp_1", None));
    bench.server(done("resp_1", "completed"));
    bench.server(created("resp_2", None));
    assert_eq!(
        bench.server(error("conversation_already_has_active_response", Some("response_1"))),
        [refusal(RefusalClass::Benign)]
    );
    assert_eq!(
        bench.server(done("resp_2", "completed")),
        [ended("resp_2", ReplyOutcome::Completed), asked("response_2")]
    );
}
