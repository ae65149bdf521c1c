//! Tools: every call of the model gets exactly one output, whatever happens to the words around it; the call that ends
//! the conversation gets the end.
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
use crate::state::{Asked, Parting, Phase};
use crate::timer::Timer;
use crate::tools::{self, PlannedTool, Repetition, Request};
use crate::{Ms, Redacted, ReplyId, ToolCallId};

/// Tools running at once; a model asks for a few.
const MAX_RUNNING: usize = 16;

/// Answered calls remembered, so that a repetition is told from a new call.
const MAX_ANSWERED: usize = 128;

/// A tool that runs longer is excused by a word: silence of two seconds makes callers ask whether anybody is there.
const FILLER_AFTER: Ms = Ms::from_secs(2);

/// The filler talks over nobody; this is how often it looks for a pause.
const FILLER_AGAIN: Ms = Ms::from_secs(1);

/// Last words longer than this are not waited for.
const FAREWELL_LIMIT: Ms = Ms::from_secs(30);

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
    asked: Asked,
    deadline: Ms,
    stage: Stage,
    /// When the caller is asked for patience; once.
    filler: Option<Ms>,
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
        let index = self.running.iter().position(|run| run.asked.call == *call)?;
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
        let request = tools::parse(&plan, &name, arguments.expose());
        let asked = Asked { call, reply, name, arguments, connection: self.connection, at: self.now };
        match request {
            Request::EndCall => {
                let ending = Ending { reason: EndReason::AgentHungUp, next: Next::HangUp };
                self.request_parting(asked, ending);
            }
            Request::Transfer { target } => {
                let ending = Ending { reason: EndReason::Transferred, next: Next::Transfer { target } };
                self.request_parting(asked, ending);
            }
            Request::Refused(sentence) => self.refuse(asked, sentence),
            Request::Run(_) if self.toolbox.running.len() >= MAX_RUNNING => self.refuse(asked, TOO_MANY),
            Request::Run(tool) => self.begin_tool(asked, tool),
        }
        Ok(())
    }

    fn refuse(&mut self, asked: Asked, sentence: &str) {
        // The model's own word for a tool that does not exist is not passed on: it could be anything.
        let name = "unknown".to_owned();
        self.event(Event::ToolEnded { name, outcome: ToolOutcome::Refused, took: Ms::ZERO });
        self.answer(asked, sentence);
    }

    fn note_tool_end(&mut self, asked: &Asked, outcome: ToolOutcome) {
        let took = self.now.since(asked.at);
        self.event(Event::ToolEnded { name: asked.name.clone(), outcome, took });
    }

    fn answer(&mut self, asked: Asked, sentence: &str) {
        self.deliver(asked, Redacted::new(sentence.to_owned()));
    }

    /// Gives the model an output: as such on the connection that asked, where the model then goes on by itself; as
    /// memory on any other, where the call is not known and the model must be asked to go on.
    fn deliver(&mut self, asked: Asked, output: Redacted<String>) {
        let Asked { call, reply: _, name, arguments, connection, at: _ } = asked;
        let item = HistoryItem::Tool { call: call.clone(), name, arguments, output: output.clone() };
        if connection == self.connection && self.link.is_ready() {
            self.command(ModelCommand::ToolOutput { call, output });
            self.memory.push(self.now, item);
            self.await_reply();
        } else {
            self.tell(item);
            self.owe_reply();
        }
    }

    /// Puts it on record that a tool is about to run, and runs it as soon as that is safe.
    fn begin_tool(&mut self, asked: Asked, tool: &PlannedTool) {
        let Asked { call, reply: _, name, arguments, connection: _, at: _ } = asked.clone();
        self.write(Fact::ToolStarted { call, name, arguments });
        let sequence = match tool.repetition {
            Repetition::Harmless => 0,
            Repetition::OnceOnly => self.scribe.sequence(),
        };
        let deadline = self.now + tool.timeout;
        let filler = Some(self.now + FILLER_AFTER);
        self.toolbox.running.push(Run { asked, deadline, stage: Stage::Written { sequence }, filler });
        self.start_tools();
    }

    /// Asks for every tool that waits for nothing any more.
    fn start_tools(&mut self) {
        for run in &mut self.toolbox.running {
            let Stage::Written { sequence } = run.stage else { continue };
            if self.scribe.is_durable(sequence) {
                run.stage = Stage::Requested;
                let Asked { call, reply: _, name, arguments, connection: _, at: _ } = run.asked.clone();
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
        let Run { asked, deadline: _, stage: _, filler: _ } = run;
        self.write(Fact::ToolEnded { call: asked.call.clone(), output: output.clone() });
        self.note_tool_end(&asked, outcome);
        self.deliver(asked, output);
    }

    /// A tool takes long: a word for the caller, once for each call of a tool, if nobody is speaking or about to.
    pub(super) fn fill_wait(&mut self) {
        let is_quiet = self.phase == Phase::Open
            && self.link.is_ready()
            && !self.opening.is_going_on()
            && !self.is_caller_speaking()
            && !self.is_agent_busy();
        let now = self.now;
        for filler in self.toolbox.running.iter_mut().map(|run| &mut run.filler) {
            if filler.is_some_and(|at| at <= now) {
                *filler = if is_quiet { None } else { Some(now + FILLER_AGAIN) };
            }
        }
        if is_quiet {
            self.say(Redacted::new(self.plan.phrases.one_moment.clone()));
        }
    }

    /// When the next tool has taken long.
    pub(super) fn next_filler(&self) -> Option<Ms> {
        self.toolbox.running.iter().filter_map(|run| run.filler).min()
    }

    /// When the next tool is out of time.
    pub(super) fn next_tool_deadline(&self) -> Option<Ms> {
        self.toolbox.running.iter().map(|run| run.deadline).min()
    }

    /// The model wants the call to end, or to go elsewhere.
    fn request_parting(&mut self, asked: Asked, ending: Ending) {
        if self.replies.is_fenced(&asked.reply) {
            self.not_done(asked, NOT_HEARD);
        } else if self.phase == Phase::Open {
            self.part(Parting { ending, asked_by: Some(asked) });
        } else {
            self.not_done(asked, NOT_NOW);
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
        let is_said = asked_by.as_ref().is_none_or(|asked| !self.replies.is_active(&asked.reply));
        if !is_said || !self.playback.is_silent() {
            return;
        }
        // No output: it would make the model speak on, and the end of the call is the answer.
        if let Some(asked) = asked_by.clone() {
            self.note_tool_end(&asked, ToolOutcome::Value);
        }
        self.end_parting();
    }

    /// The words around an end of the call were not heard: the call goes on, and the model learns why.
    pub(super) fn call_off_parting(&mut self) {
        if let Some(asked) = self.phase.stay() {
            self.timers.stop(Timer::Farewell);
            self.not_done(asked, NOT_HEARD);
        }
    }

    fn not_done(&mut self, asked: Asked, sentence: &str) {
        self.note_tool_end(&asked, ToolOutcome::Error);
        self.answer(asked, sentence);
    }
}
