//! What a VoiceAgent becomes and how it goes: its children by feature, its image, its configuration, its departure.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::installation::{OPERATOR_NAMESPACE, binary, condition, resource, wait_until_ready};
use e2e::{Cluster, OciImage, optional_tool, wait_for};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::context::{Ctx, PATIENCE};
use crate::fixture::{apply, echo, is_absent, merge, namespace_with_gateway, told};
use crate::main_job::{CALLER, NAMESPACE, NUMBER, loads, ready};

pub(crate) fn trials(ctx: &Arc<Ctx>) -> Vec<Trial> {
    vec![
        ctx.trial("agents::grace_chain_pod_template_and_restricted_pod_security_hold_on_real_pods", pods),
        ctx.trial("agents::a_changed_instruction_is_live_in_all_pods_within_seconds", instruction),
        ctx.trial("agents::features_come_with_their_api_and_switched_off_leave_nothing_behind", features),
        ctx.trial("agents::a_new_default_image_goes_a_few_agents_at_a_time_or_waits_for_the_spec", images),
        ctx.trial("agents::a_deleted_agent_lets_its_call_end_and_then_leaves_nothing_behind", departure),
    ]
}

async fn pods(ctx: Arc<Ctx>) -> Result<()> {
    let cluster = ctx.cluster()?;
    let namespace = namespace_with_gateway(&ctx, "agents-pods").await?;
    let mut agent = echo("echo", &json!({"type": "Manual", "manual": {"replicas": 1}}));
    agent["spec"]["drain"] = json!({"windowSeconds": 100});
    agent["spec"]["podTemplate"] = json!({
        "metadata": {"labels": {"team": "voice", "switchboard.dev/agent": "other"}},
        "spec": {
            "containers": [{"name": "media", "resources": {"requests": {"cpu": "20m"}}}],
        },
    });
    apply(cluster, &namespace, &agent).await?;
    wait_until_ready(cluster, &namespace, "voiceagent", "echo", PATIENCE).await?;
    let pod = of_agent(cluster, &namespace, "echo").await?.pop().context("a pod")?;
    assert_eq!(pod["spec"]["terminationGracePeriodSeconds"], 130, "the window and 30 s");
    let media = &pod["spec"]["containers"][0];
    let window = json!({"name": "SWITCHBOARD_DRAIN_WINDOW_SECONDS", "value": "100"});
    let env = media["env"].as_array().context("an environment")?;
    ensure!(env.contains(&window), "the pod clamps its calls to what it started with: {env:?}");
    assert_eq!(pod["metadata"]["labels"]["team"], "voice");
    assert_eq!(pod["metadata"]["labels"]["switchboard.dev/agent"], "echo", "what selects the pods is ours");
    assert_eq!(media["resources"]["requests"], json!({"cpu": "20m", "memory": "64Mi"}));

    // Both namespaces refuse what is not restricted, and the pods run in them.
    for (namespace, pods) in
        [(namespace.as_str(), "echo-media"), (OPERATOR_NAMESPACE, "switchboard-operator")]
    {
        let labels = cluster.kubectl(&["get", "namespace", namespace, "-o", "json"]).await?;
        let labels: Value = serde_json::from_str(&labels)?;
        let enforced = &labels["metadata"]["labels"]["pod-security.kubernetes.io/enforce"];
        assert_eq!(enforced, "restricted", "{namespace}");
        let deployment = resource(cluster, namespace, "deployment", pods).await?;
        ensure!(deployment["status"]["readyReplicas"].as_u64() > Some(0), "{pods}: {}", deployment["status"]);
    }
    let privileged = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "privileged"},
        "spec": {"containers": [{"name": "a", "image": "a", "securityContext": {"privileged": true}}]},
    });
    let refused = apply(cluster, &namespace, &privileged).await;
    ensure!(refused.is_err_and(|error| error.to_string().contains("restricted")), "nothing is enforced");
    Ok(())
}

/// A kubelet that nobody wakes looks at a pod's mounts every minute, or half a minute later (`syncFrequency`, with jitter).
const KUBELET_ALONE: Duration = Duration::from_secs(60);

async fn instruction(ctx: Arc<Ctx>) -> Result<()> {
    let cluster = ctx.cluster()?;
    ready(&ctx).await?;
    let before =
        resource(cluster, NAMESPACE, "voiceagent", "sales").await?["status"]["configRevision"].clone();
    let prompt =
        resource(cluster, NAMESPACE, "configmap", "sales-prompt").await?["data"]["prompt.txt"].clone();
    let changed = format!("{} Be brief.", prompt.as_str().context("a prompt")?);
    let started = Instant::now();
    let patch = json!({"data": {"prompt.txt": changed}});
    merge(cluster, NAMESPACE, "configmap", "sales-prompt", &patch).await?;
    wait_for("all pods to load the new instructions", PATIENCE, async || {
        let agent = resource(cluster, NAMESPACE, "voiceagent", "sales").await?;
        let wanted = &agent["status"]["configRevision"];
        let loads = loads(&ctx).await?;
        let is_everywhere = !loads.is_empty() && loads.iter().all(|load| load["configRevision"] == *wanted);
        Ok((*wanted != before && is_everywhere).then_some(()))
    })
    .await?;
    let took = started.elapsed();
    eprintln!("agents: changed instructions in all pods after {:.1} s (goal: 10 s)", took.as_secs_f64());
    ensure!(took < KUBELET_ALONE, "{took:?}: that is when the kubelet looks by itself");
    let about = ("ConfigCurrent", "AllPodsCurrent");
    told(cluster, NAMESPACE, "voiceagent", "sales", about).await?;
    merge(cluster, NAMESPACE, "configmap", "sales-prompt", &json!({"data": {"prompt.txt": prompt}})).await?;
    Ok(())
}

async fn features(ctx: Arc<Ctx>) -> Result<()> {
    let cluster = ctx.cluster()?;
    let namespace = namespace_with_gateway(&ctx, "agents-features").await?;
    let mut agent = echo("echo", &json!({"type": "Manual", "manual": {"replicas": 1}}));
    agent["spec"]["monitoring"] = json!({"type": "PodMonitor"});
    apply(cluster, &namespace, &agent).await?;
    wait_until_ready(cluster, &namespace, "voiceagent", "echo", PATIENCE).await?;
    let policy = resource(cluster, &namespace, "networkpolicy", "echo-media").await?;
    let doors: Vec<&Value> = policy["spec"]["ingress"].as_array().context("rules")?.iter().collect();
    let ports: Vec<&Value> = doors.iter().map(|rule| &rule["ports"][0]["port"]).collect();
    assert_eq!(ports, [&json!(8080), &json!(8081), &json!(9090)]);
    ensure!(doors[0]["from"].is_null(), "the public door is open to every edge: {}", doors[0]);
    ensure!(doors[2].to_string().contains(OPERATOR_NAMESPACE), "the operator asks for loads: {}", doors[2]);

    // A kind that the cluster lacks is no error; one that is needed and missing is told with what to do.
    let exposure =
        json!({"type": "HTTPRoute", "httpRoute": {"parentRefs": [{"name": "edge", "namespace": "edge"}]}});
    merge(cluster, &namespace, "voicegateway", "default", &json!({"spec": {"exposure": exposure}})).await?;
    let found = told(cluster, &namespace, "voiceagent", "echo", ("Ready", "APIMissing")).await?;
    let message = found["message"].as_str().unwrap_or_default();
    ensure!(message.contains("Gateway API") && message.contains("exposure"), "{message}");

    // They come with their definitions, which are those that the projects publish.
    let published = [optional_tool("prometheus-operator-crds")?, optional_tool("gateway-api-crds")?];
    for definition in &published {
        cluster.kubectl(&["apply", "--server-side", "-f", &definition.to_string_lossy()]).await?;
    }
    let there = async |kind: &'static str| {
        wait_for(&format!("the {kind}"), PATIENCE, async || {
            resource(cluster, &namespace, kind, "echo-media").await.map(Some)
        })
        .await
    };
    let route = there("httproute").await?;
    assert_eq!(route["spec"]["hostnames"], json!(["voice.example.com"]));
    assert_eq!(route["spec"]["rules"][0]["matches"][0]["path"]["value"], format!("/{namespace}/echo/twilio"));
    let monitor = there("podmonitor").await?;
    assert_eq!(monitor["spec"]["podMetricsEndpoints"][0]["port"], "admin");
    wait_until_ready(cluster, &namespace, "voiceagent", "echo", PATIENCE).await?;

    let off = json!({"spec": {"networkPolicy": {"type": "None"}, "monitoring": {"type": "None"}}});
    merge(cluster, &namespace, "voiceagent", "echo", &off).await?;
    let unexposed = json!({"spec": {"exposure": {"type": "None", "httpRoute": null}}});
    merge(cluster, &namespace, "voicegateway", "default", &unexposed).await?;
    for kind in ["networkpolicy", "podmonitor", "httproute", "ingress", "horizontalpodautoscaler"] {
        wait_for(&format!("the {kind} to go"), PATIENCE, async || {
            Ok(is_absent(cluster, &namespace, kind, "echo-media").await?.then_some(()))
        })
        .await?;
    }

    // And the definitions may go again.
    for definition in &published {
        cluster.kubectl(&["delete", "-f", &definition.to_string_lossy()]).await?;
    }
    merge(cluster, &namespace, "voiceagent", "echo", &json!({"spec": {"suspend": true}})).await?;
    told(cluster, &namespace, "voiceagent", "echo", ("Ready", "Suspended")).await?;
    Ok(())
}

const IMAGE: &str = "ghcr.io/switchboard-dev/switchboard-media";

/// A release that does not start stops at the limit, and every caller is still answered; the next one goes through.
async fn images(ctx: Arc<Ctx>) -> Result<()> {
    let cluster = ctx.cluster()?;
    ready(&ctx).await?;
    let installed = default_image(cluster).await?;
    let next = format!("{IMAGE}:next");
    cluster.import_image(&OciImage::of_binary(&next, &binary("switchboard-media")?)?).await?;
    let namespace = namespace_with_gateway(&ctx, "agents-images").await?;
    let one = json!({"type": "Manual", "manual": {"replicas": 1}});
    let mut patient = echo("patient", &one);
    patient["spec"]["updatePolicy"] = json!({"type": "OnSpecChange"});
    for agent in [echo("first", &one), echo("second", &one), patient] {
        apply(cluster, &namespace, &agent).await?;
    }
    for agent in ["first", "second", "patient"] {
        wait_until_ready(cluster, &namespace, "voiceagent", agent, PATIENCE).await?;
    }

    let broken = format!("{IMAGE}:does-not-exist");
    set_default_image(cluster, &broken).await?;
    wait_for("one rollout, and everybody else in the queue", PATIENCE, async || {
        let agents: Value =
            serde_json::from_str(&cluster.kubectl(&["get", "voiceagents", "-A", "-o", "json"]).await?)?;
        // Agents of other trials that are still on their way out take no part.
        let ours = |agent: &&Value| {
            [namespace.as_str(), NAMESPACE].iter().any(|ours| agent["metadata"]["namespace"] == *ours)
        };
        let agents: Vec<&Value> = agents["items"].as_array().context("agents")?.iter().filter(ours).collect();
        let mut counts = (0, 0, 0);
        for agent in &agents {
            let current = condition(agent, "ImageCurrent").context("a condition ImageCurrent")?;
            match current["reason"].as_str() {
                Some("HeldBack") => counts.2 += 1,
                Some("RolloutQueued") => counts.1 += 1,
                _ if agent["status"]["image"] == json!(broken) => counts.0 += 1,
                _ => {}
            }
        }
        ensure!(counts.0 <= 1, "more than one at a time: {counts:?}");
        Ok((counts.0 == 1 && counts.2 == 1 && counts.1 == agents.len() - 2).then_some(()))
    })
    .await?;
    for agent in ["first", "second", "patient"] {
        let found = resource(cluster, &namespace, "voiceagent", agent).await?;
        assert_eq!(condition(&found, "Ready").context("Ready")?["status"], "True", "{agent}: old pods serve");
    }

    set_default_image(cluster, &next).await?;
    for agent in ["first", "second"] {
        rolled_to(cluster, &namespace, agent, &next).await?;
    }
    let kept = resource(cluster, &namespace, "voiceagent", "patient").await?;
    assert_eq!(kept["status"]["image"], json!(installed));
    assert_eq!(condition(&kept, "ImageCurrent").context("ImageCurrent")?["reason"], "HeldBack");
    merge(cluster, &namespace, "voiceagent", "patient", &json!({"spec": {"limits": {"silenceSeconds": 20}}}))
        .await?;
    rolled_to(cluster, &namespace, "patient", &next).await?;

    // Or its agents would wait for turns, too.
    cluster.kubectl(&["delete", "namespace", &namespace, "--wait=false"]).await?;
    set_default_image(cluster, &installed).await?;
    let reset = ["set", "env", "deployment/switchboard-operator", "SWITCHBOARD_MAX_ROLLOUTS-"];
    cluster.kubectl(&[&reset[..], &["-n", OPERATOR_NAMESPACE]].concat()).await?;
    operator_rolled_out(cluster).await?;
    rolled_to(cluster, NAMESPACE, "sales", &installed).await?;
    ready(&ctx).await
}

/// Waits until all pods of an agent have an image, and the agent says so.
async fn rolled_to(cluster: &Cluster, namespace: &str, agent: &str, image: &str) -> Result<()> {
    wait_for(&format!("{agent} to run {image}"), 2 * PATIENCE, async || {
        let found = resource(cluster, namespace, "voiceagent", agent).await?;
        let current = condition(&found, "ImageCurrent").context("a condition ImageCurrent")?;
        ensure!(current["status"] == "True" && found["status"]["image"] == image, "{current}");
        let deployment = resource(cluster, namespace, "deployment", &format!("{agent}-media")).await?;
        assert_eq!(deployment["spec"]["template"]["spec"]["containers"][0]["image"], image);
        let (status, wanted) = (&deployment["status"], &deployment["spec"]["replicas"]);
        let is_whole = status["updatedReplicas"] == *wanted
            && status["replicas"] == *wanted
            && status["readyReplicas"] == *wanted;
        Ok(is_whole.then_some(()))
    })
    .await
}

async fn default_image(cluster: &Cluster) -> Result<String> {
    let operator = resource(cluster, OPERATOR_NAMESPACE, "deployment", "switchboard-operator").await?;
    let env = operator["spec"]["template"]["spec"]["containers"][0]["env"].as_array().context("env")?;
    let image = env.iter().find(|entry| entry["name"] == "SWITCHBOARD_MEDIA_IMAGE").context("the image")?;
    Ok(image["value"].as_str().context("a value")?.to_owned())
}

/// As an upgrade of the operator does, with one rollout at a time.
async fn set_default_image(cluster: &Cluster, image: &str) -> Result<()> {
    let image = format!("SWITCHBOARD_MEDIA_IMAGE={image}");
    let set = ["set", "env", "deployment/switchboard-operator", &image, "SWITCHBOARD_MAX_ROLLOUTS=1"];
    cluster.kubectl(&[&set[..], &["-n", OPERATOR_NAMESPACE]].concat()).await?;
    operator_rolled_out(cluster).await
}

async fn operator_rolled_out(cluster: &Cluster) -> Result<()> {
    let rollout = ["rollout", "status", "deployment/switchboard-operator", "-n", OPERATOR_NAMESPACE];
    cluster.kubectl(&[&rollout[..], &["--timeout=120s"]].concat()).await?;
    Ok(())
}

async fn departure(ctx: Arc<Ctx>) -> Result<()> {
    let cluster = ctx.cluster()?;
    ready(&ctx).await?;
    // Longer than the call, so that the call's own end is what is waited for.
    merge(cluster, NAMESPACE, "voiceagent", "sales", &json!({"spec": {"drain": {"windowSeconds": 600}}}))
        .await?;
    let rollout = ["rollout", "status", "deployment/sales-media", "-n", NAMESPACE, "--timeout=180s"];
    wait_until_ready(cluster, NAMESPACE, "voiceagent", "sales", PATIENCE).await?;
    cluster.kubectl(&rollout).await?;

    let simulator = ctx.installation()?.simulator();
    let caller = json!([
        {"waitForAgent": {"seconds": 30}},
        {"say": "I would like a quote for a move next month."},
        {"waitForAgent": {"seconds": 30}},
        {"pause": 25000},
        {"say": "Hello, what are your opening hours?"},
        {"waitForAgent": {"seconds": 30}},
        {"say": "Thank you very much, goodbye."},
        {"expectHangUp": {"seconds": 40}},
    ]);
    let sid = simulator.place_call(CALLER, NUMBER, &caller).await?;
    wait_for("the agent's greeting", PATIENCE, async || {
        let call = simulator.call(&sid).await?;
        Ok(call.to_string().contains("agentStartedSpeaking").then_some(()))
    })
    .await?;

    cluster.kubectl(&["delete", "voiceagent", "sales", "-n", NAMESPACE, "--wait=false"]).await?;
    let found = told(cluster, NAMESPACE, "voiceagent", "sales", ("Ready", "WaitingForNumbers")).await?;
    ensure!(found["message"].as_str().is_some_and(|text| text.contains("main-line")), "{found}");
    cluster.kubectl(&["delete", "phonenumber", "main-line", "-n", NAMESPACE, "--timeout=60s"]).await?;
    told(cluster, NAMESPACE, "voiceagent", "sales", ("Ready", "WaitingForCalls")).await?;
    for kind in ["deployment", "service", "ingress", "configmap"] {
        let child = resource(cluster, NAMESPACE, kind, "sales-media").await?;
        ensure!(child["metadata"]["deletionTimestamp"].is_null(), "{kind} is on its way out in mid-call");
    }

    let call = simulator.finished_call(&sid, 2 * PATIENCE).await?;
    assert_eq!(call["failedStep"], Value::Null, "{call:#}");
    assert_eq!(call["endReason"], "hangupVerb", "{call:#}");
    assert_eq!(simulator.violations().await?, Vec::<Value>::new(), "{call:#}");
    for kind in ["voiceagent/sales", "deployment/sales-media", "service/sales-media", "ingress/sales-media"] {
        let (kind, name) = kind.split_once('/').context("a kind and a name")?;
        wait_for(&format!("{kind} {name} to go"), PATIENCE, async || {
            Ok(is_absent(cluster, NAMESPACE, kind, name).await?.then_some(()))
        })
        .await?;
    }
    // Everything as it was, for the trials that come after.
    wait_for("the old pods to go", PATIENCE, async || {
        Ok(of_agent(cluster, NAMESPACE, "sales").await?.is_empty().then_some(()))
    })
    .await?;
    ready(&ctx).await
}

async fn of_agent(cluster: &Cluster, namespace: &str, agent: &str) -> Result<Vec<Value>> {
    let label = format!("switchboard.dev/agent={agent}");
    let pods = cluster.kubectl(&["get", "pods", "-n", namespace, "-l", &label, "-o", "json"]).await?;
    let pods: Value = serde_json::from_str(&pods)?;
    Ok(pods["items"].as_array().context("pods")?.clone())
}
