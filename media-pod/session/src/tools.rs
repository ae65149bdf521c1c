//! What the model is offered besides words: definitions, the built-in tools, and what a call of one means.
//!
//! The model never supplies a number to dial: `transfer` takes the name of a configured target. Arguments are parsed
//! here, once; what does not parse is refused with a sentence the model can act on, never run.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::Ms;
use crate::plan::Plan;

/// A tool as an engine offers it to the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolDefinition {
    /// What the model calls it.
    pub name: String,
    /// When and how to use it, for the model.
    pub description: String,
    /// JSON schema of the arguments; always an object.
    pub parameters: Value,
}

/// A tool that is run outside of the machine, by [`Output::Tool`](crate::io::Output::Tool).
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedTool {
    /// As the model sees it.
    pub definition: ToolDefinition,
    /// Whether running it twice does harm.
    pub repetition: Repetition,
    /// The model gets an answer after this much time, whatever the tool does.
    pub timeout: Ms,
}

/// Whether running a tool twice does harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repetition {
    /// It only reads, or the other side knows repetitions.
    Harmless,
    /// It runs only after the journal holds that it is about to run.
    OnceOnly,
}

/// What a call of a tool asks for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Request<'a> {
    /// End the call once the words around it are heard.
    EndCall,
    /// Send the caller elsewhere once the words around it are heard.
    Transfer {
        /// A configured target.
        target: String,
    },
    /// Run a tool outside of the machine.
    Run(&'a PlannedTool),
    /// Nothing that exists, or nothing that parses; the sentence is for the model.
    Refused(&'static str),
}

const END_CALL: &str = "end_call";
const TRANSFER: &str = "transfer";

/// Everything the model is offered in a call of `plan`.
pub(crate) fn definitions(plan: &Plan) -> Vec<ToolDefinition> {
    let mut offered = vec![ToolDefinition {
        name: END_CALL.to_owned(),
        description:
            "Hang up. Say goodbye first, in the same turn: the call ends when your words have been heard, \
                      and goes on if the caller interrupts them."
                .to_owned(),
        parameters: json!({"type": "object", "properties": {}, "additionalProperties": false}),
    }];
    if !plan.transfer_targets.is_empty() {
        offered.push(ToolDefinition {
            name: TRANSFER.to_owned(),
            description: "Transfer the caller to another place. Tell the caller first, in the same turn: the transfer \
                          happens when your words have been heard, and not if the caller interrupts them."
                .to_owned(),
            parameters: json!({
                "type": "object",
                "properties": {"target": {"type": "string", "enum": plan.transfer_targets, "description": "Where to."}},
                "required": ["target"],
                "additionalProperties": false,
            }),
        });
    }
    offered.extend(plan.tools.iter().map(|tool| tool.definition.clone()));
    offered
}

/// What a call of `name` with `arguments` asks for.
pub(crate) fn parse<'a>(plan: &'a Plan, name: &str, arguments: &str) -> Request<'a> {
    let arguments = if arguments.trim().is_empty() { "{}" } else { arguments };
    let Ok(Value::Object(arguments)) = serde_json::from_str(arguments) else {
        return Request::Refused("Error: the arguments are not a JSON object.");
    };
    if name == END_CALL {
        return Request::EndCall;
    }
    if name == TRANSFER && !plan.transfer_targets.is_empty() {
        return match arguments.get("target").and_then(Value::as_str) {
            Some(target) if plan.transfer_targets.iter().any(|known| known == target) => {
                Request::Transfer { target: target.to_owned() }
            }
            Some(_) => Request::Refused("Error: there is no such transfer target."),
            None => Request::Refused("Error: the argument target is missing."),
        };
    }
    match plan.tools.iter().find(|tool| tool.definition.name == name) {
        Some(tool) => Request::Run(tool),
        None => Request::Refused("Error: there is no such tool."),
    }
}
