//! Barge-in (protocol sheet 5.8).

use super::*;

/// A reply with one item of which this much has come.
fn speaking(config: RealtimeConfig, ms: usize) -> Bench {
    let mut bench = Bench::live(config);
    bench.server(created("resp_1", None));
    bench.server(item_added("resp_1", "item_1"));
    bench.server(audio("resp_1", "item_1", ms));
    bench
}

const STALE: RealtimeError = RealtimeError::Stale { what: "audio" };

#[test]
fn a_server_that_interrupts_is_only_told_what_was_heard() {
    let mut bench = speaking(config(), 800);
    bench.server(bare(SPEECH_STARTED));
    assert_eq!(bench.interrupt(&[("item_1", 300)]), [truncated(1, "item_1", 300)]);
    assert_eq!(bench.refused(audio("resp_1", "item_1", 20)), STALE);
    assert_eq!(bench.refused(audio("resp_1", "item_2", 20)), STALE, "nothing of the reply is delivered");
    assert_eq!(bench.server(done("resp_1", "cancelled")), [ended("resp_1", ReplyOutcome::Cancelled)]);
    assert_eq!(bench.refused(audio("resp_1", "item_1", 20)), STALE);
}

#[test]
fn audio_between_the_servers_cancel_and_our_cut_is_delivered() {
    let mut bench = speaking(config(), 100);
    bench.server(bare(SPEECH_STARTED));
    assert_eq!(bench.server(audio("resp_1", "item_1", 20)), [heard("resp_1", "item_1", 20)]);
}

#[test]
fn a_server_that_does_not_interrupt_is_cancelled_first() {
    let mut bench = speaking(patient_config(), 800);
    bench.server(bare(SPEECH_STARTED));
    assert_eq!(bench.interrupt(&[("item_1", 300)]), [cancelled("resp_1"), truncated(1, "item_1", 300)]);
    assert_eq!(bench.interrupt(&[("item_1", 300)]), [], "once");
}

#[test]
fn an_interruption_without_speech_cancels_also_where_the_server_would_by_itself() {
    let mut bench = speaking(config(), 800);
    assert_eq!(bench.interrupt(&[]), [cancelled("resp_1")]);
}

#[test]
fn a_reply_that_is_over_is_truncated_and_not_cancelled() {
    let mut bench = speaking(patient_config(), 800);
    bench.server(done("resp_1", "completed"));
    bench.server(bare(SPEECH_STARTED));
    assert_eq!(bench.interrupt(&[("item_1", 0)]), [truncated(1, "item_1", 0)]);
}

#[test]
fn a_truncation_never_goes_past_what_came_and_unknown_items_are_left_alone() {
    let mut bench = speaking(config(), 100);
    bench.server(item_added("resp_1", "item_2"));
    let heard = [("item_1", 5000), ("item_2", 10), ("item_9", 10)];
    assert_eq!(bench.interrupt(&heard), [cancelled("resp_1"), truncated(1, "item_1", 100)]);
}

#[test]
fn several_items_are_each_cut_in_order() {
    let mut bench = speaking(config(), 100);
    bench.server(done("resp_1", "completed"));
    bench.server(created("resp_2", None));
    bench.server(audio("resp_2", "item_2", 200));
    bench.server(bare(SPEECH_STARTED));
    assert_eq!(
        bench.interrupt(&[("item_1", 60), ("item_2", 0)]),
        [truncated(1, "item_1", 60), truncated(2, "item_2", 0)]
    );
}

#[test]
fn races_of_cancel_and_truncate_are_benign() {
    let mut bench = speaking(patient_config(), 100);
    bench.interrupt(&[("item_1", 50)]);
    assert_eq!(bench.server(error("response_cancel_not_active", None)), [refusal(RefusalClass::Benign)]);
    assert_eq!(bench.server(error("invalid_value", Some("truncate_1"))), [refusal(RefusalClass::Benign)]);
    let nameless = json!({"type": "error", "error": {"type": "invalid_request_error", "code": "invalid_value",
        "message": "Audio content of 40ms is already shorter than 50ms"}});
    assert_eq!(bench.server(nameless), [refusal(RefusalClass::Benign)]);
}

#[test]
fn a_reply_asked_for_and_interrupted_before_it_began_is_cancelled_when_it_begins() {
    let mut bench = Bench::live(config());
    bench.speak(Speech::Reply);
    assert_eq!(bench.interrupt(&[]), []);
    assert_eq!(bench.server(created("resp_1", Some("response_1"))), [started("resp_1"), cancelled("resp_1")]);
    assert_eq!(bench.refused(audio("resp_1", "item_1", 20)), STALE);
    assert_eq!(bench.server(done("resp_1", "cancelled")), [ended("resp_1", ReplyOutcome::Cancelled)]);
}

#[test]
fn what_waits_in_the_queue_is_said_after_the_interrupted_reply_is_over() {
    let mut bench = speaking(patient_config(), 100);
    assert_eq!(bench.speak(Speech::Reply), []);
    bench.interrupt(&[("item_1", 50)]);
    assert_eq!(
        bench.server(done("resp_1", "cancelled")),
        [ended("resp_1", ReplyOutcome::Cancelled), asked("response_1")]
    );
}

#[test]
fn the_words_of_an_interrupted_item_still_arrive() {
    let mut bench = speaking(config(), 100);
    bench.server(bare(SPEECH_STARTED));
    bench.interrupt(&[("item_1", 50)]);
    let words = json!({"type": "response.output_audio_transcript.done", "response_id": "resp_1", "item_id": "item_1",
                       "content_index": 0, "transcript": "Well, as I"});
    let said = ModelEvent::AgentTranscript { item: "item_1".into(), text: "Well, as I".to_owned().into() };
    assert_eq!(bench.server(words), [Out::Told(said)]);
}
