//! The alert rules and the adapter's query, by Prometheus' own `promtool`: valid, tested, and quick with many pods.

#![expect(clippy::unwrap_used, reason = "a test file: its helpers fail the test they are called from")]

use std::fmt::Write as _;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use e2e::installation::repository;
use e2e::{end_of, optional_tool, wait_for};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

fn alerts() -> PathBuf {
    repository().join("charts/switchboard/alerts")
}

/// What promtool says; a failure of it fails the test.
fn promtool(folder: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(optional_tool("promtool").unwrap());
    let output = command.args(arguments).current_dir(folder).output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "promtool {}:\n{said}", arguments.join(" "));
    said
}

/// A folder of this test's own.
fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn rules() -> Vec<Value> {
    let file: Value =
        serde_saphyr::from_str(&fs::read_to_string(alerts().join("switchboard.yaml")).unwrap()).unwrap();
    let groups = file["groups"].as_array().unwrap();
    groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

#[test]
fn the_rules_are_valid_and_their_unit_tests_pass() {
    promtool(&alerts(), &["check", "rules", "--lint=all", "--lint-fatal", "switchboard.yaml"]);
    promtool(&alerts(), &["test", "rules", "switchboard_test.yaml"]);
}

#[test]
fn every_alert_leads_to_its_runbook_and_every_runbook_to_an_alert() {
    let guide = fs::read_to_string(repository().join("docs/operations.md")).unwrap();
    let runbooks: Vec<&str> = guide.lines().filter_map(|line| line.strip_prefix("### Switchboard")).collect();
    let mut alerts = Vec::new();
    for rule in rules().iter().filter(|rule| rule["alert"].is_string()) {
        let name = rule["alert"].as_str().unwrap();
        let url = rule["annotations"]["runbook_url"].as_str().unwrap();
        let anchor = url.rsplit_once("docs/operations.md#").map(|(_, anchor)| anchor);
        assert_eq!(anchor, Some(name.to_lowercase().as_str()), "{name}");
        let severity = rule["labels"]["severity"].as_str().unwrap();
        assert!(["critical", "warning"].contains(&severity), "{name} is {severity}");
        for words in ["summary", "description"] {
            assert!(rule["annotations"][words].is_string(), "{name} has no {words}");
        }
        alerts.push(name.strip_prefix("Switchboard").unwrap().to_owned());
    }
    assert_eq!(runbooks, alerts, "in the order of the rules");
}

/// The adapter's query as it is sent for the pods of one agent.
fn adapter_query() -> String {
    let text = fs::read_to_string(repository().join("charts/switchboard/adapter/rules.yaml")).unwrap();
    let config: Value = serde_saphyr::from_str(&text).unwrap();
    let query = config["rules"][0]["metricsQuery"].as_str().unwrap().replace('\n', " ");
    query.replace("<<.GroupBy>>", "pod").replace("<<.LabelMatchers>>", r#"namespace="shop",pod=~"a|b|c""#)
}

#[test]
fn ringing_calls_are_shared_and_a_leaving_pod_counts_nothing() {
    let pod = |name: &str, calls: u32, ringing: u32, draining: u32| {
        let labels = format!(r#"{{namespace="shop",agent="sales",pod="{name}"}}"#);
        format!(
            "  - {{series: 'switchboard_active_calls{labels}', values: '{calls}x3'}}\n\
             \x20 - {{series: 'switchboard_reserved_slots{labels}', values: '{ringing}x3'}}\n\
             \x20 - {{series: 'switchboard_draining{labels}', values: '{draining}x3'}}\n"
        )
    };
    // Three calls ring. Every pod tells so, one of them a renewal later; two pods stay and share them.
    let series =
        pod("a", 5, 3, 0) + &pod("b", 2, 2, 0) + &pod("c", 9, 3, 1) + &pod("another-agents", 7, 4, 0);
    let expected = [("a", "6.5"), ("b", "3.5"), ("c", "0")];
    let expected: Vec<String> =
        expected.map(|(pod, value)| format!("{{labels: '{{pod=\"{pod}\"}}', value: {value}}}")).into();
    let test = format!(
        "tests:\n- interval: 1m\n  input_series:\n{series}  promql_expr_test:\n  - expr: >-\n      {}\n    \
         eval_time: 2m\n    exp_samples: [{}]\n",
        adapter_query(),
        expected.join(", ")
    );
    let folder = folder("adapter");
    fs::write(folder.join("adapter_test.yaml"), test).unwrap();
    promtool(&folder, &["test", "rules", "adapter_test.yaml"]);
}

/// In a real Prometheus, from a database that has the series which the rules go by.
#[tokio::test]
async fn the_rules_keep_up_with_two_thousand_pods() {
    const PODS: u32 = 2000;
    let folder = folder("two-thousand-pods");
    let data = folder.join("data");
    // What an earlier run left.
    let _ = fs::remove_dir_all(&data);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let (scrapes, count) = scrapes_of(PODS, now);
    fs::write(folder.join("scrapes"), scrapes).unwrap();
    promtool(&folder, &["tsdb", "create-blocks-from", "openmetrics", "--quiet", "scrapes", "data"]);
    let rules = alerts().join("switchboard.yaml");
    let config = format!("global: {{evaluation_interval: 1s}}\nrule_files: [{}]\n", rules.display());
    fs::write(folder.join("prometheus.yml"), config).unwrap();

    // Free now; nobody else is told of it.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = tokio::process::Command::new(optional_tool("prometheus").unwrap());
    command.args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"]);
    command.arg(format!("--web.listen-address={address}")).current_dir(&folder).kill_on_drop(true);
    let log = fs::File::create(folder.join("log")).unwrap();
    let _prometheus = command.stderr(log).spawn().unwrap();

    let ask = async |path: &str| get(address, &format!("/api/v1/{path}")).await;
    wait_for("the calls of all pods", Duration::from_secs(120), async || {
        let sum = ask("query?query=agent:switchboard_active_calls:sum").await?;
        let value = sum["data"]["result"][0]["value"][1].as_str().context("not evaluated yet")?;
        assert_eq!(value, (12 * PODS).to_string());
        Ok(Some(()))
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", end_of(&folder.join("log"))));
    let groups = wait_for("every group to be evaluated", Duration::from_secs(120), async || {
        let groups = ask("rules").await?["data"]["groups"].as_array().context("groups")?.clone();
        let is_done = groups.iter().all(|group| group["evaluationTime"].as_f64() > Some(0.0));
        Ok(is_done.then_some(groups))
    })
    .await
    .unwrap();
    let rules: Vec<&Value> = groups.iter().flat_map(|group| group["rules"].as_array().unwrap()).collect();
    for rule in &rules {
        assert_ne!(rule["health"], "err", "{rule:#}");
    }
    let times = groups.iter().map(|group| group["evaluationTime"].as_f64().unwrap());
    let seconds: f64 = times.sum();
    println!("{PODS} pods, {count} series: all {} rules take {:.0} ms", rules.len(), seconds * 1000.0);
    // What is due every 15 s must not take longer.
    assert!(seconds < 15.0, "{seconds} s");
}

/// What Prometheus answers; HTTP 1.0, so that the answer ends with the connection.
async fn get(address: SocketAddr, path: &str) -> anyhow::Result<Value> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nhost: {address}\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (_, body) = answer.split_once("\r\n\r\n").context("an answer has a body")?;
    Ok(serde_json::from_str(body)?)
}

/// Four scrapes of one agent's pods, a minute apart, in the OpenMetrics text format, and how many series they have. Every
/// counter moves and nothing is wrong.
fn scrapes_of(pods: u32, now: u64) -> (String, usize) {
    const BOUNDS: [&str; 14] =
        ["0.02", "0.05", "0.1", "0.2", "0.3", "0.5", "0.8", "1.2", "2", "3", "5", "10", "30", "+Inf"];
    let mut series: Vec<(String, u64, u64)> = vec![
        ("switchboard_active_calls{".to_owned(), 12, 0),
        ("switchboard_call_capacity{".to_owned(), 30, 0),
        ("switchboard_draining{".to_owned(), 0, 0),
        ("switchboard_provider_connects_total{engine=\"realtime\",".to_owned(), 0, 9),
        ("switchboard_store_failures_total{".to_owned(), 0, 0),
    ];
    let reasons = ["unreachable", "rejected", "closed", "expired", "protocol"];
    let failures = reasons.map(|reason| format!("switchboard_provider_failures_total{{reason=\"{reason}\","));
    series.extend(failures.map(|name| (name, 0, 0)));
    for histogram in ["call_setup", "time_to_first_audio", "turn_latency", "audio_gap"] {
        let bucket = |bound| format!("switchboard_{histogram}_seconds_bucket{{le=\"{bound}\",");
        series.extend(BOUNDS.map(|bound| (bucket(bound), 0, 9)));
        series.push((format!("switchboard_{histogram}_seconds_count{{"), 0, 9));
    }
    let mut text = String::new();
    for (name, begin, step) in &series {
        for pod in 0..pods {
            for scrape in 0..4 {
                let (value, at) = (begin + step * scrape, now - 60 * (3 - scrape));
                let labels = format!("namespace=\"shop\",agent=\"sales\",pod=\"sales-{pod}\"");
                writeln!(text, "{name}{labels}}} {value} {at}").unwrap();
            }
        }
    }
    text.push_str("# EOF\n");
    (text, series.len() * usize::try_from(pods).unwrap())
}
