//! Every value set is what a real API server knows, to the last field: kubeconform, strict, on schemas from that very
//! API server; none is skipped for want of a schema.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use e2e::chart::{LOCATION, output_of, schemas_of};
use e2e::{optional_tool, wait_for};
use serde_json::Value;

use crate::Ctx;
use crate::life::PATIENCE;
use crate::render::{MONITORING, documents};

/// A group of Prometheus operator's kinds and one of ours: what the API server serves last.
const LAST: [&str; 2] = ["apis/monitoring.coreos.com/v1", "apis/switchboard.dev/v1alpha1"];

pub(crate) async fn every_value_set(ctx: &Ctx) -> Result<()> {
    let Ctx { chart, cluster, .. } = ctx;
    let foreign = optional_tool("prometheus-operator-crds")?;
    let ours = e2e::installation::repository().join("crds/yaml");
    // Created, not applied: these definitions are too long for kubectl's annotation.
    cluster.kubectl(&["create", "-f", &foreign.to_string_lossy()]).await?;
    cluster.kubectl(&["create", "-k", &ours.to_string_lossy()]).await?;

    let folder = cluster.state_dir().join("schemas");
    fs::create_dir_all(&folder)?;
    let index = wait_for("the new kinds in the API server's description", PATIENCE, async || {
        let index: Value = serde_json::from_str(&cluster.kubectl(&["get", "--raw", "/openapi/v3"]).await?)?;
        Ok(LAST.iter().all(|group| index["paths"][group].is_object()).then_some(index))
    })
    .await?;
    let mut kinds = 0;
    for path in index["paths"].as_object().context("paths")?.values() {
        let url = path["serverRelativeURL"].as_str().context("a URL")?;
        let document: Value = serde_json::from_str(&cluster.kubectl(&["get", "--raw", url]).await?)?;
        for (name, schema) in schemas_of(&document) {
            fs::write(folder.join(name), schema.to_string())?;
            kinds += 1;
        }
    }
    ensure!(kinds > 50, "the API server described {kinds} kinds only");

    for set in chart.value_sets()? {
        for apis in [&MONITORING[..], &[]] {
            let rendered = chart.template(&["--values", &set.to_string_lossy()], apis)?;
            let count = documents(&rendered)?.len();
            let summary = conform(&folder, &rendered).with_context(|| set.display().to_string())?;
            let summary = &summary["summary"];
            assert_eq!(summary["valid"], count, "{}: {summary}", set.display());
            for wrong in ["invalid", "errors", "skipped"] {
                assert_eq!(summary[wrong], 0, "{}: {summary}", set.display());
            }
        }
    }
    // The check itself can fail: a field that does not exist, and a kind that does not.
    let rendered = chart.template(&[], &[])?;
    for (right, wrong) in
        [("terminationGracePeriodSeconds:", "graceSeconds:"), ("kind: NetworkPolicy", "kind: NetPolicy")]
    {
        ensure!(rendered.contains(right), "the case is out of date: {right}");
        ensure!(conform(&folder, &rendered.replace(right, wrong)).is_err(), "{wrong} was accepted");
    }

    // As before: whoever installs the chart finds no definition there.
    cluster.kubectl(&["delete", "-f", &foreign.to_string_lossy(), "--timeout=60s"]).await?;
    cluster.kubectl(&["delete", "-k", &ours.to_string_lossy(), "--timeout=60s"]).await?;
    Ok(())
}

fn conform(schemas: &Path, rendered: &str) -> Result<Value> {
    let manifest = schemas.with_extension("rendered.yaml");
    fs::write(&manifest, rendered)?;
    let location = schemas.join(LOCATION);
    let mut kubeconform = Command::new(optional_tool("kubeconform")?);
    kubeconform.args(["-strict", "-summary", "-output", "json", "-schema-location"]);
    kubeconform.arg(location).arg(manifest);
    Ok(serde_json::from_str(&output_of(kubeconform)?)?)
}
