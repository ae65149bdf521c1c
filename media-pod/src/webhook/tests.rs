//! Through the real router, with requests signed as the carrier signs them.

mod action;
mod overflow;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::Method;
use call_session::agent_file::{NumberRoutes, Route, TransferTarget};
use call_session::io::{EndReason, Ending, Next};
use call_session::{AccountSid, CallSid, Redacted};
use futures_util::StreamExt as _;
use tower::ServiceExt as _;
use twilio::Secret;
use twilio::signature::sign;

use super::*;
use crate::metrics::WebhookRefusal;
use crate::secrets::tests::Directory;
use crate::store::memory::MemoryStore;
use crate::store::redis::RedisStore;
use crate::store::{Attachment, Slots};
use crate::token::tests::keyring;
use crate::token::{Bearer, Claims, StreamKeys};

const ACCOUNT: &str = "AC00000000000000000000000000000001";
const CALL: &str = "CA0123456789abcdef0123456789abcdef";
const BASE: &str = "https://voice.example.com/moving/sales/twilio";
const NOW: u64 = 1_790_000_000_000;

const AGENT: &str = r#"
formatVersion: 1
namespace: moving
name: sales
publicUrl: https://voice.example.com
carrier:
  type: Twilio
  twilio:
    accountSid: AC00000000000000000000000000000001
    authTokens: [{name: twilio, key: token}, {name: twilio, key: next}]
persona: {instructions: "Be kind.", language: de-DE}
overflow: {type: Message, message: {text: "Alle Leitungen sind belegt & besetzt."}}
engines:
- {name: main, type: Simulated, simulated: {}}
"#;

pub(crate) fn agent_file() -> AgentFile {
    crate::agent::parse(AGENT).unwrap()
}

/// A pod's webhooks with everything around them.
struct Pod {
    directory: Directory,
    agent: watch::Sender<Arc<AgentFile>>,
    keyring: watch::Sender<Arc<Keyring>>,
    now: Arc<AtomicU64>,
    state: WebhookState,
}

#[derive(Debug, PartialEq)]
struct Answer {
    status: u16,
    body: String,
}

impl Pod {
    fn new() -> Self {
        Self::with_store(Arc::new(MemoryStore::default()))
    }

    fn without_store() -> Self {
        Self::with_store(Arc::new(RedisStore::new(&Secret::new("unix:///nonexistent/redis.sock")).unwrap()))
    }

    fn with_store(store: Arc<dyn Store>) -> Self {
        let directory = Directory::new().with_secret("twilio", "token", "12345\n");
        let agent = watch::Sender::new(Arc::new(agent_file()));
        let keyring = watch::Sender::new(Arc::new(keyring("k7", &[("k7", 7)])));
        let now = Arc::new(AtomicU64::new(NOW));
        let clock: Clock = {
            let now = Arc::clone(&now);
            Arc::new(move || UnixMs(now.load(Ordering::Relaxed)))
        };
        let state = WebhookState {
            agent: agent.subscribe(),
            keyring: keyring.subscribe(),
            secrets: Secrets::new(directory.path()),
            store,
            metrics: Arc::new(Metrics::register().unwrap()),
            clock,
            traces: Traces::default(),
        };
        Self { directory, agent, keyring, now, state }
    }

    fn configured(self, change: impl FnOnce(&mut AgentFile)) -> Self {
        self.agent.send_modify(|agent| change(Arc::make_mut(agent)));
        self
    }

    fn advance(&self, span: Duration) {
        self.now.fetch_add(u64::try_from(span.as_millis()).unwrap(), Ordering::Relaxed);
    }

    fn now(&self) -> UnixMs {
        (self.state.clock)()
    }

    async fn send(&self, request: axum::http::Request<Body>) -> Answer {
        let response = router(self.state.clone()).oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        Answer { status, body: String::from_utf8(body.to_vec()).unwrap() }
    }

    /// A signed request of the carrier.
    async fn post(&self, path: &str, form: &[(&str, &str)]) -> Answer {
        let form = owned(form);
        let signature = sign(&Secret::new("12345"), &format!("{BASE}/{path}"), &form);
        self.send(request(path, &encode(&form), Some(&signature))).await
    }

    async fn announce(&self) -> Answer {
        self.post("voice", &announcement(CALL)).await
    }

    async fn action(&self, epoch: u32) -> Answer {
        self.post(&format!("action/{epoch}"), &with_status("in-progress")).await
    }

    /// The stream of an answer is over: the carrier asks where the answer says.
    async fn after(&self, answer: &Answer) -> Answer {
        let (_, url) = answer.body.split_once(&format!(r#"action="{BASE}/"#)).expect("a stream");
        let path = url.split(['#', '"']).next().unwrap().replace("&amp;", "&");
        self.post(&path, &with_status("in-progress")).await
    }

    async fn state(&self) -> Option<CallState> {
        self.state.store.load_call(&call()).await.unwrap()
    }

    async fn slots(&self) -> Slots {
        self.state.store.count_slots(&sales(), self.now()).await.unwrap()
    }

    async fn attach(&self, epoch: u32) {
        let attached = self.state.store.attach(&call(), Epoch(epoch), "pod").await.unwrap();
        assert!(matches!(attached, Attachment::First | Attachment::Next), "{attached:?}");
    }

    async fn end_leg(&self, epoch: u32, next: Next) {
        let ending = Ending { reason: EndReason::AgentHungUp, next };
        self.state.store.record_ending(&call(), Epoch(epoch), &ending).await.unwrap();
    }

    /// A full pod refused the stream.
    async fn bounce(&self, epoch: u32) {
        let ending = Ending { reason: EndReason::HandedOver, next: Next::Reconnect };
        self.state.store.record_ending(&call(), Epoch(epoch), &ending).await.unwrap();
    }

    /// Like [`Pod::end_leg`] for leg 3; a store that is down does not take it.
    async fn end_leg_if_known(&self, next: Next) {
        let ending = Ending { reason: EndReason::Transferred, next };
        let _ = self.state.store.record_ending(&call(), Epoch(3), &ending).await;
    }

    /// What the stream token of an answer says, after verifying it as the stream's pod would.
    fn claims(&self, answer: &Answer) -> Claims {
        let (_, after) = answer.body.split_once(r#"<Parameter name="token" value=""#).expect("a stream");
        let token = after.split('"').next().unwrap();
        let bearer = Bearer { account: &account(), call: &call(), agent: &sales() };
        StreamKeys::new(&self.keyring.borrow()).unwrap().verify(token, &bearer, self.now()).unwrap()
    }
}

fn account() -> AccountSid {
    ACCOUNT.parse().unwrap()
}

fn call() -> CallSid {
    CALL.parse().unwrap()
}

fn sales() -> AgentKey {
    AgentKey { namespace: "moving".to_owned(), name: "sales".to_owned() }
}

fn owned(form: &[(&str, &str)]) -> Vec<(String, String)> {
    form.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn encode(form: &[(String, String)]) -> String {
    let escape = |text: &str| -> String {
        text.bytes()
            .map(|byte| {
                if byte.is_ascii_alphanumeric() {
                    char::from(byte).to_string()
                } else {
                    format!("%{byte:02X}")
                }
            })
            .collect()
    };
    let pairs: Vec<_> =
        form.iter().map(|(name, value)| format!("{}={}", escape(name), escape(value))).collect();
    pairs.join("&")
}

fn request(path: &str, body: &str, signature: Option<&str>) -> axum::http::Request<Body> {
    let mut request = axum::http::Request::builder()
        .method(Method::POST)
        .uri(format!("/moving/sales/twilio/{path}"))
        .header("host", "10.0.0.7:8080")
        .header("content-type", "application/x-www-form-urlencoded; charset=UTF-8");
    if let Some(signature) = signature {
        request = request.header("X-Twilio-Signature", signature);
    }
    request.body(Body::from(body.to_owned())).unwrap()
}

fn announcement(call: &str) -> [(&str, &str); 8] {
    [
        ("CallSid", call),
        ("AccountSid", ACCOUNT),
        ("From", "+15550000001"),
        ("To", "+15550000002"),
        ("CallStatus", "ringing"),
        ("Direction", "inbound"),
        ("CallerName", "Zoë Müller"),
        ("FromCity", ""),
    ]
}

fn with_status(status: &str) -> Vec<(&str, &str)> {
    let mut form = announcement(CALL).to_vec();
    form[4].1 = status;
    form
}

fn twiml(inner: &str) -> Answer {
    let response =
        if inner.is_empty() { "<Response />".to_owned() } else { format!("<Response>{inner}</Response>") };
    Answer { status: 200, body: format!(r#"<?xml version="1.0" encoding="UTF-8"?>{response}"#) }
}

fn apology() -> Answer {
    let words = call_session::plan::Phrases::of("de-DE").apology;
    twiml(&format!(r#"<Say language="de-DE">{words}</Say><Hangup />"#))
}

fn hang_up() -> Answer {
    twiml("<Hangup />")
}

#[tokio::test]
async fn a_new_call_gets_a_stream_with_a_token_a_record_and_a_slot() {
    let pod = Pod::new();
    let answer = pod.announce().await;
    let claims = pod.claims(&answer);
    let expected = Claims {
        account: account(),
        call: call(),
        namespace: "moving".to_owned(),
        agent: "sales".to_owned(),
        epoch: Epoch(0),
        expires: NOW / 1000 + 60,
        origin: UnixMs(NOW),
        is_untaken: false,
    };
    assert_eq!(claims, expected);
    let token = StreamKeys::new(&pod.keyring.borrow()).unwrap().mint(&claims);
    let stream = format!(
        concat!(
            r#"<Connect action="https://voice.example.com/moving/sales/twilio/action/0?origin=1790000000000#rc=5&amp;rp=5xx,ct,rt" method="POST">"#,
            r#"<Stream url="wss://voice.example.com/moving/sales/twilio/stream">"#,
            r#"<Parameter name="token" value="{}" /></Stream></Connect>"#
        ),
        token
    );
    assert_eq!(answer, twiml(&stream));
    let record = CallRecord {
        call: call(),
        agent: sales(),
        origin: UnixMs(NOW),
        from: Redacted::new("+15550000001".to_owned()),
        to: Redacted::new("+15550000002".to_owned()),
    };
    assert_eq!(pod.state().await, Some(CallState { record: Some(record), ..CallState::default() }));
    assert_eq!(pod.slots().await, Slots { reserved: 1, waiting: 0, active: 0 });
}

#[tokio::test]
async fn the_answer_is_xml() {
    let pod = Pod::new();
    let form = owned(&announcement(CALL));
    let signature = sign(&Secret::new("12345"), &format!("{BASE}/voice"), &form);
    let response =
        router(pod.state.clone()).oneshot(request("voice", &encode(&form), Some(&signature))).await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/xml; charset=utf-8");
}

#[tokio::test]
async fn a_call_announced_again_is_the_same_call() {
    let pod = Pod::new();
    let first = pod.claims(&pod.announce().await);
    pod.advance(Duration::from_secs(3));
    let second = pod.claims(&pod.announce().await);
    assert_eq!(second, Claims { expires: first.expires + 3, ..first });
    assert_eq!(pod.slots().await, Slots { reserved: 1, waiting: 0, active: 0 });
}

#[tokio::test]
async fn a_call_announced_again_in_the_middle_goes_on_with_the_next_leg() {
    let pod = Pod::new();
    pod.announce().await;
    pod.attach(0).await;
    assert_eq!(pod.claims(&pod.announce().await).epoch, Epoch(1));
}

#[tokio::test]
async fn a_wrong_signature_is_forbidden_counted_and_leaves_no_state() {
    let pod = Pod::new();
    let form = owned(&announcement(CALL));
    let body = encode(&form);
    let url = format!("{BASE}/voice");
    let forged = [
        None,
        Some(sign(&Secret::new("wrong"), &url, &form)),
        Some(sign(&Secret::new("12345"), &format!("{BASE}/status"), &form)),
        Some(sign(&Secret::new("12345"), "https://10.0.0.7:8080/moving/sales/twilio/voice", &form)),
        Some(sign(&Secret::new("12345"), &url, &form[1..])),
    ];
    for signature in &forged {
        for path in ["voice", "action/0"] {
            let answer = pod.send(request(path, &body, signature.as_deref())).await;
            assert_eq!(answer.status, 403);
            assert!(
                answer.body.starts_with(r#"{"error":{"message":"the signature is missing"#),
                "{}",
                answer.body
            );
        }
    }
    assert_eq!(pod.state.metrics.webhooks_refused.count(WebhookRefusal::Signature), 10);
    assert_eq!(pod.state().await, None);
    assert_eq!(pod.slots().await, Slots::default());
}

#[tokio::test]
async fn auth_tokens_are_rotated_without_a_restart_and_none_means_refusal() {
    let pod = Pod::new();
    let form = owned(&announcement(CALL));
    let with = async |token: &str| {
        let signature = sign(&Secret::new(token), &format!("{BASE}/voice"), &form);
        pod.send(request("voice", &encode(&form), Some(&signature))).await.status
    };
    assert_eq!([with("12345").await, with("67890").await], [200, 403]);
    pod.directory.write("twilio", "next", "67890");
    assert_eq!([with("12345").await, with("67890").await], [200, 200]);
    pod.directory.write("twilio", "token", "");
    assert_eq!([with("12345").await, with("67890").await], [403, 200]);
    pod.directory.write("twilio", "next", "");
    assert_eq!([with("").await, with("67890").await], [403, 403]);
}

#[tokio::test]
async fn a_query_is_part_of_what_is_signed() {
    let pod = Pod::new();
    assert_eq!(pod.post("voice?region=us1&x=%20", &announcement(CALL)).await.status, 200);
    let form = owned(&announcement(CALL));
    let signature = sign(&Secret::new("12345"), &format!("{BASE}/voice"), &form);
    assert_eq!(pod.send(request("voice?x=1", &encode(&form), Some(&signature))).await.status, 403);
}

#[tokio::test]
async fn bad_input_gets_a_typed_error_and_leaves_no_state() {
    let pod = Pod::new();
    let mut foreign = announcement(CALL);
    foreign[1].1 = "AC00000000000000000000000000000002";
    let cases = [
        (pod.post("voice", &announcement("CA1")).await, 400, "malformed"),
        (pod.post("voice", &announcement(CALL)[1..]).await, 400, "malformed"),
        (pod.post("voice", &announcement(CALL)[..4]).await, 400, "malformed"),
        (pod.post("voice", &[("CallSid", CALL)]).await, 400, "malformed"),
        (pod.post("voice", &foreign).await, 403, "account"),
        (pod.post("action/first", &announcement(CALL)).await, 400, "malformed"),
        (pod.post("action/99999999999", &announcement(CALL)).await, 400, "malformed"),
        (pod.send(request("voice", &"x".repeat(64 * 1024 + 1), Some("s"))).await, 413, "payload_too_large"),
    ];
    for (answer, status, kind) in &cases {
        assert_eq!(answer.status, *status, "{}", answer.body);
        assert!(answer.body.contains(&format!(r#""type":"{kind}""#)), "{}", answer.body);
        assert!(!answer.body.contains("+1555"));
    }
    let mut json = request("voice", "{}", Some("s"));
    json.headers_mut().insert("content-type", "application/json".parse().unwrap());
    assert_eq!(pod.send(json).await.status, 415);
    assert_eq!(pod.state.metrics.webhooks_refused.count(WebhookRefusal::Malformed), 9);
    assert_eq!(pod.state().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_form_that_never_ends_is_given_up_and_its_connection_with_it() {
    let pod = Pod::new();
    let began = tokio::time::Instant::now();
    let mut half = request("voice", "", Some("s"));
    let beginning = futures_util::stream::iter([Ok::<_, std::convert::Infallible>("CallSid=CA01")]);
    *half.body_mut() = Body::from_stream(beginning.chain(futures_util::stream::pending()));
    let response = router(pod.state.clone()).oneshot(half).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["connection"]),
        (408, &"close".parse().unwrap())
    );
    assert_eq!(began.elapsed().as_secs(), 5);
    assert_eq!(pod.state.metrics.webhooks_refused.count(WebhookRefusal::BodyTimeout), 1);
}

#[tokio::test]
async fn another_agent_s_path_is_not_found_and_other_methods_are_not_allowed() {
    let pod = Pod::new();
    let mut elsewhere = request("voice", "", None);
    *elsewhere.uri_mut() = "/moving/support/twilio/voice".parse().unwrap();
    assert_eq!(pod.send(elsewhere).await.status, 404);
    assert_eq!(pod.state.metrics.webhooks_refused.count(WebhookRefusal::UnknownAgent), 1);
    let mut get = request("voice", "", None);
    *get.method_mut() = Method::GET;
    assert_eq!(pod.send(get).await.status, 405);
}

#[tokio::test]
async fn a_suspended_agent_says_so_in_its_language_or_in_english() {
    let pod = Pod::new().configured(|agent| agent.suspended = true);
    let words = "Dieser Anschluss ist zurzeit nicht in Betrieb. Bitte rufen Sie später noch einmal an.";
    assert_eq!(pod.announce().await, twiml(&format!(r#"<Say language="de-DE">{words}</Say><Hangup />"#)));
    assert_eq!(pod.state.metrics.calls_refused.count(CallRefusal::Suspended), 1);
    assert_eq!(pod.slots().await, Slots::default());
    let other = pod.configured(|agent| agent.persona.language = "ja-JP".to_owned());
    let words = "This line is not in service at the moment. Please call again later.";
    assert_eq!(other.announce().await, twiml(&format!(r#"<Say language="en-US">{words}</Say><Hangup />"#)));
}

#[tokio::test]
async fn a_full_agent_says_the_overflow_message_in_its_language() {
    let pod = Pod::new().configured(|agent| agent.limits.max_concurrent_calls = Some(1));
    pod.announce().await;
    let overflow =
        twiml(r#"<Say language="de-DE">Alle Leitungen sind belegt &amp; besetzt.</Say><Hangup />"#);
    let other = "CA0123456789abcdef0123456789abcde1";
    assert_eq!(pod.post("voice", &announcement(other)).await, overflow);
    assert_eq!(pod.state.metrics.calls_refused.count(CallRefusal::Concurrency), 1);
    // The reservation of a call whose stream never came expires with its token.
    pod.advance(Duration::from_secs(60));
    assert_ne!(pod.post("voice", &announcement(other)).await, overflow);
}

#[tokio::test]
async fn a_caller_who_calls_too_often_is_refused_but_not_one_who_withholds_the_number() {
    let pod = Pod::new().configured(|agent| agent.limits.max_calls_per_caller_per_hour = Some(1));
    let announce = async |last: u32, from: &str| {
        let sid = format!("CA{last:032x}");
        let mut form = announcement(&sid).to_vec();
        form[2].1 = from;
        pod.post("voice", &form).await.body.contains("<Stream")
    };
    assert!(announce(1, "+15550000001").await);
    assert!(!announce(2, "+15550000001").await);
    assert!(announce(3, "anonymous").await);
    assert!(announce(4, "anonymous").await);
    assert_eq!(pod.state.metrics.calls_refused.count(CallRefusal::CallerRate), 1);
}

#[tokio::test]
async fn a_number_s_call_goes_to_the_agent_its_hash_chooses_and_stays_there() {
    let route = |agent: &str| {
        let routes = vec![Route { agent: agent.to_owned(), weight: 1 }];
        vec![NumberRoutes { number: Redacted::new("+15550000002".to_owned()), routes }]
    };
    let pod = Pod::new().configured(|agent| agent.numbers = route("canary"));
    let answer = pod.announce().await;
    assert!(answer.body.contains(r#"<Stream url="wss://voice.example.com/moving/canary/twilio/stream">"#));
    assert!(
        answer.body.contains(
            r#"action="https://voice.example.com/moving/canary/twilio/action/0?origin=1790000000000#rc=5&amp;rp=5xx,ct,rt""#
        )
    );
    let pod = pod.configured(|agent| agent.numbers = route("sales"));
    assert!(pod.announce().await.body.contains("/moving/canary/twilio/stream"));
    let canary = AgentKey { name: "canary".to_owned(), ..sales() };
    assert_eq!(
        pod.state.store.count_slots(&canary, pod.now()).await.unwrap(),
        Slots { reserved: 1, waiting: 0, active: 0 }
    );
    // The number's status callback arrives here, and frees the slot there.
    assert_eq!(pod.post("status", &with_status("completed")).await.status, 204);
    assert_eq!(pod.state.store.count_slots(&canary, pod.now()).await.unwrap(), Slots::default());
}

#[tokio::test]
async fn a_caller_who_hung_up_gets_an_empty_answer_whichever_request_says_so() {
    let pod = Pod::new();
    pod.announce().await;
    pod.attach(0).await;
    assert_eq!(pod.post("action/0", &with_status("completed")).await, twiml(""));
    assert_eq!(pod.slots().await, Slots::default());
    assert_eq!(pod.action(0).await, twiml(""));
    assert_eq!(pod.announce().await, twiml(""));
    assert_eq!(pod.state().await.unwrap().ended, Some(UnixMs(NOW)));
}

#[tokio::test]
async fn a_final_status_frees_the_slot_and_ends_the_call_once() {
    let pod = Pod::new().configured(|agent| agent.limits.max_minutes_per_day = Some(1));
    pod.announce().await;
    assert_eq!(
        pod.post("status", &with_status("in-progress")).await,
        Answer { status: 204, body: String::new() }
    );
    assert_eq!(pod.slots().await, Slots { reserved: 1, waiting: 0, active: 0 });
    pod.attach(0).await;
    let mut form = with_status("completed");
    form.push(("CallDuration", "30"));
    for _ in 0..3 {
        assert_eq!(pod.post("status", &form).await, Answer { status: 204, body: String::new() });
    }
    assert_eq!(pod.slots().await, Slots::default());
    assert_eq!(pod.state().await.unwrap().ended, Some(UnixMs(NOW)));
    // 30 s of the minute are used, however often it was said.
    assert!(
        pod.post("voice", &announcement("CA0123456789abcdef0123456789abcde1")).await.body.contains("<Stream")
    );
}

#[tokio::test]
async fn a_status_that_overtakes_the_announcement_is_remembered() {
    let pod = Pod::new();
    assert_eq!(pod.post("status", &with_status("no-answer")).await.status, 204);
    assert_eq!(pod.announce().await, twiml(""));
    assert_eq!(pod.slots().await, Slots::default());
}

#[tokio::test]
async fn a_keyring_that_cannot_be_used_is_our_fault() {
    let pod = Pod::new();
    pod.keyring.send_replace(Arc::new(keyring("k8", &[("k7", 7)])));
    let answer = pod.announce().await;
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains(r#""type":"keyring""#));
}

/// Everything a subscriber at `trace` would print.
#[derive(Clone, Default)]
struct Log(Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Goes through everything the webhooks may log about.
async fn go_through_everything() {
    for pod in [Pod::new(), Pod::without_store()] {
        pod.directory.write("twilio", "next", "a-secret-word");
        assert!(pod.announce().await.body.contains("<Stream"));
        for epoch in 0..3 {
            pod.action(epoch).await;
        }
        pod.end_leg_if_known(Next::Transfer { target: "gone".to_owned() }).await;
        pod.action(3).await;
        pod.post("status", &with_status("completed")).await;
        pod.keyring.send_replace(Arc::new(keyring("k8", &[("k7", 7)])));
        pod.post("voice", &announcement("CA0123456789abcdef0123456789abcde1")).await;
        pod.directory.write("twilio", "token", "");
        pod.announce().await;
    }
}

#[tokio::test]
async fn no_number_token_or_secret_reaches_the_log_even_at_trace() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    // While there is one subscriber, a place first passed by a test of another thread is taken for disabled; with two,
    // both are asked, whoever passes. And what was passed before there was any is looked at again.
    let second = tracing::Dispatch::new(tracing_subscriber::registry());
    go_through_everything().await;
    let guard = tracing::subscriber::set_default(subscriber);
    tracing::callsite::rebuild_interest_cache();
    go_through_everything().await;
    drop((guard, second));
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let expected = [
        "the store failed a webhook",
        "an auth token cannot be read",
        "the call is given up",
        "a transfer target is no longer configured",
        "the keyring cannot be used",
    ];
    for message in expected {
        assert!(text.contains(message), "{message}: {text}");
    }
    for personal in ["5550000001", "5550000002", "Zoë", "a-secret-word", "v1.k7."] {
        assert!(!text.contains(personal), "{personal}: {text}");
    }
}
