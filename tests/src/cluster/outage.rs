//! What befalls a node: drained, cut off, lost, and back again.
//!
//! The first node has the control plane and everything beside the cluster, so it can only be drained.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Node as NodeObject;
use kube::Api;

use super::{
    Cluster,
    network::{self, Link, Voice},
    node::{Node, NodeId},
};
use crate::wait::wait_for;

impl Cluster {
    /// `kubectl drain`: evicts every pod of a node, and returns when the last has ended.
    ///
    /// # Errors
    /// When a pod cannot be evicted or does not end in time.
    pub async fn drain(&self, node: &str, within: Duration) -> Result<()> {
        let timeout = format!("--timeout={}s", within.as_secs());
        let arguments = ["drain", node, "--ignore-daemonsets", "--delete-emptydir-data", &timeout];
        self.kubectl(&arguments).await.map(drop)
    }

    /// Keeps new pods off a node.
    ///
    /// # Errors
    /// When there is no such node.
    pub async fn cordon(&self, node: &str) -> Result<()> {
        self.kubectl(&["cordon", node]).await.map(drop)
    }

    /// Lets pods on a node again.
    ///
    /// # Errors
    /// When there is no such node.
    pub async fn uncordon(&self, node: &str) -> Result<()> {
        self.kubectl(&["uncordon", node]).await.map(drop)
    }

    /// Cuts a node off: it runs on, and nothing reaches it or comes from it.
    ///
    /// # Errors
    /// When it is the first, or unknown.
    pub fn cut_off(&self, node: &str) -> Result<()> {
        network::set_link(self.further(node)?.id, Link::Down)
    }

    /// Joins a node that was cut off.
    ///
    /// # Errors
    /// When it is the first, or unknown.
    pub fn reconnect(&self, node: &str) -> Result<()> {
        network::set_link(self.further(node)?.id, Link::Up)
    }

    /// Lets nothing that a node or its pods say reach the API server; everything else goes on as before.
    ///
    /// # Errors
    /// When it is the first, or unknown.
    pub fn silence(&self, node: &str) -> Result<()> {
        network::set_voice(self.further(node)?.id, Voice::Unheard)
    }

    /// Lets the API server hear a silenced node again.
    ///
    /// # Errors
    /// When it is the first, or unknown, or was not silenced.
    pub fn hear(&self, node: &str) -> Result<()> {
        network::set_voice(self.further(node)?.id, Voice::Heard)
    }

    /// Ends a node with all that runs on it, as when its machine loses power.
    ///
    /// # Errors
    /// When it is the first, or unknown, or does not end.
    pub async fn lose(&self, node: &str) -> Result<()> {
        self.further(node)?.kill().await
    }

    /// Starts a lost node again.
    ///
    /// # Errors
    /// When it is the first, or unknown, or its programs do not start.
    pub async fn bring_back(&self, node: &str) -> Result<()> {
        let node = self.further(node)?;
        node.start_runtime()?;
        node.join(&self.tools, &self.pki).await
    }

    /// Waits until the control plane has noticed that a node is gone, or that all are there.
    ///
    /// # Errors
    /// When it has not in time.
    pub async fn wait_until_missed(&self, node: &str, within: Duration) -> Result<()> {
        let nodes: Api<NodeObject> = Api::all(self.client());
        wait_for(&format!("{node} to be missed"), within, async || {
            let found = nodes.get(node).await?;
            Ok((!super::is_ready(&found)).then_some(()))
        })
        .await
    }

    /// Waits until every node is ready.
    ///
    /// # Errors
    /// When one is not in time; the message has the end of the kubelets' logs.
    pub async fn wait_until_whole(&self, within: Duration) -> Result<()> {
        self.wait_for_nodes(within).await
    }

    fn further(&self, name: &str) -> Result<&Node> {
        ensure!(name != NodeId::FIRST.name(), "{name} has the control plane and cannot be lost");
        self.nodes
            .iter()
            .find(|node| node.id.name() == name)
            .with_context(|| format!("there is no node {name}"))
    }
}
