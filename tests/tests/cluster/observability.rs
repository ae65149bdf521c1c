//! Every query of every dashboard and alert, against a Prometheus that scraped real pods under real calls: data comes
//! back. An alert fires only when something is wrong, so its series are looked for, and a unit test of the rules
//! (`switchboard_test.yaml`) shows that it fires.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use e2e::installation::repository;
use e2e::{Monitoring, wait_for};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::autoscaling::monitored;
use crate::context::{Ctx, PATIENCE};
use crate::main_job::{CALLER, NAMESPACE, NUMBER};

pub(crate) fn trials(ctx: &Arc<Ctx>) -> Vec<Trial> {
    vec![ctx.trial("observability::every_query_of_dashboards_and_alerts_finds_data", queries)]
}

async fn queries(ctx: Arc<Ctx>) -> Result<()> {
    let monitoring = monitored(&ctx).await?;
    let installation = ctx.installation()?;
    let simulator = installation.simulator();
    // A greeting, a question, an interruption, a goodbye, and the tool that ends the call.
    // An increase is one between two scrapes: the first must be from before the call.
    monitoring.wait_for_pods(NAMESPACE, "sales", 2.0).await?;
    let sid = simulator.place_call(CALLER, NUMBER, &installation.caller()?).await?;
    simulator.finished_call(&sid, 2 * PATIENCE).await?;
    let ended = r#"sum(increase(switchboard_calls_ended_total{reason="agent_hung_up"}[5m]))"#;
    for query in [ended, "sum(increase(switchboard_tool_outcomes_total[5m]))"] {
        wait_for("Prometheus to know of the call's end", PATIENCE, async || {
            Ok((monitoring.number(query).await? > Some(0.0)).then_some(()))
        })
        .await?;
    }

    let mut empty = Vec::new();
    let mut count = 0;
    for (panel, query) in panels()? {
        let series = monitoring.query(&query).await?;
        let finite = series.iter().filter_map(|one| e2e::sample(one).ok()).any(f64::is_finite);
        if !finite {
            empty.push(format!("{panel}: {query} -> {} series", series.len()));
        }
        present(&monitoring, &query).await?;
        count += 1;
    }
    ensure!(empty.is_empty(), "no data:\n{}", empty.join("\n"));
    let rules = rules(&monitoring).await?;
    eprintln!("observability: {count} queries of dashboards and {rules} rules find their series");
    Ok(())
}

/// Every rule is evaluated without an error, every series it goes by is there, and every alert has its case in the unit
/// tests; how many there are.
async fn rules(monitoring: &Monitoring) -> Result<usize> {
    let cases = fs::read_to_string(repository().join("charts/switchboard/alerts/switchboard_test.yaml"))?;
    let mut count = 0;
    let mut slowest = 0.0;
    for group in monitoring.rule_groups().await? {
        for rule in group["rules"].as_array().context("a group has rules")? {
            let name = rule["name"].as_str().context("a rule has a name")?;
            assert_eq!(rule["health"], "ok", "{rule:#}");
            present(monitoring, rule["query"].as_str().context("a rule has a query")?).await?;
            let is_tested = cases.contains(&format!(r#"alertname="{name}",alertstate="firing""#));
            ensure!(rule["type"] != "alerting" || is_tested, "{name} has no case in switchboard_test.yaml");
            slowest = rule["evaluationTime"].as_f64().unwrap_or_default().max(slowest);
            count += 1;
        }
    }
    ensure!(count > 0, "Prometheus has no rules");
    eprintln!("observability: the slowest rule takes {:.1} ms here", slowest * 1000.0);
    Ok(count)
}

/// Every selector of a query matches series: a metric or label value that does not exist is found also where nothing
/// has happened yet, because all series exist from the first scrape on.
async fn present(monitoring: &Monitoring, query: &str) -> Result<()> {
    for selector in selectors(query) {
        let found = monitoring.query(&format!("count({selector})")).await?;
        ensure!(!found.is_empty(), "{selector} of {query} matches nothing");
    }
    Ok(())
}

/// Title and query of every target of every dashboard, with the variables' default values.
fn panels() -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for dashboard in e2e::dashboards::all() {
        let file = repository().join(format!("charts/switchboard/dashboards/{}.json", dashboard.name));
        let dashboard: Value = serde_json::from_str(&fs::read_to_string(file)?)?;
        for panel in dashboard["panels"].as_array().context("a dashboard has panels")? {
            let title = panel["title"].as_str().context("a panel has a title")?;
            for target in panel["targets"].as_array().into_iter().flatten() {
                let query = target["expr"].as_str().context("a target has a query")?;
                let query = query.replace("$__rate_interval", "5m").replace("$namespace", ".*");
                found.push((title.to_owned(), query.replace("$agent", ".*")));
            }
        }
    }
    Ok(found)
}

/// The series a query goes by: our names, with their matchers.
fn selectors(query: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut found = BTreeSet::new();
    let mut rest = query;
    while let Some(start) = rest.find(is_name) {
        let name_and_more = &rest[start..];
        let end = name_and_more.find(|c| !is_name(c)).unwrap_or(name_and_more.len());
        let (name, more) = name_and_more.split_at(end);
        let matchers = more.strip_prefix('{').and_then(|inner| inner.split_once('}'));
        rest = match matchers {
            Some((_, behind)) => behind,
            None => more,
        };
        if name.starts_with("switchboard_") || name.starts_with("agent:") {
            found.insert(match matchers {
                Some((matchers, _)) => format!("{name}{{{matchers}}}"),
                None => name.to_owned(),
            });
        }
    }
    found
}
