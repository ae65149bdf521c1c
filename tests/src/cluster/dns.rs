//! Names of Services, for pods and for what runs beside the cluster: a CoreDNS as a process on the node.
//!
//! Every pod's resolver, and the sandbox's own, point at it; names outside the cluster are refused at once, because
//! there is no way out of the sandbox to ask anybody else.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};

use super::network::NODE_ADDRESS;
use crate::{
    process::{Guard, run},
    tools::Tools,
    wait::wait_for,
};

pub(crate) const DOMAIN: &str = "cluster.local";

/// What pods that want the node's resolver get, and the sandbox itself has.
pub(crate) fn resolver_file(directory: &Path) -> PathBuf {
    directory.join("resolv.conf")
}

pub(crate) fn start(tools: &Tools, kubeconfig: &Path, directory: &Path, log: &Path) -> Result<Guard> {
    let config = directory.join("Corefile");
    fs::write(
        &config,
        // Answers may be kept for a second only: tests change Services and look.
        format!(
            "{DOMAIN} in-addr.arpa {{\n    \
                 bind {NODE_ADDRESS}\n    \
                 errors\n    \
                 kubernetes {DOMAIN} in-addr.arpa {{\n        \
                     kubeconfig {} test\n        \
                     ttl 1\n    \
                 }}\n\
             }}\n",
            kubeconfig.display()
        ),
    )?;
    let resolver = resolver_file(directory);
    fs::write(&resolver, format!("search svc.{DOMAIN} {DOMAIN}\nnameserver {NODE_ADDRESS}\n"))?;
    resolve_by(&resolver).context("the sandbox's name server cannot be set")?;
    let mut command: Command = tools.command("coredns")?;
    Guard::spawn("coredns", command.arg("-conf").arg(&config), log.join("coredns.log"))
}

/// Waits until the API server's own Service has its address.
pub(crate) async fn wait_until_ready(within: Duration) -> Result<()> {
    let name = format!("kubernetes.default.svc.{DOMAIN}:443");
    wait_for("the cluster's name server", within, async || Ok(tokio::net::lookup_host(&name).await?.next()))
        .await
        .map(drop)
}

/// Puts `resolver` in the place of `/etc/resolv.conf`, in the sandbox only.
fn resolve_by(resolver: &Path) -> Result<()> {
    let file = Path::new("/etc/resolv.conf");
    if !file.exists() {
        // With systemd it is a link into `/run`, which in the sandbox is empty.
        let target = file.with_file_name(fs::read_link(file).context("there is no /etc/resolv.conf")?);
        fs::create_dir_all(target.parent().context("a link points to a file")?)?;
        File::create(target)?;
    }
    run(Command::new("mount").arg("--bind").arg(resolver).arg(file)).map(drop)
}
