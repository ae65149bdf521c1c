//! What a person reads: the events of a call as sentences, the transcript, violations.

use serde_json::Value;
use simulator::violations::Violation;

/// The end of an utterance is known this late: silence must last to be one.
const KNOWN_AFTER_MILLISECONDS: u64 = 1000;

/// Prints a call's events and transcript as they come; each once, events in the order of their time.
#[derive(Debug, Default)]
pub(super) struct Follower {
    seen: usize,
    waiting: Vec<Value>,
    lines: Vec<Value>,
}

impl Follower {
    /// The events that came since the last time, and are old enough that no older one can come.
    pub(super) fn show_events(&mut self, call: &Value) {
        let timeline = call["timeline"].as_array().map(Vec::as_slice).unwrap_or_default();
        self.waiting.extend(timeline.iter().skip(self.seen).cloned());
        self.seen = self.seen.max(timeline.len());
        self.waiting.sort_by_key(at);
        let is_finished = call["finished"] == true;
        let now = call["ageMilliseconds"].as_u64().unwrap_or_default();
        let due =
            self.waiting.partition_point(|event| is_finished || at(event) + KNOWN_AFTER_MILLISECONDS < now);
        for event in self.waiting.drain(..due) {
            if let Some(sentence) = describe(&event) {
                println!("{:7.2} s  · {sentence}", at(&event) as f64 / 1000.0);
            }
        }
    }

    /// The lines that came or changed since the last time.
    pub(super) fn show_transcript(&mut self, transcript: &Value) {
        let lines = transcript.as_array().map(Vec::as_slice).unwrap_or_default();
        for (index, line) in lines.iter().enumerate() {
            let known = self.lines.get(index);
            if known.is_some_and(|known| {
                known["text"] == line["text"] && known["interrupted"] == line["interrupted"]
            }) {
                continue;
            }
            let text = line["text"].as_str().unwrap_or_default();
            let speaker = line["speaker"].as_str().unwrap_or_default();
            let interrupted = line["interrupted"].as_bool() == Some(true);
            let note = if interrupted { "  [interrupted; the words that were heard]" } else { "" };
            println!("          {speaker:<6} {text}{note}");
        }
        self.lines = lines.to_vec();
    }
}

/// One event as a sentence; `None`: not worth a person's time.
fn describe(event: &Value) -> Option<String> {
    let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
    let number = |field: &str| event[field].as_u64().unwrap_or_default();
    Some(match event["event"].as_str()? {
        "webhookAnswered" => format!("{} answered in {} ms", text("path"), number("milliseconds")),
        "webhookFailed" => format!("{} FAILED: {}", text("path"), text("reason")),
        "answered" => "the call is answered".to_owned(),
        "verbStarted" => format!("<{}>", text("verb")),
        "streamStarted" => "media stream open".to_owned(),
        "streamEnded" => format!("media stream over ({})", text("by")),
        "agentStartedSpeaking" => "the agent speaks".to_owned(),
        "agentStoppedSpeaking" => "the agent is silent".to_owned(),
        "callerStartedSpeaking" => "the caller speaks".to_owned(),
        "callerStoppedSpeaking" => "the caller is silent".to_owned(),
        "keyPressed" => format!("the caller presses {}", text("key")),
        "cleared" => {
            format!("clear: {} ms of the agent's speech thrown away", number("discardedMilliseconds"))
        }
        "bargeIn" => format!(
            "BARGE-IN: the agent was silent {} ms after the caller began to speak",
            number("agentSilentAt").saturating_sub(number("callerSpokeAt"))
        ),
        "callbackSent" => match event["status"].as_u64() {
            Some(status) => format!("{} told, {status}", text("path")),
            None => format!("{} could not be told", text("path")),
        },
        "ended" => format!("the call is over ({})", text("reason")),
        _ => return None,
    })
}

/// What is wrong with a call, if anything, and what the caller heard.
pub(super) fn summary(call: &Value) {
    let heard = &call["heard"];
    let seconds = |field: &str| heard[field].as_u64().unwrap_or_default() as f64 / 1000.0;
    println!(
        "the caller heard {:.1} s of speech in {:.1} s",
        seconds("voicedMilliseconds"),
        seconds("milliseconds")
    );
    if let Some(step) = call["failedStep"].as_object() {
        let text = |field: &str| step[field].as_str().unwrap_or_default();
        println!("FAILED: step {} of the caller, {}: {}", step["step"], text("description"), text("reason"));
    }
}

/// The broken rules.
pub(super) fn violations(violations: &[Violation]) {
    if violations.is_empty() {
        println!("0 protocol violations");
        return;
    }
    println!("{} protocol violations:", violations.len());
    for violation in violations {
        println!("  {violation}");
    }
}

fn at(event: &Value) -> u64 {
    event["atMilliseconds"].as_u64().unwrap_or_default()
}
