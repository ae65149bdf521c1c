//! Traces, as an OTLP receiver gets them: one per call, over all its pods, and nobody's number or word in them.
//!
//! The receiver speaks OTLP over HTTP by OpenTelemetry's own protobuf types, and is as strict as the specification.

#![allow(clippy::unwrap_used)] // in a test it is an assertion

mod harness;

use std::collections::BTreeSet;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use harness::redis::Redis;
use harness::{CALLED, CALLER, DEADLINE, GREETING, Heard, Pod, SIMULATED, call_sid, token_of};
use media_pod::traces::settings::{Sampling, Settings};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// An OTLP/HTTP receiver on loopback.
struct Receiver {
    endpoint: String,
    bodies: watch::Receiver<Vec<Bytes>>,
}

impl Receiver {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}/v1/traces", listener.local_addr().unwrap());
        let (kept, bodies) = watch::channel(Vec::new());
        let receive = async move |headers: HeaderMap, body: Bytes| {
            if headers["content-type"] != "application/x-protobuf" {
                return (StatusCode::UNSUPPORTED_MEDIA_TYPE, Vec::new());
            }
            if ExportTraceServiceRequest::decode(body.clone()).is_err() {
                return (StatusCode::BAD_REQUEST, Vec::new());
            }
            kept.send_modify(|bodies: &mut Vec<Bytes>| bodies.push(body));
            (StatusCode::OK, ExportTraceServiceResponse::default().encode_to_vec())
        };
        let router = Router::new().route("/v1/traces", post(receive));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { endpoint, bodies }
    }

    fn settings(&self) -> Option<Settings> {
        let (endpoint, service) = (self.endpoint.clone(), "switchboard-media".to_owned());
        Some(Settings { endpoint, sampling: Sampling::default(), service })
    }

    fn bodies(&self) -> Vec<Bytes> {
        self.bodies.borrow().clone()
    }

    /// The spans once there are so many of each name, and no others.
    async fn until(&self, wanted: &[(&str, usize)]) -> Vec<(String, Span)> {
        let is_complete = |bodies: &Vec<Bytes>| {
            let spans = spans(bodies);
            let count = |name: &str| spans.iter().filter(|(_, span)| span.name == name).count();
            wanted.iter().all(|(name, number)| count(name) == *number)
        };
        let mut bodies = self.bodies.clone();
        if tokio::time::timeout(DEADLINE, bodies.wait_for(is_complete)).await.is_err() {
            let names: Vec<_> = spans(&self.bodies()).into_iter().map(|(_, span)| span.name).collect();
            panic!("expected {wanted:?}, got {names:?}");
        }
        let spans = spans(&self.bodies());
        let expected = wanted.iter().map(|(_, number)| number).sum::<usize>();
        assert_eq!(spans.len(), expected, "others came too: {spans:#?}");
        spans
    }
}

/// All spans, each with the pod it came from.
fn spans(bodies: &[Bytes]) -> Vec<(String, Span)> {
    let mut spans = Vec::new();
    let requests = bodies.iter().map(|body| ExportTraceServiceRequest::decode(body.clone()).unwrap());
    for resource in requests.flat_map(|request| request.resource_spans) {
        let attributes = resource.resource.unwrap().attributes;
        let pod = attributes.iter().find(|attribute| attribute.key == "k8s.pod.name").unwrap();
        let pod = format!("{:?}", pod.value);
        let of_pod = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
        spans.extend(of_pod.map(|span| (pod.clone(), span)));
    }
    spans
}

const ACTION: &str = "/moving/sales/twilio/action/0";
const STATUS: &str = "/moving/sales/twilio/status";

#[tokio::test]
async fn a_call_over_two_pods_is_one_trace_that_names_nobody() {
    let (receiver, redis) = (Receiver::start().await, Redis::start("traces"));
    let pod = async |name: &str| redis.pod_with(name, |config| config.traces = receiver.settings()).await;
    let (mut leaving, other) = (pod("sales-media-0").await, pod("sales-media-1").await);
    let call = call_sid(0xca11);
    let mut phone = leaving.dial(&call).await;
    phone.listen_until_said(&leaving, 1).await;
    let left = tokio::spawn(leaving.leave());
    phone.until(|heard| *heard == Heard::Closed(Some(1000))).await;
    drop(phone);
    left.await.unwrap();

    let (_, twiml) = other.webhook(ACTION, &call, "in-progress").await;
    let mut phone = other.stream(&call, &token_of(&twiml)).await;
    phone.speak(400).await;
    phone.pause(600).await;
    assert!(phone.listen_until_said(&other, 2).await > 300, "the caller is answered");
    phone.stop().await;
    phone.until(|heard| matches!(heard, Heard::Closed(_))).await;
    drop(phone);
    assert_eq!(other.webhook(STATUS, &call, "completed").await.0, 204);

    let spans = receiver
        .until(&[
            ("webhook voice", 1),
            ("webhook action", 1),
            ("webhook status", 1),
            ("stream", 2),
            ("model session", 2),
            ("turn", 1),
            ("call", 1),
        ])
        .await;
    let traces: BTreeSet<String> = spans.iter().map(|(_, span)| hex(&span.trace_id)).collect();
    assert_eq!(traces, BTreeSet::from([call[2..].to_owned()]), "the CallSid's digits");
    let pods: BTreeSet<&String> = spans.iter().map(|(pod, _)| pod).collect();
    assert_eq!(pods.len(), 2, "{pods:?}");

    let parent = |span: &Span| spans.iter().find(|(_, other)| other.span_id == span.parent_span_id);
    for (_, span) in &spans {
        let wanted = match span.name.as_str() {
            "call" => None,
            "model session" | "turn" => Some("stream"),
            _ => Some("call"),
        };
        assert_eq!(parent(span).map(|(_, parent)| parent.name.as_str()), wanted, "{span:#?}");
        assert!(span.start_time_unix_nano > 0 && span.end_time_unix_nano >= span.start_time_unix_nano);
    }
    let (_, whole) = spans.iter().find(|(_, span)| span.name == "call").unwrap();
    let begins_first = spans.iter().all(|(_, span)| whole.start_time_unix_nano <= span.start_time_unix_nano);
    assert!(begins_first, "{spans:#?}");

    for body in receiver.bodies() {
        let text = String::from_utf8_lossy(&body).into_owned();
        for private in
            [CALLER, CALLED, &CALLER[1..], &CALLED[1..], GREETING, "One moment", "carrier-auth-token"]
        {
            assert!(!text.contains(private), "{private} left the pod");
        }
    }
}

#[tokio::test]
async fn calls_do_not_notice_that_nobody_takes_their_traces() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}/v1/traces", listener.local_addr().unwrap());
    drop(listener);
    let settings =
        Settings { endpoint, sampling: Sampling::default(), service: "switchboard-media".to_owned() };
    let pod = Pod::start_with(SIMULATED, |config| config.traces = Some(settings)).await;
    let mut phone = pod.dial(&call_sid(1)).await;
    assert!(phone.listen_until_said(&pod, 1).await > 300);
    phone.stop().await;
    phone.until(|heard| matches!(heard, Heard::Closed(_))).await;
    // The announcement, the session and the stream.
    pod.until_metric("switchboard_spans_dropped_total", 3).await;
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
