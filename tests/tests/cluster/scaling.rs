//! Who decides on the number of pods, in each mode of `scaling.type`. Neither Prometheus nor a metrics adapter runs here.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use e2e::installation::{repository, resource, wait_until_ready};
use e2e::{Cluster, wait_for};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::context::{Ctx, PATIENCE};
use crate::fixture::{apply, echo, is_absent, merge, namespace_with_gateway, operator_metric, told};
use crate::main_job::{CALLER, NAMESPACE, NUMBER, ready};

pub(crate) fn trials(ctx: &Arc<Ctx>) -> Vec<Trial> {
    vec![
        ctx.trial("scaling::no_mode_fights_over_the_pods_of_another_seven_stay_seven", modes),
        ctx.trial("scaling::a_metric_that_cannot_be_read_is_told_with_a_remedy", unreadable),
        ctx.trial("scaling::builtin_follows_real_calls_up_and_down_and_loses_none", builtin),
        ctx.trial("scaling::the_keda_sample_fits_the_published_definition", keda),
    ]
}

async fn modes(ctx: Arc<Ctx>) -> Result<()> {
    let cluster = ctx.cluster()?;
    let namespace = namespace_with_gateway(&ctx, "scaling-modes").await?;
    // Nobody calls, so each of these could go down to two if it did not wait.
    let down = json!({"stabilizationSeconds": 3600});
    let manual = json!({"type": "Manual", "manual": {"replicas": 7}});
    let autoscaler = json!({"type": "Autoscaler", "autoscaler": {"maxReplicas": 10, "scaleDown": down}});
    let builtin = json!({"type": "Builtin", "builtin": {"maxReplicas": 10, "scaleDown": down}});
    let external = json!({"type": "External"});

    apply(cluster, &namespace, &echo("echo", &manual)).await?;
    wait_until_ready(cluster, &namespace, "voiceagent", "echo", PATIENCE).await?;
    wait_for("seven pods", PATIENCE, async || {
        let deployment = resource(cluster, &namespace, "deployment", "echo-media").await?;
        Ok((deployment["status"]["readyReplicas"] == 7).then_some(()))
    })
    .await?;
    let begun = resource(cluster, &namespace, "deployment", "echo-media").await?;

    let there = [&autoscaler, &builtin, &external];
    let back = [&builtin, &autoscaler, &manual];
    for scaling in there.into_iter().chain(back) {
        switch(cluster, &namespace, scaling).await?;
        let now = resource(cluster, &namespace, "deployment", "echo-media").await?;
        assert_eq!(now["spec"]["replicas"], 7, "{scaling}");
        // Whoever writes another number, be it for a moment, makes a new generation.
        assert_eq!(now["metadata"]["generation"], begun["metadata"]["generation"], "{scaling}");
    }

    // And each is obeyed: what is asked for in so many words happens.
    let three = json!({"type": "Manual", "manual": {"replicas": 3}});
    switch(cluster, &namespace, &three).await?;
    wait_for("three pods", PATIENCE, async || {
        let deployment = resource(cluster, &namespace, "deployment", "echo-media").await?;
        Ok((deployment["spec"]["replicas"] == 3).then_some(()))
    })
    .await?;
    Ok(())
}

/// Switches the mode, and returns when whoever decides now has decided.
async fn switch(cluster: &Cluster, namespace: &str, scaling: &Value) -> Result<()> {
    let mut whole = json!({"autoscaler": null, "builtin": null, "manual": null, "external": null});
    for (field, value) in scaling.as_object().context("a union")? {
        whole[field] = value.clone();
    }
    merge(cluster, namespace, "voiceagent", "echo", &json!({"spec": {"scaling": whole}})).await?;
    wait_until_ready(cluster, namespace, "voiceagent", "echo", PATIENCE).await?;
    match scaling["type"].as_str() {
        Some("Autoscaler") => {
            wait_for("the autoscaler to have looked", PATIENCE, async || {
                let hpa = resource(cluster, namespace, "hpa", "echo-media").await?;
                Ok(hpa["status"]["conditions"].is_array().then_some(()))
            })
            .await?;
        }
        mode => {
            let what = "the autoscaler to be gone";
            wait_for(what, PATIENCE, async || {
                Ok(is_absent(cluster, namespace, "hpa", "echo-media").await?.then_some(()))
            })
            .await?;
            if mode == Some("Builtin") {
                // It goes round every five seconds, and says each time why it leaves the number as it is.
                let series = "switchboard_operator_scaler_decisions_total{decision=\"stabilizing\"}";
                let before = operator_metric(cluster, series).await?;
                wait_for("the built-in scaler to have looked twice", PATIENCE, async || {
                    Ok((operator_metric(cluster, series).await? >= before + 2.0).then_some(()))
                })
                .await?;
            }
        }
    }
    Ok(())
}

async fn unreadable(ctx: Arc<Ctx>) -> Result<()> {
    let cluster = ctx.cluster()?;
    let namespace = namespace_with_gateway(&ctx, "scaling-unreadable").await?;
    apply(cluster, &namespace, &echo("echo", &json!({"type": "Autoscaler"}))).await?;
    let about = ("AutoscalingReady", "MetricUnavailable");
    let found = told(cluster, &namespace, "voiceagent", "echo", about).await?;
    assert_eq!(found["status"], "False");
    let message = found["message"].as_str().unwrap_or_default();
    for remedy in ["switchboard_active_calls", "metrics adapter", "Builtin"] {
        ensure!(message.contains(remedy), "{remedy} is not in {message}");
    }
    // The remedy helps.
    let builtin = json!({"spec": {"scaling": {"type": "Builtin"}}});
    merge(cluster, &namespace, "voiceagent", "echo", &builtin).await?;
    let about = ("AutoscalingReady", "LoadsKnown");
    assert_eq!(told(cluster, &namespace, "voiceagent", "echo", about).await?["status"], "True");
    Ok(())
}

/// Eight callers on pods that aim at two calls each: four pods. Six hang up soon and two stay on, which is a load of one
/// pod: two pods, of which the two calls hear nothing.
async fn builtin(ctx: Arc<Ctx>) -> Result<()> {
    let cluster = ctx.cluster()?;
    ready(&ctx).await?;
    let begun = resource(cluster, NAMESPACE, "voiceagent", "sales").await?["spec"]["scaling"].clone();
    let builtin = json!({
        "minReplicas": 2, "maxReplicas": 4, "targetCallsPerPod": 2,
        "scaleDown": {"stabilizationSeconds": 10, "podsPerMinute": 6},
    });
    let scaling = json!({"type": "Builtin", "autoscaler": null, "builtin": builtin});
    merge(cluster, NAMESPACE, "voiceagent", "sales", &json!({"spec": {"scaling": scaling}})).await?;
    told(cluster, NAMESPACE, "voiceagent", "sales", ("AutoscalingReady", "LoadsKnown")).await?;
    let size = async || -> Result<(Value, Value)> {
        let deployment = resource(cluster, NAMESPACE, "deployment", "sales-media").await?;
        Ok((deployment["spec"]["replicas"].clone(), deployment["status"]["readyReplicas"].clone()))
    };
    let reach = async |pods: i32| {
        wait_for(&format!("{pods} pods"), 2 * PATIENCE, async || {
            let now = size().await?;
            ensure!(now == (json!(pods), json!(pods)), "{now:?}");
            Ok(Some(()))
        })
        .await
    };
    reach(2).await?;

    let simulator = ctx.installation()?.simulator();
    let started = Instant::now();
    let mut calls = Vec::new();
    // Somebody who is silent for 30 s is asked whether they are still there.
    for (index, questions) in [1, 1, 1, 1, 1, 1, 5, 5].into_iter().enumerate() {
        let mut steps = vec![json!({"waitForAgent": {"seconds": 30}})];
        for _ in 0..questions {
            steps.push(json!({"pause": 20_000}));
            steps.push(json!({"say": "Hello, what are your opening hours?"}));
            steps.push(json!({"waitForAgent": {"seconds": 40}}));
        }
        steps.push(json!({"say": "Thank you very much, goodbye."}));
        steps.push(json!({"expectHangUp": {"seconds": 60}}));
        let caller = Value::Array(steps);
        let from = format!("{}{index}", &CALLER[..CALLER.len() - 1]);
        calls.push(simulator.place_call(&from, NUMBER, &caller).await?);
    }
    reach(4).await?;
    eprintln!("scaling: 8 calls at 2 per pod: 4 pods ready after {:.1} s", started.elapsed().as_secs_f64());
    let last = calls.last().context("calls")?;
    reach(2).await?;
    let is_over = simulator.call(last).await?["finished"] == true;
    eprintln!(
        "scaling: 2 pods after {:.1} s, the longest call over: {is_over}",
        started.elapsed().as_secs_f64()
    );
    for sid in &calls {
        let call = simulator.finished_call(sid, 3 * PATIENCE).await?;
        assert_eq!(call["failedStep"], Value::Null, "{call:#}");
        assert_eq!(call["endReason"], "hangupVerb", "{call:#}");
    }
    assert_eq!(simulator.violations().await?, Vec::<Value>::new());

    let mut back = json!({"spec": {"scaling": begun}});
    back["spec"]["scaling"]["builtin"] = Value::Null;
    merge(cluster, NAMESPACE, "voiceagent", "sales", &back).await?;
    wait_until_ready(cluster, NAMESPACE, "voiceagent", "sales", PATIENCE).await?;
    Ok(())
}

/// The sample, against the definition that KEDA publishes, as the API server checks it.
async fn keda(ctx: Arc<Ctx>) -> Result<()> {
    let cluster = ctx.cluster()?;
    let published = e2e::optional_tool("keda-crds")?;
    cluster.kubectl(&["apply", "--server-side", "-f", &published.to_string_lossy()]).await?;
    let established = ["wait", "--for=condition=Established", "crd/scaledobjects.keda.sh", "--timeout=60s"];
    cluster.kubectl(&established).await?;
    let namespace = ctx.namespace("scaling-keda").await?;
    let sample = repository().join("manifests/samples/keda.yaml").to_string_lossy().into_owned();
    // Strict: a field that the definition does not have is an error.
    let dry_run =
        ["apply", "-n", &namespace, "-f", &sample, "--dry-run=server", "--validate=strict", "-o", "json"];
    let applied: Value = serde_json::from_str(&cluster.kubectl(&dry_run).await?)?;
    let items = applied["items"].as_array().context("a list")?;
    let of = |kind: &str| items.iter().find(|item| item["kind"] == kind).context("it is in the sample");
    let (scaled, agent) = (of("ScaledObject")?, of("VoiceAgent")?);
    let target = format!("{}-media", agent["metadata"]["name"].as_str().unwrap_or_default());
    assert_eq!(scaled["spec"]["scaleTargetRef"]["name"], json!(target), "it scales the agent's Deployment");
    assert_eq!(agent["spec"]["scaling"]["type"], "External");
    let query = scaled["spec"]["triggers"][0]["metadata"]["query"].as_str().unwrap_or_default();
    ensure!(query.contains("switchboard_active_calls"), "{query}");
    cluster.kubectl(&["delete", "-f", &published.to_string_lossy()]).await?;
    Ok(())
}
