//! A model behind TLS: a certificate for the loopback address, made for one run.

use std::sync::Arc;

use anyhow::Context as _;
use rustls::ServerConfig;
use rustls_pki_types::PrivatePkcs8KeyDer;

/// What the model shows, and what its clients must trust.
pub(crate) struct Identity {
    pub(crate) server: Arc<ServerConfig>,
    pub(crate) authority_pem: String,
}

impl Identity {
    /// A fresh one, for `127.0.0.1`.
    pub(crate) fn of_loopback() -> anyhow::Result<Self> {
        let certified = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()])
            .context("no certificate can be made")?;
        let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key.into())?;
        Ok(Self { server: Arc::new(server), authority_pem: certified.cert.pem() })
    }
}
