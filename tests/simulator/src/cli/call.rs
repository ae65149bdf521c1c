//! `switchboard-sim call`: place a call at a running simulator, follow it, fail with it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Args;
use reqwest::Client;
use serde_json::{Value, json};
use simulator::caller::Step;

use super::report::{self, Follower};
use super::{Outcome, serve};

/// How often the call is looked at.
const POLL: Duration = Duration::from_millis(200);

#[derive(Args, Debug)]
pub(crate) struct Call {
    /// The number to call; the scenario's first caller says it when absent.
    #[arg(long)]
    to: Option<String>,
    /// The calling number; the scenario's first caller says it when absent.
    #[arg(long)]
    from: Option<String>,
    /// YAML list of steps; the scenario's first caller's when absent.
    #[arg(long)]
    caller: Option<PathBuf>,
    /// Scenario file to take a caller from; the demo's when absent.
    #[arg(long)]
    scenario: Option<PathBuf>,
    /// The running simulator.
    #[arg(long, default_value = "http://127.0.0.1:4010")]
    control: String,
    /// Keep the call as a WAV: caller left, agent right.
    #[arg(long)]
    heard: Option<PathBuf>,
}

pub(crate) async fn run(call: Call) -> anyhow::Result<Outcome> {
    let scenario = serve::read_scenario(call.scenario.as_deref())?;
    let known = scenario.callers.into_iter().next();
    let steps: Vec<Step> = match &call.caller {
        Some(path) => {
            let text =
                std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            serde_saphyr::from_str(&text).with_context(|| path.display().to_string())?
        }
        None => known.as_ref().map(|caller| caller.steps.clone()).context("the scenario has no caller")?,
    };
    let from = call
        .from
        .or_else(|| known.as_ref().map(|caller| caller.from.clone()))
        .context("--from is missing")?;
    let to = call.to.or_else(|| known.map(|caller| caller.to)).context("--to is missing")?;
    // The certificates' provider must be there even where every URL is plain.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = Client::builder().no_proxy().timeout(Duration::from_secs(20)).build()?;
    let control = call.control.trim_end_matches('/');
    let order = json!({"from": from, "to": to, "caller": steps});
    let response = http.post(format!("{control}/_sim/calls")).json(&order).send().await?;
    let status = response.status();
    let answer: Value = response.json().await?;
    ensure!(status.is_success(), "the simulator does not place the call: {answer}");
    let sid = answer["sid"].as_str().context("a placed call has a sid")?;
    println!("{from} calls {to} ({sid})");
    let url = format!("{control}/_sim/calls/{sid}");
    let mut follower = Follower::default();
    let last = loop {
        let view: Value = http.get(&url).send().await?.error_for_status()?.json().await?;
        follower.show_events(&view);
        if view["finished"] == true {
            break view;
        }
        tokio::time::sleep(POLL).await;
    };
    if let Some(path) = &call.heard {
        let wav = http.get(format!("{url}/heard.wav")).send().await?.error_for_status()?.bytes().await?;
        std::fs::write(path, wav).with_context(|| format!("cannot write {}", path.display()))?;
    }
    report::summary(&last);
    let broken = last["violations"].as_u64().unwrap_or_default();
    println!("{broken} protocol violations in this call (all: {control}/_sim/violations)");
    Ok(Outcome::passed_if(broken == 0 && last["failedStep"].is_null()))
}
