//! What a frame costs in allocations: its own buffer on the way out, and nothing else.

#[path = "../benches/support/mod.rs"]
mod support;

use allocation_counter::measure;
use support::{FRAME, Line, agent_audio, caller_audio};

/// Frames before counting: queues grow to what they need once.
const WARM_UP: usize = 200;

const COUNTED: usize = 1000;

#[test]
fn a_frame_of_the_caller_costs_one_allocation_the_append_itself() {
    let mut line = Line::open();
    let frames = caller_audio(WARM_UP + COUNTED);
    let mut sent = 0;
    let (first, counted) = frames.split_at(WARM_UP);
    first.iter().for_each(|frame| line.twilio(frame, &mut |_| {}));
    let allocations = measure(|| counted.iter().for_each(|frame| line.twilio(frame, &mut |_| sent += 1)));
    assert_eq!(sent, COUNTED);
    assert_eq!(allocations.count_total, sent as u64);
}

#[test]
fn a_frame_of_the_model_costs_two_allocations_its_media_and_its_mark() {
    let mut line = Line::open();
    let frames = agent_audio(WARM_UP + COUNTED, FRAME);
    let mut sent = 0;
    let mut play = |line: &mut Line, frames: &[bytes::Bytes]| {
        for frame in frames {
            line.server(frame, &mut |_| sent += 1);
            line.echo();
        }
    };
    let (first, counted) = frames.split_at(WARM_UP);
    play(&mut line, first);
    let allocations = measure(|| play(&mut line, counted));
    assert_eq!(sent, 2 * (WARM_UP + COUNTED));
    assert_eq!(allocations.count_total, 2 * COUNTED as u64);
}
