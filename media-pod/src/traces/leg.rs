//! The spans of one leg: the stream, the connections to models, the caller's turns, the tools.
//!
//! Fed by the bridge with what it carries anyway; decides nothing and waits for nothing. Times are the call's own.

use std::collections::HashMap;

use call_session::agent_file::{Engine, EngineKind};
use call_session::io::{Ending, Event, ToolRequest, ToolResult};
use call_session::{Epoch, Ms, StreamSid, ToolCallId};
use opentelemetry::trace::SpanKind;

use super::{CallTrace, Span};
use crate::clock::UnixMs;
use crate::store::AgentKey;

/// Spans of one leg that are open.
#[derive(Default)]
pub(crate) struct LegTrace {
    /// The call's origin, which its times count from.
    origin: UnixMs,
    stream: Span,
    session: Option<Span>,
    /// Of the connection that will take the session's place.
    successor: Option<Span>,
    tools: HashMap<ToolCallId, Span>,
}

impl LegTrace {
    /// The leg begins.
    pub(crate) fn begin(
        call: &CallTrace,
        origin: UnixMs,
        now: Ms,
        leg: (Epoch, &StreamSid, &AgentKey),
    ) -> Self {
        let (epoch, stream_sid, agent) = leg;
        let mut stream = call.begin("stream", SpanKind::Server, at(origin, now));
        stream.set("switchboard.agent", agent.name.clone());
        stream.set("switchboard.namespace", agent.namespace.clone());
        stream.set("switchboard.stream_sid", stream_sid.to_string());
        stream.set("switchboard.epoch", i64::from(epoch.0));
        Self { origin, stream, session: None, successor: None, tools: HashMap::new() }
    }

    /// A model is connected to, in the place of the one before.
    pub(crate) fn connecting(&mut self, now: Ms, engine: &Engine) {
        let at = at(self.origin, now);
        for before in [self.session.take(), self.successor.take()].into_iter().flatten() {
            before.end(at);
        }
        self.session = Some(self.begin_session(at, engine));
    }

    /// A model is connected to, to take the place of the one in use.
    pub(crate) fn preparing(&mut self, now: Ms, engine: &Engine) {
        let at = at(self.origin, now);
        if let Some(before) = self.successor.take() {
            before.end(at);
        }
        self.successor = Some(self.begin_session(at, engine));
    }

    fn begin_session(&mut self, at: UnixMs, engine: &Engine) -> Span {
        let mut session = self.stream.begin("model session", SpanKind::Client, at);
        session.set("switchboard.engine.name", engine.name.clone());
        let kind = match &engine.kind {
            EngineKind::Realtime { .. } => "realtime",
            EngineKind::Simulated { .. } => "simulated",
        };
        session.set("switchboard.engine.type", kind);
        session
    }

    /// A tool runs; `traceparent` for the requests it makes.
    pub(crate) fn tool_started(&mut self, now: Ms, request: &ToolRequest) -> Option<String> {
        let mut tool = self.stream.begin("execute_tool", SpanKind::Client, at(self.origin, now));
        tool.set("gen_ai.operation.name", "execute_tool");
        tool.set("gen_ai.tool.name", request.name.clone());
        let traceparent = tool.traceparent()?;
        self.tools.insert(request.call.clone(), tool);
        Some(traceparent)
    }

    /// It ended.
    pub(crate) fn tool_ended(&mut self, now: Ms, call: &ToolCallId, result: &ToolResult) {
        let Some(mut tool) = self.tools.remove(call) else { return };
        match result {
            ToolResult::Value(_) => {}
            // What went wrong is the tool's own text, which may quote what it was given.
            ToolResult::Error(_) => tool.fail("the tool answered with an error".to_owned()),
            ToolResult::TimedOut => tool.fail("the tool did not answer in time".to_owned()),
        }
        tool.end(at(self.origin, now));
    }

    /// Something happened in the call.
    pub(crate) fn handle_event(&mut self, now: Ms, event: &Event) {
        let at = at(self.origin, now);
        match event {
            Event::ModelReady { .. } => {
                if let Some(session) = &mut self.session {
                    session.note("the model is ready", at);
                }
            }
            Event::FirstAudio { .. } => self.stream.note("first audio", at),
            Event::TurnAnswered { latency } => {
                let began = UnixMs(at.0.saturating_sub(latency.0));
                self.stream.begin("turn", SpanKind::Internal, began).end(at);
            }
            Event::BargeIn { .. } => self.stream.note("the caller interrupted", at),
            Event::ModelLost { reason } => {
                if let Some(mut session) = self.session.take() {
                    session.fail(format!("lost: {reason:?}"));
                    session.end(at);
                }
            }
            Event::ModelReplaced => {
                let before = std::mem::replace(&mut self.session, self.successor.take());
                if let Some(before) = before {
                    before.end(at);
                }
            }
            Event::SuccessorLost { reason } => {
                if let Some(mut successor) = self.successor.take() {
                    successor.fail(format!("lost: {reason:?}"));
                    successor.end(at);
                }
            }
            Event::AudioGap { .. }
            | Event::StaleAudioDropped
            | Event::ToolEnded { .. }
            | Event::ModelRefused { .. }
            | Event::Usage(_)
            | Event::CallerTranscript { .. }
            | Event::AgentTranscript { .. }
            | Event::Digit => {}
        }
    }

    /// The leg is over; what is still open ends with it.
    pub(crate) fn end(self, now: Ms, ending: &Ending) {
        let Self { origin, mut stream, session, successor, tools } = self;
        let at = at(origin, now);
        for (_, mut tool) in tools {
            tool.fail("the leg ended first".to_owned());
            tool.end(at);
        }
        for session in [session, successor].into_iter().flatten() {
            session.end(at);
        }
        stream.set("switchboard.end_reason", format!("{:?}", ending.reason));
        stream.end(at);
    }
}

fn at(origin: UnixMs, now: Ms) -> UnixMs {
    UnixMs(origin.0.saturating_add(now.0))
}

#[cfg(test)]
mod tests {
    use call_session::Redacted;
    use call_session::agent_file::SimulatedEngine;
    use call_session::io::{EndReason, ModelLoss, Next};
    use opentelemetry::trace::{SpanId, Status};
    use opentelemetry_sdk::trace::SpanData;

    use super::*;
    use crate::traces::tests::collecting;

    const ORIGIN: UnixMs = UnixMs(1_790_000_000_000);

    fn engine(name: &str) -> Engine {
        Engine {
            name: name.to_owned(),
            kind: EngineKind::Simulated { simulated: SimulatedEngine::default() },
        }
    }

    fn request(id: &str) -> ToolRequest {
        ToolRequest {
            call: ToolCallId::from(id),
            name: "book_visit".to_owned(),
            arguments: Redacted::new(r#"{"street": "Elm Street 5"}"#.to_owned()),
        }
    }

    /// The spans of a leg that went through `work`.
    fn traced(work: impl FnOnce(&mut LegTrace)) -> Vec<SpanData> {
        let (call, mut spans, _) = collecting();
        let agent = AgentKey { namespace: "moving".to_owned(), name: "sales".to_owned() };
        let sid = "MZ0123456789abcdef0123456789abcdef".parse().unwrap();
        let mut leg = LegTrace::begin(&call, ORIGIN, Ms(100), (Epoch(1), &sid, &agent));
        work(&mut leg);
        leg.end(Ms(60_000), &Ending { reason: EndReason::AgentHungUp, next: Next::HangUp });
        std::iter::from_fn(|| spans.try_recv().ok()).collect()
    }

    /// Name, beginning and end in the call's own time.
    fn times(span: &SpanData) -> (&str, u64, u64) {
        let since = |time: std::time::SystemTime| UnixMs::from(time).since(ORIGIN).0;
        (&span.name, since(span.start_time), since(span.end_time))
    }

    fn parent_of<'a>(spans: &'a [SpanData], span: &SpanData) -> Option<&'a str> {
        let parent = spans.iter().find(|other| other.span_context.span_id() == span.parent_span_id)?;
        Some(&parent.name)
    }

    #[test]
    fn sessions_turns_and_tools_are_parts_of_their_stream() {
        let spans = traced(|leg| {
            leg.connecting(Ms(200), &engine("primary"));
            leg.handle_event(Ms(900), &Event::ModelReady { after: Ms(700) });
            leg.handle_event(Ms(9_000), &Event::TurnAnswered { latency: Ms(800) });
            leg.tool_started(Ms(10_000), &request("t1"));
            leg.tool_ended(Ms(12_000), &ToolCallId::from("t1"), &ToolResult::TimedOut);
            leg.handle_event(Ms(20_000), &Event::ModelLost { reason: ModelLoss::Closed });
            leg.connecting(Ms(20_000), &engine("spare"));
            leg.tool_started(Ms(59_000), &request("t2"));
        });
        let seen: Vec<_> = spans.iter().map(times).collect();
        assert_eq!(
            seen,
            [
                ("turn", 8_200, 9_000),
                ("execute_tool", 10_000, 12_000),
                ("model session", 200, 20_000),
                ("execute_tool", 59_000, 60_000),
                ("model session", 20_000, 60_000),
                ("stream", 100, 60_000),
            ]
        );
        let (stream, parts) = spans.split_last().unwrap();
        assert!(parts.iter().all(|span| parent_of(&spans, span) == Some("stream")));
        assert_ne!(stream.parent_span_id, SpanId::INVALID);
        let failed: Vec<_> =
            spans.iter().filter(|span| span.status != Status::Unset).map(|span| times(span).0).collect();
        assert_eq!(failed, ["execute_tool", "model session", "execute_tool"]);
        assert_eq!(spans[2].events.len(), 1);
    }

    #[test]
    fn a_session_and_the_one_that_takes_its_place_overlap() {
        let spans = traced(|leg| {
            leg.connecting(Ms(200), &engine("primary"));
            leg.preparing(Ms(5_000), &engine("primary"));
            leg.handle_event(Ms(6_000), &Event::SuccessorLost { reason: ModelLoss::Unreachable });
            leg.preparing(Ms(7_000), &engine("primary"));
            leg.handle_event(Ms(9_000), &Event::ModelReplaced);
        });
        let seen: Vec<_> = spans.iter().map(times).collect();
        assert_eq!(
            seen,
            [
                ("model session", 5_000, 6_000),
                ("model session", 200, 9_000),
                ("model session", 7_000, 60_000),
                ("stream", 100, 60_000),
            ]
        );
    }

    #[test]
    fn what_was_said_and_passed_to_a_tool_is_in_no_span() {
        let spans = traced(|leg| {
            leg.tool_started(Ms(1_000), &request("t1"));
            let answer = ToolResult::Error(Redacted::new("no such street: Elm Street 5".to_owned()));
            leg.tool_ended(Ms(2_000), &ToolCallId::from("t1"), &answer);
        });
        let all = format!("{spans:?}");
        assert!(all.contains("book_visit") && !all.contains("Elm"), "{all}");
    }
}
