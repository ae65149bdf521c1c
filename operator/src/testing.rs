//! Fixtures with verbs: small objects that say only what a test is about.

use crds::{
    AgentRef, ConfigMapKeyRef, NumberRoute, PhoneNumber, PhoneNumberSpec, PhoneNumberStatus, PodTemplate,
    VoiceAgent, VoiceAgentSpec, VoiceAgentStatus, VoiceGateway, VoiceGatewaySpec,
};
use serde_json::{Value, json};

use crate::context::Surroundings;

/// The gateway `default` of namespace `moving`, with an Ingress and a memory store.
pub(crate) fn gateway() -> VoiceGateway {
    let spec: VoiceGatewaySpec = serde_json::from_value(json!({
        "publicUrl": "https://voice.example.com",
        "exposure": {"type": "Ingress", "ingress": {"className": "nginx", "tlsSecretName": "voice-tls"}},
        "carrier": {"type": "Twilio", "twilio": {
            "accountSid": format!("AC{}", "0".repeat(32)),
            "authTokenSecretRefs": [{"name": "twilio", "key": "authToken"}],
        }},
        "store": {"type": "Memory"},
    }))
    .unwrap();
    let mut gateway = VoiceGateway::new("default", spec);
    gateway.metadata.namespace = Some("moving".to_owned());
    gateway.metadata.uid = Some("9a2f".to_owned());
    gateway
}

/// An operator as the manifests install it.
pub(crate) fn surroundings() -> Surroundings {
    Surroundings {
        media_image: "registry.example/media:1".to_owned(),
        operator_namespace: "switchboard-system".to_owned(),
        monitoring_namespaces: vec!["monitoring".to_owned()],
        max_rollouts: 5,
    }
}

/// What tests do to gateways.
pub(crate) trait GatewayVerbs {
    fn with(self, pointer: &str, value: Value) -> Self;
}

impl GatewayVerbs for VoiceGateway {
    fn with(mut self, pointer: &str, value: Value) -> Self {
        self.spec = changed(&self.spec, pointer, value);
        self
    }
}

/// The agent `sales` of namespace `moving`, on gateway `default`, with a simulated engine.
pub(crate) fn agent() -> VoiceAgent {
    let spec: VoiceAgentSpec = serde_json::from_value(json!({
        "persona": {"instructions": {"text": "Sell."}},
        "engines": [{"name": "scripted", "type": "Simulated", "simulated": {"replies": ["Yes."]}}],
    }))
    .unwrap();
    let mut agent = VoiceAgent::new("sales", spec);
    agent.metadata.namespace = Some("moving".to_owned());
    agent.metadata.uid = Some("5b1c".to_owned());
    agent.metadata.generation = Some(1);
    agent
}

/// What tests do to agents.
pub(crate) trait AgentVerbs {
    fn with(self, pointer: &str, value: Value) -> Self;
    fn with_status(self, status: VoiceAgentStatus) -> Self;
    fn with_realtime_engine(self) -> Self;
    fn with_instructions_from(self, reference: ConfigMapKeyRef) -> Self;
    fn with_pod_template(self, template: Value) -> Self;
}

impl AgentVerbs for VoiceAgent {
    fn with(mut self, pointer: &str, value: Value) -> Self {
        self.spec = changed(&self.spec, pointer, value);
        self
    }

    fn with_status(mut self, status: VoiceAgentStatus) -> Self {
        self.status = Some(status);
        self
    }

    fn with_realtime_engine(self) -> Self {
        self.with(
            "/engines",
            json!([{"name": "primary", "type": "Realtime", "realtime": {
                "model": "gpt-realtime-2.1", "apiKeySecretRef": {"name": "openai", "key": "apiKey"},
            }}]),
        )
    }

    fn with_instructions_from(mut self, reference: ConfigMapKeyRef) -> Self {
        self.spec.persona.instructions.text = None;
        self.spec.persona.instructions.config_map_key_ref = Some(reference);
        self
    }

    fn with_pod_template(mut self, template: Value) -> Self {
        let Value::Object(template) = template else { panic!("a pod template is an object") };
        self.spec.pod_template = Some(PodTemplate(template));
        self
    }
}

/// The number `main-line` of namespace `moving`, by its digits, with all calls to `sales`.
pub(crate) fn number() -> PhoneNumber {
    let spec: PhoneNumberSpec = serde_json::from_value(json!({
        "source": {"type": "E164", "e164": "+15551230001"},
        "routes": [{"agentRef": {"name": "sales"}}],
    }))
    .unwrap();
    let mut number = PhoneNumber::new("main-line", spec);
    number.metadata.namespace = Some("moving".to_owned());
    number.metadata.generation = Some(1);
    number
}

/// What tests do to numbers.
pub(crate) trait NumberVerbs {
    fn with_routes(self, routes: &[(&str, u32)]) -> Self;
    fn with_status(self, status: PhoneNumberStatus) -> Self;
    fn entering_through(self, agent: &str) -> Self;
}

impl NumberVerbs for PhoneNumber {
    fn with_routes(mut self, routes: &[(&str, u32)]) -> Self {
        let route = |&(agent, weight): &(&str, u32)| NumberRoute {
            agent_ref: AgentRef { name: agent.to_owned() },
            weight,
        };
        self.spec.routes = routes.iter().map(route).collect();
        self
    }

    fn with_status(mut self, status: PhoneNumberStatus) -> Self {
        self.status = Some(status);
        self
    }

    fn entering_through(mut self, agent: &str) -> Self {
        self.status.get_or_insert_default().entry_agent = Some(agent.to_owned());
        self
    }
}

/// A spec with one field set, written as in a manifest.
fn changed<T: serde::Serialize + serde::de::DeserializeOwned>(spec: &T, pointer: &str, value: Value) -> T {
    let mut json = serde_json::to_value(spec).unwrap();
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    json.pointer_mut(parent).unwrap()[field] = value;
    serde_json::from_value(json).unwrap()
}
