//! Opening, the gate, replay, closing.

use super::*;

#[test]
fn the_session_update_has_the_ga_telephony_shape() {
    let mut bench = Bench::new();
    bench.server(
        json!({"type": "session.created", "event_id": "event_1", "session": {"expires_at": 1_800_000_000}}),
    );
    assert!(bench.machine.is_warm());
    assert_eq!(bench.machine.expires_at(), Some(1_800_000_000));
    let outputs = bench.input(RealtimeInput::Configure(Box::new(config())));
    let expected = json!({"type": "session.update", "event_id": "session_update", "session": {
        "type": "realtime",
        "output_modalities": ["audio"],
        "instructions": "Be kind.",
        "audio": {
            "input": {
                "format": {"type": "audio/pcmu"},
                "noise_reduction": {"type": "far_field"},
                "transcription": {"model": "gpt-transcribe", "language": "en"},
                "turn_detection": {"type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 300,
                    "silence_duration_ms": 500, "create_response": true, "interrupt_response": true},
            },
            "output": {"format": {"type": "audio/pcmu"}, "voice": "marin"},
        },
        "tools": [{"type": "function", "name": "lookup_order", "description": "Looks an order up.",
            "parameters": {"type": "object", "properties": {}}}],
        "tool_choice": "auto",
    }});
    assert_eq!(outputs, [Out::Sent(expected)]);
}

#[test]
fn semantic_detection_and_absent_settings_have_their_own_shape() {
    let mut bench = Bench::new();
    bench.server(json!({"type": "session.created", "session": {}}));
    let turn_detection = TurnDetection::SemanticVAD { semantic_vad: Default::default() };
    let config = RealtimeConfig {
        turn_detection,
        transcription: None,
        noise_reduction: None,
        tools: vec![],
        ..patient_config()
    };
    let outputs = bench.input(RealtimeInput::Configure(Box::new(config)));
    let [Out::Sent(update)] = &outputs[..] else { panic!("{outputs:?}") };
    let input = json!({"format": {"type": "audio/pcmu"}, "noise_reduction": null, "transcription": null,
        "turn_detection": {"type": "semantic_vad", "eagerness": "auto", "create_response": false,
                           "interrupt_response": false}});
    assert_eq!(update["session"]["audio"]["input"], input);
    assert_eq!(update["session"]["tools"], json!([]));
}

#[test]
fn nothing_is_sent_before_the_session_is_updated() {
    let mut bench = Bench::new();
    // A cold start: the call is attached before the server says hello.
    assert_eq!(bench.input(RealtimeInput::Configure(Box::new(config()))), []);
    assert_eq!(bench.command(ModelCommand::Append(sound(20))), []);
    assert_eq!(bench.server(json!({"type": "session.created", "session": {}})).len(), 1);
    assert_eq!(bench.server(json!({"type": "conversation.created", "conversation": {}})), []);
    assert_eq!(bench.command(ModelCommand::Append(sound(40))), []);
    assert_eq!(bench.speak(Speech::Reply), []);
    assert_eq!(bench.interrupt(&[("item_1", 20)]), []);
    let append = |ms| Out::Sent(json!({"type": "input_audio_buffer.append", "audio": sound(ms).as_str()}));
    assert_eq!(
        bench.server(json!({"type": "session.updated", "session": {}})),
        [Out::Told(ModelEvent::Ready), asked("response_1"), append(20), append(40)]
    );
    assert_eq!(bench.server(json!({"type": "session.updated", "session": {}})), [], "ready is said once");
}

#[test]
fn what_waits_for_the_session_is_bounded_and_the_newest_audio_is_kept() {
    let mut bench = Bench::new();
    bench.input(RealtimeInput::Configure(Box::new(config())));
    for ms in 1..=600 {
        bench.command(ModelCommand::Append(sound(ms % 7 + 1)));
    }
    let refused = |_: &usize| {
        let item = HistoryItem::System(Redacted::new("x".to_owned()));
        bench.try_input(RealtimeInput::Command(ModelCommand::Context(item))).is_err()
    };
    assert_eq!((0..100).filter(refused).count(), 100 - MAX_WAITING_COMMANDS);
    bench.server(json!({"type": "session.created", "session": {}}));
    let outputs = bench.server(json!({"type": "session.updated", "session": {}}));
    assert_eq!(outputs.len(), 1 + MAX_WAITING_COMMANDS + MAX_WAITING_AUDIO);
    let last = json!({"type": "input_audio_buffer.append", "audio": sound(600 % 7 + 1).as_str()});
    assert_eq!(outputs.last(), Some(&Out::Sent(last)));
}

#[test]
fn a_warm_connection_answers_nothing_and_belongs_to_one_call() {
    let mut bench = Bench::new();
    bench.server(json!({"type": "session.created", "session": {}}));
    assert_eq!(bench.deadline(), None);
    let command = RealtimeInput::Command(ModelCommand::Append(sound(20)));
    assert_eq!(bench.try_input(command), Err(RealtimeError::Unexpected { input: "command", state: "warm" }));
    bench.input(RealtimeInput::Configure(Box::new(config())));
    assert_eq!(
        bench.try_input(RealtimeInput::Configure(Box::new(config()))),
        Err(RealtimeError::Unexpected { input: "configure", state: "configuring" })
    );
}

#[test]
fn a_session_that_never_comes_is_unreachable() {
    let mut bench = Bench::new();
    assert_eq!(bench.deadline(), Some(OPEN_TIMEOUT));
    assert_eq!(bench.wait(), lost(ModelLoss::Unreachable));
    assert_eq!(bench.try_input(RealtimeInput::Tick), Err(RealtimeError::Ended));
}

#[test]
fn a_session_update_without_an_answer_is_unreachable_and_a_late_one_is_refused() {
    let mut bench = Bench::new();
    bench.server(json!({"type": "session.created", "session": {}}));
    bench.input(RealtimeInput::Configure(Box::new(config())));
    bench.pass(Ms(CONFIGURE_TIMEOUT.0 - 1));
    assert_eq!(bench.input(RealtimeInput::Tick), [], "a spurious tick is a no-op");
    assert_eq!(bench.wait(), lost(ModelLoss::Unreachable));
    assert_eq!(bench.refused(json!({"type": "session.updated", "session": {}})), RealtimeError::Ended);
}

#[test]
fn a_replay_is_the_conversation_in_order_with_each_call_before_its_output() {
    let text = |text: &str| Redacted::new(text.to_owned());
    let history = vec![
        HistoryItem::System(text("The line broke.")),
        HistoryItem::Caller(text("Hi")),
        HistoryItem::Tool {
            call: "call_1".into(),
            name: "lookup_order".to_owned(),
            arguments: text("{}"),
            output: text("{\"ok\":true}"),
        },
        HistoryItem::Agent(text("Hello \"you\"")),
    ];
    let create = |item: Value| Out::Sent(json!({"type": "conversation.item.create", "item": item}));
    let message = |role: &str, kind: &str, text: &str| {
        create(json!({"type": "message", "role": role, "content": [{"type": kind, "text": text}]}))
    };
    let mut bench = Bench::live(config());
    assert_eq!(
        bench.command(ModelCommand::Replay(history)),
        [
            message("system", "input_text", "The line broke."),
            message("user", "input_text", "Hi"),
            create(
                json!({"type": "function_call", "call_id": "call_1", "name": "lookup_order", "arguments": "{}"})
            ),
            output_sent("call_1", "{\"ok\":true}"),
            message("assistant", "output_text", "Hello \"you\""),
        ]
    );
    let digit = HistoryItem::System(text("The caller pressed 1."));
    assert_eq!(
        bench.command(ModelCommand::Context(digit)),
        [message("system", "input_text", "The caller pressed 1.")]
    );
}

#[test]
fn a_connection_says_once_and_in_time_that_its_session_will_end() {
    let mut bench = Bench::live(config());
    bench.pass(Ms(RETIREMENT.0 - 1));
    assert_eq!(bench.input(RealtimeInput::Tick), []);
    assert_eq!(bench.wait(), [Out::Told(ModelEvent::Expiring)]);
    assert_eq!(bench.now, RETIREMENT);
    assert_eq!(bench.deadline(), None);
    bench.pass(Ms::from_secs(60));
    assert_eq!(bench.input(RealtimeInput::Tick), []);
    assert_eq!(bench.speak(Speech::Reply), [asked("response_1")], "it works on");
}

#[test]
fn a_session_whose_end_is_announced_is_replaced_in_time_before_it() {
    let minutes = |minutes: u64| Ms::from_secs(minutes * 60);
    let now = 1_790_000_000;
    // The announced end, and when the connection asks to be replaced.
    for (expires_at, retirement) in [
        (json!(now + 60 * 60), minutes(57)),
        (json!(now + 30 * 60), minutes(27)),
        (json!(now + 4 * 60), minutes(2)),
        (json!(now + 24 * 3600), minutes(57)),
        (json!(now - 5), RETIREMENT),
        (json!(null), RETIREMENT),
    ] {
        let mut bench = Bench::opened_at(now);
        bench.server(json!({"type": "session.created", "session": {"expires_at": expires_at}}));
        bench.input(RealtimeInput::Configure(Box::new(config())));
        bench.server(json!({"type": "session.updated", "session": {}}));
        assert_eq!(bench.wait(), [Out::Told(ModelEvent::Expiring)]);
        assert_eq!(bench.now, retirement, "{expires_at}");
    }
}

#[test]
fn a_connection_that_grew_old_before_its_call_says_so_at_once() {
    let mut bench = Bench::new();
    bench.server(json!({"type": "session.created", "session": {}}));
    bench.pass(RETIREMENT);
    bench.input(RealtimeInput::Configure(Box::new(config())));
    bench.server(json!({"type": "session.updated", "session": {}}));
    assert_eq!(bench.wait(), [Out::Told(ModelEvent::Expiring)]);
}

#[test]
fn a_closed_socket_says_why() {
    let closed = |bench: &mut Bench, code| bench.input(RealtimeInput::Closed(Closed { code }));
    let told = |reason| [Out::Told(ModelEvent::Lost { reason }), Out::Ended];
    assert_eq!(closed(&mut Bench::new(), None), told(ModelLoss::Unreachable));
    assert_eq!(closed(&mut Bench::new(), Some(4000)), told(ModelLoss::Rejected));
    assert_eq!(closed(&mut Bench::live(config()), None), told(ModelLoss::Closed));
    assert_eq!(closed(&mut Bench::live(config()), Some(1001)), told(ModelLoss::Closed));
    let mut old = Bench::live(config());
    old.pass(Ms::from_secs(3600));
    assert_eq!(closed(&mut old, Some(1001)), told(ModelLoss::Expired));
}

#[test]
fn a_finished_call_closes_the_socket_without_a_loss() {
    let mut bench = Bench::live(config());
    assert_eq!(bench.input(RealtimeInput::Finish), [Out::Closed(1000), Out::Ended]);
    assert_eq!(bench.try_input(RealtimeInput::Finish), Err(RealtimeError::Ended));
}
