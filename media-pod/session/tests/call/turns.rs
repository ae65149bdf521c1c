//! Turns without interruption: words, latency, keys.

use call_session::Redacted;
use call_session::agent_file::InterruptionMode;
use call_session::io::{Ignored, Input, ModelEvent, PhoneEvent, RefusalClass};

use crate::support::Stage;
use crate::support::plan::{PlanVerbs, plan};

#[test]
fn a_turn_is_answered_and_both_sides_are_on_record() {
    let mut stage = Stage::open(plan());
    stage.caller_speaks(1000);
    stage.run(300);
    stage.caller_said("What time is it?");
    stage.run(100);
    stage.agent_says("r1", "i1", "It is noon.", 900);
    stage.run(2000);
    assert_eq!(
        stage.news(),
        [
            "caller: What time is it?",
            "journal 2: caller said What time is it?",
            "audio 900",
            "first audio",
            "turn answered after 400",
            "agent: It is noon.",
            "journal 3: agent said It is noon.",
        ]
    );
}

#[test]
fn without_context_nothing_spoken_is_journalled() {
    let mut stage = Stage::open(plan().greets("Hello.").without_context());
    stage.agent_says("r1", "i1", "Hello.", 500);
    stage.run(1000);
    stage.caller_speaks(500);
    stage.caller_said("It is me.");
    stage.press("1");
    let facts: Vec<_> =
        stage.journal.iter().map(|entry| (entry.sequence, format!("{:?}", entry.fact))).collect();
    assert_eq!(facts, [(1, "Attached".to_owned()), (2, "Greeted".to_owned())]);
}

#[test]
fn a_model_that_pauses_in_mid_sentence_leaves_a_hole_and_one_that_is_ahead_does_not() {
    let mut stage = Stage::open(plan());
    stage.model(ModelEvent::ReplyStarted { reply: "r1".into() });
    stage.audio("r1", "i1", 300).unwrap();
    stage.run(200);
    stage.audio("r1", "i1", 300).unwrap();
    stage.run(900);
    stage.audio("r1", "i1", 300).unwrap();
    // The next sentence begins when it begins.
    stage.model(ModelEvent::AudioDone { item: "i1".into() });
    stage.run(1000);
    stage.audio("r1", "i2", 300).unwrap();
    stage.reply_ends("r1");
    assert_eq!(stage.events(), ["first audio", "audio gap of 500 ms"]);
}

#[test]
fn words_that_come_before_their_audio_or_after_its_end_are_not_lost() {
    let mut stage = Stage::open(plan());
    stage.model(ModelEvent::ReplyStarted { reply: "r1".into() });
    stage.words("i1", "Early words.");
    stage.audio("r1", "i1", 500).unwrap();
    stage.model(ModelEvent::AudioDone { item: "i1".into() });
    stage.audio("r1", "i2", 500).unwrap();
    stage.reply_ends("r1");
    stage.run(2000);
    stage.words("i2", "Late words.");
    assert_eq!(stage.events(), ["first audio", "agent: Early words.", "agent: Late words."]);
}

#[test]
fn keys_reach_the_model_as_one_text_and_are_answered() {
    let mut stage = Stage::open(plan());
    stage.press("12");
    assert_eq!(stage.deeds(), Vec::<String>::new());
    stage.run(1500);
    assert_eq!(stage.deeds(), ["context system: The caller pressed 12 on the phone's keypad.", "reply"]);
}

#[test]
fn the_pound_key_ends_the_keys_at_once() {
    let mut stage = Stage::open(plan());
    stage.press("123#");
    assert_eq!(
        stage.news(),
        [
            "digit",
            "journal 2: digit 1",
            "digit",
            "journal 3: digit 2",
            "digit",
            "journal 4: digit 3",
            "digit",
            "journal 5: digit #",
            "context system: The caller pressed 123# on the phone's keypad.",
            "reply",
        ]
    );
}

#[test]
fn keys_pressed_during_a_reply_are_answered_after_it() {
    let mut stage = Stage::open(plan());
    stage.agent_begins("r1", "i1", 400);
    stage.press("#");
    assert_eq!(stage.deeds(), ["audio 400", "context system: The caller pressed # on the phone's keypad."]);
    stage.agent_finishes("r1", "i1", "Press a key.");
    assert_eq!(stage.deeds(), ["reply"]);
}

#[test]
fn what_is_no_key_is_ignored() {
    let mut stage = Stage::open(plan());
    let result = stage.input(Input::Phone(PhoneEvent::Digit(Redacted::new('x'))));
    assert_eq!(result, Err(Ignored::Unexpected { input: "digit", state: "no key of a phone" }));
    assert_eq!(stage.news(), Vec::<String>::new());
}

#[test]
fn the_engine_is_asked_for_each_reply_where_it_must_not_reply_by_itself() {
    for mode in [InterruptionMode::Confirmed, InterruptionMode::Never] {
        let plan = plan().interrupted(mode);
        assert!(!plan.server_replies());
        let mut stage = Stage::open(plan);
        stage.caller_speaks(100);
        assert_eq!(stage.deeds(), ["reply"], "{mode:?}");
    }
    assert!(plan().server_replies() && plan().server_interrupts());
}

#[test]
fn a_refusal_of_the_model_is_an_event_and_the_call_goes_on() {
    let mut stage = Stage::open(plan());
    stage.model(ModelEvent::Refused { class: RefusalClass::RateLimited });
    assert_eq!(stage.news(), ["model refused: RateLimited"]);
    assert_eq!(stage.ended, None);
}

#[test]
fn speech_that_ends_without_beginning_is_ignored() {
    let mut stage = Stage::open(plan());
    let result = stage.input(Input::Model(ModelEvent::SpeechStopped));
    assert_eq!(
        result,
        Err(Ignored::Unexpected { input: "speech stopped", state: "the caller is not speaking" })
    );
}
