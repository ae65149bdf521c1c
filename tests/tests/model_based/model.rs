//! The pure model: what the user asked for so far, and what may be asked next.
//!
//! It knows nothing of the operator. Where the product may legitimately do one of several things (somebody changed a
//! number at Twilio while it was being claimed), the model holds all of them until a look at rest tells which it was.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;

/// The agents' names.
pub(crate) const AGENTS: [&str; 4] = ["anna", "berta", "carla", "dora"];
/// The numbers' objects; more than lines, so that they get into each other's way.
pub(crate) const NUMBERS: [&str; 7] = ["one", "two", "three", "four", "five", "six", "seven"];
/// Numbers of the account.
pub(crate) const LINES: usize = 5;

/// What a user, or the world, does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Operation {
    ApplyAgent(&'static str, Agent),
    DeleteAgent(&'static str),
    ApplyNumber(&'static str, Number),
    DeleteNumber(&'static str),
    /// The ConfigMap with instructions; `None` deletes it.
    Prompt(Option<u32>),
    /// Whether the Secret that engines name exists.
    Key(bool),
    /// Whether the gateway has an Ingress per agent.
    Ingress(bool),
    /// Whether the auth token in the gateway's Secret is the account's.
    Token(bool),
    /// Somebody at Twilio's console points a number's status callback elsewhere.
    Meddle(usize, u32),
    /// Somebody deletes what the operator made.
    DeleteChild(&'static str, Child),
    /// Somebody edits what the operator made.
    SpoilChild(&'static str, Child),
    Fault(Fault),
    /// A replica dies; another one is started in its place.
    KillOperator(usize),
    /// A replica is asked to end, as in a rolling update; another one is started in its place.
    ReplaceOperator(usize),
    RestartApiServer,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Agent {
    pub(crate) greeting: u32,
    pub(crate) takes_prompt: bool,
    pub(crate) scaling: Scaling,
    pub(crate) is_suspended: bool,
    pub(crate) max_call_seconds: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scaling {
    Manual(u32),
    Autoscaler(u32),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Number {
    pub(crate) line: usize,
    pub(crate) by_sid: bool,
    pub(crate) routes: Vec<(&'static str, u32)>,
    pub(crate) fallback: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Child {
    ServiceAccount,
    ConfigMap,
    Deployment,
    Service,
    Budget,
    Autoscaler,
    Ingress,
}

impl Child {
    pub(crate) const ALL: [Self; 7] = [
        Self::ServiceAccount,
        Self::ConfigMap,
        Self::Deployment,
        Self::Service,
        Self::Budget,
        Self::Autoscaler,
        Self::Ingress,
    ];
}

/// How Twilio's REST API fails until the next fault, or until rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Every request.
    Status(u16),
    /// The next requests, which ask to come back later.
    Busy(u32),
    /// The next writes are done, and nobody is told.
    LostAnswers(u32),
    Slow(u32),
}

/// Which agent's URL a number has, as far as the user's actions tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    /// Any of the routes.
    Open,
    /// This one had it at the last look and has had a route ever since.
    Stays(&'static str),
}

/// What the user asked for.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    pub(crate) agents: BTreeMap<&'static str, Agent>,
    pub(crate) numbers: BTreeMap<&'static str, Number>,
    pub(crate) entries: BTreeMap<&'static str, Entry>,
    pub(crate) prompt: Option<u32>,
    pub(crate) has_key: bool,
    pub(crate) has_ingress: bool,
    pub(crate) has_token: bool,
    /// For each line, the status callbacks that may come back when nobody claims it.
    pub(crate) callbacks: Vec<BTreeSet<String>>,
    /// Names that were deleted and may still be on their way out: not used again before they are gone.
    pub(crate) leaving: BTreeSet<&'static str>,
    serial: u32,
}

impl Model {
    pub(crate) fn new() -> Self {
        Self {
            agents: BTreeMap::new(),
            numbers: BTreeMap::new(),
            entries: BTreeMap::new(),
            prompt: Some(0),
            has_key: true,
            has_ingress: true,
            has_token: true,
            callbacks: (0..LINES).map(|line| BTreeSet::from([former_callback(line)])).collect(),
            leaving: BTreeSet::new(),
            serial: 0,
        }
    }

    /// The next operation, by chance alone: the same seed gives the same operations.
    pub(crate) fn choose(&mut self, rng: &mut Rng) -> Operation {
        loop {
            if let Some(operation) = self.propose(rng) {
                return operation;
            }
        }
    }

    fn propose(&mut self, rng: &mut Rng) -> Option<Operation> {
        self.serial += 1;
        let serial = self.serial;
        let agent = pick(rng, &AGENTS);
        let number = pick(rng, &NUMBERS);
        Some(match rng.u32(0..100) {
            0..22 if !self.leaving.contains(agent) => Operation::ApplyAgent(agent, some_agent(rng, serial)),
            22..28 if self.agents.contains_key(agent) => Operation::DeleteAgent(agent),
            28..52 if !self.leaving.contains(number) => {
                Operation::ApplyNumber(number, self.some_number(rng, number, serial))
            }
            52..62 if self.numbers.contains_key(number) => Operation::DeleteNumber(number),
            62..65 => Operation::Prompt(rng.bool().then_some(serial)),
            65..68 => Operation::Key(rng.bool()),
            68..70 => Operation::Ingress(!self.has_ingress),
            70..72 => Operation::Token(!self.has_token),
            72..77 => Operation::Meddle(rng.usize(0..LINES), serial),
            77..81 if self.agents.contains_key(agent) => {
                Operation::DeleteChild(agent, pick(rng, &Child::ALL))
            }
            81..84 if self.agents.contains_key(agent) => {
                Operation::SpoilChild(agent, pick(rng, &[Child::ConfigMap, Child::Service, Child::Budget]))
            }
            84..94 => Operation::Fault(some_fault(rng)),
            94..97 => Operation::KillOperator(rng.usize(0..2)),
            97..99 => Operation::ReplaceOperator(rng.usize(0..2)),
            99 if rng.u8(0..4) == 0 => Operation::RestartApiServer,
            _ => return None,
        })
    }

    /// What the operation means for what is asked for.
    pub(crate) fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::ApplyAgent(name, agent) => {
                self.agents.insert(name, agent.clone());
            }
            Operation::DeleteAgent(name) => {
                self.agents.remove(name);
                self.leaving.insert(name);
                self.entries
                    .values_mut()
                    .filter(|e| **e == Entry::Stays(name))
                    .for_each(|e| *e = Entry::Open);
            }
            Operation::ApplyNumber(name, number) => {
                let entry = self.entries.entry(name).or_insert(Entry::Open);
                let is_routed = |agent: &str| number.routes.iter().any(|(name, _)| *name == agent);
                if matches!(entry, Entry::Stays(agent) if !is_routed(agent)) {
                    *entry = Entry::Open;
                }
                self.numbers.insert(name, number.clone());
            }
            Operation::DeleteNumber(name) => {
                self.numbers.remove(name);
                self.entries.remove(name);
                self.leaving.insert(name);
            }
            Operation::Prompt(prompt) => self.prompt = *prompt,
            Operation::Key(has_key) => self.has_key = *has_key,
            Operation::Ingress(has_ingress) => self.has_ingress = *has_ingress,
            Operation::Token(has_token) => self.has_token = *has_token,
            Operation::Meddle(line, serial) => {
                self.callbacks[*line].insert(meddled_callback(*serial));
            }
            Operation::DeleteChild(..)
            | Operation::SpoilChild(..)
            | Operation::Fault(_)
            | Operation::KillOperator(_)
            | Operation::ReplaceOperator(_)
            | Operation::RestartApiServer => {}
        }
    }

    /// What a look at rest told.
    pub(crate) fn rested(&mut self, seen: Seen) {
        let Seen { entries, callbacks, gone } = seen;
        for (name, entry) in entries {
            self.entries.insert(name, Entry::Stays(entry));
        }
        for (line, callback) in callbacks {
            self.callbacks[line] = BTreeSet::from([callback]);
        }
        self.leaving.retain(|name| !gone.contains(name));
    }

    /// Whether everything that an agent refers to exists.
    pub(crate) fn is_resolved(&self, agent: &Agent) -> bool {
        self.has_key && (!agent.takes_prompt || self.prompt.is_some())
    }

    /// A number's routes to agents that exist.
    pub(crate) fn live_routes(&self, number: &Number) -> Vec<(&'static str, u32)> {
        number.routes.iter().copied().filter(|(agent, _)| self.agents.contains_key(agent)).collect()
    }

    fn some_number(&self, rng: &mut Rng, name: &str, serial: u32) -> Number {
        let mut agents = AGENTS.to_vec();
        rng.shuffle(&mut agents);
        agents.truncate(rng.usize(1..=3));
        // One weight above 0 is a rule of the schema.
        let routes = agents.into_iter().enumerate();
        let routes = routes.map(|(n, agent)| (agent, if n == 0 { 50 } else { rng.u32(0..100) })).collect();
        let fallback = rng.bool().then_some(serial);
        match self.numbers.get(name) {
            // The source is immutable.
            Some(Number { line, by_sid, .. }) => Number { line: *line, by_sid: *by_sid, routes, fallback },
            None => Number { line: rng.usize(0..LINES), by_sid: rng.bool(), routes, fallback },
        }
    }
}

/// What a look at rest tells beyond "all is well".
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Entry agents by number object.
    pub(crate) entries: BTreeMap<&'static str, &'static str>,
    /// The status callback that is, or will be, put back on a line.
    pub(crate) callbacks: BTreeMap<usize, String>,
    /// Names that are free again.
    pub(crate) gone: BTreeSet<&'static str>,
}

/// A line's number.
pub(crate) fn e164(line: usize) -> String {
    format!("+1555123000{line}")
}

/// Its id at Twilio.
pub(crate) fn sid(line: usize) -> String {
    format!("PN{line:032}")
}

/// Its webhooks before anybody claimed it, by the REST API's names: every kind of setting occurs.
pub(crate) fn former(line: usize) -> BTreeMap<&'static str, String> {
    let mut fields = BTreeMap::from([("status_callback", former_callback(line))]);
    match line % 5 {
        0 => {
            fields.insert("voice_url", format!("https://old.example.com/{line}"));
            fields.insert("voice_method", "GET".to_owned());
        }
        1 => {
            fields.insert("voice_application_sid", format!("AP{line:032}"));
        }
        2 => {
            fields.insert("trunk_sid", format!("TK{line:032}"));
            fields.insert("voice_fallback_url", "https://old.example.com/fallback".to_owned());
            fields.insert("voice_fallback_method", "GET".to_owned());
        }
        3 => {
            fields.insert("status_callback_method", "GET".to_owned());
            fields.insert("voice_url", format!("https://old.example.com/{line}?tenant=a&b=c"));
        }
        _ => {}
    }
    fields
}

fn former_callback(line: usize) -> String {
    if line % 5 == 4 { String::new() } else { format!("https://old.example.com/status/{line}") }
}

/// What somebody sets at Twilio's console.
pub(crate) fn meddled_callback(serial: u32) -> String {
    format!("https://meddler.example.com/{serial}")
}

fn some_agent(rng: &mut Rng, serial: u32) -> Agent {
    Agent {
        greeting: serial,
        takes_prompt: rng.bool(),
        scaling: if rng.bool() { Scaling::Manual(rng.u32(0..4)) } else { Scaling::Autoscaler(rng.u32(1..4)) },
        is_suspended: rng.u8(0..5) == 0,
        max_call_seconds: 600 + serial,
    }
}

fn some_fault(rng: &mut Rng) -> Fault {
    match rng.u8(0..6) {
        0 => Fault::Status(503),
        1 => Fault::Status(500),
        2 => Fault::Busy(rng.u32(1..10)),
        3 => Fault::LostAnswers(rng.u32(1..4)),
        4 => Fault::Slow(rng.u32(100..2000)),
        _ => Fault::None,
    }
}

fn pick<T: Copy>(rng: &mut Rng, from: &[T]) -> T {
    from[rng.usize(0..from.len())]
}
