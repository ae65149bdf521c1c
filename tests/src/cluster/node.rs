//! The node: containerd, kubelet and kube-proxy, as processes, and the pods' network.
//!
//! Pods are wired with the `ptp` plugin, not `bridge`: each is routed to, so that its traffic passes the node's
//! netfilter even between two pods. On a bridge the answer of a Service's pod would go straight to the asking pod,
//! with the wrong address, unless the machine has `br_netfilter`.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result};
use serde_json::json;

use super::{
    dns,
    network::{CLUSTER_RANGE, NODE_ADDRESS, POD_RANGE},
    pki::{self, Pki, write_json},
};
use crate::{
    OciImage,
    process::{Guard, run},
    sandbox::{Sandbox, cgroup},
    tools::Tools,
    wait::wait_for,
};

pub(crate) const NAME: &str = "node-1";
/// On the sandbox's own `/run`, so that the default of every tool is right, and short enough for a socket.
const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";
/// Where Debian's containernetworking-plugins are.
const CNI_PLUGINS: &str = "/usr/lib/cni";
const PAUSE_IMAGE: &str = "switchboard.test/pause:1";

pub(crate) fn start_containerd(directory: &Path, log: &Path) -> Result<Guard> {
    let networks = directory.join("cni");
    fs::create_dir_all(&networks)?;
    write_json(
        &networks.join("pods.conflist"),
        &json!({
            "cniVersion": "0.4.0",
            "name": "pods",
            "plugins": [
                {
                    "type": "ptp",
                    "ipMasq": false,
                    "ipam": {"type": "host-local", "subnet": POD_RANGE, "routes": [{"dst": "0.0.0.0/0"}]},
                },
                {"type": "portmap", "capabilities": {"portMappings": true}},
            ],
        }),
    )?;
    let config = directory.join("containerd.toml");
    fs::write(
        &config,
        format!(
            r#"version = 2
root = "{root}"
state = "/run/containerd"
disabled_plugins = [
    "io.containerd.internal.v1.opt",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
]

[grpc]
address = "{CONTAINERD_SOCKET}"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE_IMAGE}"
disable_apparmor = true
# Without CAP_SYS_RESOURCE runc cannot lower a score, and dies of it.
restrict_oom_score_adj = true

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{CNI_PLUGINS}"
conf_dir = "{networks}"
"#,
            root = directory.join("containerd").display(),
            networks = networks.display(),
        ),
    )?;
    Guard::spawn(
        "containerd",
        Command::new("containerd").arg("--config").arg(&config),
        log.join("containerd.log"),
    )
}

/// Waits until containerd takes requests, and gives it the image that holds pods' namespaces.
pub(crate) async fn import_pause_image(tools: &Tools, directory: &Path, containerd: &Guard) -> Result<()> {
    wait_for("containerd", Duration::from_secs(60), async || {
        if let Err(dead) = containerd.check() {
            return Ok(Some(Err(dead)));
        }
        run(Command::new("ctr").arg("version")).map(|_| Some(Ok(())))
    })
    .await??;
    import_image(directory, &OciImage::of_binary(PAUSE_IMAGE, tools.path("pause")?)?).await
}

/// Gives containerd an image, and waits until its Kubernetes side knows it.
pub(crate) async fn import_image(directory: &Path, image: &OciImage) -> Result<()> {
    let archive = directory.join(format!("{}.tar", image.reference().replace(['/', ':'], "-")));
    image.write_archive(&archive).with_context(|| format!("no archive of {}", image.reference()))?;
    let imported = run(Command::new("ctr").args(["--namespace", "k8s.io", "images", "import"]).arg(&archive));
    fs::remove_file(&archive)?;
    imported?;
    // The kubelet would look too early otherwise, and look again only after ten seconds.
    wait_for(&format!("containerd to take {} over", image.reference()), Duration::from_secs(20), async || {
        let filter = format!("name=={}", image.reference());
        let listed = run(Command::new("ctr").args(["--namespace", "k8s.io", "images", "list", &filter]))?;
        Ok(listed.contains("io.cri-containerd.image=managed").then_some(()))
    })
    .await
}

pub(crate) fn start_kubelet(tools: &Tools, pki: &Pki, sandbox: &Sandbox, log: &Path) -> Result<Guard> {
    let directory = sandbox.directory();
    cgroup::create(sandbox.name())?;
    let config = directory.join("kubelet.json");
    write_json(
        &config,
        &json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": NODE_ADDRESS,
            "authentication": {
                "anonymous": {"enabled": false},
                "webhook": {"enabled": true},
                "x509": {"clientCAFile": pki.certificate("ca")},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": pki.certificate(pki::KUBELET),
            "tlsPrivateKeyFile": pki.key(pki::KUBELET),
            "containerRuntimeEndpoint": format!("unix://{CONTAINERD_SOCKET}"),
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": format!("/{}", sandbox.name()),
            "failCgroupV1": false,
            "failSwapOn": false,
            // The machine is not the cluster's: nothing is reserved, evicted or collected on its account.
            "enforceNodeAllocatable": [],
            "evictionHard": {},
            "imageGCHighThresholdPercent": 100,
            "podLogsDir": directory.join("pod-logs"),
            "volumePluginDir": directory.join("volume-plugins"),
            "clusterDNS": [NODE_ADDRESS],
            "clusterDomain": dns::DOMAIN,
            // Pods must not inherit the machine's name servers: they cannot be reached from here.
            "resolvConf": dns::resolver_file(directory),
            // A changed ConfigMap reaches its volume within this, not within the minute of the default.
            "syncFrequency": "2s",
            "registerNode": true,
        }),
    )?;
    let mut command = tools.command("kubelet")?;
    command
        .arg("--config")
        .arg(&config)
        .arg("--kubeconfig")
        .arg(pki.kubeconfig(pki::KUBELET)?)
        .arg("--root-dir")
        .arg(directory.join("kubelet"))
        .arg(format!("--hostname-override={NAME}"))
        .arg(format!("--node-ip={NODE_ADDRESS}"));
    Guard::spawn("kubelet", &mut command, log.join("kubelet.log"))
}

pub(crate) fn start_proxy(tools: &Tools, pki: &Pki, directory: &Path, log: &Path) -> Result<Guard> {
    let config = directory.join("kube-proxy.json");
    write_json(
        &config,
        &json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "iptables",
            "clientConnection": {"kubeconfig": pki.kubeconfig(pki::PROXY)?},
            "clusterCIDR": CLUSTER_RANGE,
            "hostnameOverride": NAME,
            // The table of connections belongs to the machine, so its size is left alone.
            "conntrack": {"maxPerCore": 0, "min": 0},
            "iptables": {"minSyncPeriod": "100ms"},
        }),
    )?;
    let mut command = tools.command("kube-proxy")?;
    command.arg("--config").arg(&config);
    Guard::spawn("kube-proxy", &mut command, log.join("kube-proxy.log"))
}
