//! Silence, duration, the pod's departure, and every way a call ends.

use call_session::Ms;
use call_session::io::{EndReason, Ignored, Input, ModelEvent, Next, Output, PhoneEvent};
use call_session::tools::Repetition;

use crate::support::Stage;
use crate::support::plan::{PlanVerbs, plan};

#[test]
fn silence_is_asked_about_once_and_then_ends_the_call() {
    let mut stage = Stage::open(plan());
    stage.run(29_999);
    assert_eq!(stage.deeds(), Vec::<String>::new());
    stage.run(1);
    assert_eq!(stage.deeds(), ["say Are you still there?"]);
    stage.agent_says("r1", "i1", "Are you still there?", 1000);
    stage.run(30_999);
    assert_eq!(stage.deeds(), ["audio 1000"]);
    stage.run(1);
    assert_eq!(stage.deeds(), ["ended SilenceTimeout HangUp"]);
}

#[test]
fn silence_counts_from_the_end_of_what_is_played_not_of_what_was_sent() {
    let mut stage = Stage::open(plan());
    stage.agent_says("r1", "i1", "A very long story.", 60_000);
    stage.news();
    stage.run(89_999);
    assert_eq!(stage.deeds(), Vec::<String>::new());
    stage.run(1);
    assert_eq!(stage.deeds(), ["say Are you still there?"]);
}

#[test]
fn a_caller_who_speaks_again_is_asked_again_later() {
    let mut stage = Stage::open(plan());
    stage.run(30_000);
    stage.agent_says("r1", "i1", "Are you still there?", 1000);
    stage.run(5000);
    stage.caller_speaks(500);
    stage.agent_says("r2", "i2", "Good.", 500);
    stage.news();
    stage.run(30_500);
    assert_eq!(stage.deeds(), ["say Are you still there?"]);
}

#[test]
fn a_running_tool_is_not_silence() {
    let mut stage = Stage::open(plan().with_tool("slow", Repetition::Harmless));
    stage.run(15_000);
    stage.tool_call("t1", "r1", "slow", "{}");
    stage.news();
    stage.run(2000);
    assert_eq!(stage.deeds(), ["say One moment, please."]);
    stage.agent_says("r2", "i2", "One moment, please.", 900);
    stage.run(17_000);
    assert_eq!(stage.deeds(), ["audio 900"]);
}

#[test]
fn the_end_of_a_call_s_time_is_announced_and_then_comes() {
    let mut stage = Stage::open(plan().lasts(120));
    stage.agent_says("r1", "i1", "A story.", 90_000);
    stage.news();
    stage.run_until(Ms::from_secs(100));
    assert_eq!(stage.deeds(), ["say Our time for this call is nearly over."]);
    stage.agent_says("r2", "i2", "Our time for this call is nearly over.", 3000);
    stage.run_until(Ms(119_999));
    assert_eq!(stage.deeds(), ["audio 3000"]);
    stage.run(1);
    assert_eq!(stage.deeds(), ["ended MaxDuration HangUp"]);
    assert_eq!(stage.now, Ms::from_secs(120));
}

#[test]
fn the_announcement_does_not_talk_over_the_caller() {
    let mut stage = Stage::open(plan().lasts(120));
    stage.agent_says("r1", "i1", "A story.", 98_000);
    stage.run_until(Ms(99_500));
    stage.news();
    stage.caller_speaks(2000);
    assert_eq!(stage.deeds(), Vec::<String>::new());
    stage.run(1000);
    assert_eq!(stage.deeds(), ["say Our time for this call is nearly over."]);
}

#[test]
fn a_quiet_call_is_handed_over_at_once() {
    let mut stage = Stage::open(plan());
    stage.input(Input::Drain { deadline: stage.now + Ms(25_000) }).unwrap();
    assert_eq!(stage.deeds(), ["ended HandedOver Reconnect"]);
}

#[test]
fn a_drain_waits_for_the_caller_s_answer_to_be_heard() {
    let mut stage = Stage::open(plan());
    stage.model(ModelEvent::SpeechStarted);
    stage.input(Input::Drain { deadline: stage.now + Ms(25_000) }).unwrap();
    stage.run(1000);
    stage.model(ModelEvent::SpeechStopped);
    stage.run(500);
    stage.agent_says("r1", "i1", "Here you are.", 2000);
    stage.run(1999);
    assert_eq!(stage.deeds(), ["audio 2000"]);
    stage.run(1);
    assert_eq!(stage.deeds(), ["ended HandedOver Reconnect"]);
    assert_eq!(stage.phone.heard(&"i1".into(), stage.now), 16_000);
}

#[test]
fn a_drain_ends_at_its_deadline_in_mid_sentence_and_journals_what_was_heard() {
    let mut stage = Stage::open(plan());
    stage.agent_says("r1", "i1", "one two three four", 60_000);
    stage.input(Input::Drain { deadline: stage.now + Ms(30_000) }).unwrap();
    stage.news();
    stage.run(30_000);
    assert_eq!(
        stage.news(),
        [
            "journal 2: agent heard one",
            "journal 3: agent heard one two",
            "agent: one two (interrupted)",
            "journal 4: agent said one two (interrupted)",
            "journal 5: cut off",
            "ended HandedOver Reconnect",
        ]
    );
}

#[test]
fn every_end_has_its_reason_and_what_comes_next() {
    let ends = [
        (Input::Phone(PhoneEvent::Stopped), EndReason::CallerHungUp, Next::HangUp),
        (Input::Phone(PhoneEvent::Lost), EndReason::PhoneLost, Next::Reconnect),
        (Input::Command(call_session::io::Command::HangUp), EndReason::OperatorHungUp, Next::HangUp),
    ];
    for (input, reason, next) in ends {
        let mut stage = Stage::open(plan());
        stage.input(input).unwrap();
        let ending = stage.ended.clone().unwrap();
        assert_eq!((ending.reason, ending.next), (reason, next));
    }
}

#[test]
fn nothing_follows_the_end() {
    let mut stage = Stage::open(plan());
    stage.agent_says("r1", "i1", "Hello.", 5000);
    stage.hang_up_command();
    stage.news();
    let late = [
        Input::Phone(PhoneEvent::Stopped),
        Input::Model(ModelEvent::SpeechStarted),
        Input::Drain { deadline: stage.now },
        Input::Tick,
    ];
    for input in late {
        assert_eq!(stage.input(input), Err(Ignored::Ended));
    }
    stage.run(4_000_000);
    assert_eq!(stage.news(), Vec::<String>::new());
    assert_eq!(stage.call.poll_output(), Output::Wait(None));
}

#[test]
fn speech_whose_end_was_lost_does_not_silence_the_agent_for_ever() {
    let mut stage = Stage::open(plan());
    stage.model(ModelEvent::SpeechStarted);
    stage.run(149_999);
    assert_eq!(stage.deeds(), Vec::<String>::new());
    stage.run(1);
    assert_eq!(stage.deeds(), ["say Are you still there?"]);
}
