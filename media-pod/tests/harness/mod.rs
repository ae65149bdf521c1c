//! A real pod on loopback, a carrier that signs, and a phone that speaks Media Streams.

#![allow(dead_code, unreachable_pub)] // each test binary uses its part

pub mod redis;

use std::path::PathBuf;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use media_pod::config::Config;
use media_pod::pod::{Doors, Running};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};
use twilio::Secret;

pub const ACCOUNT: &str = "AC00000000000000000000000000000001";
pub const AUTH_TOKEN: &str = "carrier-auth-token";
pub const API_TOKEN: &str = "api-token-of-the-test";
pub const PUBLIC_URL: &str = "https://voice.example.com";
pub const CALLER: &str = "+15551234567";
pub const CALLED: &str = "+15557654321";
pub const GREETING: &str = "Welcome to the moving company, how may I help you today?";
pub const VOICE_PATH: &str = "/moving/sales/twilio/voice";
pub const STREAM_PATH: &str = "/moving/sales/twilio/stream";

/// 32 bytes.
const STREAM_KEY: &str = "MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI=";

/// How long anything may take before the test gives up; nothing is expected to take a tenth of it.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// How often something is looked at that tells nobody when it changes.
const LOOK: Duration = Duration::from_millis(20);

/// Waits until a look finds what is wanted; until then it says what it found instead.
pub async fn until<T>(mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
    let mut found = "nothing".to_owned();
    let finding = async {
        loop {
            match look().await {
                Ok(wanted) => return wanted,
                Err(instead) => found = instead,
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    match tokio::time::timeout(DEADLINE, finding).await {
        Ok(wanted) => wanted,
        Err(_) => panic!("waited in vain: {found}"),
    }
}

/// The agent of every test; the engine and further fields are appended.
pub const SIMULATED: &str =
    "engines: [{name: main, type: Simulated, simulated: {replies: [One moment please.]}}]\n";

pub struct Pod {
    running: Option<Running>,
    pub doors: Doors,
    directory: PathBuf,
}

impl Pod {
    /// A pod of an agent with these further lines of YAML.
    pub async fn start(lines: &str) -> Self {
        Self::start_with(lines, |_| {}).await
    }

    /// The same, with another configuration of the process.
    pub async fn start_with(lines: &str, change: impl FnOnce(&mut Config)) -> Self {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("switchboard-pod-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        for folder in ["secrets/twilio", "secrets/api", "secrets/openai"] {
            std::fs::create_dir_all(directory.join(folder)).unwrap();
        }
        let write = |path: &str, text: &str| std::fs::write(directory.join(path), text).unwrap();
        write("secrets/twilio/token", AUTH_TOKEN);
        write("secrets/api/token", API_TOKEN);
        write("secrets/openai/key", "model-key");
        write("keyring.json", &json!({"signing": "k1", "keys": {"k1": STREAM_KEY}}).to_string());
        write("agent.yaml", &agent_file("9f2c41d0", lines));
        let mut config = Config {
            agent_file: directory.join("agent.yaml"),
            keyring_file: directory.join("keyring.json"),
            secrets_dir: directory.join("secrets"),
            public_addr: ([127, 0, 0, 1], 0).into(),
            api_addr: ([127, 0, 0, 1], 0).into(),
            admin_addr: ([127, 0, 0, 1], 0).into(),
            pod_name: "sales-media-0".to_owned(),
            drain_window: Some(Duration::ZERO),
            lame_duck: Duration::ZERO,
            extra_ca_file: None,
            log: "info".to_owned(),
            traces: None,
        };
        change(&mut config);
        let running = Running::start(config).await.unwrap();
        Self { doors: running.doors(), running: Some(running), directory }
    }

    /// Replaces the agent file, as the kubelet does after a change.
    pub fn rewrite_agent(&self, revision: &str, lines: &str) {
        std::fs::write(self.directory.join("agent.new"), agent_file(revision, lines)).unwrap();
        std::fs::rename(self.directory.join("agent.new"), self.directory.join("agent.yaml")).unwrap();
    }

    /// Replaces a secret, or takes it away.
    pub fn rewrite_secret(&self, path: &str, text: Option<&str>) {
        let path = self.directory.join("secrets").join(path);
        match text {
            Some(text) => std::fs::write(path, text).unwrap(),
            None => std::fs::remove_file(path).unwrap(),
        }
    }

    /// SIGTERM.
    pub fn leave(&mut self) -> impl Future<Output = ()> + 'static {
        self.running.take().unwrap().leave()
    }

    /// Announces a call as the carrier does; the TwiML.
    pub async fn announce(&self, call: &str) -> String {
        let (status, body) = self.webhook(VOICE_PATH, call, "ringing").await;
        assert_eq!(status, 200, "{body}");
        body
    }

    /// A signed webhook of the carrier.
    pub async fn webhook(&self, path: &str, call: &str, status: &str) -> (u16, String) {
        let form = [
            ("CallSid", call),
            ("AccountSid", ACCOUNT),
            ("From", CALLER),
            ("To", CALLED),
            ("CallStatus", status),
            ("Direction", "inbound"),
            ("ApiVersion", "2010-04-01"),
        ];
        let form: Vec<(String, String)> =
            form.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let url = format!("{PUBLIC_URL}{path}");
        let signature = twilio::signature::sign(&Secret::new(AUTH_TOKEN), &url, &form);
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(&form).finish();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: pod\r\nConnection: close\r\nX-Twilio-Signature: {signature}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        exchange(self.doors.public, &head).await
    }

    pub async fn admin(&self, path: &str) -> String {
        let head = format!("GET {path} HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n");
        exchange(self.doors.admin, &head).await.1
    }

    pub async fn api(&self, method: &str, path: &str, token: Option<&str>) -> (u16, Value) {
        let authorization =
            token.map_or_else(String::new, |token| format!("Authorization: Bearer {token}\r\n"));
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n{authorization}\r\n");
        let (status, body) = exchange(self.doors.api, &head).await;
        (status, serde_json::from_str(&body).unwrap_or_default())
    }

    /// The value of a series.
    pub async fn metric(&self, series: &str) -> u64 {
        let scrape = self.admin("/metrics").await;
        let value = scrape.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no series {series}")).parse().unwrap()
    }

    /// Waits until a series has a value.
    pub async fn until_metric(&self, series: &str, expected: u64) {
        let reached = async || {
            let value = self.metric(series).await;
            if value == expected { Ok(()) } else { Err(format!("{series} is {value}, not {expected}")) }
        };
        until(reached).await;
    }

    /// Opens the media stream; the handshake's outcome.
    pub async fn upgrade(&self, signature: &str) -> Result<WebSocketStream<TcpStream>, u16> {
        let url = format!("ws://{}{STREAM_PATH}", self.doors.public);
        let mut request = url.into_client_request().unwrap();
        request.headers_mut().insert("x-twilio-signature", signature.parse().unwrap());
        let tcp = TcpStream::connect(self.doors.public).await.unwrap();
        match tokio_tungstenite::client_async(request, tcp).await {
            Ok((socket, _)) => Ok(socket),
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(other) => panic!("{other}"),
        }
    }

    /// Opens a signed stream and says nothing.
    pub async fn silent_stream(&self, call: &str) -> Phone {
        let url = format!("wss://voice.example.com{STREAM_PATH}");
        let signature = twilio::signature::sign(&Secret::new(AUTH_TOKEN), &url, &[]);
        let socket = self.upgrade(&signature).await.unwrap();
        Phone { socket, stream: call.replacen("CA", "MZ", 1), sent_ms: 0 }
    }

    /// Opens a signed stream and sends `connected` and `start` with this token.
    pub async fn stream(&self, call: &str, token: &str) -> Phone {
        let mut phone = self.silent_stream(call).await;
        phone.send(json!({"event": "connected", "protocol": "Call", "version": "1.0.0"})).await;
        let start = json!({"accountSid": ACCOUNT, "streamSid": phone.stream, "callSid": call,
            "tracks": ["inbound"], "customParameters": {"token": token},
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}});
        let message =
            json!({"event": "start", "sequenceNumber": "1", "start": start, "streamSid": phone.stream});
        phone.send(message).await;
        phone
    }

    /// Announces a call and opens its stream.
    pub async fn dial(&self, call: &str) -> Phone {
        let token = token_of(&self.announce(call).await);
        self.stream(call, &token).await
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// The agent file of this revision, with further lines.
fn agent_file(revision: &str, lines: &str) -> String {
    format!(
        "formatVersion: 1\nrevision: {revision}\nnamespace: moving\nname: sales\npublicUrl: {PUBLIC_URL}\n\
             carrier: {{type: Twilio, twilio: {{accountSid: {ACCOUNT}, authTokens: [{{name: twilio, key: token}}]}}}}\n\
             persona: {{instructions: Be kind., greeting: {{text: '{GREETING}'}}}}\n\
             apiToken: {{name: api, key: token}}\n{lines}"
    )
}

/// The token in a TwiML answer.
pub fn token_of(twiml: &str) -> String {
    let (_, after) = twiml.split_once("name=\"token\" value=\"").unwrap_or_else(|| panic!("{twiml}"));
    after.split('"').next().unwrap().to_owned()
}

/// A token for a call that nobody announced.
pub fn minted_token(call: &str) -> String {
    let keys = [("k1".to_owned(), call_session::Redacted::new(STREAM_KEY.to_owned()))].into();
    let keyring = call_session::agent_file::Keyring { signing: "k1".to_owned(), keys };
    let now = media_pod::clock::system()();
    let claims = media_pod::token::Claims {
        account: ACCOUNT.parse().unwrap(),
        call: call.parse().unwrap(),
        namespace: "moving".to_owned(),
        agent: "sales".to_owned(),
        epoch: call_session::Epoch(0),
        expires: now.plus(media_pod::token::LIFETIME).seconds(),
        origin: now,
        is_untaken: false,
    };
    media_pod::token::StreamKeys::new(&keyring).unwrap().mint(&claims)
}

pub fn call_sid(number: u32) -> String {
    format!("CA{number:032x}")
}

/// One request, one answer: status and body.
async fn exchange(address: std::net::SocketAddr, request: &str) -> (u16, String) {
    let mut tcp = TcpStream::connect(address).await.unwrap();
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(DEADLINE, tcp.read_to_string(&mut answer)).await.unwrap().unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let is_chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    assert!(!is_chunked, "the tests' client reads whole bodies only");
    (status, body.to_owned())
}

/// The carrier's side of a media stream.
pub struct Phone {
    socket: WebSocketStream<TcpStream>,
    stream: String,
    sent_ms: u64,
}

/// What the pod sent.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    /// Audio of this many milliseconds.
    Audio(u64),
    Mark(String),
    Clear,
    /// The socket was closed with this code.
    Closed(Option<u16>),
}

impl Phone {
    pub async fn send(&mut self, message: Value) {
        self.send_text(&message.to_string()).await;
    }

    pub async fn send_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.unwrap();
    }

    /// Audio of the caller, in frames of 20 ms.
    pub async fn say(&mut self, mulaw: &[u8]) {
        for frame in mulaw.chunks(160) {
            let payload = call_session::audio::Payload::from_mulaw(frame);
            let media = json!({"track": "inbound", "chunk": "1", "timestamp": self.sent_ms.to_string(),
                "payload": payload.as_str()});
            let message =
                json!({"event": "media", "sequenceNumber": "2", "media": media, "streamSid": self.stream});
            self.sent_ms += 20;
            self.send(message).await;
        }
    }

    /// Speaks for `ms`.
    pub async fn speak(&mut self, ms: usize) {
        let sample = |n: usize| ((n as f32 * 0.4).sin() * 6000.0) as i16;
        let audio: Vec<u8> = (0..ms * 8).map(|n| call_session::audio::encode(sample(n))).collect();
        self.say(&audio).await;
    }

    /// Is quiet for `ms`.
    pub async fn pause(&mut self, ms: usize) {
        self.say(&vec![call_session::audio::SILENCE; ms * 8]).await;
    }

    pub async fn mark(&mut self, name: &str) {
        self.send(
            json!({"event": "mark", "sequenceNumber": "3", "streamSid": self.stream, "mark": {"name": name}}),
        )
        .await;
    }

    pub async fn stop(&mut self) {
        let stop = json!({"accountSid": ACCOUNT, "callSid": self.stream.replacen("MZ", "CA", 1)});
        self.send(json!({"event": "stop", "sequenceNumber": "9", "stop": stop, "streamSid": self.stream}))
            .await;
    }

    /// The next thing the pod sends.
    pub async fn hear(&mut self) -> Heard {
        loop {
            let message =
                tokio::time::timeout(DEADLINE, self.socket.next()).await.expect("nothing was heard");
            match message {
                Some(Ok(Message::Text(text))) => {
                    let message: Value = serde_json::from_str(&text).unwrap();
                    assert_eq!(message["streamSid"], self.stream.as_str(), "{message}");
                    return match message["event"].as_str().unwrap() {
                        "media" => {
                            let base64 = message["media"]["payload"].as_str().unwrap().to_owned();
                            let payload = call_session::audio::Payload::from_base64(base64.into()).unwrap();
                            Heard::Audio(payload.duration().0)
                        }
                        "mark" => Heard::Mark(message["mark"]["name"].as_str().unwrap().to_owned()),
                        "clear" => Heard::Clear,
                        other => panic!("unknown event {other}"),
                    };
                }
                Some(Ok(Message::Close(frame))) => {
                    return Heard::Closed(frame.map(|frame| frame.code.into()));
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Heard::Closed(None),
            }
        }
    }

    /// Hears until `wanted` comes; everything that came before.
    pub async fn until(&mut self, wanted: impl Fn(&Heard) -> bool) -> Vec<Heard> {
        let mut heard = Vec::new();
        loop {
            let next = self.hear().await;
            let is_wanted = wanted(&next);
            assert!(is_wanted || !matches!(next, Heard::Closed(_)), "closed after {heard:?}: {next:?}");
            heard.push(next);
            if is_wanted {
                return heard;
            }
        }
    }

    /// Plays at least `ms` of audio, returning its marks at once.
    pub async fn listen(&mut self, ms: u64) {
        let mut played = 0;
        while played < ms {
            match self.hear().await {
                Heard::Audio(ms) => played += ms,
                Heard::Mark(name) => self.mark(&name).await,
                other => panic!("{other:?} after {played} ms"),
            }
        }
    }

    /// Plays what comes, returning its marks at once, until the agent has said so many things in this call, as its pod
    /// knows it: what was said last is then played to its end. Returns how much was played.
    pub async fn listen_until_said(&mut self, pod: &Pod, lines: usize) -> u64 {
        let call = format!("/v1/calls/{}", self.stream.replacen("MZ", "CA", 1));
        let mut milliseconds = 0;
        let said = async || {
            let (_, shown) = pod.api("GET", &call, Some(API_TOKEN)).await;
            let transcript = shown["transcript"].as_array().map(Vec::as_slice).unwrap_or_default();
            let count = transcript.iter().filter(|line| line["speaker"] == "agent").count();
            if count >= lines { Ok(()) } else { Err(format!("{count} of {lines} lines: {shown}")) }
        };
        let mut said = std::pin::pin!(until(said));
        loop {
            tokio::select! {
                () = &mut said => return milliseconds,
                heard = self.hear() => match heard {
                    Heard::Audio(ms) => milliseconds += ms,
                    Heard::Mark(name) => self.mark(&name).await,
                    Heard::Clear => {}
                    Heard::Closed(code) => panic!("closed with {code:?}"),
                },
            }
        }
    }
}
