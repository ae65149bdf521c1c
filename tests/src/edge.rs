//! The public edge beside a cluster: a real nginx that ends TLS before the agents' Services, with the configuration that
//! users are given (`manifests/samples/edge/nginx/nginx.conf`) and a certificate of an authority of its own.
//!
//! Only what has to be is changed: the name server's address, where certificate, log and process id are, and the user.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};

use crate::installation::repository;
use crate::process::run;
use crate::{Cluster, Guard, wait_for};

/// The host of the public URL, as the configuration and the certificate have it.
pub const PUBLIC_HOST: &str = "voice.example.com";

/// A running nginx.
#[derive(Debug)]
pub struct Edge {
    process: Guard,
    requests: PathBuf,
    directory: PathBuf,
    address: SocketAddr,
    configuration: String,
}

impl Edge {
    /// Starts it on the node's address, port 443.
    ///
    /// # Errors
    /// When nginx is missing, refuses the configuration, or does not answer in time; the message has the end of its log.
    pub async fn start(cluster: &Cluster) -> Result<Self> {
        let directory = cluster.state_dir().join("edge");
        fs::create_dir_all(&directory)?;
        write_certificate(&directory).context("no certificate for the edge")?;
        let configuration = configuration(cluster, &directory)?;
        fs::write(directory.join("nginx.conf"), &configuration)?;
        let process = cluster.spawn("edge", nginx(&directory).arg("-g").arg("daemon off;"))?;
        let address = SocketAddr::from((cluster.node_address(), 443));
        let edge = Self { process, requests: requests(cluster), directory, address, configuration };
        wait_for("the edge", Duration::from_secs(20), async || {
            if let Err(ended) = edge.process.check() {
                return Ok(Some(Err(ended)));
            }
            Ok(tokio::net::TcpStream::connect(address).await.is_ok().then_some(Ok(())))
        })
        .await
        .with_context(|| crate::end_of(edge.process.log()))??;
        Ok(edge)
    }

    /// Where it answers.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The authority that vouches for it, as PEM.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        authority(&self.directory)
    }

    /// A line for each request that is over: time, status, method, path, seconds, upstream.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn requests(&self) -> Result<String> {
        fs::read_to_string(&self.requests).context("the edge's log of requests cannot be read")
    }

    /// Reloads the configuration, with `change` in the place of what it says of the same directive, and returns when new
    /// workers have begun and no old one takes connections any more. The old ones are left to end as they will.
    ///
    /// # Errors
    /// When the configuration does not have that directive once, or nginx refuses it.
    pub async fn reload(&self, change: Option<(&str, &str)>) -> Result<()> {
        let changed = match change {
            None => self.configuration.clone(),
            Some((directive, value)) => with_directive(&self.configuration, directive, value)?,
        };
        fs::write(self.directory.join("nginx.conf"), changed)?;
        let before = self.workers()?;
        run(nginx(&self.directory).args(["-s", "reload"])).context("nginx does not reload")?;
        wait_for("new workers of the edge in the place of the old", Duration::from_secs(20), async || {
            let leaving = self.leaving_workers()?;
            let accepting: Vec<u32> =
                self.workers()?.into_iter().filter(|worker| !leaving.contains(worker)).collect();
            let is_new = |worker: &u32| !before.contains(worker);
            Ok((!accepting.is_empty() && accepting.iter().all(is_new)).then_some(()))
        })
        .await
    }

    /// Waits until no worker from before a reload is left.
    ///
    /// # Errors
    /// When one still is.
    pub async fn wait_for_old_workers(&self, within: Duration) -> Result<()> {
        wait_for("the edge's old workers to end", within, async || {
            Ok(self.leaving_workers()?.is_empty().then_some(()))
        })
        .await
    }

    /// Workers that a reload asked to end, and that still have connections.
    ///
    /// # Errors
    /// When the processes cannot be listed.
    pub fn leaving_workers(&self) -> Result<Vec<u32>> {
        Ok(self
            .children()?
            .into_iter()
            .filter(|(_, title)| title.contains("shutting down"))
            .map(|(id, _)| id)
            .collect())
    }

    fn workers(&self) -> Result<Vec<u32>> {
        Ok(self.children()?.into_iter().map(|(id, _)| id).collect())
    }

    /// The master's children, with the titles they give themselves.
    fn children(&self) -> Result<Vec<(u32, String)>> {
        let master = self.process.id();
        let children = fs::read_to_string(format!("/proc/{master}/task/{master}/children"))
            .context("the edge's workers cannot be listed")?;
        let children = children.split_whitespace().filter_map(|id| id.parse().ok());
        Ok(children
            .map(|id| (id, fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap_or_default()))
            .filter(|(_, title)| !title.is_empty())
            .collect())
    }
}

fn nginx(directory: &Path) -> Command {
    let mut command = Command::new("nginx");
    command.arg("-p").arg(directory).arg("-c").arg(directory.join("nginx.conf")).args(["-e", "stderr"]);
    command
}

fn requests(cluster: &Cluster) -> PathBuf {
    cluster.log_dir().join("edge-requests.log")
}

fn authority(directory: &Path) -> PathBuf {
    directory.join("authority.pem")
}

fn write_certificate(directory: &Path) -> Result<()> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Switchboard's tests");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new([PUBLIC_HOST.to_owned()])?;
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, &issuer)?;
    fs::write(authority(directory), issuer.pem())?;
    fs::write(directory.join("tls.crt"), certificate.pem())?;
    fs::write(directory.join("tls.key"), key.serialize_pem())?;
    Ok(())
}

/// The sample, for this cluster.
fn configuration(cluster: &Cluster, directory: &Path) -> Result<String> {
    let path = repository().join("manifests/samples/edge/nginx/nginx.conf");
    let sample = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let resolver = format!("{} valid=1s ipv6=off", cluster.node_address());
    let file = |name: &str| directory.join(name).display().to_string();
    let sample = with_directive(&sample, "resolver", &resolver)?;
    let sample = with_directive(&sample, "access_log", &format!("{} edge", requests(cluster).display()))?;
    let sample = with_directive(&sample, "ssl_certificate", &file("tls.crt"))?;
    let sample = with_directive(&sample, "ssl_certificate_key", &file("tls.key"))?;
    let own = format!("pid {};\nerror_log stderr notice;\nuser root;\n", file("nginx.pid"));
    Ok(own + &sample)
}

/// A configuration with another value for a directive that it has once.
fn with_directive(configuration: &str, directive: &str, value: &str) -> Result<String> {
    let mut found = 0;
    let lines: Vec<String> = configuration
        .lines()
        .map(|line| {
            if line.split_whitespace().next() == Some(directive) {
                found += 1;
                format!("{directive} {value};")
            } else {
                line.to_owned()
            }
        })
        .collect();
    ensure!(found == 1, "the configuration has {found} lines with {directive}, expected one");
    Ok(lines.join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directive_that_is_there_once_is_replaced_and_nothing_else() {
        let before = "a 1;\n  b 2; # of b\nbc 3;\n";
        assert_eq!(with_directive(before, "b", "9").expect("once"), "a 1;\nb 9;\nbc 3;\n");
        assert!(with_directive(before, "c", "9").is_err());
        assert!(with_directive("a 1;\na 2;\n", "a", "9").is_err());
    }
}
