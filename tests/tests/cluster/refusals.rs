//! What the API server refuses and fills in, by the schemas alone: no controller is asked.
//!
//! The rules are read from the API server, so a new rule or a new limit without a case here fails. Objects are sent as
//! dry runs, except where a rule compares with what was there before.

mod objects;
mod schema;

use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use e2e::{Cluster, wait_for};
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::core::Status;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::context::{Ctx, PATIENCE};
use objects::{agent, builtin_agent, gateway, number, routed_gateway};

pub(crate) fn trials(ctx: &Arc<Ctx>) -> Vec<Trial> {
    vec![
        ctx.trial("refusals::every_rule_refuses_with_its_sentence", rules),
        ctx.trial("refusals::every_limit_of_every_field_is_enforced", limits),
        ctx.trial("refusals::the_longest_lists_and_texts_are_accepted", longest),
        ctx.trial("refusals::defaults_are_filled_in", defaults),
        ctx.trial("refusals::an_object_older_than_a_rule_can_still_be_changed_elsewhere", ratcheting),
        ctx.trial("refusals::kubectl_explain_has_a_sentence_for_every_field", explanations),
    ]
}

const KINDS: [(&str, &str); 3] =
    [("VoiceGateway", "voicegateways"), ("VoiceAgent", "voiceagents"), ("PhoneNumber", "phonenumbers")];

/// Where a case's valid object comes from, and what makes it invalid. `Null` removes.
struct Case {
    object: fn() -> Value,
    changes: Vec<(&'static str, Value)>,
    /// Whether the valid object is there already.
    is_update: bool,
    /// How the rule's sentence begins.
    sentence: &'static str,
}

fn refused(object: fn() -> Value, changes: &[(&'static str, Value)], sentence: &'static str) -> Case {
    Case { object, changes: changes.to_vec(), is_update: false, sentence }
}

fn fixed(object: fn() -> Value, changes: &[(&'static str, Value)], sentence: &'static str) -> Case {
    Case { is_update: true, ..refused(object, changes, sentence) }
}

fn cases() -> Vec<Case> {
    const NOTHING: Value = Value::Null;
    let manual = || ("/spec/scaling/manual", json!({"replicas": 3}));
    vec![
        refused(gateway, &[("/metadata/name", json!("1st"))], "metadata.name must have at most 40"),
        refused(gateway, &[("/spec/carrier/twilio", NOTHING)], "type Twilio needs its settings"),
        refused(gateway, &[("/spec/exposure/type", json!("None"))], "ingress is read with type Ingress only"),
        refused(
            gateway,
            &[("/spec/exposure", json!({"type": "HTTPRoute"}))],
            "type HTTPRoute needs its settings",
        ),
        refused(
            gateway,
            &[("/spec/exposure/httpRoute", json!({"parentRefs": [{"name": "edge"}]}))],
            "httpRoute is read with type HTTPRoute only",
        ),
        refused(
            routed_gateway,
            &[("/spec/publicUrl", json!("https://a.example/b"))],
            "with exposure type HTTPRoute",
        ),
        refused(gateway, &[("/spec/publicUrl", json!("http://a.example"))], "publicUrl must be an https://"),
        refused(gateway, &[("/spec/publicUrl", json!("https://a.example/"))], "publicUrl must not end with"),
        refused(
            gateway,
            &[("/spec/publicUrl", json!("https://a.example:8443"))],
            "publicUrl must name no port",
        ),
        refused(gateway, &[("/spec/publicUrl", json!("https://a.example/b"))], "with exposure type Ingress"),
        refused(gateway, &[("/spec/store/redis", NOTHING)], "type Redis needs its settings"),
        refused(gateway, &[("/spec/store/type", json!("Memory"))], "redis is read with type Redis only"),
        fixed(
            gateway,
            &[("/spec/carrier/twilio/accountSid", json!("AC00000000000000000000000000000002"))],
            "accountSid is immutable",
        ),
        refused(agent, &[("/metadata/name", json!("sales.eu"))], "metadata.name must have at most 40"),
        refused(
            agent,
            &[("/spec/engines/0/realtime/turnDetection/type", json!("SemanticVAD"))],
            "serverVAD is read with type ServerVAD only",
        ),
        refused(
            agent,
            &[("/spec/engines/0/realtime/turnDetection/semanticVAD", json!({}))],
            "semanticVAD is read with type SemanticVAD only",
        ),
        refused(
            agent,
            &[("/spec/engines/0/realtime/url", json!("https://a.example"))],
            "url must begin with",
        ),
        refused(agent, &[("/spec/engines/0/realtime/url", json!("wss://a.example?b"))], "url must not hold"),
        refused(agent, &[("/spec/engines/0/realtime", NOTHING)], "type Realtime needs its settings"),
        refused(
            agent,
            &[("/spec/engines/0/type", json!("Simulated"))],
            "realtime is read with type Realtime only",
        ),
        refused(
            agent,
            &[("/spec/engines/0/simulated", json!({}))],
            "simulated is read with type Simulated only",
        ),
        refused(
            agent,
            &[("/spec/overflow/type", json!("Forward"))],
            "message is read with type Message only",
        ),
        refused(agent, &[("/spec/overflow", json!({"type": "Agent"}))], "type Agent needs its settings"),
        refused(
            agent,
            &[("/spec/overflow/agent", json!({"agentRef": {"name": "night"}}))],
            "agent is read with type Agent only",
        ),
        refused(agent, &[("/spec/overflow", json!({"type": "Forward"}))], "type Forward needs its settings"),
        refused(
            agent,
            &[("/spec/overflow/forward", json!({"transferTarget": "dispatch"}))],
            "forward is read with type Forward only",
        ),
        refused(
            agent,
            &[("/spec/overflow", json!({"type": "Agent", "agent": {"agentRef": {"name": "refused"}}}))],
            "overflow.agent.agentRef names this agent itself",
        ),
        refused(
            agent,
            &[("/spec/overflow", json!({"type": "Forward", "forward": {"transferTarget": "attic"}}))],
            "overflow.forward.transferTarget names no entry",
        ),
        refused(
            agent,
            &[("/spec/persona/instructions", json!({}))],
            "instructions must have exactly one of text and configMapKeyRef",
        ),
        refused(
            agent,
            &[("/spec/scaling/autoscaler/minReplicas", json!(11))],
            "minReplicas must not be above maxReplicas",
        ),
        refused(
            agent,
            &[("/spec/scaling/type", json!("Manual")), manual()],
            "autoscaler is read with type Autoscaler only",
        ),
        refused(agent, &[("/spec/scaling", json!({"type": "Manual"}))], "type Manual needs its settings"),
        refused(agent, &[manual()], "manual is read with type Manual only"),
        refused(
            agent,
            &[("/spec/scaling/maxCallsPerPod", json!(19))],
            "autoscaler.targetCallsPerPod must not be above maxCallsPerPod",
        ),
        refused(
            agent,
            &[("/spec/scaling/maxCallsPerPod", json!(19)), ("/spec/scaling/autoscaler", NOTHING)],
            "maxCallsPerPod is below the autoscaler's default target",
        ),
        refused(
            builtin_agent,
            &[("/spec/scaling/builtin/minReplicas", json!(11))],
            "minReplicas must not be above maxReplicas",
        ),
        refused(
            builtin_agent,
            &[("/spec/scaling/builtin/targetCallsPerPod", json!(31))],
            "builtin.targetCallsPerPod must not be above maxCallsPerPod",
        ),
        refused(
            builtin_agent,
            &[("/spec/scaling/maxCallsPerPod", json!(19)), ("/spec/scaling/builtin", NOTHING)],
            "maxCallsPerPod is below the built-in scaler's default target",
        ),
        refused(agent, &[("/spec/scaling/builtin", json!({}))], "builtin is read with type Builtin only"),
        refused(agent, &[("/spec/scaling/external", json!({}))], "external is read with type External only"),
        refused(agent, &[("/spec/networkPolicy/type", json!("None"))], "doors is read with type Doors only"),
        refused(
            agent,
            &[("/spec/monitoring/type", json!("None"))],
            "podMonitor is read with type PodMonitor only",
        ),
        refused(
            number,
            &[("/spec/routes/1", json!({"agentRef": {"name": "sales"}}))],
            "routes name an agent twice",
        ),
        refused(
            number,
            &[("/spec/routes/0/weight", json!(0)), ("/spec/routes/1/weight", json!(0))],
            "every route has weight 0",
        ),
        refused(number, &[("/spec/source/e164", NOTHING)], "type E164 needs its settings"),
        refused(
            number,
            &[("/spec/source/type", json!("SID")), ("/spec/source/sid", json!(objects::SID))],
            "e164 is read with type E164 only",
        ),
        refused(number, &[("/spec/source", json!({"type": "SID"}))], "type SID needs its settings"),
        refused(number, &[("/spec/source/sid", json!(objects::SID))], "sid is read with type SID only"),
        refused(number, &[("/spec/source", json!({"type": "Purchase"}))], "type Purchase needs its settings"),
        refused(
            number,
            &[("/spec/source/purchase", json!({"country": "US"}))],
            "purchase is read with type Purchase only",
        ),
        refused(
            number,
            &[("/spec/source", json!({"type": "Purchase", "purchase": {"country": "GB", "areaCode": 208}}))],
            "areaCode is for numbers of the US and Canada",
        ),
        refused(
            number,
            &[("/spec/deletionPolicy", json!("Release"))],
            "deletionPolicy Release gives a number back",
        ),
        fixed(number, &[("/spec/source/e164", json!("+15559990002"))], "source is immutable"),
        fixed(number, &[("/spec/gatewayRef/name", json!("another"))], "gatewayRef is immutable"),
    ]
}

async fn rules(ctx: Arc<Ctx>) -> Result<()> {
    let namespace = ctx.namespace("refusals-rules").await?;
    let cluster = ctx.cluster()?;
    let cases = cases();
    for (kind, plural) in KINDS {
        let definition = definition(cluster, plural).await?;
        let rules = schema::rules(schema_of(&definition)?);
        ensure!(rules.len() > 5, "{kind} has rules: {rules:?}");
        let api = api(cluster, &namespace, kind, plural);
        let mine = || cases.iter().filter(|case| (case.object)()["kind"] == kind);
        for rule in &rules {
            ensure!(
                mine().any(|case| rule.starts_with(case.sentence)),
                "{kind}: no case for the rule: {rule}"
            );
        }
        accepted(&api, &mine().next().map(|case| (case.object)()).context("a case")?).await?;
        for case in mine() {
            let rule = rules.iter().find(|rule| rule.starts_with(case.sentence));
            let rule = rule.with_context(|| format!("{kind} has no rule that begins {:?}", case.sentence))?;
            let object = (case.object)();
            let changed = changed(object.clone(), &case.changes)?;
            let answer = if case.is_update {
                let name = object["metadata"]["name"].as_str().context("a name")?;
                let force = PatchParams::apply("trial").force();
                api.patch(name, &force, &Patch::Apply(&object)).await.context("the object as it was")?;
                let dry = PatchParams { dry_run: true, ..PatchParams::default() };
                api.patch(name, &dry, &Patch::Merge(&json!({"spec": changed["spec"]}))).await
            } else {
                dry_run(&api, &changed).await
            };
            let status = refusal(answer).with_context(|| format!("the case of {rule}"))?;
            ensure!(status.message.contains(rule.as_str()), "instead of {rule:?}: {}", status.message);
        }
    }
    Ok(())
}

async fn limits(ctx: Arc<Ctx>) -> Result<()> {
    let namespace = ctx.namespace("refusals-limits").await?;
    let cluster = ctx.cluster()?;
    for (kind, plural) in KINDS {
        let definition = definition(cluster, plural).await?;
        let api = api(cluster, &namespace, kind, plural);
        let mut open = schema::limits(schema_of(&definition)?);
        ensure!(open.len() > 20, "{kind} has limits: {open:?}");
        for object in objects::all().into_iter().filter(|object| object["kind"] == kind) {
            accepted(&api, &object).await?;
            for breach in schema::breaches(schema_of(&definition)?, &object) {
                if !open.remove(&breach.limit) {
                    continue;
                }
                let status = refusal(dry_run(&api, &breach.object).await)
                    .with_context(|| format!("{kind}: {}", breach.limit))?;
                ensure!(status.message.contains(&breach.field), "{}: {}", breach.limit, status.message);
            }
        }
        ensure!(open.is_empty(), "{kind}: no object in objects.rs has the fields of {open:#?}");
    }
    Ok(())
}

async fn longest(ctx: Arc<Ctx>) -> Result<()> {
    let namespace = ctx.namespace("refusals-longest").await?;
    for object in objects::longest() {
        let kind = object["kind"].as_str().context("a kind")?;
        let plural = format!("{}s", kind.to_lowercase());
        accepted(&api(ctx.cluster()?, &namespace, kind, &plural), &object).await?;
    }
    Ok(())
}

async fn defaults(ctx: Arc<Ctx>) -> Result<()> {
    let namespace = ctx.namespace("refusals-defaults").await?;
    for (object, wanted) in objects::smallest() {
        let kind = object["kind"].as_str().context("a kind")?;
        let plural = format!("{}s", kind.to_lowercase());
        let filled = accepted(&api(ctx.cluster()?, &namespace, kind, &plural), &object).await?;
        assert_eq!(filled.data["spec"], wanted, "{kind}");
    }
    Ok(())
}

/// The same kind in another group, first without rules, then with today's.
async fn ratcheting(ctx: Arc<Ctx>) -> Result<()> {
    const GROUP: &str = "older.switchboard.test";
    let namespace = ctx.namespace("refusals-older").await?;
    let cluster = ctx.cluster()?;
    let mut strict = definition(cluster, "voiceagents").await?;
    strict["metadata"] = json!({"name": format!("voiceagents.{GROUP}")});
    strict["spec"]["group"] = json!(GROUP);
    strict["spec"]["names"] = json!({"kind": "VoiceAgent", "plural": "voiceagents"});
    strict.as_object_mut().context("a definition")?.remove("status");
    let mut loose = strict.clone();
    schema::without_rules(&mut loose);
    let definitions = definitions(cluster);
    let force = PatchParams::apply("trial").force();
    let name = format!("voiceagents.{GROUP}");
    definitions.patch(&name, &force, &Patch::Apply(&loose)).await?;

    let older = GroupVersionKind::gvk(GROUP, objects::VERSION, "VoiceAgent");
    let resource = ApiResource::from_gvk_with_plural(&older, "voiceagents");
    let agents: Api<DynamicObject> = Api::namespaced_with(cluster.client(), &namespace, &resource);
    let mut object = changed(
        agent(),
        &[
            ("/spec/engines/0/realtime/url", json!("https://model.example.com")),
            ("/spec/scaling/autoscaler/minReplicas", json!(11)),
        ],
    )?;
    object["apiVersion"] = json!(format!("{GROUP}/{}", objects::VERSION));
    wait_for("the definition without rules", PATIENCE, async || {
        Ok(Some(agents.patch("refused", &force, &Patch::Apply(&object)).await?))
    })
    .await?;
    definitions.patch(&name, &force, &Patch::Apply(&strict)).await?;
    let mut another = object.clone();
    another["metadata"]["name"] = json!("another");
    wait_for("the rules to count", PATIENCE, async || {
        Ok(dry_run(&agents, &another).await.is_err().then_some(()))
    })
    .await?;

    let merge = PatchParams::default();
    agents.patch("refused", &merge, &Patch::Merge(json!({"spec": {"suspend": true}}))).await?;
    let mut engines = object["spec"]["engines"].clone();
    engines[0]["realtime"]["voice"] = json!("cedar");
    agents.patch("refused", &merge, &Patch::Merge(json!({"spec": {"engines": engines}}))).await?;
    engines[0]["realtime"]["url"] = json!("https://other.example.com");
    let answer = agents.patch("refused", &merge, &Patch::Merge(json!({"spec": {"engines": engines}}))).await;
    let status = refusal(answer)?;
    ensure!(status.message.contains("url must begin with wss://"), "{}", status.message);
    definitions.delete(&name, &kube::api::DeleteParams::default()).await?;
    Ok(())
}

async fn explanations(ctx: Arc<Ctx>) -> Result<()> {
    let cluster = ctx.cluster()?;
    for (kind, plural) in KINDS {
        let definition = definition(cluster, plural).await?;
        let silent = schema::undescribed(schema_of(&definition)?);
        ensure!(silent.is_empty(), "{kind}: no description: {silent:?}");
        // What kubectl prints is made of the same text, for fields and for the kind itself.
        let manual = cluster.kubectl(&["explain", &format!("{plural}.spec")]).await?;
        let spec = &schema_of(&definition)?["properties"]["spec"];
        let first = spec["description"].as_str().and_then(|text| text.split_whitespace().next());
        ensure!(manual.contains(first.context("a first word")?), "{manual}");
        for field in spec["properties"].as_object().context("fields")?.keys() {
            ensure!(manual.contains(&format!("  {field}\t")), "{field} is not in {manual}");
        }
        ensure!(!manual.contains("<no description>"), "{manual}");
    }
    Ok(())
}

fn definitions(cluster: &Cluster) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    Api::all_with(cluster.client(), &ApiResource::from_gvk(&kind))
}

/// A CustomResourceDefinition as the API server has it.
async fn definition(cluster: &Cluster, plural: &str) -> Result<Value> {
    let found = definitions(cluster).get(&format!("{plural}.switchboard.dev")).await?;
    let mut definition = serde_json::to_value(found)?;
    definition["apiVersion"] = json!("apiextensions.k8s.io/v1");
    definition["kind"] = json!("CustomResourceDefinition");
    Ok(definition)
}

fn schema_of(definition: &Value) -> Result<&Value> {
    definition.pointer("/spec/versions/0/schema/openAPIV3Schema").context("a definition has a schema")
}

fn api(cluster: &Cluster, namespace: &str, kind: &str, plural: &str) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("switchboard.dev", objects::VERSION, kind);
    let resource = ApiResource::from_gvk_with_plural(&kind, plural);
    Api::namespaced_with(cluster.client(), namespace, &resource)
}

async fn dry_run(api: &Api<DynamicObject>, object: &Value) -> Result<DynamicObject, kube::Error> {
    let object: DynamicObject = serde_json::from_value(object.clone()).map_err(kube::Error::SerdeError)?;
    api.create(&PostParams { dry_run: true, field_manager: None }, &object).await
}

async fn accepted(api: &Api<DynamicObject>, object: &Value) -> Result<DynamicObject> {
    dry_run(api, object).await.with_context(|| format!("a valid {} is refused", object["kind"]))
}

/// What the API server says when it refuses an object as invalid.
fn refusal(answer: Result<DynamicObject, kube::Error>) -> Result<Box<Status>> {
    match answer {
        Err(kube::Error::Api(status)) if status.code == 422 => Ok(status),
        Err(error) => Err(error).context("not a refusal of an invalid object"),
        Ok(object) => bail!("it was accepted: {object:?}"),
    }
}

/// An object with values set at JSON pointers; `Null` removes.
fn changed(mut object: Value, changes: &[(&'static str, Value)]) -> Result<Value> {
    for (pointer, value) in changes {
        let (parent, key) = pointer.rsplit_once('/').context("a pointer")?;
        let parent = object.pointer_mut(parent).with_context(|| format!("there is no {parent}"))?;
        match (parent, value) {
            (Value::Object(map), Value::Null) => drop(map.remove(key)),
            (Value::Object(map), value) => drop(map.insert(key.to_owned(), value.clone())),
            (Value::Array(list), value) => list[key.parse::<usize>()?] = value.clone(),
            _ => bail!("{pointer} leads nowhere"),
        }
    }
    Ok(object)
}
