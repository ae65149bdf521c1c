//! The model is lost, or the pod.

use call_session::io::{EndReason, Ignored, Input, ModelEvent, ModelLoss, Next, PhoneEvent, ReplyOutcome};
use call_session::{Ms, Start};

use crate::support::Stage;
use crate::support::plan::{PlanVerbs, plan};

#[test]
fn a_model_lost_in_mid_sentence_is_replaced_and_told_what_was_said() {
    let mut stage = Stage::open(plan());
    stage.caller_speaks(500);
    stage.caller_said("Tell me a story.");
    stage.agent_begins("r1", "i1", 3000);
    stage.words("i1", "Once upon a time.");
    stage.run(1000);
    stage.news();
    stage.lose_model(ModelLoss::Closed);
    assert_eq!(stage.news(), ["model lost: Closed"]);
    stage.run(200);
    stage.frame();
    assert_eq!(stage.news(), ["connect 0"]);
    stage.model(ModelEvent::Ready);
    assert_eq!(
        stage.deeds(),
        [
            "replay caller: Tell me a story. | agent: Once upon a time. | system: The connection was lost while you \
             were speaking or about to. The caller may have heard the beginning of your last sentence. Go on from there \
             without mentioning it.",
            "reply",
        ]
    );
    stage.run(2000);
    assert_eq!(stage.phone.heard(&"i1".into(), stage.now), 24_000, "what was sent plays on");
}

#[test]
fn attempts_back_off_and_then_the_next_engine_is_tried() {
    let mut stage = Stage::dialled(plan().falls_back_to("second"));
    let mut waits = Vec::new();
    stage.news();
    loop {
        let lost_at = stage.now;
        stage.lose_model(ModelLoss::Unreachable);
        while !stage.deeds().iter().any(|line| line.starts_with("connect")) {
            stage.run(1);
            assert!(stage.now < Ms(10_000));
        }
        waits.push(stage.now.since(lost_at).0);
        if waits.len() == 4 {
            break;
        }
    }
    for (wait, limit) in waits.iter().zip([200, 400, 800]) {
        assert!((limit / 2..=limit + 1).contains(wait), "{waits:?}");
    }
    stage.lose_model(ModelLoss::Rejected);
    assert_eq!(
        stage.deeds(),
        [
            "ended ModelUnreachable SayAndHangUp { text: \"We are sorry, we are having technical difficulties. Please \
          call again later.\" }"
        ]
    );
}

#[test]
fn a_rejected_engine_is_not_tried_again() {
    let mut stage = Stage::dialled(plan().falls_back_to("second"));
    stage.news();
    stage.lose_model(ModelLoss::Rejected);
    assert_eq!(stage.news(), ["model lost: Rejected", "connect 1"]);
}

#[test]
fn an_engine_that_neither_answers_nor_fails_is_given_up() {
    let mut stage = Stage::dialled(plan().falls_back_to("second"));
    let ending = stage.run_to_end();
    assert_eq!(ending.reason, EndReason::ModelUnreachable);
    assert!(matches!(ending.next, Next::SayAndHangUp { .. }));
    // A silent attempt costs the caller seconds, so two of them are enough for one engine.
    assert_eq!(stage.deeds().iter().filter(|line| *line == "connect 0").count(), 2);
    assert!(stage.now < Ms::from_secs(25));
}

#[test]
fn a_model_that_connects_and_fails_at_once_is_not_tried_for_ever() {
    let mut stage = Stage::dialled(plan());
    for _ in 0..4 {
        stage.model(ModelEvent::Ready);
        stage.lose_model(ModelLoss::Closed);
        stage.run(4000);
    }
    assert_eq!(stage.ended.map(|ending| ending.reason), Some(EndReason::ModelUnreachable));
}

#[test]
fn what_was_sent_is_heard_before_the_apology() {
    let mut stage = Stage::open(plan());
    stage.agent_says("r1", "i1", "One moment.", 2000);
    stage.lose_model(ModelLoss::Rejected);
    assert_eq!(stage.ended, None);
    assert_eq!(stage.run_to_end().reason, EndReason::ModelUnreachable);
    assert_eq!(stage.phone.heard(&"i1".into(), stage.now), 16_000);
}

#[test]
fn a_greeting_that_was_not_heard_is_said_by_the_next_connection() {
    let mut stage = Stage::open(plan().greets("Hello."));
    stage.lose_model(ModelLoss::Closed);
    stage.run(300);
    stage.news();
    stage.model(ModelEvent::Ready);
    assert_eq!(stage.deeds(), ["say Hello."]);
}

#[test]
fn a_greeting_that_failed_is_asked_for_again() {
    let mut stage = Stage::open(plan().greets("Hello."));
    stage.reply_fails("r1");
    assert_eq!(stage.deeds(), Vec::<String>::new(), "not at once");
    stage.run(200);
    assert_eq!(stage.deeds(), ["say Hello."]);
    stage.agent_says("r2", "i2", "Hello.", 1000);
    stage.run(1100);
    assert_eq!(stage.facts().iter().filter(|fact| fact.ends_with(": greeted")).count(), 1);
}

#[test]
fn an_answer_that_failed_is_asked_for_again() {
    let mut stage = Stage::open(plan());
    stage.caller_speaks(500);
    stage.reply_fails("r1");
    stage.run(200);
    assert_eq!(stage.deeds(), ["reply"]);
}

#[test]
fn a_model_that_goes_on_failing_is_given_up_like_a_lost_one() {
    let mut stage = Stage::open(plan().greets("Hello.").falls_back_to("second"));
    for reply in ["r1", "r2", "r3"] {
        stage.reply_fails(reply);
        stage.run(400);
    }
    assert_eq!(stage.deeds(), ["say Hello.", "say Hello.", "connect 0"]);
    stage.model(ModelEvent::Ready);
    assert_eq!(stage.deeds(), ["say Hello."], "the new connection greets");
}

#[test]
fn a_reply_that_fails_after_it_was_heard_is_not_repeated() {
    let mut stage = Stage::open(plan().greets("Hello."));
    stage.agent_begins("r1", "i1", 1000);
    stage.end_reply("r1", ReplyOutcome::Failed);
    stage.news();
    stage.run(2000);
    assert_eq!(stage.deeds(), Vec::<String>::new());
}

#[test]
fn events_of_a_model_that_is_not_there_are_ignored() {
    let mut stage = Stage::dialled(plan());
    let result = stage.input(Input::Model(ModelEvent::SpeechStarted));
    assert_eq!(result, Err(Ignored::Unexpected { input: "model event", state: "connecting" }));
    stage.model(ModelEvent::Ready);
    let result = stage.input(Input::Model(ModelEvent::Ready));
    assert_eq!(result, Err(Ignored::Unexpected { input: "ready", state: "ready" }));
}

#[test]
fn a_resumed_call_replays_what_was_heard_and_does_not_greet_again() {
    let plan = plan().greets("Hello.");
    let mut stage = Stage::open(plan.clone());
    stage.agent_says("r1", "i1", "Hello.", 500);
    stage.run(1000);
    stage.caller_speaks(500);
    stage.caller_said("Tell me a story.");
    stage.agent_says("r2", "i2", "one two three four", 4000);
    stage.run(2000);
    stage.model(ModelEvent::SpeechStarted);
    let mut stage = stage.resumed(plan);
    stage.model(ModelEvent::Ready);
    assert_eq!(
        stage.news(),
        [
            "connect 0",
            "journal 1: attached",
            "model ready after 0",
            "replay agent: Hello. | caller: Tell me a story. | agent: one two",
        ]
    );
}

#[test]
fn a_resumed_call_answers_what_was_left_unanswered() {
    let mut stage = Stage::open(plan());
    stage.caller_speaks(500);
    stage.caller_said("Are you open?");
    stage.press("42");
    let mut stage = stage.resumed(plan());
    stage.model(ModelEvent::Ready);
    assert_eq!(
        stage.deeds(),
        [
            "connect 0",
            "replay caller: Are you open? | system: The caller pressed 42 on the phone's keypad.",
            "reply",
        ]
    );
}

#[test]
fn a_sentence_that_a_pod_s_death_cut_off_is_gone_on_with_from_what_was_heard() {
    let mut stage = Stage::open(plan());
    stage.caller_speaks(500);
    stage.caller_said("Tell me a story.");
    stage.agent_says("r1", "i1", "one two three four five six seven eight", 16_000);
    stage.run(11_000);
    assert_eq!(
        stage.facts(),
        [
            "journal 2: caller said Tell me a story.",
            "journal 3: agent heard one two",
            "journal 4: agent heard one two three four five"
        ]
    );
    let mut stage = stage.resumed(plan());
    stage.model(ModelEvent::Ready);
    let deeds = stage.deeds();
    assert!(
        deeds[1].starts_with(
            "replay caller: Tell me a story. | agent: one two three four five | system: The connection was lost while you"
        ),
        "{deeds:?}"
    );
    assert_eq!(deeds[2..], ["reply"]);
}

#[test]
fn what_was_heard_in_the_end_takes_the_place_of_what_was_heard_so_far() {
    let mut stage = Stage::open(plan());
    stage.agent_says("r1", "i1", "one two three four five six seven eight", 16_000);
    stage.run(7000);
    stage.model(ModelEvent::SpeechStarted);
    stage.model(ModelEvent::SpeechStopped);
    stage.agent_says("r2", "i2", "All right.", 900);
    stage.run(2000);
    assert_eq!(
        stage.facts(),
        [
            "journal 2: agent heard one two",
            "journal 3: agent said one two three (interrupted)",
            "journal 4: agent said All right.",
        ]
    );
    let mut stage = stage.resumed(plan());
    stage.model(ModelEvent::Ready);
    assert_eq!(stage.deeds(), ["connect 0", "replay agent: one two three | agent: All right."]);
}

#[test]
fn words_that_became_known_after_their_answer_are_not_answered_again() {
    let mut stage = Stage::open(plan());
    stage.caller_speaks(500);
    stage.agent_says("r1", "i1", "We are.", 900);
    stage.run(2000);
    stage.caller_said("Are you open?");
    assert_eq!(stage.facts(), ["journal 2: agent said We are.", "journal 3: caller said Are you open?"]);
    assert!(stage.journal[2].at < stage.journal[1].at, "said before the answer");
    let mut stage = stage.resumed(plan());
    stage.model(ModelEvent::Ready);
    assert_eq!(stage.deeds(), ["connect 0", "replay caller: Are you open? | agent: We are."]);
}

#[test]
fn a_new_connection_is_told_words_in_the_order_in_which_they_were_said() {
    let mut stage = Stage::open(plan());
    stage.caller_speaks(500);
    stage.agent_says("r1", "i1", "We are.", 900);
    stage.run(2000);
    stage.caller_said("Are you open?");
    stage.lose_model(ModelLoss::Closed);
    stage.run(250);
    stage.news();
    stage.model(ModelEvent::Ready);
    assert_eq!(stage.deeds(), ["replay caller: Are you open? | agent: We are."]);
}

#[test]
fn a_resumed_call_greets_when_the_greeting_was_not_heard() {
    let plan = plan().greets("Hello.");
    let stage = Stage::open(plan.clone());
    let mut stage = stage.resumed(plan);
    stage.model(ModelEvent::Ready);
    assert_eq!(stage.deeds(), ["connect 0", "say Hello."]);
}

#[test]
fn a_sentence_that_the_end_of_a_leg_cut_off_is_gone_on_with() {
    for end in [Input::Phone(PhoneEvent::Lost), Input::Drain { deadline: Ms(5500) }] {
        let mut stage = Stage::open(plan());
        stage.caller_speaks(500);
        stage.caller_said("Tell me a story.");
        stage.agent_says("r1", "i1", "one two three four", 8000);
        stage.run(4000);
        stage.input(end.clone()).unwrap();
        stage.run(1000);
        assert_eq!(
            stage.facts(),
            [
                "journal 2: caller said Tell me a story.",
                "journal 3: agent said one two (interrupted)",
                "journal 4: cut off"
            ],
            "{end:?}"
        );
        let gone_on = [
            "connect 0",
            "replay caller: Tell me a story. | agent: one two | system: The connection was lost while you were \
             speaking or about to. The caller may have heard the beginning of your last sentence. Go on from there \
             without mentioning it.",
            "reply",
        ];
        let mut stage = stage.resumed(plan());
        stage.model(ModelEvent::Ready);
        assert_eq!(stage.deeds(), gone_on, "{end:?}");
        // The pod dies before its model has said a word: it is still owed.
        let mut stage = stage.resumed(plan());
        stage.model(ModelEvent::Ready);
        assert_eq!(stage.deeds(), gone_on, "{end:?}");
        // It was said: nothing is owed any more.
        stage.agent_says("r2", "i2", "three four", 1000);
        stage.run(2000);
        let mut stage = stage.resumed(plan());
        stage.model(ModelEvent::Ready);
        let replay = "replay caller: Tell me a story. | agent: one two | agent: three four";
        assert_eq!(stage.deeds(), ["connect 0", replay], "{end:?}");
    }
}

#[test]
fn a_caller_whose_question_the_line_cut_off_from_its_answer_is_answered() {
    let mut stage = Stage::open(plan());
    stage.caller_speaks(500);
    stage.input(Input::Phone(PhoneEvent::Lost)).unwrap();
    assert_eq!(stage.facts(), ["journal 2: cut off"], "what was said is not known");
    let mut stage = stage.resumed(plan());
    stage.model(ModelEvent::Ready);
    assert_eq!(stage.deeds().last().map(String::as_str), Some("reply"));
}

#[test]
fn a_sentence_that_the_caller_cut_off_is_not_gone_on_with() {
    let mut stage = Stage::open(plan());
    stage.agent_says("r1", "i1", "one two three four", 8000);
    stage.run(4000);
    stage.model(ModelEvent::SpeechStarted);
    stage.run(200);
    stage.input(Input::Phone(PhoneEvent::Lost)).unwrap();
    assert_eq!(stage.facts(), ["journal 2: agent said one two (interrupted)", "journal 3: left"]);
    let mut stage = stage.resumed(plan());
    stage.model(ModelEvent::Ready);
    assert_eq!(stage.deeds(), ["connect 0", "replay agent: one two"]);
}

#[test]
fn a_greeting_that_the_line_cut_off_is_said_by_the_next_leg_if_nothing_of_it_was_heard() {
    let plan = plan().greets("Hello there.");
    let mut unheard = Stage::open(plan.clone());
    unheard.input(Input::Phone(PhoneEvent::Lost)).unwrap();
    assert_eq!(unheard.facts(), ["journal 2: cut off"]);
    let mut stage = unheard.resumed(plan.clone());
    stage.model(ModelEvent::Ready);
    assert_eq!(stage.deeds(), ["connect 0", "say Hello there."]);
    stage.agent_says("r1", "i1", "Hello there.", 1000);
    stage.run(700);
    stage.input(Input::Phone(PhoneEvent::Lost)).unwrap();
    let mut stage = stage.resumed(plan);
    stage.model(ModelEvent::Ready);
    let deeds = stage.deeds();
    assert!(deeds[1].starts_with("replay agent: Hello | system: The connection was lost"), "{deeds:?}");
    assert_eq!(deeds[2..], ["reply"]);
}

#[test]
fn a_sentence_cut_off_two_legs_ago_and_gone_on_with_since_is_not_owed_again() {
    let mut stage = Stage::open(plan());
    stage.agent_says("r1", "i1", "one two three four five six seven eight", 16_000);
    stage.run(11_000);
    let mut stage = stage.resumed(plan());
    stage.model(ModelEvent::Ready);
    stage.agent_says("r2", "i2", "six seven eight", 1000);
    stage.run(1000);
    stage.input(Input::Drain { deadline: stage.now + Ms(25_000) }).unwrap();
    assert_eq!(stage.ended.as_ref().map(|ending| ending.reason), Some(EndReason::HandedOver));
    let mut stage = stage.resumed(plan());
    stage.model(ModelEvent::Ready);
    assert_eq!(
        stage.deeds(),
        ["connect 0", "replay agent: one two three four five | agent: six seven eight"]
    );
}

const NOTHING_KNOWN: &str = "replay system: The line to the caller was interrupted for a moment in the middle of the call. \
                             Nothing of what was said before is known to you. Say briefly that the line was interrupted, \
                             and ask the caller to tell you again how you can help.";

#[test]
fn a_leg_of_which_nothing_is_known_does_not_greet_says_so_and_speaks_first() {
    let mut stage = Stage::begun(plan().greets("Hello."), Start::Unknown, Ms(9000));
    stage.model(ModelEvent::Ready);
    assert_eq!(stage.deeds(), ["connect 0", NOTHING_KNOWN, "reply"]);
    // The next connection does not know more.
    stage.lose_model(ModelLoss::Closed);
    stage.run(250);
    stage.model(ModelEvent::Ready);
    let deeds = stage.deeds();
    assert!(deeds[1].starts_with(NOTHING_KNOWN), "{deeds:?}");
    assert_eq!(deeds[2], "reply");
}

#[test]
fn without_context_a_leg_whose_pod_died_or_was_cut_off_says_so_and_speaks_first() {
    let plan = plan().greets("Hello.").without_context();
    let greeted = || {
        let mut stage = Stage::open(plan.clone());
        stage.agent_says("r1", "i1", "Hello.", 500);
        stage.run(1000);
        stage
    };
    let after = |stage: Stage| {
        let mut stage = stage.resumed(plan.clone());
        stage.model(ModelEvent::Ready);
        stage.deeds()
    };
    let told = ["connect 0", NOTHING_KNOWN, "reply"];

    let mut asked = greeted();
    asked.caller_speaks(500);
    assert_eq!(after(asked), told, "its pod died while an answer was owed");

    let mut speaking = greeted();
    speaking.agent_says("r2", "i2", "We are open.", 2000);
    speaking.run(500);
    speaking.input(Input::Phone(PhoneEvent::Lost)).unwrap();
    assert_eq!(after(speaking), told, "its line was lost in mid-sentence");

    let mut quiet = greeted();
    quiet.input(Input::Drain { deadline: quiet.now + Ms(25_000) }).unwrap();
    assert_eq!(after(quiet), ["connect 0"], "it left in a pause");

    assert_eq!(after(Stage::open(plan.clone())), ["connect 0", "say Hello."], "nothing was heard");
}

#[test]
fn a_greeting_given_up_for_other_words_is_not_said_by_the_next_leg() {
    let plan = plan().greets("Hello.");
    let mut stage = Stage::open(plan.clone());
    stage.run(10_000);
    stage.caller_speaks(500);
    stage.caller_said("Are you there?");
    stage.agent_says("r1", "i1", "I am.", 500);
    stage.run(1000);
    assert!(!stage.facts().iter().any(|fact| fact.ends_with(": greeted")));
    let mut stage = stage.resumed(plan);
    stage.model(ModelEvent::Ready);
    assert_eq!(stage.deeds(), ["connect 0", "replay caller: Are you there? | agent: I am."]);
}

#[test]
fn a_resumed_call_ends_when_the_whole_call_s_time_is_over() {
    let plan = plan().lasts(60);
    let mut stage = Stage::open(plan.clone());
    stage.run(50_000);
    let mut stage = stage.resumed(plan);
    stage.model(ModelEvent::Ready);
    assert_eq!(stage.run_to_end().reason, EndReason::MaxDuration);
    assert_eq!(stage.now, Ms::from_secs(60));
}
