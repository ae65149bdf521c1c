//! One simulated phone network and model, and the pods that a trial starts beside it, all processes of their own.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use e2e::{binary, end_of, wait_for};
use reqwest::Client;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::pod::Pod;
use crate::service::Service;

/// For anything that takes no part of a conversation.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// For a call's own course: the longest step of a caller is a minute.
pub(crate) const CALL: Duration = Duration::from_secs(240);

pub(crate) const ACCOUNT: &str = "AC00000000000000000000000000000001";
pub(crate) const AUTH_TOKEN: &str = "simulated-auth-token";
pub(crate) const API_TOKEN: &str = "api-token-of-the-trial";
pub(crate) const PUBLIC_URL: &str = "https://voice.example.com";
pub(crate) const NUMBER: &str = "+15551230001";
pub(crate) const CALLER: &str = "+15557654321";
pub(crate) const QUESTION: &str = "Hello, what are your opening hours?";
pub(crate) const ANSWER: &str = "Sorry, could you say that again?";

/// A simulator, the way to the pods, and the pods.
pub(crate) struct Stage {
    pub(crate) service: Service,
    directory: Directory,
    http: Client,
    carrier: String,
    model: String,
    simulator: Process,
}

impl Stage {
    /// Starts the simulator; `name` is the trial's.
    pub(crate) async fn open(name: &str) -> Result<Self> {
        let directory = Directory::new(name)?;
        let service = Service::open()?;
        let scenario = directory.path().join("scenario.json");
        std::fs::write(&scenario, scenario_file().to_string())?;
        let mut command = Command::new(binary("switchboard-sim")?);
        command
            .args(["serve", "--twilio-addr", "127.0.0.1:0", "--model-addr", "127.0.0.1:0"])
            .args(["--edge", &format!("{PUBLIC_URL}=http://{}", service.address())])
            .arg("--scenario")
            .arg(&scenario);
        let simulator = Process::start("simulator", &mut command, &directory)?;
        let ready = simulator.line("the simulator", |line| line.starts_with("ready ")).await?;
        let part = |name: &str| {
            let found = ready.split(' ').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
            found.map(str::to_owned).with_context(|| format!("no {name} in `{ready}`"))
        };
        let http = Client::builder().no_proxy().timeout(Duration::from_secs(20)).build()?;
        Ok(Self { service, directory, http, carrier: part("twilio")?, model: part("model")?, simulator })
    }

    /// The agent of a trial, for it to change.
    pub(crate) fn agent(&self) -> Value {
        json!({
            "formatVersion": 1,
            "revision": "first",
            "namespace": "moving",
            "name": "sales",
            "publicUrl": PUBLIC_URL,
            "carrier": {"type": "Twilio", "twilio": {
                "accountSid": ACCOUNT,
                "authTokens": [{"name": "twilio", "key": "authToken"}],
                "apiBaseUrl": self.carrier,
            }},
            "persona": {
                "instructions": "Be kind.",
                "greeting": {"text": "Hello, thank you for calling Example Movers. How can I help you today?"},
            },
            "engines": [self.realtime(&self.model), spare()],
            "apiToken": {"name": "api", "key": "token"},
        })
    }

    /// A Realtime engine at this URL.
    pub(crate) fn realtime(&self, url: &str) -> Value {
        json!({"name": "primary", "type": "Realtime", "realtime": {
            "url": url, "model": "gpt-realtime-2.1", "voice": "marin", "apiKey": {"name": "openai", "key": "apiKey"},
            "transcription": {"model": "gpt-transcribe"},
        }})
    }

    /// Starts a pod of this agent; new connections go to it from now on.
    pub(crate) async fn pod(&self, name: &str, agent: &Value) -> Result<Pod> {
        self.pod_with(name, agent, |_| {}).await
    }

    /// The same, with further mounts and variables.
    pub(crate) async fn pod_with(
        &self,
        name: &str,
        agent: &Value,
        change: impl FnOnce(&mut Command),
    ) -> Result<Pod> {
        let pod = Pod::start(name, agent, &self.directory, self.http.clone(), change).await?;
        self.service.lead_to(pod.public());
        Ok(pod)
    }

    pub(crate) fn directory(&self) -> &Directory {
        &self.directory
    }

    /// A caller dials; the CallSid.
    pub(crate) async fn place(&self, from: &str, steps: &Value) -> Result<String> {
        let order = json!({"from": from, "to": NUMBER, "caller": steps});
        let answer: Value = self.http.post(self.control("calls")).json(&order).send().await?.json().await?;
        Ok(answer["sid"].as_str().with_context(|| format!("not placed: {answer}"))?.to_owned())
    }

    /// What is known of a call.
    pub(crate) async fn call(&self, sid: &str) -> Result<Value> {
        self.simulator.check()?;
        self.fetch(&format!("calls/{sid}")).await
    }

    /// Waits until a call and its last callback are over.
    pub(crate) async fn finished(&self, sid: &str) -> Result<Value> {
        let over = async || Ok(Some(self.call(sid).await?).filter(|call| call["finished"] == true));
        let waited = wait_for("the call to end", CALL, over).await;
        match waited {
            Ok(call) => Ok(call),
            Err(error) => Err(error.context(format!("{:#}", self.call(sid).await?))),
        }
    }

    /// The model's sessions in which a sentence of this caller was heard, whole or in part; `is_own` tells its words.
    pub(crate) async fn sessions_of(&self, is_own: impl Fn(&str) -> bool) -> Result<Vec<Session>> {
        let list: Vec<Session> = serde_json::from_value(self.fetch("sessions").await?["sessions"].take())?;
        Ok(list.into_iter().filter(|session| session.heard().any(&is_own)).collect())
    }

    /// Switches these faults on, and all others off.
    pub(crate) async fn set_faults(&self, faults: &Value) -> Result<()> {
        let answer = self.http.put(self.control("faults")).json(faults).send().await?;
        let status = answer.status();
        ensure!(status.is_success(), "{status}: {}", answer.text().await?);
        Ok(())
    }

    /// Every rule the product broke so far.
    pub(crate) async fn violations(&self) -> Result<Value> {
        Ok(self.fetch("violations").await?["violations"].clone())
    }

    /// No rule was broken.
    pub(crate) async fn ensure_no_violation(&self) -> Result<()> {
        let violations = self.violations().await?;
        ensure!(violations == json!([]), "the product broke rules: {violations:#}");
        Ok(())
    }

    fn control(&self, path: &str) -> String {
        format!("{}/_sim/{path}", self.carrier)
    }

    async fn fetch(&self, path: &str) -> Result<Value> {
        Ok(self.http.get(self.control(path)).send().await?.error_for_status()?.json().await?)
    }
}

/// What is told of one of the model's sessions.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Session {
    pub(crate) is_open: bool,
    /// Audio that came.
    pub(crate) appended_milliseconds: u64,
    items: Vec<Item>,
}

#[derive(Debug, Deserialize)]
struct Item {
    role: String,
    text: String,
}

impl Session {
    /// The caller's turns, as the model understood them.
    pub(crate) fn heard(&self) -> impl Iterator<Item = &str> {
        self.items.iter().filter(|item| item.role == "user").map(|item| item.text.as_str())
    }
}

/// The engine that is used when the first one is given up.
pub(crate) fn spare() -> Value {
    json!({"name": "spare", "type": "Simulated", "simulated": {"replies": ["One moment please."]}})
}

/// Events of a call's timeline.
pub(crate) fn events<'a>(call: &'a Value, name: &str) -> Vec<&'a Value> {
    call["timeline"].as_array().into_iter().flatten().filter(|event| event["event"] == name).collect()
}

fn scenario_file() -> Value {
    let base = format!("{PUBLIC_URL}/moving/sales/twilio");
    json!({
        "account": {"sid": ACCOUNT, "authToken": AUTH_TOKEN},
        "numbers": [{
            "number": NUMBER, "sid": "PN00000000000000000000000000000001",
            // With the retries that the pod asks for in the URLs it writes itself.
            "voiceUrl": format!("{base}/voice#rc=5&rp=5xx,ct,rt"), "statusCallback": format!("{base}/status"),
        }],
        "model": {"script": {
            "opening": ANSWER,
            "default": ANSWER,
        }},
    })
}

/// A directory that goes with its trial, and where its logs are kept.
pub(crate) struct Directory {
    path: PathBuf,
    logs: PathBuf,
}

impl Directory {
    fn new(name: &str) -> Result<Self> {
        let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let path = std::env::temp_dir().join(format!("switchboard-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        let logs = match std::env::var_os("SWITCHBOARD_LOGS") {
            Some(kept) => PathBuf::from(kept).join(&name),
            None => path.join("logs"),
        };
        std::fs::create_dir_all(&logs)?;
        Ok(Self { path, logs })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path); // what cannot be removed is a few kilobytes
    }
}

/// A process that ends with its value; what it says is in a log.
pub(crate) struct Process {
    name: String,
    log: PathBuf,
    child: std::sync::Mutex<Child>,
}

impl Process {
    pub(crate) fn start(name: &str, command: &mut Command, directory: &Directory) -> Result<Self> {
        let log = directory.logs.join(format!("{name}.log"));
        let output = File::create(&log)?;
        let errors = output.try_clone()?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .with_context(|| format!("{} cannot be started", command.get_program().display()))?;
        Ok(Self { name: name.to_owned(), log, child: child.into() })
    }

    /// Waits until it has said a line.
    pub(crate) async fn line(&self, what: &str, is_it: impl Fn(&str) -> bool) -> Result<String> {
        wait_for(what, PATIENCE, async || {
            let text = std::fs::read_to_string(&self.log)?;
            let found = text.lines().find(|line| is_it(line)).map(str::to_owned);
            Ok(found.map(Ok).or_else(|| self.check().err().map(Err)))
        })
        .await?
    }

    /// An error with the end of its log if it is not running any more.
    pub(crate) fn check(&self) -> Result<()> {
        match self.child().try_wait()? {
            None => Ok(()),
            Some(status) => Err(anyhow!("{} ended by itself ({status}); {}", self.name, end_of(&self.log))),
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child().id()
    }

    /// Ends it at once.
    pub(crate) fn kill(&self) -> Result<()> {
        let mut child = self.child();
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    fn child(&self) -> std::sync::MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.kill(); // fails only for one that is gone
    }
}
