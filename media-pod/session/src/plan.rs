//! What one call will do: the agent file's choices with this call's variables filled in. Built once per call by the
//! shell, never changed afterwards: a running call keeps its plan when the agent changes.

use std::collections::BTreeMap;

use crate::agent_file::{
    AgentFile, Engine, GreetingInterruption, Interruption, InterruptionMode, RecoveryKind,
};
pub use crate::phrases::Phrases;
use crate::tools::PlannedTool;
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
    /// Tools run outside of the machine, besides the built-in ones.
    pub tools: Vec<PlannedTool>,
    /// What the agent says by itself.
    pub phrases: Phrases,
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
            tools: Vec::new(),
            phrases: Phrases::of(&agent.persona.language),
        }
    }

    /// Whether the engine may cut its own reply when it hears the caller (`interrupt_response` of the Realtime API).
    ///
    /// False where some speech must not interrupt: a greeting that has to be heard, or a policy that first waits for
    /// more speech or never interrupts. The call machine then decides, and cancels by
    /// [`ModelCommand::Interrupt`](crate::io::ModelCommand::Interrupt). It sends that command in either case, because
    /// only it knows what was heard.
    pub fn server_interrupts(&self) -> bool {
        let must_be_heard =
            |greeting: &PlannedGreeting| greeting.interruption == GreetingInterruption::Disallowed;
        self.server_replies() && !self.greeting.as_ref().is_some_and(must_be_heard)
    }

    /// Whether the engine answers by itself when the caller stops speaking (`create_response` of the Realtime API).
    ///
    /// False where speech may turn out not to be a turn (`Confirmed`: noise over the agent's words) or comes while the
    /// agent must finish (`Never`): the call machine then asks for each reply by
    /// [`ModelCommand::Speak`](crate::io::ModelCommand::Speak), at the cost of one round trip.
    pub fn server_replies(&self) -> bool {
        match self.interruption.mode {
            InterruptionMode::Immediate => true,
            InterruptionMode::Confirmed | InterruptionMode::Never => false,
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
