//! The operator as a guest of the cluster: it leads alone, asks little, keeps secrets, and goes on where one object is bad.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use e2e::audit::Request;
use e2e::installation::{OPERATOR_NAMESPACE, repository, resource, wait_until_ready};
use e2e::{Cluster, wait_for};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::ListParams;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::context::{Ctx, PATIENCE, http_get};
use crate::fixture::merge;
use crate::main_job::{NAMESPACE, NUMBER, ready};
use crate::robustness::{ACCOUNT, TOKEN, apply_json, leader_pod, operator_rolled_out};

pub(crate) fn trials(ctx: &Arc<Ctx>) -> Vec<Trial> {
    vec![
        ctx.trial("leadership::an_idle_operator_asks_less_than_once_a_second_and_writes_nothing", idle),
        ctx.trial("leadership::a_leader_that_was_paused_does_nothing_when_it_goes_on", paused),
        ctx.trial("leadership::an_object_that_cannot_be_read_stops_no_other", poison),
        ctx.trial("leadership::no_value_of_a_secret_is_anywhere_but_in_secrets", secrets),
    ]
}

async fn idle(ctx: Arc<Ctx>) -> Result<()> {
    const RENEWALS: usize = 7;
    // 20 s at least: the steward asks the pods every 15 s, and what they say may be news to a status.
    const AT_REST: usize = 5;
    let cluster = ctx.cluster()?;
    ready(&ctx).await?;
    let renewals =
        |requests: &[Request]| requests.iter().filter(|r| r.resource == "leases" && r.is_write()).count();
    // What earlier trials set in motion has come to rest when nothing is leaving any more, and then some renewals pass with
    // nothing else written.
    let begin = wait_for("rest", PATIENCE * 2, async || {
        if is_anything_leaving(cluster).await? {
            return Ok(None);
        }
        let begin = cluster.requests(0)?.len();
        let rest = async || Ok((renewals(&cluster.requests(begin)?) >= AT_REST).then_some(()));
        wait_for("renewals", PATIENCE, rest).await?;
        let written = cluster.requests(begin)?.into_iter().any(|r| r.is_write() && r.resource != "leases");
        Ok((!written).then_some(begin))
    })
    .await?;
    // A renewal is every 5 s, and they are counted rather than a clock: slow machines make it longer, not different.
    let asked = wait_for("some renewals", PATIENCE, async || {
        let asked = cluster.requests(begin)?;
        Ok((renewals(&asked) >= RENEWALS).then_some(asked))
    })
    .await?;
    let seconds = (RENEWALS - 1) * 5;
    ensure!(asked.len() <= seconds, "{} requests in {seconds} s: {asked:#?}", asked.len());
    let written: Vec<&Request> = asked.iter().filter(|r| r.is_write() && r.resource != "leases").collect();
    ensure!(written.is_empty(), "{written:?}");
    Ok(())
}

/// A pod takes its time to leave, and its agent's status says when it is gone.
async fn is_anything_leaving(cluster: &Cluster) -> Result<bool> {
    let pods = Api::<Pod>::all(cluster.client()).list_metadata(&ListParams::default()).await?;
    let namespaces = Api::<Namespace>::all(cluster.client()).list_metadata(&ListParams::default()).await?;
    let is_leaving = |metadata: &ObjectMeta| metadata.deletion_timestamp.is_some();
    let mut all = pods.iter().map(|pod| &pod.metadata).chain(namespaces.iter().map(|one| &one.metadata));
    Ok(all.any(is_leaving))
}

async fn paused(ctx: Arc<Ctx>) -> Result<()> {
    let cluster = ctx.cluster()?;
    let simulator = ctx.installation()?.simulator();
    ready(&ctx).await?;
    operator_rolled_out(cluster).await?;
    let leader = leader_pod(cluster).await?;
    let pod = resource(cluster, OPERATOR_NAMESPACE, "pod", &leader).await?;
    let address = pod["status"]["podIP"].as_str().context("an address")?.to_owned();
    let process = process_of(pod["metadata"]["uid"].as_str().context("a uid")?)?;
    signal("STOP", process)?;
    // While nobody looks, somebody changes the number at Twilio, and the spec changes: work for whoever goes on.
    let number = simulator.number(NUMBER).await?;
    let sid = number["sid"].as_str().context("a sid")?;
    simulator
        .change_number(sid, (ACCOUNT, TOKEN), &[("VoiceUrl", "https://elsewhere.example.com/voice")])
        .await?;
    let fallback = json!({"spec": {"fallbackUrl": "https://static.example.com/paused"}});
    merge(cluster, NAMESPACE, "phonenumber", "main-line", &fallback).await?;
    wait_for("the other replica to lead", PATIENCE, async || {
        let lease = resource(cluster, OPERATOR_NAMESPACE, "lease", "switchboard-operator").await?;
        let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned();
        Ok((!holder.is_empty() && !holder.starts_with(&leader)).then_some(()))
    })
    .await?;
    wait_until_ready(cluster, NAMESPACE, "phonenumber", "main-line", PATIENCE).await?;
    assert_eq!(simulator.number(NUMBER).await?["voice_url"], number["voice_url"]);

    // Now both run. The one that was paused has had its timers, its watches and its plans all along.
    let before = simulator.requests(0).await?.len();
    signal("CONT", process)?;
    wait_for("the paused one to end itself", PATIENCE, async || {
        let pod = resource(cluster, OPERATOR_NAMESPACE, "pod", &leader).await?;
        let ended = &pod["status"]["containerStatuses"][0]["lastState"]["terminated"];
        Ok((ended["exitCode"] == 1).then_some(()))
    })
    .await?;
    let log = cluster.kubectl(&["logs", "-n", OPERATOR_NAMESPACE, &leader, "--previous"]).await?;
    ensure!(log.contains("Lease was lost"), "{log}");
    let asked = simulator.requests(before).await?;
    let theirs: Vec<&Value> = asked.iter().filter(|r| r["from"] == address.as_str()).collect();
    ensure!(theirs.is_empty(), "it went on at Twilio: {theirs:?}");
    let edit = json!({"spec": {"fallbackUrl": null}});
    merge(cluster, NAMESPACE, "phonenumber", "main-line", &edit).await?;
    wait_until_ready(cluster, NAMESPACE, "phonenumber", "main-line", PATIENCE).await?;
    operator_rolled_out(cluster).await
}

async fn poison(ctx: Arc<Ctx>) -> Result<()> {
    let cluster = ctx.cluster()?;
    ready(&ctx).await?;
    // An object from a time when the schema took anything, which this operator cannot read.
    let open = json!([
        {"op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec",
         "value": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
    ]);
    let crd = "phonenumbers.switchboard.dev";
    cluster.kubectl(&["patch", "crd", crd, "--type=json", "-p", &open.to_string()]).await?;
    let poison = json!({
        "apiVersion": "switchboard.dev/v1alpha1", "kind": "PhoneNumber", "metadata": {"name": "poison"},
        "spec": {"source": ["what", "is", "this"], "routes": 7},
    });
    wait_for("the API server to take it", PATIENCE, async || {
        apply_json(cluster, NAMESPACE, "poison", &poison).await.map(Some)
    })
    .await?;
    let definitions = repository().join("crds/yaml");
    cluster
        .kubectl(&["apply", "--server-side", "--force-conflicts", "-k", &definitions.to_string_lossy()])
        .await?;
    wait_for("it to be counted", PATIENCE, async || {
        let leader = leader_pod(cluster).await?;
        let pod = resource(cluster, OPERATOR_NAMESPACE, "pod", &leader).await?;
        let address = pod["status"]["podIP"].as_str().context("an address")?.to_owned();
        let scrape = http_get(&format!("{address}:8080"), "/metrics").await?;
        let series = "switchboard_operator_reconciles_total{kind=\"PhoneNumber\",outcome=\"malformed\"} ";
        let count = scrape.lines().find_map(|line| line.strip_prefix(series)?.parse::<u64>().ok());
        Ok((count.unwrap_or_default() > 0).then_some(()))
    })
    .await?;
    // The others, of this kind and of those that read it, go on; so does a new leader, which lists it.
    let leader = leader_pod(cluster).await?;
    cluster.kubectl(&["delete", "pod", &leader, "-n", OPERATOR_NAMESPACE]).await?;
    for url in [json!("https://static.example.com/poison"), Value::Null] {
        merge(cluster, NAMESPACE, "phonenumber", "main-line", &json!({"spec": {"fallbackUrl": url}})).await?;
        wait_until_ready(cluster, NAMESPACE, "phonenumber", "main-line", PATIENCE).await?;
    }
    let limits = json!({"spec": {"limits": {"maxCallSeconds": 601}}});
    merge(cluster, NAMESPACE, "voiceagent", "sales", &limits).await?;
    wait_until_ready(cluster, NAMESPACE, "voiceagent", "sales", PATIENCE).await?;
    cluster.kubectl(&["delete", "phonenumber", "poison", "-n", NAMESPACE, "--timeout=60s"]).await?;
    operator_rolled_out(cluster).await
}

async fn secrets(ctx: Arc<Ctx>) -> Result<()> {
    let cluster = ctx.cluster()?;
    ready(&ctx).await?;
    let values = secret_values(cluster).await?;
    ensure!(values.len() >= 5, "{} values", values.len());
    let mut places = Vec::new();
    for kind in [
        "configmaps",
        "events",
        "voicegateways",
        "voiceagents",
        "phonenumbers",
        "deployments",
        "pods",
        "leases",
    ] {
        let text = cluster.kubectl(&["get", kind, "-A", "-o", "json", "--show-managed-fields"]).await?;
        places.push((kind.to_owned(), text));
    }
    for (namespace, label) in [
        (OPERATOR_NAMESPACE, "app.kubernetes.io/name=switchboard-operator"),
        (NAMESPACE, "switchboard.dev/agent=sales"),
    ] {
        let logs = cluster.kubectl(&["logs", "-n", namespace, "-l", label, "--tail=-1", "--prefix"]).await?;
        ensure!(!logs.is_empty(), "no logs of {label}");
        places.push((format!("logs of {label}"), logs));
    }
    for (place, text) in &places {
        for value in &values {
            ensure!(!text.contains(value.as_str()), "a Secret's value is in {place}");
        }
    }
    Ok(())
}

/// Every value of every Secret of the trial's namespace, as text and as base64, and each key of the keyring.
async fn secret_values(cluster: &Cluster) -> Result<BTreeSet<String>> {
    let list: Value =
        serde_json::from_str(&cluster.kubectl(&["get", "secrets", "-n", NAMESPACE, "-o", "json"]).await?)?;
    let mut values = BTreeSet::new();
    for secret in list["items"].as_array().context("Secrets are a list")? {
        for (key, value) in secret["data"].as_object().into_iter().flatten() {
            let encoded = value.as_str().unwrap_or_default();
            let name = secret["metadata"]["name"].as_str().unwrap_or_default();
            let template = format!("go-template={{{{index .data \"{key}\" | base64decode}}}}");
            let plain = cluster.kubectl(&["get", "secret", name, "-n", NAMESPACE, "-o", &template]).await?;
            if let Ok(keyring) = serde_json::from_str::<Value>(&plain) {
                let keys = keyring["keys"].as_object().into_iter().flatten();
                values.extend(keys.filter_map(|(_, key)| key.as_str()).map(str::to_owned));
            }
            // The address of Redis without a password is no secret.
            if !plain.starts_with("redis://10.") {
                values.extend([encoded.to_owned(), plain]);
            }
        }
    }
    Ok(values)
}

/// The process of a pod's container: the one named like the binary in the pod's control group.
fn process_of(pod: &str) -> Result<u32> {
    let group = format!("pod{pod}");
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let Ok(process) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let read = |file: &str| std::fs::read_to_string(entry.path().join(file)).unwrap_or_default();
        if read("cgroup").contains(&group) && read("comm").trim() == "switchboard" {
            return Ok(process);
        }
    }
    anyhow::bail!("no process of pod {pod}")
}

fn signal(name: &str, process: u32) -> Result<()> {
    let kill = std::process::Command::new("sh")
        .args(["-c", "kill -s \"$0\" \"$1\"", name, &process.to_string()])
        .status()?;
    ensure!(kill.success(), "process {process} cannot be sent SIG{name}");
    Ok(())
}
