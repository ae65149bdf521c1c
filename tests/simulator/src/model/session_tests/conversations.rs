//! Whole conversations, as a correct client has them.

use super::*;

#[test]
fn a_session_tells_its_defaults_and_then_what_it_was_told() {
    let mut client = Client::connected();
    assert_eq!(
        client.received[0]["session"]["audio"]["input"]["format"],
        json!({"type": "audio/pcm", "rate": 24000})
    );
    assert_eq!(client.types(), ["session.created", "conversation.created"]);
    client.send(json!({"type": "session.update", "session": telephony()}));
    assert_eq!(client.types(), [] as [&str; 0], "the answer takes its time");
    client.wait(20);
    let session = &client.one("session.updated")["session"];
    assert_eq!(
        session["audio"]["output"],
        json!({"format": {"type": "audio/pcmu"}, "voice": "marin", "speed": 1.0})
    );
    assert_eq!(session["audio"]["input"]["turn_detection"]["silence_duration_ms"], 500);
    assert_eq!(
        (&session["instructions"], &session["expires_at"]),
        (&json!("You are kind."), &json!(1_800_003_600))
    );
    assert_eq!(client.violations.list(), vec![]);
}

#[test]
fn a_spoken_question_is_answered_in_the_documented_order() {
    let mut client = Client::configured();
    client.pause(400);
    client.speak(&clip(HOURS).mulaw);
    client.pause(600);
    client.wait(10_000);
    let answer = "We are open from eight in the morning until six in the evening, Monday to Friday, and on Saturday from nine until one.";
    assert_eq!(client.audio(), agent(answer));
    let started = client.one("input_audio_buffer.speech_started").clone();
    assert!((50..200).contains(&started["audio_start_ms"].as_u64().expect("ms")), "{started}");
    assert_eq!(client.one("input_audio_buffer.committed")["item_id"], started["item_id"]);
    let transcript = client.one("conversation.item.input_audio_transcription.completed");
    assert_eq!((&transcript["transcript"], &transcript["item_id"]), (&json!(HOURS), &started["item_id"]));
    assert_eq!(client.one("response.output_audio_transcript.done")["transcript"], answer);
    let deltas = client.all("response.output_audio_transcript.delta");
    let pieces: String = deltas.iter().filter_map(|event| event["delta"].as_str()).collect();
    assert_eq!(pieces, answer);
    let done = &client.one("response.done")["response"];
    assert_eq!(
        (&done["status"], &done["output"][0]["content"][0]["transcript"]),
        (&json!("completed"), &json!(answer))
    );
    assert!(done["usage"]["output_token_details"]["audio_tokens"].as_u64() > Some(100), "{done}");
    assert_eq!(
        client.types(),
        [
            "input_audio_buffer.speech_started",
            "input_audio_buffer.speech_stopped",
            "input_audio_buffer.committed",
            "conversation.item.added",
            "conversation.item.done",
            "response.created",
            "response.output_item.added",
            "conversation.item.added",
            "response.content_part.added",
            "response.output_audio_transcript.delta",
            "response.output_audio.delta",
            "conversation.item.input_audio_transcription.delta",
            "conversation.item.input_audio_transcription.completed",
            "response.output_audio.done",
            "response.output_audio_transcript.done",
            "response.content_part.done",
            "response.output_item.done",
            "conversation.item.done",
            "response.done",
            "rate_limits.updated",
        ]
    );
    assert_eq!(client.remembered(), [said("user", HOURS), said("assistant", answer)]);
    assert_eq!(client.violations.list(), vec![]);
}

#[test]
fn audio_comes_faster_than_real_time_but_not_at_once() {
    let mut client = Client::configured();
    client.create_item(json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": "opening hours"}]}));
    client.send(json!({"type": "response.create"}));
    client.wait(140);
    assert_eq!(client.audio().len(), 0);
    client.wait(10 + 250);
    let sounding = client.audio().len() / mulaw::BYTES_PER_MS; // 250 ms at eight times
    assert!((2000..2800).contains(&sounding), "{sounding}");
}

#[test]
fn speech_cuts_the_answer_and_a_truncation_cuts_its_memory() {
    let mut client = Client::configured();
    client.create_item(json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": "opening hours"}]}));
    client.send(json!({"type": "response.create"}));
    client.pause(300);
    client.received.retain(|event| event["type"] == "response.output_item.added");
    let item_id = client.one("response.output_item.added")["item"]["id"].clone();
    client.received.clear();
    client.speak(&clip("Wait, stop, that is not what I meant.").mulaw[..4000]);
    let done = client.one("response.done")["response"].clone();
    assert_eq!(done["status_details"], json!({"type": "cancelled", "reason": "turn_detected"}));
    assert_eq!(done["output"][0]["status"], "incomplete");
    assert_eq!(client.one("response.output_audio.done")["item_id"], item_id);
    client.received.clear();
    client.send(json!({"type": "conversation.item.truncate", "item_id": item_id, "content_index": 0, "audio_end_ms": 620}));
    assert_eq!(client.types(), ["conversation.item.truncated"]);
    let remembered = client.remembered()[1].1.clone();
    assert!(remembered.starts_with("We are") && remembered.split(' ').count() < 5, "{remembered}");
    client.speak(&clip("Wait, stop, that is not what I meant.").mulaw[4000..]);
    client.pause(600);
    client.wait(5000);
    assert_eq!(client.audio(), agent("Sorry, could you say that again?"));
    assert_eq!(client.remembered()[2], said("user", "Wait, stop, that is not what I meant."));
    assert_eq!(client.session.log().truncations[0].audio_end_milliseconds, 620);
    assert_eq!(client.violations.list(), vec![]);
}

#[test]
fn without_interrupt_response_the_answer_goes_on_and_the_next_one_waits() {
    let mut session = telephony()["audio"].clone();
    session["input"]["turn_detection"]["interrupt_response"] = json!(false);
    let mut client = Client::with_session(json!({"audio": session}));
    client.session.behaviour.speed_percent = 100;
    client.send(json!({"type": "response.create", "response": {"instructions": "Say exactly: \"We are open from eight in the morning until six in the evening, Monday to Friday, and on Saturday from nine until one.\""}}));
    client.speak(&clip(HOURS).mulaw);
    client.pause(600);
    assert_eq!((client.all("response.created").len(), client.all("response.done").len()), (1, 0));
    client.wait(20_000);
    let statuses: Vec<&Value> =
        client.all("response.done").iter().map(|event| &event["response"]["status"]).collect();
    assert_eq!(statuses, ["completed", "completed"]);
    assert_eq!(client.violations.list(), vec![]);
}

#[test]
fn a_client_may_cancel_and_only_what_is_active() {
    let mut client = Client::configured();
    client.send(json!({"type": "response.create", "response": {"instructions": "Say \"Thank you for calling. Goodbye.\""}}));
    client.wait(200);
    client.send(json!({"type": "response.cancel"}));
    let details = client.one("response.done")["response"]["status_details"].clone();
    assert_eq!(details, json!({"type": "cancelled", "reason": "client_cancelled"}));
    client.received.clear();
    client.send(json!({"type": "response.cancel", "event_id": "mine"}));
    let error = &client.one("error")["error"];
    assert_eq!((&error["code"], &error["event_id"]), (&json!("response_cancel_not_active"), &json!("mine")));
    client.wait(5000);
    assert_eq!(client.all("response.output_audio.delta").len(), 0, "nothing comes after the end");
    assert_eq!(client.violations.list(), vec![], "it may have ended on the way");
}

#[test]
fn a_tool_call_goes_out_and_its_output_is_spoken_about() {
    let mut client = Client::configured();
    client.speak(&clip(ORDER).mulaw);
    client.pause(600);
    client.wait(5000);
    let calls: Vec<Value> = client
        .all("response.output_item.done")
        .iter()
        .map(|event| event["item"].clone())
        .filter(|item| item["type"] == "function_call")
        .collect();
    let [call] = &calls[..] else { panic!("{calls:?}") };
    assert_eq!(
        (&call["name"], &call["arguments"], &call["status"]),
        (&json!("lookup_order"), &json!("{\"id\":\"42\"}"), &json!("completed"))
    );
    assert_eq!(client.one("response.function_call_arguments.done")["call_id"], call["call_id"]);
    assert_eq!(client.audio(), agent("Of course."));
    client.received.clear();
    client.create_item(
        json!({"type": "function_call_output", "call_id": call["call_id"], "output": "it is on its way"}),
    );
    client.send(json!({"type": "response.create"}));
    client.wait(5000);
    assert_eq!(
        client.one("response.output_audio_transcript.done")["transcript"],
        "I found it, it is on its way."
    );
    let roles: Vec<String> = client.remembered().into_iter().map(|(role, _)| role).collect();
    assert_eq!(roles, ["user", "assistant", "function_call", "function_call_output", "assistant"]);
    assert_eq!(client.violations.list(), vec![]);
}

#[test]
fn a_tool_that_is_not_offered_is_not_called() {
    let mut client = Client::with_session(json!({"tools": []}));
    client.create_item(
        json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": "my order"}]}),
    );
    client.send(json!({"type": "response.create"}));
    client.wait(5000);
    assert_eq!(client.remembered().last(), Some(&said("assistant", "I have no tool named lookup_order.")));
}

#[test]
fn keys_told_as_text_count_as_input() {
    let mut client = Client::configured();
    client.create_item(json!({"type": "message", "role": "system", "content": [{"type": "input_text", "text": "The caller pressed key 5."}]}));
    client.send(json!({"type": "response.create"}));
    client.wait(5000);
    assert_eq!(client.audio(), agent("You pressed five."));
}

#[test]
fn a_replayed_conversation_is_remembered_and_only_what_is_new_is_answered() {
    let mut client = Client::configured();
    for (role, kind, text) in [
        ("user", "input_text", "opening hours?"),
        ("assistant", "output_text", "Eight to six."),
        ("user", "input_text", "key 5"),
    ] {
        client
            .create_item(json!({"type": "message", "role": role, "content": [{"type": kind, "text": text}]}));
    }
    client.create_item(
        json!({"type": "function_call", "call_id": "call_old", "name": "lookup_order", "arguments": "{}"}),
    );
    client.create_item(json!({"type": "function_call_output", "call_id": "call_old", "output": "done"}));
    client.create_item(
        json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": "key 5"}]}),
    );
    client.send(json!({"type": "response.create"}));
    client.wait(5000);
    assert_eq!(client.remembered().last(), Some(&said("assistant", "You pressed five.")));
    assert_eq!(client.violations.list(), vec![]);
}

#[test]
fn an_answer_can_be_out_of_band_in_text_or_limited() {
    let mut client = Client::configured();
    client.send(json!({"type": "response.create", "response": {
        "conversation": "none", "output_modalities": ["text"], "instructions": "Say \"In writing.\"", "metadata": {"purpose": "note"},
    }}));
    client.wait(5000);
    assert_eq!(client.one("response.output_text.done")["text"], "In writing.");
    assert_eq!(client.one("response.done")["response"]["metadata"], json!({"purpose": "note"}));
    assert_eq!(client.remembered(), []);
    client.received.clear();
    client.send(json!({"type": "response.create", "response": {"instructions": "Say \"Thank you for calling. Goodbye.\"", "max_output_tokens": 20}}));
    client.wait(5000);
    let done = &client.one("response.done")["response"];
    assert_eq!(done["status_details"], json!({"type": "incomplete", "reason": "max_output_tokens"}));
    assert_eq!(client.audio().len(), 8000, "20 tokens are a second");
}

#[test]
fn turns_can_be_committed_by_hand_and_detected_semantically() {
    let mut audio = telephony()["audio"].clone();
    audio["input"]["turn_detection"] = Value::Null;
    let mut client = Client::with_session(json!({"audio": audio}));
    client.speak(&clip(HOURS).mulaw);
    client.pause(1000);
    assert_eq!(client.types(), [] as [&str; 0]);
    client.send(json!({"type": "input_audio_buffer.commit"}));
    assert_eq!(
        client.types(),
        ["input_audio_buffer.committed", "conversation.item.added", "conversation.item.done"]
    );
    audio["input"]["turn_detection"] = json!({"type": "semantic_vad", "eagerness": "high"});
    let mut client = Client::with_session(json!({"audio": audio}));
    client.speak(&clip(HOURS).mulaw);
    client.pause(500);
    assert_eq!(client.all("response.created").len(), 1);
    assert_eq!(client.violations.list(), vec![]);
}

#[test]
fn a_caller_who_says_nothing_is_asked_again_after_the_idle_timeout() {
    let mut audio = telephony()["audio"].clone();
    audio["input"]["turn_detection"] = json!({"type": "server_vad", "idle_timeout_ms": 5000});
    let mut client = Client::with_session(json!({"audio": audio}));
    client.send(json!({"type": "response.create", "response": {"instructions": "Say \"Thank you for calling. Goodbye.\""}}));
    client.wait(1000);
    let sounding = client.audio().len() / mulaw::BYTES_PER_MS;
    client.pause(sounding - 1000 + 150 + 4980);
    assert_eq!(client.all("input_audio_buffer.timeout_triggered").len(), 0);
    client.pause(40);
    client.wait(2000);
    assert_eq!(client.all("input_audio_buffer.timeout_triggered").len(), 1);
    let transcripts: Vec<&Value> = client
        .all("response.output_audio_transcript.done")
        .iter()
        .map(|event| &event["transcript"])
        .collect();
    assert_eq!(transcripts, ["Thank you for calling. Goodbye.", "Is there anything else I can do for you?"]);
    assert_eq!(client.violations.list(), vec![]);
}

#[test]
fn altered_audio_is_not_understood() {
    let mut client = Client::configured();
    let quieter: Vec<u8> =
        clip(HOURS).mulaw.iter().map(|byte| mulaw::encode(mulaw::decode(*byte) / 2)).collect();
    client.speak(&quieter);
    client.pause(600);
    client.wait(5000);
    let transcript = client.one("conversation.item.input_audio_transcription.completed");
    assert_eq!(transcript["transcript"], "[unintelligible]");
}

#[test]
fn an_hour_ends_the_session() {
    let mut client = Client::configured();
    client.wait(3_600_000);
    assert_eq!(client.one("error")["error"]["code"], "session_expired");
    assert_eq!(client.closed, Some((1001, "session_expired")));
}
