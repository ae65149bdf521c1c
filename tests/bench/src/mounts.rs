//! What a media pod finds on its disk, as the kubelet would mount it: agent file, keyring, secrets. And its log.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::{Value, json};
use simulator::carrier::Account;
use tempfile::TempDir;

/// The agent's base URL as the carrier knows it; it never leaves the machine.
pub(crate) const PUBLIC_URL: &str = "https://voice.example.com";
/// Where its webhooks are below that.
pub(crate) const AGENT_PATH: &str = "/bench/agent/twilio";
/// The model's key; the lean model takes any.
const MODEL_KEY: &str = "simulated-model-key";
/// More than any run places at once: capacity is not what is measured.
const MOST_CALLS: u32 = 10_000;

/// What differs between the runs' agents.
pub(crate) struct Agent {
    /// Where the model answers.
    pub(crate) model: SocketAddr,
    /// The certificate to trust, for a model behind TLS.
    pub(crate) authority_pem: Option<String>,
    /// `warmSessionsPerPod`.
    pub(crate) warm_sessions: u32,
    /// URL of the Redis that keeps the calls' state; in the process when absent.
    pub(crate) redis_url: Option<String>,
}

/// The directory; gone when dropped.
pub(crate) struct Mounts(TempDir);

impl Mounts {
    pub(crate) fn create(agent: &Agent) -> anyhow::Result<Self> {
        let mounts = Self(tempfile::Builder::new().prefix("switchboard-bench-").tempdir()?);
        let account = Account::demo();
        mounts.write("agent.json", &agent.file(&account).to_string())?;
        // 32 bytes in base64; the run is over before a key could be worth anything.
        let keys = json!({"bench": "YSBiZW5jaG1hcmssIGxvb3BiYWNrIG9ubHksIDMyIGI="});
        mounts.write("keyring.json", &json!({"signing": "bench", "keys": keys}).to_string())?;
        mounts.write("secrets/twilio/authToken", &account.auth_token)?;
        mounts.write("secrets/model/apiKey", MODEL_KEY)?;
        if let Some(url) = &agent.redis_url {
            mounts.write("secrets/redis/url", url)?;
        }
        if let Some(pem) = &agent.authority_pem {
            mounts.write("authority.pem", pem)?;
        }
        Ok(mounts)
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.0.path().join(below)
    }

    fn write(&self, below: &str, content: &str) -> anyhow::Result<()> {
        let path = self.path(below);
        std::fs::create_dir_all(path.parent().unwrap_or_else(|| Path::new("/")))?;
        std::fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))
    }
}

impl Agent {
    fn file(&self, account: &Account) -> Value {
        let scheme = if self.authority_pem.is_some() { "wss" } else { "ws" };
        json!({
            "formatVersion": 1,
            "namespace": "bench",
            "name": "agent",
            "publicUrl": PUBLIC_URL,
            "carrier": {"type": "Twilio", "twilio": {
                "accountSid": account.sid,
                "authTokens": [{"name": "twilio", "key": "authToken"}],
            }},
            "persona": {
                "instructions": "You are the AI assistant of a moving company. Speak briefly and kindly.",
                "greeting": {"text": "Hello, how can I help you today?"},
            },
            "engines": [{"name": "primary", "type": "Realtime", "realtime": {
                "url": format!("{scheme}://{}/v1/realtime", self.model),
                "model": "gpt-realtime-2.1",
                "voice": "marin",
                "apiKey": {"name": "model", "key": "apiKey"},
                "warmSessionsPerPod": self.warm_sessions,
            }}],
            "maxCallsPerPod": MOST_CALLS,
            // A run may be longer than the half hour after which a call ends by default.
            "limits": {"maxCallSeconds": 7200},
            "store": match self.redis_url {
                Some(_) => json!({"type": "Redis", "redis": {"url": {"name": "redis", "key": "url"}}}),
                None => json!({"type": "Memory"}),
            },
        })
    }
}
