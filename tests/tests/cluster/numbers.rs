//! PhoneNumbers against the simulated Twilio: bought once, given back as they were, left alone where they are others', and
//! patient with a carrier that is not there. A namespace of their own, with agents that have no pods.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use e2e::installation::{condition, resource, wait_until_ready};
use e2e::{Cluster, wait_for};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::context::{Ctx, PATIENCE};
use crate::fixture::merge;
use crate::robustness::{ACCOUNT, TOKEN, apply_json, leader_pod, operator_rolled_out, told};

const NAMESPACE: &str = "numbers";
/// The scenario's second number, which nobody else uses.
const E164: &str = "+15551230002";
const SID: &str = "PN00000000000000000000000000000002";
const FIELDS: [(&str, &str); 8] = [
    ("VoiceUrl", "voice_url"),
    ("VoiceMethod", "voice_method"),
    ("VoiceFallbackUrl", "voice_fallback_url"),
    ("VoiceFallbackMethod", "voice_fallback_method"),
    ("StatusCallback", "status_callback"),
    ("StatusCallbackMethod", "status_callback_method"),
    ("VoiceApplicationSid", "voice_application_sid"),
    ("TrunkSid", "trunk_sid"),
];

pub(crate) fn trials(ctx: &Arc<Ctx>) -> Vec<Trial> {
    vec![
        ctx.trial("numbers::a_number_is_bought_once_and_stays_when_its_object_goes", purchase),
        ctx.trial("numbers::an_operator_that_dies_while_buying_leaves_one_number", crash),
        ctx.trial("numbers::release_gives_back_what_was_bought_for_the_object", release),
        ctx.trial("numbers::eight_fields_come_back_from_a_trunk_and_an_application", eight_fields),
        ctx.trial("numbers::retain_leaves_the_webhooks", retain),
        ctx.trial("numbers::the_entry_agent_moves_only_when_it_must", entry_agent),
        ctx.trial("numbers::a_move_that_the_carrier_missed_is_made_up_for_and_nothing_is_lost", missed),
        ctx.trial("numbers::another_clusters_number_is_left_alone_unless_forced", claimed),
        ctx.trial("numbers::retry_after_is_heeded_whoever_wakes_the_number", retry_after),
        ctx.trial("numbers::an_outage_of_the_carrier_is_no_hot_loop_and_heals", outage),
        ctx.trial("numbers::changes_in_the_cluster_ask_the_carrier_nothing", quiet),
    ]
}

/// The gateway, and two agents without pods. Idempotent.
async fn tenant(ctx: &Ctx) -> Result<()> {
    let cluster = ctx.cluster()?;
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "twilio"},
                        "stringData": {"authToken": TOKEN}});
    apply_json(cluster, NAMESPACE, "secret", &secret).await?;
    let twilio = json!({
        "accountSid": ACCOUNT,
        "authTokenSecretRefs": [{"name": "twilio", "key": "authToken"}],
        "apiBaseUrl": ctx.installation()?.simulator().carrier_url(),
    });
    let spec = json!({
        "publicUrl": "https://voice.example.com",
        "exposure": {"type": "None"},
        "carrier": {"type": "Twilio", "twilio": twilio},
        "store": {"type": "Memory"},
    });
    apply_json(cluster, NAMESPACE, "gateway", &object("VoiceGateway", "default", spec)).await?;
    for name in ["sales", "support"] {
        apply_json(cluster, NAMESPACE, name, &agent(name)).await?;
    }
    wait_until_ready(cluster, NAMESPACE, "voicegateway", "default", PATIENCE).await?;
    Ok(())
}

async fn purchase(ctx: Arc<Ctx>) -> Result<()> {
    let (cluster, simulator) = (ctx.cluster()?, ctx.installation()?.simulator());
    tenant(&ctx).await?;
    let before = simulator.requests(0).await?.len();
    apply_json(cluster, NAMESPACE, "bought", &bought("bought", 808, "Restore")).await?;
    let object = wait_until_ready(cluster, NAMESPACE, "phonenumber", "bought", PATIENCE).await?;
    let status = &object["status"];
    let number = simulator.number(status["e164"].as_str().context("a number")?).await?;
    ensure!(number["phone_number"].as_str().is_some_and(|n| n.starts_with("+1808")), "{number}");
    let uid = object["metadata"]["uid"].as_str().context("a uid")?;
    assert_eq!(number["friendly_name"], format!("switchboard {uid}"));
    assert_eq!(number["voice_url"], "https://voice.example.com/numbers/sales/twilio/voice");
    assert_eq!(status["purchase"]["candidate"], number["phone_number"]);
    ensure!(status["purchase"]["boughtAt"].is_string(), "{status}");
    let requests = simulator.requests(0).await?;
    let is_purchase = |r: &&Value| r["method"] == "POST" && path(r).ends_with("/IncomingPhoneNumbers.json");
    assert_eq!(requests[before..].iter().filter(is_purchase).count(), 1);

    delete(cluster, "bought").await?;
    let kept = simulator.number(number["phone_number"].as_str().unwrap_or_default()).await?;
    assert_eq!(text(&kept["voice_url"]), "", "as it was bought");
    assert_eq!(simulator.violations().await?, Vec::<Value>::new());
    Ok(())
}

async fn crash(ctx: Arc<Ctx>) -> Result<()> {
    let (cluster, simulator) = (ctx.cluster()?, ctx.installation()?.simulator());
    tenant(&ctx).await?;
    operator_rolled_out(cluster).await?;
    let leader = leader_pod(cluster).await?;
    // The carrier takes its time to sell, and nobody hears that it did.
    let slow = json!({"rest": {"method": "POST", "delayMilliseconds": 3000, "loseAnswers": true}});
    simulator.set_faults(&slow).await?;
    apply_json(cluster, NAMESPACE, "crashed", &bought("crashed", 415, "Release")).await?;
    let candidate = wait_for("the candidate to be recorded", PATIENCE, async || {
        let status = resource(cluster, NAMESPACE, "phonenumber", "crashed").await?["status"].clone();
        Ok(status["purchase"]["candidate"].as_str().map(str::to_owned))
    })
    .await?;
    ensure!(simulator.number(&candidate).await.is_err(), "the candidate is recorded before it is bought");
    // From here nobody learns anything more from the carrier.
    simulator.set_faults(&json!({"rest": {"status": 503}})).await?;
    wait_for("the carrier to have sold it", PATIENCE, async || Ok(simulator.number(&candidate).await.ok()))
        .await?;
    let kill = ["delete", "pod", &leader, "-n", "switchboard-system", "--grace-period=0", "--force"];
    cluster.kubectl(&kill).await?;
    simulator.set_faults(&json!({})).await?;

    let object = wait_until_ready(cluster, NAMESPACE, "phonenumber", "crashed", PATIENCE).await?;
    assert_eq!(object["status"]["e164"], candidate, "the one that was bought");
    assert_eq!(owned(&ctx, "+1415").await?, std::slice::from_ref(&candidate), "and no other");
    delete(cluster, "crashed").await?;
    assert_eq!(owned(&ctx, "+1415").await?, [""; 0], "released with its object");
    operator_rolled_out(cluster).await?;
    assert_eq!(simulator.violations().await?, Vec::<Value>::new());
    Ok(())
}

async fn release(ctx: Arc<Ctx>) -> Result<()> {
    let (cluster, simulator) = (ctx.cluster()?, ctx.installation()?.simulator());
    tenant(&ctx).await?;
    apply_json(cluster, NAMESPACE, "given-back", &bought("given-back", 503, "Release")).await?;
    wait_until_ready(cluster, NAMESPACE, "phonenumber", "given-back", PATIENCE).await?;
    assert_eq!(owned(&ctx, "+1503").await?.len(), 1);
    delete(cluster, "given-back").await?;
    assert_eq!(owned(&ctx, "+1503").await?, [""; 0]);

    // Bought for the object, but somebody has put it to another use since.
    apply_json(cluster, NAMESPACE, "reused", &bought("reused", 503, "Release")).await?;
    let object = wait_until_ready(cluster, NAMESPACE, "phonenumber", "reused", PATIENCE).await?;
    let sid = object["status"]["sid"].as_str().context("a sid")?;
    simulator
        .change_number(sid, (ACCOUNT, TOKEN), &[("VoiceUrl", "https://elsewhere.example.com/voice")])
        .await?;
    delete(cluster, "reused").await?;
    assert_eq!(owned(&ctx, "+1503").await?.len(), 1, "kept");
    Ok(())
}

async fn eight_fields(ctx: Arc<Ctx>) -> Result<()> {
    let (cluster, simulator) = (ctx.cluster()?, ctx.installation()?.simulator());
    tenant(&ctx).await?;
    let (trunk, application) = (format!("TK{}", "a".repeat(32)), format!("AP{}", "b".repeat(32)));
    for other in [("TrunkSid", trunk.as_str()), ("VoiceApplicationSid", application.as_str())] {
        let form = [
            ("VoiceUrl", "https://old.example.com/v"),
            ("VoiceMethod", "GET"),
            ("VoiceFallbackUrl", "https://old.example.com/f"),
            ("VoiceFallbackMethod", "GET"),
            ("StatusCallback", "https://old.example.com/s"),
            ("StatusCallbackMethod", "GET"),
            other,
        ];
        simulator.change_number(SID, (ACCOUNT, TOKEN), &form).await?;
        let former = simulator.number(E164).await?;
        apply_json(cluster, NAMESPACE, "restored", &by_sid("restored")).await?;
        wait_until_ready(cluster, NAMESPACE, "phonenumber", "restored", PATIENCE).await?;
        let ours = simulator.number(E164).await?;
        assert_eq!(ours["voice_url"], "https://voice.example.com/numbers/sales/twilio/voice");
        assert_eq!(
            (text(&ours["trunk_sid"]), text(&ours["voice_application_sid"])),
            ("", ""),
            "or calls go there"
        );
        delete(cluster, "restored").await?;
        let now = simulator.number(E164).await?;
        for (_, field) in FIELDS {
            assert_eq!(text(&now[field]), text(&former[field]), "{field} beside {}", other.0);
        }
    }
    clean(&ctx).await
}

async fn retain(ctx: Arc<Ctx>) -> Result<()> {
    let (cluster, simulator) = (ctx.cluster()?, ctx.installation()?.simulator());
    tenant(&ctx).await?;
    clean(&ctx).await?;
    let mut number = by_sid("retained");
    number["spec"]["deletionPolicy"] = json!("Retain");
    apply_json(cluster, NAMESPACE, "retained", &number).await?;
    wait_until_ready(cluster, NAMESPACE, "phonenumber", "retained", PATIENCE).await?;
    let ours = simulator.number(E164).await?;
    delete(cluster, "retained").await?;
    assert_eq!(simulator.number(E164).await?, ours);
    clean(&ctx).await
}

async fn entry_agent(ctx: Arc<Ctx>) -> Result<()> {
    let (cluster, simulator) = (ctx.cluster()?, ctx.installation()?.simulator());
    tenant(&ctx).await?;
    clean(&ctx).await?;
    let route = |agent: &str, weight: u32| json!({"agentRef": {"name": agent}, "weight": weight});
    let mut number = by_sid("sticky");
    number["spec"]["routes"] = json!([route("sales", 10), route("support", 90)]);
    apply_json(cluster, NAMESPACE, "sticky", &number).await?;
    let entry = async |agent: &str| -> Result<()> {
        let object = wait_until_ready(cluster, NAMESPACE, "phonenumber", "sticky", PATIENCE).await?;
        assert_eq!(object["status"]["entryAgent"], agent);
        let url = format!("https://voice.example.com/numbers/{agent}/twilio/voice");
        assert_eq!(simulator.number(E164).await?["voice_url"], url);
        Ok(())
    };
    entry("support").await?;
    let writes = async || Ok::<_, anyhow::Error>(asked(&ctx, "POST").await?.len());
    let before = writes().await?;
    let routes = json!({"spec": {"routes": [route("sales", 99), route("support", 1)]}});
    merge(cluster, NAMESPACE, "phonenumber", "sticky", &routes).await?;
    entry("support").await?;
    assert_eq!(writes().await?, before, "weights do not touch the carrier");
    let routes = json!({"spec": {"routes": [route("sales", 100)]}});
    merge(cluster, NAMESPACE, "phonenumber", "sticky", &routes).await?;
    entry("sales").await?;

    // A route to an agent that does not exist (yet) is told and does not move the entry.
    let routes = json!({"spec": {"routes": [route("sales", 50), route("later", 50)]}});
    merge(cluster, NAMESPACE, "phonenumber", "sticky", &routes).await?;
    told(cluster, NAMESPACE, "phonenumber", "sticky", "RoutesResolved", "AgentNotFound").await?;
    apply_json(cluster, NAMESPACE, "later", &agent("later")).await?;
    entry("sales").await?;
    cluster.kubectl(&["delete", "voiceagent", "later", "-n", NAMESPACE, "--wait=false"]).await?;
    delete(cluster, "sticky").await
}

/// The entry moves while the carrier takes no write: what it shows then was told by us, and is where calls still go.
async fn missed(ctx: Arc<Ctx>) -> Result<()> {
    const FORMER: &str = "https://former.example.com/voice";
    let (cluster, simulator) = (ctx.cluster()?, ctx.installation()?.simulator());
    tenant(&ctx).await?;
    clean(&ctx).await?;
    simulator.change_number(SID, (ACCOUNT, TOKEN), &[("VoiceUrl", FORMER)]).await?;
    apply_json(cluster, NAMESPACE, "moved", &by_sid("moved")).await?;
    let routes = json!({"spec": {"routes": [{"agentRef": {"name": "sales"}, "weight": 90}, {"agentRef": {"name": "support"}, "weight": 10}]}});
    merge(cluster, NAMESPACE, "phonenumber", "moved", &routes).await?;
    wait_until_ready(cluster, NAMESPACE, "phonenumber", "moved", PATIENCE).await?;
    let public_url = async |url: &str| {
        merge(cluster, NAMESPACE, "voicegateway", "default", &json!({"spec": {"publicUrl": url}})).await
    };
    let takes_writes = async |does: bool| {
        let faults = if does { json!({}) } else { json!({"rest": {"status": 503, "method": "POST"}}) };
        simulator.set_faults(&faults).await
    };
    let aims_at = async |voice_url: &str| {
        wait_for("the number to aim elsewhere, in vain", PATIENCE, async || {
            let number = resource(cluster, NAMESPACE, "phonenumber", "moved").await?;
            let in_sync = condition(&number, "InSync").context("a condition")?;
            let is_missed =
                number["status"]["voiceUrl"] == voice_url && in_sync["reason"] == "CarrierUnavailable";
            Ok(is_missed.then(|| number["status"]["movingFrom"].clone()))
        })
        .await
    };

    takes_writes(false).await?;
    public_url("https://moved.example.com").await?;
    let from = aims_at("https://moved.example.com/numbers/sales/twilio/voice").await?;
    assert_eq!(from["voiceUrl"], "https://voice.example.com/numbers/sales/twilio/voice");
    takes_writes(true).await?;
    let object = wait_until_ready(cluster, NAMESPACE, "phonenumber", "moved", PATIENCE).await?;
    assert_eq!(object["status"]["movingFrom"], Value::Null, "{object:#}");
    assert_eq!(simulator.number(E164).await?["voice_url"], object["status"]["voiceUrl"]);

    // The agent that the carrier still calls stays until it calls the other one.
    takes_writes(false).await?;
    cluster.kubectl(&["delete", "voiceagent", "sales", "-n", NAMESPACE, "--wait=false"]).await?;
    let from = aims_at("https://moved.example.com/numbers/support/twilio/voice").await?;
    assert_eq!(from["entryAgent"], "sales");
    told(cluster, NAMESPACE, "voiceagent", "sales", "Ready", "WaitingForNumbers").await?;
    takes_writes(true).await?;
    cluster
        .kubectl(&["wait", "voiceagent", "sales", "-n", NAMESPACE, "--for=delete", "--timeout=120s"])
        .await?;
    assert_eq!(
        simulator.number(E164).await?["voice_url"],
        "https://moved.example.com/numbers/support/twilio/voice"
    );

    takes_writes(false).await?;
    public_url("https://again.example.com").await?;
    aims_at("https://again.example.com/numbers/support/twilio/voice").await?;
    cluster.kubectl(&["delete", "phonenumber", "moved", "-n", NAMESPACE, "--wait=false"]).await?;
    wait_for("the number to say what it waits for", PATIENCE, async || {
        let number = resource(cluster, NAMESPACE, "phonenumber", "moved").await?;
        let ready = condition(&number, "Ready").context("a condition")?;
        ensure!(ready.to_string().contains("Deleted, and waits for the carrier"), "{ready}");
        Ok(Some(()))
    })
    .await?;
    takes_writes(true).await?;
    cluster
        .kubectl(&["wait", "phonenumber", "moved", "-n", NAMESPACE, "--for=delete", "--timeout=120s"])
        .await?;
    assert_eq!(simulator.number(E164).await?["voice_url"], FORMER);
    tenant(&ctx).await?;
    clean(&ctx).await
}

async fn claimed(ctx: Arc<Ctx>) -> Result<()> {
    let (cluster, simulator) = (ctx.cluster()?, ctx.installation()?.simulator());
    tenant(&ctx).await?;
    clean(&ctx).await?;
    let theirs = "https://blue.example.com/numbers/sales/twilio/voice";
    simulator.change_number(SID, (ACCOUNT, TOKEN), &[("VoiceUrl", theirs)]).await?;
    apply_json(cluster, NAMESPACE, "claimed", &by_sid("claimed")).await?;
    let told = told(cluster, NAMESPACE, "phonenumber", "claimed", "InSync", "ClaimedByOther").await?;
    ensure!(
        told["message"].as_str().is_some_and(|m| m.contains("claimPolicy")),
        "what to do is not said: {told}"
    );
    assert_eq!(simulator.number(E164).await?["voice_url"], theirs);
    merge(cluster, NAMESPACE, "phonenumber", "claimed", &json!({"spec": {"claimPolicy": "Force"}})).await?;
    wait_until_ready(cluster, NAMESPACE, "phonenumber", "claimed", PATIENCE).await?;
    delete(cluster, "claimed").await?;
    assert_eq!(simulator.number(E164).await?["voice_url"], theirs, "given back to the other cluster");
    clean(&ctx).await
}

async fn retry_after(ctx: Arc<Ctx>) -> Result<()> {
    const SECONDS: i64 = 15;
    let (cluster, simulator) = (ctx.cluster()?, ctx.installation()?.simulator());
    tenant(&ctx).await?;
    clean(&ctx).await?;
    let limited = json!({"rest": {"status": 429, "retryAfterSeconds": SECONDS, "times": 1}});
    let before = asked(&ctx, "GET").await?.len();
    simulator.set_faults(&limited).await?;
    apply_json(cluster, NAMESPACE, "limited", &by_sid("limited")).await?;
    told(cluster, NAMESPACE, "phonenumber", "limited", "Ready", "CarrierUnavailable").await?;
    // Edits wake it, and it waits nevertheless.
    for url in ["https://static.example.com/a", "https://static.example.com/b"] {
        merge(cluster, NAMESPACE, "phonenumber", "limited", &json!({"spec": {"fallbackUrl": url}})).await?;
    }
    wait_until_ready(cluster, NAMESPACE, "phonenumber", "limited", PATIENCE).await?;
    let requests = asked(&ctx, "GET").await?;
    let at = |index: usize| requests.get(before + index).and_then(|r| r["atMilliseconds"].as_i64());
    let (refused, next) = (at(0).context("a request")?, at(1).context("another one")?);
    assert_eq!(requests[before]["status"], 429);
    ensure!(next - refused >= SECONDS * 1000, "asked again after {} ms", next - refused);
    delete(cluster, "limited").await
}

async fn outage(ctx: Arc<Ctx>) -> Result<()> {
    let (cluster, simulator) = (ctx.cluster()?, ctx.installation()?.simulator());
    tenant(&ctx).await?;
    clean(&ctx).await?;
    let before = asked(&ctx, "GET").await?.len();
    simulator.set_faults(&json!({"rest": {"status": 503, "notJson": true}})).await?;
    apply_json(cluster, NAMESPACE, "patient", &by_sid("patient")).await?;
    let told = told(cluster, NAMESPACE, "phonenumber", "patient", "Ready", "CarrierUnavailable").await?;
    assert_eq!(told["status"], "Unknown", "{told}");
    // Waits double: 1, 2, 4, 8 s and up to a quarter more each.
    let refused = wait_for("five attempts", PATIENCE, async || {
        let agent = json!({"metadata": {"annotations": {"switchboard.test/poke": format!("{:?}", std::time::Instant::now())}}});
        merge(cluster, NAMESPACE, "voiceagent", "sales", &agent).await?;
        let requests = asked(&ctx, "GET").await?.split_off(before);
        Ok((requests.len() >= 5).then_some(requests))
    })
    .await?;
    let times: Vec<i64> = refused.iter().filter_map(|r| r["atMilliseconds"].as_i64()).collect();
    let gaps: Vec<i64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    for (gap, least) in gaps.iter().zip([1000, 2000, 4000, 8000]) {
        ensure!(*gap >= least, "gaps of {gaps:?} ms, though the agent changed all the time");
    }
    simulator.set_faults(&json!({})).await?;
    wait_until_ready(cluster, NAMESPACE, "phonenumber", "patient", PATIENCE).await?;
    delete(cluster, "patient").await
}

async fn quiet(ctx: Arc<Ctx>) -> Result<()> {
    let (cluster, simulator) = (ctx.cluster()?, ctx.installation()?.simulator());
    tenant(&ctx).await?;
    clean(&ctx).await?;
    apply_json(cluster, NAMESPACE, "quiet", &by_sid("quiet")).await?;
    wait_until_ready(cluster, NAMESPACE, "phonenumber", "quiet", PATIENCE).await?;
    let before = asked(&ctx, "").await?.len();
    // The agent changes, and so does its status; a route changes, which is told in the number's own status.
    let prompt = json!({"spec": {"persona": {"instructions": {"text": "Sell more."}}}});
    merge(cluster, NAMESPACE, "voiceagent", "sales", &prompt).await?;
    wait_for("the agent's status", PATIENCE, async || {
        let agent = resource(cluster, NAMESPACE, "voiceagent", "sales").await?;
        let ready = condition(&agent, "Ready").context("a condition")?;
        Ok((ready["observedGeneration"] == agent["metadata"]["generation"]).then_some(()))
    })
    .await?;
    cluster.kubectl(&["delete", "voiceagent", "support", "-n", NAMESPACE]).await?;
    cluster
        .kubectl(&["annotate", "voicegateway", "default", "-n", NAMESPACE, "switchboard.test/poke=1"])
        .await?;
    tenant(&ctx).await?;
    // Something that does ask, so that what came before it has been dealt with.
    merge(cluster, NAMESPACE, "phonenumber", "quiet", &json!({"spec": {"claimPolicy": "Force"}})).await?;
    wait_until_ready(cluster, NAMESPACE, "phonenumber", "quiet", PATIENCE).await?;
    let asked: Vec<Value> = asked(&ctx, "").await?.split_off(before);
    assert_eq!(asked.len(), 1, "only for the changed spec: {asked:?}");
    delete(cluster, "quiet").await?;
    assert_eq!(simulator.violations().await?, Vec::<Value>::new());
    Ok(())
}

fn agent(name: &str) -> Value {
    object(
        "VoiceAgent",
        name,
        json!({
            "persona": {"instructions": {"text": "Sell."}, "greeting": {"text": "Hello."}},
            "engines": [{"name": "scripted", "type": "Simulated", "simulated": {"replies": ["Yes."]}}],
            "scaling": {"type": "Manual", "manual": {"replicas": 0}},
        }),
    )
}

fn by_sid(name: &str) -> Value {
    let source = json!({"type": "SID", "sid": SID});
    object("PhoneNumber", name, json!({"source": source, "routes": [{"agentRef": {"name": "sales"}}]}))
}

fn bought(name: &str, area_code: u32, policy: &str) -> Value {
    let source = json!({"type": "Purchase", "purchase": {"country": "US", "areaCode": area_code}});
    let routes = json!([{"agentRef": {"name": "sales"}}]);
    object("PhoneNumber", name, json!({"source": source, "routes": routes, "deletionPolicy": policy}))
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": "switchboard.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

async fn delete(cluster: &Cluster, name: &str) -> Result<()> {
    cluster.kubectl(&["delete", "phonenumber", name, "-n", NAMESPACE, "--timeout=60s"]).await?;
    Ok(())
}

/// The second number as nobody uses it.
async fn clean(ctx: &Ctx) -> Result<()> {
    let empty = FIELDS.map(|(field, _)| (field, if field.ends_with("Method") { "POST" } else { "" }));
    ctx.installation()?.simulator().change_number(SID, (ACCOUNT, TOKEN), &empty).await
}

/// The account's numbers that begin so.
async fn owned(ctx: &Ctx, prefix: &str) -> Result<Vec<String>> {
    let numbers = ctx.installation()?.simulator().numbers().await?;
    let digits = numbers.iter().filter_map(|n| n["phone_number"].as_str());
    Ok(digits.filter(|n| n.starts_with(prefix)).map(str::to_owned).collect())
}

/// The operator's requests about the second number, by method; all methods where it is empty.
async fn asked(ctx: &Ctx, method: &str) -> Result<Vec<Value>> {
    let node = ctx.cluster()?.node_address().to_string();
    let requests = ctx.installation()?.simulator().requests(0).await?;
    let is_meant = |r: &Value| {
        path(r).contains(SID) && r["from"] != node.as_str() && (method.is_empty() || r["method"] == method)
    };
    Ok(requests.into_iter().filter(is_meant).collect())
}

fn path(request: &Value) -> &str {
    request["path"].as_str().unwrap_or_default()
}

/// Unset is null here and empty there.
fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
