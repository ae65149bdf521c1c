//! The fleet that is applied: gateways, Secrets, agents, numbers; and whether it is as it should be.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::Ingress;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::installation::condition;
use crate::{Cluster, Simulator};

/// Namespaces, each with a gateway of its own.
const TENANTS: usize = 10;
/// Agents that name the same Secret.
const AGENTS_PER_SECRET: usize = 5;
/// Requests at a time while applying, as a GitOps tool does.
const AT_ONCE: usize = 16;
const ACCOUNT: &str = "AC00000000000000000000000000000001";
/// What every child carries.
const CHILDREN: &str = "switchboard.dev/agent";

/// So many agents and numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fleet {
    agents: usize,
}

/// An object to be applied.
type Item = (Option<ApiResource>, String, Value);

impl Fleet {
    pub(super) const fn of(agents: usize) -> Self {
        Self { agents }
    }

    /// Objects the operator reconciles.
    pub(super) const fn objects(self) -> f64 {
        (2 * self.agents + TENANTS) as f64
    }

    /// Secrets that the operator reads: two of each gateway, its keyring, and those of the agents' engines.
    pub(super) fn secrets(self) -> usize {
        3 * TENANTS + self.key_secrets().len()
    }

    fn key_secrets(self) -> BTreeSet<(usize, String)> {
        (0..self.agents).map(|n| (n % TENANTS, key_secret(n))).collect()
    }

    /// The carrier's side: every number, with webhooks from before.
    pub(super) fn scenario(self) -> Value {
        let numbers: Vec<_> = (0..self.agents)
            .map(|n| json!({"number": e164(n), "sid": format!("PN{n:032x}"), "voiceUrl": format!("https://old.example.com/{n}")}))
            .collect();
        json!({
            "account": {"sid": ACCOUNT, "authToken": "simulated-auth-token"},
            "numbers": numbers,
            "model": {"script": {"opening": "Hello.", "default": "Yes.", "turns": []}},
        })
    }

    /// Applies all of it: what others refer to first.
    pub(super) async fn apply(self, cluster: &Cluster) -> Result<()> {
        let client = cluster.client();
        for tenant in 0..TENANTS {
            let namespace: Namespace =
                serde_json::from_value(json!({"metadata": {"name": namespace(tenant)}}))?;
            Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &namespace).await?;
        }
        self.create_all(&client, self.foundations(cluster)).await?;
        self.create_all(&client, (0..self.agents).flat_map(|n| [agent(n), number(n)]).collect()).await
    }

    /// Changes one Secret that agents name; returns how many do.
    pub(super) async fn change_secret(self, cluster: &Cluster) -> Result<usize> {
        let secrets: Api<Secret> = Api::namespaced(cluster.client(), &namespace(0));
        let patch = Patch::Merge(json!({"stringData": {"apiKey": "another-key"}}));
        secrets.patch(&key_secret(0), &PatchParams::default(), &patch).await?;
        let users = (0..self.agents)
            .filter(|n| (namespace(n % TENANTS), key_secret(*n)) == (namespace(0), key_secret(0)));
        Ok(users.count())
    }

    /// An error that names something that is not as it should be.
    pub(super) async fn check(self, cluster: &Cluster, simulator: &Simulator) -> Result<()> {
        let client = cluster.client();
        let numbers = all(&client, "PhoneNumber").await?;
        ensure!(numbers.len() == self.agents, "{} numbers", numbers.len());
        numbers.iter().try_for_each(|number| is_current(number, "Ready"))?;
        for gateway in all(&client, "VoiceGateway").await? {
            is_current(&gateway, "Ready")?;
        }
        let agents = all(&client, "VoiceAgent").await?;
        for agent in &agents {
            is_current(agent, "ReferencesResolved")?;
            ensure!(
                agent["status"]["numbers"].as_array().map(Vec::len) == Some(1),
                "{} has no number",
                name(agent)
            );
        }
        ensure!(agents.len() == self.agents, "{} agents", agents.len());
        let config_maps = children::<ConfigMap>(&client).await?;
        for config_map in &config_maps {
            let document =
                config_map.data.as_ref().and_then(|data| data.get("agent.json")).context("a document")?;
            let document: Value = serde_json::from_str(document)?;
            ensure!(document["numbers"].as_array().map(Vec::len) == Some(1), "a document lacks its number");
        }
        for (kind, count) in [
            ("ConfigMap", config_maps.len()),
            ("ServiceAccount", children::<ServiceAccount>(&client).await?.len()),
            ("Deployment", children::<Deployment>(&client).await?.len()),
            ("Service", children::<Service>(&client).await?.len()),
            ("PodDisruptionBudget", children::<PodDisruptionBudget>(&client).await?.len()),
            ("HorizontalPodAutoscaler", children::<HorizontalPodAutoscaler>(&client).await?.len()),
            ("Ingress", children::<Ingress>(&client).await?.len()),
        ] {
            ensure!(count == self.agents, "{count} of kind {kind}");
        }
        let wanted: BTreeSet<String> = (0..self.agents).map(voice_url).collect();
        let found = simulator.numbers().await?;
        let found =
            found.iter().map(|number| number["voice_url"].as_str().unwrap_or_default().to_owned()).collect();
        ensure!(wanted == found, "{} webhooks are set", wanted.intersection(&found).count());
        Ok(())
    }

    fn foundations(self, cluster: &Cluster) -> Vec<Item> {
        let secret = |tenant: usize, name: String, data: Value| -> Item {
            (
                None,
                namespace(tenant),
                json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}),
            )
        };
        let mut items = Vec::new();
        for tenant in 0..TENANTS {
            items.push(secret(tenant, "twilio".into(), json!({"authToken": "simulated-auth-token"})));
            items.push(secret(tenant, "redis".into(), json!({"url": "redis://redis:6379/0"})));
            let gateway = json!({
                "apiVersion": "switchboard.dev/v1alpha1",
                "kind": "VoiceGateway",
                "metadata": {"name": "default"},
                "spec": {
                    "publicUrl": format!("https://{}.example.com", namespace(tenant)),
                    "exposure": {"type": "Ingress", "ingress": {"className": "nginx"}},
                    "carrier": {"type": "Twilio", "twilio": {
                        "accountSid": ACCOUNT,
                        "authTokenSecretRefs": [{"name": "twilio", "key": "authToken"}],
                        "apiBaseUrl": format!("http://{}:4010", cluster.node_address()),
                    }},
                    "store": {"type": "Redis", "redis": {"urlSecretRef": {"name": "redis", "key": "url"}}},
                },
            });
            items.push((Some(custom("VoiceGateway")), namespace(tenant), gateway));
        }
        let keys = self.key_secrets();
        items.extend(keys.into_iter().map(|(tenant, name)| secret(tenant, name, json!({"apiKey": "key"}))));
        items
    }

    async fn create_all(self, client: &Client, items: Vec<Item>) -> Result<()> {
        let mut running = JoinSet::new();
        for (resource, namespace, object) in items {
            if running.len() == AT_ONCE {
                running.join_next().await.context("one is running")???;
            }
            let client = client.clone();
            running.spawn(async move {
                let resource = resource.unwrap_or_else(|| ApiResource::erase::<Secret>(&()));
                let api: Api<DynamicObject> = Api::namespaced_with(client, &namespace, &resource);
                api.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
                anyhow::Ok(())
            });
        }
        while let Some(ended) = running.join_next().await {
            ended??;
        }
        Ok(())
    }
}

fn agent(n: usize) -> Item {
    let object = json!({
        "apiVersion": "switchboard.dev/v1alpha1",
        "kind": "VoiceAgent",
        "metadata": {"name": format!("agent-{n}")},
        "spec": {
            "persona": {
                "language": "en-US",
                "instructions": {"text": format!("You are agent {n} of Example Movers. Speak briefly and kindly.")},
                "greeting": {"text": "Hello, how can I help you?"},
            },
            "engines": [{"name": "primary", "type": "Realtime", "realtime": {
                "model": "gpt-realtime-2.1",
                "voice": "marin",
                "apiKeySecretRef": {"name": key_secret(n), "key": "apiKey"},
            }}],
        },
    });
    (Some(custom("VoiceAgent")), namespace(n % TENANTS), object)
}

fn number(n: usize) -> Item {
    let object = json!({
        "apiVersion": "switchboard.dev/v1alpha1",
        "kind": "PhoneNumber",
        "metadata": {"name": format!("number-{n}")},
        "spec": {
            "source": {"type": "E164", "e164": e164(n)},
            "routes": [{"agentRef": {"name": format!("agent-{n}")}}],
        },
    });
    (Some(custom("PhoneNumber")), namespace(n % TENANTS), object)
}

fn voice_url(n: usize) -> String {
    let namespace = namespace(n % TENANTS);
    format!("https://{namespace}.example.com/{namespace}/agent-{n}/twilio/voice")
}

fn namespace(tenant: usize) -> String {
    format!("tenant-{tenant}")
}

fn e164(n: usize) -> String {
    format!("+1555{n:07}")
}

fn key_secret(n: usize) -> String {
    format!("key-{}", n / TENANTS / AGENTS_PER_SECRET)
}

fn custom(kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("switchboard.dev", "v1alpha1", kind))
}

/// Every object of one of the three kinds, as JSON.
async fn all(client: &Client, kind: &str) -> Result<Vec<Value>> {
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &custom(kind));
    let list = api.list(&ListParams::default()).await?;
    list.items.into_iter().map(|object| Ok(serde_json::to_value(object)?)).collect()
}

/// Every child of a kind.
async fn children<K>(client: &Client) -> Result<Vec<K>>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    Ok(Api::<K>::all(client.clone()).list(&ListParams::default().labels(CHILDREN)).await?.items)
}

fn is_current(object: &Value, kind: &str) -> Result<()> {
    let found =
        condition(object, kind).with_context(|| format!("{} has no condition {kind}", name(object)))?;
    let is_newest = object["status"]["observedGeneration"] == object["metadata"]["generation"];
    ensure!(found["status"] == "True" && is_newest, "{}: {found}", name(object));
    Ok(())
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}
