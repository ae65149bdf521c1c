//! Time per frame of the session against a bare parse-and-reframe of the same messages, interleaved.
//!
//! The reference is what a competent bridge without any session does with typed serde: read one message, write the one
//! or two that follow from it. The session does that and decides everything else (turns, marks, playback, timers). The
//! figures are reported, not gated: allocations are, in `tests/allocations.rs`.
#![expect(
    clippy::disallowed_methods,
    reason = "a bench measures time; the session under it still takes it as an argument"
)]
#![expect(clippy::disallowed_types, reason = "as above")]

#[path = "support/mod.rs"]
mod support;

use std::hint::black_box;
use std::time::Instant;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use support::{FRAME, Line, STREAM, agent_audio, caller_audio};

/// What the session may cost, in costs of the reference.
const LIMIT: f64 = 1.5;

const RUNS: usize = 15;

/// Frames of one run, in batches between which the phone says that it has played.
const FRAMES: usize = 4000;
const BATCH: usize = 100;

fn main() {
    println!("session: time per frame, medians of {RUNS} interleaved runs of {FRAMES} frames");
    println!("{:<34} {:>12} {:>10} {:>7} {:>7}", "path", "reference", "session", "ratio", "limit");
    let caller = caller_audio(FRAMES);
    report("caller's 20 ms -> append", &caller, reframe_caller, Line::twilio);
    for milliseconds in [20, 100] {
        let agent = agent_audio(FRAMES, milliseconds * FRAME / 20);
        let path = format!("model's {milliseconds} ms -> media + mark");
        report(&path, &agent, reframe_agent, Line::server);
    }
}

/// Measures both sides on the same messages and prints a row of the table.
fn report(
    path: &str,
    messages: &[Bytes],
    reference: impl Fn(&Bytes, &mut dyn FnMut(Vec<u8>)),
    session: impl Fn(&mut Line, &Bytes, &mut dyn FnMut(Bytes)),
) {
    let (mut references, mut sessions) = (Vec::new(), Vec::new());
    for run in 0..=RUNS {
        let mut line = Line::open();
        // A run is worth its median batch: what a busy machine takes away in between hits few of them.
        let (mut bare, mut full) = (Vec::new(), Vec::new());
        for batch in messages.chunks(BATCH) {
            let begun = Instant::now();
            for message in batch {
                reference(message, &mut |frame| _ = black_box(frame));
            }
            let between = Instant::now();
            for message in batch {
                session(&mut line, message, &mut |frame| _ = black_box(frame));
            }
            full.push(between.elapsed().as_nanos() as f64 / batch.len() as f64);
            bare.push((between - begun).as_nanos() as f64 / batch.len() as f64);
            line.echo();
        }
        // The first run warms both up.
        if run > 0 {
            references.push(median(bare));
            sessions.push(median(full));
        }
    }
    let (reference, session) = (median(references), median(sessions));
    let ratio = session / reference;
    println!("{path:<34} {reference:>9.0} ns {session:>7.0} ns {ratio:>7.2} {LIMIT:>7.2}");
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[derive(Deserialize)]
struct MediaIn<'a> {
    event: &'a str,
    #[serde(borrow)]
    media: MediaBody<'a>,
}

#[derive(Deserialize)]
struct MediaBody<'a> {
    track: &'a str,
    timestamp: &'a str,
    payload: &'a str,
}

#[derive(Serialize)]
struct Append<'a> {
    r#type: &'static str,
    audio: &'a str,
}

fn reframe_caller(message: &Bytes, sink: &mut dyn FnMut(Vec<u8>)) {
    let MediaIn { event, media } = serde_json::from_slice(message).expect("a media message");
    assert!(event == "media" && media.track == "inbound");
    black_box(media.timestamp.parse::<u64>().expect("milliseconds"));
    let append = Append { r#type: "input_audio_buffer.append", audio: media.payload };
    sink(serde_json::to_vec(&append).expect("plain values"));
}

#[derive(Deserialize)]
struct DeltaIn<'a> {
    r#type: &'a str,
    response_id: &'a str,
    item_id: &'a str,
    delta: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MediaOut<'a> {
    event: &'static str,
    stream_sid: &'a str,
    media: PayloadOut<'a>,
}

#[derive(Serialize)]
struct PayloadOut<'a> {
    payload: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MarkOut<'a> {
    event: &'static str,
    stream_sid: &'a str,
    mark: NameOut<'a>,
}

#[derive(Serialize)]
struct NameOut<'a> {
    name: &'a str,
}

fn reframe_agent(message: &Bytes, sink: &mut dyn FnMut(Vec<u8>)) {
    let DeltaIn { r#type, response_id, item_id, delta } = serde_json::from_slice(message).expect("a delta");
    assert!(r#type == "response.output_audio.delta" && !response_id.is_empty());
    let media = MediaOut { event: "media", stream_sid: STREAM, media: PayloadOut { payload: delta } };
    sink(serde_json::to_vec(&media).expect("plain values"));
    let mark = MarkOut { event: "mark", stream_sid: STREAM, mark: NameOut { name: item_id } };
    sink(serde_json::to_vec(&mark).expect("plain values"));
}
