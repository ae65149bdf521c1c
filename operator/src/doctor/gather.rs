//! Asks the API server for everything the checks look at; reads only. What may not be read becomes a sentence in its
//! place, so that one missing right does not hide the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::time::Duration;

use crds::{PhoneNumber, ScalingType, StoreType, VoiceAgent, VoiceGateway};
use futures_util::{StreamExt as _, stream};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, PostParams};
use kube::core::DeserializeGuard;
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::facts::{Facts, Found, NodeScaler, OperatorFacts, StoreFacts, UrlFacts, Version, key};
use super::rights::{self, Right};
use super::{Reach, Settings, probe};
use crate::references;
use crate::voice_agent::build::AGENT_LABEL;

/// Reviews of rights at a time.
const CONCURRENCY: usize = 16;
const ACCOUNT: &str = "switchboard-operator";
const OPERATOR: &str = "app.kubernetes.io/name=switchboard-operator";
/// `--max-graceful-termination-sec` of cluster-autoscaler, where it is not said.
const CLUSTER_AUTOSCALER: Duration = Duration::from_secs(600);
/// Kubelets renew their Leases every ten seconds; one this old is no clock's fault, or a clock far behind.
const OLD_LEASE: i64 = 40_000;

/// Asks for everything.
pub(super) async fn gather(client: &Client, settings: &Settings) -> Result<Facts, kube::Error> {
    let version = client.apiserver_version().await?;
    let apis = served(client).await?;
    let own_clock = own_clock(client).await;
    let agents: Found<Vec<VoiceAgent>> = ours(client).await;
    let gateways: Found<Vec<VoiceGateway>> = ours(client).await;
    let deployments: Found<Vec<Deployment>> = list(client, AGENT_LABEL).await;
    let known = |agents: &Found<Vec<VoiceAgent>>| agents.clone().unwrap_or_default();
    let namespaces: BTreeSet<String> =
        known(&agents).iter().filter_map(VoiceAgent::namespace).chain(namespaces(&gateways)).collect();
    let now = server_now(&own_clock);
    let operators: Found<Vec<Deployment>> = list_in(client, &settings.namespace, OPERATOR).await;
    Ok(Facts {
        version: Version {
            major: digits(&version.major),
            minor: digits(&version.minor),
            text: version.git_version,
        },
        definitions: definitions(client).await,
        missing_rights: missing_rights(client, settings, &operators, &namespaces).await,
        operator: operator(client, settings, &operators, now).await,
        numbers: ours::<PhoneNumber>(client).await,
        metrics: metrics(client, &apis, &known(&agents)).await,
        stores: stores(client, settings, gateways.as_deref().unwrap_or_default()).await,
        deployments,
        pods: list(client, AGENT_LABEL).await,
        budgets: list(client, "").await,
        ingresses: list(client, AGENT_LABEL).await,
        classes: list(client, "").await,
        nginx: nginx(client).await,
        node_scalers: node_scalers(client, &apis).await,
        nodes: list(client, "").await,
        node_clocks: node_clocks(client, now).await,
        own_clock,
        urls: urls(settings, gateways.as_deref().unwrap_or_default(), &known(&agents)).await,
        apis,
        gateways,
        agents,
    })
}

fn namespaces(gateways: &Found<Vec<VoiceGateway>>) -> Vec<String> {
    gateways.as_deref().unwrap_or_default().iter().filter_map(VoiceGateway::namespace).collect()
}

/// `35+` is what some clouds say.
fn digits(text: &str) -> u32 {
    text.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or_default()
}

async fn served(client: &Client) -> Result<BTreeSet<String>, kube::Error> {
    let core = client.list_core_api_versions().await?;
    let groups = client.list_api_groups().await?;
    let versions = groups.groups.into_iter().flat_map(|group| group.versions);
    Ok(core.versions.into_iter().chain(versions.map(|version| version.group_version)).collect())
}

/// All objects of one of our kinds; one that cannot be read is left out, and the operator tells of it.
async fn ours<K>(client: &Client) -> Found<Vec<K>>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let api = Api::<DeserializeGuard<K>>::all(client.clone());
    let found = api.list(&ListParams::default()).await.map_err(why)?;
    Ok(found.items.into_iter().filter_map(|guarded| guarded.0.ok()).collect())
}

async fn list<K>(client: &Client, selector: &str) -> Found<Vec<K>>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let found = Api::<K>::all(client.clone()).list(&ListParams::default().labels(selector)).await;
    found.map(|list| list.items).map_err(why)
}

async fn list_in<K>(client: &Client, namespace: &str, selector: &str) -> Found<Vec<K>>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Debug,
{
    let api = Api::<K>::namespaced(client.clone(), namespace);
    api.list(&ListParams::default().labels(selector)).await.map(|list| list.items).map_err(why)
}

async fn definitions(client: &Client) -> Found<BTreeMap<String, CustomResourceDefinition>> {
    let api = Api::<CustomResourceDefinition>::all(client.clone());
    let mut found = BTreeMap::new();
    for definition in crds::manifest::definitions() {
        let name = definition.name_any();
        if let Some(installed) = api.get_opt(&name).await.map_err(why)? {
            found.insert(name, installed);
        }
    }
    Ok(found)
}

/// What the operator's account lacks: cluster-wide if it is meant to see the whole cluster, else in each namespace.
async fn missing_rights(
    client: &Client,
    settings: &Settings,
    operators: &Found<Vec<Deployment>>,
    namespaces: &BTreeSet<String>,
) -> Found<Vec<Right>> {
    let account = operators.as_deref().unwrap_or_default().first();
    let account =
        account.and_then(|d| d.spec.as_ref()?.template.spec.as_ref()?.service_account_name.as_deref());
    let review = Review { client, namespace: &settings.namespace, account: account.unwrap_or(ACCOUNT) };
    let seeing = |right: &&Right| right.resource == "voiceagents" && right.verb == "list";
    let everywhere = rights::everywhere();
    let sees_all = match everywhere.iter().find(seeing) {
        Some(right) => review.allows(right, "").await?,
        None => true,
    };
    let whole = BTreeSet::from([String::new()]);
    let places = if sees_all || namespaces.is_empty() { &whole } else { namespaces };
    let wanted =
        places.iter().flat_map(|place| everywhere.iter().map(move |right| (right.clone(), place.clone())));
    let at_home = rights::at_home().into_iter().map(|right| (right, settings.namespace.clone()));
    let asked = stream::iter(wanted.chain(at_home)).map(|(right, place)| {
        let review = &review;
        async move { review.allows(&right, &place).await.map(|allowed| (!allowed).then_some(right)) }
    });
    let answers: Vec<Found<Option<Right>>> = asked.buffer_unordered(CONCURRENCY).collect().await;
    let missing: BTreeSet<Right> = answers.into_iter().filter_map(Result::transpose).collect::<Found<_>>()?;
    Ok(missing.into_iter().collect())
}

/// Asks the API server about somebody else's rights.
struct Review<'a> {
    client: &'a Client,
    namespace: &'a str,
    account: &'a str,
}

impl Review<'_> {
    async fn allows(&self, right: &Right, place: &str) -> Found<bool> {
        let Self { client, namespace, account } = self;
        let (resource, subresource) = right.resource.split_once('/').unwrap_or((&right.resource, ""));
        let attributes = ResourceAttributes {
            namespace: Some(place.to_owned()),
            verb: Some(right.verb.clone()),
            group: Some(right.group.clone()),
            resource: Some(resource.to_owned()),
            subresource: Some(subresource.to_owned()),
            name: rights::name_of(right).map(str::to_owned),
            ..ResourceAttributes::default()
        };
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(format!("system:serviceaccount:{namespace}:{account}")),
                groups: Some(vec![
                    "system:authenticated".to_owned(),
                    "system:serviceaccounts".to_owned(),
                    format!("system:serviceaccounts:{namespace}"),
                ]),
                resource_attributes: Some(attributes),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let api = Api::<SubjectAccessReview>::all((*client).clone());
        let answer = api.create(&PostParams::default(), &review).await.map_err(why)?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }
}

async fn operator(
    client: &Client,
    settings: &Settings,
    operators: &Found<Vec<Deployment>>,
    now: Timestamp,
) -> Found<OperatorFacts> {
    let replicas = operators.clone()?.first().map(|deployment| {
        let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        let available = deployment.status.as_ref().and_then(|status| status.available_replicas);
        (wanted, available.unwrap_or_default())
    });
    let leases = Api::<Lease>::namespaced(client.clone(), &settings.namespace);
    let lease = leases.get_opt("switchboard-operator").await.map_err(why)?.and_then(|lease| lease.spec);
    let lease = lease.and_then(|spec| {
        let age = now.duration_since(spec.renew_time?.0);
        let holder = spec.holder_identity.unwrap_or_else(|| "nobody".to_owned());
        Some((holder, Duration::try_from(age).unwrap_or_default()))
    });
    Ok(OperatorFacts { replicas, lease })
}

/// In each namespace with an agent that is scaled by the metric, for how many pods the custom metrics API knows it.
async fn metrics(
    client: &Client,
    apis: &BTreeSet<String>,
    agents: &[VoiceAgent],
) -> BTreeMap<String, Found<usize>> {
    let Some(api) = apis.iter().rfind(|api| api.starts_with("custom.metrics.k8s.io/")) else {
        return BTreeMap::new();
    };
    let scaled = agents.iter().filter(|agent| agent.spec.scaling.kind == ScalingType::Autoscaler);
    let namespaces: BTreeSet<String> = scaled.filter_map(VoiceAgent::namespace).collect();
    let mut found = BTreeMap::new();
    for namespace in namespaces {
        let path = format!("/apis/{api}/namespaces/{namespace}/pods/*/switchboard_active_calls");
        let answer = get(client, &path).await;
        found.insert(namespace, answer.map(|list| list["items"].as_array().map_or(0, Vec::len)));
    }
    found
}

async fn get(client: &Client, path: &str) -> Found<Value> {
    let request = axum::http::Request::get(path).body(Vec::new()).map_err(|error| error.to_string())?;
    client.request(request).await.map_err(why)
}

async fn stores(
    client: &Client,
    settings: &Settings,
    gateways: &[VoiceGateway],
) -> BTreeMap<String, Found<StoreFacts>> {
    let mut found = BTreeMap::new();
    if settings.reach == Reach::Cluster {
        return found;
    }
    for gateway in gateways.iter().filter(|gateway| gateway.spec.store.kind == StoreType::Redis) {
        let Some(redis) = &gateway.spec.store.redis else { continue };
        let namespace = gateway.namespace().unwrap_or_default();
        let url = references::fetch_secret(client, &namespace, &redis.url_secret_ref).await;
        let facts = match url {
            Err(error) => Err(why(error)),
            Ok(Err(missing)) => Err(missing.to_string()),
            Ok(Ok(url)) => probe::redis(&url).await,
        };
        found.insert(key(gateway), facts);
    }
    found
}

async fn urls(
    settings: &Settings,
    gateways: &[VoiceGateway],
    agents: &[VoiceAgent],
) -> BTreeMap<String, UrlFacts> {
    let mut found = BTreeMap::new();
    if settings.reach == Reach::Cluster {
        return found;
    }
    for gateway in gateways {
        // Without an agent there is nothing that could answer.
        let agent = agents.iter().find(|agent| {
            agent.namespace() == gateway.namespace() && agent.spec.gateway_ref.name == gateway.name_any()
        });
        let Some(agent) = agent else { continue };
        let url = format!("{}/{}/twilio/voice", gateway.spec.public_url, key(agent));
        found.insert(key(gateway), probe::url(url).await);
    }
    found
}

async fn nginx(client: &Client) -> Found<Vec<BTreeMap<String, String>>> {
    let found = list::<ConfigMap>(client, "app.kubernetes.io/name=ingress-nginx").await?;
    Ok(found.into_iter().filter_map(|config_map| config_map.data).collect())
}

async fn node_scalers(client: &Client, apis: &BTreeSet<String>) -> Found<Vec<NodeScaler>> {
    let deployments = list::<Deployment>(client, "").await?;
    let mut found: Vec<_> = deployments
        .iter()
        .filter(|deployment| deployment.name_any().contains("cluster-autoscaler"))
        .map(|deployment| NodeScaler {
            name: format!("Deployment {}", key(deployment)),
            setting: "--max-graceful-termination-sec",
            longest: Some(graceful_termination(deployment)),
        })
        .collect();
    if apis.contains("karpenter.sh/v1") {
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("karpenter.sh", "v1", "NodePool"));
        let pools = Api::<DynamicObject>::all_with(client.clone(), &kind).list(&ListParams::default()).await;
        found.extend(pools.map_err(why)?.items.iter().map(|pool| {
            NodeScaler {
                name: format!("NodePool {}", pool.name_any()),
                setting: "spec.template.spec.terminationGracePeriod",
                longest: pool
                    .data
                    .pointer("/spec/template/spec/terminationGracePeriod")
                    .and_then(Value::as_str)
                    .and_then(go_duration),
            }
        }));
    }
    Ok(found)
}

/// The flag of a cluster-autoscaler, wherever its container has it.
fn graceful_termination(deployment: &Deployment) -> Duration {
    let pod = deployment.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    let containers = pod.map_or(&[][..], |pod| &pod.containers);
    let words = containers.iter().flat_map(|c| c.command.iter().flatten().chain(c.args.iter().flatten()));
    words
        .filter_map(|word| word.trim_start_matches('-').strip_prefix("max-graceful-termination-sec="))
        .find_map(|seconds| seconds.parse().ok())
        .map_or(CLUSTER_AUTOSCALER, Duration::from_secs)
}

/// `48h`, `1h30m`, `90s`: Go's notation, as far as resources use it.
fn go_duration(text: &str) -> Option<Duration> {
    let mut seconds = 0_u64;
    let mut number = String::new();
    for letter in text.chars() {
        let factor = match letter {
            '0'..='9' => {
                number.push(letter);
                continue;
            }
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return None,
        };
        seconds = seconds.checked_add(number.parse::<u64>().ok()?.checked_mul(factor)?)?;
        number.clear();
    }
    (number.is_empty() && !text.is_empty()).then_some(Duration::from_secs(seconds))
}

/// How far this machine's clock is ahead of the API server's, in milliseconds. The header counts in whole seconds.
async fn own_clock(client: &Client) -> Found<i64> {
    let request = axum::http::Request::get("/version").body(kube::client::Body::empty());
    let before = Timestamp::now();
    let answer = client.send(request.map_err(|error| error.to_string())?).await.map_err(why)?;
    let date = answer.headers().get("date").and_then(|date| date.to_str().ok());
    let date = date.ok_or("the API server sends no Date")?;
    let theirs = jiff::fmt::rfc2822::parse(date).map_err(|error| error.to_string())?.timestamp();
    // In the middle of the second that the header means.
    Ok(before.as_millisecond() - theirs.as_millisecond() - 500)
}

/// The API server's time.
fn server_now(own_clock: &Found<i64>) -> Timestamp {
    let now = Timestamp::now();
    let ahead = own_clock.as_ref().copied().unwrap_or_default();
    Timestamp::from_millisecond(now.as_millisecond() - ahead).unwrap_or(now)
}

/// Each ready node's clock, by the time at which it says that it is alive.
async fn node_clocks(client: &Client, now: Timestamp) -> Found<BTreeMap<String, i64>> {
    let nodes = list::<Node>(client, "").await?;
    let leases = list_in::<Lease>(client, "kube-node-lease", "").await?;
    let ready: BTreeSet<String> =
        nodes.iter().filter(|node| is_ready(node)).map(|node| node.name_any()).collect();
    let said = leases.into_iter().filter(|lease| ready.contains(&lease.name_any())).filter_map(|lease| {
        let renewed = lease.spec.as_ref()?.renew_time.as_ref()?.0;
        Some((lease.name_any(), ahead(renewed.as_millisecond() - now.as_millisecond())))
    });
    Ok(said.collect())
}

/// What a renewal's time tells of a clock: one in the future is ahead by at least that; one of a moment ago says nothing.
const fn ahead(renewed: i64) -> i64 {
    if renewed > 0 || renewed < -OLD_LEASE { renewed } else { 0 }
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// The part of an error that a person can do something about.
fn why(error: kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn durations_of_go_are_read() {
        for (text, seconds) in [
            ("48h", Some(172_800)),
            ("1h30m", Some(5400)),
            ("90s", Some(90)),
            ("", None),
            ("5", None),
            ("Never", None),
        ] {
            assert_eq!(go_duration(text), seconds.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn the_flag_of_the_cluster_autoscaler_is_found_in_command_and_args() {
        let deployment = |container: Value| -> Deployment {
            let pod = json!({"spec": {"containers": [container]}});
            serde_json::from_value(json!({"spec": {"selector": {}, "template": pod}})).unwrap()
        };
        let flag = "--max-graceful-termination-sec=3600";
        for (container, seconds) in [
            (json!({"name": "a", "command": ["./cluster-autoscaler", flag]}), 3600),
            (json!({"name": "a", "args": ["--v=4", flag]}), 3600),
            (json!({"name": "a"}), 600),
        ] {
            assert_eq!(graceful_termination(&deployment(container)), Duration::from_secs(seconds));
        }
    }

    #[test]
    fn a_node_that_renewed_a_moment_ago_has_no_clock_to_complain_of() {
        assert_eq!([-9_000, 0, 5_000, -90_000].map(ahead), [0, 0, 5_000, -90_000]);
        assert_eq!(["35", "35+", ""].map(digits), [35, 35, 0]);
    }
}
