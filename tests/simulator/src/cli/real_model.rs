//! A real model instead of the simulated one: any endpoint that speaks the Realtime protocol, and its key.
//!
//! The key is read from a file or the environment, never from the command line, and goes nowhere but into the pod's mounts.

use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use clap::Args;

/// Which model answers.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct RealModel {
    /// A real model: the URL of an OpenAI-compatible Realtime endpoint, e.g. wss://api.openai.com/v1/realtime. The key is
    /// in --model-key-file, or in the variable OPENAI_API_KEY.
    #[arg(long, env = "SWITCHBOARD_MODEL_URL")]
    model_url: Option<String>,
    /// A file with the real model's key.
    #[arg(long, requires = "model_url")]
    model_key_file: Option<PathBuf>,
    /// Certificates (PEM) to trust for the real model's wss:// besides the public ones.
    #[arg(long, requires = "model_url")]
    model_ca_file: Option<PathBuf>,
}

/// Where the pod finds its model.
#[derive(Clone)]
pub(in crate::cli) struct Endpoint {
    pub(in crate::cli) url: String,
    pub(in crate::cli) key: String,
    pub(in crate::cli) ca_file: Option<PathBuf>,
}

impl RealModel {
    /// The endpoint, if one was asked for.
    pub(in crate::cli) fn endpoint(&self) -> anyhow::Result<Option<Endpoint>> {
        let Self { model_url, model_key_file, model_ca_file } = self;
        let Some(url) = model_url else { return Ok(None) };
        ensure!(
            url.starts_with("ws://") || url.starts_with("wss://"),
            "--model-url must begin with ws:// or wss://, as in wss://api.openai.com/v1/realtime"
        );
        let key = match model_key_file {
            Some(path) => {
                std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?
            }
            None => std::env::var("OPENAI_API_KEY")
                .context("a real model needs its key: --model-key-file or the variable OPENAI_API_KEY")?,
        };
        let key = key.trim().to_owned();
        ensure!(!key.is_empty(), "the real model's key is empty");
        Ok(Some(Endpoint { url: url.clone(), key, ca_file: model_ca_file.clone() }))
    }
}
