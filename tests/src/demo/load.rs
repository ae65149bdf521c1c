//! The demo's last part: callers come, pods follow them, callers go; drawn line by line.
//!
//! The operator's own scaler does it, so that the demo needs neither a Prometheus nor an adapter; the same with both is
//! among the cluster tests (`autoscaling`).

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use serde_json::{Value, json};

use super::{AGENT, CALLER, NAMESPACE, NUMBER, PATIENCE, Stage};
use crate::{Cluster, Simulator, wait_for};

/// At [`TARGET`] calls each these need twice the pods there are.
const CALLERS: usize = 8;
const TARGET: usize = 2;
/// As many as there are without load.
const FEWEST: i32 = 2;
/// Between two callers.
const GAP: Duration = Duration::from_millis(400);

/// Shows the load rising and falling, and the pods with it.
pub(super) async fn show(cluster: &Cluster, simulator: &Simulator, stage: &Stage) -> Result<()> {
    stage.say(&format!("{CALLERS} callers at {TARGET} calls per pod: the operator scales {AGENT}"));
    let builtin = json!({"minReplicas": FEWEST, "maxReplicas": 4, "targetCallsPerPod": TARGET,
                         "scaleDown": {"stabilizationSeconds": 0, "podsPerMinute": 100}});
    let scaling = json!({"type": "Builtin", "autoscaler": null, "builtin": builtin});
    let patch = json!({"spec": {"scaling": scaling, "limits": {"silenceSeconds": 300}}}).to_string();
    cluster.kubectl(&["patch", "voiceagent", AGENT, "-n", NAMESPACE, "--type=merge", "-p", &patch]).await?;
    let mut curve = Curve::of(cluster)?;
    curve.draw(stage).await?;

    let holds = json!([{"pause": 300_000}]);
    let mut calls = Vec::new();
    let mut arrivals = tokio::time::interval(GAP);
    while calls.len() < CALLERS {
        arrivals.tick().await;
        calls.push(simulator.place_call(CALLER, NUMBER, &holds).await?);
        curve.draw(stage).await?;
    }
    let enough = i32::try_from(CALLERS.div_ceil(TARGET))?;
    curve
        .follow("pods for all callers", stage, |point| point.ready == enough && point.calls == CALLERS)
        .await?;

    stage.detail("the callers hang up");
    for sid in &calls {
        let call = simulator.call(sid).await?;
        ensure!(call["finished"] != true, "a call ended before its caller hung up: {call:#}");
        simulator.hang_up(sid).await?;
    }
    curve.follow("the pods to go", stage, |point| point.wanted == FEWEST && point.calls == 0).await?;
    let violations = simulator.violations().await?;
    ensure!(violations.is_empty(), "the product broke rules of the protocols: {violations:#?}");
    Ok(())
}

/// Where things stand.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Point {
    calls: usize,
    wanted: i32,
    ready: i32,
}

/// Looks, and draws a line whenever something has changed.
struct Curve {
    http: reqwest::Client,
    pods: Api<Pod>,
    deployments: Api<Deployment>,
    drawn: Option<Point>,
}

impl Curve {
    fn of(cluster: &Cluster) -> Result<Self> {
        let client = cluster.client();
        Ok(Self {
            http: reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?,
            pods: Api::namespaced(client.clone(), NAMESPACE),
            deployments: Api::namespaced(client, NAMESPACE),
            drawn: None,
        })
    }

    async fn draw(&mut self, stage: &Stage) -> Result<Point> {
        let deployment = self.deployments.get(&format!("{AGENT}-media")).await?;
        let point = Point {
            calls: self.calls().await?,
            wanted: deployment.spec.and_then(|spec| spec.replicas).unwrap_or_default(),
            ready: deployment.status.and_then(|status| status.ready_replicas).unwrap_or_default(),
        };
        if self.drawn.replace(point) != Some(point) {
            stage.detail(&line(stage.began.elapsed(), point));
        }
        Ok(point)
    }

    async fn follow(&mut self, what: &str, stage: &Stage, is_reached: impl Fn(Point) -> bool) -> Result<()> {
        wait_for(what, PATIENCE, async || {
            let point = self.draw(stage).await?;
            Ok(is_reached(point).then_some(()))
        })
        .await
    }

    /// Calls as the pods count them, leaving ones among them.
    async fn calls(&self) -> Result<usize> {
        let selector = ListParams::default().labels(&format!("switchboard.dev/agent={AGENT}"));
        let mut calls = 0;
        for pod in self.pods.list(&selector).await? {
            let Some(address) = pod.status.and_then(|status| status.pod_ip) else { continue };
            // A pod that starts or has just left carries none.
            let Ok(answer) = self.http.get(format!("http://{address}:9090/load")).send().await else {
                continue;
            };
            let load: Value = answer.json().await.context("a pod's load is JSON")?;
            calls += usize::try_from(load["activeCalls"].as_u64().unwrap_or_default())?;
        }
        Ok(calls)
    }
}

/// One line of the curve: a block per call, a square per pod, hollow while it starts. Pods that are no longer wanted are
/// there until their last call is over.
fn line(at: Duration, point: Point) -> String {
    let ready = usize::try_from(point.ready).unwrap_or_default();
    let wanted = usize::try_from(point.wanted).unwrap_or_default();
    let pods = if ready > wanted {
        format!("{ready} ready, {wanted} wanted")
    } else {
        format!("{ready} of {wanted} ready")
    };
    format!(
        "{:6.1} s  calls {:<width$} {:>2}   pods {:<4} {pods}",
        at.as_secs_f64(),
        "█".repeat(point.calls),
        point.calls,
        "■".repeat(ready) + &"□".repeat(wanted.saturating_sub(ready)),
        width = CALLERS,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_shows_calls_and_pods_that_serve_and_start() {
        let point = Point { calls: 5, wanted: 3, ready: 2 };
        let drawn = line(Duration::from_millis(61_200), point);
        assert_eq!(drawn, "  61.2 s  calls █████     5   pods ■■□  2 of 3 ready");

        let point = Point { calls: 0, wanted: 2, ready: 4 };
        let drawn = line(Duration::from_millis(72_000), point);
        assert_eq!(drawn, "  72.0 s  calls           0   pods ■■■■ 4 ready, 2 wanted");
    }
}
