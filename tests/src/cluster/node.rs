//! A node: containerd, kubelet and kube-proxy, as processes, and its pods' network.
//!
//! Pods are wired with the `ptp` plugin, not `bridge`: each is routed to, so that its traffic passes the node's
//! netfilter even between two pods. On a bridge the answer of a Service's pod would go straight to the asking pod,
//! with the wrong address, unless the machine has `br_netfilter`.
//!
//! The first node is in the sandbox's own network namespace, and its containerd where every tool looks for it. Further
//! nodes have everything of their own: network namespace, folders, sockets, control group.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::json;

use super::{
    dns,
    network::{CLUSTER_RANGE, NODE_ADDRESS, namespace},
    pki::{self, Pki, write_json},
};
use crate::{
    OciImage,
    process::{Guard, run, send_signal},
    sandbox::{Sandbox, cgroup},
    tools::Tools,
    wait::wait_for,
};

/// Which node: its number, from 1, gives it name and addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NodeId(u8);

impl NodeId {
    pub(crate) const FIRST: Self = Self(1);

    /// So many nodes.
    pub(crate) fn first(count: u8) -> impl Iterator<Item = Self> {
        (1..=count).map(Self)
    }

    /// All with a lower number.
    pub(crate) fn earlier(self) -> impl Iterator<Item = Self> {
        (1..self.0).map(Self)
    }

    pub(crate) fn name(self) -> String {
        format!("node-{}", self.0)
    }

    pub(crate) const fn address(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 240, 0, self.0)
    }

    /// Its pods.
    pub(crate) fn pod_range(self) -> String {
        format!("10.244.{}.0/24", self.0)
    }

    /// A command that runs in its network namespace.
    pub(crate) fn command(self, program: &Path) -> Command {
        if self == Self::FIRST {
            return Command::new(program);
        }
        // Not `ip netns exec`, which mounts a `/sys` without control groups.
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", namespace(self).display())).arg("--").arg(program);
        command
    }

    /// Where containerd keeps its sockets: on the sandbox's own `/run`, and short enough for one.
    fn runtime_folder(self) -> PathBuf {
        match self {
            Self::FIRST => PathBuf::from("/run/containerd"),
            _ => Path::new("/run").join(self.name()),
        }
    }

    fn containerd_socket(self) -> PathBuf {
        self.runtime_folder().join("containerd.sock")
    }

    fn ctr(self) -> Command {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(self.containerd_socket());
        command
    }
}

/// Where Debian's containernetworking-plugins are.
const CNI_PLUGINS: &str = "/usr/lib/cni";
const PAUSE_IMAGE: &str = "switchboard.test/pause:1";

/// A node's programs and files.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: NodeId,
    /// The sandbox's name, which its control groups are below.
    sandbox: String,
    /// The cluster's state folder.
    state: PathBuf,
    /// What is the node's alone.
    directory: PathBuf,
    logs: PathBuf,
    programs: Mutex<Vec<Guard>>,
}

impl Node {
    /// Makes its folders and its control group.
    pub(crate) fn create(id: NodeId, sandbox: &Sandbox, logs: &Path) -> Result<Self> {
        let state = sandbox.directory().to_owned();
        let directory = state.join(id.name());
        fs::create_dir_all(&directory)?;
        let node = Self {
            id,
            sandbox: sandbox.name().to_owned(),
            state,
            directory,
            logs: logs.to_owned(),
            programs: Mutex::default(),
        };
        cgroup::create(&node.control_group())?;
        Ok(node)
    }

    /// Starts containerd.
    pub(crate) fn start_runtime(&self) -> Result<()> {
        let networks = self.directory.join("cni");
        fs::create_dir_all(&networks)?;
        let pods = json!({
            "type": "host-local",
            "dataDir": self.directory.join("addresses"),
            "subnet": self.id.pod_range(),
            "routes": [{"dst": "0.0.0.0/0"}],
        });
        write_json(
            &networks.join("pods.conflist"),
            &json!({
                "cniVersion": "0.4.0",
                "name": "pods",
                "plugins": [
                    {"type": "ptp", "ipMasq": false, "ipam": pods},
                    {"type": "portmap", "capabilities": {"portMappings": true}},
                ],
            }),
        )?;
        let config = self.directory.join("containerd.toml");
        fs::write(
            &config,
            format!(
                r#"version = 2
root = "{root}"
state = "{state}"
disabled_plugins = [
    "io.containerd.internal.v1.opt",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
]

[grpc]
address = "{socket}"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE_IMAGE}"
disable_apparmor = true
# Without CAP_SYS_RESOURCE runc cannot lower a score, and dies of it.
restrict_oom_score_adj = true

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{CNI_PLUGINS}"
conf_dir = "{networks}"
"#,
                root = self.directory.join("containerd").display(),
                state = self.id.runtime_folder().display(),
                socket = self.id.containerd_socket().display(),
                networks = networks.display(),
            ),
        )?;
        let mut command = self.id.command(Path::new("containerd"));
        command.arg("--config").arg(&config);
        self.spawn("containerd", &mut command)
    }

    /// Waits until containerd takes requests, gives it the image that holds pods' namespaces, and starts the rest.
    pub(crate) async fn join(&self, tools: &Tools, pki: &Pki) -> Result<()> {
        wait_for("containerd", Duration::from_secs(60), async || {
            if let Err(dead) = self.check() {
                return Ok(Some(Err(dead)));
            }
            run(self.id.ctr().arg("version")).map(|_| Some(Ok(())))
        })
        .await??;
        self.import_image(&OciImage::of_binary(PAUSE_IMAGE, tools.path("pause")?)?).await?;
        self.start_kubelet(tools, pki)?;
        self.start_proxy(tools, pki)
    }

    /// Ends everything that runs on it at once, containers too, as when a machine loses power.
    pub(crate) async fn kill(&self) -> Result<()> {
        wait_for(&format!("the end of {}", self.id.name()), Duration::from_secs(30), async || {
            let alive = self.processes()?;
            for process in &alive {
                // It may have ended by itself meanwhile.
                let _ = send_signal("KILL", *process);
            }
            Ok(alive.is_empty().then_some(()))
        })
        .await?;
        self.programs().clear();
        Ok(())
    }

    /// An error with the end of its log if one of the programs has ended.
    pub(crate) fn check(&self) -> Result<()> {
        self.programs().iter().try_for_each(Guard::check)
    }

    /// Where the kubelet's output goes.
    pub(crate) fn kubelet_log(&self) -> PathBuf {
        self.log("kubelet")
    }

    /// Gives containerd an image, and waits until its Kubernetes side knows it.
    pub(crate) async fn import_image(&self, image: &OciImage) -> Result<()> {
        let archive = self.directory.join(format!("{}.tar", image.reference().replace(['/', ':'], "-")));
        image.write_archive(&archive).with_context(|| format!("no archive of {}", image.reference()))?;
        let imported = run(self.id.ctr().args(["--namespace", "k8s.io", "images", "import"]).arg(&archive));
        fs::remove_file(&archive)?;
        imported?;
        // The kubelet would look too early otherwise, and look again only after ten seconds.
        let what = format!("containerd to take {} over", image.reference());
        wait_for(&what, Duration::from_secs(20), async || {
            let filter = format!("name=={}", image.reference());
            let listed = run(self.id.ctr().args(["--namespace", "k8s.io", "images", "list", &filter]))?;
            Ok(listed.contains("io.cri-containerd.image=managed").then_some(()))
        })
        .await
    }

    fn start_kubelet(&self, tools: &Tools, pki: &Pki) -> Result<()> {
        let identity = pki::kubelet(&self.id.name());
        let config = self.directory.join("kubelet.json");
        write_json(
            &config,
            &json!({
                "apiVersion": "kubelet.config.k8s.io/v1beta1",
                "kind": "KubeletConfiguration",
                "address": self.id.address(),
                "authentication": {
                    "anonymous": {"enabled": false},
                    "webhook": {"enabled": true},
                    "x509": {"clientCAFile": pki.certificate("ca")},
                },
                "authorization": {"mode": "Webhook"},
                "tlsCertFile": pki.certificate(&identity),
                "tlsPrivateKeyFile": pki.key(&identity),
                "containerRuntimeEndpoint": format!("unix://{}", self.id.containerd_socket().display()),
                "cgroupDriver": "cgroupfs",
                "cgroupRoot": format!("/{}", self.control_group()),
                "failCgroupV1": false,
                "failSwapOn": false,
                // The machine is not the cluster's: nothing is reserved, evicted or collected on its account.
                "enforceNodeAllocatable": [],
                "evictionHard": {},
                "imageGCHighThresholdPercent": 100,
                "podLogsDir": self.state.join("pod-logs").join(self.id.name()),
                "volumePluginDir": self.directory.join("volume-plugins"),
                "clusterDNS": [NODE_ADDRESS],
                "clusterDomain": dns::DOMAIN,
                // Pods must not inherit the machine's name servers: they cannot be reached from here.
                "resolvConf": dns::resolver_file(&self.state),
                // A changed ConfigMap reaches its volume within this, not within the minute of the default.
                "syncFrequency": "2s",
                "registerNode": true,
                // Renewed four times within this; the controller manager's grace is twice as long.
                "nodeLeaseDurationSeconds": 8,
            }),
        )?;
        let mut command = self.id.command(tools.path("kubelet")?);
        command
            .arg("--config")
            .arg(&config)
            .arg("--kubeconfig")
            .arg(pki.kubeconfig(&identity)?)
            .arg("--root-dir")
            .arg(self.directory.join("kubelet"))
            .arg(format!("--hostname-override={}", self.id.name()))
            .arg(format!("--node-ip={}", self.id.address()));
        self.spawn("kubelet", &mut command)
    }

    fn start_proxy(&self, tools: &Tools, pki: &Pki) -> Result<()> {
        let config = self.directory.join("kube-proxy.json");
        write_json(
            &config,
            &json!({
                "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
                "kind": "KubeProxyConfiguration",
                "mode": "iptables",
                "clientConnection": {"kubeconfig": pki.kubeconfig(pki::PROXY)?},
                "clusterCIDR": CLUSTER_RANGE,
                "hostnameOverride": self.id.name(),
                // The table of connections belongs to the machine, so its size is left alone.
                "conntrack": {"maxPerCore": 0, "min": 0},
                "iptables": {"minSyncPeriod": "100ms"},
            }),
        )?;
        let mut command = self.id.command(tools.path("kube-proxy")?);
        command.arg("--config").arg(&config);
        self.spawn("kube-proxy", &mut command)
    }

    fn spawn(&self, program: &str, command: &mut Command) -> Result<()> {
        let log = self.log(program);
        if log.exists() {
            fs::rename(&log, log.with_extension("before.log")).context("a log cannot be kept")?;
        }
        let name = format!("{program} of {}", self.id.name());
        let guard = Guard::spawn(&name, command, log)?;
        self.programs().push(guard);
        Ok(())
    }

    fn log(&self, program: &str) -> PathBuf {
        self.logs.join(format!("{program}-{}.log", self.id.name()))
    }

    /// Below the sandbox's, which is removed with all that is in it.
    fn control_group(&self) -> String {
        format!("{}/{}", self.sandbox, self.id.name())
    }

    /// All its processes: those in its network namespace (containers' keepers too), and the containers themselves, which
    /// are in namespaces of their own but in its control group.
    fn processes(&self) -> Result<Vec<u32>> {
        use std::os::unix::fs::MetadataExt as _;
        let network = fs::metadata(namespace(self.id))?.ino();
        let group = format!("/{}/", self.control_group());
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(id) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
            // A process may end between the listing and the look at it.
            let is_here =
                fs::metadata(format!("/proc/{id}/ns/net")).is_ok_and(|found| found.ino() == network);
            let is_contained =
                fs::read_to_string(format!("/proc/{id}/cgroup")).is_ok_and(|groups| groups.contains(&group));
            let is_dead = fs::read_to_string(format!("/proc/{id}/status"))
                .map_or(true, |status| status.contains("State:\tZ"));
            if (is_here || is_contained) && !is_dead {
                found.push(id);
            }
        }
        Ok(found)
    }

    fn programs(&self) -> MutexGuard<'_, Vec<Guard>> {
        self.programs.lock().unwrap_or_else(PoisonError::into_inner) // a list of processes stays usable
    }
}
