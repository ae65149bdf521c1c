//! Carries operations out, and looks at what came of them: a real API server, the simulated Twilio, two operators.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use e2e::installation::{apply_manifests, binary};
use e2e::operator::{Operator, Replica};
use e2e::{Cluster, Simulator, wait_for};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::Ingress;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::model::{self, Agent, Child, Fault, Number, Operation, Scaling};

/// How long anything may take: seconds on an idle machine, after the longest backoff that the faults here lead to.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);
pub(crate) const NAMESPACE: &str = "model";
const ACCOUNT: &str = "AC00000000000000000000000000000001";
const TOKEN: &str = "simulated-auth-token";
/// What somebody other than the operator made and has not asked it to touch.
const BYSTANDER: &str = "bystander";
/// Twilio tells nobody of a change, so drift is found by looking: this often here.
const RESYNC_SECONDS: u32 = 3;

pub(crate) struct World {
    cluster: Cluster,
    simulator: Simulator,
    program: PathBuf,
    operators: Vec<Operator>,
    started: u16,
    fault: Fault,
    bystanders: Vec<Value>,
}

/// Everything there is.
#[derive(Debug)]
pub(crate) struct Observed {
    pub(crate) agents: Vec<Value>,
    pub(crate) numbers: Vec<Value>,
    pub(crate) children: BTreeMap<Child, Vec<Value>>,
    /// The account's numbers, as REST shows them.
    pub(crate) lines: Vec<Value>,
    /// What happened to what is nobody's business.
    pub(crate) trespasses: Vec<String>,
}

impl World {
    pub(crate) async fn begin(cluster: Cluster) -> Result<Self> {
        let scenario = cluster.state_dir().join("model.json");
        std::fs::write(&scenario, scenario_of_lines().to_string())?;
        let simulator = Simulator::start(&cluster, &scenario, None).await?;
        apply_manifests(&cluster).await?;
        cluster.kubectl(&["create", "namespace", NAMESPACE]).await?;
        let program = binary("switchboard")?;
        let mut world = Self {
            cluster,
            simulator,
            program,
            operators: Vec::new(),
            started: 0,
            fault: Fault::None,
            bystanders: Vec::new(),
        };
        world
            .apply(&kind::<Secret>(), "redis", json!({"stringData": {"url": "redis://redis:6379/0"}}))
            .await?;
        let bystander =
            json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": "somebody"}}, "data": {"a": "b"}});
        world.apply(&kind::<ConfigMap>(), BYSTANDER, bystander).await?;
        world.bystanders = world.look_at_bystanders().await?;
        for operation in [
            Operation::Prompt(Some(0)),
            Operation::Key(true),
            Operation::Token(true),
            Operation::Ingress(true),
        ] {
            world.perform(&operation).await?;
        }
        for _ in 0..2 {
            let operator = world.start_operator().await?;
            world.operators.push(operator);
        }
        Ok(world)
    }

    /// Does it, and returns when whoever was asked has taken the request.
    pub(crate) async fn perform(&mut self, operation: &Operation) -> Result<()> {
        match operation {
            Operation::ApplyAgent(name, agent) => {
                self.apply(&custom("VoiceAgent"), name, agent_body(agent)).await
            }
            Operation::DeleteAgent(name) => self.delete(&custom("VoiceAgent"), name).await,
            Operation::ApplyNumber(name, number) => {
                self.apply(&custom("PhoneNumber"), name, number_body(number)).await
            }
            Operation::DeleteNumber(name) => self.delete(&custom("PhoneNumber"), name).await,
            Operation::Prompt(Some(serial)) => {
                self.apply(&kind::<ConfigMap>(), "prompt", json!({"data": {"text": prompt(*serial)}})).await
            }
            Operation::Prompt(None) => self.delete(&kind::<ConfigMap>(), "prompt").await,
            Operation::Key(true) => {
                self.apply(&kind::<Secret>(), "engine", json!({"stringData": {"apiKey": "key"}})).await
            }
            Operation::Key(false) => self.delete(&kind::<Secret>(), "engine").await,
            Operation::Ingress(has_ingress) => {
                let body = gateway_body(*has_ingress, self.simulator.carrier_url());
                self.apply(&custom("VoiceGateway"), "default", body).await
            }
            Operation::Token(is_right) => {
                let token = if *is_right { TOKEN } else { "a-token-that-was-revoked" };
                self.apply(&kind::<Secret>(), "twilio", json!({"stringData": {"authToken": token}})).await
            }
            Operation::Meddle(line, serial) => {
                let callback = model::meddled_callback(*serial);
                let form = [("StatusCallback", callback.as_str())];
                // The console is not the REST API, whatever fails there.
                self.simulator.set_faults(&faults(Fault::None)).await?;
                self.simulator.change_number(&model::sid(*line), (ACCOUNT, TOKEN), &form).await?;
                self.simulator.set_faults(&faults(self.fault)).await
            }
            Operation::DeleteChild(agent, child) => self.delete(&resource(*child), &child_name(agent)).await,
            Operation::SpoilChild(agent, child) => self.spoil(agent, *child).await,
            Operation::Fault(fault) => {
                self.fault = *fault;
                self.simulator.set_faults(&faults(*fault)).await
            }
            Operation::KillOperator(place) => {
                // Dropped, and so killed, before the other one starts.
                drop(self.operators.remove(*place));
                let operator = self.start_operator().await?;
                self.operators.insert(*place, operator);
                Ok(())
            }
            Operation::ReplaceOperator(place) => {
                self.operators[*place].stop(PATIENCE).await?;
                let operator = self.start_operator().await?;
                self.operators[*place] = operator;
                Ok(())
            }
            Operation::RestartApiServer => self.cluster.restart_api_server(PATIENCE).await,
        }
    }

    /// Waits until one of the operators leads, and only one.
    pub(crate) async fn led(&self) -> Result<()> {
        wait_for("one operator to lead", PATIENCE, async || {
            let mut leading = 0.0;
            for operator in &self.operators {
                operator.process().check()?;
                leading += operator.metric("switchboard_operator_leader", "").await?;
            }
            anyhow::ensure!(leading == 1.0, "{leading} lead");
            Ok(Some(()))
        })
        .await
    }

    /// What the operator wrote so far: in the cluster, and at Twilio.
    pub(crate) async fn writes(&self) -> Result<(usize, Vec<Value>)> {
        let requests = self.cluster.requests(0)?;
        let in_cluster = requests.iter().filter(|r| r.is_write() && r.resource != "leases").count();
        let at_twilio = self.simulator.requests(0).await?;
        Ok((in_cluster, at_twilio.into_iter().filter(|request| request["method"] != "GET").collect()))
    }

    pub(crate) async fn violations(&self) -> Result<Vec<Value>> {
        self.simulator.violations().await
    }

    /// The ends of the operators' logs.
    pub(crate) fn logs(&self) -> String {
        let logs = self.operators.iter().map(|operator| e2e::end_of(operator.process().log()));
        logs.collect::<Vec<_>>().join("\n")
    }

    pub(crate) async fn observe(&self) -> Result<Observed> {
        let mut children = BTreeMap::new();
        for child in Child::ALL {
            children.insert(child, self.list(&resource(child), "switchboard.dev/agent").await?);
        }
        let known = self.bystanders.clone();
        let is_same = self.look_at_bystanders().await? == known;
        Ok(Observed {
            agents: self.list(&custom("VoiceAgent"), "").await?,
            numbers: self.list(&custom("PhoneNumber"), "").await?,
            children,
            lines: self.simulator.numbers().await?,
            trespasses: if is_same { Vec::new() } else { vec![format!("{BYSTANDER} was touched")] },
        })
    }

    async fn look_at_bystanders(&self) -> Result<Vec<Value>> {
        let config_maps = self.list(&kind::<ConfigMap>(), "app.kubernetes.io/managed-by=somebody").await?;
        Ok(config_maps.iter().map(|c| json!([c["metadata"]["resourceVersion"], c["data"]])).collect())
    }

    async fn start_operator(&mut self) -> Result<Operator> {
        self.started += 1;
        let name = format!("operator-{}", self.started);
        let port = 9000 + self.started;
        let replica = Replica { name: &name, port, program: &self.program, resync_seconds: RESYNC_SECONDS };
        Operator::start(&self.cluster, replica).await
    }

    async fn spoil(&self, agent: &str, child: Child) -> Result<()> {
        let patch = match child {
            Child::ConfigMap => json!({"data": {"agent.json": "{}"}}),
            Child::Service => json!({"spec": {"selector": {"switchboard.dev/agent": "somebody-else"}}}),
            _ => json!({"spec": {"maxUnavailable": 0}}),
        };
        let (api, name) = (self.api(&resource(child)), child_name(agent));
        settle("the API server to take an edit", async || {
            api.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await.map(drop)
        })
        .await
    }

    async fn apply(&self, resource: &ApiResource, name: &str, mut body: Value) -> Result<()> {
        body["apiVersion"] = json!(resource.api_version);
        body["kind"] = json!(resource.kind);
        body["metadata"]["name"] = json!(name);
        let api = self.api(resource);
        let parameters = PatchParams::apply("user").force();
        settle(&format!("the API server to take {name}"), async || {
            api.patch(name, &parameters, &Patch::Apply(&body)).await.map(drop)
        })
        .await
    }

    async fn delete(&self, resource: &ApiResource, name: &str) -> Result<()> {
        let api = self.api(resource);
        settle(&format!("the API server to delete {name}"), async || {
            api.delete(name, &DeleteParams::default()).await.map(drop)
        })
        .await
    }

    async fn list(&self, resource: &ApiResource, selector: &str) -> Result<Vec<Value>> {
        let found = self.api(resource).list(&ListParams::default().labels(selector)).await?;
        found.items.into_iter().map(|object| Ok(serde_json::to_value(object)?)).collect()
    }

    fn api(&self, resource: &ApiResource) -> Api<DynamicObject> {
        let client: Client = self.cluster.client();
        Api::namespaced_with(client, NAMESPACE, resource)
    }
}

/// Tries again while the API server is away; what is not there is as good as deleted or edited.
async fn settle(what: &str, request: impl AsyncFn() -> Result<(), kube::Error>) -> Result<()> {
    let answer = wait_for(what, PATIENCE, async || match request().await {
        Ok(()) => Ok(Some(Ok(()))),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Some(Ok(()))),
        Err(kube::Error::Api(status)) if status.code == 422 || status.code == 400 => {
            Ok(Some(Err(status.message)))
        }
        Err(error) => Err(error.into()),
    });
    answer.await?.map_err(|refusal| anyhow::anyhow!("{what}: {refusal}"))
}

pub(crate) fn child_name(agent: &str) -> String {
    format!("{agent}-media")
}

/// The instructions in the ConfigMap.
pub(crate) fn prompt(serial: u32) -> String {
    format!("These are instructions {serial}.")
}

pub(crate) fn greeting(agent: &Agent) -> String {
    format!("Greeting {}.", agent.greeting)
}

pub(crate) fn own_instructions(agent: &Agent) -> String {
    format!("Own instructions {}.", agent.greeting)
}

pub(crate) fn fallback(serial: u32) -> String {
    format!("https://fallback.example.com/{serial}")
}

fn agent_body(agent: &Agent) -> Value {
    let Agent { greeting: _, takes_prompt, scaling, is_suspended, max_call_seconds } = agent;
    let instructions = if *takes_prompt {
        json!({"configMapKeyRef": {"name": "prompt", "key": "text"}})
    } else {
        json!({"text": own_instructions(agent)})
    };
    let scaling = match scaling {
        Scaling::Manual(replicas) => json!({"type": "Manual", "manual": {"replicas": replicas}}),
        Scaling::Autoscaler(least) => json!({"type": "Autoscaler", "autoscaler": {"minReplicas": least}}),
    };
    json!({"spec": {
        "suspend": is_suspended,
        "persona": {"instructions": instructions, "greeting": {"text": greeting(agent)}},
        "engines": [{"name": "primary", "type": "Realtime", "realtime": {
            "model": "gpt-realtime-2.1", "voice": "marin", "apiKeySecretRef": {"name": "engine", "key": "apiKey"},
        }}],
        "limits": {"maxCallSeconds": max_call_seconds},
        "scaling": scaling,
    }})
}

fn number_body(number: &Number) -> Value {
    let Number { line, by_sid, routes, fallback: serial } = number;
    let source = if *by_sid {
        json!({"type": "SID", "sid": model::sid(*line)})
    } else {
        json!({"type": "E164", "e164": model::e164(*line)})
    };
    let routes: Vec<_> =
        routes.iter().map(|(agent, weight)| json!({"agentRef": {"name": agent}, "weight": weight})).collect();
    let mut spec = json!({"source": source, "routes": routes});
    if let Some(serial) = serial {
        spec["fallbackUrl"] = json!(fallback(*serial));
    }
    json!({"spec": spec})
}

fn gateway_body(has_ingress: bool, carrier_url: &str) -> Value {
    let exposure = if has_ingress {
        json!({"type": "Ingress", "ingress": {"className": "nginx"}})
    } else {
        json!({"type": "None"})
    };
    json!({"spec": {
        "publicUrl": "https://voice.example.com",
        "exposure": exposure,
        "carrier": {"type": "Twilio", "twilio": {
            "accountSid": ACCOUNT,
            "authTokenSecretRefs": [{"name": "twilio", "key": "authToken"}],
            "apiBaseUrl": carrier_url,
        }},
        "store": {"type": "Redis", "redis": {"urlSecretRef": {"name": "redis", "key": "url"}}},
    }})
}

fn faults(fault: Fault) -> Value {
    match fault {
        Fault::None => json!({}),
        Fault::Status(status) => json!({"rest": {"status": status}}),
        Fault::Busy(times) => json!({"rest": {"status": 429, "retryAfterSeconds": 2, "times": times}}),
        Fault::LostAnswers(times) => json!({"rest": {"loseAnswers": true, "method": "POST", "times": times}}),
        Fault::Slow(milliseconds) => json!({"rest": {"delayMilliseconds": milliseconds}}),
    }
}

fn scenario_of_lines() -> Value {
    let numbers: Vec<_> = (0..model::LINES)
        .map(|line| {
            let mut number = json!({"number": model::e164(line), "sid": model::sid(line)});
            for (name, value) in model::former(line) {
                number[camel(name)] = json!(value);
            }
            number
        })
        .collect();
    json!({
        "account": {"sid": ACCOUNT, "authToken": TOKEN},
        "numbers": numbers,
        "model": {"script": {"opening": "Hello.", "default": "Yes.", "turns": []}},
    })
}

/// `voice_url` as a scenario writes it.
fn camel(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |camel, word| {
        let (initial, rest) = word.split_at(1);
        camel + &initial.to_uppercase() + rest
    })
}

fn resource(child: Child) -> ApiResource {
    match child {
        Child::ServiceAccount => kind::<ServiceAccount>(),
        Child::ConfigMap => kind::<ConfigMap>(),
        Child::Deployment => kind::<Deployment>(),
        Child::Service => kind::<Service>(),
        Child::Budget => kind::<PodDisruptionBudget>(),
        Child::Autoscaler => kind::<HorizontalPodAutoscaler>(),
        Child::Ingress => kind::<Ingress>(),
    }
}

fn kind<K: kube::Resource<DynamicType = ()>>() -> ApiResource {
    ApiResource::erase::<K>(&())
}

fn custom(kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("switchboard.dev", "v1alpha1", kind))
}

/// A field of an object by path, as text.
pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> Option<&'a str> {
    object.pointer(pointer).and_then(Value::as_str)
}
