//! `switchboard doctor` on the real cluster: what it finds there, and that it finds what is broken on purpose.

use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use e2e::installation::{binary, wait_until_ready};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::context::{Ctx, PATIENCE};
use crate::fixture::merge;
use crate::main_job::{NAMESPACE, ready};
use crate::robustness::told;

pub(crate) fn trials(ctx: &Arc<Ctx>) -> Vec<Trial> {
    vec![
        ctx.trial("doctor::the_installation_passes_and_the_missing_edge_is_told", installation),
        ctx.trial("doctor::what_is_broken_on_purpose_is_found", broken),
    ]
}

async fn installation(ctx: Arc<Ctx>) -> Result<()> {
    ready(&ctx).await?;
    let (code, findings) = examine(&ctx)?;
    for check in [
        "api-versions",
        "definitions",
        "rights",
        "operator",
        "grace-period",
        "node-scaling",
        "budgets",
        "clocks",
    ] {
        assert_eq!(severities(&findings, check), ["ok"], "{check}: {findings:#?}");
    }
    // What is ready has no finding where another trial's namespace has one.
    let resources = severities(&findings, "resources");
    ensure!(resources.iter().all(|severity| *severity == "ok"), "{findings:#?}");
    // The tests' Redis keeps nothing on purpose; there is no Ingress controller, and no such name in the world's DNS.
    assert_eq!(severities(&findings, "store"), ["warning"], "{findings:#?}");
    assert_eq!(severities(&findings, "edge"), ["failure"], "{findings:#?}");
    assert_eq!(severities(&findings, "public-url"), ["failure"], "{findings:#?}");
    assert_eq!(code, Some(2));

    let text = run(&ctx, &[])?.1;
    ensure!(
        text.contains("failure  edge          moving/sales-media: there is no IngressClass nginx"),
        "{text}"
    );
    Ok(())
}

async fn broken(ctx: Arc<Ctx>) -> Result<()> {
    let cluster = ctx.cluster()?;
    ready(&ctx).await?;
    let hurry = json!({"spec": {"podTemplate": {"spec": {"terminationGracePeriodSeconds": 10}}}});
    let patch = async |patch: &Value| merge(cluster, NAMESPACE, "voiceagent", "sales", patch).await;
    let policy = |policy: &str| -> Result<()> {
        let mut command = Command::new("redis-cli");
        command.args([
            "-h",
            &cluster.node_address().to_string(),
            "config",
            "set",
            "maxmemory-policy",
            policy,
        ]);
        ensure!(command.output()?.status.success(), "redis-cli failed");
        Ok(())
    };
    patch(&hurry).await?;
    let refused = told(cluster, NAMESPACE, "voiceagent", "sales", "Ready", "InvalidSpec").await?;
    ensure!(
        refused["message"].as_str().is_some_and(|message| message.contains("killed 10 s after")),
        "{refused}"
    );
    policy("allkeys-lru")?;
    let examined = examine(&ctx);
    policy("noeviction")?;
    patch(&json!({"spec": {"podTemplate": null}})).await?;
    wait_until_ready(cluster, NAMESPACE, "voiceagent", "sales", PATIENCE).await?;

    let (code, findings) = examined?;
    assert_eq!(code, Some(2));
    assert_eq!(severities(&findings, "resources"), ["failure"], "{findings:#?}");
    // The pods are as they were.
    assert_eq!(severities(&findings, "grace-period"), ["ok"], "{findings:#?}");
    assert_eq!(severities(&findings, "store"), ["failure", "warning"], "{findings:#?}");
    Ok(())
}

/// The exit code and the findings, as a machine gets them.
fn examine(ctx: &Ctx) -> Result<(Option<i32>, Vec<Value>)> {
    let (code, printed) = run(ctx, &["-o", "json"])?;
    let report: Value = serde_json::from_str(&printed).with_context(|| printed.clone())?;
    Ok((code, report["findings"].as_array().context("findings are a list")?.clone()))
}

fn run(ctx: &Ctx, arguments: &[&str]) -> Result<(Option<i32>, String)> {
    let mut command = Command::new(binary("switchboard")?);
    command.arg("doctor").args(arguments).env("KUBECONFIG", ctx.cluster()?.kubeconfig_path());
    let output = command.output().context("the doctor does not run")?;
    Ok((output.status.code(), String::from_utf8(output.stdout)?))
}

/// How bad a check's findings are, the worst first: those about the whole cluster and about the demo's namespace. Other
/// trials leave in theirs what the doctor has something to say about.
fn severities<'a>(findings: &'a [Value], check: &str) -> Vec<&'a str> {
    let ours = format!("{NAMESPACE}/");
    let is_ours =
        |finding: &&Value| finding["subject"].as_str().is_none_or(|subject| subject.contains(&ours));
    let of_check = findings.iter().filter(|finding| finding["check"] == check).filter(is_ours);
    of_check.map(|finding| finding["severity"].as_str().unwrap_or_default()).collect()
}
