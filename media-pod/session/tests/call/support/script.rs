//! Outputs as lines, so that a test can say all that happened and that nothing else did.

use call_session::audio::BYTES_PER_MS;
use call_session::io::{Event, HistoryItem, ModelCommand, Output, PhoneCommand, Speech, ToolRequest};
use call_session::journal::Fact;

/// One line each; audio and its marks are summed up until something else comes.
pub(crate) fn lines(outputs: impl Iterator<Item = Output>) -> Vec<String> {
    let mut lines = Vec::new();
    let mut audio = 0;
    for output in outputs {
        match &output {
            Output::Phone(PhoneCommand::Audio(piece)) => {
                audio += piece.mulaw_len();
                continue;
            }
            Output::Phone(PhoneCommand::Mark(_)) => continue,
            _ => {}
        }
        if audio > 0 {
            lines.push(format!("audio {}", std::mem::take(&mut audio) / BYTES_PER_MS));
        }
        lines.push(line(&output));
    }
    if audio > 0 {
        lines.push(format!("audio {}", audio / BYTES_PER_MS));
    }
    lines
}

fn line(output: &Output) -> String {
    match output {
        Output::Phone(PhoneCommand::Clear) => "clear".to_owned(),
        Output::Phone(PhoneCommand::Audio(_) | PhoneCommand::Mark(_)) => "audio".to_owned(),
        Output::Model(command) => model(command),
        Output::Connect { engine } => format!("connect {engine}"),
        Output::Prepare { engine } => format!("prepare {engine}"),
        Output::Switch => "switch".to_owned(),
        Output::Comfort => "clip".to_owned(),
        Output::Tool(ToolRequest { call, name, arguments }) => {
            format!("run {call} {name} {}", arguments.expose())
        }
        Output::Journal(entry) => format!("journal {}: {}", entry.sequence, fact(&entry.fact)),
        Output::Event(what) => event(what),
        Output::Wait(until) => format!("wait {until:?}"),
        Output::Ended(ending) => format!("ended {:?} {:?}", ending.reason, ending.next),
    }
}

fn model(command: &ModelCommand) -> String {
    match command {
        ModelCommand::Replay(items) => {
            format!("replay {}", items.iter().map(history).collect::<Vec<_>>().join(" | "))
        }
        ModelCommand::Append(audio) => format!("append {}", audio.duration().0),
        ModelCommand::Interrupt { heard } => {
            let heard: Vec<_> =
                heard.iter().map(|heard| format!(" {}@{}", heard.item, heard.played.0)).collect();
            format!("interrupt{}", heard.concat())
        }
        ModelCommand::Context(item) => format!("context {}", history(item)),
        ModelCommand::ToolOutput { call, output } => format!("output {call}: {}", output.expose()),
        ModelCommand::Speak(Speech::Verbatim(text)) => format!("say {}", text.expose()),
        ModelCommand::Speak(Speech::Reply) => "reply".to_owned(),
    }
}

fn history(item: &HistoryItem) -> String {
    match item {
        HistoryItem::Caller(text) => format!("caller: {}", text.expose()),
        HistoryItem::Agent(text) => format!("agent: {}", text.expose()),
        HistoryItem::System(text) => format!("system: {}", text.expose()),
        HistoryItem::Tool { call, name, arguments, output } => {
            format!("tool {call} {name} {} = {}", arguments.expose(), output.expose())
        }
    }
}

fn fact(fact: &Fact) -> String {
    match fact {
        Fact::Attached => "attached".to_owned(),
        Fact::Greeted => "greeted".to_owned(),
        Fact::CallerSaid { text } => format!("caller said {}", text.expose()),
        Fact::AgentSaid { text, interrupted } => {
            format!("agent said {}{}", text.expose(), if *interrupted { " (interrupted)" } else { "" })
        }
        Fact::AgentHeard { text } => format!("agent heard {}", text.expose()),
        Fact::Digit { digit } => format!("digit {}", digit.expose()),
        Fact::ToolStarted { call, name, arguments } => {
            format!("tool started {call} {name} {}", arguments.expose())
        }
        Fact::ToolEnded { call, output } => format!("tool ended {call} {}", output.expose()),
        Fact::Left => "left".to_owned(),
        Fact::CutOff => "cut off".to_owned(),
        Fact::Unknown => "unknown".to_owned(),
    }
}

fn event(event: &Event) -> String {
    match event {
        Event::ModelReady { after } => format!("model ready after {}", after.0),
        Event::FirstAudio { after: Some(after) } => format!("first audio after {}", after.0),
        Event::FirstAudio { after: None } => "first audio".to_owned(),
        Event::TurnAnswered { latency } => format!("turn answered after {}", latency.0),
        Event::BargeIn { heard, sent } => format!("barge-in at {} of {}", heard.0, sent.0),
        Event::AudioGap { silence } => format!("audio gap of {} ms", silence.0),
        Event::StaleAudioDropped => "stale audio dropped".to_owned(),
        Event::CallerTranscript { text } => format!("caller: {}", text.expose()),
        Event::AgentTranscript { text, interrupted } => {
            format!("agent: {}{}", text.expose(), if *interrupted { " (interrupted)" } else { "" })
        }
        Event::Digit => "digit".to_owned(),
        Event::ToolEnded { name, outcome, took } => format!("tool {name} {outcome:?} after {}", took.0),
        Event::ModelLost { reason } => format!("model lost: {reason:?}"),
        Event::ModelReplaced => "model replaced".to_owned(),
        Event::SuccessorLost { reason } => format!("successor lost: {reason:?}"),
        Event::ModelRefused { class } => format!("model refused: {class:?}"),
        Event::Usage(_) => "usage".to_owned(),
    }
}
