//! Tools: every call of the model gets exactly one output, whatever happens to the words around it.
//!
//! A tool that ran keeps its result across interruption and loss of the model: on the connection that asked, as its
//! output; on a later one, as part of the memory. Call control (`end_call`, `transfer`) is the exception: it takes
//! effect only when the words around it were heard.

use std::collections::VecDeque;

use super::Call;
use crate::io::{
    EndReason, Ending, Event, HistoryItem, Ignored, ModelCommand, Next, Output, ToolOutcome, ToolRequest,
    ToolResult,
};
use crate::journal::Fact;
use crate::state::{Parting, Phase};
use crate::timer::Timer;
use crate::tools::{self, Repetition, Request};
use crate::{Ms, Redacted, ReplyId, ToolCallId};

/// Tools running at once; a model asks for a few.
const MAX_RUNNING: usize = 16;

/// Answered calls remembered, so that a repetition is told from a new call.
const MAX_ANSWERED: usize = 128;

/// Last words longer than this are not waited for.
const FAREWELL_LIMIT: Ms = Ms::from_secs(30);

const DONE: &str = "Done.";
const NOT_HEARD: &str = "Not done: the caller interrupted before your words were heard. The call goes on.";
const NOT_NOW: &str = "Not done: the call is already about to end.";
const TOO_MANY: &str = "Error: too many tools are running.";
const TIMED_OUT: &str = "Error: the tool did not answer in time.";

/// Tool calls that have no output yet, and the names of those that have.
#[derive(Clone, Debug, Default)]
pub(super) struct Toolbox {
    running: Vec<Run>,
    answered: VecDeque<ToolCallId>,
}

#[derive(Clone, Debug)]
struct Run {
    call: ToolCallId,
    name: String,
    arguments: Redacted<String>,
    connection: u32,
    began: Ms,
    deadline: Ms,
    stage: Stage,
}

/// How far a tool got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It waits until the store holds this entry.
    Written { sequence: u64 },
    /// It was asked for.
    Requested,
}

impl Toolbox {
    pub(super) const fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    fn take(&mut self, call: &ToolCallId) -> Option<Run> {
        let index = self.running.iter().position(|run| run.call == *call)?;
        Some(self.running.remove(index))
    }

    /// Marks a call as answered, or about to be.
    fn remember(&mut self, call: ToolCallId) {
        if self.answered.len() >= MAX_ANSWERED {
            self.answered.pop_front();
        }
        self.answered.push_back(call);
    }
}

impl Call {
    pub(super) fn handle_tool_call(
        &mut self,
        call: ToolCallId,
        reply: ReplyId,
        name: String,
        arguments: Redacted<String>,
    ) -> Result<(), Ignored> {
        if self.toolbox.answered.contains(&call) {
            return Err(Ignored::Stale { input: "tool call" });
        }
        self.toolbox.remember(call.clone());
        let plan = self.plan.clone();
        match tools::parse(&plan, &name, arguments.expose()) {
            Request::EndCall => {
                let ending = Ending { reason: EndReason::AgentHungUp, next: Next::HangUp };
                self.request_parting(call, reply, ending);
            }
            Request::Transfer { target } => {
                let ending = Ending { reason: EndReason::Transferred, next: Next::Transfer { target } };
                self.request_parting(call, reply, ending);
            }
            Request::Refused(sentence) => self.refuse(call, sentence),
            Request::Run(_) if self.toolbox.running.len() >= MAX_RUNNING => self.refuse(call, TOO_MANY),
            Request::Run(tool) => {
                self.write(Fact::ToolStarted {
                    call: call.clone(),
                    name: name.clone(),
                    arguments: arguments.clone(),
                });
                self.toolbox.running.push(Run {
                    call,
                    name,
                    arguments,
                    connection: self.connection,
                    began: self.now,
                    deadline: self.now + tool.timeout,
                    stage: Stage::Written {
                        sequence: match tool.repetition {
                            Repetition::Harmless => 0,
                            Repetition::OnceOnly => self.scribe.sequence(),
                        },
                    },
                });
                self.start_tools();
            }
        }
        Ok(())
    }

    fn refuse(&mut self, call: ToolCallId, sentence: &str) {
        // The model's own word for a tool that does not exist is not passed on: it could be anything.
        self.event(Event::ToolEnded {
            name: "unknown".to_owned(),
            outcome: ToolOutcome::Refused,
            took: Ms::ZERO,
        });
        self.answer(call, sentence);
    }

    fn answer(&mut self, call: ToolCallId, sentence: &str) {
        self.command(ModelCommand::ToolOutput { call, output: Redacted::new(sentence.to_owned()) });
        self.await_reply();
    }

    /// Asks for every tool that waits for nothing any more.
    fn start_tools(&mut self) {
        for run in &mut self.toolbox.running {
            let Stage::Written { sequence } = run.stage else { continue };
            if self.scribe.is_durable(sequence) {
                run.stage = Stage::Requested;
                let (call, name, arguments) = (run.call.clone(), run.name.clone(), run.arguments.clone());
                self.outputs.push_back(Output::Tool(ToolRequest { call, name, arguments }));
            }
        }
    }

    pub(super) fn handle_durable(&mut self, up_to: u64) -> Result<(), Ignored> {
        if !self.scribe.set_durable(up_to) {
            return Err(Ignored::Stale { input: "journal durable" });
        }
        self.start_tools();
        Ok(())
    }

    pub(super) fn handle_tool_ended(&mut self, call: &ToolCallId, result: ToolResult) -> Result<(), Ignored> {
        let Some(run) = self.toolbox.take(call) else { return Err(Ignored::Stale { input: "tool ended" }) };
        if let Stage::Written { .. } = run.stage {
            self.toolbox.running.push(run);
            return Err(Ignored::Unexpected { input: "tool ended", state: "the tool was not started" });
        }
        self.finish_tool(run, result);
        Ok(())
    }

    pub(super) fn time_out_tools(&mut self) {
        while let Some(index) = self.toolbox.running.iter().position(|run| run.deadline <= self.now) {
            let run = self.toolbox.running.remove(index);
            self.finish_tool(run, ToolResult::TimedOut);
        }
    }

    fn finish_tool(&mut self, run: Run, result: ToolResult) {
        let (output, outcome) = match result {
            ToolResult::Value(text) => (text, ToolOutcome::Value),
            ToolResult::Error(text) => (text, ToolOutcome::Error),
            ToolResult::TimedOut => (Redacted::new(TIMED_OUT.to_owned()), ToolOutcome::TimedOut),
        };
        let Run { call, name, arguments, connection, began, deadline: _, stage: _ } = run;
        self.write(Fact::ToolEnded { call: call.clone(), output: output.clone() });
        self.event(Event::ToolEnded { name: name.clone(), outcome, took: self.now.since(began) });
        let item = HistoryItem::Tool { call: call.clone(), name, arguments, output: output.clone() };
        if connection == self.connection && self.link.is_ready() {
            self.command(ModelCommand::ToolOutput { call, output });
            self.memory.push(item);
            self.await_reply();
        } else {
            self.tell(item);
            self.debt = super::Debt::Reply;
        }
    }

    /// When the next tool is out of time.
    pub(super) fn next_tool_deadline(&self) -> Option<Ms> {
        self.toolbox.running.iter().map(|run| run.deadline).min()
    }

    /// The model wants the call to end, or to go elsewhere.
    fn request_parting(&mut self, call: ToolCallId, reply: ReplyId, ending: Ending) {
        if self.replies.is_fenced(&reply) {
            self.answer(call, NOT_HEARD);
        } else if self.phase == Phase::Open {
            self.part(Parting { ending, asked_by: Some((call, reply)) });
        } else {
            self.answer(call, NOT_NOW);
        }
    }

    /// The call will end when everything sent is heard.
    pub(super) fn part(&mut self, parting: Parting) {
        if self.phase.part(parting) {
            self.timers.set(Timer::Farewell, self.now + FAREWELL_LIMIT);
        }
    }

    /// Ends the call when its last words are heard: the reply that asked for it is complete and everything is played.
    pub(super) fn settle_parting(&mut self) {
        let Phase::Parting(Parting { asked_by, .. }) = &self.phase else { return };
        let is_said = asked_by.as_ref().is_none_or(|(_, reply)| !self.replies.is_active(reply));
        if !is_said || !self.playback.is_silent() {
            return;
        }
        if let Some((call, _)) = asked_by.clone()
            && self.link.is_ready()
        {
            self.command(ModelCommand::ToolOutput { call, output: Redacted::new(DONE.to_owned()) });
        }
        self.end_parting();
    }

    /// The words around an end of the call were not heard: the call goes on, and the model learns why.
    pub(super) fn call_off_parting(&mut self) {
        if let Some(call) = self.phase.stay() {
            self.timers.stop(Timer::Farewell);
            self.answer(call, NOT_HEARD);
        }
    }
}
