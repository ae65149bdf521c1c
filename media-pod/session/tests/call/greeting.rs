//! The first words.

use call_session::agent_file::InterruptionMode;
use call_session::io::ModelEvent;

use crate::support::Stage;
use crate::support::plan::{PlanVerbs, plan};

#[test]
fn a_call_connects_then_greets_then_hands_over_what_the_caller_said_meanwhile() {
    let mut stage = Stage::dialled(plan().greets("Hello."));
    assert_eq!(stage.news(), ["connect 0", "journal 1: attached"]);
    stage.frame();
    stage.run(20);
    stage.frame();
    stage.run(20);
    assert_eq!(stage.deeds(), Vec::<String>::new());
    stage.model(ModelEvent::Ready);
    assert_eq!(stage.news(), ["model ready after 40", "say Hello.", "append 20", "append 20"]);
    stage.frame();
    assert_eq!(stage.news(), ["append 20"]);
}

#[test]
fn the_caller_s_audio_before_the_model_is_ready_is_kept_for_ten_seconds() {
    let mut stage = Stage::dialled(plan());
    for _ in 0..700 {
        stage.frame();
    }
    stage.model(ModelEvent::Ready);
    assert_eq!(stage.news().iter().filter(|line| *line == "append 20").count(), 500);
}

#[test]
fn a_greeting_heard_to_its_end_is_journalled_as_heard() {
    let mut stage = Stage::open(plan().greets("Hello there."));
    stage.agent_says("r1", "i1", "Hello there.", 1000);
    assert_eq!(stage.news(), ["audio 1000", "first audio after 0"]);
    stage.run(999);
    assert_eq!(stage.news(), Vec::<String>::new());
    stage.run(1);
    assert_eq!(
        stage.news(),
        ["agent: Hello there.", "journal 2: agent said Hello there.", "journal 3: greeted"]
    );
}

#[test]
fn a_greeting_may_be_interrupted_and_counts_as_heard() {
    let mut stage = Stage::open(plan().greets("Hello there."));
    stage.agent_says("r1", "i1", "Hello there.", 1000);
    stage.run(600);
    stage.model(ModelEvent::SpeechStarted);
    assert!(stage.facts().contains(&"journal 3: greeted".to_owned()));
}

#[test]
fn a_greeting_that_must_be_heard_is_not_cleared_and_the_caller_is_answered_after_it() {
    for mode in [InterruptionMode::Immediate, InterruptionMode::Confirmed] {
        let plan = plan().greets_to_the_end("This call is recorded.").interrupted(mode);
        assert!(!plan.server_interrupts());
        let mut stage = Stage::open(plan);
        stage.agent_says("r1", "i1", "This call is recorded.", 2000);
        stage.run(500);
        stage.news();
        stage.frame();
        stage.caller_speaks(800);
        stage.run(100);
        let expected: &[&str] = if mode == InterruptionMode::Immediate { &[] } else { &["reply"] };
        assert_eq!(stage.deeds(), expected, "{mode:?}");
        stage.agent_says("r2", "i2", "Yes.", 500);
        stage.run(5000);
        assert_eq!(stage.phone.heard(&"i1".into(), stage.now), 16_000);
        assert_eq!(stage.phone.heard(&"i2".into(), stage.now), 4_000);
        // From here on the caller may interrupt.
        stage.agent_says("r3", "i3", "More.", 3000);
        stage.news();
        stage.caller_speaks(800);
        assert!(stage.deeds().contains(&"clear".to_owned()));
    }
}

#[test]
fn a_greeting_is_said_even_if_the_caller_says_hello_first() {
    let mut stage = Stage::open(plan().greets("Hello."));
    stage.model(ModelEvent::SpeechStarted);
    stage.agent_says("r1", "i1", "Hello.", 500);
    assert_eq!(stage.deeds(), ["audio 500"]);
}

#[test]
fn a_greeting_the_model_never_begins_does_not_hold_up_the_call() {
    let mut stage = Stage::open(plan().greets("Hello."));
    stage.run(39_000);
    assert_eq!(stage.deeds(), ["clip"], "while it is waited for");
    stage.run(1_000);
    assert_eq!(stage.deeds(), ["say Are you still there?"]);
}
