//! `switchboard-sim test`: agent tests from a file, each case a call of its own against a media pod of its own.
//!
//! *Flow:* read the agent and the cases; per case a simulated phone network, a model with the case's script and a pod as a
//! child process; play the steps; report. *Guarantees:* exit code 0 when all pass, 1 when an expectation or a protocol
//! rule is broken, 2 when the tests could not be run. *Caveats:* the agent's engines are replaced by the simulated model, or
//! by a real one, which the command line names.

mod junit;
mod observed;
mod play;
mod suite;

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use futures_util::StreamExt as _;
use serde_json::Value;
use simulator::carrier::edge::Edge;
use simulator::scenario::{Scenario, ScenarioModel, ScenarioNumber};
use tokio::time::Instant;

use self::junit::CaseReport;
use self::play::{Failure, Stage};
use self::suite::{Case, Suite};
use super::local::agent::{self, LocalAgent};
use super::local::pod::Pod;
use super::local::{self, LOOPBACK};
use super::real_model::{Endpoint, RealModel};
use super::serve::{self, Services};
use super::{Outcome, shutdown};

#[derive(Args, Debug)]
pub(crate) struct Test {
    /// The agent file; or, without --cases, one file with the cases and optionally the agent.
    file: PathBuf,
    /// The cases.
    #[arg(long)]
    cases: Option<PathBuf>,
    /// Write a JUnit report here.
    #[arg(long)]
    junit: Option<PathBuf>,
    /// Only cases whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// Calls at the same time.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: u16,
    /// The media pod's binary; beside this one when absent.
    #[arg(long)]
    media: Option<PathBuf>,
    /// Log filter of the media pods; their logs go to standard error.
    #[arg(long, default_value = "error")]
    media_log: String,
    #[command(flatten)]
    real_model: RealModel,
}

pub(crate) async fn run(test: Test) -> anyhow::Result<Outcome> {
    let (suite, agent) = read(&test)?;
    let media = match &test.media {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("switchboard-media"),
    };
    let wanted = |case: &&Case| test.only.as_ref().is_none_or(|part| case.name.contains(part));
    let cases: Vec<&Case> = suite.cases.iter().filter(wanted).collect();
    ensure!(!cases.is_empty(), "no case is named like `{}`", test.only.unwrap_or_default());
    let real = test.real_model.endpoint()?;
    let bench = Bench { suite: &suite, agent: agent.as_ref(), media, media_log: &test.media_log, real };
    let all = async {
        let mut reports = Vec::new();
        let mut runs = futures_util::stream::iter(cases.into_iter().map(|case| bench.run(case)))
            .buffered(test.jobs.into());
        while let Some(report) = runs.next().await {
            let report = report?;
            show(&report);
            reports.push(report);
        }
        anyhow::Ok(reports)
    };
    let reports = tokio::select! {
        biased;
        requested = shutdown::requested() => {
            requested?;
            bail!("interrupted");
        }
        reports = all => reports?,
    };
    if let Some(path) = &test.junit {
        let name = suite.name.as_deref().unwrap_or("agent");
        std::fs::write(path, junit::write(name, &reports))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    let failed = reports.iter().filter(|report| report.failure.is_some()).count();
    println!("{} cases, {failed} failed", reports.len());
    Ok(Outcome::passed_if(failed == 0))
}

fn read(test: &Test) -> anyhow::Result<(Suite, Option<Value>)> {
    let mut suite = Suite::read(test.cases.as_ref().unwrap_or(&test.file))?;
    let inline = suite.agent.take();
    let agent = match (&test.cases, inline) {
        (None, None) => None,
        (None, Some(agent)) => Some(agent::check(agent, &test.file)?),
        (Some(_), None) => Some(agent::read(&test.file)?),
        (Some(cases), Some(_)) => bail!("there are two agents: {} has one too", cases.display()),
    };
    Ok((suite, agent))
}

fn show(report: &CaseReport) {
    let seconds = report.duration.as_secs_f64();
    match &report.failure {
        None => println!("ok    {} ({seconds:.1} s)", report.name),
        Some((_, text)) => {
            println!("FAIL  {} ({seconds:.1} s)", report.name);
            let indented = |text: &str| text.lines().for_each(|line| println!("      {line}"));
            indented(text);
            if !report.transcript.is_empty() {
                println!("      transcript:");
                report.transcript.lines().for_each(|line| println!("        {line}"));
            }
        }
    }
}

/// What all cases share.
struct Bench<'a> {
    suite: &'a Suite,
    agent: Option<&'a Value>,
    media: PathBuf,
    media_log: &'a str,
    /// Instead of the simulated model.
    real: Option<Endpoint>,
}

impl Bench<'_> {
    async fn run(&self, case: &Case) -> anyhow::Result<CaseReport> {
        let began = Instant::now();
        let script = case.model.clone();
        let number = ScenarioNumber {
            number: self.suite.to.clone(),
            sid: "PN00000000000000000000000000000001".to_owned(),
            fields: BTreeMap::new(),
        };
        let mut scenario = Scenario {
            numbers: vec![number],
            callees: self.suite.callees.clone(),
            model: ScenarioModel { script, ..ScenarioModel::default() },
            ..Scenario::default()
        };
        let (twilio, model) = (serve::bind(LOOPBACK).await?, serve::bind(LOOPBACK).await?);
        let carrier_url = format!("http://{}", twilio.local_addr()?);
        let endpoint = match &self.real {
            Some(real) => real.clone(),
            None => local::simulated(&scenario, model.local_addr()?),
        };
        let agent = LocalAgent::new(self.agent.cloned(), &scenario, &carrier_url, &endpoint)?;
        let mut pod = Pod::start(&self.media, &agent, self.media_log).await?;
        let edge: Edge = format!("{}=http://{}", agent.public_url, pod.public_address).parse()?;
        local::point_numbers_at(&mut scenario, &agent);
        let services = Services::start(&scenario, scenario.carrier(vec![edge])?, twilio, model)?;
        let calls = pod.calls();
        let targets = transfer_targets(&agent.file);
        let from = case.from.as_deref().unwrap_or(&self.suite.from);
        let (record, director) = services.carrier.place_directed(from, &self.suite.to)?;
        let model = self.real.is_none().then_some(&services.model);
        let (calls, patience) = (&calls, self.suite.patience);
        let stage = Stage { record: &record, calls, model, targets: &targets, patience };
        let played = tokio::select! {
            biased;
            ended = pod.ended() => Err(ended),
            played = stage.play(&case.steps, director) => Ok(played),
        }?;
        let transcript = stage.look().await.transcript();
        pod.stop().await;
        services.model.stop();
        let broken = services.violations.list();
        let failure = match played {
            Err(failure) => Some(explain(case, &failure)),
            Ok(()) if !broken.is_empty() => {
                let rules: Vec<String> = broken.iter().map(ToString::to_string).collect();
                Some(("a protocol rule was broken".to_owned(), rules.join("\n")))
            }
            Ok(()) => None,
        };
        Ok(CaseReport { name: case.name.clone(), duration: began.elapsed(), failure, transcript })
    }
}

/// A failure's first line, and all of it.
fn explain(case: &Case, failure: &Failure) -> (String, String) {
    let Failure { step, expected, heard } = failure;
    let place = match step {
        Some(step) => format!("step {step} of {}", case.steps.len()),
        None => "after the last step".to_owned(),
    };
    let message = format!("{place}: expected {expected}");
    (message, format!("{place}\nexpected {expected}\nheard    {heard}"))
}

fn transfer_targets(agent: &Value) -> Vec<(String, String)> {
    let targets = agent["transferTargets"].as_array().into_iter().flatten();
    let pair = |target: &Value| {
        let part = |field: &str| target[field].as_str().map(str::to_owned);
        Some((part("name")?, part("phoneNumber")?))
    };
    targets.filter_map(pair).collect()
}
