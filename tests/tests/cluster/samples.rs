//! Every sample is what a real API server takes, to the last field: Kubernetes' own kinds, ours with their rules, and the
//! Gateway API's from their published definitions.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use e2e::installation::repository;
use e2e::optional_tool;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::context::Ctx;

/// Groups whose definitions are not fetched for a field or two; KEDA has a trial of its own.
const NOT_TRIED: [&str; 4] = ["gateway.envoyproxy.io", "keda.sh", "networking.gke.io", "traefik.io"];

pub(crate) fn trials(ctx: &Arc<Ctx>) -> Vec<Trial> {
    vec![ctx.trial("samples::every_sample_is_what_the_api_server_knows", samples)]
}

async fn samples(ctx: Arc<Ctx>) -> Result<()> {
    let cluster = ctx.cluster()?;
    let namespace = ctx.namespace("samples").await?;
    let mut items = Vec::new();
    let mut left_out = BTreeSet::new();
    for path in files(&repository().join("manifests/samples"))? {
        let documents: Vec<Value> = serde_saphyr::from_multiple(&fs::read_to_string(&path)?)
            .with_context(|| path.display().to_string())?;
        for mut document in documents {
            let version = document["apiVersion"].as_str().context("an apiVersion")?;
            let group = version.split_once('/').map_or("", |(group, _)| group).to_owned();
            if NOT_TRIED.contains(&group.as_str()) {
                left_out.insert(group);
                continue;
            }
            // Where an edge has its own things is its own business.
            document["metadata"]["namespace"] = json!(namespace);
            items.push(document);
        }
    }
    assert_eq!(Vec::from_iter(&left_out), NOT_TRIED, "none is left out for nothing");

    let published = optional_tool("gateway-api-crds")?.to_string_lossy().into_owned();
    cluster.kubectl(&["apply", "--server-side", "-f", &published]).await?;
    let (count, list) = (items.len(), json!({"apiVersion": "v1", "kind": "List", "items": items}));
    let file = cluster.state_dir().join("samples.json");
    fs::write(&file, list.to_string())?;
    let kinds = ["crd/gateways.gateway.networking.k8s.io", "crd/httproutes.gateway.networking.k8s.io"];
    cluster
        .kubectl(&[&["wait", "--for=condition=Established", "--timeout=60s"], &kinds[..]].concat())
        .await?;
    // Strict: a field that the definition does not have is an error.
    let dry_run = ["apply", "--dry-run=server", "--validate=strict", "-o", "name", "-f"];
    let taken = cluster.kubectl(&[&dry_run[..], &[&file.to_string_lossy()]].concat()).await?;
    assert_eq!(taken.lines().count(), count, "{taken}");

    // The check itself can fail.
    let mut wrong = list["items"][0].clone();
    wrong["spec"]["surprise"] = json!(true);
    fs::write(&file, wrong.to_string())?;
    let refused = cluster.kubectl(&[&dry_run[..], &[&file.to_string_lossy()]].concat()).await;
    assert!(refused.is_err(), "a field that does not exist was taken: {refused:?}");
    cluster.kubectl(&["delete", "-f", &published]).await?;
    cluster.kubectl(&["delete", "namespace", &namespace, "--wait=false"]).await?;
    Ok(())
}

/// Every YAML file below a folder, in the order of their names.
fn files(folder: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.append(&mut files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "yaml")
            && !path.ends_with("kustomization.yaml")
        {
            found.insert(path);
        }
    }
    Ok(found)
}
