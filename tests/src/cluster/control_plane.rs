//! etcd, API server, controller manager and scheduler, as processes.
//!
//! Deviations from a production control plane, all for speed: etcd does not sync to disk, nobody elects a leader, and
//! the autoscaler looks every two seconds.

use std::{path::Path, process::Command, time::Duration};

use anyhow::Result;
use kube::Client;

use super::{
    network::{API_PORT, NODE_ADDRESS, SERVICE_RANGE},
    pki::{self, Pki, write_json},
};
use crate::{audit, installation::OPERATOR_NAMESPACE, process::Guard, tools::Tools, wait::wait_for};

const ETCD: &str = "http://127.0.0.1:2379";
/// What makes pods, and what asks for their metrics.
const CONTROLLERS_OF_PODS: [&str; 3] =
    ["deployment-controller", "replicaset-controller", "horizontal-pod-autoscaler-controller"];

/// What of the control plane depends on the number of nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    NoNode,
    OneNode,
    SeveralNodes,
}

impl Size {
    pub(crate) const fn of(nodes: u8) -> Self {
        match nodes {
            0 => Self::NoNode,
            1 => Self::OneNode,
            _ => Self::SeveralNodes,
        }
    }
}

pub(crate) fn start_etcd(data: &Path, log: &Path) -> Result<Guard> {
    let mut command = Command::new("etcd");
    command
        .arg("--data-dir")
        .arg(data)
        .arg("--unsafe-no-fsync")
        .args(["--listen-client-urls", ETCD, "--advertise-client-urls", ETCD])
        .args(["--listen-peer-urls", "http://127.0.0.1:2380"])
        .args(["--logger", "zap"]);
    Guard::spawn("etcd", &mut command, log.join("etcd.log"))
}

/// Starts the API server. What Switchboard's service accounts ask of it is in `audit.log`, see [`crate::audit`].
pub(crate) fn start_api_server(
    tools: &Tools,
    pki: &Pki,
    size: Size,
    directory: &Path,
    log: &Path,
) -> Result<Guard> {
    let audit_policy = directory.join("audit-policy.json");
    write_json(&audit_policy, &audit::policy(OPERATOR_NAMESPACE))?;
    let flag = |name: &str, path: std::path::PathBuf| format!("--{name}={}", path.display());
    let mut command = tools.command("kube-apiserver")?;
    command
        .args([
            format!("--etcd-servers={ETCD}"),
            format!("--advertise-address={NODE_ADDRESS}"),
            format!("--service-cluster-ip-range={SERVICE_RANGE}"),
        ])
        .arg(format!("--secure-port={API_PORT}"))
        .args(["--allow-privileged=true", "--profiling=false"])
        // Without these two every mistake in a role would go unnoticed.
        .args(["--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction"])
        .args([
            flag("client-ca-file", pki.certificate("ca")),
            flag("tls-cert-file", pki.certificate("kube-apiserver")),
            flag("tls-private-key-file", pki.key("kube-apiserver")),
            flag("kubelet-certificate-authority", pki.certificate("ca")),
            flag("kubelet-client-certificate", pki.certificate("kubelet-client")),
            flag("kubelet-client-key", pki.key("kubelet-client")),
            flag("service-account-key-file", pki.public_key(pki::SERVICE_ACCOUNTS)),
            flag("service-account-signing-key-file", pki.key(pki::SERVICE_ACCOUNTS)),
        ])
        .args([
            "--kubelet-preferred-address-types=InternalIP",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        ])
        // Aggregation, for the custom metrics API.
        .args([
            flag("requestheader-client-ca-file", pki.certificate("front-proxy-ca")),
            flag("proxy-client-cert-file", pki.certificate(pki::FRONT_PROXY)),
            flag("proxy-client-key-file", pki.key(pki::FRONT_PROXY)),
            format!("--requestheader-allowed-names={}", pki::FRONT_PROXY),
        ])
        .args([
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        ])
        .args([flag("audit-policy-file", audit_policy), flag("audit-log-path", audit::log(log))]);
    if size == Size::SeveralNodes {
        // How long pods stay on a lost node: five minutes by default, which no test waits for.
        let seconds =
            ["--default-not-ready-toleration-seconds=2", "--default-unreachable-toleration-seconds=2"];
        command.args(seconds);
    }
    Guard::spawn("kube-apiserver", &mut command, log.join("kube-apiserver.log"))
}

/// Waits until the API server answers that it is ready, or `check` says that a part of the cluster ended.
pub(crate) async fn wait_until_ready(
    client: &Client,
    check: impl Fn() -> Result<()>,
    within: Duration,
) -> Result<()> {
    wait_for("the API server", within, async || {
        if let Err(dead) = check() {
            return Ok(Some(Err(dead)));
        }
        let request = http_get("/readyz")?;
        Ok((client.request_text(request).await? == "ok").then_some(Ok(())))
    })
    .await?
}

pub(crate) fn start_controller_manager(
    tools: &Tools,
    pki: &Pki,
    size: Size,
    directory: &Path,
    log: &Path,
) -> Result<Guard> {
    let mut command = tools.command("kube-controller-manager")?;
    command
        .arg("--kubeconfig")
        .arg(pki.kubeconfig(pki::CONTROLLER_MANAGER)?)
        .arg("--service-account-private-key-file")
        .arg(pki.key(pki::SERVICE_ACCOUNTS))
        .arg("--root-ca-file")
        .arg(pki.certificate("ca"))
        .arg("--cluster-signing-cert-file")
        .arg(pki.certificate("ca"))
        .arg("--cluster-signing-key-file")
        .arg(pki.key("ca"))
        // It creates the folder, which by default is the machine's.
        .arg("--flex-volume-plugin-dir")
        .arg(directory.join("volume-plugins"))
        .args(["--leader-elect=false", "--use-service-account-credentials=true", "--bind-address=127.0.0.1"])
        // It fetches an account for each controller when it starts, which at its usual 20 requests a second takes five.
        .args(["--kube-api-qps=300", "--kube-api-burst=600"])
        // Both minutes by default, which no test waits for.
        .args([
            "--horizontal-pod-autoscaler-sync-period=2s",
            "--horizontal-pod-autoscaler-downscale-stabilization=5s",
        ]);
    match size {
        // Nothing could run, so nothing is asked for: pods that wait for ever would cost every watcher.
        Size::NoNode => {
            command.arg(format!("--controllers=*,-{}", CONTROLLERS_OF_PODS.join(",-")));
        }
        Size::OneNode => {}
        // 40 s by default; the kubelets renew their leases every two.
        Size::SeveralNodes => {
            command.arg("--node-monitor-grace-period=16s");
        }
    }
    Guard::spawn("kube-controller-manager", &mut command, log.join("kube-controller-manager.log"))
}

pub(crate) fn start_scheduler(tools: &Tools, pki: &Pki, log: &Path) -> Result<Guard> {
    let mut command = tools.command("kube-scheduler")?;
    command
        .arg("--kubeconfig")
        .arg(pki.kubeconfig(pki::SCHEDULER)?)
        .args(["--leader-elect=false", "--bind-address=127.0.0.1"]);
    Guard::spawn("kube-scheduler", &mut command, log.join("kube-scheduler.log"))
}

fn http_get(path: &str) -> Result<http::Request<Vec<u8>>> {
    Ok(http::Request::get(path).body(Vec::new())?)
}
