//! The cluster itself does what the other tests rely on.

use std::{net::Ipv4Addr, path::Path, process::Command, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use e2e::{Guard, OciImage, wait_for};
use k8s_openapi::api::{
    authentication::v1::TokenRequest,
    core::v1::{ConfigMap, Node, Pod, Service, ServiceAccount},
};
use kube::{
    Api, Client,
    api::{ListParams, PostParams},
};
use libtest_mimic::Trial;
use serde_json::json;

use crate::context::{Ctx, PATIENCE, http_get};

const GREETER: &str = "switchboard.test/greeter:test";

pub(crate) fn trials(ctx: &Arc<Ctx>) -> Vec<Trial> {
    vec![
        ctx.trial("harness::the_node_is_ready_and_carries_its_address", node),
        ctx.trial("harness::the_api_server_says_the_version_that_is_pinned", version),
        ctx.trial("harness::pods_of_our_image_are_reached_directly_and_through_a_service", pods),
        ctx.trial("harness::an_unbound_service_account_may_do_nothing", rbac),
        ctx.trial("harness::a_process_beside_the_cluster_ends_with_its_guard", process),
    ]
}

async fn node(ctx: Arc<Ctx>) -> Result<()> {
    let cluster = ctx.cluster()?;
    let node = Api::<Node>::all(cluster.client()).get(&cluster.node_name()).await?;
    let addresses = node.status.and_then(|status| status.addresses).unwrap_or_default();
    let internal: Vec<&str> = addresses
        .iter()
        .filter(|entry| entry.type_ == "InternalIP")
        .map(|entry| entry.address.as_str())
        .collect();
    assert_eq!(internal, [cluster.node_address().to_string()]);
    assert_eq!(cluster.node_address(), Ipv4Addr::new(10, 240, 0, 1));
    Ok(())
}

async fn version(ctx: Arc<Ctx>) -> Result<()> {
    let version = ctx.cluster()?.client().apiserver_version().await?;
    ensure!(version.git_version.starts_with("v1.35."), "{}", version.git_version);
    Ok(())
}

async fn pods(ctx: Arc<Ctx>) -> Result<()> {
    let cluster = ctx.cluster()?;
    cluster.import_image(&OciImage::of_binary(GREETER, Path::new(env!("CARGO_BIN_EXE_greeter")))?).await?;
    let namespace = ctx.namespace("harness-pods").await?;
    let pods: Api<Pod> = Api::namespaced(cluster.client(), &namespace);
    for name in ["one", "two"] {
        pods.create(&PostParams::default(), &greeter(name)?).await?;
    }
    let services: Api<Service> = Api::namespaced(cluster.client(), &namespace);
    let service: Service = serde_json::from_value(json!({
        "metadata": {"name": "greeters"},
        "spec": {"selector": {"app": "greeter"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }))?;
    let service = services.create(&PostParams::default(), &service).await?;
    let virtual_address =
        service.spec.and_then(|spec| spec.cluster_ip).context("a Service has an address")?;

    let one = address_of(&ctx.ready_pod(&namespace, "one").await?)?;
    let two = address_of(&ctx.ready_pod(&namespace, "two").await?)?;
    assert_eq!(http_get(&format!("{one}:8080"), "/").await?, "hello from one");
    assert_eq!(http_get(&format!("{two}:8080"), "/").await?, "hello from two");

    // The Service's rules follow the pods' readiness after a moment; then both are behind it, seen from here …
    let behind = format!("{virtual_address}:80");
    for wanted in ["hello from one", "hello from two"] {
        wait_for(wanted, PATIENCE, async || Ok((http_get(&behind, "/").await? == wanted).then_some(())))
            .await?;
    }
    // … and from each of them, which includes a pod that is sent to itself and two pods on one node.
    for (asking, from) in [("one", &one), ("two", &two)] {
        for wanted in ["hello from one", "hello from two"] {
            let what = format!("{asking} to hear {wanted}");
            wait_for(&what, PATIENCE, async || {
                let heard = http_get(&format!("{from}:8080"), &format!("/fetch/{behind}")).await?;
                Ok((heard == wanted).then_some(()))
            })
            .await?;
        }
    }
    assert_eq!(http_get(&format!("{one}:8080"), &format!("/fetch/{two}:8080")).await?, "hello from two");

    // A Service's name is known to pods, in its short form too, and to this process.
    for name in ["greeters", "greeters.harness-pods.svc.cluster.local"] {
        let heard = http_get(&format!("{one}:8080"), &format!("/fetch/{name}:80")).await?;
        assert!(heard.starts_with("hello from "), "{heard}");
    }
    let named = http_get("greeters.harness-pods:80", "/").await?;
    assert!(named.starts_with("hello from "), "{named}");

    // What runs beside the cluster is at the node's address.
    let beside = spawn_greeter(&ctx)?;
    let node = format!("{}:8080", cluster.node_address());
    wait_for("the greeter beside the cluster", PATIENCE, async || http_get(&node, "/").await.map(Some))
        .await?;
    let heard = http_get(&format!("{one}:8080"), &format!("/fetch/{node}")).await?;
    assert!(heard.starts_with("hello from "), "{heard}");
    drop(beside);

    let logs = cluster.kubectl(&["logs", "-n", &namespace, "one"]).await?;
    assert_eq!(logs, "", "the greeter reports broken connections only");
    Ok(())
}

async fn rbac(ctx: Arc<Ctx>) -> Result<()> {
    let cluster = ctx.cluster()?;
    let namespace = ctx.namespace("harness-rbac").await?;
    let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client(), &namespace);
    let request: TokenRequest = serde_json::from_value(json!({"spec": {"audiences": []}}))?;
    let issued = accounts.create_token_request("default", &PostParams::default(), &request).await?;
    let token = issued.status.context("a token request is answered in its status")?.token;
    let client = cluster.client_with_token(token).await?;

    let said = forbidden(&client, &namespace).await?;
    let user = format!("system:serviceaccount:{namespace}:default");
    assert!(said.contains(&user) && said.contains("cannot list resource \"configmaps\""), "{said}");

    // The same client with a role is allowed: it was the role that was missing.
    for arguments in [
        vec!["create", "role", "reader", "--verb=list", "--resource=configmaps"],
        vec!["create", "rolebinding", "reader", "--role=reader", "--serviceaccount=harness-rbac:default"],
    ] {
        cluster.kubectl(&[arguments, vec!["-n", &namespace]].concat()).await?;
    }
    let maps: Api<ConfigMap> = Api::namespaced(client, &namespace);
    wait_for("the role to count", PATIENCE, async || Ok(Some(maps.list(&ListParams::default()).await?)))
        .await?;
    Ok(())
}

async fn process(ctx: Arc<Ctx>) -> Result<()> {
    let cluster = ctx.cluster()?;
    let sleeper = cluster.spawn("sleeper", Command::new("sh").args(["-c", "echo awake; exec sleep 600"]))?;
    let log = sleeper.log().to_owned();
    wait_for("its first words", PATIENCE, async || {
        Ok((std::fs::read_to_string(&log)? == "awake\n").then_some(()))
    })
    .await?;
    sleeper.check()?;
    let id = sleeper.id();
    drop(sleeper);
    assert!(!Path::new(&format!("/proc/{id}")).exists());

    let obedient = cluster.spawn("obedient", Command::new("sleep").arg("600"))?;
    let status = obedient.terminate(Duration::from_secs(10)).await?;
    assert!(!status.success());
    let said = obedient.check().err().context("it has ended")?.to_string();
    assert!(said.starts_with("obedient ended by itself (signal: 15 (SIGTERM)); the end of "), "{said}");
    cluster.check()
}

fn greeter(name: &str) -> Result<Pod> {
    Ok(serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"app": "greeter"}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "greeter",
                "image": GREETER,
                "imagePullPolicy": "Never",
                "readinessProbe": {"httpGet": {"port": 8080}, "periodSeconds": 1},
                "securityContext": {
                    "allowPrivilegeEscalation": false,
                    "capabilities": {"drop": ["ALL"]},
                    "readOnlyRootFilesystem": true,
                    "runAsNonRoot": true,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
            }],
        },
    }))?)
}

fn spawn_greeter(ctx: &Ctx) -> Result<Guard> {
    ctx.cluster()?.spawn("greeter", &mut Command::new(env!("CARGO_BIN_EXE_greeter")))
}

fn address_of(pod: &Pod) -> Result<String> {
    pod.status.as_ref().and_then(|status| status.pod_ip.clone()).context("a ready pod has an address")
}

/// What the API server says when it refuses to list ConfigMaps.
async fn forbidden(client: &Client, namespace: &str) -> Result<String> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    match maps.list(&ListParams::default()).await {
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(status.message),
        other => anyhow::bail!("expected a refusal, not {other:?}"),
    }
}
