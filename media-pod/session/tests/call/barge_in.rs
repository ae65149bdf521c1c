//! The caller interrupts.

use call_session::agent_file::InterruptionMode;
use call_session::io::{Ignored, Input, ModelEvent, PhoneEvent};

use crate::support::Stage;
use crate::support::plan::{PlanVerbs, plan};

#[test]
fn barge_in_clears_the_phone_and_tells_the_model_what_was_heard() {
    let mut stage = Stage::open(plan());
    stage.agent_says("r1", "i1", "one two three four five six seven eight nine ten", 2400);
    stage.run(1300);
    stage.news();
    stage.model(ModelEvent::SpeechStarted);
    assert_eq!(
        stage.news(),
        [
            "clear",
            "interrupt i1@1200",
            "barge-in at 1200 of 2400",
            "agent: one two three four five (interrupted)",
            "journal 2: agent said one two three four five (interrupted)",
        ]
    );
}

#[test]
fn late_audio_after_barge_in_is_dropped() {
    let mut stage = Stage::open(plan());
    stage.agent_begins("r1", "i1", 2000);
    stage.run(500);
    stage.model(ModelEvent::SpeechStarted);
    stage.news();
    assert_eq!(stage.audio("r1", "i1", 500), Err(Ignored::Stale { input: "audio" }));
    assert_eq!(stage.audio("r1", "i2", 500), Err(Ignored::Stale { input: "audio" }));
    assert_eq!(stage.news(), ["stale audio dropped", "stale audio dropped"]);
    stage.model(ModelEvent::SpeechStopped);
    stage.model(ModelEvent::ReplyStarted { reply: "r2".into() });
    assert_eq!(stage.audio("r2", "i1", 500), Err(Ignored::Stale { input: "audio" }));
    stage.audio("r2", "i3", 500).unwrap();
    assert_eq!(stage.deeds(), ["audio 500"]);
    let again = stage.input(Input::Model(ModelEvent::ReplyStarted { reply: "r1".into() }));
    assert_eq!(again, Err(Ignored::Stale { input: "reply started" }));
}

#[test]
fn audio_of_a_reply_that_was_never_announced_is_dropped() {
    let mut stage = Stage::open(plan());
    assert_eq!(stage.audio("r9", "i9", 500), Err(Ignored::Stale { input: "audio" }));
    assert_eq!(stage.news(), ["stale audio dropped"]);
}

#[test]
fn echoes_of_a_clear_do_not_count_as_heard() {
    let mut stage = Stage::open(plan());
    stage.agent_says("r1", "i1", "Something long.", 5000);
    stage.run(1000);
    stage.model(ModelEvent::SpeechStarted);
    stage.run(10); // all marks of the first reply come back
    stage.model(ModelEvent::SpeechStopped);
    stage.agent_says("r2", "i2", "Something else.", 5000);
    stage.run(600);
    stage.news();
    stage.model(ModelEvent::SpeechStarted);
    assert_eq!(stage.deeds(), ["clear", "interrupt i2@600"]);
}

#[test]
fn every_item_not_wholly_heard_is_named() {
    let mut stage = Stage::open(plan());
    stage.agent_begins("r1", "i1", 1200);
    stage.model(ModelEvent::AudioDone { item: "i1".into() });
    stage.audio("r1", "i2", 1200).unwrap();
    stage.run(240);
    stage.news();
    stage.model(ModelEvent::SpeechStarted);
    assert_eq!(stage.deeds(), ["clear", "interrupt i1@240 i2@0"]);
}

#[test]
fn a_reply_that_made_no_sound_yet_is_cancelled_without_a_clear() {
    let mut stage = Stage::open(plan());
    stage.model(ModelEvent::ReplyStarted { reply: "r1".into() });
    stage.model(ModelEvent::SpeechStarted);
    assert_eq!(stage.news(), ["interrupt"]);
}

#[test]
fn speech_while_nothing_plays_interrupts_nothing() {
    let mut stage = Stage::open(plan());
    stage.agent_says("r1", "i1", "Short.", 500);
    stage.run(1000);
    stage.news();
    stage.model(ModelEvent::SpeechStarted);
    assert_eq!(stage.news(), Vec::<String>::new());
}

#[test]
fn a_reply_that_begins_while_the_caller_speaks_does_not_talk_over_them() {
    let mut stage = Stage::open(plan());
    stage.model(ModelEvent::SpeechStarted);
    stage.model(ModelEvent::ReplyStarted { reply: "r1".into() });
    assert_eq!(stage.deeds(), ["interrupt"]);
    assert!(stage.audio("r1", "i1", 100).is_err());
    stage.model(ModelEvent::SpeechStopped);
    stage.agent_says("r2", "i2", "Now then.", 100);
    assert_eq!(stage.deeds(), ["audio 100"]);
}

#[test]
fn confirmed_speech_interrupts_after_its_minimum() {
    let mut stage = Stage::open(plan().interrupted(InterruptionMode::Confirmed));
    stage.agent_says("r1", "i1", "A long story.", 6000);
    stage.run(1010);
    stage.news();
    stage.model(ModelEvent::SpeechStarted);
    stage.run(199);
    assert_eq!(stage.deeds(), Vec::<String>::new());
    stage.run(1);
    assert_eq!(stage.deeds(), ["clear", "interrupt i1@1200"]);
    stage.run(500);
    stage.model(ModelEvent::SpeechStopped);
    assert_eq!(stage.deeds(), ["reply"]);
}

#[test]
fn a_false_interruption_leaves_no_trace() {
    let mut stage = Stage::open(plan().interrupted(InterruptionMode::Confirmed));
    stage.agent_says("r1", "i1", "A long story.", 3000);
    stage.run(1000);
    stage.news();
    stage.caller_speaks(150);
    stage.run(1849);
    assert_eq!(stage.news(), Vec::<String>::new());
    stage.run(1);
    assert_eq!(stage.news(), ["agent: A long story.", "journal 2: agent said A long story."]);
}

#[test]
fn an_agent_that_is_never_interrupted_finishes_and_then_answers() {
    let mut stage = Stage::open(plan().interrupted(InterruptionMode::Never));
    stage.agent_begins("r1", "i1", 3000);
    stage.news();
    stage.caller_speaks(1000);
    assert_eq!(stage.deeds(), Vec::<String>::new());
    stage.agent_finishes("r1", "i1", "I always finish.");
    assert_eq!(stage.deeds(), ["reply"]);
    stage.run(3000);
    assert_eq!(stage.phone.heard(&"i1".into(), stage.now), 24_000);
}

#[test]
fn lost_marks_do_not_make_the_agent_talk_for_ever() {
    let mut stage = Stage::open(plan());
    stage.phone.is_deaf = true;
    stage.agent_says("r1", "i1", "Hello?", 1000);
    stage.run(3999);
    assert_eq!(stage.events(), ["first audio"]);
    stage.run(1);
    assert_eq!(stage.events(), ["agent: Hello?"]);
}

#[test]
fn audio_whose_marks_were_given_up_is_still_cleared() {
    let mut stage = Stage::open(plan());
    stage.phone.is_deaf = true;
    stage.agent_says("r1", "i1", "Hello?", 1000);
    stage.run(5000);
    stage.news();
    stage.model(ModelEvent::SpeechStarted);
    assert_eq!(stage.deeds(), ["clear", "interrupt"]);
    stage.model(ModelEvent::SpeechStopped);
    stage.model(ModelEvent::SpeechStarted);
    assert_eq!(stage.deeds(), Vec::<String>::new());
}

#[test]
fn marks_of_another_leg_are_ignored() {
    let mut stage = Stage::open(plan());
    stage.agent_says("r1", "i1", "Hello.", 1000);
    let foreign = "e3.g0.m1".parse().unwrap();
    assert_eq!(stage.input(Input::Phone(PhoneEvent::Mark(foreign))), Err(Ignored::Stale { input: "mark" }));
}
