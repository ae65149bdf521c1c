//! The agent file of a local run: the demo's, or the user's own with everything outside of this machine replaced.
//!
//! The document's shape is the one of `docs/design.md`; it is handled as plain JSON, so that fields of newer versions pass
//! through untouched.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use simulator::scenario::Scenario;

use crate::cli::real_model::Endpoint;

/// An agent ready to be mounted.
#[derive(Debug)]
pub(in crate::cli) struct LocalAgent {
    pub(in crate::cli) namespace: String,
    pub(in crate::cli) name: String,
    pub(in crate::cli) public_url: String,
    /// The document.
    pub(in crate::cli) file: Value,
    /// `keyring.json`.
    pub(in crate::cli) keyring: Value,
    /// Contents by `<name>/<key>`.
    pub(in crate::cli) secrets: BTreeMap<String, String>,
    /// Bearer token of the pod's API.
    pub(in crate::cli) api_token: String,
    /// Certificates the pod trusts besides the public ones.
    pub(in crate::cli) ca_file: Option<PathBuf>,
}

impl LocalAgent {
    pub(in crate::cli) fn new(
        own: Option<Value>,
        scenario: &Scenario,
        carrier_url: &str,
        model: &Endpoint,
    ) -> anyhow::Result<Self> {
        let mut file = own.unwrap_or_else(demo);
        let mut secrets = BTreeMap::new();
        let mut keep = |reference: &Value, content: &str| -> anyhow::Result<()> {
            let part = |name: &str| reference[name].as_str().filter(|part| is_file_name(part));
            let (Some(name), Some(key)) = (part("name"), part("key")) else {
                bail!("a secret of the agent file needs a name and a key");
            };
            secrets.insert(format!("{name}/{key}"), content.to_owned());
            Ok(())
        };
        let carrier = &mut file["carrier"]["twilio"];
        carrier["accountSid"] = json!(scenario.account.sid);
        carrier["apiBaseUrl"] = json!(carrier_url);
        if carrier["authTokens"].as_array().is_none_or(Vec::is_empty) {
            carrier["authTokens"] = json!([{"name": "twilio", "key": "authToken"}]);
        }
        for token in carrier["authTokens"].as_array().into_iter().flatten() {
            keep(token, &scenario.account.auth_token)?;
        }
        for engine in file["engines"].as_array_mut().into_iter().flatten() {
            if let Some(realtime) = engine.get_mut("realtime").filter(|realtime| realtime.is_object()) {
                realtime["url"] = json!(model.url);
                keep(&realtime["apiKey"], &model.key)?;
            }
        }
        if !file["apiToken"].is_object() {
            file["apiToken"] = json!({"name": "api", "key": "token"});
        }
        let api_token = "local-api-token".to_owned();
        keep(&file["apiToken"], &api_token)?;
        file["store"] = json!({"type": "Memory"});
        // Other agents that share a number are not on this machine.
        file["numbers"] = json!([]);
        let text = |field: &str| {
            let value = file[field].as_str().map(str::to_owned);
            value.with_context(|| format!("the agent file has no `{field}`"))
        };
        let (namespace, name, public_url) = (text("namespace")?, text("name")?, text("publicUrl")?);
        // 32 bytes in base64; the run is over before a key could be worth anything.
        let key = "bG9jYWwgcnVuLCBsb29wYmFjayBvbmx5LCAzMiBieXQ=";
        let keyring = json!({"signing": "local", "keys": {"local": key}});
        let ca_file = model.ca_file.clone();
        Ok(Self { namespace, name, public_url, file, keyring, secrets, api_token, ca_file })
    }
}

/// The user's own agent file, JSON or YAML.
pub(in crate::cli) fn read(path: &Path) -> anyhow::Result<Value> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let file: Value =
        serde_saphyr::from_str(&text).with_context(|| format!("{} is not YAML", path.display()))?;
    check(file, path)
}

/// Refuses a document of `path` that is no agent file.
pub(in crate::cli) fn check(file: Value, path: &Path) -> anyhow::Result<Value> {
    ensure!(file["carrier"]["twilio"].is_object(), "{} is not an agent file: no carrier", path.display());
    Ok(file)
}

/// Secrets become files below a directory, and never leave it.
fn is_file_name(text: &str) -> bool {
    !text.is_empty() && !text.starts_with('.') && !text.contains('/')
}

fn demo() -> Value {
    json!({
        "formatVersion": 1,
        "namespace": "moving",
        "name": "sales",
        "publicUrl": "https://voice.example.com",
        "carrier": {"type": "Twilio", "twilio": {}},
        "persona": {
            "language": "en-US",
            "instructions": "You are Anna, the AI assistant of Example Movers. Speak briefly and kindly. When the caller \
                             says goodbye, say goodbye and end the call.",
            "greeting": {"text": "Hello, thank you for calling Example Movers. How can I help you today?"},
        },
        "engines": [{
            "name": "primary",
            "type": "Realtime",
            "realtime": {
                "url": "",
                "model": "gpt-realtime-2.1",
                "voice": "marin",
                "apiKey": {"name": "openai", "key": "apiKey"},
                "transcription": {"model": "gpt-transcribe"},
            },
        }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_own_agent_keeps_its_persona_and_loses_its_accounts() {
        let own = r#"
formatVersion: 1
namespace: shop
name: orders
publicUrl: https://voice.shop.example
carrier: {type: Twilio, twilio: {accountSid: AC9, authTokens: [{name: t, key: k}], apiBaseUrl: "https://api.twilio.com"}}
persona: {instructions: Sell.}
engines: [{name: a, type: Realtime, realtime: {url: "wss://api.openai.com/v1/realtime", model: m, voice: v, apiKey: {name: o, key: k}}}]
store: {type: Redis, redis: {url: {name: r, key: u}}}
futureField: 7
"#;
        let scenario = Scenario::demo().unwrap();
        let model = Endpoint { url: "ws://m".to_owned(), key: "sk".to_owned(), ca_file: None };
        let agent =
            LocalAgent::new(Some(serde_saphyr::from_str(own).unwrap()), &scenario, "http://c", &model)
                .unwrap();
        assert_eq!((agent.namespace.as_str(), agent.name.as_str()), ("shop", "orders"));
        assert_eq!(agent.file["persona"]["instructions"], "Sell.");
        assert_eq!(agent.file["futureField"], 7);
        assert_eq!(agent.file["carrier"]["twilio"]["apiBaseUrl"], "http://c");
        assert_eq!(agent.file["engines"][0]["realtime"]["url"], "ws://m");
        assert_eq!(agent.file["store"], json!({"type": "Memory"}));
        let secrets: Vec<_> = agent.secrets.keys().map(String::as_str).collect();
        assert_eq!(secrets, vec!["api/token", "o/k", "t/k"]);
        assert_eq!(agent.secrets["o/k"], "sk");
    }

    #[test]
    fn a_secret_cannot_leave_its_directory() {
        for name in ["..", "a/b", ""] {
            assert!(!is_file_name(name), "{name}");
        }
    }
}
