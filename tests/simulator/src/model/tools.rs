//! The tools a client offers the model, checked as the API checks them (protocol sheet, section 5.2).

use serde_json::{Value, json};

use super::fields::Fields;
use super::refusal::Refusal;

/// Reads a `tools` list.
pub(super) fn parse(list: &[Value], path: &str) -> Result<Vec<Value>, Refusal> {
    for (index, tool) in list.iter().enumerate() {
        let place = format!("{path}[{index}]");
        match tool.get("type").and_then(Value::as_str) {
            Some("function") => parse_function(tool, &place)?,
            Some("mcp") => {
                Fields::of(tool, &place, MCP_FIELDS)?.required_text("server_label")?;
            }
            Some(_) => return Err(Refusal::invalid(format!("{place}.type"), "function or mcp")),
            None => return Err(Refusal::missing(format!("{place}.type"))),
        }
    }
    Ok(list.to_vec())
}

/// Reads a `tool_choice`.
pub(super) fn parse_choice(choice: &Value, path: &str) -> Result<Value, Refusal> {
    let is_known = matches!(choice.as_str(), Some("none" | "auto" | "required"))
        || matches!(choice.get("type").and_then(Value::as_str), Some("function" | "mcp"));
    if is_known {
        Ok(choice.clone())
    } else {
        Err(Refusal::invalid(path, "none, auto, required or one tool"))
    }
}

/// Whether the model may call this function now.
pub(super) fn is_callable(tools: &[Value], choice: &Value, name: &str) -> bool {
    let is_offered = tools.iter().any(|tool| tool.get("name") == Some(&json!(name)));
    let is_chosen = match choice.get("name") {
        Some(only) => only == name,
        None => choice != "none",
    };
    is_offered && is_chosen
}

fn parse_function(tool: &Value, place: &str) -> Result<(), Refusal> {
    let fields = Fields::of(tool, place, &["type", "name", "description", "parameters"])?;
    let name = fields.required_text("name")?;
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == '-';
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(is_plain) {
        return Err(Refusal::invalid(fields.path_of("name"), "1 to 64 letters, digits, _ or -"));
    }
    fields.text("description")?;
    if fields.value("parameters").is_some_and(|parameters| !parameters.is_object()) {
        return Err(Refusal::invalid(fields.path_of("parameters"), "a JSON schema object"));
    }
    Ok(())
}

const MAX_NAME: usize = 64;

const MCP_FIELDS: &[&str] = &[
    "type",
    "server_label",
    "server_url",
    "connector_id",
    "tunnel_id",
    "server_description",
    "authorization",
    "headers",
    "allowed_tools",
    "require_approval",
    "defer_loading",
    "allowed_callers",
];
