//! What one call will do: the agent file's choices with this call's variables filled in. Built once per call by the
//! shell, never changed afterwards: a running call keeps its plan when the agent changes.

use std::collections::BTreeMap;

use crate::agent_file::{AgentFile, Engine, GreetingInterruption, Interruption, RecoveryKind};
use crate::{Ms, Redacted};

/// One call's choices.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// BCP 47 tag.
    pub language: String,
    /// The model's instructions, variables filled in.
    pub instructions: Redacted<String>,
    /// The first words, variables filled in.
    pub greeting: Option<PlannedGreeting>,
    /// Engines in order of preference; never empty.
    pub engines: Vec<Engine>,
    /// When the caller's voice stops the agent's.
    pub interruption: Interruption,
    /// Names of the transfer targets the model may choose from.
    pub transfer_targets: Vec<String>,
    /// The call ends after this much time since its origin.
    pub max_call: Ms,
    /// Mutual silence before the caller is asked, and again before the call ends.
    pub silence: Ms,
    /// Whether what is spoken goes into the journal.
    pub recovery: RecoveryKind,
}

/// The first words of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedGreeting {
    /// The words.
    pub text: Redacted<String>,
    /// Whether they may be interrupted.
    pub interruption: GreetingInterruption,
}

/// What is known about a call when it begins; fills `{{name}}` in instructions and greeting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variables(BTreeMap<String, Redacted<String>>);

impl Variables {
    /// Adds or replaces one variable.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.0.insert(name.to_owned(), Redacted::new(value.into()));
        self
    }

    /// Replaces each `{{name}}` (spaces inside the braces allowed) that is known. An unknown one stays as it stands, so
    /// that a mistake is visible in the transcript instead of silently empty. Values are not filled in again.
    pub fn fill(&self, template: &str) -> String {
        let mut filled = String::with_capacity(template.len());
        let mut rest = template;
        while let Some(open) = rest.find("{{") {
            let (before, from_open) = rest.split_at(open);
            filled.push_str(before);
            let Some(close) = from_open.find("}}") else {
                rest = from_open;
                break;
            };
            let (placeholder, after) = from_open.split_at(close + 2);
            match self.0.get(placeholder[2..close].trim()) {
                Some(value) => filled.push_str(value.expose()),
                None => filled.push_str(placeholder),
            }
            rest = after;
        }
        filled.push_str(rest);
        filled
    }
}

impl Plan {
    /// The plan of one call of `agent`.
    pub fn new(agent: &AgentFile, variables: &Variables) -> Self {
        let greeting = agent.persona.greeting.as_ref().map(|greeting| PlannedGreeting {
            text: Redacted::new(variables.fill(&greeting.text)),
            interruption: greeting.interruption,
        });
        Self {
            language: agent.persona.language.clone(),
            instructions: Redacted::new(variables.fill(&agent.persona.instructions)),
            greeting,
            engines: agent.engines.clone(),
            interruption: agent.interruption.clone(),
            transfer_targets: agent.transfer_targets.iter().map(|target| target.name.clone()).collect(),
            max_call: Ms::from_secs(u64::from(agent.limits.max_call_seconds)),
            silence: Ms::from_secs(u64::from(agent.limits.silence_seconds)),
            recovery: agent.recovery.kind,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_fill_once_and_unknown_ones_stay() {
        let variables = Variables::default().with("caller", "{{agent}}").with("agent", "sales");
        assert_eq!(
            variables.fill("{{ caller }} calls {{agent}}, {{nobody}} {{open"),
            "{{agent}} calls sales, {{nobody}} {{open"
        );
    }
}
