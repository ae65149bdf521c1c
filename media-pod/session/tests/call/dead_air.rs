//! A model that is there and says nothing.

use call_session::io::{EndReason, Ignored, Input, ModelEvent};

use crate::support::Stage;
use crate::support::plan::{PlanVerbs, plan};

fn none() -> Vec<String> {
    Vec::new()
}

/// The model has begun a reply, and sent so much of it.
fn speaking(plan: call_session::plan::Plan, milliseconds: u64) -> Stage {
    let mut stage = Stage::open(plan);
    stage.caller_speaks(500);
    stage.agent_begins("r1", "i1", milliseconds);
    stage.news();
    stage
}

/// The next connection is told that it was cut off while it spoke, and is asked to go on.
fn goes_on_with_its_sentence(stage: &mut Stage) {
    stage.model(ModelEvent::Ready);
    let deeds = stage.deeds();
    assert!(
        deeds[0].starts_with("replay system: The connection was lost while you were speaking"),
        "{deeds:?}"
    );
    assert_eq!(deeds[1..], ["reply"]);
}

#[test]
fn a_reply_that_stops_in_the_middle_is_kept_company_then_given_up_and_gone_on_with() {
    let mut stage = speaking(plan(), 900);
    stage.run(900 + 4999);
    assert_eq!(stage.news(), none());
    stage.run(1);
    assert_eq!(stage.news(), ["clip"]);
    stage.run(4999);
    assert_eq!(stage.news(), none());
    stage.run(1);
    assert_eq!(stage.news(), ["model lost: Protocol"]);
    stage.run(400);
    assert_eq!(stage.deeds(), ["connect 0"]);
    goes_on_with_its_sentence(&mut stage);
}

#[test]
fn a_greeting_that_stops_in_the_middle_is_gone_on_with() {
    let mut stage = Stage::open(plan().greets("Hello there."));
    stage.agent_begins("r1", "i1", 500);
    stage.run(11_000);
    stage.news();
    goes_on_with_its_sentence(&mut stage);
}

#[test]
fn a_model_that_is_slow_to_its_first_sound_is_waited_for_in_company() {
    let mut stage = Stage::open(plan());
    stage.caller_speaks(500);
    stage.run(3000);
    stage.model(ModelEvent::ReplyStarted { reply: "r1".into() });
    stage.news();
    stage.run(2000);
    assert_eq!(stage.deeds(), ["clip"], "five seconds after the caller stopped");
    stage.run(4900);
    assert_eq!(stage.deeds(), none());
    stage.audio("r1", "i1", 2000).unwrap();
    stage.agent_finishes("r1", "i1", "Yes.");
    stage.run(20_000);
    assert_eq!(stage.deeds(), ["audio 2000"]);
}

#[test]
fn an_answer_that_is_never_begun_is_waited_for_in_company() {
    let mut stage = Stage::open(plan());
    stage.caller_speaks(500);
    stage.run(20_000);
    assert_eq!(stage.deeds(), ["clip"]);
}

#[test]
fn a_reply_without_a_sound_is_not_given_up_while_it_gives_signs_of_life() {
    let mut stage = Stage::open(plan());
    stage.caller_speaks(500);
    stage.model(ModelEvent::ReplyStarted { reply: "r1".into() });
    for _ in 0..6 {
        stage.run(4000);
        stage.model(ModelEvent::Working { reply: "r1".into() });
    }
    assert_eq!(stage.deeds(), ["clip"; 4]);
    stage.run(9999);
    assert_eq!(stage.deeds(), ["clip"; 2]);
    stage.run(1);
    assert_eq!(stage.events(), ["model lost: Protocol"]);
    let late = stage.input(Input::Model(ModelEvent::Working { reply: "r1".into() }));
    assert_eq!(late, Err(Ignored::Unexpected { input: "model event", state: "backing off" }));
}

#[test]
fn what_still_plays_is_no_silence_though_nothing_more_comes() {
    let mut stage = speaking(plan(), 25_000);
    stage.run(25_000 + 4999);
    assert_eq!(stage.events(), none());
    stage.run(1);
    assert_eq!(stage.deeds(), ["clip"]);
    stage.run(5000);
    assert_eq!(stage.events(), ["model lost: Protocol"]);
}

#[test]
fn a_caller_who_speaks_into_the_silence_hears_no_clip() {
    let mut stage = speaking(plan(), 900);
    stage.run(5000);
    stage.model(ModelEvent::SpeechStarted);
    stage.news();
    stage.run(20_000);
    assert_eq!(stage.deeds(), none());
}

#[test]
fn a_model_that_stops_twice_in_a_row_is_replaced_by_the_next_engine() {
    let mut stage = speaking(plan().falls_back_to("second"), 900);
    stage.run(10_900 + 400);
    assert_eq!(stage.deeds(), ["clip", "connect 0"]);
    stage.model(ModelEvent::Ready);
    stage.agent_begins("r2", "i2", 900);
    stage.news();
    stage.run(10_900 + 400);
    assert_eq!(stage.deeds(), ["clip", "connect 1"]);
}

#[test]
fn a_reply_that_is_completed_in_between_starts_a_new_count() {
    let mut stage = speaking(plan().falls_back_to("second"), 900);
    stage.run(10_900 + 400);
    stage.model(ModelEvent::Ready);
    stage.agent_says("r2", "i2", "As I was saying.", 900);
    stage.run(1000);
    stage.caller_speaks(500);
    stage.agent_begins("r3", "i3", 900);
    stage.news();
    stage.run(10_900 + 400);
    assert_eq!(stage.deeds(), ["clip", "connect 0"]);
}

#[test]
fn a_goodbye_that_is_never_finished_ends_the_call() {
    let mut stage = speaking(plan(), 900);
    stage.tool_call("t1", "r1", "end_call", "{}");
    stage.run(10_900);
    assert_eq!(stage.ended.map(|ending| ending.reason), Some(EndReason::AgentHungUp));
}
