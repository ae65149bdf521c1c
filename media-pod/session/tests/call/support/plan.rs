//! Plans, with verbs.

use call_session::agent_file::{
    Engine, EngineKind, GreetingInterruption, Interruption, InterruptionMode, RecoveryKind, SimulatedEngine,
};
use call_session::plan::{Phrases, Plan, PlannedGreeting};
use call_session::tools::{PlannedTool, Repetition, ToolDefinition};
use call_session::{Ms, Redacted};

/// An agent that waits for the caller to speak.
pub(crate) fn plan() -> Plan {
    Plan {
        language: "en-US".to_owned(),
        instructions: Redacted::new("Be kind.".to_owned()),
        greeting: None,
        engines: vec![engine("first")],
        interruption: Interruption::default(),
        transfer_targets: Vec::new(),
        max_call: Ms::from_secs(1800),
        silence: Ms::from_secs(30),
        recovery: RecoveryKind::WithContext,
        tools: Vec::new(),
        phrases: Phrases::default(),
    }
}

fn engine(name: &str) -> Engine {
    Engine { name: name.to_owned(), kind: EngineKind::Simulated { simulated: SimulatedEngine::default() } }
}

pub(crate) trait PlanVerbs {
    fn greets(self, text: &str) -> Self;
    fn greets_to_the_end(self, text: &str) -> Self;
    fn interrupted(self, mode: InterruptionMode) -> Self;
    fn transfers_to(self, target: &str) -> Self;
    fn falls_back_to(self, name: &str) -> Self;
    fn with_tool(self, name: &str, repetition: Repetition) -> Self;
    fn without_context(self) -> Self;
    fn lasts(self, seconds: u64) -> Self;
}

impl PlanVerbs for Plan {
    fn greets(mut self, text: &str) -> Self {
        let text = Redacted::new(text.to_owned());
        self.greeting = Some(PlannedGreeting { text, interruption: GreetingInterruption::Allowed });
        self
    }

    fn greets_to_the_end(mut self, text: &str) -> Self {
        let text = Redacted::new(text.to_owned());
        self.greeting = Some(PlannedGreeting { text, interruption: GreetingInterruption::Disallowed });
        self
    }

    fn interrupted(mut self, mode: InterruptionMode) -> Self {
        self.interruption.mode = mode;
        self
    }

    fn transfers_to(mut self, target: &str) -> Self {
        self.transfer_targets.push(target.to_owned());
        self
    }

    fn falls_back_to(mut self, name: &str) -> Self {
        self.engines.push(engine(name));
        self
    }

    fn with_tool(mut self, name: &str, repetition: Repetition) -> Self {
        let parameters = serde_json::json!({"type": "object"});
        let definition =
            ToolDefinition { name: name.to_owned(), description: "A tool.".to_owned(), parameters };
        self.tools.push(PlannedTool { definition, repetition, timeout: Ms::from_secs(20) });
        self
    }

    fn without_context(mut self) -> Self {
        self.recovery = RecoveryKind::WithoutContext;
        self
    }

    fn lasts(mut self, seconds: u64) -> Self {
        self.max_call = Ms::from_secs(seconds);
        self
    }
}
