//! `switchboard-sim relay`: the naive relay, as a process of its own to be measured beside a media pod.

use clap::Args;
use simulator::relay::{self, Relay};

use super::serve::bind;
use super::{Outcome, shutdown};

#[derive(Args, Debug)]
pub(crate) struct RelayCommand {
    /// Where it listens.
    #[arg(long, default_value = "127.0.0.1:4020")]
    addr: String,
    /// The wss:// URL of its stream as the phone network knows it.
    #[arg(long, default_value = "wss://voice.example.com/stream")]
    stream_url: String,
    /// host:port of the model.
    #[arg(long, default_value = "127.0.0.1:4011")]
    model_addr: String,
    /// The model's key.
    #[arg(long, default_value = "simulated-model-key")]
    api_key: String,
}

pub(crate) async fn run(command: RelayCommand) -> anyhow::Result<Outcome> {
    let RelayCommand { addr, stream_url, model_addr, api_key } = command;
    let listener = bind(&addr).await?;
    println!("ready relay=http://{}", listener.local_addr()?);
    let relay = Relay { stream_url, model: model_addr, api_key };
    tokio::select! {
        served = relay::serve(listener, relay) => served?,
        requested = shutdown::requested() => requested?,
    }
    Ok(Outcome::Passed)
}
