//! The operator where something is wrong: at Twilio, in the spec, in the cluster, or with the operator itself. Each trial
//! leaves the resources as `moving.yaml` has them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use e2e::installation::{OPERATOR_NAMESPACE, condition, resource, wait_until_ready};
use e2e::{Cluster, wait_for};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::context::{Ctx, PATIENCE};
use crate::fixture;
use crate::main_job::{NAMESPACE, NUMBER, ready};

pub(crate) const ACCOUNT: &str = "AC00000000000000000000000000000001";
pub(crate) const TOKEN: &str = "simulated-auth-token";
/// A Lease's 15 s, a look at it every 5 s, and the time to read everything.
const BACK: Duration = Duration::from_secs(40);
const FOREIGN: &str = "https://elsewhere.example.com/voice";

pub(crate) fn trials(ctx: &Arc<Ctx>) -> Vec<Trial> {
    vec![
        ctx.trial("robustness::a_refused_auth_token_is_told_and_heals_with_the_secret", credentials),
        ctx.trial("robustness::a_number_that_is_not_in_the_account_is_told", absent_number),
        ctx.trial("robustness::of_two_objects_with_one_number_the_older_has_it", conflict),
        ctx.trial("robustness::webhooks_changed_at_twilio_are_set_again_or_only_told", drift),
        ctx.trial("robustness::a_mode_of_scaling_that_is_left_leaves_nothing_and_keeps_the_pods", scaling),
        ctx.trial("robustness::without_exposure_there_is_no_ingress", exposure),
        ctx.trial("robustness::the_operators_account_may_not_do_what_it_need_not", rights),
        ctx.trial("robustness::when_the_leading_operator_dies_the_other_goes_on", leader),
        // Last: for a while afterwards everybody in the cluster lists everything anew.
        ctx.trial("robustness::a_call_and_the_operator_outlive_a_restart_of_the_api_server", api_server),
    ]
}

async fn credentials(ctx: Arc<Ctx>) -> Result<()> {
    let cluster = ctx.cluster()?;
    let namespace = ctx.namespace("robust-credentials").await?;
    let secret = |token: &str| {
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "twilio"},
               "stringData": {"authToken": token}})
    };
    apply_json(cluster, &namespace, "secret", &secret("no-such-token")).await?;
    let carrier = json!({"type": "Twilio", "twilio": {
        "accountSid": ACCOUNT,
        "authTokenSecretRefs": [{"name": "twilio", "key": "authToken"}],
        "apiBaseUrl": ctx.installation()?.simulator().carrier_url(),
    }});
    let gateway = json!({
        "apiVersion": "switchboard.dev/v1alpha1",
        "kind": "VoiceGateway",
        "metadata": {"name": "default"},
        "spec": {
            "publicUrl": "https://voice.example.com",
            "exposure": {"type": "None"},
            "carrier": carrier,
            "store": {"type": "Memory"},
        },
    });
    apply_json(cluster, &namespace, "gateway", &gateway).await?;
    let told = told(cluster, &namespace, "voicegateway", "default", "Ready", "CredentialsRejected").await?;
    ensure!(told["status"] == "False", "{told}");
    let message = told["message"].as_str().unwrap_or_default();
    ensure!(message.contains("authTokenSecretRefs"), "what to do is not said: {message}");
    ensure!(!message.contains("no-such-token"), "the token is in the message");
    apply_json(cluster, &namespace, "secret", &secret(TOKEN)).await?;
    let gateway = wait_until_ready(cluster, &namespace, "voicegateway", "default", PATIENCE).await?;
    let shared = condition(&gateway, "StoreShared").context("a condition about the store")?;
    assert_eq!(shared["reason"], "MemoryStore");
    Ok(())
}

async fn absent_number(ctx: Arc<Ctx>) -> Result<()> {
    let cluster = ctx.cluster()?;
    ready(&ctx).await?;
    apply_json(cluster, NAMESPACE, "number", &number("absent", "+15559990001")).await?;
    let told = told(cluster, NAMESPACE, "phonenumber", "absent", "Bound", "NumberNotFound").await?;
    assert_eq!(told["status"], "False");
    cluster.kubectl(&["delete", "phonenumber", "absent", "-n", NAMESPACE, "--timeout=60s"]).await?;
    Ok(())
}

async fn conflict(ctx: Arc<Ctx>) -> Result<()> {
    let cluster = ctx.cluster()?;
    ready(&ctx).await?;
    let simulator = ctx.installation()?.simulator();
    let before = simulator.number(NUMBER).await?;
    apply_json(cluster, NAMESPACE, "number", &number("twin", NUMBER)).await?;
    let told = told(cluster, NAMESPACE, "phonenumber", "twin", "Bound", "NumberTaken").await?;
    let message = told["message"].as_str().unwrap_or_default();
    ensure!(message.contains("main-line"), "the other object is not named: {message}");
    cluster.kubectl(&["delete", "phonenumber", "twin", "-n", NAMESPACE, "--timeout=60s"]).await?;
    assert_eq!(simulator.number(NUMBER).await?["voice_url"], before["voice_url"], "left alone");
    wait_until_ready(cluster, NAMESPACE, "phonenumber", "main-line", PATIENCE).await?;
    Ok(())
}

async fn drift(ctx: Arc<Ctx>) -> Result<()> {
    let cluster = ctx.cluster()?;
    ready(&ctx).await?;
    // Twilio tells nobody of a change, so it is found on a schedule: every five minutes, unless asked to look sooner.
    let sooner = ["set", "env", "deployment/switchboard-operator", "SWITCHBOARD_RESYNC_SECONDS=3"];
    cluster.kubectl(&[&sooner[..], &["-n", OPERATOR_NAMESPACE]].concat()).await?;
    operator_rolled_out(cluster).await?;
    let simulator = ctx.installation()?.simulator();
    let ours = simulator.number(NUMBER).await?;
    let sid = ours["sid"].as_str().context("a sid")?;
    let meddle = async || simulator.change_number(sid, (ACCOUNT, TOKEN), &[("VoiceUrl", FOREIGN)]).await;
    let is_ours =
        async || Ok((simulator.number(NUMBER).await?["voice_url"] == ours["voice_url"]).then_some(()));

    meddle().await?;
    wait_for("the webhook to be set again", PATIENCE, is_ours).await?;

    merge(cluster, "phonenumber", "main-line", &json!({"spec": {"driftPolicy": "Warn"}})).await?;
    wait_until_ready(cluster, NAMESPACE, "phonenumber", "main-line", PATIENCE).await?;
    meddle().await?;
    let told = told(cluster, NAMESPACE, "phonenumber", "main-line", "InSync", "WebhooksDrifted").await?;
    assert_eq!(told["status"], "False");
    assert_eq!(simulator.number(NUMBER).await?["voice_url"], FOREIGN, "only told, not touched");

    merge(cluster, "phonenumber", "main-line", &json!({"spec": {"driftPolicy": "Enforce"}})).await?;
    wait_for("the webhook to be set again", PATIENCE, is_ours).await?;
    wait_until_ready(cluster, NAMESPACE, "phonenumber", "main-line", PATIENCE).await?;
    Ok(())
}

async fn scaling(ctx: Arc<Ctx>) -> Result<()> {
    let cluster = ctx.cluster()?;
    ready(&ctx).await?;
    let begun = resource(cluster, NAMESPACE, "voiceagent", "sales").await?["spec"]["scaling"].clone();
    let manual = |replicas: i32| json!({"spec": {"scaling": {"type": "Manual", "autoscaler": null, "manual": {"replicas": replicas}}}});
    let replicas = async || -> Result<Value> {
        Ok(resource(cluster, NAMESPACE, "deployment", "sales-media").await?["spec"]["replicas"].clone())
    };
    let reconciled = async || wait_until_ready(cluster, NAMESPACE, "voiceagent", "sales", PATIENCE).await;

    merge(cluster, "voiceagent", "sales", &manual(3)).await?;
    reconciled().await?;
    assert_eq!(replicas().await?, 3);
    let hpa = resource(cluster, NAMESPACE, "hpa", "sales-media").await;
    ensure!(hpa.is_err_and(|error| error.to_string().contains("NotFound")), "the HPA is still there");

    let mut back = json!({"spec": {"scaling": begun}});
    back["spec"]["scaling"]["manual"] = Value::Null;
    merge(cluster, "voiceagent", "sales", &back).await?;
    reconciled().await?;
    // The HPA has looked at it, and nothing set the number back to the minimum.
    wait_for("the autoscaler to have looked", PATIENCE, async || {
        let hpa = resource(cluster, NAMESPACE, "hpa", "sales-media").await?;
        Ok(condition(&hpa, "AbleToScale").is_some().then_some(()))
    })
    .await?;
    assert_eq!(replicas().await?, 3, "kept from the mode before");
    merge(cluster, "voiceagent", "sales", &json!({"spec": {"suspend": true}})).await?;
    told(cluster, NAMESPACE, "voiceagent", "sales", "Ready", "Suspended").await?;
    merge(cluster, "voiceagent", "sales", &json!({"spec": {"suspend": false}})).await?;
    reconciled().await?;
    assert_eq!(replicas().await?, 3, "kept by later reconciliations");

    merge(cluster, "voiceagent", "sales", &manual(2)).await?;
    reconciled().await?;
    merge(cluster, "voiceagent", "sales", &back).await?;
    reconciled().await?;
    assert_eq!(replicas().await?, 2);
    Ok(())
}

async fn exposure(ctx: Arc<Ctx>) -> Result<()> {
    let cluster = ctx.cluster()?;
    ready(&ctx).await?;
    let before = resource(cluster, NAMESPACE, "voicegateway", "default").await?["spec"]["exposure"].clone();
    let off = json!({"spec": {"exposure": {"type": "None", "ingress": null}}});
    merge(cluster, "voicegateway", "default", &off).await?;
    wait_for("the Ingress to go", PATIENCE, async || {
        let answer = resource(cluster, NAMESPACE, "ingress", "sales-media").await;
        Ok(answer.is_err_and(|error| error.to_string().contains("NotFound")).then_some(()))
    })
    .await?;
    merge(cluster, "voicegateway", "default", &json!({"spec": {"exposure": before}})).await?;
    wait_for("the Ingress to come back", PATIENCE, async || {
        resource(cluster, NAMESPACE, "ingress", "sales-media").await.map(Some)
    })
    .await?;
    Ok(())
}

async fn rights(ctx: Arc<Ctx>) -> Result<()> {
    let cluster = ctx.cluster()?;
    let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client(), OPERATOR_NAMESPACE);
    let request: TokenRequest = serde_json::from_value(json!({"spec": {"audiences": []}}))?;
    let issued =
        accounts.create_token_request("switchboard-operator", &PostParams::default(), &request).await?;
    let token = issued.status.context("a token request is answered in its status")?.token;
    let client = cluster.client_with_token(token).await?;
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let may = async |verb: &str, group: &str, resource: &str| -> Result<bool> {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let attributes = json!({"namespace": NAMESPACE, "verb": verb, "group": group, "resource": resource,
                                "subresource": subresource});
        let review = serde_json::from_value(json!({"spec": {"resourceAttributes": attributes}}))?;
        let answer = reviews.create(&PostParams::default(), &review).await?;
        Ok(answer.status.context("a review has an answer")?.allowed)
    };
    ensure!(may("get", "", "secrets").await?, "the review works");
    let mut granted = Vec::new();
    for (group, resource, verbs) in FORBIDDEN {
        for verb in verbs {
            if may(verb, group, resource).await? {
                granted.push(format!("{verb} {resource}.{group}"));
            }
        }
    }
    ensure!(granted.is_empty(), "the operator may: {granted:?}");

    // Not only said so.
    let secrets: Api<Secret> = Api::namespaced(client, NAMESPACE);
    match secrets.delete("twilio", &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(()),
        other => bail!("a Secret could be deleted: {other:?}"),
    }
}

/// What an intruder in the operator must not be able to do.
const FORBIDDEN: [(&str, &str, &[&str]); 20] = [
    ("", "secrets", &["delete", "deletecollection"]),
    ("", "configmaps", &["deletecollection"]),
    ("", "pods", &["create", "delete", "deletecollection", "update"]),
    ("", "pods/exec", &["create", "get"]),
    ("", "pods/ephemeralcontainers", &["patch", "update"]),
    ("", "serviceaccounts", &["delete", "impersonate"]),
    ("", "serviceaccounts/token", &["create"]),
    ("", "namespaces", &["create", "delete", "patch"]),
    ("", "nodes", &["get", "list", "patch", "delete"]),
    ("", "nodes/proxy", &["get", "create"]),
    ("", "users", &["impersonate"]),
    ("apps", "daemonsets", &["create", "patch"]),
    ("apps", "statefulsets", &["create", "patch"]),
    ("batch", "jobs", &["create"]),
    ("rbac.authorization.k8s.io", "roles", &["create", "patch", "escalate", "bind"]),
    ("rbac.authorization.k8s.io", "clusterrolebindings", &["create", "patch", "delete"]),
    ("apiextensions.k8s.io", "customresourcedefinitions", &["create", "patch", "delete"]),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations", &["create", "patch"]),
    ("switchboard.dev", "voiceagents", &["create", "delete", "deletecollection"]),
    ("switchboard.dev", "phonenumbers", &["create", "delete", "deletecollection"]),
];

async fn leader(ctx: Arc<Ctx>) -> Result<()> {
    let cluster = ctx.cluster()?;
    ready(&ctx).await?;
    operator_rolled_out(cluster).await?;
    let holder = async || -> Result<String> {
        let lease = resource(cluster, OPERATOR_NAMESPACE, "lease", "switchboard-operator").await?;
        let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
        Ok(holder.split('_').next().unwrap_or_default().to_owned())
    };
    let leaders = wait_for("one of two operators to lead", PATIENCE, async || {
        let leaders = operators(cluster).await?;
        Ok((leaders.len() == 2 && leaders.iter().any(|(_, leads)| *leads)).then_some(leaders))
    })
    .await?;
    let leading: Vec<&String> = leaders.iter().filter(|(_, leads)| *leads).map(|(name, _)| name).collect();
    assert_eq!(leading, [&holder().await?], "the one that holds the Lease");

    // Killed with work before it, and without a chance to give the Lease back.
    let dead = leading[0].clone();
    let kill = ["delete", "pod", &dead, "-n", OPERATOR_NAMESPACE, "--grace-period=0", "--force"];
    cluster.kubectl(&kill).await?;
    cluster.kubectl(&["delete", "service", "sales-media", "-n", NAMESPACE]).await?;
    let limits = json!({"spec": {"limits": {"maxCallSeconds": 599}}});
    merge(cluster, "voiceagent", "sales", &limits).await?;
    wait_until_ready(cluster, NAMESPACE, "voiceagent", "sales", PATIENCE).await?;
    wait_for("the Service to come back", PATIENCE, async || {
        resource(cluster, NAMESPACE, "service", "sales-media").await.map(Some)
    })
    .await?;
    ensure!(holder().await? != dead, "another one leads");
    operator_rolled_out(cluster).await?;
    let leading = operators(cluster).await?.into_iter().filter(|(_, leads)| *leads).count();
    assert_eq!(leading, 1);
    ready(&ctx).await
}

async fn api_server(ctx: Arc<Ctx>) -> Result<()> {
    let cluster = ctx.cluster()?;
    ready(&ctx).await?;
    let installation = ctx.installation()?;
    let simulator = installation.simulator();
    let sid = simulator.place_call(crate::main_job::CALLER, NUMBER, &installation.caller()?).await?;
    wait_for("the call's media stream", PATIENCE, async || {
        let call = simulator.call(&sid).await?;
        Ok(call.to_string().contains("streamStarted").then_some(()))
    })
    .await?;
    cluster.restart_api_server(PATIENCE).await?;
    // The operator is back with the API server: by its watches, which pause for seconds at most, or, where the leader
    // could not renew its Lease in time, as the other replica, which may take it after 15 s.
    cluster.kubectl(&["delete", "service", "sales-media", "-n", NAMESPACE]).await?;
    wait_for("the Service to come back", BACK, async || {
        resource(cluster, NAMESPACE, "service", "sales-media").await.map(Some)
    })
    .await?;
    let call = simulator.finished_call(&sid, PATIENCE).await?;
    assert_eq!(call["failedStep"], Value::Null, "{call:#}");
    assert_eq!(call["endReason"], "hangupVerb", "{call:#}");
    assert_eq!(simulator.violations().await?, Vec::<Value>::new());
    cluster.check()
}

/// The pod of the operator that leads.
pub(crate) async fn leader_pod(cluster: &Cluster) -> Result<String> {
    wait_for("an operator to lead", PATIENCE, async || {
        let leading: Vec<_> = operators(cluster).await?.into_iter().filter(|(_, leads)| *leads).collect();
        Ok(leading.into_iter().next().map(|(name, _)| name))
    })
    .await
}

/// The operator's running pods, and whether each says that it leads.
async fn operators(cluster: &Cluster) -> Result<Vec<(String, bool)>> {
    let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::namespaced(cluster.client(), OPERATOR_NAMESPACE);
    let selector = ListParams::default().labels("app.kubernetes.io/name=switchboard-operator");
    let mut found = Vec::new();
    for pod in pods.list(&selector).await? {
        if pod.metadata.deletion_timestamp.is_some() {
            continue;
        }
        let name = pod.metadata.name.context("a pod has a name")?;
        let address = pod.status.and_then(|status| status.pod_ip).context("it has no address yet")?;
        let scrape = crate::context::http_get(&format!("{address}:8080"), "/metrics").await?;
        found.push((name, scrape.lines().any(|line| line == "switchboard_operator_leader 1")));
    }
    Ok(found)
}

pub(crate) async fn operator_rolled_out(cluster: &Cluster) -> Result<()> {
    let rollout = ["rollout", "status", "deployment/switchboard-operator", "-n", OPERATOR_NAMESPACE];
    cluster.kubectl(&[&rollout[..], &["--timeout=120s"]].concat()).await?;
    Ok(())
}

/// Waits until a condition has a reason, and returns it.
pub(crate) async fn told(
    cluster: &Cluster,
    namespace: &str,
    kind: &str,
    name: &str,
    about: &str,
    reason: &str,
) -> Result<Value> {
    wait_for(&format!("{about} of {kind} {name} to say {reason}"), PATIENCE, async || {
        let resource = resource(cluster, namespace, kind, name).await?;
        let found = condition(&resource, about).with_context(|| resource["status"].to_string())?;
        ensure!(found["reason"] == reason, "it says {found}");
        Ok(Some(found.clone()))
    })
    .await
}

async fn merge(cluster: &Cluster, kind: &str, name: &str, patch: &Value) -> Result<()> {
    fixture::merge(cluster, NAMESPACE, kind, name, patch).await
}

pub(crate) async fn apply_json(cluster: &Cluster, namespace: &str, file: &str, object: &Value) -> Result<()> {
    let path = cluster.state_dir().join(format!("{file}.json"));
    std::fs::write(&path, object.to_string())?;
    e2e::installation::apply(cluster, namespace, &path).await?;
    Ok(())
}

fn number(name: &str, e164: &str) -> Value {
    json!({
        "apiVersion": "switchboard.dev/v1alpha1",
        "kind": "PhoneNumber",
        "metadata": {"name": name},
        "spec": {
            "source": {"type": "E164", "e164": e164},
            "routes": [{"agentRef": {"name": "sales"}}],
        },
    })
}
