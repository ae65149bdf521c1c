//! `switchboard-sim load`: many calls at once against a running media pod or relay, and a table of how they fared.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use simulator::carrier::Account;
use simulator::carrier::edge::Edge;
use simulator::load::{self, LoadPlan, ModelKind};

use super::Outcome;
use super::serve::bind;

#[derive(Args, Debug)]
pub(crate) struct Load {
    /// Where TLS would end: `https://public.host[/prefix]=http://upstream:port`; repeatable.
    #[arg(long, required = true)]
    edge: Vec<Edge>,
    /// The number's voice webhook, e.g. `https://voice.example.com/moving/sales/twilio/voice`.
    #[arg(long)]
    voice_url: String,
    /// The number's status callback.
    #[arg(long)]
    status_url: Option<String>,
    /// Address of the model; the product must be configured to dial it.
    #[arg(long, default_value = "127.0.0.1:4011")]
    model_addr: String,
    /// Which model answers there.
    #[arg(long, value_enum, default_value = "lean")]
    model: Model,
    /// What a reply of the lean model lasts when nobody interrupts.
    #[arg(long, default_value_t = load::LONG_REPLY.as_secs())]
    reply_seconds: u64,
    /// The lean model's sessions live for so long, as they announce; as long as their calls when absent.
    #[arg(long)]
    session_seconds: Option<u64>,
    /// The key the strict model takes.
    #[arg(long, default_value = "simulated-model-key")]
    api_key: String,
    /// Calls at once.
    #[arg(long, default_value_t = 50)]
    calls: u32,
    /// Calls begun a second.
    #[arg(long, default_value_t = 25)]
    rate: u32,
    /// How long is measured after the ramp.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// How long a call lasts before the next one takes its line; to the end when absent.
    #[arg(long)]
    call_seconds: Option<u64>,
    /// How often a caller interrupts; 0: never.
    #[arg(long, default_value_t = 10)]
    barge_in_seconds: u64,
    /// The product's process, for its processor time and memory.
    #[arg(long)]
    pid: Option<u32>,
    /// Write the figures here as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Model {
    /// Costs little and measures audio both ways.
    Lean,
    /// Checks everything.
    Strict,
}

pub(crate) async fn run(load: Load) -> anyhow::Result<Outcome> {
    let listener = bind(&load.model_addr).await?;
    let plan = LoadPlan {
        account: Account::demo(),
        edges: load.edge,
        voice_url: load.voice_url,
        status_url: load.status_url,
        calls: load.calls,
        rate: load.rate,
        measure: Duration::from_secs(load.seconds),
        call_length: load.call_seconds.map(Duration::from_secs),
        barge_in_every: (load.barge_in_seconds > 0).then(|| Duration::from_secs(load.barge_in_seconds)),
        model: match load.model {
            Model::Lean => ModelKind::Lean,
            Model::Strict => ModelKind::Strict,
        },
        reply: Duration::from_secs(load.reply_seconds),
        session_limit: load.session_seconds.map(Duration::from_secs),
        api_key: load.api_key,
        model_tls: None,
        process: load.pid,
    };
    let report = load::run(plan, listener).await?;
    println!("{report}");
    if let Some(path) = &load.json {
        let json = serde_json::to_string_pretty(&report)?;
        std::fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(Outcome::passed_if(report.is_good()))
}
