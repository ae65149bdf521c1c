//! A connection that its provider will end is replaced in a pause, and the caller hears nothing of it.

use call_session::io::{ModelEvent, ModelLoss};
use call_session::tools::Repetition;

use crate::support::Stage;
use crate::support::plan::{PlanVerbs, plan};

#[test]
fn an_expiring_connection_is_replaced_at_once_when_nothing_is_going_on() {
    let mut stage = Stage::open(plan());
    stage.caller_speaks(500);
    stage.caller_said("Hello.");
    stage.agent_says("r1", "i1", "Good day.", 900);
    stage.run(2000);
    stage.news();
    stage.model(ModelEvent::Expiring);
    assert_eq!(stage.news(), ["connect 0"]);
    stage.run(300);
    stage.model(ModelEvent::Ready);
    assert_eq!(stage.news(), ["model ready after 2800", "replay caller: Hello. | agent: Good day."]);
    stage.run(5000);
    assert_eq!(stage.news(), Vec::<String>::new());
}

#[test]
fn an_expiring_connection_finishes_the_turn_and_what_is_being_heard() {
    let mut stage = Stage::open(plan().with_tool("look_up", Repetition::Harmless));
    stage.model(ModelEvent::SpeechStarted);
    stage.model(ModelEvent::Expiring);
    stage.run(500);
    stage.model(ModelEvent::SpeechStopped);
    stage.tool_call("t1", "r1", "look_up", "{}");
    stage.run(500);
    stage.tool_ends("t1", "seven").unwrap();
    stage.agent_says("r2", "i2", "It is seven.", 2000);
    stage.run(1999);
    assert_eq!(stage.deeds(), ["run t1 look_up {}", "output t1: seven", "audio 2000"]);
    stage.run(1);
    assert_eq!(stage.deeds(), ["connect 0"]);
}

#[test]
fn a_word_that_began_before_the_replacement_reaches_the_new_connection_whole() {
    let mut stage = Stage::open(plan());
    stage.agent_says("r1", "i1", "Good day.", 2000);
    stage.model(ModelEvent::Expiring);
    for _ in 0..100 {
        stage.frame();
        stage.run(20);
    }
    assert!(stage.news().contains(&"connect 0".to_owned()));
    stage.frame();
    stage.run(20);
    stage.news();
    stage.model(ModelEvent::Ready);
    let appended = stage.news().iter().filter(|line| *line == "append 20").count();
    assert_eq!(appended, 50 + 1, "the last second before it, and what came after it");
}

#[test]
fn a_replacement_that_fails_is_tried_again_as_after_any_loss() {
    let mut stage = Stage::open(plan().falls_back_to("second"));
    stage.model(ModelEvent::Expiring);
    stage.news();
    stage.lose_model(ModelLoss::Unreachable);
    stage.run(250);
    assert_eq!(stage.deeds(), ["connect 0"]);
    stage.model(ModelEvent::Ready);
    assert_eq!(stage.deeds(), Vec::<String>::new(), "nothing was said, nothing is owed");
}

#[test]
fn a_new_connection_is_not_replaced_for_its_predecessor_s_sake() {
    let mut stage = Stage::open(plan());
    stage.model(ModelEvent::SpeechStarted);
    stage.model(ModelEvent::Expiring);
    stage.lose_model(ModelLoss::Expired);
    stage.run(250);
    stage.model(ModelEvent::Ready);
    stage.news();
    stage.run(20_000);
    assert_eq!(stage.deeds(), Vec::<String>::new());
}
