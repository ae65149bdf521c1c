//! The sheet's own frames, beta spellings, and what a frame costs.

use super::*;

const GOLDEN: &[&str] = &[
    r#"{"type":"response.output_audio.delta","event_id":"event_1","response_id":"resp_1","item_id":"item_1","output_index":0,"content_index":0,"delta":"//8="}"#,
    r#"{"type":"input_audio_buffer.speech_started","event_id":"event_2","audio_start_ms":1000,"item_id":"msg_003"}"#,
    r#"{"type":"conversation.item.input_audio_transcription.completed","event_id":"event_3","item_id":"item_2","content_index":0,"transcript":"Hey, can you hear me?","usage":{"type":"tokens","total_tokens":22,"input_tokens":13,"input_token_details":{"text_tokens":0,"audio_tokens":13},"output_tokens":9}}"#,
    r#"{"type":"response.function_call_arguments.done","event_id":"event_4","response_id":"resp_002","item_id":"fc_001","output_index":0,"call_id":"call_001","name":"get_weather","arguments":"{\"location\": \"San Francisco\"}"}"#,
    r#"{"type":"rate_limits.updated","event_id":"event_5","rate_limits":[{"name":"requests","limit":1000,"remaining":999,"reset_seconds":60},{"name":"tokens","limit":50000,"remaining":49950,"reset_seconds":60.5}]}"#,
    r#"{"type":"error","event_id":"event_890","error":{"type":"invalid_request_error","code":"invalid_event","message":"The 'type' field is missing.","param":null,"event_id":"event_567"}}"#,
    r#"{"type":"response.done","event_id":"event_6","response":{"object":"realtime.response","id":"resp_1","status":"completed","status_details":null,"output":[{"id":"item_1","type":"message","status":"completed","role":"assistant","content":[{"type":"output_audio","transcript":"Loud and clear!"}]}],"conversation_id":"conv_1","output_modalities":["audio"],"max_output_tokens":"inf","audio":{"output":{"format":{"type":"audio/pcmu"},"voice":"marin"}},"usage":{"total_tokens":253,"input_tokens":132,"output_tokens":121,"input_token_details":{"text_tokens":119,"audio_tokens":13,"image_tokens":0,"cached_tokens":64,"cached_tokens_details":{"text_tokens":64,"audio_tokens":0,"image_tokens":0}},"output_token_details":{"text_tokens":30,"audio_tokens":91}},"metadata":null}}"#,
];

#[test]
fn the_published_frames_parse() {
    for frame in GOLDEN {
        let parsed = ServerEvent::parse(&Bytes::from_static(frame.as_bytes())).map(|_| ());
        assert_eq!(parsed, Ok(()), "{frame}");
    }
}

#[test]
fn beta_spellings_are_understood() {
    let mut bench = Bench::live(config());
    bench.server(created("resp_1", None));
    let event = |name: &str| {
        json!({"type": name, "response_id": "resp_1", "item_id": "item_1", "delta": sound(20).as_str(),
               "transcript": "Hi"})
    };
    assert_eq!(bench.server(event("response.audio.delta")), [heard("resp_1", "item_1", 20)]);
    assert_eq!(
        bench.server(event("response.audio.done")),
        [Out::Told(ModelEvent::AudioDone { item: "item_1".into() })]
    );
    let said = ModelEvent::AgentTranscript { item: "item_1".into(), text: "Hi".to_owned().into() };
    assert_eq!(bench.server(event("response.audio_transcript.done")), [Out::Told(said)]);
    for quiet in ["response.audio_transcript.delta", "response.text.delta", "response.text.done"] {
        assert_eq!(bench.server(event(quiet)), []);
    }
    assert_eq!(bench.server(json!({"type": "conversation.item.created", "item": {"type": "message"}})), []);
}

#[test]
fn audio_is_a_slice_of_its_frame_and_an_append_carries_it_unchanged() {
    let mut bench = Bench::live(config());
    bench.server(created("resp_1", None));
    let received = Bytes::from(audio("resp_1", "item_1", 20).to_string());
    bench.machine.handle_input(Ms::ZERO, RealtimeInput::Frame(received.clone())).unwrap();
    let RealtimeOutput::Event(ModelEvent::Audio { audio, .. }) = bench.machine.poll_output() else {
        panic!()
    };
    assert!(received.as_ptr_range().contains(&audio.base64().as_ptr()), "no copy");
    assert_eq!(bench.deadline(), Some(responses::RESPONSE_STALL));

    let Out::Sent(append) = &bench.command(ModelCommand::Append(audio.clone()))[0] else { panic!() };
    assert_eq!(*append, json!({"type": "input_audio_buffer.append", "audio": audio.as_str()}));
}

#[test]
fn escaped_base64_is_copied_and_understood() {
    let mut bench = Bench::live(config());
    bench.server(created("resp_1", None));
    let text = r#"{"type":"response.output_audio.delta","response_id":"resp_1","item_id":"item_1","delta":"\/\/8="}"#;
    let audio = Payload::from_mulaw(&[0xFF, 0xFF]);
    let event = ModelEvent::Audio { reply: "resp_1".into(), item: "item_1".into(), audio };
    assert_eq!(bench.input(RealtimeInput::Frame(Bytes::from_static(text.as_bytes()))), [Out::Told(event)]);
}

#[test]
fn failed_and_empty_transcriptions_say_nothing() {
    let mut bench = Bench::live(config());
    let failed = json!({"type": "conversation.item.input_audio_transcription.failed", "item_id": "item_u",
                        "content_index": 0, "error": {"type": "x", "code": "y", "message": "z"}});
    assert_eq!(bench.server(failed), []);
    let empty = json!({"type": "conversation.item.input_audio_transcription.completed", "item_id": "item_u",
                       "transcript": " "});
    assert_eq!(bench.server(empty), []);
}

#[test]
fn nothing_personal_is_printed() {
    let mut bench = Bench::live(config());
    bench.speak(verbatim("secret words"));
    bench.speak(verbatim("secret words"));
    let said = json!({"type": "response.output_audio_transcript.done", "item_id": "i", "transcript": "secret words"});
    let printed = format!("{:?} {:?}", bench.machine, frame(&said));
    assert!(!printed.contains("secret"), "{printed}");
    let mut bench = Bench::live(config());
    bench
        .machine
        .handle_input(Ms::ZERO, RealtimeInput::Command(ModelCommand::Speak(verbatim("secret"))))
        .unwrap();
    let machine = format!("{:?}", bench.machine);
    let printed = format!("{machine} {:?}", bench.machine.poll_output());
    assert!(!printed.contains("secret"), "{printed}");
}

#[test]
fn an_empty_stretch_of_audio_is_not_sent() {
    assert_eq!(Bench::live(config()).command(ModelCommand::Append(sound(0))), []);
}

proptest::proptest! {
    #[test]
    fn the_scanner_reads_what_the_parser_reads_or_nothing(
        at in proptest::prelude::any::<proptest::sample::Index>(),
        length in 0..3_usize,
        piece in "[\\[\\]{}\",:\\\\ 0-9.eE-]{0,3}|,\"transcript\":\"x\"|,\"item_id\":\"x\"|,\"x\":\"y\"",
    ) {
        let mut text = GOLDEN[0].as_bytes().to_vec();
        let at = at.index(text.len());
        let end = (at + length).min(text.len());
        text.splice(at..end, piece.into_bytes());
        let text = Bytes::from(text);
        if let Some(event) = super::super::wire::scan_audio(&text) {
            let parsed = ServerEvent::parse_any(&text).map(|event| format!("{event:?}"));
            proptest::prop_assert_eq!(Ok(format!("{event:?}")), parsed);
        }
    }
}

#[test]
fn the_usual_audio_event_is_scanned() {
    let usual = Bytes::from_static(GOLDEN[0].as_bytes());
    let scanned = super::super::wire::scan_audio(&usual).expect("the usual shape");
    let parsed = ServerEvent::parse_any(&usual).expect("an event");
    assert_eq!(format!("{scanned:?}"), format!("{parsed:?}"));
}
