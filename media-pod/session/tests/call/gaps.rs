//! What the model hears where the phone sent nothing.

use call_session::Ms;
use call_session::audio::{Payload, SILENCE};
use call_session::io::{Input, ModelCommand, ModelEvent, Output, PhoneEvent};

use crate::support::Stage;
use crate::support::plan::plan;

/// A frame of 20 ms whose presentation time is `timestamp`.
fn frame(stage: &mut Stage, timestamp: u64) {
    let media = PhoneEvent::Media { timestamp: Ms(timestamp), audio: Payload::from_mulaw(&[0x55; 160]) };
    stage.input(Input::Phone(media)).expect("the call takes it");
}

fn none() -> Vec<String> {
    Vec::new()
}

#[test]
fn frames_without_a_gap_are_passed_on_and_nothing_is_added() {
    let mut stage = Stage::open(plan());
    for timestamp in [40, 60, 81, 100, 120] {
        frame(&mut stage, timestamp);
        stage.run(20);
    }
    assert_eq!(stage.news(), ["append 20"; 5]);
}

#[test]
fn a_gap_is_filled_with_as_much_silence() {
    let mut stage = Stage::open(plan());
    frame(&mut stage, 0);
    stage.run(1520);
    stage.news();
    frame(&mut stage, 1520);
    let appended: Vec<_> = stage
        .take()
        .into_iter()
        .filter_map(|output| match output {
            Output::Model(ModelCommand::Append(audio)) => Some(audio.to_mulaw()),
            _ => None,
        })
        .collect();
    assert_eq!(appended, [vec![SILENCE; 8000], vec![SILENCE; 4000], vec![0x55; 160]]);
    stage.run(20);
    frame(&mut stage, 1540);
    assert_eq!(stage.news(), ["append 20"], "the gap is filled once");
}

#[test]
fn a_gap_is_filled_up_to_ten_seconds() {
    let mut stage = Stage::open(plan());
    frame(&mut stage, 0);
    stage.run(25_000);
    stage.news();
    frame(&mut stage, 25_000);
    let news = stage.news();
    assert_eq!(news.iter().filter(|line| *line == "append 1000").count(), 10);
    assert_eq!(news.len(), 11);
}

#[test]
fn timestamps_cannot_make_more_audio_than_time_has_passed() {
    let mut stage = Stage::open(plan());
    for n in 0..100 {
        frame(&mut stage, n * 9000);
    }
    let silence = stage.news().iter().filter(|line| *line == "append 1000" || *line == "append 980").count();
    assert_eq!(silence, 1, "the second that a phone's clock may be ahead");
}

#[test]
fn timestamps_that_go_back_begin_anew() {
    let mut stage = Stage::open(plan());
    for timestamp in [5000, 0, 20] {
        stage.run(20);
        frame(&mut stage, timestamp);
    }
    assert_eq!(stage.news(), ["append 20"; 3]);
}

#[test]
fn a_phone_that_stalls_while_its_caller_speaks_lets_the_turn_end() {
    let mut stage = Stage::open(plan());
    frame(&mut stage, 0);
    stage.model(ModelEvent::SpeechStarted);
    stage.news();
    stage.run(749);
    assert_eq!(stage.news(), none());
    stage.run(1);
    assert_eq!(stage.news(), ["append 1000"]);
    stage.model(ModelEvent::SpeechStopped);
    stage.run(4999);
    assert_eq!(stage.news(), none(), "the turn is over");
    stage.run(1001);
    assert_eq!(stage.deeds(), ["clip"]);
    frame(&mut stage, 6750);
    assert_eq!(
        stage.news()[..6],
        ["append 1000", "append 1000", "append 1000", "append 1000", "append 1000", "append 730"]
    );
}

#[test]
fn a_stall_is_filled_for_ten_seconds_at_most() {
    let mut stage = Stage::open(plan());
    frame(&mut stage, 0);
    stage.model(ModelEvent::SpeechStarted);
    stage.news();
    stage.run(60_000);
    assert_eq!(stage.news(), ["append 1000"; 10]);
}

#[test]
fn a_phone_that_never_sent_audio_is_not_spoken_for() {
    let mut stage = Stage::open(plan());
    stage.caller_speaks(5000);
    assert_eq!(stage.news(), none());
}
