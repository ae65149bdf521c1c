//! One case as one call: the caller's steps in turn, an expectation before each next one.
//!
//! An expectation waits until it is met or its patience is over; the first that is not ends the call and the case. Speech
//! is looked at when the agent is silent again, so that a test reads whole answers.

use std::time::Duration;

use simulator::caller::{Director, InvalidStep, Step as CallerStep};
use simulator::carrier::Record;
use simulator::model::Model;
use tokio::time::{Instant, sleep};

use super::observed::Observed;
use super::suite::{End, Length, Speech, Step, Tool};
use crate::cli::local::pod::Calls;

/// How often a call is looked at.
const POLL: Duration = Duration::from_millis(50);
/// For a call to be over, with its last callback, after the caller hung up.
const FAREWELL: Duration = Duration::from_secs(30);

/// A call and all that knows of it.
pub(super) struct Stage<'a> {
    pub(super) record: &'a Record,
    pub(super) calls: &'a Calls,
    /// The simulated one.
    pub(super) model: Option<&'a Model>,
    /// Numbers of the agent's transfer targets by name.
    pub(super) targets: &'a [(String, String)],
    pub(super) patience: Length,
}

/// An expectation that was not met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// The step, counted from 1; `None`: the call as a whole.
    pub(super) step: Option<usize>,
    pub(super) expected: String,
    pub(super) heard: String,
}

/// What the steps so far have used up.
struct Progress {
    director: Option<Director>,
    /// Agent's lines known when the caller last did something.
    lines: usize,
    tools: usize,
    transfers: usize,
}

impl Stage<'_> {
    /// Plays all steps and waits for the call's end.
    pub(super) async fn play(&self, steps: &[Step], director: Director) -> Result<(), Failure> {
        let mut progress = Progress { director: Some(director), lines: 0, tools: 0, transfers: 0 };
        for (index, step) in steps.iter().enumerate() {
            let result = self.step(step, &mut progress).await;
            result.map_err(|failure| Failure { step: Some(index + 1), ..failure })?;
        }
        drop(progress); // the caller hangs up
        self.until(FAREWELL, |seen| seen.view.finished).await.map_err(|seen| {
            let heard = format!("it is `{}`, and not all callbacks were answered", seen.view.status.as_str());
            failure("the call to end after the last step", heard)
        })?;
        Ok(())
    }

    pub(super) async fn look(&self) -> Observed {
        Observed::look(self.record, self.calls, self.model).await
    }

    async fn step(&self, step: &Step, progress: &mut Progress) -> Result<(), Failure> {
        match step {
            Step::Say(words) => self.act(progress, vec![CallerStep::Say(words.clone())]).await,
            Step::Press(keys) => self.act(progress, vec![CallerStep::Press(keys.clone())]).await,
            Step::Pause(Length(length)) => {
                let milliseconds = u32::try_from(length.as_millis()).unwrap_or(u32::MAX);
                self.act(progress, vec![CallerStep::Pause(milliseconds)]).await
            }
            Step::Interrupt(interrupt) => {
                let after = u32::try_from(interrupt.after.0.as_millis()).unwrap_or(u32::MAX);
                let say = CallerStep::Say(interrupt.say.clone());
                self.act(progress, vec![CallerStep::InterruptAfterMilliseconds(after), say]).await
            }
            Step::HangUp => {
                progress.director = None;
                Ok(())
            }
            Step::Agent(speech) => self.expect_speech(&speech.speech(), progress).await,
            Step::Tool(tool) => self.expect_tool(&tool.tool(), progress).await,
            Step::Transfer(target) => self.expect_transfer(target, progress).await,
            Step::End(end) => self.expect_end(&end.end()).await,
        }
    }

    /// The caller does something; done when it has.
    async fn act(&self, progress: &mut Progress, steps: Vec<CallerStep>) -> Result<(), Failure> {
        let action = serde_json::to_string(&steps).unwrap_or_default(); // plain data
        let Some(mut director) = progress.director.take() else {
            return Err(failure(format!("the caller to do {action}"), "the caller has hung up"));
        };
        progress.lines = self.look().await.agent_lines().len();
        // Speech may be rendered by a process.
        let directed = tokio::task::spawn_blocking(move || {
            let result: Result<(), InvalidStep> =
                steps.into_iter().try_for_each(|step| director.direct(step));
            (director, result)
        })
        .await;
        let (director, result) =
            directed.map_err(|error| failure("the caller's voice", error.to_string()))?;
        result.map_err(|error| failure(format!("the caller to do {action}"), error.to_string()))?;
        let director = &*progress.director.insert(director);
        let ended = |seen: &Observed| seen.view.status.is_final();
        let seen = self.until(LONG, |seen| director.is_idle() || ended(seen)).await;
        match seen {
            Ok(seen) if director.is_idle() || !ended(&seen) => Ok(()),
            Ok(seen) | Err(seen) => Err(failure(format!("the caller to do {action}"), how_it_ended(&seen))),
        }
    }

    async fn expect_speech(&self, speech: &Speech, progress: &Progress) -> Result<(), Failure> {
        let said = |seen: &Observed| seen.agent_lines().get(progress.lines..).unwrap_or_default().join(" ");
        let is_said = |seen: &Observed| {
            let text = said(seen);
            seen.answer_latency().is_some()
                && !seen.agent_is_speaking()
                && !text.is_empty()
                && speech.contains.as_slice().iter().all(|part| contains(&text, part))
                && speech.matches.as_ref().is_none_or(|pattern| pattern.is_match(&text))
        };
        let patience = speech.patience.unwrap_or(self.patience).0;
        let waited = self.until(patience, |seen| is_said(seen) || seen.view.finished).await;
        let (seen, is_in_time) = match waited {
            Ok(seen) => (seen, true),
            Err(seen) => (seen, false),
        };
        let text = said(&seen);
        if !(is_in_time && is_said(&seen)) {
            let heard = match (text.is_empty(), seen.view.status.is_final()) {
                (false, _) => format!("\"{text}\""),
                (true, false) => format!("nothing in {} s", patience.as_secs_f64()),
                (true, true) => how_it_ended(&seen),
            };
            return Err(failure(describe(speech), heard));
        }
        if let Some(unwanted) = speech.not.as_slice().iter().find(|part| contains(&text, part)) {
            return Err(failure(format!("the agent not to say \"{unwanted}\""), format!("\"{text}\"")));
        }
        let latency = Duration::from_millis(seen.answer_latency().unwrap_or_default());
        match speech.within {
            Some(Length(limit)) if latency > limit => Err(failure(
                format!("the agent to begin within {} s of the caller's end", limit.as_secs_f64()),
                format!("it began after {} s: \"{text}\"", latency.as_secs_f64()),
            )),
            Some(_) | None => Ok(()),
        }
    }

    async fn expect_tool(&self, tool: &Tool, progress: &mut Progress) -> Result<(), Failure> {
        let from = progress.tools;
        let find = |seen: &Observed| {
            let calls = seen.tools.get(from..).unwrap_or_default().iter();
            let fits = |call: &super::observed::ToolCall| {
                call.name == tool.name
                    && tool.arguments.iter().all(|(name, value)| {
                        call.arguments.as_ref().and_then(|known| known.get(name)) == Some(value)
                    })
            };
            calls.clone().position(fits).map(|at| from + at + 1)
        };
        let patience = tool.patience.unwrap_or(self.patience).0;
        let waited = self.until(patience, |seen| find(seen).is_some() || seen.view.finished).await;
        let (Ok(seen) | Err(seen)) = waited;
        match find(&seen) {
            Some(next) => {
                progress.tools = next;
                Ok(())
            }
            None => {
                let arguments = serde_json::Value::Object(tool.arguments.clone());
                let calls: Vec<_> = seen.tools.iter().skip(from).map(ToString::to_string).collect();
                let heard = if calls.is_empty() { "no tool was called".to_owned() } else { calls.join(", ") };
                Err(failure(format!("a call of {} with {arguments}", tool.name), heard))
            }
        }
    }

    async fn expect_transfer(&self, target: &str, progress: &mut Progress) -> Result<(), Failure> {
        let known = self.targets.iter().find(|(name, _)| name == target);
        let number = known.map_or(target, |(_, number)| number);
        let from = progress.transfers;
        let is_dialled = |seen: &Observed| seen.dialled().iter().skip(from).any(|dialled| *dialled == number);
        let waited = self.until(self.patience.0, |seen| is_dialled(seen) || seen.view.finished).await;
        let (Ok(seen) | Err(seen)) = waited;
        if is_dialled(&seen) {
            progress.transfers = seen.dialled().len();
            return Ok(());
        }
        let dialled = seen.dialled().join(", ");
        let heard =
            if dialled.is_empty() { "no transfer".to_owned() } else { format!("{dialled} was dialled") };
        Err(failure(format!("a transfer to {target}"), heard))
    }

    async fn expect_end(&self, end: &End) -> Result<(), Failure> {
        let patience = end.patience.unwrap_or(self.patience).0;
        let expected = match &end.reason {
            Some(reason) => format!("the call to end: {reason}"),
            None => "the call to end".to_owned(),
        };
        let is_wanted = |seen: &Observed| match &end.reason {
            Some(reason) => seen.end_reason() == Some(reason),
            None => true,
        };
        // The pod may know the reason a moment later than the carrier.
        let waited = self.until(patience, |seen| seen.view.finished && is_wanted(seen)).await;
        let Err(seen) = waited else { return Ok(()) };
        let heard = if seen.view.finished { how_it_ended(&seen) } else { "the call goes on".to_owned() };
        Err(failure(expected, heard))
    }

    /// Looks until a condition holds; the last look is the error when the time is over.
    async fn until(
        &self,
        patience: Duration,
        mut is_so: impl FnMut(&Observed) -> bool,
    ) -> Result<Observed, Observed> {
        let deadline = Instant::now() + patience;
        loop {
            let seen = self.look().await;
            if is_so(&seen) {
                return Ok(seen);
            }
            if Instant::now() >= deadline {
                return Err(seen);
            }
            sleep(POLL).await;
        }
    }
}

fn failure(expected: impl Into<String>, heard: impl Into<String>) -> Failure {
    Failure { step: None, expected: expected.into(), heard: heard.into() }
}

fn contains(text: &str, part: &str) -> bool {
    text.to_lowercase().contains(&part.to_lowercase())
}

fn describe(speech: &Speech) -> String {
    let mut parts: Vec<String> =
        speech.contains.as_slice().iter().map(|part| format!("containing \"{part}\"")).collect();
    parts.extend(speech.matches.as_ref().map(|pattern| format!("matching /{}/", pattern.as_str())));
    let what =
        if parts.is_empty() { "anything".to_owned() } else { format!("words {}", parts.join(" and ")) };
    format!("the agent to say {what}")
}

fn how_it_ended(seen: &Observed) -> String {
    let product = seen.end_reason().unwrap_or("no reason known");
    let carrier = serde_json::to_value(seen.view.end_reason).unwrap_or_default();
    let step = seen.view.failed_step.as_ref().map(|step| format!("; the caller: {}", step.reason));
    format!(
        "the call ended ({product}; at the carrier {}{})",
        carrier.as_str().unwrap_or("not yet"),
        step.unwrap_or_default()
    )
}

/// Beyond the longest step of a caller, which has deadlines of its own.
const LONG: Duration = Duration::from_secs(3700);
