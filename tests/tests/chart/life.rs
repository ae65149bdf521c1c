//! Install → upgrade → uninstall → install again, with callers on the line from the first to the last of it.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::chart::{RELEASE, output_of};
use e2e::installation::{OPERATOR_NAMESPACE, apply, condition, repository, resource, wait_until_ready};
use e2e::wait_for;
use serde_json::{Value, json};

use crate::Ctx;

/// How long anything may take: seconds on an idle machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
const NAMESPACE: &str = "moving";
const NUMBER: &str = "+15551230001";
const CALLER: &str = "+15557654321";
const CALLS: usize = 3;

pub(crate) async fn of_an_installation(ctx: &Ctx) -> Result<()> {
    let Ctx { cluster, installation, .. } = ctx;
    let simulator = installation.simulator();
    secrets(ctx).await?;

    // With a gateway and an agent of its own, on a cluster that never heard of those kinds.
    let began = Instant::now();
    install(ctx, &[]).await?;
    let media = ["wait", "pod", "-n", OPERATOR_NAMESPACE, "-l", "switchboard.dev/agent=reception"];
    let ready = ["--for=condition=Ready", "--timeout=120s"];
    wait_for("a media pod", PATIENCE, async || {
        cluster.kubectl(&[&media[..], &ready].concat()).await.map(Some)
    })
    .await?;
    eprintln!("helm install to Ready media pods: {:.1} s", began.elapsed().as_secs_f64());
    let gateway = wait_until_ready(cluster, OPERATOR_NAMESPACE, "voicegateway", "default", PATIENCE).await?;
    assert_eq!(condition(&gateway, "CredentialsVerified").context("a condition")?["status"], "True");
    helm(ctx, &["test", RELEASE, "--namespace", OPERATOR_NAMESPACE, "--timeout", "120s"]).await?;

    apply(cluster, NAMESPACE, &repository().join("tests/cluster/moving.yaml")).await?;
    for (kind, name) in [("voicegateway", "default"), ("voiceagent", "sales"), ("phonenumber", "main-line")] {
        wait_until_ready(cluster, NAMESPACE, kind, name, PATIENCE).await?;
    }
    // Longer than this trial on the slowest machine.
    let patient = json!({"spec": {"limits": {"maxCallSeconds": 7200}}}).to_string();
    cluster
        .kubectl(&["patch", "voiceagent", "sales", "-n", NAMESPACE, "--type=merge", "-p", &patient])
        .await?;
    wait_until_ready(cluster, NAMESPACE, "voiceagent", "sales", PATIENCE).await?;
    let mut calls = Vec::new();
    for _ in 0..CALLS {
        calls.push(simulator.place_call(CALLER, NUMBER, &chatter()).await?);
    }
    each_is_answered_again(ctx, &calls).await?;
    let pods = pods_of(ctx, NAMESPACE, "switchboard.dev/agent=sales").await?;

    // Changed values replace every operator, and the custom resources that were made after the installation follow them.
    let before = operators(ctx).await?;
    let changed = [
        "--set",
        "log=operator=debug\\,info",
        "--set",
        "replicas=3",
        "--set",
        "podLabels.upgraded=yes",
        "--set",
        "sampleAgent.spec.persona.greeting.text=Good day.",
    ];
    upgrade(ctx, &changed).await?;
    let after = operators(ctx).await?;
    ensure!(after.len() == 3 && after.iter().all(|pod| !before.contains(pod)), "{before:?} became {after:?}");
    let agent = resource(cluster, OPERATOR_NAMESPACE, "voiceagent", "reception").await?;
    assert_eq!(agent["spec"]["persona"]["greeting"]["text"], "Good day.");
    wait_until_ready(cluster, OPERATOR_NAMESPACE, "voiceagent", "reception", PATIENCE).await?;
    each_is_answered_again(ctx, &calls).await?;

    // Without rights but in the namespaces it watches, it still does its work.
    let watched = format!("watchNamespaces={{{OPERATOR_NAMESPACE},{NAMESPACE}}}");
    upgrade(ctx, &["--set", &watched, "--set", "rbac.aggregate=false"]).await?;
    let roles = [
        "get",
        "clusterroles,clusterrolebindings",
        "-l",
        "app.kubernetes.io/instance=switchboard",
        "-o",
        "name",
    ];
    assert_eq!(cluster.kubectl(&roles).await?, "");
    helm(ctx, &["test", RELEASE, "--namespace", OPERATOR_NAMESPACE, "--timeout", "120s"]).await?;
    greeting_arrives(ctx, "Example Movers, Anna speaking.").await?;
    each_is_answered_again(ctx, &calls).await?;

    helm(ctx, &["uninstall", RELEASE, "--namespace", OPERATOR_NAMESPACE, "--wait", "--timeout", "120s"])
        .await?;
    wait_for("the operators to be gone", PATIENCE, async || {
        Ok(operators(ctx).await?.is_empty().then_some(()))
    })
    .await?;
    let kept = ["get", "voicegateways,voiceagents,phonenumbers", "-A", "-o", "name"];
    let mut kept: Vec<String> = cluster.kubectl(&kept).await?.lines().map(str::to_owned).collect();
    kept.sort();
    let expected = [
        "phonenumber.switchboard.dev/main-line",
        "voiceagent.switchboard.dev/reception",
        "voiceagent.switchboard.dev/sales",
        "voicegateway.switchboard.dev/default",
        "voicegateway.switchboard.dev/default",
    ];
    assert_eq!(kept, expected, "nobody's resources go with the chart");
    assert_eq!(pods_of(ctx, NAMESPACE, "switchboard.dev/agent=sales").await?, pods, "the same media pods");
    each_is_answered_again(ctx, &calls).await?;
    // Nor do new callers notice.
    let late = simulator.place_call(CALLER, NUMBER, &chatter()).await?;
    calls.push(late);
    each_is_answered_again(ctx, &calls).await?;
    for sid in &calls {
        simulator.hang_up(sid).await?;
        let call = simulator.finished_call(sid, PATIENCE).await?;
        assert_eq!(call["endReason"], "restCompleted", "nobody but this test ended it: {call:#}");
        assert_eq!(events(&call, "streamStarted"), 1, "no call was handed over or taken up anew: {call:#}");
    }
    assert_eq!(simulator.violations().await?, Vec::<Value>::new());
    Ok(())
}

/// After an uninstallation everything is still there, and belongs to nobody: the next installation takes it over.
pub(crate) async fn once_more(ctx: &Ctx) -> Result<()> {
    let Ctx { cluster, installation, .. } = ctx;
    if cluster.kubectl(&["get", "voiceagent", "sales", "-n", NAMESPACE]).await.is_err() {
        of_an_installation(ctx).await?;
    }
    let agent = resource(cluster, OPERATOR_NAMESPACE, "voiceagent", "reception").await?;
    install(ctx, &[]).await?;
    let again = resource(cluster, OPERATOR_NAMESPACE, "voiceagent", "reception").await?;
    assert_eq!(
        again["metadata"]["uid"], agent["metadata"]["uid"],
        "the same object, with the chart's values again"
    );
    assert_ne!(again["spec"]["persona"]["greeting"]["text"], "Good day.");
    greeting_arrives(ctx, "Example Movers, good afternoon.").await?;

    // Removed in the order that the manual says, nothing remains.
    let all = ["delete", "phonenumbers,voiceagents,voicegateways", "--all", "-A", "--timeout=120s"];
    cluster.kubectl(&all).await?;
    let number = installation.simulator().number(NUMBER).await?;
    assert_eq!(number["voice_url"], installation.former_number()["voice_url"], "as it was before all this");
    helm(ctx, &["uninstall", RELEASE, "--namespace", OPERATOR_NAMESPACE, "--wait", "--timeout", "120s"])
        .await?;
    let definitions = repository().join("crds/yaml");
    cluster.kubectl(&["delete", "-k", &definitions.to_string_lossy(), "--timeout=60s"]).await?;
    assert_eq!(installation.simulator().violations().await?, Vec::<Value>::new());
    Ok(())
}

/// What the default gateway needs, in the release's namespace, under the profile of Pod Security that the chart promises.
async fn secrets(ctx: &Ctx) -> Result<()> {
    let cluster = &ctx.cluster;
    cluster.kubectl(&["create", "namespace", OPERATOR_NAMESPACE]).await?;
    let restricted = "pod-security.kubernetes.io/enforce=restricted";
    cluster.kubectl(&["label", "namespace", OPERATOR_NAMESPACE, restricted]).await?;
    for (name, value) in
        [("twilio", "authToken=simulated-auth-token"), ("redis", "url=redis://10.240.0.1:6379/1")]
    {
        let literal = format!("--from-literal={value}");
        cluster.kubectl(&["create", "secret", "generic", name, "-n", OPERATOR_NAMESPACE, &literal]).await?;
    }
    Ok(())
}

/// `helm install` with a default gateway and the sample agent.
async fn install(ctx: &Ctx, more: &[&str]) -> Result<()> {
    let values = json!({
        "defaultGateway": {"enabled": true, "spec": {
            "publicUrl": "https://voice.example.com",
            "exposure": {"type": "None"},
            "carrier": {"type": "Twilio", "twilio": {
                "accountSid": "AC00000000000000000000000000000001",
                "authTokenSecretRefs": [{"name": "twilio", "key": "authToken"}],
                "apiBaseUrl": ctx.installation.simulator().carrier_url(),
            }},
            "store": {"type": "Redis", "redis": {"urlSecretRef": {"name": "redis", "key": "url"}}},
        }},
        "sampleAgent": {"enabled": true},
    });
    let file = ctx.cluster.state_dir().join("values.json");
    std::fs::write(&file, values.to_string())?;
    let (chart, file) = (ctx.chart.folder().to_string_lossy(), file.to_string_lossy());
    let command = [
        "install",
        RELEASE,
        &chart,
        "--namespace",
        OPERATOR_NAMESPACE,
        "--values",
        &file,
        "--wait",
        "--timeout",
        "120s",
    ];
    helm(ctx, &[&command[..], more].concat()).await
}

/// `helm upgrade` with what was set before, and more.
async fn upgrade(ctx: &Ctx, more: &[&str]) -> Result<()> {
    let chart = ctx.chart.folder().to_string_lossy();
    let command = [
        "upgrade",
        RELEASE,
        &chart,
        "--namespace",
        OPERATOR_NAMESPACE,
        "--reuse-values",
        "--wait",
        "--timeout",
        "120s",
    ];
    helm(ctx, &[&command[..], more].concat()).await
}

async fn helm(ctx: &Ctx, arguments: &[&str]) -> Result<()> {
    let mut command: Command = ctx.chart.helm(arguments);
    command.arg("--kubeconfig").arg(ctx.cluster.kubeconfig_path());
    command.env("HOME", ctx.cluster.state_dir());
    let said = tokio::task::spawn_blocking(move || output_of(command)).await?;
    if let Err(error) = said {
        let pods = ctx.cluster.kubectl(&["get", "pods,events", "-n", OPERATOR_NAMESPACE]).await?;
        let log = e2e::installation::operator_log(&ctx.cluster).await.unwrap_or_default();
        return Err(error.context(format!("{pods}\n{log}")));
    }
    Ok(())
}

/// A changed greeting is rendered, so an operator works.
async fn greeting_arrives(ctx: &Ctx, text: &str) -> Result<()> {
    let cluster = &ctx.cluster;
    let before =
        resource(cluster, NAMESPACE, "voiceagent", "sales").await?["status"]["configRevision"].clone();
    let patch = json!({"spec": {"persona": {"greeting": {"text": text}}}}).to_string();
    cluster.kubectl(&["patch", "voiceagent", "sales", "-n", NAMESPACE, "--type=merge", "-p", &patch]).await?;
    wait_for("the changed greeting to be rendered", PATIENCE, async || {
        let agent = resource(cluster, NAMESPACE, "voiceagent", "sales").await?;
        Ok((agent["status"]["configRevision"] != before).then_some(()))
    })
    .await?;
    wait_until_ready(cluster, NAMESPACE, "voiceagent", "sales", PATIENCE).await?;
    Ok(())
}

/// A caller who goes on for longer than any test: the call ends when the test hangs up.
fn chatter() -> Value {
    let turn =
        [json!({"say": "Hello, what are your opening hours?"}), json!({"waitForAgent": {"seconds": 60}})];
    let greeting = json!({"waitForAgent": {"seconds": 60}});
    std::iter::once(greeting).chain(turn.into_iter().cycle().take(400)).collect()
}

/// Every caller is answered once more, so their calls live.
async fn each_is_answered_again(ctx: &Ctx, calls: &[String]) -> Result<()> {
    let simulator = ctx.installation.simulator();
    for sid in calls {
        let heard = events(&simulator.call(sid).await?, "agentStartedSpeaking");
        wait_for("a caller to be answered again", PATIENCE, async || {
            let call = simulator.call(sid).await?;
            ensure!(call["finished"] != true, "the call is over: {call:#}");
            Ok((events(&call, "agentStartedSpeaking") > heard).then_some(()))
        })
        .await?;
    }
    Ok(())
}

fn events(call: &Value, name: &str) -> usize {
    call["timeline"].as_array().into_iter().flatten().filter(|event| event["event"] == name).count()
}

/// Names of the pods with a label that are not leaving, sorted.
async fn pods_of(ctx: &Ctx, namespace: &str, label: &str) -> Result<Vec<String>> {
    let pods = ctx.cluster.kubectl(&["get", "pods", "-n", namespace, "-l", label, "-o", "json"]).await?;
    let pods: Value = serde_json::from_str(&pods)?;
    let pods = pods["items"].as_array().context("pods")?.iter();
    let staying = pods.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    let mut names: Vec<String> =
        staying.filter_map(|pod| pod["metadata"]["name"].as_str()).map(str::to_owned).collect();
    names.sort();
    Ok(names)
}

async fn operators(ctx: &Ctx) -> Result<Vec<String>> {
    pods_of(ctx, OPERATOR_NAMESPACE, "app.kubernetes.io/name=switchboard-operator").await
}
