//! The simulated phone network and model, as a process of its own, and its control API (docs/design.md, "The
//! simulator"). Black-box: nothing of the simulator is linked in.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::Client;
use serde_json::{Value, json};

use crate::edge::PUBLIC_HOST;
use crate::{Cluster, Edge, Guard, binary, wait_for};

/// Port of the simulated Twilio (REST and control).
const CARRIER_PORT: u16 = 4010;
/// Port of the simulated model.
const MODEL_PORT: u16 = 4011;

/// A running simulator beside a cluster.
#[derive(Debug)]
pub struct Simulator {
    http: Client,
    carrier: String,
    model: String,
    process: Guard,
}

impl Simulator {
    /// Starts it with a scenario; the edge is all it knows of the internet. Without one it reaches nobody.
    ///
    /// # Errors
    /// When it does not answer in time; the message has the end of its log.
    pub async fn start(cluster: &Cluster, scenario: &Path, edge: Option<&Edge>) -> Result<Self> {
        let node = cluster.node_address();
        let mut command = Command::new(binary("switchboard-sim")?);
        command
            .arg("serve")
            .arg("--scenario")
            .arg(scenario)
            .args(["--twilio-addr", &format!("{node}:{CARRIER_PORT}")])
            .args(["--model-addr", &format!("{node}:{MODEL_PORT}")]);
        if let Some(edge) = edge {
            command
                .args(["--edge", &format!("https://{PUBLIC_HOST}=https://{}", edge.address())])
                .arg("--edge-ca")
                .arg(edge.authority());
        }
        let process = cluster.spawn("simulator", &mut command)?;
        let simulator = Self {
            http: Client::builder().no_proxy().timeout(Duration::from_secs(20)).build()?,
            carrier: format!("http://{node}:{CARRIER_PORT}"),
            model: format!("ws://{node}:{MODEL_PORT}/v1/realtime"),
            process,
        };
        wait_for("the simulator", Duration::from_secs(20), async || {
            if let Err(ended) = simulator.process.check() {
                return Ok(Some(Err(ended)));
            }
            simulator.numbers().await.map(|_| Some(Ok(())))
        })
        .await
        .with_context(|| crate::end_of(simulator.process.log()))??;
        Ok(simulator)
    }

    /// Base URL of the simulated REST API, for a gateway's `apiBaseUrl`.
    #[must_use]
    pub fn carrier_url(&self) -> &str {
        &self.carrier
    }

    /// URL of the simulated Realtime endpoint, for an engine's `url`.
    #[must_use]
    pub fn model_url(&self) -> &str {
        &self.model
    }

    /// A simulated caller dials; returns the CallSid.
    ///
    /// # Errors
    /// When the simulator refuses the call or its steps.
    pub async fn place_call(&self, from: &str, to: &str, caller: &Value) -> Result<String> {
        let order = json!({"from": from, "to": to, "caller": caller});
        let response = self.http.post(self.control("calls")).json(&order).send().await?;
        let status = response.status();
        let answer: Value = response.json().await?;
        ensure!(status.is_success(), "the simulator does not place the call: {answer}");
        Ok(answer["sid"].as_str().context("a placed call has a sid")?.to_owned())
    }

    /// What is known of a call.
    ///
    /// # Errors
    /// When there is no such call.
    pub async fn call(&self, sid: &str) -> Result<Value> {
        self.json(&format!("calls/{sid}")).await
    }

    /// Waits until a call and its last callback are over.
    ///
    /// # Errors
    /// When it is not over in time; the message has what is known of it.
    pub async fn finished_call(&self, sid: &str, within: Duration) -> Result<Value> {
        let waited = wait_for("the call to end", within, async || {
            let call = self.call(sid).await?;
            Ok((call["finished"] == true).then_some(call))
        })
        .await;
        match waited {
            Ok(call) => Ok(call),
            Err(error) => Err(error.context(format!("{:#}", self.call(sid).await?))),
        }
    }

    /// The caller hangs up.
    ///
    /// # Errors
    /// When there is no such call, or it is over.
    pub async fn hang_up(&self, sid: &str) -> Result<()> {
        self.http.delete(self.control(&format!("calls/{sid}"))).send().await?.error_for_status()?;
        Ok(())
    }

    /// WAV of what the caller heard.
    ///
    /// # Errors
    /// When there is no such call.
    pub async fn heard(&self, sid: &str) -> Result<Vec<u8>> {
        let response = self.http.get(self.control(&format!("calls/{sid}/heard.wav"))).send().await?;
        Ok(response.error_for_status()?.bytes().await?.to_vec())
    }

    /// Every rule the product broke so far.
    ///
    /// # Errors
    /// When the simulator does not answer.
    pub async fn violations(&self) -> Result<Vec<Value>> {
        let answer = self.json("violations").await?;
        Ok(answer["violations"].as_array().context("violations are a list")?.clone())
    }

    /// Forgets them: a trial that provokes some has looked at them.
    ///
    /// # Errors
    /// When the simulator does not answer.
    pub async fn forget_violations(&self) -> Result<()> {
        self.http.delete(self.control("violations")).send().await?.error_for_status()?;
        Ok(())
    }

    /// The account's numbers, as the REST API shows them.
    ///
    /// # Errors
    /// When the simulator does not answer.
    pub async fn numbers(&self) -> Result<Vec<Value>> {
        let answer = self.json("numbers").await?;
        Ok(answer["numbers"].as_array().context("numbers are a list")?.clone())
    }

    /// One number.
    ///
    /// # Errors
    /// When the account does not have it.
    pub async fn number(&self, e164: &str) -> Result<Value> {
        let numbers = self.numbers().await?;
        numbers.into_iter().find(|number| number["phone_number"] == e164).context("no such number")
    }

    /// REST requests as they were answered (`method`, `path`, `fields`, `status`); `skip` leaves out what was seen before.
    ///
    /// # Errors
    /// When the simulator does not answer.
    pub async fn requests(&self, skip: usize) -> Result<Vec<Value>> {
        let answer = self.json(&format!("requests?skip={skip}")).await?;
        Ok(answer["requests"].as_array().context("requests are a list")?.clone())
    }

    /// Switches faults on and off (docs/design.md, "The simulator").
    ///
    /// # Errors
    /// When the simulator does not know one.
    pub async fn set_faults(&self, faults: &Value) -> Result<()> {
        let response = self.http.put(self.control("faults")).body(faults.to_string()).send().await?;
        response.error_for_status()?;
        Ok(())
    }

    /// Changes a number behind the product's back, as somebody at the carrier's console does.
    ///
    /// # Errors
    /// When the simulator refuses the credentials or the form.
    pub async fn change_number(
        &self,
        sid: &str,
        credentials: (&str, &str),
        form: &[(&str, &str)],
    ) -> Result<()> {
        let (account, token) = credentials;
        let url = format!("{}/2010-04-01/Accounts/{account}/IncomingPhoneNumbers/{sid}.json", self.carrier);
        let request = self.http.post(url).basic_auth(account, Some(token)).form(form);
        request.send().await?.error_for_status()?;
        Ok(())
    }

    /// The model's sessions: what it was sent and what it remembers.
    ///
    /// # Errors
    /// When the simulator does not answer.
    pub async fn sessions(&self) -> Result<Value> {
        self.json("sessions").await
    }

    fn control(&self, path: &str) -> String {
        format!("{}/_sim/{path}", self.carrier)
    }

    async fn json(&self, path: &str) -> Result<Value> {
        Ok(self.http.get(self.control(path)).send().await?.error_for_status()?.json().await?)
    }
}
