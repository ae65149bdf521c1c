//! Tools: one output for each call.

use call_session::io::{Ignored, Input, ModelEvent, ModelLoss};
use call_session::plan::Phrases;
use call_session::tools::Repetition;

use crate::support::Stage;
use crate::support::plan::{PlanVerbs, plan};

#[test]
fn a_tool_runs_and_its_value_goes_to_the_model_and_the_journal() {
    let mut stage = Stage::open(plan().with_tool("look_up", Repetition::Harmless));
    stage.tool_call("t1", "r1", "look_up", r#"{"id":7}"#);
    stage.run(300);
    stage.tool_ends("t1", "seven").unwrap();
    assert_eq!(
        stage.news(),
        [
            r#"journal 2: tool started t1 look_up {"id":7}"#,
            r#"run t1 look_up {"id":7}"#,
            "journal 3: tool ended t1 seven",
            "tool look_up Value after 300",
            "output t1: seven",
        ]
    );
    assert_eq!(stage.tool_ends("t1", "eight"), Err(Ignored::Stale { input: "tool ended" }));
    assert_eq!(stage.news(), Vec::<String>::new());
}

#[test]
fn a_once_only_tool_waits_until_the_journal_is_durable() {
    let mut stage = Stage::open(plan().with_tool("book", Repetition::OnceOnly));
    stage.tool_call("t1", "r1", "book", "{}");
    assert_eq!(stage.deeds(), Vec::<String>::new());
    stage.input(Input::JournalDurable { up_to: 1 }).unwrap();
    assert_eq!(stage.deeds(), Vec::<String>::new());
    stage.input(Input::JournalDurable { up_to: 2 }).unwrap();
    assert_eq!(stage.deeds(), ["run t1 book {}"]);
}

#[test]
fn a_once_only_tool_is_not_run_when_the_store_stays_away() {
    let mut stage = Stage::open(plan().with_tool("book", Repetition::OnceOnly));
    stage.input(Input::StoreLost).unwrap();
    stage.tool_call("t1", "r1", "book", "{}");
    stage.run(20_000);
    assert_eq!(
        stage.deeds(),
        ["say One moment, please.", "clip", "output t1: Error: the tool did not answer in time."]
    );
    stage.input(Input::JournalDurable { up_to: 3 }).unwrap();
    assert_eq!(stage.deeds(), Vec::<String>::new());
}

#[test]
fn a_tool_that_does_not_answer_is_answered_for() {
    let mut stage = Stage::open(plan().with_tool("slow", Repetition::Harmless));
    stage.tool_call("t1", "r1", "slow", "{}");
    stage.run(19_999);
    assert_eq!(stage.deeds(), ["run t1 slow {}", "say One moment, please.", "clip"]);
    stage.run(1);
    assert_eq!(stage.deeds(), ["output t1: Error: the tool did not answer in time."]);
    assert!(stage.tool_ends("t1", "late").is_err());
}

#[test]
fn a_slow_tool_is_excused_once_and_in_the_call_s_language() {
    let mut german = plan().with_tool("slow", Repetition::Harmless);
    german.phrases = Phrases::of("de-DE");
    let mut stage = Stage::open(german);
    stage.tool_call("t1", "r1", "slow", "{}");
    stage.run(1999);
    assert_eq!(stage.deeds(), ["run t1 slow {}"]);
    stage.run(1);
    assert_eq!(stage.deeds(), ["say Einen Moment, bitte."]);
    stage.agent_says("r2", "i2", "Einen Moment, bitte.", 900);
    stage.run(15_000);
    assert_eq!(stage.deeds(), ["audio 900"]);
    stage.tool_ends("t1", "seven").unwrap();
    assert_eq!(stage.deeds(), ["output t1: seven"]);
}

#[test]
fn a_quick_tool_needs_no_excuse_and_two_slow_ones_need_one() {
    let mut stage = Stage::open(plan().with_tool("slow", Repetition::Harmless));
    stage.tool_call("t1", "r1", "slow", "{}");
    stage.run(1900);
    stage.tool_ends("t1", "seven").unwrap();
    stage.run(500);
    stage.news();
    stage.tool_call("t2", "r2", "slow", "{}");
    stage.tool_call("t3", "r2", "slow", "{}");
    stage.run(2000);
    assert_eq!(stage.deeds(), ["run t2 slow {}", "run t3 slow {}", "say One moment, please."]);
    stage.agent_says("r3", "i3", "One moment, please.", 900);
    stage.run(3000);
    assert_eq!(stage.deeds(), ["audio 900"]);
}

#[test]
fn an_excuse_talks_neither_over_the_caller_nor_over_the_agent() {
    let mut stage = Stage::open(plan().with_tool("slow", Repetition::Harmless));
    stage.agent_begins("r1", "i1", 2500);
    stage.tool_call("t1", "r1", "slow", "{}");
    stage.agent_finishes("r1", "i1", "Let me see.");
    stage.run(2600);
    stage.model(ModelEvent::SpeechStarted);
    stage.run(3000);
    assert_eq!(stage.deeds(), ["audio 2500", "run t1 slow {}"]);
    stage.model(ModelEvent::SpeechStopped);
    stage.run(1000);
    assert_eq!(stage.deeds(), ["say One moment, please."]);
}

#[test]
fn a_tool_keeps_its_result_when_the_words_around_it_are_interrupted() {
    let mut stage = Stage::open(plan().with_tool("look_up", Repetition::Harmless));
    stage.agent_begins("r1", "i1", 2000);
    stage.tool_call("t1", "r1", "look_up", "{}");
    stage.reply_ends("r1");
    stage.run(500);
    stage.caller_speaks(400);
    stage.news();
    stage.tool_ends("t1", "seven").unwrap();
    assert_eq!(stage.deeds(), ["output t1: seven"]);
}

#[test]
fn a_result_that_comes_after_the_model_was_lost_is_told_to_the_next_connection() {
    let mut stage = Stage::open(plan().with_tool("look_up", Repetition::Harmless));
    stage.tool_call("t1", "r1", "look_up", "{}");
    stage.lose_model(ModelLoss::Closed);
    stage.run(250);
    stage.model(ModelEvent::Ready);
    stage.news();
    stage.tool_ends("t1", "seven").unwrap();
    assert_eq!(stage.deeds(), ["context tool t1 look_up {} = seven", "reply"]);
}

#[test]
fn a_result_that_comes_while_no_model_listens_is_replayed() {
    let mut stage = Stage::open(plan().with_tool("look_up", Repetition::Harmless));
    stage.tool_call("t1", "r1", "look_up", "{}");
    stage.lose_model(ModelLoss::Closed);
    stage.tool_ends("t1", "seven").unwrap();
    stage.run(250);
    stage.news();
    stage.model(ModelEvent::Ready);
    assert_eq!(stage.deeds(), ["replay tool t1 look_up {} = seven", "reply"]);
}

#[test]
fn a_call_id_that_comes_twice_runs_once() {
    let mut stage = Stage::open(plan().with_tool("look_up", Repetition::Harmless));
    stage.tool_call("t1", "r1", "look_up", "{}");
    stage.news();
    let again = ModelEvent::ToolCall {
        call: "t1".into(),
        reply: "r1".into(),
        name: "look_up".to_owned(),
        arguments: "{}".to_owned().into(),
    };
    assert_eq!(stage.input(Input::Model(again)), Err(Ignored::Stale { input: "tool call" }));
    assert_eq!(stage.news(), Vec::<String>::new());
}

#[test]
fn a_tool_whose_outcome_died_with_its_pod_is_told_as_unknown_and_not_run_again() {
    let plan = plan().with_tool("book", Repetition::OnceOnly);
    let mut stage = Stage::open(plan.clone());
    stage.tool_call("t1", "r1", "book", "{}");
    let mut stage = stage.resumed(plan.clone());
    stage.model(ModelEvent::Ready);
    let deeds = stage.deeds();
    assert_eq!(deeds.len(), 3, "{deeds:?}");
    assert!(
        deeds[1].starts_with("replay tool t1 book {} = Error: it is unknown whether this was done."),
        "{deeds:?}"
    );
    assert_eq!(deeds[2], "reply");
    // Once it was told and answered, it is no news for the leg after that.
    stage.agent_says("r2", "i2", "I am not sure.", 1000);
    stage.run(2000);
    let mut stage = stage.resumed(plan);
    stage.model(ModelEvent::Ready);
    let deeds = stage.deeds();
    assert_eq!(deeds.len(), 2, "{deeds:?}");
    assert!(deeds[1].ends_with(" | agent: I am not sure."), "{deeds:?}");
}
