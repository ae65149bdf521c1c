//! The agent ends the call or sends it elsewhere: bound to what was heard.

use call_session::Call;
use call_session::agent_file::InterruptionMode;
use call_session::io::{EndReason, ModelEvent, ModelLoss, Next};

use crate::support::Stage;
use crate::support::plan::{PlanVerbs, plan};

#[test]
fn goodbye_is_played_out_before_the_call_ends() {
    let mut stage = Stage::open(plan());
    stage.agent_begins("r1", "i1", 1500);
    stage.tool_call("t1", "r1", "end_call", "{}");
    stage.agent_finishes("r1", "i1", "Goodbye.");
    stage.run(1499);
    assert_eq!(stage.deeds(), ["audio 1500"]);
    stage.run(1);
    assert_eq!(
        stage.news(),
        [
            "agent: Goodbye.",
            "journal 2: agent said Goodbye.",
            "tool end_call Value after 1500",
            "ended AgentHungUp HangUp",
        ]
    );
}

#[test]
fn a_goodbye_the_caller_interrupts_does_not_end_the_call() {
    let mut stage = Stage::open(plan());
    stage.agent_begins("r1", "i1", 1500);
    stage.tool_call("t1", "r1", "end_call", "{}");
    stage.agent_finishes("r1", "i1", "Goodbye then.");
    stage.run(600);
    stage.news();
    stage.model(ModelEvent::SpeechStarted);
    assert_eq!(
        stage.deeds(),
        [
            "clear",
            "interrupt i1@600",
            "output t1: Not done: the caller interrupted before your words were heard. The call goes on.",
        ]
    );
    stage.model(ModelEvent::SpeechStopped);
    stage.run(20_000);
    assert_eq!(stage.ended, None);
}

#[test]
fn an_end_asked_for_by_a_reply_that_was_interrupted_is_not_done() {
    let mut stage = Stage::open(plan());
    stage.agent_begins("r1", "i1", 1500);
    stage.model(ModelEvent::SpeechStarted);
    stage.news();
    stage.tool_call("t1", "r1", "end_call", "{}");
    assert_eq!(
        stage.deeds(),
        ["output t1: Not done: the caller interrupted before your words were heard. The call goes on."]
    );
}

#[test]
fn an_agent_that_is_never_interrupted_says_goodbye_to_the_end() {
    let mut stage = Stage::open(plan().interrupted(InterruptionMode::Never));
    stage.agent_begins("r1", "i1", 1500);
    stage.tool_call("t1", "r1", "end_call", "{}");
    stage.agent_finishes("r1", "i1", "Goodbye.");
    stage.model(ModelEvent::SpeechStarted);
    assert_eq!(stage.run_to_end().reason, EndReason::AgentHungUp);
    assert_eq!(stage.phone.heard(&"i1".into(), stage.now), 12_000);
}

#[test]
fn a_transfer_names_a_configured_target() {
    let mut stage = Stage::open(plan().transfers_to("sales"));
    stage.agent_begins("r1", "i1", 500);
    stage.tool_call("t1", "r1", "transfer", r#"{"target":"sales"}"#);
    stage.agent_finishes("r1", "i1", "One moment.");
    let ending = stage.run_to_end();
    assert_eq!(ending.reason, EndReason::Transferred);
    assert_eq!(ending.next, Next::Transfer { target: "sales".to_owned() });
}

#[test]
fn tools_that_do_not_exist_and_arguments_that_do_not_parse_are_refused() {
    let mut stage = Stage::open(plan().transfers_to("sales"));
    stage.tool_call("t1", "r1", "transfer", r#"{"target":"+15005550006"}"#);
    stage.tool_call("t2", "r1", "transfer", "{}");
    stage.tool_call("t3", "r1", "transfer", "not json");
    stage.tool_call("t4", "r1", "format_disk", "{}");
    assert_eq!(
        stage.news(),
        [
            "tool unknown Refused after 0",
            "output t1: Error: there is no such transfer target.",
            "tool unknown Refused after 0",
            "output t2: Error: the argument target is missing.",
            "tool unknown Refused after 0",
            "output t3: Error: the arguments are not a JSON object.",
            "tool unknown Refused after 0",
            "output t4: Error: there is no such tool.",
        ]
    );
}

#[test]
fn the_model_is_offered_a_transfer_only_where_there_is_a_target() {
    let names = |plan| Call::tools(&plan).into_iter().map(|tool| tool.name).collect::<Vec<_>>();
    assert_eq!(names(plan()), ["end_call"]);
    let with_target = plan().transfers_to("sales").transfers_to("support");
    let transfer = &Call::tools(&with_target)[1];
    assert_eq!(transfer.name, "transfer");
    assert_eq!(transfer.parameters["properties"]["target"]["enum"], serde_json::json!(["sales", "support"]));
}

#[test]
fn only_one_end_is_on_its_way() {
    let mut stage = Stage::open(plan());
    stage.agent_begins("r1", "i1", 500);
    stage.tool_call("t1", "r1", "end_call", "{}");
    stage.tool_call("t2", "r1", "end_call", "{}");
    assert_eq!(stage.deeds(), ["audio 500", "output t2: Not done: the call is already about to end."]);
}

#[test]
fn a_goodbye_survives_the_loss_of_the_model() {
    let mut stage = Stage::open(plan());
    stage.agent_begins("r1", "i1", 1000);
    stage.tool_call("t1", "r1", "end_call", "{}");
    stage.lose_model(ModelLoss::Closed);
    stage.run(100);
    stage.news();
    assert_eq!(stage.run_to_end().reason, EndReason::AgentHungUp);
    assert_eq!(stage.phone.heard(&"i1".into(), stage.now), 8_000);
}

#[test]
fn a_goodbye_interrupted_on_a_later_connection_is_told_as_memory() {
    let mut stage = Stage::open(plan());
    stage.agent_begins("r1", "i1", 3000);
    stage.tool_call("t1", "r1", "end_call", "{}");
    stage.lose_model(ModelLoss::Closed);
    stage.run(300);
    stage.model(ModelEvent::Ready);
    stage.model(ModelEvent::SpeechStarted);
    let deeds = stage.deeds();
    assert!(deeds.iter().any(|line| line.starts_with("context tool t1 end_call {} = Not done")), "{deeds:?}");
    assert!(!deeds.iter().any(|line| line.starts_with("output")), "{deeds:?}");
    assert!(
        deeds.contains(&"interrupt".to_owned()),
        "the items are not known to the new connection: {deeds:?}"
    );
}
