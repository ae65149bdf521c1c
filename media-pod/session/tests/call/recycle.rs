//! A connection that its provider will end is replaced: its successor is opened beside it and takes its place in a pause. The
//! caller hears nothing of it, and is never without a model for its sake.

use call_session::io::{Ignored, Input, ModelEvent, ModelLoss};
use call_session::tools::Repetition;

use crate::support::Stage;
use crate::support::plan::{PlanVerbs, plan};

#[test]
fn a_successor_is_opened_at_once_and_takes_the_place_as_soon_as_it_is_ready() {
    let mut stage = Stage::open(plan());
    stage.caller_speaks(500);
    stage.caller_said("Hello.");
    stage.agent_says("r1", "i1", "Good day.", 900);
    stage.run(2000);
    stage.news();
    stage.model(ModelEvent::Expiring);
    assert_eq!(stage.news(), ["prepare 0"]);
    stage.run(300);
    stage.successor(ModelEvent::Ready);
    assert_eq!(stage.news(), ["switch", "model replaced", "replay caller: Hello. | agent: Good day."]);
    stage.run(5000);
    assert_eq!(stage.news(), Vec::<String>::new());
}

#[test]
fn an_expiring_connection_finishes_the_turn_and_what_is_being_heard() {
    let mut stage = Stage::open(plan().with_tool("look_up", Repetition::Harmless));
    stage.model(ModelEvent::SpeechStarted);
    stage.model(ModelEvent::Expiring);
    assert_eq!(stage.deeds(), ["prepare 0"]);
    stage.successor(ModelEvent::Ready);
    stage.run(500);
    stage.model(ModelEvent::SpeechStopped);
    stage.tool_call("t1", "r1", "look_up", "{}");
    stage.run(500);
    stage.tool_ends("t1", "seven").unwrap();
    stage.agent_says("r2", "i2", "It is seven.", 2000);
    stage.run(1999);
    assert_eq!(stage.deeds(), ["run t1 look_up {}", "output t1: seven", "audio 2000"]);
    stage.run(1);
    let replay = "replay tool t1 look_up {} = seven | agent: It is seven.";
    assert_eq!(stage.deeds(), ["switch", replay]);
}

#[test]
fn the_expiring_connection_goes_on_until_its_successor_is_ready() {
    let mut stage = Stage::open(plan());
    stage.model(ModelEvent::Expiring);
    stage.news();
    stage.frame();
    stage.caller_speaks(500);
    stage.agent_says("r1", "i1", "Good day.", 900);
    assert_eq!(stage.deeds(), ["audio 900"]);
    stage.run(900);
    stage.successor(ModelEvent::Ready);
    assert_eq!(stage.deeds(), ["switch", "replay agent: Good day."]);
    stage.caller_speaks(500);
    stage.agent_says("r2", "i2", "And again.", 300);
    assert_eq!(stage.deeds(), ["audio 300"]);
}

#[test]
fn a_word_that_began_before_the_replacement_reaches_the_new_connection_whole() {
    let mut stage = Stage::open(plan());
    stage.agent_says("r1", "i1", "Good day.", 2000);
    stage.model(ModelEvent::Expiring);
    stage.successor(ModelEvent::Ready);
    for _ in 0..100 {
        stage.frame();
        stage.run(20);
    }
    let news = stage.news();
    let (_, after) = news.split_at(news.iter().position(|line| line == "switch").unwrap());
    let appended = after.iter().filter(|line| *line == "append 20").count();
    assert_eq!(appended, 50, "the last second before it");
    stage.frame();
    assert_eq!(stage.news(), ["append 20"]);
}

#[test]
fn a_successor_that_fails_is_tried_again_ever_later_and_the_call_does_not_notice() {
    let mut stage = Stage::open(plan().falls_back_to("second"));
    stage.model(ModelEvent::Expiring);
    assert_eq!(stage.news(), ["prepare 0"]);
    for longest in [200, 400, 800, 1600, 3200, 6400] {
        stage.successor(ModelEvent::Lost { reason: ModelLoss::Unreachable });
        assert_eq!(stage.news(), ["successor lost: Unreachable"]);
        stage.run(longest / 2 - 1);
        assert_eq!(stage.news(), Vec::<String>::new());
        stage.run(longest / 2 + 1);
        assert_eq!(stage.news(), ["prepare 0"]);
    }
    stage.caller_speaks(300);
    stage.agent_says("r1", "i1", "Good day.", 900);
    assert_eq!(stage.deeds(), ["audio 900"]);
}

#[test]
fn a_successor_that_does_not_answer_is_given_up_and_tried_again() {
    let mut stage = Stage::open(plan());
    stage.model(ModelEvent::Expiring);
    stage.news();
    stage.run(5000);
    assert_eq!(stage.news(), ["successor lost: Unreachable"]);
    let late = stage.input(Input::Successor(ModelEvent::Ready));
    assert_eq!(late, Err(Ignored::Unexpected { input: "successor ready", state: "ready" }));
    stage.run(200);
    assert_eq!(stage.news(), ["prepare 0"]);
    stage.successor(ModelEvent::Ready);
    assert_eq!(stage.deeds(), ["switch"]);
}

#[test]
fn a_successor_that_is_refused_is_not_asked_for_again_and_the_connection_is_used_to_its_end() {
    let mut stage = Stage::open(plan().falls_back_to("second"));
    stage.model(ModelEvent::Expiring);
    stage.successor(ModelEvent::Lost { reason: ModelLoss::Rejected });
    stage.news();
    stage.run(25_000);
    assert_eq!(stage.news(), Vec::<String>::new());
    stage.lose_model(ModelLoss::Expired);
    stage.run(250);
    assert_eq!(stage.deeds(), ["connect 0"]);
    stage.lose_model(ModelLoss::Rejected);
    assert_eq!(stage.deeds(), ["connect 1"]);
}

#[test]
fn a_ready_successor_goes_on_at_once_where_the_connection_is_lost_in_mid_sentence() {
    let mut stage = Stage::open(plan());
    stage.caller_speaks(500);
    stage.agent_begins("r1", "i1", 800);
    stage.model(ModelEvent::Expiring);
    stage.successor(ModelEvent::Ready);
    stage.news();
    stage.lose_model(ModelLoss::Expired);
    let news = stage.news();
    assert_eq!(news[..3], ["model lost: Expired", "switch", "model replaced"]);
    assert!(
        news[3].starts_with("replay system: The connection was lost while you were speaking"),
        "{news:?}"
    );
    assert_eq!(news[4..], ["reply"]);
}

#[test]
fn a_connection_lost_before_its_successor_is_ready_is_a_loss_like_any() {
    let mut stage = Stage::open(plan());
    stage.model(ModelEvent::SpeechStarted);
    stage.model(ModelEvent::Expiring);
    stage.deeds();
    stage.lose_model(ModelLoss::Expired);
    stage.run(250);
    assert_eq!(stage.deeds(), ["connect 0"]);
    stage.model(ModelEvent::Ready);
    stage.news();
    stage.run(20_000);
    assert_eq!(stage.deeds(), Vec::<String>::new(), "it is not replaced for its predecessor's sake");
}

#[test]
fn a_successor_that_is_about_to_end_itself_does_not_take_the_place() {
    let mut stage = Stage::open(plan());
    stage.model(ModelEvent::SpeechStarted);
    stage.model(ModelEvent::Expiring);
    stage.successor(ModelEvent::Ready);
    stage.successor(ModelEvent::Expiring);
    stage.news();
    stage.run(200);
    assert_eq!(stage.deeds(), ["prepare 0"]);
}
