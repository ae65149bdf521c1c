//! The file of an agent test: who calls, what the simulated model says, and what is said, pressed and expected in turn.
//!
//! Read strictly: an unknown key is an error, because a misspelt expectation would pass for ever. docs/agent-tests.md is
//! the reference.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use regex::{Regex, RegexBuilder};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use simulator::carrier::Callee;
use simulator::model::ModelScript;

/// All cases of one agent.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Suite {
    /// Named in the report.
    #[serde(default)]
    pub(super) name: Option<String>,
    /// The agent file itself, where it is not a file of its own.
    #[serde(default)]
    pub(super) agent: Option<Value>,
    /// The calling number of cases without their own.
    #[serde(default = "default_from")]
    pub(super) from: String,
    /// The called number.
    #[serde(default = "default_to")]
    pub(super) to: String,
    /// How long an expectation waits before it fails, if it says nothing itself.
    #[serde(default = "default_patience")]
    pub(super) patience: Length,
    /// People the agent may transfer to.
    #[serde(default)]
    pub(super) callees: Vec<Callee>,
    pub(super) cases: Vec<Case>,
}

/// One call.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Case {
    pub(super) name: String,
    #[serde(default)]
    pub(super) from: Option<String>,
    /// What the simulated model says in this case.
    #[serde(default)]
    pub(super) model: ModelScript,
    pub(super) steps: Vec<Step>,
}

/// What the caller does, or what is expected before the next step.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) enum Step {
    Say(String),
    Press(String),
    Interrupt(Interrupt),
    Pause(Length),
    HangUp,
    Agent(SpeechOrWords),
    Tool(ToolOrName),
    Transfer(String),
    End(EndOrReason),
}

/// Talking over the agent.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Interrupt {
    /// After the agent has been speaking for so long.
    pub(super) after: Length,
    pub(super) say: String,
}

/// What the agent is expected to say since the caller last did something.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Speech {
    /// All of these, whatever their case.
    pub(super) contains: OneOrMore,
    pub(super) matches: Option<Pattern>,
    /// None of these.
    pub(super) not: OneOrMore,
    /// From the end of the caller's turn to the agent's first sound.
    pub(super) within: Option<Length>,
    pub(super) patience: Option<Length>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum SpeechOrWords {
    Words(String),
    Speech(Speech),
}

/// A tool the model is expected to call.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Tool {
    pub(super) name: String,
    /// These, among others.
    #[serde(default)]
    pub(super) arguments: Map<String, Value>,
    #[serde(default)]
    pub(super) patience: Option<Length>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum ToolOrName {
    Name(String),
    Tool(Tool),
}

/// How the call is expected to end.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct End {
    /// In the words of the product's API.
    pub(super) reason: Option<String>,
    pub(super) patience: Option<Length>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum EndOrReason {
    Reason(String),
    End(End),
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(untagged)]
pub(super) enum OneOrMore {
    #[default]
    None,
    One(String),
    More(Vec<String>),
}

/// A regular expression, regardless of case.
#[derive(Clone, Debug)]
pub(super) struct Pattern(Regex);

/// A length of time: `500ms`, `2s`, `1.5s`, `1m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Length(pub(super) Duration);

impl Suite {
    pub(super) fn from_yaml(text: &str) -> anyhow::Result<Self> {
        let suite: Self = serde_saphyr::from_str(text)?;
        ensure!(!suite.cases.is_empty(), "there is no case");
        for case in &suite.cases {
            ensure!(!case.steps.is_empty(), "case `{}` has no step", case.name);
            let same = suite.cases.iter().filter(|other| other.name == case.name).count();
            ensure!(same == 1, "there are {same} cases named `{}`", case.name);
            let last = case.steps.iter().position(Step::is_last).map_or(case.steps.len(), |at| at + 1);
            ensure!(
                case.steps[last..].iter().all(|step| matches!(step, Step::End(_) | Step::Tool(_))),
                "case `{}`: nothing can be said or heard after the call's end (step {last})",
                case.name
            );
        }
        Ok(suite)
    }

    pub(super) fn read(path: &std::path::Path) -> anyhow::Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::from_yaml(&text).with_context(|| path.display().to_string())
    }
}

impl Step {
    const fn is_last(&self) -> bool {
        matches!(self, Self::HangUp | Self::End(_))
    }
}

impl SpeechOrWords {
    pub(super) fn speech(&self) -> Speech {
        match self {
            Self::Words(words) => Speech { contains: OneOrMore::One(words.clone()), ..Speech::default() },
            Self::Speech(speech) => speech.clone(),
        }
    }
}

impl ToolOrName {
    pub(super) fn tool(&self) -> Tool {
        match self {
            Self::Name(name) => Tool { name: name.clone(), arguments: Map::new(), patience: None },
            Self::Tool(tool) => tool.clone(),
        }
    }
}

impl EndOrReason {
    pub(super) fn end(&self) -> End {
        match self {
            Self::Reason(reason) => End { reason: Some(reason.clone()), patience: None },
            Self::End(end) => end.clone(),
        }
    }
}

impl OneOrMore {
    pub(super) fn as_slice(&self) -> &[String] {
        match self {
            Self::None => &[],
            Self::One(one) => std::slice::from_ref(one),
            Self::More(all) => all,
        }
    }
}

impl Pattern {
    pub(super) fn is_match(&self, text: &str) -> bool {
        self.0.is_match(text)
    }

    pub(super) fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        RegexBuilder::new(&text).case_insensitive(true).build().map(Self).map_err(D::Error::custom)
    }
}

impl std::str::FromStr for Length {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = match &text[digits.len()..] {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            _ => return Err(format!("`{text}` is not a length of time like 500ms, 2s or 1m")),
        };
        let count: f64 = digits.parse().map_err(|_| format!("`{text}` does not begin with a number"))?;
        let seconds = Duration::try_from_secs_f64(count * unit).ok().filter(|length| *length <= LONGEST);
        seconds.map(Self).ok_or_else(|| format!("`{text}` is not between 0 s and an hour"))
    }
}

impl<'de> Deserialize<'de> for Length {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// No step of a test lasts longer.
const LONGEST: Duration = Duration::from_secs(3600);

fn default_from() -> String {
    "+15557654321".to_owned()
}

fn default_to() -> String {
    "+15551230001".to_owned()
}

const fn default_patience() -> Length {
    Length(Duration::from_secs(15))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suite_is_read_with_its_shorthands() {
        let suite = Suite::from_yaml(
            r#"
patience: 500ms
cases:
- name: all of it
  model: {default: "Yes."}
  steps:
  - agent: hello
  - agent: {contains: [a, b], not: c, matches: 'x\d+', within: 1.5s}
  - say: Hi.
  - press: "1#"
  - interrupt: {after: 2s, say: Stop.}
  - tool: end_call
  - tool: {name: transfer, arguments: {target: dispatch}}
  - transfer: dispatch
  - hangUp
  - end: caller_hung_up
"#,
        )
        .unwrap();
        assert_eq!(suite.patience, Length(Duration::from_millis(500)));
        let steps = &suite.cases[0].steps;
        let Step::Agent(speech) = &steps[1] else { panic!("{steps:?}") };
        let speech = speech.speech();
        assert_eq!((speech.contains.as_slice().len(), speech.not.as_slice().len()), (2, 1));
        assert!(speech.matches.is_some_and(|pattern| pattern.is_match("X42")));
        let Step::Tool(tool) = &steps[6] else { panic!("{steps:?}") };
        assert_eq!(tool.tool().arguments["target"], "dispatch");
        let Step::End(end) = &steps[9] else { panic!("{steps:?}") };
        assert_eq!(end.end().reason.as_deref(), Some("caller_hung_up"));
    }

    #[test]
    fn what_could_never_fail_is_refused() {
        for (text, reason) in [
            ("cases: []", "there is no case"),
            ("cases: [{name: a, steps: []}]", "has no step"),
            ("cases: [{name: a, steps: [hangUp]}, {name: a, steps: [hangUp]}]", "2 cases named `a`"),
            ("cases: [{name: a, steps: [hangUp, {say: Hi.}]}]", "after the call's end"),
            ("cases: [{name: a, steps: [{agent: {contain: x}}]}]", ""),
            ("cases: [{name: a, steps: [{agent: {matches: '('}}]}]", ""),
            ("cases: [{name: a, steps: [{pause: 2}]}]", ""),
        ] {
            let error = format!("{:#}", Suite::from_yaml(text).unwrap_err());
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn lengths_are_numbers_with_a_unit() {
        let length = |text: &str| text.parse::<Length>().map(|length| length.0.as_millis()).ok();
        assert_eq!((length("500ms"), length("1.5s"), length("1m")), (Some(500), Some(1500), Some(60_000)));
        assert_eq!((length("5"), length("-1s"), length("2h"), length("61m")), (None, None, None, None));
    }
}
