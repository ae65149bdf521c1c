//! What is known of a call under test: from the carrier's side, from the media pod's API and from the model.
//!
//! The words are the pod's own transcript. Tool calls are asked of the simulated model; a real one cannot be asked, so of it
//! they are what the pod started, and what ended the call.

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
    /// Not known of a real model's call where the agent stores nothing spoken.
    pub(super) arguments: Option<Map<String, Value>>,
}

impl std::fmt::Display for ToolCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.arguments {
            Some(arguments) => write!(f, "{}({})", self.name, Value::Object(arguments.clone())),
            None => write!(f, "{} (with arguments that the agent does not keep)", self.name),
        }
    }
}

impl Observed {
    pub(super) async fn look(record: &Record, calls: &Calls, model: Option<&Model>) -> Self {
        let product = calls.fetch(&record.sid).await.unwrap_or_default();
        let tools = model.map_or_else(|| tools_of(&product), tool_calls);
        Self { view: record.view(), product, tools }
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

/// Tools as the pod knows them: those it ran, and the one that ended the call.
fn tools_of(product: &Value) -> Vec<ToolCall> {
    let events = product["events"].as_array().map(Vec::as_slice).unwrap_or_default();
    events.iter().filter_map(tool_of).collect()
}

fn tool_of(event: &Value) -> Option<ToolCall> {
    let (name, arguments) = match (event["type"].as_str()?, event["reason"].as_str()) {
        ("tool_started", _) => (event["tool"].as_str()?, event["arguments"].as_object().cloned()),
        // The two that the pod carries out itself, when their words were heard.
        ("leg_ended", Some("agent_hung_up")) => ("end_call", Some(Map::new())),
        ("leg_ended", Some("transferred")) => {
            let target = ("target".to_owned(), event["transferTarget"].clone());
            ("transfer", Some(Map::from_iter([target])))
        }
        _ => return None,
    };
    Some(ToolCall { name: name.to_owned(), arguments })
}

/// Completed calls of all sessions, in order.
fn tool_calls(model: &Model) -> Vec<ToolCall> {
    let items = model.sessions().into_iter().flat_map(|session| session.items);
    let calls = items.filter(|item| item.role == "function_call" && item.status == "completed");
    let parsed = calls.filter_map(|item| {
        let (name, arguments) = item.text.strip_suffix(')')?.split_once('(')?;
        let arguments = serde_json::from_str(arguments).unwrap_or_default();
        Some(ToolCall { name: name.to_owned(), arguments: Some(arguments) })
    });
    parsed.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn of_a_real_model_the_tools_are_what_the_pod_ran_and_what_ended_the_call() {
        let told = |events: Value| {
            let tools = tools_of(&json!({ "events": events }));
            tools.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let events = json!([
            {"type": "greeted"},
            {"type": "tool_started", "tool": "look_up", "arguments": {"id": 42}},
            {"type": "tool_ended"},
            {"type": "tool_started", "tool": "book"},
            {"type": "leg_ended", "reason": "agent_hung_up"},
        ]);
        let unknown = "book (with arguments that the agent does not keep)";
        assert_eq!(told(events), [r#"look_up({"id":42})"#, unknown, "end_call({})"]);
        let events = json!([{"type": "leg_ended", "reason": "transferred", "transferTarget": "dispatch"}]);
        assert_eq!(told(events), [r#"transfer({"target":"dispatch"})"#]);
        assert_eq!(told(json!([{"type": "leg_ended", "reason": "caller_hung_up"}])), [] as [&str; 0]);
        assert_eq!(tools_of(&Value::Null), []);
    }
}
