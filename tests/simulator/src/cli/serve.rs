//! `switchboard-sim serve`: both simulated services until SIGTERM.
//!
//! Prints one line that begins with `ready` when both answer. Ends with a list of violations, and in failure if there is
//! one: who started it need not ask.

use std::path::PathBuf;

use anyhow::Context as _;
use axum::routing::get;
use axum::{Json, Router};
use clap::Args;
use simulator::carrier::edge::Edge;
use simulator::carrier::{Carrier, Settings, Trust};
use simulator::model::{self, Model, ModelConfig};
use simulator::scenario::{Scenario, ScenarioNumber};
use simulator::violations::Violations;
use simulator::voice::Registry;
use tokio::net::TcpListener;

use super::{Outcome, report, shutdown};

#[derive(Args, Debug)]
pub(crate) struct Serve {
    /// Scenario file; the demo's when absent.
    #[arg(long)]
    scenario: Option<PathBuf>,
    /// Address of the REST and the control API.
    #[arg(long, default_value = "127.0.0.1:4010")]
    twilio_addr: String,
    /// Address of the model.
    #[arg(long, default_value = "127.0.0.1:4011")]
    model_addr: String,
    /// Where a public URL is sent: `https://public.host[/prefix]=http://upstream:port` where TLS has ended before, or
    /// `https://public.host=https://address:port` where it ends; repeatable, the longest match counts.
    #[arg(long)]
    edge: Vec<Edge>,
    /// PEM file of an authority that is believed besides the public ones, for edges with TLS.
    #[arg(long)]
    edge_ca: Option<PathBuf>,
    /// One more number of the account: E.164,PN sid[,voice URL]; repeatable.
    #[arg(long, value_parser = parse_number)]
    number: Vec<ScenarioNumber>,
}

/// Both simulated services.
pub(super) struct Services {
    pub(super) carrier: Carrier,
    pub(super) model: Model,
    pub(super) violations: Violations,
}

impl Services {
    /// Starts both on listeners that are bound already.
    pub(super) fn start(
        scenario: &Scenario,
        settings: Settings,
        twilio: TcpListener,
        model: TcpListener,
    ) -> anyhow::Result<Self> {
        let violations = Violations::default();
        let registry = Registry::with_shipped_clips();
        let carrier = Carrier::new(settings, registry.clone(), violations.clone())?;
        let config = ModelConfig { switches: carrier.switches().clone(), ..scenario.model() };
        let model = model::serve(model, config, registry, violations.clone());
        let router = carrier.router().merge(sessions(model.clone()));
        let service = router.into_make_service_with_connect_info::<std::net::SocketAddr>();
        tokio::spawn(async move { axum::serve(twilio, service).await });
        Ok(Self { carrier, model, violations })
    }
}

/// The model's sessions, beside the carrier's control API.
fn sessions(model: Model) -> Router {
    let list = move || async move { Json(serde_json::json!({ "sessions": model.sessions() })) };
    Router::new().route("/_sim/sessions", get(list))
}

pub(crate) async fn run(serve: Serve) -> anyhow::Result<Outcome> {
    let mut scenario = read_scenario(serve.scenario.as_deref())?;
    scenario.numbers.extend(serve.number);
    let twilio = bind(&serve.twilio_addr).await?;
    let model = bind(&serve.model_addr).await?;
    let (carrier_address, model_address) = (twilio.local_addr()?, model.local_addr()?);
    let mut settings = scenario.carrier(serve.edge)?;
    if let Some(path) = &serve.edge_ca {
        let pem = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        settings.trust = Trust::with_authority(&pem).with_context(|| path.display().to_string())?;
    }
    let services = Services::start(&scenario, settings, twilio, model)?;
    println!("ready twilio=http://{carrier_address} model=ws://{model_address}/v1/realtime");
    shutdown::requested().await?;
    services.model.stop();
    report::violations(&services.violations.list());
    Ok(Outcome::passed_if(services.violations.count() == 0))
}

pub(super) fn read_scenario(path: Option<&std::path::Path>) -> anyhow::Result<Scenario> {
    let Some(path) = path else { return Ok(Scenario::demo()?) };
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Scenario::from_yaml(&text).with_context(|| path.display().to_string())
}

pub(super) async fn bind(address: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}

fn parse_number(text: &str) -> Result<ScenarioNumber, String> {
    let mut parts = text.split(',');
    let (Some(number), Some(sid)) = (parts.next(), parts.next()) else {
        return Err("a number is `E.164,PN sid[,voice URL]`".to_owned());
    };
    let fields = parts.next().map(|url| ("voiceUrl".to_owned(), url.to_owned()));
    Ok(ScenarioNumber {
        number: number.to_owned(),
        sid: sid.to_owned(),
        fields: fields.into_iter().collect(),
    })
}
