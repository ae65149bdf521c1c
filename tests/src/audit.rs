//! What the operator asked of the API server, by the API server's own audit log: the one witness of "nothing was written"
//! and "nothing was done twice".
//!
//! Only requests of service accounts of one namespace are logged, and of those who asked for what, never what was in it.
//! A watch is one request, whenever it ends.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// `get`, `list`, `watch`, `create`, `patch`, `update`, `delete`.
    pub verb: String,
    /// Plural, with the subresource: `voiceagents/status`.
    pub resource: String,
    /// Empty for the whole cluster.
    pub namespace: String,
    /// Empty for lists.
    pub name: String,
}

impl Request {
    /// Whether it could have changed something.
    #[must_use]
    pub fn is_write(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch")
    }

    fn parse(event: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let object = &event["objectRef"];
        let mut resource = text(&object["resource"]);
        if let Some(subresource) = object["subresource"].as_str() {
            resource = format!("{resource}/{subresource}");
        }
        Self {
            verb: text(&event["verb"]),
            resource,
            namespace: text(&object["namespace"]),
            name: text(&object["name"]),
        }
    }
}

/// Every request so far, oldest first; `skip` leaves out what was read before.
///
/// # Errors
/// When the log cannot be read or is no audit log.
pub(crate) fn read(logs: &Path, skip: usize) -> Result<Vec<Request>> {
    let path = log(logs);
    let file = File::open(&path).with_context(|| path.display().to_string())?;
    let mut requests = Vec::new();
    for line in BufReader::new(file).lines().skip(skip) {
        let line = line?;
        // The last line may still be being written; it is there whole the next time.
        let Ok(event) = serde_json::from_str(&line) else { break };
        requests.push(Request::parse(&event));
    }
    Ok(requests)
}

pub(crate) fn log(logs: &Path) -> PathBuf {
    logs.join("audit.log")
}

/// `audit.k8s.io/v1`: one line for each request of the namespace's service accounts. A watch is logged when it begins.
pub(crate) fn policy(namespace: &str) -> Value {
    let accounts = [format!("system:serviceaccounts:{namespace}")];
    json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived", "Panic"],
        "rules": [
            {"level": "Metadata", "userGroups": accounts, "verbs": ["watch"], "omitStages": ["ResponseComplete"]},
            {"level": "Metadata", "userGroups": accounts},
            {"level": "None"},
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_write_is_told_from_a_read() {
        let event = json!({
            "verb": "patch",
            "objectRef": {"resource": "voiceagents", "subresource": "status", "namespace": "a", "name": "b"},
        });
        let request = Request::parse(&event);
        assert_eq!((request.resource.as_str(), request.name.as_str()), ("voiceagents/status", "b"));
        assert!(request.is_write());
        assert!(!Request::parse(&json!({"verb": "watch", "objectRef": {"resource": "pods"}})).is_write());
    }
}
