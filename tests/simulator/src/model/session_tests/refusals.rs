//! What a client does wrong, one case of every kind.

use super::*;

#[test]
fn every_wrong_event_is_refused_and_recorded() {
    let update = |session: Value| json!({"type": "session.update", "session": session});
    let item = |item: Value| json!({"type": "conversation.item.create", "item": item});
    let input = |input: Value| update(json!({"type": "realtime", "audio": {"input": input}}));
    let table: Vec<(Value, &str, Rule)> = vec![
        (json!({"type": "session.updat"}), "invalid_value", Rule::ModelUnknownEvent),
        (json!({"event": "media"}), "invalid_event", Rule::ModelUnknownEvent),
        (json!([1]), "invalid_event", Rule::ModelUnknownEvent),
        (json!({"type": "response.create", "now": true}), "unknown_parameter", Rule::ModelInvalidEvent),
        (json!({"type": "response.create", "event_id": 7}), "invalid_value", Rule::ModelInvalidEvent),
        (
            json!({"type": "response.create", "response": {"modalities": ["audio"]}}),
            "unknown_parameter",
            Rule::ModelInvalidEvent,
        ),
        (
            json!({"type": "response.create", "response": {"metadata": {"a": 1}}}),
            "invalid_value",
            Rule::ModelInvalidEvent,
        ),
        (
            json!({"type": "response.create", "response": {"metadata": {"a": "x".repeat(513)}}}),
            "invalid_value",
            Rule::ModelInvalidEvent,
        ),
        (
            json!({"type": "response.create", "response": {"max_output_tokens": 0}}),
            "invalid_value",
            Rule::ModelInvalidEvent,
        ),
        (json!({"type": "output_audio_buffer.clear"}), "invalid_value", Rule::ModelInvalidEvent),
        (json!({"type": "session.update"}), "missing_required_parameter", Rule::ModelSessionUpdate),
        (update(json!({"instructions": "x"})), "missing_required_parameter", Rule::ModelSessionUpdate),
        (update(json!({"type": "transcription"})), "invalid_value", Rule::ModelSessionUpdate),
        (
            update(json!({"type": "realtime", "temperature": 0.8})),
            "unknown_parameter",
            Rule::ModelSessionUpdate,
        ),
        (
            update(json!({"type": "realtime", "voice": "marin"})),
            "unknown_parameter",
            Rule::ModelSessionUpdate,
        ),
        (
            update(json!({"type": "realtime", "model": "gpt-realtime-2"})),
            "invalid_value",
            Rule::ModelSessionUpdate,
        ),
        (
            update(json!({"type": "realtime", "output_modalities": ["text", "audio"]})),
            "invalid_value",
            Rule::ModelSessionUpdate,
        ),
        (
            update(json!({"type": "realtime", "max_output_tokens": 5000})),
            "invalid_value",
            Rule::ModelSessionUpdate,
        ),
        (
            update(json!({"type": "realtime", "audio": {"output": {"speed": 2}}})),
            "invalid_value",
            Rule::ModelSessionUpdate,
        ),
        (
            update(json!({"type": "realtime", "audio": {"output": {"voice": "bob"}}})),
            "invalid_value",
            Rule::ModelSessionUpdate,
        ),
        (
            update(json!({"type": "realtime", "tools": [{"type": "function", "name": "a", "strict": true}]})),
            "unknown_parameter",
            Rule::ModelSessionUpdate,
        ),
        (
            update(json!({"type": "realtime", "tools": [{"type": "function", "function": {"name": "a"}}]})),
            "unknown_parameter",
            Rule::ModelSessionUpdate,
        ),
        (input(json!({"format": "g711_ulaw"})), "invalid_value", Rule::ModelSessionUpdate),
        (
            input(json!({"format": {"type": "audio/pcmu", "rate": 8000}})),
            "unknown_parameter",
            Rule::ModelSessionUpdate,
        ),
        (
            input(json!({"format": {"type": "audio/pcm", "rate": 8000}})),
            "invalid_value",
            Rule::ModelSessionUpdate,
        ),
        (
            input(json!({"turn_detection": {"type": "server_vad", "threshold": 2}})),
            "invalid_value",
            Rule::ModelSessionUpdate,
        ),
        (
            input(json!({"turn_detection": {"type": "server_vad", "eagerness": "low"}})),
            "unknown_parameter",
            Rule::ModelSessionUpdate,
        ),
        (
            input(json!({"turn_detection": {"threshold": 0.5}})),
            "missing_required_parameter",
            Rule::ModelSessionUpdate,
        ),
        (
            input(json!({"transcription": {"language": "en"}})),
            "missing_required_parameter",
            Rule::ModelSessionUpdate,
        ),
        (
            input(json!({"transcription": {"model": "gpt-transcribe", "delay": "low"}})),
            "unknown_parameter",
            Rule::ModelSessionUpdate,
        ),
        (
            input(json!({"transcription": {"model": "gpt-realtime-whisper", "prompt": "x"}})),
            "unknown_parameter",
            Rule::ModelSessionUpdate,
        ),
        (
            input(json!({"transcription": {"model": "gpt-realtime-whisper"}})),
            "invalid_value",
            Rule::ModelSessionUpdate,
        ),
        (
            update(
                json!({"type": "realtime", "truncation": {"type": "retention_ratio", "retention_ratio": 2}}),
            ),
            "invalid_value",
            Rule::ModelSessionUpdate,
        ),
        (input(json!({"noise_reduction": {"type": "loud"}})), "invalid_value", Rule::ModelSessionUpdate),
        (json!({"type": "input_audio_buffer.append"}), "missing_required_parameter", Rule::ModelAppend),
        (
            json!({"type": "input_audio_buffer.append", "audio": "not base64"}),
            "invalid_value",
            Rule::ModelAppend,
        ),
        (
            json!({"type": "input_audio_buffer.append", "audio": "/".repeat((15 * 1024 * 1024 / 3 + 1) * 4)}),
            "invalid_value",
            Rule::ModelAppend,
        ),
        (json!({"type": "input_audio_buffer.append", "audio": "////"}), "", Rule::ModelEarlyAudio),
        (json!({"type": "input_audio_buffer.commit"}), "input_audio_buffer_commit_empty", Rule::ModelCommit),
        (
            item(
                json!({"type": "message", "role": "assistant", "content": [{"type": "output_audio", "audio": ""}]}),
            ),
            "invalid_value",
            Rule::ModelItem,
        ),
        (item(json!({"type": "note"})), "invalid_value", Rule::ModelItem),
        (
            json!({"type": "conversation.item.create", "previous_item_id": "item_x", "item": {"type": "message",
                "role": "user", "content": [{"type": "input_text", "text": "x"}]}}),
            "invalid_value",
            Rule::ModelItem,
        ),
        (
            item(json!({"type": "function_call_output", "call_id": "call_x", "output": "x"})),
            "invalid_value",
            Rule::ModelToolOutput,
        ),
        (json!({"type": "conversation.item.delete", "item_id": "item_x"}), "invalid_value", Rule::ModelItem),
        (
            json!({"type": "conversation.item.retrieve", "item_id": "item_x"}),
            "invalid_value",
            Rule::ModelItem,
        ),
        (
            json!({"type": "conversation.item.truncate", "item_id": "item_x", "content_index": 0, "audio_end_ms": 1}),
            "invalid_value",
            Rule::ModelTruncate,
        ),
        (
            json!({"type": "conversation.item.truncate", "item_id": "item_x", "content_index": 0, "audio_end_ms": 1.5}),
            "invalid_value",
            Rule::ModelTruncate,
        ),
        (
            json!({"type": "conversation.item.truncate", "item_id": "item_x", "content_index": 0}),
            "missing_required_parameter",
            Rule::ModelTruncate,
        ),
    ];
    for (event, code, rule) in table {
        let mut client = Client::connected();
        client.received.clear();
        client.send(event.clone());
        let codes: Vec<&str> =
            client.all("error").iter().filter_map(|error| error["error"]["code"].as_str()).collect();
        assert_eq!(codes, if code.is_empty() { vec![] } else { vec![code] }, "{event}");
        assert_eq!(client.violations.rules(), [rule], "{event}");
        client.send(json!({"type": "session.update", "session": telephony()}));
        client.wait(20);
        assert_eq!(client.all("session.updated").len(), 1, "the session lives on");
    }
}

#[test]
fn frames_that_are_no_events_are_refused() {
    let mut client = Client::connected();
    client.session.handle_binary();
    client.session.handle_text(client.now, "{");
    client.wait(0);
    assert_eq!(client.all("error").len(), 2);
    assert_eq!(client.violations.rules(), [Rule::ModelUnknownEvent; 2]);
}

#[test]
fn a_second_response_is_refused_and_excused_only_when_it_crossed_the_servers_own() {
    let mut client = Client::configured();
    client.send(json!({"type": "response.create"}));
    client.send(json!({"type": "response.create", "event_id": "second"}));
    let error = &client.one("error")["error"];
    assert_eq!(
        (&error["code"], &error["event_id"]),
        (&json!("conversation_already_has_active_response"), &json!("second"))
    );
    assert_eq!(client.violations.rules(), [Rule::ModelActiveResponse]);

    for (is_reading, waited, expected) in [(true, 0, 0), (true, 100, 1), (false, 100, 0)] {
        let mut client = Client::configured();
        client.is_reading = is_reading;
        client.speak(&clip(HOURS).mulaw);
        while client.all("response.created").is_empty() {
            client.speak(&[mulaw::SILENCE; mulaw::FRAME_BYTES]);
        }
        client.now -= Duration::from_millis(20); // back to when it was created
        client.wait(waited);
        client.send(json!({"type": "response.create"}));
        assert_eq!(
            (client.all("error").len(), client.violations.count()),
            (1, expected),
            "{is_reading} {waited}"
        );
    }
}

#[test]
fn a_truncation_past_the_audio_sent_names_both_lengths() {
    let mut client = Client::configured();
    client.send(json!({"type": "response.create", "response": {"instructions": "Say \"Thank you for calling. Goodbye.\""}}));
    client.wait(5000);
    let length = client.audio().len() / mulaw::BYTES_PER_MS;
    let item_id = client.one("response.output_item.added")["item"]["id"].clone();
    let truncate = |end: usize| json!({"type": "conversation.item.truncate", "item_id": item_id, "content_index": 0, "audio_end_ms": end});
    client.send(truncate(length + 1));
    let expected = format!("Audio content of {length}ms is already shorter than {}ms", length + 1);
    assert_eq!(client.one("error")["error"]["message"], expected);
    assert_eq!(client.violations.rules(), [Rule::ModelTruncate]);
    client.send(truncate(length));
    assert_eq!(client.all("conversation.item.truncated").len(), 1);
}

#[test]
fn a_buffer_is_not_committed_while_turns_are_detected() {
    let mut client = Client::configured();
    client.speak(&clip(HOURS).mulaw[..200 * mulaw::BYTES_PER_MS]);
    client.send(json!({"type": "input_audio_buffer.commit"}));
    assert_eq!(client.violations.rules(), [Rule::ModelCommit]);
}

#[test]
fn what_a_model_cannot_do_is_no_parameter_of_it() {
    let update = |part: Value| json!({"type": "session.update", "session": part});
    for part in [
        json!({"type": "realtime", "parallel_tool_calls": true}),
        json!({"type": "realtime", "reasoning": {"effort": "low"}}),
    ] {
        for (model, rules) in [
            ("gpt-realtime-2.1", &[][..]),
            ("gpt-realtime-1.5", &[Rule::ModelSessionUpdate]),
            ("gpt-realtime-2025-08-28", &[Rule::ModelSessionUpdate]),
        ] {
            let mut client = Client::connected_to(model);
            client.send(update(part.clone()));
            assert_eq!(client.violations.rules(), rules, "{model} {part}");
        }
    }
}

#[test]
fn the_speed_changes_between_responses_only() {
    let speed = |speed: f64| json!({"type": "session.update", "session": {"type": "realtime", "audio": {"output": {"speed": speed}}}});
    let mut client = Client::configured();
    client.send(json!({"type": "response.create"}));
    client.send(speed(1.0));
    assert_eq!(client.violations.list(), vec![]);
    client.send(speed(1.2));
    assert_eq!(client.violations.rules(), [Rule::ModelSessionUpdate]);
    client.wait(5000);
    client.send(speed(1.2));
    assert_eq!(client.violations.count(), 1);
}

#[test]
fn the_voice_stays_once_it_was_heard() {
    let voice = |name: &str| json!({"type": "session.update", "session": {"type": "realtime", "audio": {"output": {"voice": name}}}});
    let mut client = Client::configured();
    client.send(voice("cedar"));
    client.send(json!({"type": "response.create"}));
    client.wait(5000);
    client.send(voice("cedar"));
    assert_eq!(client.violations.list(), vec![]);
    client.send(voice("marin"));
    assert_eq!(client.violations.rules(), [Rule::ModelVoiceChange]);
}

#[test]
fn an_unknown_model_is_told_so_and_closed() {
    let client = Client::connected_to("gpt-5");
    assert_eq!(client.one("error")["error"]["code"], "model_not_found");
    assert_eq!(client.closed, Some((1008, "model_not_found")));
}
