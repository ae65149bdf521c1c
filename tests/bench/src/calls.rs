//! One run of load on a fresh process: what it cost and how long everything took.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use simulator::carrier::Account;
use simulator::load::{Load, LoadPlan, LoadReport, ModelKind, ProcessReport};
use tokio::net::TcpListener;

use crate::cores::Cores;
use crate::mounts::{Agent, PUBLIC_URL};
use crate::subject::{Binaries, Place, Subject};
use crate::tls::Identity;

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// A media pod whose model speaks plain.
    Pod,
    /// A media pod whose model is behind TLS.
    PodWithTls,
    /// The naive relay, plain.
    Relay,
}

/// The load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) calls: u32,
    /// Calls begun a second.
    pub(crate) rate: u32,
    pub(crate) measure: Duration,
    /// How long a call lasts before the next one takes its line; `None`: to the end.
    pub(crate) call_length: Option<Duration>,
    pub(crate) barge_in_every: Option<Duration>,
    /// What the model says lasts so long when nobody interrupts.
    pub(crate) reply: Duration,
    /// The model's sessions live for so long, as they announce; `None`: as long as their calls.
    pub(crate) session_limit: Option<Duration>,
    /// `warmSessionsPerPod`; calls begin when they are there.
    pub(crate) warm_sessions: u32,
}

/// What came out of it.
pub(crate) struct Measured {
    pub(crate) report: LoadReport,
    pub(crate) process: ProcessReport,
    /// Memory of a call beyond the idle process.
    pub(crate) kib_per_call: f64,
}

/// Runs the plan against a fresh process.
///
/// # Errors
/// Also when the run was not good: figures of calls that were lost would flatter.
pub(crate) async fn measure(
    binaries: &Binaries,
    cores: &Cores,
    who: Who,
    plan: Plan,
) -> anyhow::Result<Measured> {
    let model = TcpListener::bind("127.0.0.1:0").await.context("no free port")?;
    let identity = match who {
        Who::PodWithTls => Some(Identity::of_loopback()?),
        Who::Pod | Who::Relay => None,
    };
    let place = match who {
        Who::Pod | Who::PodWithTls => Place::for_pod()?,
        Who::Relay => Place::for_relay()?,
    };
    let agent = Agent {
        model: model.local_addr()?,
        authority_pem: identity.as_ref().map(|identity| identity.authority_pem.clone()),
        warm_sessions: plan.warm_sessions,
        redis_url: None,
    };
    // The model answers before its client runs: warm sessions are opened before the first call.
    let mut load = Load::begin(load_plan(place, plan, identity.as_ref())?, model)?;
    let mut subject = Subject::start(binaries, cores, place, &agent).await?;
    if plan.warm_sessions > 0 {
        subject.wait_until_warm(plan.warm_sessions).await?;
    }
    let idle_kib = subject.idle_kib().await?;
    load.watch_process(subject.pid());
    let report = load.run().await;
    if plan.warm_sessions > 0 {
        let cold = subject.metric("switchboard_warm_sessions_total{outcome=\"cold\"}").await?;
        ensure!(
            cold == 0.0,
            "{cold} calls found no warm session: fewer calls a second, or more warm sessions"
        );
    }
    subject.stop().await?;
    ensure!(report.is_good(), "a run of {who:?} was not good:\n{report}");
    let process = report.process.context("the process was gone before its memory was read")?;
    let beyond_idle = process.resident_kib as f64 - idle_kib as f64;
    Ok(Measured { process, kib_per_call: beyond_idle / f64::from(plan.calls), report })
}

/// The load's own plan.
pub(crate) fn load_plan(place: Place, plan: Plan, identity: Option<&Identity>) -> anyhow::Result<LoadPlan> {
    let webhooks = place.webhooks();
    Ok(LoadPlan {
        account: Account::demo(),
        edges: vec![format!("{PUBLIC_URL}=http://{}", place.upstream()).parse()?],
        voice_url: format!("{webhooks}/voice"),
        status_url: Some(format!("{webhooks}/status")),
        calls: plan.calls,
        rate: plan.rate,
        measure: plan.measure,
        call_length: plan.call_length,
        barge_in_every: plan.barge_in_every,
        model: ModelKind::Lean,
        reply: plan.reply,
        session_limit: plan.session_limit,
        api_key: String::new(),
        model_tls: identity.map(|identity| identity.server.clone()),
        process: None,
    })
}
