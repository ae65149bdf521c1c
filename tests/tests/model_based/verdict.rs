//! Compares the world with the model: pure. Every difference is a sentence.

use std::collections::{BTreeMap, BTreeSet};

use e2e::installation::condition;
use serde_json::{Value, json};

use crate::model::{self, AGENTS, Agent, Child, Entry, Model, NUMBERS, Number, Scaling, Seen};
use crate::world::{NAMESPACE, Observed, fallback, greeting, own_instructions, prompt, text};

/// The eight settings of a number that decide where its calls go, by the REST API's names.
const FIELDS: [&str; 8] = [
    "voice_url",
    "voice_method",
    "voice_fallback_url",
    "voice_fallback_method",
    "status_callback",
    "status_callback_method",
    "voice_application_sid",
    "trunk_sid",
];

/// What the look tells, or what is not as the user asked for.
pub(crate) fn compare(model: &Model, observed: &Observed) -> Result<Seen, Vec<String>> {
    let mut comparison =
        Comparison { model, observed, differences: observed.trespasses.clone(), seen: Seen::default() };
    let holders = comparison.numbers();
    comparison.agents(&holders);
    comparison.departures();
    if comparison.differences.is_empty() { Ok(comparison.seen) } else { Err(comparison.differences) }
}

struct Comparison<'a> {
    model: &'a Model,
    observed: &'a Observed,
    differences: Vec<String>,
    seen: Seen,
}

/// An object that has its line, and the agent whose URL the line has.
struct Holder {
    number: &'static str,
    entry: &'static str,
}

impl Comparison<'_> {
    /// Every line has the webhooks of the oldest object that names it, or those from before.
    fn numbers(&mut self) -> Vec<Holder> {
        let (model, observed) = (self.model, self.observed);
        let mut holders = Vec::new();
        for line in 0..model::LINES {
            let Some(at_twilio) =
                observed.lines.iter().find(|found| found["phone_number"] == model::e164(line))
            else {
                self.differ(format!("line {line} is no longer in the account"));
                continue;
            };
            let mut claimants: Vec<(&'static str, &Number, &Value)> = Vec::new();
            for (name, number) in model.numbers.iter().filter(|(_, number)| number.line == line) {
                match find(&observed.numbers, name) {
                    Some(object) => claimants.push((name, number, object)),
                    None => self.differ(format!("PhoneNumber {name} is missing")),
                }
            }
            claimants.sort_by_key(|(_, _, object)| {
                let of = |pointer| text(object, pointer).unwrap_or_default().to_owned();
                (of("/metadata/creationTimestamp"), of("/metadata/uid"))
            });
            let mut claimants = claimants.into_iter();
            match claimants.next() {
                None => {
                    self.is_former(&format!("line {line}"), line, &|field| at_twilio[field].clone());
                }
                Some((name, number, object)) => {
                    holders.extend(self.holder(name, number, object, at_twilio));
                }
            }
            for (name, _, object) in claimants {
                self.is_newest(name, object);
                self.is_condition(name, object, "Bound", "False");
            }
        }
        holders
    }

    /// The object that has a line.
    fn holder(
        &mut self,
        name: &'static str,
        number: &Number,
        object: &Value,
        at_twilio: &Value,
    ) -> Option<Holder> {
        self.is_newest(name, object);
        let live = self.model.live_routes(number);
        if let Some(original) = object.pointer("/status/original") {
            self.is_former(name, number.line, &|field| original[camel(field)].clone());
        }
        if live.is_empty() {
            self.is_condition(name, object, "RoutesResolved", "False");
            // Nobody to send calls to, so the webhooks stay as they are: ours if they were, else those from before.
            let is_left = ["/status/voiceUrl", "/status/movingFrom/voiceUrl"]
                .iter()
                .any(|told| text(object, told).is_some_and(|told| at_twilio["voice_url"] == told));
            if !is_left {
                self.is_former(&format!("line {}", number.line), number.line, &|field| {
                    at_twilio[field].clone()
                });
            }
            return None;
        }
        let all = if live.len() == number.routes.len() { "True" } else { "False" };
        self.is_condition(name, object, "Ready", all);
        let entry = text(object, "/status/entryAgent").unwrap_or_default();
        let Some((entry, _)) = live.iter().find(|(agent, _)| *agent == entry) else {
            self.differ(format!("PhoneNumber {name} enters through {entry}, which is none of its routes"));
            return None;
        };
        if let Some(Entry::Stays(before)) = self.model.entries.get(name)
            && before != entry
        {
            self.differ(format!("PhoneNumber {name} moved from {before} to {entry} for no reason"));
        }
        let base = format!("https://voice.example.com/{NAMESPACE}/{entry}/twilio");
        let fallback = number.fallback.map(fallback).unwrap_or_default();
        for (field, wanted) in [
            ("voice_url", format!("{base}/voice")),
            ("voice_method", "POST".to_owned()),
            ("voice_fallback_url", fallback),
            ("status_callback", format!("{base}/status")),
            ("status_callback_method", "POST".to_owned()),
            ("voice_application_sid", String::new()),
            ("trunk_sid", String::new()),
        ] {
            let found = at_twilio[field].as_str().unwrap_or_default();
            if found != wanted {
                self.differ(format!("{field} of line {} ({name}) is {found:?}, not {wanted:?}", number.line));
            }
        }
        self.seen.entries.insert(name, entry);
        Some(Holder { number: name, entry })
    }

    /// What is recorded or put back is what was there before.
    fn is_former(&mut self, what: &str, line: usize, found: &dyn Fn(&str) -> Value) {
        let former = model::former(line);
        for field in FIELDS {
            let value = found(field).as_str().unwrap_or_default().to_owned();
            let is_former = if field == "status_callback" {
                self.model.callbacks[line].contains(&value)
            } else {
                let usual = if field.ends_with("_method") { "POST" } else { "" };
                former.get(field).map_or(usual, String::as_str) == value
            };
            if !is_former {
                self.differ(format!("{what}: {field} is {value:?}, which it was not before"));
            }
        }
        let callback = found("status_callback").as_str().unwrap_or_default().to_owned();
        self.seen.callbacks.insert(line, callback);
    }

    fn agents(&mut self, holders: &[Holder]) {
        let (model, observed) = (self.model, self.observed);
        for (name, agent) in &model.agents {
            let Some(object) = find(&observed.agents, name) else {
                self.differ(format!("VoiceAgent {name} is missing"));
                continue;
            };
            self.is_newest(name, object);
            if !model.is_resolved(agent) {
                self.is_condition(name, object, "ReferencesResolved", "False");
                continue;
            }
            self.is_condition(name, object, "ReferencesResolved", "True");
            for child in Child::ALL {
                let is_wanted = match child {
                    Child::Autoscaler => matches!(agent.scaling, Scaling::Autoscaler(_)),
                    Child::Ingress => model.has_ingress,
                    Child::ServiceAccount
                    | Child::ConfigMap
                    | Child::Deployment
                    | Child::Service
                    | Child::Budget => true,
                };
                let found = observed.children[&child].iter().find(|found| of_agent(found) == Some(name));
                match (is_wanted, found) {
                    (true, None) => self.differ(format!("{name} has no {child:?}")),
                    (false, Some(_)) => self.differ(format!("{name} still has its {child:?}")),
                    (false, None) => {}
                    (true, Some(found)) => {
                        if found["metadata"]["ownerReferences"][0]["uid"] != object["metadata"]["uid"] {
                            self.differ(format!("{child:?} of {name} has another owner"));
                        }
                        self.child(name, agent, child, found);
                        if child == Child::ConfigMap {
                            self.document(name, agent, found, holders);
                        }
                    }
                }
            }
        }
    }

    fn child(&mut self, name: &str, agent: &Agent, child: Child, found: &Value) {
        let (pointer, wanted) = match (child, agent.scaling) {
            (Child::Deployment, Scaling::Manual(replicas)) => ("/spec/replicas", json!(replicas)),
            (Child::Autoscaler, Scaling::Autoscaler(least)) => ("/spec/minReplicas", json!(least)),
            (Child::Budget, _) => ("/spec/maxUnavailable", json!(1)),
            (Child::Service, _) => ("/spec/selector/switchboard.dev~1agent", json!(name)),
            _ => return,
        };
        let found = found.pointer(pointer).cloned().unwrap_or_default();
        if found != wanted {
            self.differ(format!("{pointer} of {name}'s {child:?} is {found}, not {wanted}"));
        }
    }

    /// The document that the agent's pods read.
    fn document(&mut self, name: &str, agent: &Agent, config_map: &Value, holders: &[Holder]) {
        let document = text(config_map, "/data/agent.json").and_then(|text| serde_json::from_str(text).ok());
        let document: Value = document.unwrap_or_default();
        let instructions = match self.model.prompt {
            Some(serial) if agent.takes_prompt => prompt(serial),
            _ => own_instructions(agent),
        };
        let entering: BTreeMap<String, Value> = holders
            .iter()
            .filter(|holder| holder.entry == name)
            .filter_map(|holder| {
                let number = self.model.numbers.get(holder.number)?;
                let live = self.model.live_routes(number);
                // Without a share for anybody the entry agent answers itself.
                live.iter().any(|(_, weight)| *weight > 0).then(|| {
                    let routes = live.iter().map(|(agent, weight)| json!({"agent": agent, "weight": weight}));
                    (model::e164(number.line), routes.collect())
                })
            })
            .collect();
        let numbers = document["numbers"].as_array().map(Vec::as_slice).unwrap_or_default();
        let numbers: BTreeMap<String, Value> = numbers
            .iter()
            .map(|number| {
                (number["number"].as_str().unwrap_or_default().to_owned(), number["routes"].clone())
            })
            .collect();
        for (what, found, wanted) in [
            ("greeting", document["persona"]["greeting"]["text"].clone(), json!(greeting(agent))),
            ("instructions", document["persona"]["instructions"].clone(), json!(instructions)),
            ("suspended", document["suspended"].clone(), json!(agent.is_suspended)),
            ("limit", document["limits"]["maxCallSeconds"].clone(), json!(agent.max_call_seconds)),
            ("numbers", json!(numbers), json!(entering)),
        ] {
            if found != wanted {
                self.differ(format!("the document of {name} has the {what} {found}, not {wanted}"));
            }
        }
    }

    /// What was deleted is gone, and nothing is left of it.
    fn departures(&mut self) {
        let (model, observed) = (self.model, self.observed);
        for object in &observed.numbers {
            let name = text(object, "/metadata/name").unwrap_or_default();
            if !model.numbers.contains_key(name) {
                self.differ(format!("PhoneNumber {name} is still there"));
            }
        }
        let mut staying = BTreeSet::new();
        for object in &observed.agents {
            let name = text(object, "/metadata/name").unwrap_or_default();
            if model.agents.contains_key(name) {
                continue;
            }
            // Kept while the carrier brings it a number's calls, because no route of the number leads elsewhere.
            let is_called = model.numbers.iter().any(|(number, spec)| {
                let is_stranded = spec.routes.iter().all(|(agent, _)| !model.agents.contains_key(agent));
                is_stranded && find(&observed.numbers, number).is_some_and(|number| may_enter(number, name))
            });
            let is_leaving = object.pointer("/metadata/deletionTimestamp").is_some();
            if is_leaving && is_called {
                staying.insert(name);
            } else {
                self.differ(format!("VoiceAgent {name} is still there"));
            }
        }
        for (child, objects) in &observed.children {
            for object in objects {
                let of = of_agent(object).unwrap_or_default();
                if !model.agents.contains_key(of) && !staying.contains(of) {
                    self.differ(format!("{child:?} of {of} is an orphan"));
                }
            }
        }
        let is_gone = |name: &&&'static str| {
            find(&observed.agents, name).is_none() && find(&observed.numbers, name).is_none()
        };
        self.seen.gone = AGENTS.iter().chain(&NUMBERS).filter(is_gone).copied().collect();
    }

    fn is_newest(&mut self, name: &str, object: &Value) {
        if object["status"]["observedGeneration"] != object["metadata"]["generation"] {
            self.differ(format!("the status of {name} is about an older generation"));
        }
    }

    fn is_condition(&mut self, name: &str, object: &Value, about: &str, wanted: &str) {
        let found = condition(object, about).cloned().unwrap_or_default();
        if found["status"] != wanted {
            self.differ(format!("{about} of {name} is not {wanted}: {found}"));
        }
    }

    fn differ(&mut self, difference: String) {
        self.differences.push(difference);
    }
}

/// `voice_url` as the resource has it.
fn camel(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |camel, word| {
        let (initial, rest) = word.split_at(1);
        camel + &initial.to_uppercase() + rest
    })
}

/// Whether a number's calls enter through an agent, or may still do so.
fn may_enter(number: &Value, agent: &str) -> bool {
    ["/status/entryAgent", "/status/movingFrom/entryAgent"]
        .iter()
        .any(|entry| text(number, entry) == Some(agent))
}

fn of_agent(child: &Value) -> Option<&str> {
    text(child, "/metadata/labels/switchboard.dev~1agent")
}

fn find<'a>(objects: &'a [Value], name: &str) -> Option<&'a Value> {
    objects.iter().find(|object| text(object, "/metadata/name") == Some(name))
}
