//! A cluster in which all is well, and for each check what happens when one thing is not.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kube::ResourceExt as _;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::examine;
use crate::doctor::facts::{Facts, NodeScaler, OperatorFacts, StoreFacts, UrlFacts, Version};
use crate::doctor::report::{Check, Report, Severity};
use crate::doctor::rights::Right;
use crate::testing::{self, AgentVerbs as _, GatewayVerbs as _};

fn of<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// A definition as the API server shows it.
fn established(
    definition: k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
) -> (String, k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition) {
    let name = definition.name_any();
    let mut shown = serde_json::to_value(definition).unwrap();
    shown["status"] = json!({"conditions": [{"type": "Established", "status": "True"}]});
    (name, of(shown))
}

fn ready() -> Value {
    json!({"conditions": [{
        "type": "Ready", "status": "True", "reason": "Serving", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z",
    }]})
}

fn not_ready() -> Value {
    json!({"conditions": [{
        "type": "Ready", "status": "False", "reason": "SecretNotFound", "message": "Secret openai does not exist: create it",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }]})
}

fn deployment(grace: u32, replicas: i32) -> Value {
    json!({
        "metadata": {"namespace": "moving", "name": "sales-media"},
        "spec": {"selector": {}, "replicas": replicas, "template": {"spec": {
            "containers": [], "terminationGracePeriodSeconds": grace,
        }}},
    })
}

fn budget(name: &str, most: Value) -> Value {
    json!({
        "metadata": {"namespace": "moving", "name": name},
        "spec": {"maxUnavailable": most, "selector": {"matchLabels": {"switchboard.dev/agent": "sales"}}},
    })
}

fn ingress(annotations: &Value) -> Value {
    json!({
        "metadata": {"namespace": "moving", "name": "sales-media", "annotations": annotations},
        "spec": {"ingressClassName": "nginx"},
    })
}

fn class(controller: &str) -> Value {
    json!({"metadata": {"name": "nginx"}, "spec": {"controller": controller}})
}

const PATIENT: &str = "nginx.ingress.kubernetes.io/proxy-";

/// All is well.
fn healthy() -> Facts {
    let apis = [
        "v1",
        "apps/v1",
        "autoscaling/v2",
        "coordination.k8s.io/v1",
        "events.k8s.io/v1",
        "networking.k8s.io/v1",
        "policy/v1",
        "switchboard.dev/v1alpha1",
        "custom.metrics.k8s.io/v1beta1",
    ];
    let mut agent = testing::agent();
    agent.status = of(ready());
    let mut gateway = testing::gateway()
        .with("/store", json!({"type": "Redis", "redis": {"urlSecretRef": {"name": "redis", "key": "url"}}}));
    gateway.status = of(ready());
    let mut number = testing::number();
    number.status = of(ready());
    let annotations =
        json!({format!("{PATIENT}read-timeout"): "3600", format!("{PATIENT}send-timeout"): "1h"});
    let store =
        StoreFacts { eviction: Some("noeviction".to_owned()), is_persistent: true, ..StoreFacts::default() };
    let url = UrlFacts {
        url: "https://voice.example.com/moving/sales/twilio/voice".to_owned(),
        addresses: Ok(1),
        status: Ok(403),
    };
    Facts {
        version: Version { major: 1, minor: 35, text: "v1.35.4".to_owned() },
        apis: apis.map(str::to_owned).into(),
        definitions: Ok(crds::manifest::definitions().into_iter().map(established).collect()),
        missing_rights: Ok(Vec::new()),
        operator: Ok(OperatorFacts {
            replicas: Some((2, 2)),
            lease: Some(("a".to_owned(), Duration::from_secs(2))),
        }),
        gateways: Ok(vec![gateway]),
        agents: Ok(vec![agent]),
        numbers: Ok(vec![number]),
        metrics: BTreeMap::from([("moving".to_owned(), Ok(2))]),
        stores: BTreeMap::from([("moving/default".to_owned(), Ok(store))]),
        deployments: Ok(vec![of(deployment(300, 2))]),
        pods: Ok(vec![of(json!({"spec": {"nodeName": "node-1", "containers": []}}))]),
        budgets: Ok(vec![of(budget("sales-media", json!(1)))]),
        ingresses: Ok(vec![of(ingress(&annotations))]),
        classes: Ok(vec![of(class("k8s.io/ingress-nginx"))]),
        nginx: Ok(vec![BTreeMap::from([("worker-shutdown-timeout".to_owned(), "1800s".to_owned())])]),
        node_scalers: Ok(vec![NodeScaler {
            name: "a".to_owned(),
            setting: "b",
            longest: Some(Duration::from_secs(600)),
        }]),
        nodes: Ok(vec![of(json!({"metadata": {"name": "node-1"}}))]),
        node_clocks: Ok(BTreeMap::from([("node-1".to_owned(), 0)])),
        own_clock: Ok(-300),
        urls: BTreeMap::from([("moving/default".to_owned(), url)]),
    }
}

#[test]
fn where_all_is_well_every_check_says_so() {
    let report = Report::of(examine(&healthy()));
    let said: Vec<_> = report.findings.iter().map(|f| (f.check, f.severity)).collect();
    let all = [
        Check::ApiVersions,
        Check::Definitions,
        Check::Rights,
        Check::Operator,
        Check::Resources,
        Check::Metrics,
        Check::Store,
        Check::GracePeriod,
        Check::Edge,
        Check::NodeScaling,
        Check::Budgets,
        Check::Clocks,
        Check::PublicUrl,
    ];
    assert_eq!(said, all.map(|check| (check, Severity::Ok)), "{report}");
    assert_eq!(report.exit_code(), 0);
}

/// Makes one thing wrong.
type Change = fn(&mut Facts);

/// What is wrong, and the only finding it leads to: its check, how bad it is, whom it is about, and some of its words.
type Case = (Change, Check, Severity, &'static str, &'static str);

#[test]
fn each_thing_that_is_wrong_is_one_finding_with_a_remedy() {
    let cases: [Case; 40] = [
        (|f| f.version.minor = 30, Check::ApiVersions, Severity::Warning, "", "older"),
        (|f| without(f, "policy/v1"), Check::ApiVersions, Severity::Failure, "", "policy/v1"),
        (
            |f| drop(f.definitions.as_mut().unwrap().remove("voiceagents.switchboard.dev")),
            Check::Definitions,
            Severity::Failure,
            "voiceagents.switchboard.dev",
            "not installed",
        ),
        (
            |f| f.definitions.as_mut().unwrap().get_mut("voiceagents.switchboard.dev").unwrap().status = None,
            Check::Definitions,
            Severity::Failure,
            "voiceagents.switchboard.dev",
            "established",
        ),
        (
            |f| {
                f.definitions
                    .as_mut()
                    .unwrap()
                    .get_mut("phonenumbers.switchboard.dev")
                    .unwrap()
                    .spec
                    .versions[0]
                    .schema = None
            },
            Check::Definitions,
            Severity::Failure,
            "phonenumbers.switchboard.dev",
            "dropped",
        ),
        (
            |f| f.definitions = Err("forbidden".to_owned()),
            Check::Definitions,
            Severity::Unknown,
            "",
            "forbidden",
        ),
        (
            |f| {
                f.missing_rights = Ok(vec![Right {
                    group: String::new(),
                    resource: "pods".to_owned(),
                    verb: "patch".to_owned(),
                }])
            },
            Check::Rights,
            Severity::Failure,
            "",
            "patch pods",
        ),
        (
            |f| f.operator.as_mut().unwrap().replicas = None,
            Check::Operator,
            Severity::Warning,
            "",
            "no Deployment",
        ),
        (
            |f| f.operator.as_mut().unwrap().replicas = Some((2, 0)),
            Check::Operator,
            Severity::Failure,
            "",
            "no replica",
        ),
        (
            |f| f.operator.as_mut().unwrap().replicas = Some((2, 1)),
            Check::Operator,
            Severity::Warning,
            "",
            "1 of 2",
        ),
        (
            |f| f.operator.as_mut().unwrap().replicas = Some((1, 1)),
            Check::Operator,
            Severity::Warning,
            "",
            "one replica",
        ),
        (|f| f.operator.as_mut().unwrap().lease = None, Check::Operator, Severity::Failure, "", "ever led"),
        (
            |f| f.operator.as_mut().unwrap().lease = Some(("b".to_owned(), Duration::from_secs(3600))),
            Check::Operator,
            Severity::Failure,
            "b",
            "1 h ago",
        ),
        (
            |f| f.agents.as_mut().unwrap()[0].status = of(not_ready()),
            Check::Resources,
            Severity::Failure,
            "voiceagent moving/sales",
            "SecretNotFound",
        ),
        (
            |f| f.numbers.as_mut().unwrap()[0].status = None,
            Check::Resources,
            Severity::Warning,
            "phonenumber moving/main-line",
            "not looked",
        ),
        (
            |f| without(f, "custom.metrics.k8s.io/v1beta1"),
            Check::Metrics,
            Severity::Failure,
            "moving/sales",
            "never scales up",
        ),
        (
            |f| drop(f.metrics.insert("moving".to_owned(), Err("not found".to_owned()))),
            Check::Metrics,
            Severity::Failure,
            "moving",
            "does not know",
        ),
        (
            |f| drop(f.metrics.insert("moving".to_owned(), Ok(0))),
            Check::Metrics,
            Severity::Warning,
            "moving",
            "no pod",
        ),
        (
            |f| f.gateways.as_mut().unwrap()[0].spec.store = of(json!({"type": "Memory"})),
            Check::Store,
            Severity::Failure,
            "moving/default",
            "memory",
        ),
        (
            |f| store(f).eviction = Some("allkeys-lru".to_owned()),
            Check::Store,
            Severity::Failure,
            "moving/default",
            "allkeys-lru",
        ),
        (|f| store(f).eviction = None, Check::Store, Severity::Unknown, "moving/default", "maxmemory-policy"),
        (
            |f| (store(f).most_memory, store(f).memory) = (100, 81),
            Check::Store,
            Severity::Warning,
            "moving/default",
            "81 of 100",
        ),
        (|f| store(f).is_persistent = false, Check::Store, Severity::Warning, "moving/default", "restart"),
        (
            |f| drop(f.stores.insert("moving/default".to_owned(), Err("refused".to_owned()))),
            Check::Store,
            Severity::Unknown,
            "moving/default",
            "refused",
        ),
        (
            |f| f.deployments = Ok(vec![of(deployment(299, 2))]),
            Check::GracePeriod,
            Severity::Failure,
            "moving/sales",
            "299 s",
        ),
        (
            |f| f.deployments = Ok(vec![of(deployment(300, 1))]),
            Check::Budgets,
            Severity::Warning,
            "moving/sales",
            "one pod",
        ),
        (
            |f| f.budgets.as_mut().unwrap().push(of(budget("mine", json!(1)))),
            Check::Budgets,
            Severity::Failure,
            "moving/sales",
            "mine",
        ),
        (
            |f| f.budgets = Ok(vec![of(budget("sales-media", json!(0)))]),
            Check::Budgets,
            Severity::Failure,
            "moving/sales",
            "no pod go",
        ),
        (
            |f| f.classes = Ok(Vec::new()),
            Check::Edge,
            Severity::Failure,
            "moving/sales-media",
            "no IngressClass nginx",
        ),
        (
            |f| f.ingresses = Ok(vec![of(ingress(&json!({format!("{PATIENT}read-timeout"): "3600"})))]),
            Check::Edge,
            Severity::Failure,
            "moving/sales-media",
            "60 s (proxy-send-timeout)",
        ),
        (
            |f| f.nginx = Ok(Vec::new()),
            Check::Edge,
            Severity::Warning,
            "moving/sales-media",
            "240 s after each",
        ),
        (
            |f| f.classes = Ok(vec![of(class("k8s.io/ingress-gce"))]),
            Check::Edge,
            Severity::Warning,
            "moving/sales-media",
            "after 30 s",
        ),
        (
            |f| f.classes = Ok(vec![of(class("example.com/mine"))]),
            Check::Edge,
            Severity::Unknown,
            "moving/sales-media",
            "example.com/mine",
        ),
        (
            |f| f.node_scalers.as_mut().unwrap()[0].longest = Some(Duration::from_secs(60)),
            Check::NodeScaling,
            Severity::Failure,
            "a",
            "gives pods 60 s",
        ),
        (
            |f| {
                f.nodes = Ok(vec![of(
                    json!({"metadata": {"name": "node-1", "labels": {"karpenter.sh/capacity-type": "spot"}}}),
                )])
            },
            Check::NodeScaling,
            Severity::Warning,
            "node-1",
            "1 media pods",
        ),
        (
            |f| f.node_clocks = Ok(BTreeMap::from([("node-1".to_owned(), 5_000)])),
            Check::Clocks,
            Severity::Warning,
            "node node-1",
            "5000 ms ahead of",
        ),
        (
            |f| f.own_clock = Ok(-60_000),
            Check::Clocks,
            Severity::Failure,
            "the machine that runs the doctor",
            "behind",
        ),
        (
            |f| url(f).addresses = Err("no such host".to_owned()),
            Check::PublicUrl,
            Severity::Failure,
            "moving/default",
            "no such host",
        ),
        (|f| url(f).status = Ok(404), Check::PublicUrl, Severity::Failure, "moving/default", "404"),
        (|f| url(f).status = Ok(302), Check::PublicUrl, Severity::Warning, "moving/default", "302"),
    ];
    for (number, (change, check, severity, subject, words)) in cases.into_iter().enumerate() {
        let mut facts = healthy();
        change(&mut facts);
        let found: Vec<_> = examine(&facts).into_iter().filter(|f| f.severity != Severity::Ok).collect();
        let [finding] = &found[..] else { panic!("case {number} ({words}): {found:#?}") };
        assert_eq!(
            (finding.check, finding.severity, finding.subject.as_str()),
            (check, severity, subject),
            "{finding:?}"
        );
        assert!(finding.message.contains(words), "{words:?} is not in {:?}", finding.message);
        assert!(!finding.remedy.is_empty(), "{finding:?}");
    }
}

fn without(facts: &mut Facts, api: &str) {
    facts.apis.retain(|known| known != api);
}

fn store(facts: &mut Facts) -> &mut StoreFacts {
    facts.stores.get_mut("moving/default").unwrap().as_mut().unwrap()
}

fn url(facts: &mut Facts) -> &mut UrlFacts {
    facts.urls.get_mut("moving/default").unwrap()
}

#[test]
fn a_cluster_without_agents_has_nothing_to_complain_of() {
    let mut facts = healthy();
    facts.agents = Ok(Vec::new());
    facts.gateways = Ok(Vec::new());
    facts.numbers = Ok(Vec::new());
    facts.deployments = Ok(Vec::new());
    facts.ingresses = Ok(Vec::new());
    facts.apis =
        healthy().apis.into_iter().filter(|api| !api.starts_with("custom.")).collect::<BTreeSet<_>>();
    facts.metrics.clear();
    facts.stores.clear();
    facts.urls.clear();
    assert_eq!(Report::of(examine(&facts)).exit_code(), 0);
}

#[test]
fn an_agent_scaled_by_hand_needs_no_metric() {
    let mut facts = healthy();
    let manual = json!({"type": "Manual", "manual": {"replicas": 2}, "maxCallsPerPod": 30});
    let mut agent = testing::agent().with("/scaling", manual);
    agent.status = of(ready());
    facts.agents = Ok(vec![agent]);
    facts.apis.remove("custom.metrics.k8s.io/v1beta1");
    facts.metrics.clear();
    assert_eq!(Report::of(examine(&facts)).exit_code(), 0);
}
