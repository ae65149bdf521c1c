//! TLS to the edge, as the carrier does it: the edge's certificate is checked against its public name.
//!
//! Twilio trusts public authorities only. Here one more may be added, so that an edge in a test needs no certificate from
//! a public one; everything else about the check (name, time, chain) stays.

use std::io;
use std::sync::Arc;

use reqwest::ClientBuilder;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::edge::{Edge, Security, Target};

/// Whose certificates are believed.
#[derive(Clone, Debug)]
pub struct Trust(Arc<ClientConfig>);

/// A file that is not one of certificate authorities.
#[derive(Debug, thiserror::Error)]
#[error("expected PEM certificates of authorities: {0}")]
pub struct InvalidAuthority(String);

/// A connection to an upstream, encrypted or not.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

impl Default for Trust {
    fn default() -> Self {
        Self::in_roots(RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()))
    }
}

impl Trust {
    /// Public authorities and those of a PEM file.
    ///
    /// # Errors
    /// When it holds no certificate, or one that is no authority's.
    pub fn with_authority(pem: &[u8]) -> Result<Self, InvalidAuthority> {
        let mut roots = RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<_, _>>()
            .map_err(|error| InvalidAuthority(error.to_string()))?;
        if certificates.is_empty() {
            return Err(InvalidAuthority("there is none".to_owned()));
        }
        for certificate in certificates {
            roots.add(certificate).map_err(|error| InvalidAuthority(error.to_string()))?;
        }
        Ok(Self::in_roots(roots))
    }

    fn in_roots(roots: RootCertStore) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has the suites of every default version")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self(Arc::new(config))
    }

    /// An HTTP client that reaches the edges' names at their addresses.
    pub(crate) fn http(&self, edges: &[Edge]) -> ClientBuilder {
        let config = ClientConfig::clone(&self.0);
        let builder = reqwest::Client::builder().no_proxy().tls_backend_preconfigured(config);
        edges.iter().filter_map(Edge::tls_address).fold(builder, |builder, (name, address)| {
            builder.resolve(name, address) // the name is what the certificate is checked for
        })
    }

    /// Connects for a stream. `prepare` sees the socket before anything is said on it.
    pub(crate) async fn connect(
        &self,
        target: &Target,
        prepare: impl FnOnce(&TcpStream) -> io::Result<()>,
    ) -> io::Result<Box<dyn Transport>> {
        let tcp = TcpStream::connect(&target.upstream).await?;
        prepare(&tcp)?;
        match target.security {
            Security::Plain => Ok(Box::new(tcp)),
            Security::Tls => {
                let name = ServerName::try_from(target.name().to_owned()).map_err(io::Error::other)?;
                Ok(Box::new(TlsConnector::from(Arc::clone(&self.0)).connect(name, tcp).await?))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_authority_is_refused_with_a_sentence() {
        for text in ["", "no PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            let error = Trust::with_authority(text.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with("expected PEM certificates of authorities: "), "{error}");
        }
    }
}
