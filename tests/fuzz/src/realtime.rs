//! The Realtime protocol machine against a server that says anything, in any state of it.

use bytes::Bytes;
use call_session::agent_file::RealtimeEngine;
use call_session::audio::Payload;
use call_session::io::{Heard, HistoryItem, ModelCommand, Speech};
use call_session::plan::Plan;
use call_session::realtime::{Closed, Realtime, RealtimeConfig, RealtimeInput, RealtimeOutput};
use call_session::{Ms, Redacted};
use serde_json::json;

use crate::call::plan;

/// Outputs of one input; far more than any has.
const MOST_OUTPUTS: usize = 10_000;

/// Lines: an event of the server, or what the pod does (`!` and a letter). Each takes some time.
pub(crate) fn run(data: &[u8]) {
    let (choice, script) = data.split_first().unwrap_or((&0, &[]));
    let plan = plan(*choice);
    let mut machine = Realtime::new(Ms::ZERO);
    let mut ended = drain(&mut machine, &mut |_| {});
    for (index, line) in script.split(|byte| *byte == b'\n').enumerate() {
        let now = Ms(index as u64 * 20 + line.len() as u64);
        let input = match line {
            [b'!', action, rest @ ..] => action_input(*action, rest, &plan),
            _ => RealtimeInput::Frame(Bytes::copy_from_slice(line)),
        };
        let result = machine.handle_input(now, input);
        assert!(!ended || result.is_err(), "an ended connection takes nothing");
        ended |= drain(&mut machine, &mut |_| {});
    }
}

/// The configuration of a session that uses what there is.
pub(crate) fn config(plan: &Plan) -> Box<RealtimeConfig> {
    let engine = json!({"url": "wss://model.example", "model": "m", "voice": "v", "apiKey": {"name": "n", "key": "k"}});
    let engine: RealtimeEngine = serde_json::from_value(engine).expect("a valid engine");
    Box::new(RealtimeConfig::new(&engine, plan))
}

/// Everything that is to be done after an input; whether the connection has ended.
pub(crate) fn drain(machine: &mut Realtime, take: &mut dyn FnMut(RealtimeOutput)) -> bool {
    for _ in 0..MOST_OUTPUTS {
        match machine.poll_output() {
            RealtimeOutput::Wait(_) => return false,
            RealtimeOutput::Ended => return true,
            RealtimeOutput::Frame(frame) => {
                let value: serde_json::Value = serde_json::from_slice(&frame).expect("a frame is JSON");
                assert!(value["type"].is_string(), "a frame is an event");
                take(RealtimeOutput::Frame(frame));
            }
            other @ (RealtimeOutput::Event(_) | RealtimeOutput::Close { .. }) => take(other),
        }
    }
    panic!("a drain does not end");
}

fn action_input(action: u8, rest: &[u8], plan: &Plan) -> RealtimeInput {
    let text = String::from_utf8_lossy(rest).into_owned();
    let command = match action {
        b'c' => return RealtimeInput::Configure(config(plan)),
        b'x' => {
            return RealtimeInput::Closed(Closed { code: rest.first().map(|code| 1000 + u16::from(*code)) });
        }
        b'f' => return RealtimeInput::Finish,
        b't' => return RealtimeInput::Tick,
        b'a' => ModelCommand::Append(Payload::from_mulaw(rest)),
        b'i' => {
            let heard =
                text.split(' ').map(|item| Heard { item: item.into(), played: Ms(item.len() as u64) });
            ModelCommand::Interrupt { heard: heard.collect() }
        }
        b'o' => ModelCommand::ToolOutput { call: text.as_str().into(), output: Redacted::new(text) },
        b'r' => ModelCommand::Replay(vec![HistoryItem::Caller(Redacted::new(text))]),
        b'n' => ModelCommand::Context(HistoryItem::System(Redacted::new(text))),
        b'v' => ModelCommand::Speak(Speech::Verbatim(Redacted::new(text))),
        _ => ModelCommand::Speak(Speech::Reply),
    };
    RealtimeInput::Command(command)
}
