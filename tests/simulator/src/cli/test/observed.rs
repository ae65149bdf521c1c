//! What is known of a call under test: from the carrier's side, from the media pod's API and from the model.
//!
//! Only the tool calls come from the simulated model; a real one could not be asked, and the words are the pod's own
//! transcript in any case.

use serde_json::{Map, Value};
use simulator::carrier::Record;
use simulator::carrier::record::{Event, View};
use simulator::model::Model;

use crate::cli::local::pod::Calls;

/// One look at a call.
#[derive(Debug)]
pub(super) struct Observed {
    pub(super) view: View,
    /// What the pod says; `null` while it does not know the call.
    product: Value,
    pub(super) tools: Vec<ToolCall>,
}

/// A tool the model called.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ToolCall {
    pub(super) name: String,
    pub(super) arguments: Map<String, Value>,
}

impl std::fmt::Display for ToolCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}({})", self.name, Value::Object(self.arguments.clone()))
    }
}

impl Observed {
    pub(super) async fn look(record: &Record, calls: &Calls, model: &Model) -> Self {
        let product = calls.fetch(&record.sid).await.unwrap_or_default();
        Self { view: record.view(), product, tools: tool_calls(model) }
    }

    /// What the agent said, as far as the caller heard it, one text per utterance.
    pub(super) fn agent_lines(&self) -> Vec<&str> {
        let lines = self.product["transcript"].as_array().map(Vec::as_slice).unwrap_or_default();
        let agent = lines.iter().filter(|line| line["speaker"] == "agent");
        agent.filter_map(|line| line["text"].as_str()).collect()
    }

    /// The whole transcript, for a person.
    pub(super) fn transcript(&self) -> String {
        let lines = self.product["transcript"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut text = String::new();
        for line in lines {
            let note = if line["interrupted"] == true { " [interrupted]" } else { "" };
            let part = |field: &str| line[field].as_str().unwrap_or_default().to_owned();
            text.push_str(&format!("{:<6} {}{note}\n", part("speaker"), part("text")));
        }
        text
    }

    /// Why the call ended, in the product's words.
    pub(super) fn end_reason(&self) -> Option<&str> {
        self.product["endReason"].as_str()
    }

    pub(super) fn dialled(&self) -> Vec<&str> {
        let events = self.view.timeline.iter().filter_map(|timed| match &timed.event {
            Event::Dialled { number } => Some(number.as_str()),
            _ => None,
        });
        events.collect()
    }

    /// Whether the caller hears the agent at this moment.
    pub(super) fn agent_is_speaking(&self) -> bool {
        let count = |wanted: &Event| self.view.timeline.iter().filter(|timed| timed.event == *wanted).count();
        count(&Event::AgentStartedSpeaking) > count(&Event::AgentStoppedSpeaking)
    }

    /// When the agent began to answer the caller's last act (or the call's answer), and how long after its end.
    pub(super) fn answer_latency(&self) -> Option<u64> {
        let last = |is: fn(&Event) -> bool| {
            let times = self.view.timeline.iter().filter(|timed| is(&timed.event));
            times.map(|timed| timed.at_milliseconds).max()
        };
        let is_act = |event: &Event| {
            matches!(event, Event::Answered | Event::CallerStartedSpeaking | Event::KeyPressed { .. })
        };
        let is_end = |event: &Event| {
            matches!(event, Event::Answered | Event::CallerStoppedSpeaking | Event::KeyPressed { .. })
        };
        let (began, ended) = (last(is_act)?, last(is_end)?);
        let starts = self.view.timeline.iter().filter(|timed| timed.event == Event::AgentStartedSpeaking);
        let start = starts.map(|timed| timed.at_milliseconds).filter(|at| *at > began).min()?;
        Some(start.saturating_sub(ended))
    }
}

/// Completed calls of all sessions, in order.
fn tool_calls(model: &Model) -> Vec<ToolCall> {
    let items = model.sessions().into_iter().flat_map(|session| session.items);
    let calls = items.filter(|item| item.role == "function_call" && item.status == "completed");
    let parsed = calls.filter_map(|item| {
        let (name, arguments) = item.text.strip_suffix(')')?.split_once('(')?;
        let arguments = serde_json::from_str(arguments).unwrap_or_default();
        Some(ToolCall { name: name.to_owned(), arguments })
    });
    parsed.collect()
}
