//! What the trials share: the cluster, who is where on it, and what was written at Twilio.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use e2e::installation::{OPERATOR_NAMESPACE, apply, repository, resource, wait_until_ready};
use e2e::{Cluster, Installation, wait_for};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::DeleteParams, api::ListParams};
use libtest_mimic::{Failed, Trial};
use serde_json::Value;
use tokio::runtime::Handle;

/// How long a trial waits for anything: half a minute on an idle machine, where a node must first be missed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(150);
pub(crate) const NAMESPACE: &str = "moving";
pub(crate) const NUMBER: &str = "+15551230001";
pub(crate) const CALLER: &str = "+15557654321";
pub(crate) const MEDIA: Group = (NAMESPACE, "switchboard.dev/agent=sales");
pub(crate) const OPERATORS: Group = (OPERATOR_NAMESPACE, "app.kubernetes.io/name=switchboard-operator");

/// Pods of one Deployment of two: namespace and selector.
pub(crate) type Group = (&'static str, &'static str);

/// Handed to every trial. The default has no cluster, and is for listing the trials' names.
#[derive(Default)]
pub(crate) struct Stage(Option<(Cluster, Installation, Handle)>);

/// A pod that serves.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) pod: String,
    pub(crate) node: String,
    pub(crate) address: String,
}

impl Stage {
    pub(crate) fn of(cluster: Cluster, installation: Installation, runtime: Handle) -> Self {
        Self(Some((cluster, installation, runtime)))
    }

    pub(crate) fn cluster(&self) -> Result<&Cluster> {
        self.0.as_ref().map(|(cluster, _, _)| cluster).context("this is a list of trials, not a run")
    }

    pub(crate) fn installation(&self) -> Result<&Installation> {
        self.0
            .as_ref()
            .map(|(_, installation, _)| installation)
            .context("this is a list of trials, not a run")
    }

    pub(crate) fn trial<F>(
        self: &Arc<Self>,
        name: &str,
        test: impl FnOnce(Arc<Self>) -> F + Send + 'static,
    ) -> Trial
    where
        F: Future<Output = Result<()>>,
    {
        let stage = Arc::clone(self);
        Trial::test(name, move || {
            let Some((_, _, runtime)) = &stage.0 else { return Err(Failed::without_message()) };
            let result = runtime.block_on(test(Arc::clone(&stage)));
            result.map_err(|error| Failed::from(format!("{error:#}")))
        })
    }

    /// Both nodes in use, the resources of the demo applied and ready, one media pod and one operator on each node.
    pub(crate) async fn ready(&self) -> Result<()> {
        let cluster = self.cluster()?;
        cluster.wait_until_whole(PATIENCE).await?;
        apply(cluster, NAMESPACE, &repository().join("tests/cluster/moving.yaml")).await?;
        for (kind, name) in
            [("voicegateway", "default"), ("voiceagent", "sales"), ("phonenumber", "main-line")]
        {
            wait_until_ready(cluster, NAMESPACE, kind, name, PATIENCE).await?;
        }
        self.spread(MEDIA).await?;
        self.spread(OPERATORS).await
    }

    /// The pods of a group that serve; an error while their number is not two or one is on its way out.
    pub(crate) async fn pair(&self, (namespace, selector): Group) -> Result<Vec<Place>> {
        let pods: Api<Pod> = Api::namespaced(self.cluster()?.client(), namespace);
        let found = pods.list(&ListParams::default().labels(selector)).await?.items;
        ensure!(found.len() == 2, "{} pods, on their way in or out", found.len());
        found.into_iter().map(place).collect()
    }

    /// The pods of a group that serve, whatever else there is.
    pub(crate) async fn serving(&self, (namespace, selector): Group) -> Result<Vec<Place>> {
        let pods: Api<Pod> = Api::namespaced(self.cluster()?.client(), namespace);
        let found = pods.list(&ListParams::default().labels(selector)).await?.items;
        Ok(found.into_iter().filter_map(|pod| place(pod).ok()).collect())
    }

    /// Waits until all of a group's serving pods are on one node, and two of them.
    pub(crate) async fn gathered(&self, group: Group, node: &str) -> Result<()> {
        wait_for(&format!("two pods of {} on {node}", group.1), PATIENCE, async || {
            let serving = self.serving(group).await?;
            let is_there = serving.len() == 2 && serving.iter().all(|place| place.node == node);
            ensure!(is_there, "they are {serving:?}");
            Ok(Some(()))
        })
        .await
    }

    /// One pod of a group on each node; moves one if both are on the same.
    async fn spread(&self, group: Group) -> Result<()> {
        let cluster = self.cluster()?;
        let what = format!("two pods of {}", group.1);
        let pair = wait_for(&what, PATIENCE, async || self.pair(group).await.map(Some)).await?;
        if pair[0].node != pair[1].node {
            return Ok(());
        }
        cluster.cordon(&pair[0].node).await?;
        self.delete(group, &pair[0].pod).await?;
        wait_for(&format!("{what} on different nodes"), PATIENCE, async || {
            let pair = self.pair(group).await?;
            Ok((pair[0].node != pair[1].node).then_some(()))
        })
        .await?;
        cluster.uncordon(&pair[0].node).await
    }

    /// Makes the operator on a node the leader, with the other one standing by on the other node.
    pub(crate) async fn lead_from(&self, node: &str) -> Result<()> {
        let cluster = self.cluster()?;
        let leader = self.leader().await?;
        if leader.node == node {
            return Ok(());
        }
        // The leader gives its Lease back, and whoever asks first has it: until that is the one who stands by on the node,
        // there is no place for another pod, which would be ready to lead before that one looks again.
        cluster.cordon(node).await?;
        cluster.cordon(&leader.node).await?;
        self.delete(OPERATORS, &leader.pod).await?;
        wait_for(&format!("the operator on {node} to lead"), PATIENCE, async || {
            Ok((self.leader().await?.node == node).then_some(()))
        })
        .await?;
        cluster.uncordon(&leader.node).await?;
        let what = format!("two pods of {}", OPERATORS.1);
        wait_for(&what, PATIENCE, async || self.pair(OPERATORS).await.map(Some)).await?;
        cluster.uncordon(node).await
    }

    /// The one operator that says that it leads.
    pub(crate) async fn leader(&self) -> Result<Place> {
        let mut leading = Vec::new();
        for place in self.serving(OPERATORS).await? {
            if self.leads(&place).await? {
                leading.push(place);
            }
        }
        ensure!(leading.len() == 1, "{} operators lead: {leading:?}", leading.len());
        leading.pop().context("one leads")
    }

    /// Whether an operator says that it leads.
    pub(crate) async fn leads(&self, place: &Place) -> Result<bool> {
        let scrape = http_get(&format!("http://{}:8080/metrics", place.address)).await?;
        Ok(scrape.lines().any(|line| line == "switchboard_operator_leader 1"))
    }

    /// Calls on a pod.
    pub(crate) async fn active_calls(&self, place: &Place) -> Result<u64> {
        let load: Value =
            serde_json::from_str(&http_get(&format!("http://{}:9090/load", place.address)).await?)?;
        load["activeCalls"].as_u64().context("a load has activeCalls")
    }

    /// What was written at Twilio since `skip` requests.
    pub(crate) async fn writes_since(&self, skip: usize) -> Result<Vec<Value>> {
        let requests = self.installation()?.simulator().requests(skip).await?;
        Ok(requests.into_iter().filter(|request| request["method"] != "GET").collect())
    }

    /// A call as the demo's caller makes it goes through.
    pub(crate) async fn call_goes_through(&self) -> Result<()> {
        let installation = self.installation()?;
        let simulator = installation.simulator();
        let sid = simulator.place_call(CALLER, NUMBER, &installation.caller()?).await?;
        let call = simulator.finished_call(&sid, PATIENCE).await?;
        assert_eq!(call["failedStep"], Value::Null, "{call:#}");
        assert_eq!(call["endReason"], "hangupVerb", "{call:#}");
        assert_eq!(simulator.violations().await?, Vec::<Value>::new(), "{call:#}");
        Ok(())
    }

    /// The uid of a child of the agent.
    pub(crate) async fn uid(&self, kind: &str) -> Result<Value> {
        Ok(resource(self.cluster()?, NAMESPACE, kind, "sales-media").await?["metadata"]["uid"].clone())
    }

    async fn delete(&self, (namespace, _): Group, pod: &str) -> Result<()> {
        let pods: Api<Pod> = Api::namespaced(self.cluster()?.client(), namespace);
        pods.delete(pod, &DeleteParams::default()).await?;
        Ok(())
    }
}

/// The nodes of some places.
pub(crate) fn nodes(places: &[Place]) -> BTreeSet<&str> {
    places.iter().map(|place| place.node.as_str()).collect()
}

/// Where a pod is; an error while it does not serve.
fn place(pod: Pod) -> Result<Place> {
    let name = pod.metadata.name.context("a pod has a name")?;
    ensure!(pod.metadata.deletion_timestamp.is_none(), "{name} is on its way out");
    let status = pod.status.context("a pod has a status")?;
    let is_ready = status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
    ensure!(is_ready, "{name} is not ready");
    let node = pod.spec.and_then(|spec| spec.node_name).context("a ready pod is on a node")?;
    Ok(Place { pod: name, node, address: status.pod_ip.context("a ready pod has an address")? })
}

async fn http_get(url: &str) -> Result<String> {
    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?;
    Ok(http.get(url).send().await?.error_for_status()?.text().await?)
}
