//! Tests of the built-in engine, on paused time.

use call_session::audio;

use super::*;

fn scripted(replies: &[&str]) -> Session {
    let replies = replies.iter().map(|reply| (*reply).to_owned()).collect();
    Session::new(&SimulatedEngine { replies, panic_at_reply: None }, true)
}

/// `ms` of a loud tone, as the caller's voice.
fn voice(ms: usize) -> Payload {
    let sample = |n: usize| ((n as f32 * 0.4).sin() * 5000.0) as i16;
    Payload::from_mulaw(&(0..ms * 8).map(|n| audio::encode(sample(n))).collect::<Vec<u8>>())
}

fn silence(ms: usize) -> Payload {
    Payload::from_mulaw(&vec![audio::SILENCE; ms * 8])
}

/// One word per event, audio summed up.
async fn until_reply_ends(session: &mut Session) -> (Vec<String>, u64) {
    let mut words = Vec::new();
    let mut bytes = 0;
    loop {
        match session.next_event().await {
            ModelEvent::Audio { audio, .. } => bytes += audio.mulaw_len(),
            ModelEvent::AgentTranscript { text, .. } => words.push(format!("says {}", text.expose())),
            ModelEvent::ReplyEnded { outcome, .. } => {
                words.push(format!("ended {outcome:?}"));
                return (words, bytes);
            }
            ModelEvent::AudioDone { .. } => words.push("done".to_owned()),
            other => words.push(format!("{other:?}").split([' ', '(']).next().unwrap().to_owned()),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_turn_of_the_caller_gets_the_next_reply_of_the_script() {
    let mut session = scripted(&["One.", "Two."]);
    for reply in ["One.", "Two.", "One."] {
        session.send(ModelCommand::Append(voice(400)));
        session.send(ModelCommand::Append(silence(600)));
        let (mut words, bytes) = until_reply_ends(&mut session).await;
        if words[0] == "Ready" {
            words.remove(0);
        }
        let says = format!("says {reply}");
        let expected = ["SpeechStarted", "SpeechStopped", "ReplyStarted", &says, "done", "ended Completed"];
        assert_eq!(words, expected);
        assert!(bytes > 0);
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_script_the_caller_hears_the_last_turn() {
    let mut session = scripted(&[]);
    session.send(ModelCommand::Append(silence(5000)));
    session.send(ModelCommand::Append(voice(1000)));
    session.send(ModelCommand::Append(silence(600)));
    let (_, bytes) = until_reply_ends(&mut session).await;
    let milliseconds = bytes / BYTES_PER_MS;
    assert!((1500..2000).contains(&milliseconds), "the turn with its margins, got {milliseconds} ms");
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_reply_sends_no_more_audio() {
    let mut session =
        scripted(&["A reply that takes a good while to say, longer than anybody wants to listen."]);
    assert_eq!(session.next_event().await, ModelEvent::Ready);
    session.send(ModelCommand::Speak(Speech::Reply));
    while !matches!(session.next_event().await, ModelEvent::Audio { .. }) {}
    session.send(ModelCommand::Interrupt { heard: Vec::new() });
    let ended = session.next_event().await;
    assert!(matches!(ended, ModelEvent::ReplyEnded { outcome: ReplyOutcome::Cancelled, .. }), "{ended:?}");
    let more = tokio::time::timeout(Duration::from_secs(60), session.next_event()).await;
    assert!(more.is_err(), "{more:?}");
}

#[tokio::test(start_paused = true)]
async fn audio_comes_twice_as_fast_as_it_plays() {
    let mut session = scripted(&[]);
    let began = Instant::now();
    let text = "Thank you for calling, please tell me what I can do for you today.";
    session.send(ModelCommand::Speak(Speech::Verbatim(Redacted::new(text.to_owned()))));
    let (words, bytes) = until_reply_ends(&mut session).await;
    assert_eq!(words, ["Ready", "ReplyStarted", &format!("says {text}"), "done", "ended Completed"]);
    let (played, took) = (bytes / BYTES_PER_MS, began.elapsed().as_millis() as u64);
    assert!(took >= played / 2 && took <= played / 2 + 200, "{played} ms of audio took {took} ms");
}

#[tokio::test(start_paused = true)]
async fn a_prompt_waits_for_the_running_reply() {
    let mut session = scripted(&["First."]);
    session.send(ModelCommand::Speak(Speech::Reply));
    session.send(ModelCommand::Speak(Speech::Verbatim(Redacted::new("Second.".to_owned()))));
    let (first, _) = until_reply_ends(&mut session).await;
    let (second, _) = until_reply_ends(&mut session).await;
    assert!(first.contains(&"says First.".to_owned()), "{first:?}");
    assert!(second.contains(&"says Second.".to_owned()), "{second:?}");
}

#[tokio::test(start_paused = true)]
async fn a_resumed_script_goes_on_where_it_stopped() {
    let mut session = scripted(&["One for you.", "Two for you."]);
    let said = |text: &str| HistoryItem::Agent(Redacted::new(text.to_owned()));
    session.send(ModelCommand::Replay(vec![said("Welcome."), said("One for")]));
    session.send(ModelCommand::Speak(Speech::Reply));
    let (words, _) = until_reply_ends(&mut session).await;
    assert!(words.contains(&"says Two for you.".to_owned()), "{words:?}");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_asks_for_each_reply_gets_none_by_itself() {
    let engine = SimulatedEngine { replies: vec!["One.".to_owned()], panic_at_reply: None };
    let mut session = Session::new(&engine, false);
    session.send(ModelCommand::Append(voice(400)));
    session.send(ModelCommand::Append(silence(600)));
    for expected in [ModelEvent::Ready, ModelEvent::SpeechStarted, ModelEvent::SpeechStopped] {
        assert_eq!(session.next_event().await, expected);
    }
    let more = tokio::time::timeout(Duration::from_secs(60), session.next_event()).await;
    assert!(more.is_err(), "{more:?}");
    session.send(ModelCommand::Speak(Speech::Reply));
    let (words, _) = until_reply_ends(&mut session).await;
    assert_eq!(words, ["ReplyStarted", "says One.", "done", "ended Completed"]);
}
