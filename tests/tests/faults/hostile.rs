//! A peer that has a valid signature and, if it likes, a valid token, and keeps to nothing else.

use anyhow::{Context as _, Result, ensure};
use futures_util::{SinkExt as _, StreamExt as _};
use reqwest::Client;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};
use twilio::Secret;
use twilio::signature::{SIGNATURE_HEADER, sign};

use crate::pod::Pod;
use crate::stage::{ACCOUNT, AUTH_TOKEN, NUMBER, PATIENCE, PUBLIC_URL};

const BASE: &str = "/moving/sales/twilio";

/// A media stream's other end.
pub(crate) struct Peer {
    socket: WebSocketStream<TcpStream>,
    stream: String,
    call: String,
}

impl Peer {
    /// A stream that was upgraded and says nothing yet; the status of a refusal.
    pub(crate) async fn upgrade(pod: &Pod, number: u32) -> Result<Result<Self, u16>> {
        let (call, stream) = (format!("CA{number:032x}"), format!("MZ{number:032x}"));
        let mut request = format!("ws://{}{BASE}/stream", pod.public()).into_client_request()?;
        let signed = format!("{}{BASE}/stream", PUBLIC_URL.replace("https", "wss"));
        request.headers_mut().insert(SIGNATURE_HEADER, sign(&secret(), &signed, &[]).parse()?);
        let tcp = TcpStream::connect(pod.public()).await?;
        match tokio_tungstenite::client_async(request, tcp).await {
            Ok((socket, _)) => Ok(Ok(Self { socket, stream, call })),
            Err(Error::Http(response)) => Ok(Err(response.status().as_u16())),
            Err(error) => Err(error.into()),
        }
    }

    /// An upgrade without a signature, which is refused.
    pub(crate) async fn unsigned(pod: &Pod) -> Result<()> {
        let request = format!("ws://{}{BASE}/stream", pod.public()).into_client_request()?;
        let tcp = TcpStream::connect(pod.public()).await?;
        let upgraded = tokio_tungstenite::client_async(request, tcp).await;
        ensure!(matches!(upgraded, Err(Error::Http(_))), "an unsigned stream was not refused: {upgraded:?}");
        Ok(())
    }

    /// A call, announced and begun as the carrier does.
    pub(crate) async fn call(pod: &Pod, number: u32) -> Result<Self> {
        let mut peer =
            Self::upgrade(pod, number).await?.map_err(|status| anyhow::anyhow!("refused: {status}"))?;
        let token = announce(pod, &peer.call).await?;
        peer.send(&json!({"event": "connected", "protocol": "Call", "version": "1.0.0"})).await?;
        let start = json!({"accountSid": ACCOUNT, "streamSid": peer.stream, "callSid": peer.call, "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": {"token": token}});
        let stream = peer.stream.clone();
        peer.send(&json!({"event": "start", "sequenceNumber": "1", "start": start, "streamSid": stream}))
            .await?;
        Ok(peer)
    }

    pub(crate) fn sid(&self) -> &str {
        &self.call
    }

    pub(crate) async fn send(&mut self, message: &Value) -> Result<()> {
        self.send_text(message.to_string()).await
    }

    pub(crate) async fn send_text(&mut self, text: String) -> Result<()> {
        Ok(self.socket.send(Message::text(text)).await?)
    }

    /// Hands messages to the socket together.
    pub(crate) async fn flood(&mut self, messages: impl IntoIterator<Item = Message>) -> Result<()> {
        for message in messages {
            self.socket.feed(message).await?;
        }
        Ok(self.socket.flush().await?)
    }

    /// Audio of the caller: this base64 in one message.
    pub(crate) fn media(&self, payload: &str) -> Message {
        let media = json!({"track": "inbound", "chunk": "1", "timestamp": "20", "payload": payload});
        let message =
            json!({"event": "media", "sequenceNumber": "2", "media": media, "streamSid": self.stream});
        Message::text(message.to_string())
    }

    /// Waits for the first sound of the agent.
    pub(crate) async fn hear(&mut self) -> Result<()> {
        loop {
            let next = timeout(PATIENCE, self.socket.next()).await?;
            if let Message::Text(text) = next.context("closed before a sound")??
                && text.contains("\"media\"")
            {
                return Ok(());
            }
        }
    }

    /// The caller hangs up; waits for the socket's end.
    pub(crate) async fn stop(mut self) -> Result<()> {
        let stop = json!({"accountSid": ACCOUNT, "callSid": self.call});
        let message = json!({"event": "stop", "sequenceNumber": "9", "stop": stop, "streamSid": self.stream});
        self.send(&message).await?;
        self.until_closed().await
    }

    /// Reads until the socket is closed or cut.
    pub(crate) async fn until_closed(&mut self) -> Result<()> {
        let over = async { while let Some(Ok(_)) = self.socket.next().await {} };
        Ok(timeout(PATIENCE, over).await?)
    }
}

/// Announces a call; the token of its stream.
async fn announce(pod: &Pod, call: &str) -> Result<String> {
    let form = [
        ("CallSid", call),
        ("AccountSid", ACCOUNT),
        ("From", "+15550001111"),
        ("To", NUMBER),
        ("CallStatus", "ringing"),
        ("Direction", "inbound"),
        ("ApiVersion", "2010-04-01"),
    ];
    let form: Vec<(String, String)> =
        form.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let signature = sign(&secret(), &format!("{PUBLIC_URL}{BASE}/voice"), &form);
    let request = Client::builder().no_proxy().build()?.post(format!("http://{}{BASE}/voice", pod.public()));
    let answer = request.header(SIGNATURE_HEADER, signature).form(&form).send().await?.error_for_status()?;
    let twiml = answer.text().await?;
    let token = twiml.split_once("name=\"token\" value=\"").and_then(|(_, after)| after.split('"').next());
    ensure!(twiml.contains("<Stream"), "no stream: {twiml}");
    Ok(token.with_context(|| twiml.clone())?.to_owned())
}

fn secret() -> Secret {
    Secret::new(AUTH_TOKEN)
}
