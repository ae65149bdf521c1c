//! Pods follow live calls: the gauge of real calls, through a real Prometheus and prometheus-adapter, to the autoscaler.
//!
//! The trials share one monitoring stack and leave the agent as `moving.yaml` has it. Times are reported, not asserted:
//! they are those of the test cluster (scrapes every second, the autoscaler every two).

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::caller::events;
use e2e::installation::{condition, resource, wait_until_ready};
use e2e::{Monitoring, wait_for};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::context::{Ctx, PATIENCE, http_get};
use crate::interruptions::reconfigure;
use crate::main_job::{CALLER, NAMESPACE, NUMBER, ready};

pub(crate) fn trials(ctx: &Arc<Ctx>) -> Vec<Trial> {
    vec![
        ctx.trial("autoscaling::1_pods_follow_live_calls_up_and_down_and_no_call_is_lost", follow),
        ctx.trial("autoscaling::2_without_prometheus_the_pods_are_held_and_calls_go_on", blind),
        ctx.trial("autoscaling::3_forty_callers_at_two_a_second_are_all_answered", rush),
    ]
}

/// Installs Prometheus and its adapter; at once done when they are there.
pub(crate) async fn monitored(ctx: &Ctx) -> Result<Monitoring> {
    let monitoring = Monitoring::install(ctx.cluster()?).await?;
    ready(ctx).await?;
    Ok(monitoring)
}

async fn follow(ctx: Arc<Ctx>) -> Result<()> {
    let monitoring = monitored(&ctx).await?;
    let sales =
        Sales::scaled(&ctx, json!({"minReplicas": 2, "maxReplicas": 4, "targetCallsPerPod": 2}), 8).await?;
    monitoring.wait_for_pods(NAMESPACE, "sales", 2.0).await?;

    let began = Instant::now();
    let mut calls = sales.place(8).await?;
    sales.wait_for_ready_pods(4).await?;
    report(format!("8 calls at a target of 2: 2 -> 4 pods ready in {:.1} s", began.elapsed().as_secs_f64()));
    monitoring.wait_for_pods(NAMESPACE, "sales", 4.0).await?;
    let gauge = r#"sum(switchboard_active_calls{namespace="moving",agent="sales"})"#;
    wait_for("Prometheus to count 8 calls", PATIENCE, async || {
        Ok((monitoring.number(gauge).await? == Some(8.0)).then_some(()))
    })
    .await?;

    // Two callers stay, wherever they are, through the drain and, if it must be, the hand-over.
    let staying = calls.split_off(6);
    let began = Instant::now();
    sales.end(&calls).await?;
    let victims = sales.wait_for_two_pods(began).await?;
    ensure!(victims.len() == 2, "{} pods went: {victims:?}", victims.len());
    let carried: Vec<String> = victims.iter().map(|(pod, calls)| format!("{pod} with {calls}")).collect();
    report(format!(
        "2 calls left: back to 2 pods in {:.1} s; calls on the victims: {}",
        began.elapsed().as_secs_f64(),
        carried.join(", ")
    ));
    for sid in &staying {
        let call = sales.call(sid).await?;
        ensure!(call["finished"] != true, "a call that nobody ended is over: {call:#}");
    }
    wait_for("the two calls on the pods that stay", PATIENCE, async || {
        Ok((sales.active_calls().await? == Some(2)).then_some(()))
    })
    .await?;
    sales.end(&staying).await?;
    sales.check(&[calls, staying].concat()).await?;
    sales.put_back().await
}

async fn blind(ctx: Arc<Ctx>) -> Result<()> {
    let monitoring = monitored(&ctx).await?;
    let sales =
        Sales::scaled(&ctx, json!({"minReplicas": 2, "maxReplicas": 4, "targetCallsPerPod": 2}), 8).await?;
    let calls = sales.place(5).await?;
    wait_for("more pods", 2 * PATIENCE, async || Ok((sales.ready_pods().await? > 2).then_some(()))).await?;

    monitoring.stop_prometheus(ctx.cluster()?).await?;
    let told = sales.autoscaling("False", "MetricUnavailable").await?;
    let message = told["message"].as_str().unwrap_or_default();
    ensure!(message.contains("metrics adapter"), "what to look at is not said: {message}");
    // Calls end, and the pods they no longer need stay: nobody knows that they ended.
    let held = sales.wanted_pods().await?;
    sales.end(&calls[1..]).await?;
    let later = sales.place(1).await?;
    wait_for("the two calls that are left", PATIENCE, async || {
        Ok((sales.active_calls().await? == Some(2)).then_some(()))
    })
    .await?;
    ensure!(held > 2 && sales.wanted_pods().await? == held, "{held} pods were not held");

    monitoring.start_prometheus(ctx.cluster()?).await?;
    sales.autoscaling("True", "MetricRead").await?;
    sales.wait_for_two_pods(Instant::now()).await?;
    let rest = [vec![calls[0].clone()], later].concat();
    sales.end(&rest).await?;
    sales.check(&[calls, rest].concat()).await?;
    sales.put_back().await
}

/// Two pods with eight slots each are full with the 17th caller, three seconds after the 11th made a third pod necessary.
/// Those who come before it is there let it ring; nobody is turned away.
async fn rush(ctx: Arc<Ctx>) -> Result<()> {
    const CALLERS: usize = 40;
    const TARGET: usize = 5;
    let monitoring = monitored(&ctx).await?;
    let scaling = json!({"minReplicas": 2, "maxReplicas": 10, "targetCallsPerPod": TARGET});
    let sales = Sales::scaled(&ctx, scaling, 8).await?;
    // The longest there is: how slowly pods start here is not the question.
    reconfigure(&ctx, &json!({"overflow": {"waitSeconds": 60}})).await?;
    monitoring.wait_for_pods(NAMESPACE, "sales", 2.0).await?;

    let began = Instant::now();
    let ready = RefCell::new(vec![(2, Duration::ZERO)]);
    let calling = async {
        let mut arrivals = tokio::time::interval(Duration::from_millis(500));
        let mut callers = Vec::new();
        while callers.len() < CALLERS {
            arrivals.tick().await;
            callers.extend(sales.place(1).await?.into_iter().map(|sid| (sid, began.elapsed())));
        }
        wait_for("all forty to be put through", 2 * PATIENCE, async || {
            let active = sales.active_calls().await?;
            ensure!(active == Some(CALLERS as u64), "so many are: {active:?}");
            Ok(Some(()))
        })
        .await?;
        // By whom they are noted, or the last of them would sometimes be missing there.
        wait_for("pods for all forty", 2 * PATIENCE, async || {
            Ok(ready.borrow().iter().any(|(pods, _)| *pods >= CALLERS / TARGET).then_some(()))
        })
        .await?;
        anyhow::Ok(callers)
    };
    let callers = tokio::select! {
        result = calling => result?,
        result = sales.watch(&ready, began) => match result? {},
    };

    let ready = ready.into_inner();
    for pods in 3..=CALLERS / TARGET {
        // The first caller whom one pod less cannot carry at the target.
        let (_, since) = callers.get((pods - 1) * TARGET).context("so many callers")?;
        let (_, at) = ready.iter().find(|(count, _)| *count >= pods).context("so many pods")?;
        let took = at.saturating_sub(*since).as_secs_f64();
        report(format!("needs {pods} pods at {:.1} s, has them {took:.1} s later", since.as_secs_f64()));
    }
    let sids: Vec<String> = callers.into_iter().map(|(sid, _)| sid).collect();
    let (mut waited, mut longest, mut bounced) = (0, 0, 0);
    for sid in &sids {
        let call = sales.call(sid).await?;
        let verbs = events(&call, "verbStarted");
        let waits = verbs.iter().filter(|event| event["verb"] == "Redirect").count();
        waited += usize::from(waits > 0);
        longest = waits.max(longest);
        bounced += events(&call, "streamStarted").len() - 1;
    }
    report(format!(
        "{CALLERS} callers at 2/s: all answered; {waited} let it ring, the longest for {} s; {bounced} streams met a full pod",
        3 * longest,
    ));
    sales.end(&sids).await?;
    sales.check(&sids).await?;
    reconfigure(&ctx, &json!({"overflow": null})).await?;
    sales.put_back().await
}

/// The agent `sales` under load.
struct Sales<'a> {
    ctx: &'a Ctx,
    pods: Api<Pod>,
    deployments: Api<Deployment>,
}

impl<'a> Sales<'a> {
    /// Sets how the agent scales, and waits until the autoscaler reads its calls and has the fewest pods.
    async fn scaled(ctx: &'a Ctx, mut autoscaler: Value, max_calls_per_pod: u32) -> Result<Self> {
        let client = ctx.cluster()?.client();
        let pods = Api::namespaced(client.clone(), NAMESPACE);
        let sales = Self { ctx, pods, deployments: Api::namespaced(client, NAMESPACE) };
        wait_for("the calls of earlier trials to be over", PATIENCE, async || {
            Ok((sales.active_calls().await? == Some(0)).then_some(()))
        })
        .await?;
        autoscaler["scaleDown"] = json!({"stabilizationSeconds": 0, "podsPerMinute": 100});
        let scaling =
            json!({"type": "Autoscaler", "autoscaler": autoscaler, "maxCallsPerPod": max_calls_per_pod});
        // Callers here keep silent for as long as it takes.
        sales.merge(&json!({"spec": {"scaling": scaling, "limits": {"silenceSeconds": 600}}})).await?;
        wait_until_ready(ctx.cluster()?, NAMESPACE, "voiceagent", "sales", PATIENCE).await?;
        sales.autoscaling("True", "MetricRead").await?;
        sales.wait_for_two_pods(Instant::now()).await?;
        Ok(sales)
    }

    /// As `moving.yaml` has it.
    async fn put_back(&self) -> Result<()> {
        let autoscaler =
            json!({"minReplicas": 2, "maxReplicas": 4, "targetCallsPerPod": 20, "scaleDown": null});
        let scaling = json!({"type": "Autoscaler", "autoscaler": autoscaler, "maxCallsPerPod": 30});
        self.wait_for_two_pods(Instant::now()).await?;
        self.merge(&json!({"spec": {"scaling": scaling, "limits": {"silenceSeconds": null}}})).await?;
        wait_until_ready(self.ctx.cluster()?, NAMESPACE, "voiceagent", "sales", PATIENCE).await?;
        Ok(())
    }

    async fn merge(&self, patch: &Value) -> Result<()> {
        let patch = patch.to_string();
        let arguments = ["patch", "voiceagent", "sales", "-n", NAMESPACE, "--type=merge", "-p", &patch];
        self.ctx.cluster()?.kubectl(&arguments).await?;
        Ok(())
    }

    /// Waits until the agent's condition about its autoscaling says so, and returns it.
    async fn autoscaling(&self, status: &str, reason: &str) -> Result<Value> {
        let cluster = self.ctx.cluster()?;
        let waited =
            wait_for(&format!("AutoscalingReady to be {status} {reason}"), 2 * PATIENCE, async || {
                let agent = resource(cluster, NAMESPACE, "voiceagent", "sales").await?;
                let found = condition(&agent, "AutoscalingReady").context("no such condition")?;
                ensure!(found["status"] == status && found["reason"] == reason, "it says {found}");
                Ok(Some(found.clone()))
            })
            .await;
        match waited {
            Ok(found) => Ok(found),
            Err(error) => {
                let hpa = resource(cluster, NAMESPACE, "hpa", "sales-media").await?;
                Err(error.context(format!("{:#}", hpa["status"])))
            }
        }
    }

    /// Callers who listen to the greeting, and then hold the line until they are ended.
    async fn place(&self, count: usize) -> Result<Vec<String>> {
        let holds = json!([{"pause": 600_000}]);
        let simulator = self.ctx.installation()?.simulator();
        let mut sids = Vec::new();
        for _ in 0..count {
            sids.push(simulator.place_call(CALLER, NUMBER, &holds).await?);
        }
        Ok(sids)
    }

    /// The callers hang up; returns when the carrier and every pod knows.
    async fn end(&self, sids: &[String]) -> Result<()> {
        let simulator = self.ctx.installation()?.simulator();
        for sid in sids {
            let call = simulator.call(sid).await?;
            ensure!(
                call["finished"] != true,
                "the call was over before its caller wanted it to be: {call:#}"
            );
            simulator.hang_up(sid).await?;
        }
        for sid in sids {
            simulator.finished_call(sid, PATIENCE).await?;
        }
        Ok(())
    }

    async fn call(&self, sid: &str) -> Result<Value> {
        self.ctx.installation()?.simulator().call(sid).await
    }

    /// Each of these calls was answered by the agent, none by a sentence, and no rule was broken.
    async fn check(&self, sids: &[String]) -> Result<()> {
        let simulator = self.ctx.installation()?.simulator();
        for sid in sids {
            let call = simulator.call(sid).await?;
            let has =
                |name: &str| call["timeline"].as_array().into_iter().flatten().any(|e| e["event"] == name);
            ensure!(has("streamStarted"), "a caller was not put through: {call:#}");
            ensure!(
                !call["timeline"].to_string().contains(r#""verb":"Say""#),
                "a caller was refused: {call:#}"
            );
        }
        assert_eq!(simulator.violations().await?, Vec::<Value>::new());
        Ok(())
    }

    async fn wanted_pods(&self) -> Result<i32> {
        let deployment = self.deployments.get("sales-media").await?;
        Ok(deployment.spec.and_then(|spec| spec.replicas).unwrap_or_default())
    }

    async fn ready_pods(&self) -> Result<usize> {
        let deployment = self.deployments.get("sales-media").await?;
        Ok(usize::try_from(deployment.status.and_then(|status| status.ready_replicas).unwrap_or_default())?)
    }

    /// Notes when there were more ready pods than ever before.
    async fn watch(&self, most: &RefCell<Vec<(usize, Duration)>>, began: Instant) -> Result<Infallible> {
        let mut looks = tokio::time::interval(Duration::from_millis(100));
        loop {
            looks.tick().await;
            let pods = self.ready_pods().await?;
            let mut most = most.borrow_mut();
            if most.last().is_none_or(|(known, _)| pods > *known) {
                most.push((pods, began.elapsed()));
            }
        }
    }

    async fn wait_for_ready_pods(&self, count: usize) -> Result<()> {
        let what = format!("{count} ready pods");
        wait_for(&what, 2 * PATIENCE, async || Ok((self.ready_pods().await? == count).then_some(()))).await
    }

    /// Waits until two pods are left and all others are gone; those that went since `began`, each with the calls it
    /// carried when it was first seen leaving.
    async fn wait_for_two_pods(&self, began: Instant) -> Result<BTreeMap<String, u64>> {
        let mut victims = BTreeMap::new();
        let mut gone = BTreeSet::new();
        wait_for("two pods and no other", 3 * PATIENCE, async || {
            let selector = ListParams::default().labels("switchboard.dev/agent=sales");
            let pods = self.pods.list(&selector).await?.items;
            for pod in pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_some()) {
                let name = pod.metadata.name.clone().context("a pod has a name")?;
                if gone.insert(name.clone()) {
                    let address = pod.status.as_ref().and_then(|status| status.pod_ip.clone());
                    let load = match address {
                        Some(address) => http_get(&format!("{address}:9090"), "/load").await.ok(),
                        None => None,
                    };
                    let load: Value = serde_json::from_str(load.as_deref().unwrap_or("null"))?;
                    victims.insert(name, load["activeCalls"].as_u64().unwrap_or_default());
                }
            }
            Ok((pods.len() == 2 && self.ready_pods().await? == 2).then_some(()))
        })
        .await
        .with_context(|| format!("for {:.0} s", began.elapsed().as_secs_f64()))?;
        Ok(victims)
    }

    /// Calls on all pods that stay; none while one does not tell.
    async fn active_calls(&self) -> Result<Option<u64>> {
        let loads = crate::main_job::loads(self.ctx).await?;
        Ok(loads.iter().map(|load| load["activeCalls"].as_u64()).sum())
    }
}

fn report(line: String) {
    eprintln!("autoscaling: {line}");
}
