//! An operator for one namespace only: with the rights of a Role there, and none anywhere else.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use e2e::installation::{OPERATOR_NAMESPACE, resource, wait_until_ready};
use e2e::{Cluster, wait_for};
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use kube::Api;
use kube::api::PostParams;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::context::{Ctx, PATIENCE};
use crate::fixture::merge;
use crate::main_job::ready;
use crate::robustness::{ACCOUNT, TOKEN, apply_json, operator_rolled_out, told};

/// Where the limited operator runs, what it looks after, and a namespace that is none of its business.
const OWN: &str = "limited-operator";
const WATCHED: &str = "watched";
const OTHER: &str = "not-watched";
const NAME: &str = "switchboard-operator";

pub(crate) fn trials(ctx: &Arc<Ctx>) -> Vec<Trial> {
    vec![ctx.trial("namespaces::an_operator_limited_to_a_namespace_needs_no_rights_elsewhere", limited)]
}

async fn limited(ctx: Arc<Ctx>) -> Result<()> {
    let cluster = ctx.cluster()?;
    for namespace in [OWN, WATCHED, OTHER] {
        ctx.namespace(namespace).await?;
    }
    // The one for all namespaces must not do the work of the limited one.
    let installed = ["deployment", NAME, "-n", OPERATOR_NAMESPACE];
    cluster.kubectl(&[&["scale"], &installed[..], &["--replicas=0"]].concat()).await?;
    wait_for("the installed operator to be gone", PATIENCE, async || {
        let pods = cluster.kubectl(&["get", "pods", "-n", OPERATOR_NAMESPACE, "-o", "name"]).await?;
        Ok(pods.trim().is_empty().then_some(()))
    })
    .await?;
    install(cluster).await?;
    for namespace in [OTHER, WATCHED] {
        apply_json(cluster, namespace, "secret", &secret()).await?;
        apply_json(cluster, namespace, "gateway", &gateway(&ctx)?).await?;
        apply_json(cluster, namespace, "agent", &agent()).await?;
    }
    wait_until_ready(cluster, WATCHED, "voicegateway", "default", PATIENCE).await?;
    wait_for("the agent's children", PATIENCE, async || {
        resource(cluster, WATCHED, "deployment", "sales-media").await.map(Some)
    })
    .await?;
    for kind in ["voicegateway", "voiceagent"] {
        let name = if kind == "voicegateway" { "default" } else { "sales" };
        let untouched = resource(cluster, OTHER, kind, name).await?;
        assert_eq!(untouched["status"], Value::Null, "{kind} of another namespace");
    }
    let selector = format!("app.kubernetes.io/name={NAME}");
    let log = cluster.kubectl(&["logs", "-n", OWN, "-l", &selector, "--tail=-1"]).await?;
    ensure!(!log.to_lowercase().contains("forbidden"), "it tries what it may not: {log}");

    let mut surprises = Vec::new();
    for (may, namespace, group, kind, verbs) in RIGHTS {
        for verb in verbs {
            if is_allowed(cluster, namespace, group, kind, verb).await? != may {
                surprises.push(format!("{verb} {kind} in {namespace:?}: {}", !may));
            }
        }
    }
    ensure!(surprises.is_empty(), "{surprises:#?}");

    // A tenant who left took the Role along: an operator that begins now goes on with the others.
    let both = format!("SWITCHBOARD_WATCH_NAMESPACES={WATCHED},left-with-all-rights");
    cluster.kubectl(&["set", "env", &format!("deployment/{NAME}"), "-n", OWN, &both]).await?;
    rolled_out(cluster).await?;
    let suspended = json!({"spec": {"suspend": true}});
    merge(cluster, WATCHED, "voiceagent", "sales", &suspended).await?;
    told(cluster, WATCHED, "voiceagent", "sales", "Ready", "Suspended").await?;

    for namespace in [OWN, WATCHED, OTHER] {
        cluster.kubectl(&["delete", "namespace", namespace, "--wait=false"]).await?;
    }
    cluster.kubectl(&[&["scale"], &installed[..], &["--replicas=2"]].concat()).await?;
    operator_rolled_out(cluster).await?;
    ready(&ctx).await
}

/// Whether it may, where (`""` is the whole cluster), of which group, what, and do what to it.
const RIGHTS: [(bool, &str, &str, &str, &[&str]); 14] = [
    (true, WATCHED, "", "secrets", &["get", "list", "watch", "create", "patch"]),
    (true, WATCHED, "apps", "deployments", &["get", "list", "watch", "create", "patch"]),
    (true, WATCHED, "switchboard.dev", "phonenumbers/status", &["patch"]),
    (false, WATCHED, "", "secrets", &["delete", "update", "deletecollection"]),
    (false, WATCHED, "rbac.authorization.k8s.io", "roles", &["create", "patch", "bind", "escalate"]),
    (false, WATCHED, "switchboard.dev", "phonenumbers", &["create", "delete"]),
    (false, OTHER, "", "secrets", &["get", "list", "watch", "create", "patch"]),
    (false, OTHER, "", "configmaps", &["get", "list", "create", "patch"]),
    (false, OTHER, "", "pods", &["list", "patch"]),
    (false, OTHER, "apps", "deployments", &["list", "create", "patch"]),
    (false, OTHER, "switchboard.dev", "voiceagents", &["list", "watch"]),
    (false, "kube-system", "", "secrets", &["get", "list"]),
    (false, "", "", "secrets", &["list", "watch"]),
    (false, "", "switchboard.dev", "voiceagents", &["list", "watch"]),
];

async fn is_allowed(cluster: &Cluster, namespace: &str, group: &str, kind: &str, verb: &str) -> Result<bool> {
    let (kind, subresource) = kind.split_once('/').unwrap_or((kind, ""));
    let attributes = json!({"namespace": namespace, "verb": verb, "group": group, "resource": kind, "subresource": subresource});
    let user = format!("system:serviceaccount:{OWN}:{NAME}");
    let groups = [
        "system:serviceaccounts".to_owned(),
        format!("system:serviceaccounts:{OWN}"),
        "system:authenticated".to_owned(),
    ];
    let review = json!({"spec": {"user": user, "groups": groups, "resourceAttributes": attributes}});
    let reviews: Api<SubjectAccessReview> = Api::all(cluster.client());
    let answer = reviews.create(&PostParams::default(), &serde_json::from_value(review)?).await?;
    Ok(answer.status.context("a review has an answer")?.allowed)
}

/// The installed operator once more, with the same rules as a Role in one namespace.
async fn install(cluster: &Cluster) -> Result<()> {
    let rules = cluster_rules(cluster).await?;
    let election = resource(cluster, OPERATOR_NAMESPACE, "role", NAME).await?["rules"].clone();
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": NAME}});
    apply_json(cluster, OWN, "account", &account).await?;
    for (namespace, rules) in [(WATCHED, rules), (OWN, election)] {
        let role = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": NAME}, "rules": rules,
        });
        apply_json(cluster, namespace, "role", &role).await?;
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": NAME},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": NAME},
            "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": OWN}],
        });
        apply_json(cluster, namespace, "binding", &binding).await?;
    }
    let mut deployment = resource(cluster, OPERATOR_NAMESPACE, "deployment", NAME).await?;
    deployment["metadata"] = json!({"name": NAME, "labels": deployment["metadata"]["labels"]});
    deployment["spec"]["replicas"] = json!(1);
    deployment.as_object_mut().context("a Deployment")?.remove("status");
    let pod = &mut deployment["spec"]["template"]["spec"];
    // Classes of priority belong to the cluster; an operator for one namespace may not have one.
    pod.as_object_mut().context("a pod")?.remove("priorityClassName");
    let environment = pod["containers"][0]["env"].as_array_mut().context("its environment")?;
    environment.retain(|variable| variable["name"] != "SWITCHBOARD_WATCH_NAMESPACES");
    environment.push(json!({"name": "SWITCHBOARD_WATCH_NAMESPACES", "value": WATCHED}));
    apply_json(cluster, OWN, "operator", &deployment).await?;
    rolled_out(cluster).await
}

async fn rolled_out(cluster: &Cluster) -> Result<()> {
    let rollout = ["rollout", "status", "deployment", NAME, "-n", OWN, "--timeout=120s"];
    cluster.kubectl(&rollout).await.map(drop)
}

async fn cluster_rules(cluster: &Cluster) -> Result<Value> {
    let role: Value =
        serde_json::from_str(&cluster.kubectl(&["get", "clusterrole", NAME, "-o", "json"]).await?)?;
    Ok(role["rules"].clone())
}

fn secret() -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "twilio"}, "stringData": {"authToken": TOKEN}})
}

fn gateway(ctx: &Ctx) -> Result<Value> {
    let twilio = json!({
        "accountSid": ACCOUNT,
        "authTokenSecretRefs": [{"name": "twilio", "key": "authToken"}],
        "apiBaseUrl": ctx.installation()?.simulator().carrier_url(),
    });
    let spec = json!({
        "publicUrl": "https://voice.example.com",
        "exposure": {"type": "None"},
        "carrier": {"type": "Twilio", "twilio": twilio},
        "store": {"type": "Memory"},
    });
    Ok(object("VoiceGateway", "default", spec))
}

fn agent() -> Value {
    let spec = json!({
        "persona": {"instructions": {"text": "Sell."}, "greeting": {"text": "Hello."}},
        "engines": [{"name": "scripted", "type": "Simulated", "simulated": {"replies": ["Yes."]}}],
        "scaling": {"type": "Manual", "manual": {"replicas": 0}},
    });
    object("VoiceAgent", "sales", spec)
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": "switchboard.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}
