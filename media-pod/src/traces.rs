//! Traces: what happened in a call, on whichever pods, as one OpenTelemetry trace.
//!
//! Off unless an OTLP endpoint is configured ([`settings`]); then every part of a call is a [`Span`], and a task of its
//! own ([`delivery`]) sends them in batches. A full queue or a receiver that is down costs spans, never a call.
//!
//! **The trace id is the CallSid** without its `CA`: 128 bits that are random already and known to every pod that sees
//! the call, so that no pod has to tell another. Whoever has a CallSid, from a log or from the carrier's console, has the
//! trace. The root span's id is derived from it too; it is sent once, by the pod that hears first that the call is over.
//!
//! Attributes are identifiers, enums and times. Numbers, words and tool arguments never are: nothing here takes a
//! [`call_session::Redacted`].

pub mod delivery;
pub(crate) mod leg;
pub mod settings;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use call_session::CallSid;
use opentelemetry::trace::{Event, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use crate::clock::UnixMs;
use crate::metrics::Metrics;
use settings::Sampling;

/// Spans that wait for delivery: at some twenty for a short call, a hundred calls that end at once.
const QUEUE: usize = 2048;

/// Notes of one span: barge-ins of a long call.
const MOST_NOTES: usize = 128;

/// Where spans go; nowhere, if it is off. Cheap to clone.
#[derive(Clone, Default)]
pub struct Traces(Option<Arc<Sink>>);

struct Sink {
    queue: mpsc::Sender<SpanData>,
    sampling: Sampling,
    scope: InstrumentationScope,
    metrics: Arc<Metrics>,
}

impl Traces {
    /// Spans of the calls that are chosen, and the end of the queue they come out of.
    pub fn new(sampling: Sampling, metrics: Arc<Metrics>) -> (Self, mpsc::Receiver<SpanData>) {
        let (queue, spans) = mpsc::channel(QUEUE);
        let scope =
            InstrumentationScope::builder("switchboard").with_version(env!("CARGO_PKG_VERSION")).build();
        (Self(Some(Arc::new(Sink { queue, sampling, scope, metrics }))), spans)
    }

    /// The trace of a call.
    pub fn of_call(&self, call: &CallSid) -> CallTrace {
        let traced = self.0.as_ref().and_then(|sink| {
            let id = trace_id(call)?;
            let is_chosen = sink.sampling.chooses(id);
            is_chosen.then(|| Traced { sink: Arc::clone(sink), id, root: root_id(call) })
        });
        CallTrace(traced)
    }
}

/// A call's trace; nothing, if the call is not traced.
#[derive(Clone, Default)]
pub struct CallTrace(Option<Traced>);

#[derive(Clone)]
struct Traced {
    sink: Arc<Sink>,
    id: TraceId,
    root: SpanId,
}

impl CallTrace {
    /// A part of the call, begun at `at`.
    pub fn begin(&self, name: &'static str, kind: SpanKind, at: UnixMs) -> Span {
        Span::open(self.0.as_ref(), name, kind, at, |traced| traced.root)
    }

    /// The call as a whole: the span that all others are below. To be ended once for a call, over all pods.
    pub fn whole(&self, began: UnixMs) -> Span {
        let mut span = Span::open(self.0.as_ref(), "call", SpanKind::Server, began, |_| SpanId::INVALID);
        if let Some(open) = &mut span.0 {
            open.data.span_context = context(open.traced.id, open.traced.root);
        }
        span
    }
}

/// A part of a call that has begun. It is sent when it is ended; dropped before, it never was.
#[derive(Default)]
#[must_use]
pub struct Span(Option<Box<Open>>);

struct Open {
    traced: Traced,
    data: SpanData,
}

impl Span {
    fn open(
        traced: Option<&Traced>,
        name: &'static str,
        kind: SpanKind,
        at: UnixMs,
        parent: impl FnOnce(&Traced) -> SpanId,
    ) -> Self {
        Self(traced.map(|traced| {
            let data = SpanData {
                span_context: context(traced.id, SpanId::from(rand_id())),
                parent_span_id: parent(traced),
                parent_span_is_remote: false,
                span_kind: kind,
                name: Cow::Borrowed(name),
                start_time: system_time(at),
                end_time: system_time(at),
                attributes: Vec::new(),
                dropped_attributes_count: 0,
                events: SpanEvents::default(),
                links: SpanLinks::default(),
                status: Status::Unset,
                instrumentation_scope: traced.sink.scope.clone(),
            };
            Box::new(Open { traced: traced.clone(), data })
        }))
    }

    /// A part of this part.
    pub fn begin(&self, name: &'static str, kind: SpanKind, at: UnixMs) -> Self {
        let open = self.0.as_ref();
        Self::open(open.map(|open| &open.traced), name, kind, at, |_| {
            open.map_or(SpanId::INVALID, |open| open.data.span_context.span_id())
        })
    }

    /// Sets an attribute: an identifier, an enum's word, a count.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        if let Some(open) = &mut self.0 {
            open.data.attributes.push(KeyValue::new(key, value));
        }
    }

    /// Notes that something happened.
    pub fn note(&mut self, what: &'static str, at: UnixMs) {
        let Some(open) = &mut self.0 else { return };
        let events = &mut open.data.events;
        if events.events.len() < MOST_NOTES {
            events.events.push(Event::new(what, system_time(at), Vec::new(), 0));
        } else {
            events.dropped_count = events.dropped_count.saturating_add(1);
        }
    }

    /// It did not do what it was for.
    pub fn fail(&mut self, why: String) {
        if let Some(open) = &mut self.0 {
            open.data.status = Status::error(why);
        }
    }

    /// `traceparent` (W3C Trace Context) for a request that is made in this part.
    pub fn traceparent(&self) -> Option<String> {
        let context = &self.0.as_ref()?.data.span_context;
        Some(format!("00-{}-{}-01", context.trace_id(), context.span_id()))
    }

    /// It is over.
    pub fn end(self, at: UnixMs) {
        let Some(open) = self.0 else { return };
        let Open { traced, mut data } = *open;
        data.end_time = system_time(at).max(data.start_time);
        if traced.sink.queue.try_send(data).is_err() {
            traced.sink.metrics.spans_dropped.inc();
        }
    }
}

/// The 32 hexadecimal digits of the CallSid; none for one of zeros only, which no trace may have.
fn trace_id(call: &CallSid) -> Option<TraceId> {
    let id = TraceId::from_hex(call.as_str().get(2..)?).ok()?;
    (id != TraceId::INVALID).then_some(id)
}

fn root_id(call: &CallSid) -> SpanId {
    let digest = Sha256::digest(call.as_str());
    let mut bytes = [0; 8];
    // The first eight bytes decide who answers (docs/design.md); these are free.
    bytes.copy_from_slice(&digest[8..16]);
    SpanId::from(u64::from_be_bytes(bytes).max(1))
}

/// Never 0, which is no id.
fn rand_id() -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _};
    std::hash::RandomState::new().build_hasher().finish().max(1)
}

fn context(trace: TraceId, span: SpanId) -> SpanContext {
    SpanContext::new(trace, span, TraceFlags::SAMPLED, false, TraceState::NONE)
}

fn system_time(at: UnixMs) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(at.0)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const CALL: &str = "CA0123456789abcdef0123456789abcdef";

    /// All calls' spans, and where they come out.
    pub(crate) fn collecting() -> (CallTrace, mpsc::Receiver<SpanData>, Arc<Metrics>) {
        let metrics = Arc::new(Metrics::register().unwrap());
        let (traces, spans) = Traces::new(Sampling::default(), Arc::clone(&metrics));
        (traces.of_call(&CALL.parse().unwrap()), spans, metrics)
    }

    #[test]
    fn the_trace_is_the_call_and_the_root_is_the_same_on_every_pod() {
        let (here, mut from_here, _) = collecting();
        let (there, mut from_there, _) = collecting();
        here.begin("stream", SpanKind::Server, UnixMs(1000)).end(UnixMs(2000));
        there.whole(UnixMs(500)).end(UnixMs(3000));
        let (part, whole) = (from_here.try_recv().unwrap(), from_there.try_recv().unwrap());
        assert_eq!(part.span_context.trace_id().to_string(), "0123456789abcdef0123456789abcdef");
        assert_eq!(whole.span_context.trace_id(), part.span_context.trace_id());
        assert_eq!(part.parent_span_id, whole.span_context.span_id());
        assert_eq!(whole.parent_span_id, SpanId::INVALID);
        assert_ne!(part.span_context.span_id(), whole.span_context.span_id());
        assert_eq!(whole.start_time, UNIX_EPOCH + Duration::from_millis(500));
        assert_eq!(whole.end_time, UNIX_EPOCH + Duration::from_millis(3000));
    }

    #[test]
    fn a_request_made_in_a_part_carries_it_on() {
        let (call, mut spans, _) = collecting();
        let span = call.begin("tool", SpanKind::Client, UnixMs(0));
        let traceparent = span.traceparent().unwrap();
        span.end(UnixMs(1));
        let id = spans.try_recv().unwrap().span_context.span_id();
        assert_eq!(traceparent, format!("00-0123456789abcdef0123456789abcdef-{id}-01"));
    }

    #[test]
    fn what_is_off_costs_nothing_and_a_full_queue_costs_spans_only() {
        let call = Traces::default().of_call(&CALL.parse().unwrap());
        let mut span = call.begin("stream", SpanKind::Server, UnixMs(0));
        span.set("key", 1);
        assert_eq!(span.traceparent(), None);
        span.end(UnixMs(1));

        let (call, mut spans, metrics) = collecting();
        for _ in 0..QUEUE + 3 {
            call.begin("stream", SpanKind::Server, UnixMs(0)).end(UnixMs(1));
        }
        assert_eq!(metrics.spans_dropped.get(), 3);
        let mut count = 0;
        while spans.try_recv().is_ok() {
            count += 1;
        }
        assert_eq!(count, QUEUE);
    }

    #[test]
    fn notes_are_bounded_and_time_does_not_run_backwards() {
        let (call, mut spans, _) = collecting();
        let mut span = call.begin("stream", SpanKind::Server, UnixMs(1000));
        for _ in 0..MOST_NOTES + 2 {
            span.note("the caller interrupted", UnixMs(1500));
        }
        span.end(UnixMs(900));
        let span = spans.try_recv().unwrap();
        assert_eq!((span.events.len(), span.events.dropped_count), (MOST_NOTES, 2));
        assert_eq!(span.end_time, span.start_time);
    }
}
