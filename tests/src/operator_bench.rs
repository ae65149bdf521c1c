//! The operator's benchmark: a fleet of agents and numbers on a real API server and the simulated carrier, without pods.
//!
//! What is counted is the API server's own audit log and the simulator's request log; what is timed is the wait of a user
//! who applies everything at once. Without nodes nothing makes pods, so that the machine measures the operator and the
//! API server, not a thousand containers.

mod fleet;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::audit::Request;
use crate::installation::apply_manifests;
use crate::operator::{Operator, Replica};
use crate::{Cluster, ClusterOptions, Sandbox, Simulator, wait_for};
use fleet::Fleet;

/// What is measured, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Settings<'a> {
    /// The operator, as users run it.
    pub operator: &'a Path,
    /// VoiceAgents; and as many PhoneNumbers.
    pub agents: usize,
    /// How long the fleet is watched while nothing changes. Longer than the operator's schedule of five minutes, or the
    /// scheduled looks would be missed.
    pub steady: Duration,
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// What it is.
    pub name: &'static str,
    /// Its value.
    pub value: f64,
    /// What it is counted in.
    pub unit: &'static str,
    /// The most it may be; none where it is only told.
    pub limit: Option<f64>,
}

impl Figure {
    /// Whether it is within its limit.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.limit.is_none_or(|limit| self.value <= limit)
    }
}

/// Seconds in which everything must be reconciled that was applied at once.
const RECONCILED_SECONDS: f64 = 60.0;
/// Requests a second to the API server and to the carrier while nothing changes.
const STEADY_REQUESTS: f64 = 1.0;
/// Requests a second tell little about a time in which there were none: the worst counts.
const BUSIEST: Duration = Duration::from_secs(60);
/// Reads of a Secret by an operator that begins: which keys it has, and what they hold where it is a carrier's or a keyring.
const READS_OF_A_SECRET: f64 = 2.0;
const MEMORY_MEGABYTES: f64 = 100.0;
/// The schedule users get.
const RESYNC_SECONDS: u32 = 300;
/// For what takes a minute on an idle machine.
const PATIENCE: Duration = Duration::from_secs(600);
/// Longer than any pause between two rounds of the steward, which tells every agent's load once.
const REST: Duration = Duration::from_secs(40);
/// How often the whole fleet is looked at: each look lists everything, which costs the API server something too.
const LOOK: Duration = Duration::from_secs(1);

/// Runs it; the figures in the order of the report.
///
/// # Errors
/// When a part does not work; figures above their limits are none.
pub async fn run(sandbox: &Sandbox, settings: Settings<'_>) -> Result<Vec<Figure>> {
    let Settings { operator: program, agents, steady } = settings;
    let cluster = Cluster::up(sandbox, ClusterOptions { nodes: 0, ..ClusterOptions::default() }).await?;
    let fleet = Fleet::of(agents);
    let scenario = cluster.state_dir().join("fleet.json");
    std::fs::write(&scenario, fleet.scenario().to_string())?;
    let simulator = Simulator::start(&cluster, &scenario, None).await?;
    apply_manifests(&cluster).await?;
    let replica = Replica { name: "operator-1", port: 9001, program, resync_seconds: RESYNC_SECONDS };
    let operator = Operator::start(&cluster, replica).await?;
    operator.wait_until_leading(PATIENCE).await?;
    let watch = Watch { cluster: &cluster, simulator: &simulator };

    eprintln!("bench: applying {agents} agents and as many numbers");
    let began = Instant::now();
    fleet.apply(&cluster).await?;
    let applied = began.elapsed();
    reconciled(&cluster, &simulator, &fleet).await?;
    let reconciled_after = began.elapsed();
    let fresh = operator.memory()?;
    let processor_time = operator.processor_time()?;
    let until_reconciled = watch.now().await?;
    until_reconciled.tell("until all was reconciled");

    eprintln!("bench: changing one Secret");
    let touched = touched_by_secret(&fleet, &cluster, &operator).await?;

    let late = rest(&cluster).await?;
    eprintln!("bench: watching nothing change for {} s", steady.as_secs());
    let before = watch.now().await?;
    // What is measured is a time in which nothing happens, so there is nothing else to wait for.
    tokio::time::sleep(steady).await;
    let quiet = watch.now().await?.since(&before);
    let (held, most) = operator.memory()?;
    quiet.tell("while nothing changed");

    eprintln!("bench: restarting the operator");
    operator.stop(PATIENCE).await?;
    let before = watch.now().await?;
    let began = Instant::now();
    let successor = Operator::start(&cluster, Replica { name: "operator-2", port: 9002, ..replica }).await?;
    let objects = fleet.objects();
    wait_for("the successor to have looked at everything", PATIENCE, async || {
        let ended = successor.metric("switchboard_operator_reconciles_total", "outcome=\"ok\"").await?;
        ensure!(ended >= objects, "{ended} of {objects}");
        Ok(Some(()))
    })
    .await?;
    let taken_over_after = began.elapsed();
    let (_, most_of_successor) = successor.memory()?;
    let restart = watch.now().await?.since(&before);
    restart.tell("after the restart");
    cluster.check()?;

    let per_second = |requests: usize, time: Duration| requests as f64 / time.as_secs_f64();
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    let limited = |name, value, unit, limit| Figure { name, value, unit, limit: Some(limit) };
    let told = |name, value, unit| Figure { name, value, unit, limit: None };
    Ok(vec![
        told("agents, and as many numbers", agents as f64, ""),
        told("applied by the user", applied.as_secs_f64(), "s"),
        limited("all reconciled", reconciled_after.as_secs_f64(), "s", RECONCILED_SECONDS),
        told("processor time of the operator until then", processor_time.as_secs_f64(), "s"),
        told("requests for each object until then", until_reconciled.all() as f64 / objects, ""),
        limited("objects that one changed Secret makes it look at", touched.reconciled, "", touched.users),
        limited("writes after it", touched.writes as f64, "", 0.0),
        told("writes that still followed until it rested", late as f64, ""),
        limited("writes while nothing changes, without the Lease", quiet.writes() as f64, "", 0.0),
        limited(
            "requests to the API server, with the Lease",
            per_second(quiet.api.len(), steady),
            "/s",
            STEADY_REQUESTS,
        ),
        limited(
            "requests to the carrier in the busiest minute",
            per_second(quiet.busiest(BUSIEST), BUSIEST),
            "/s",
            STEADY_REQUESTS,
        ),
        told("memory when all was new", megabytes(fresh.0), "MB"),
        told("memory", megabytes(held), "MB"),
        limited("memory at most", megabytes(most), "MB", MEMORY_MEGABYTES),
        told("a restarted operator has looked at everything", taken_over_after.as_secs_f64(), "s"),
        limited("its memory at most", megabytes(most_of_successor), "MB", MEMORY_MEGABYTES),
        limited(
            "Secrets it read",
            restart.of("get", "secrets") as f64,
            "",
            READS_OF_A_SECRET * fleet.secrets() as f64,
        ),
        told("writes it made", restart.writes() as f64, ""),
    ])
}

/// The figures as a table, limits beside them.
#[must_use]
pub fn table(figures: &[Figure]) -> String {
    let mut lines =
        vec!["| operator | figure | limit | |".to_owned(), "| --- | ---: | ---: | --- |".to_owned()];
    lines.extend(figures.iter().map(|figure| {
        let Figure { name, value, unit, limit } = figure;
        let number = |value: f64| {
            let text = format!("{value:.2}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        };
        let spaced = if unit.is_empty() || unit.starts_with('/') { String::new() } else { " ".to_owned() };
        let limit = limit.map(|limit| format!("{}{spaced}{unit}", number(limit))).unwrap_or_default();
        let verdict = if figure.is_kept() { "" } else { "**above**" };
        format!("| {name} | {}{spaced}{unit} | {limit} | {verdict} |", number(*value))
    }));
    lines.join("\n")
}

/// What one changed Secret set off.
struct Touched {
    users: f64,
    reconciled: f64,
    writes: usize,
}

async fn touched_by_secret(fleet: &Fleet, cluster: &Cluster, operator: &Operator) -> Result<Touched> {
    let looks = async || operator.metric("switchboard_operator_reconciles_total", "").await;
    // What the last reconciliations set off must be over, or it would be counted here.
    let quiet = async |at_least: f64| {
        let mut last = (0.0, Instant::now());
        wait_for("reconciliations to end", PATIENCE, async || {
            let now = looks().await?;
            if now != last.0 {
                last = (now, Instant::now());
            }
            Ok((now >= at_least && last.1.elapsed() >= Duration::from_secs(5)).then_some(now))
        })
        .await
    };
    let before = quiet(0.0).await?;
    let seen = cluster.requests(0)?.len();
    let users = fleet.change_secret(cluster).await? as f64;
    let after = quiet(before + users).await?;
    let requests = cluster.requests(seen)?;
    let writes = requests.iter().filter(|r| is_write(r)).count();
    Ok(Touched { users, reconciled: after - before, writes })
}

/// Waits until the operator writes nothing any more; how much it still wrote.
async fn rest(cluster: &Cluster) -> Result<usize> {
    let mut seen = cluster.requests(0)?.len();
    let (mut writes, mut last) = (0, Instant::now());
    wait_for("the operator to come to rest", PATIENCE, async || {
        let asked = cluster.requests(seen)?;
        seen += asked.len();
        let written = asked.iter().filter(|r| is_write(r)).count();
        if written > 0 {
            writes += written;
            last = Instant::now();
        }
        Ok((last.elapsed() >= REST).then_some(writes))
    })
    .await
}

/// Waits until the fleet is as it should be, in the cluster and at the carrier.
async fn reconciled(cluster: &Cluster, simulator: &Simulator, fleet: &Fleet) -> Result<()> {
    let mut next = Instant::now();
    wait_for("everything to be reconciled", PATIENCE, async || {
        if Instant::now() < next {
            return Ok(None);
        }
        next = Instant::now() + LOOK;
        fleet.check(cluster, simulator).await.map(Some)
    })
    .await
}

fn is_write(request: &Request) -> bool {
    request.is_write() && request.resource != "leases"
}

/// Who counts requests.
struct Watch<'a> {
    cluster: &'a Cluster,
    simulator: &'a Simulator,
}

/// Requests so far, or between two moments.
struct Traffic {
    api: Vec<Request>,
    /// When each of the carrier's came, in milliseconds, oldest first.
    carrier: Vec<u64>,
}

impl Watch<'_> {
    async fn now(&self) -> Result<Traffic> {
        let requests = self.simulator.requests(0).await?;
        let at = |request: &Value| request["atMilliseconds"].as_u64().context("a time");
        let carrier = requests.iter().map(at).collect::<Result<_>>()?;
        Ok(Traffic { api: self.cluster.requests(0)?, carrier })
    }
}

impl Traffic {
    fn since(mut self, before: &Self) -> Self {
        Self {
            api: self.api.split_off(before.api.len()),
            carrier: self.carrier.split_off(before.carrier.len()),
        }
    }

    fn all(&self) -> usize {
        self.api.len() + self.carrier.len()
    }

    fn writes(&self) -> usize {
        self.api.iter().filter(|r| is_write(r)).count()
    }

    fn of(&self, verb: &str, resource: &str) -> usize {
        self.api.iter().filter(|r| r.verb == verb && r.resource == resource).count()
    }

    /// The most requests to the carrier in any time so long.
    fn busiest(&self, time: Duration) -> usize {
        let within = |first: &u64, at: &u64| u128::from(at - first) < time.as_millis();
        let counts =
            self.carrier.iter().enumerate().map(|(begin, first)| {
                self.carrier[begin..].iter().take_while(|at| within(first, at)).count()
            });
        counts.max().unwrap_or_default()
    }

    /// What the requests were, most frequent first.
    fn tell(&self, when: &str) {
        let mut kinds = BTreeMap::<(&str, &str), usize>::new();
        for request in &self.api {
            *kinds.entry((&request.verb, &request.resource)).or_default() += 1;
        }
        let mut kinds: Vec<_> = kinds.into_iter().collect();
        kinds.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let kinds: Vec<_> =
            kinds.iter().map(|((verb, resource), count)| format!("{count} {verb} {resource}")).collect();
        let carrier = self.carrier.len();
        eprintln!("bench: {when}: {carrier} to the carrier, to the API server {}", kinds.join(", "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_time_counts_wherever_it_begins() {
        let of = |carrier: &[u64]| Traffic { api: Vec::new(), carrier: carrier.to_vec() };
        let minute = Duration::from_secs(60);
        assert_eq!(of(&[]).busiest(minute), 0);
        assert_eq!(of(&[0, 60_000, 119_999, 120_000]).busiest(minute), 2);
        assert_eq!(of(&[0, 50_000, 70_000, 100_000, 300_000]).busiest(minute), 3);
    }

    #[test]
    fn a_figure_above_its_limit_is_marked() {
        let figures = [
            Figure { name: "a", value: 1.5, unit: "s", limit: Some(60.0) },
            Figure { name: "b", value: 2.0, unit: "/s", limit: Some(1.0) },
            Figure { name: "c", value: 100.0, unit: "", limit: None },
        ];
        assert_eq!(
            table(&figures).lines().skip(2).collect::<Vec<_>>(),
            ["| a | 1.5 s | 60 s |  |", "| b | 2/s | 1/s | **above** |", "| c | 100 |  |  |"]
        );
    }
}
