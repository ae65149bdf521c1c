//! A naive product: a few lines of webhook and relay, obedient or with one fault.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use simulator::carrier::record::Record;
use simulator::carrier::signature::sign;
use simulator::carrier::{Account, Carrier, Number, Settings};
use simulator::violations::Violations;
use simulator::voice::{Registry, Speaker, Voice, mulaw};
use tokio::net::TcpSocket;

pub(crate) const NUMBER: &str = "+15551230001";
pub(crate) const PUBLIC: &str = "https://voice.test";

/// How the product behaves.
#[derive(Clone)]
pub(crate) struct Script {
    /// What the voice webhook answers; `{connect}` is the obedient `<Connect>`.
    pub(crate) voice: &'static str,
    pub(crate) content_type: &'static str,
    pub(crate) status: u16,
    /// What the action answers.
    pub(crate) action: &'static str,
    /// Sent on `start`, `{sid}` filled in, before the product speaks.
    pub(crate) first_messages: Vec<String>,
    pub(crate) sends_binary: bool,
    pub(crate) status_reply: &'static str,
    pub(crate) refuses_stream: bool,
    /// Read nothing of the stream after `start`.
    pub(crate) stops_reading: bool,
    /// Close the stream when the caller has spoken and fallen silent.
    pub(crate) closes_after_caller: bool,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            voice: "{connect}",
            content_type: "text/xml",
            status: 200,
            action: "<Hangup/>",
            first_messages: Vec::new(),
            sends_binary: false,
            status_reply: "",
            refuses_stream: false,
            stops_reading: false,
            closes_after_caller: false,
        }
    }
}

/// What the product saw.
#[derive(Default)]
pub(crate) struct Seen {
    /// Path and form of each request.
    pub(crate) requests: Vec<(String, Vec<(String, String)>)>,
    /// Every text message of the stream.
    pub(crate) messages: Vec<Value>,
    pub(crate) wrong_signatures: u32,
    /// Idempotency token of each request.
    pub(crate) tokens: Vec<String>,
    /// Whether the stream's socket ended without a close frame.
    pub(crate) is_cut: bool,
}

#[derive(Clone)]
pub(crate) struct Product {
    script: Script,
    auth_token: String,
    pub(crate) seen: Arc<Mutex<Seen>>,
}

const CONNECT: &str = r#"<Connect action="/action"><Stream url="wss://voice.test/stream"><Parameter name="token" value="abc"/></Stream></Connect>"#;

/// A carrier whose number points at a product with this script.
pub(crate) async fn start(script: Script) -> (Carrier, Product) {
    start_with(script, |_| {}).await
}

pub(crate) async fn start_with(script: Script, change: impl FnOnce(&mut Settings)) -> (Carrier, Product) {
    let account = Account::demo();
    let product = Product { script, auth_token: account.auth_token.clone(), seen: Arc::default() };
    let listener = TcpSocket::new_v4().unwrap();
    listener.set_recv_buffer_size(8 * 1024).unwrap(); // so that not reading is noticed soon
    listener.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = listener.listen(64).unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new()
        .route("/voice", post(voice))
        .route("/action", post(action))
        .route("/never", post(async || std::future::pending::<()>().await))
        .route("/round", post(async || axum::response::Redirect::temporary("/round")))
        .route("/status", post(status))
        .route("/stream", get(stream))
        .with_state(product.clone());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let mut settings = Settings::new(account);
    let mut number = Number::new("PN00000000000000000000000000000001", NUMBER);
    let fields = [("voiceUrl", "voice"), ("statusCallback", "status")];
    let fields = fields.map(|(name, path)| (name.to_owned(), format!("{PUBLIC}/{path}")));
    number.set_fields(&fields.into()).unwrap();
    settings.numbers.push(number);
    settings.edges.push(format!("{PUBLIC}=http://{address}").parse().unwrap());
    change(&mut settings);
    (Carrier::new(settings, Registry::default(), Violations::default()).unwrap(), product)
}

impl Product {
    /// Notes a request and checks its signature.
    fn note(&self, uri: &Uri, headers: &HeaderMap, body: &str) {
        let url = reqwest::Url::parse(&format!("http://form.invalid/?{body}")).unwrap();
        let form: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        let expected = sign(&self.auth_token, &format!("{PUBLIC}{uri}"), &form);
        let mut seen = self.seen.lock().unwrap();
        if headers["x-twilio-signature"] != expected || headers["host"] != "voice.test" {
            seen.wrong_signatures += 1;
        }
        seen.tokens.push(headers["i-twilio-idempotency-token"].to_str().unwrap().to_owned());
        seen.requests.push((uri.path().to_owned(), form));
    }

    pub(crate) fn paths(&self) -> Vec<String> {
        self.seen.lock().unwrap().requests.iter().map(|(path, _)| path.clone()).collect()
    }

    /// A parameter of the last request to a path.
    pub(crate) fn parameter(&self, path: &str, name: &str) -> Option<String> {
        let seen = self.seen.lock().unwrap();
        let (_, form) = seen.requests.iter().rev().find(|(seen, _)| seen == path)?;
        form.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }
}

async fn voice(State(product): State<Product>, uri: Uri, headers: HeaderMap, body: String) -> Response {
    product.note(&uri, &headers, &body);
    let text = product.script.voice;
    let text = if text.starts_with('{') || text.starts_with('<') {
        format!("<Response>{}</Response>", text.replace("{connect}", CONNECT))
    } else {
        text.to_owned()
    };
    let status = StatusCode::from_u16(product.script.status).unwrap();
    (status, [("content-type", product.script.content_type)], text).into_response()
}

async fn action(State(product): State<Product>, uri: Uri, headers: HeaderMap, body: String) -> Response {
    product.note(&uri, &headers, &body);
    let text = format!("<Response>{}</Response>", product.script.action);
    ([("content-type", "application/xml; charset=utf-8")], text).into_response()
}

async fn status(State(product): State<Product>, uri: Uri, headers: HeaderMap, body: String) -> &'static str {
    product.note(&uri, &headers, &body);
    product.script.status_reply
}

async fn stream(State(product): State<Product>, headers: HeaderMap, upgrade: WebSocketUpgrade) -> Response {
    let expected = sign(&product.auth_token, "wss://voice.test/stream", &[]);
    if headers["x-twilio-signature"] != expected || product.script.refuses_stream {
        return StatusCode::FORBIDDEN.into_response();
    }
    upgrade.on_upgrade(move |socket| relay(product, socket))
}

/// Says a sentence with a mark behind it; clears when the caller speaks.
async fn relay(product: Product, mut socket: WebSocket) {
    let agent = Voice::new(Speaker::Agent)
        .render("Hello, this is a rather long sentence to be interrupted.")
        .unwrap();
    let (mut is_speaking, mut has_heard, mut silent_frames) = (false, false, 0);
    loop {
        let message = match socket.recv().await {
            Some(Ok(message)) => message,
            Some(Err(_)) => {
                product.seen.lock().unwrap().is_cut = true;
                return;
            }
            None => return,
        };
        let Message::Text(text) = message else { continue };
        let value: Value = serde_json::from_str(&text).unwrap();
        product.seen.lock().unwrap().messages.push(value.clone());
        let sid = value["streamSid"].clone();
        let mut replies = Vec::new();
        match value["event"].as_str().unwrap() {
            "start" if product.script.stops_reading => return std::future::pending().await,
            "start" => {
                let sid = sid.as_str().unwrap();
                replies.extend(product.script.first_messages.iter().map(|text| text.replace("{sid}", sid)));
                if product.script.sends_binary {
                    socket.send(Message::Binary("x".into())).await.unwrap();
                }
                let payload = STANDARD.encode(&agent.mulaw);
                replies.push(
                    json!({"event": "media", "streamSid": sid, "media": {"payload": payload}}).to_string(),
                );
                replies.push(json!({"event": "mark", "streamSid": sid, "mark": {"name": "end"}}).to_string());
                is_speaking = true;
            }
            "mark" => is_speaking = false,
            "media" => {
                let audio = STANDARD.decode(value["media"]["payload"].as_str().unwrap()).unwrap();
                let is_voiced = mulaw::energy(&audio) > 250;
                has_heard |= is_voiced;
                silent_frames = if is_voiced { 0 } else { silent_frames + 1 };
                if is_voiced && is_speaking {
                    replies.push(json!({"event": "clear", "streamSid": sid}).to_string());
                    is_speaking = false;
                }
                if product.script.closes_after_caller && has_heard && silent_frames > 50 {
                    let _ = socket.send(Message::Close(None)).await;
                    return;
                }
            }
            _ => {}
        }
        for reply in replies {
            if socket.send(Message::Text(reply.into())).await.is_err() {
                return;
            }
        }
    }
}

/// Names of a call's events, in order.
pub(crate) fn events(record: &Record) -> Vec<String> {
    let timeline = serde_json::to_value(record.view().timeline).unwrap();
    timeline.as_array().unwrap().iter().map(|event| event["event"].as_str().unwrap().to_owned()).collect()
}
