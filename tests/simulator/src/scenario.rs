//! A scenario: the account, its numbers, people, what the model says and who calls, as one YAML (or JSON) document.
//!
//! `scenarios/demo.yaml` is the example; it is carried in the binary ([`Scenario::demo`]), and so is `visitor.yaml`.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::caller::Step;
use crate::carrier::edge::Edge;
use crate::carrier::signature::StreamUrlForm;
use crate::carrier::{Account, Callee, Number, Settings};
use crate::faults::{Faults, Switchboard};
use crate::model::{Behaviour, ModelConfig, ModelScript};

/// A scenario file.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Scenario {
    /// The carrier account.
    #[serde(default = "Account::demo")]
    pub account: Account,
    /// Its numbers.
    #[serde(default)]
    pub numbers: Vec<ScenarioNumber>,
    /// People who can be called.
    #[serde(default)]
    pub callees: Vec<Callee>,
    /// The model.
    #[serde(default)]
    pub model: ScenarioModel,
    /// People who call.
    #[serde(default)]
    pub callers: Vec<ScenarioCaller>,
    /// Over which form of its URL a stream's upgrade is signed.
    #[serde(default)]
    pub stream_url_form: StreamUrlForm,
    /// Whether `<Connect action>` is requested after the caller hung up.
    #[serde(default)]
    pub action_after_hang_up: bool,
    /// What fails from the beginning.
    #[serde(default)]
    pub faults: Faults,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            account: Account::demo(),
            numbers: Vec::new(),
            callees: Vec::new(),
            model: ScenarioModel::default(),
            callers: Vec::new(),
            stream_url_form: StreamUrlForm::default(),
            action_after_hang_up: false,
            faults: Faults::default(),
        }
    }
}

/// A number and the webhooks it has before Switchboard comes.
#[derive(Clone, Debug, Deserialize)]
pub struct ScenarioNumber {
    /// E.164.
    pub number: String,
    /// `PN…`.
    pub sid: String,
    /// Fields of the REST resource in camel case, e.g. `voiceUrl`, `statusCallback`, `trunkSid`.
    #[serde(flatten)]
    pub fields: BTreeMap<String, String>,
}

/// The model of a scenario.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ScenarioModel {
    /// The only key it takes.
    pub api_key: String,
    /// What it says.
    pub script: ModelScript,
    /// How fast it is.
    pub behaviour: Behaviour,
}

impl Default for ScenarioModel {
    fn default() -> Self {
        let api_key = "simulated-model-key".to_owned();
        Self { api_key, script: ModelScript::default(), behaviour: Behaviour::default() }
    }
}

/// Somebody who calls.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ScenarioCaller {
    /// To choose them by.
    pub name: String,
    /// Calling number.
    pub from: String,
    /// Called number.
    pub to: String,
    /// What they do.
    pub steps: Vec<Step>,
}

/// A scenario that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidScenario {
    /// Not YAML, or not of this shape.
    #[error("the scenario cannot be read: {0}")]
    Shape(String),
    /// A number's field the REST resource does not have, or does not take with this value.
    #[error("number {number}: {reason}")]
    Number {
        /// E.164.
        number: String,
        /// Why.
        reason: String,
    },
}

impl Scenario {
    /// Reads a document.
    pub fn from_yaml(text: &str) -> Result<Self, InvalidScenario> {
        serde_saphyr::from_str(text).map_err(|error| InvalidScenario::Shape(error.to_string()))
    }

    /// The demo's.
    pub fn demo() -> Result<Self, InvalidScenario> {
        Self::from_yaml(include_str!("../scenarios/demo.yaml"))
    }

    /// The one for an agent nothing is known of, who has a greeting or not.
    pub fn visitor(is_greeted: bool) -> Result<Self, InvalidScenario> {
        let mut scenario = Self::from_yaml(include_str!("../scenarios/visitor.yaml"))?;
        if !is_greeted {
            for caller in &mut scenario.callers {
                caller.steps.remove(0); // it waits for the greeting
            }
        }
        Ok(scenario)
    }

    /// The carrier's side of it.
    pub fn carrier(&self, edges: Vec<Edge>) -> Result<Settings, InvalidScenario> {
        let mut settings = Settings::new(self.account.clone());
        for seed in &self.numbers {
            let invalid = |reason: String| InvalidScenario::Number { number: seed.number.clone(), reason };
            let mut number = Number::new(&seed.sid, &seed.number);
            number.set_fields(&seed.fields).map_err(invalid)?;
            settings.numbers.push(number);
        }
        settings.callees.clone_from(&self.callees);
        settings.edges = edges;
        settings.stream_url_form = self.stream_url_form;
        settings.action_after_hang_up = self.action_after_hang_up;
        settings.switches = Switchboard::new(self.faults.clone());
        Ok(settings)
    }

    /// The model's side of it.
    pub fn model(&self) -> ModelConfig {
        let ScenarioModel { api_key, script, behaviour } = self.model.clone();
        ModelConfig { api_key, script, behaviour, switches: Switchboard::new(self.faults.clone()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_is_a_scenario_with_one_caller_and_former_webhooks() {
        let scenario = Scenario::demo().unwrap();
        let settings = scenario.carrier(vec![]).unwrap();
        assert_eq!(settings.numbers.len(), 2);
        assert_eq!(scenario.callers.len(), 1);
        let Account { sid, auth_token, api_keys } = settings.account;
        let demo = Account::demo();
        assert_eq!((sid, auth_token), (demo.sid, demo.auth_token));
        assert_eq!(api_keys.len(), 1, "one key, for REST alone");
    }

    #[test]
    fn a_visitor_waits_for_a_greeting_only_where_there_is_one() {
        let steps = |is_greeted| Scenario::visitor(is_greeted).unwrap().callers[0].steps.clone();
        assert_eq!(steps(true)[1..], steps(false));
        assert!(matches!(steps(false)[0], Step::Say(_)));
    }

    #[test]
    fn a_wrong_field_is_named() {
        let text = "numbers: [{number: \"+15551230001\", sid: PN1, voiceURL: x}]";
        let error = Scenario::from_yaml(text).unwrap().carrier(vec![]).unwrap_err();
        assert_eq!(error.to_string(), "number +15551230001: `voiceURL` is not a field of a number");
        assert!(Scenario::from_yaml("numbres: []").is_err());
    }
}
