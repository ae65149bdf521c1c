//! A Kubernetes cluster inside a [`Sandbox`]: real programs, real pods, real network.
//!
//! Everything that is not in the cluster and not a pod (the tests, the simulator, redis) runs in the sandbox beside it
//! and has the first node's address, 10.240.0.1: pods reach it there, and it reaches pods and Services as they are.
//! What was found out about the programs' wishes is said where it is obeyed, in the modules below this one.

mod control_plane;
mod dns;
mod network;
mod node;
mod outage;
mod pki;

use std::{
    fs,
    net::Ipv4Addr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Node, ServiceAccount};
use kube::{Api, Client, Config, config::KubeConfigOptions, config::Kubeconfig};

use crate::{
    OciImage, audit,
    process::Guard,
    sandbox::{Sandbox, state},
    tools::Tools,
    wait::wait_for,
};
use control_plane::Size;
use node::NodeId;
use pki::Pki;

/// How a cluster is brought up.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// How many nodes there are. With none nothing runs but the control plane, and nothing makes pods.
    pub nodes: u8,
    /// How long each part may take to become ready. Seconds on an idle machine; the default is for a busy one.
    pub patience: Duration,
    /// Whether steps are reported on stderr.
    pub reports_progress: bool,
}

/// A running cluster; dropping it ends its programs, and the end of the sandbox everything else.
pub struct Cluster {
    client: Client,
    kubeconfig: PathBuf,
    directory: PathBuf,
    logs: PathBuf,
    tools: Tools,
    pki: Pki,
    size: Size,
    components: Mutex<Vec<Guard>>,
    nodes: Vec<node::Node>,
}

/// Its place among the components.
const API_SERVER: usize = 1;

impl Default for ClusterOptions {
    fn default() -> Self {
        Self { nodes: 1, patience: Duration::from_secs(180), reports_progress: true }
    }
}

impl Cluster {
    /// Brings a cluster up, and returns when its nodes are ready and pods can be created.
    ///
    /// # Errors
    /// When a program is missing, ends, or is not ready in time; the message has the end of the log concerned.
    pub async fn up(sandbox: &Sandbox, options: ClusterOptions) -> Result<Self> {
        let ClusterOptions { nodes: count, patience, reports_progress } = options;
        let started = Instant::now();
        let progress = |message: &str| {
            if reports_progress {
                eprintln!("cluster: {:5.1} s  {message}", started.elapsed().as_secs_f64());
            }
        };
        let tools = Tools::locate()?;
        let directory = sandbox.directory().to_owned();
        let logs = directory.join("logs");
        fs::create_dir_all(&logs)?;
        network::set_up().context("the cluster's network cannot be set up")?;
        let size = Size::of(count);
        let ids = || NodeId::first(count);
        let identities: Vec<_> = ids().map(|id| (id.name(), id.address())).collect();
        let pki = Pki::create(directory.join("pki"), &identities).context("no certificates")?;
        let kubeconfig = pki.kubeconfig(pki::ADMIN)?;
        let client = connect(&kubeconfig).await?;

        let mut nodes = Vec::new();
        for id in ids() {
            if id != NodeId::FIRST {
                network::join(id).with_context(|| format!("{} has no network", id.name()))?;
            }
            let node = node::Node::create(id, sandbox, &logs)?;
            node.start_runtime()?;
            nodes.push(node);
        }
        let mut components = vec![
            control_plane::start_etcd(&directory.join("etcd"), &logs)?,
            control_plane::start_api_server(&tools, &pki, size, &directory, &logs)?,
        ];
        progress("starting the API server");
        let check = || components.iter().try_for_each(Guard::check);
        control_plane::wait_until_ready(&client, check, patience).await?;
        progress("API server ready, starting the rest");
        components.push(control_plane::start_controller_manager(&tools, &pki, size, &directory, &logs)?);
        components.push(control_plane::start_scheduler(&tools, &pki, &logs)?);
        components.push(dns::start(&tools, &kubeconfig, &directory, &logs)?);
        for node in &nodes {
            node.join(&tools, &pki).await?;
        }

        let components = Mutex::new(components);
        let cluster = Self { client, kubeconfig, directory, logs, tools, pki, size, components, nodes };
        cluster.wait_for_nodes(patience).await?;
        dns::wait_until_ready(patience).await?;
        progress(if count == 0 { "control plane ready" } else { "nodes ready" });
        cluster.write_entrance()?;
        Ok(cluster)
    }

    /// A client that may do everything.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// A client that speaks as the bearer of `token` and has no other rights.
    ///
    /// # Errors
    /// When the kubeconfig, which has the address and the authority, cannot be read.
    pub async fn client_with_token(&self, token: String) -> Result<Client> {
        let mut config = config_of(&self.kubeconfig).await?;
        config.auth_info = kube::config::AuthInfo { token: Some(token.into()), ..Default::default() };
        Ok(Client::try_from(config)?)
    }

    /// The administrator's kubeconfig; its address is valid inside the sandbox.
    #[must_use]
    pub fn kubeconfig_path(&self) -> &Path {
        &self.kubeconfig
    }

    /// The kubectl of this cluster's version.
    ///
    /// # Errors
    /// When there is none.
    pub fn kubectl_path(&self) -> Result<&Path> {
        self.tools.path("kubectl")
    }

    /// Runs kubectl as the administrator, and returns what it prints.
    ///
    /// # Errors
    /// When it fails; the message has what it said.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let mut command = tokio::process::Command::from(self.tools.command("kubectl")?);
        let output = command
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            // By default in the home folder and named after the address, which clusters side by side have in common.
            .arg("--cache-dir")
            .arg(self.directory.join("kubectl-cache"))
            .args(arguments)
            .output()
            .await?;
        ensure!(
            output.status.success(),
            "kubectl {} failed ({}): {}",
            arguments.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The first node's address, under which pods also reach what runs beside the cluster.
    #[must_use]
    pub fn node_address(&self) -> Ipv4Addr {
        network::NODE_ADDRESS
    }

    /// The first node's name.
    #[must_use]
    pub fn node_name(&self) -> String {
        NodeId::FIRST.name()
    }

    /// What the operator's service account asked of the API server; `skip` leaves out what was read before.
    ///
    /// # Errors
    /// When the audit log cannot be read.
    pub fn requests(&self, skip: usize) -> Result<Vec<audit::Request>> {
        audit::read(&self.logs, skip)
    }

    /// The folder with all of the cluster's files; removed with the sandbox.
    #[must_use]
    pub fn state_dir(&self) -> &Path {
        &self.directory
    }

    /// The folder with a log per program.
    #[must_use]
    pub fn log_dir(&self) -> &Path {
        &self.logs
    }

    /// Starts a process beside the cluster, with its output in the log folder; it ends with the returned guard.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, name: &str, command: &mut Command) -> Result<Guard> {
        Guard::spawn(name, command, self.logs.join(format!("{name}.log")))
    }

    /// Gives every node an image; pods use it with `imagePullPolicy: Never` or `IfNotPresent`.
    ///
    /// # Errors
    /// When the archive cannot be written or containerd does not take it.
    pub async fn import_image(&self, image: &OciImage) -> Result<()> {
        for node in &self.nodes {
            node.import_image(image).await?;
        }
        Ok(())
    }

    /// An error with the end of its log if one of the cluster's programs has ended.
    ///
    /// # Errors
    /// When one has.
    pub fn check(&self) -> Result<()> {
        self.components().iter().try_for_each(Guard::check)?;
        self.nodes.iter().try_for_each(node::Node::check)
    }

    /// Kills the API server and starts it anew; returns when it answers. Everybody's watches break.
    ///
    /// # Errors
    /// When it does not come back in time.
    pub async fn restart_api_server(&self, within: Duration) -> Result<()> {
        {
            let mut components = self.components();
            // First, because the new one wants the same port.
            drop(components.remove(API_SERVER));
            let log = self.logs.join("kube-apiserver.log");
            fs::rename(&log, log.with_extension("before.log")).context("the log cannot be kept")?;
            let started = control_plane::start_api_server(
                &self.tools,
                &self.pki,
                self.size,
                &self.directory,
                &self.logs,
            )?;
            components.insert(API_SERVER, started);
        }
        control_plane::wait_until_ready(&self.client, || self.check(), within).await
    }

    fn components(&self) -> MutexGuard<'_, Vec<Guard>> {
        self.components.lock().unwrap_or_else(PoisonError::into_inner) // a list of processes stays usable
    }

    /// Waits until every node is ready.
    pub(crate) async fn wait_for_nodes(&self, patience: Duration) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.client());
        let accounts: Api<ServiceAccount> = Api::default_namespaced(self.client());
        let waited = wait_for("the nodes to be ready", patience, async || {
            if let Err(dead) = self.check() {
                return Ok(Some(Err(dead)));
            }
            for node in &self.nodes {
                if !nodes.get_opt(&node.id.name()).await?.is_some_and(|node| is_ready(&node)) {
                    return Ok(None);
                }
            }
            // Made by the controller manager; without it no pod can be created.
            Ok(accounts.get_opt("default").await?.map(|_| Ok(())))
        })
        .await;
        let told = |error: anyhow::Error| {
            let logs = self.nodes.iter().map(|node| crate::wait::end_of(&node.kubelet_log()));
            error.context(logs.collect::<Vec<_>>().join("\n"))
        };
        waited.map_err(told)?
    }

    /// A script that runs a command inside, for people: `<script> kubectl get pods`.
    #[must_use]
    pub fn entrance(&self) -> PathBuf {
        self.directory.join("enter")
    }

    fn write_entrance(&self) -> Result<()> {
        let kubectl = self.tools.path("kubectl")?;
        let script = format!(
            "#!/bin/sh\n\
             # Runs a command inside this cluster's sandbox, in the folder where it is called; needs root.\n\
             exec nsenter --target \"$(cat '{init}')\" --net --mount --pid --wdns=\"$PWD\" -- \\\n    \
             env KUBECONFIG='{kubeconfig}' PATH='{tools}':\"$PATH\" \"$@\"\n",
            init = self.directory.join(state::INIT).display(),
            kubeconfig = self.kubeconfig.display(),
            tools = kubectl.parent().context("kubectl is in a folder")?.display(),
        );
        let path = self.entrance();
        fs::write(&path, script)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(())
    }
}

async fn config_of(kubeconfig: &Path) -> Result<Config> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    Ok(Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?)
}

async fn connect(kubeconfig: &Path) -> Result<Client> {
    Ok(Client::try_from(config_of(kubeconfig).await?)?)
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
