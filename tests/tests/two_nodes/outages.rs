//! A node that is drained, cut off or lost. Each trial leaves both nodes in use.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::caller::{Caller, call_in_mid_sentence};
use e2e::installation::wait_until_ready;
use e2e::wait_for;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::stage::{CALLER, MEDIA, NAMESPACE, NUMBER, OPERATORS, PATIENCE, Place, Stage, nodes};

/// The node with the control plane, which stays.
const HERE: &str = "node-1";
/// The node that goes.
const THERE: &str = "node-2";

pub(crate) fn trials(stage: &Arc<Stage>) -> Vec<Trial> {
    vec![
        stage.trial("two_nodes::no_call_is_lost_when_its_node_is_drained", drained),
        stage.trial("two_nodes::a_leader_that_is_cut_off_is_replaced_and_nothing_is_done_twice", cut_off),
        stage.trial(
            "two_nodes::calls_go_on_where_the_api_server_hears_nobody_and_its_leader_does_nothing_more",
            silenced,
        ),
        stage.trial(
            "two_nodes::after_a_node_is_lost_the_other_has_everything_and_nothing_is_done_twice",
            lost,
        ),
    ]
}

async fn drained(stage: Arc<Stage>) -> Result<()> {
    let cluster = stage.cluster()?;
    stage.ready().await?;
    let simulator = stage.installation()?.simulator();
    let there = pod_on(&stage, THERE).await?;
    let calls = calls_on(&stage, &there).await?;
    let seen = simulator.requests(0).await?.len();

    cluster.drain(THERE, PATIENCE).await?;
    assert_eq!(nodes(&stage.serving(MEDIA).await?), [HERE].into());
    go_through(&stage, &calls).await?;
    stage.gathered(MEDIA, HERE).await?;
    stage.gathered(OPERATORS, HERE).await?;
    stage.leader().await?;
    assert_eq!(stage.writes_since(seen).await?, Vec::<Value>::new(), "nothing changed for Twilio");
    cluster.uncordon(THERE).await?;
    stage.call_goes_through().await
}

async fn cut_off(stage: Arc<Stage>) -> Result<()> {
    let cluster = stage.cluster()?;
    stage.ready().await?;
    stage.lead_from(THERE).await?;
    let seen = (stage.installation()?.simulator().requests(0).await?.len(), cluster.requests(0)?.len());
    cluster.cut_off(THERE)?;
    change_everything(&stage, "cut-off").await?;
    settled_here(&stage).await?;
    stage.call_goes_through().await?;
    done_once(&stage, seen).await?;

    cluster.reconnect(THERE)?;
    whole_again(&stage).await?;
    done_once(&stage, seen).await
}

/// The node hears the API server and is not heard: a partition of one direction. Twilio, the store and the callers are
/// as near as ever, so a leader there could do harm, and calls there need not end.
async fn silenced(stage: Arc<Stage>) -> Result<()> {
    let cluster = stage.cluster()?;
    stage.ready().await?;
    stage.lead_from(THERE).await?;
    let former = stage.leader().await?;
    let there = pod_on(&stage, THERE).await?;
    let calls = calls_on(&stage, &there).await?;
    let seen = (stage.installation()?.simulator().requests(0).await?.len(), cluster.requests(0)?.len());
    cluster.silence(THERE)?;
    change_everything(&stage, "silenced").await?;
    wait_for("the leader that is not heard to lead no more", PATIENCE, async || {
        // It ends, and is started again over there, where it can ask for nothing.
        Ok((!stage.leads(&former).await.unwrap_or(false)).then_some(()))
    })
    .await?;
    go_through(&stage, &calls).await?;
    settled_here(&stage).await?;
    stage.call_goes_through().await?;
    done_once(&stage, seen).await?;

    cluster.hear(THERE)?;
    whole_again(&stage).await?;
    done_once(&stage, seen).await
}

async fn lost(stage: Arc<Stage>) -> Result<()> {
    let cluster = stage.cluster()?;
    stage.ready().await?;
    stage.lead_from(THERE).await?;
    let seen = (stage.installation()?.simulator().requests(0).await?.len(), cluster.requests(0)?.len());
    cluster.lose(THERE).await?;
    change_everything(&stage, "lost").await?;
    settled_here(&stage).await?;
    stage.call_goes_through().await?;
    done_once(&stage, seen).await?;

    cluster.bring_back(THERE).await?;
    whole_again(&stage).await?;
    done_once(&stage, seen).await
}

/// The node is back, and nothing is left but what there should be: the pods that were given up over there end, and with them the
/// last that could act on what it knew before.
async fn whole_again(stage: &Stage) -> Result<()> {
    stage.cluster()?.wait_until_whole(PATIENCE).await?;
    for group in [MEDIA, OPERATORS] {
        let what = format!("nothing but two pods of {}", group.1);
        wait_for(&what, PATIENCE, async || stage.pair(group).await.map(Some)).await?;
    }
    stage.leader().await.map(drop)
}

/// Callers in mid-sentence, at least one of them on a pod.
async fn calls_on(stage: &Stage, there: &Place) -> Result<Vec<String>> {
    let simulator = stage.installation()?.simulator();
    let mut calls = Vec::new();
    // A Service picks a pod at random, so how many it takes is chance: with 16, one in 65 536 runs has none there.
    while stage.active_calls(there).await? == 0 && calls.len() < 16 {
        let caller = Caller { from: CALLER, to: NUMBER, pause: Duration::from_secs(40) };
        let call = || call_in_mid_sentence(simulator, caller, PATIENCE);
        calls.extend(<[String; 4]>::from(tokio::try_join!(call(), call(), call(), call())?));
    }
    ensure!(stage.active_calls(there).await? > 0, "no call is on {}", there.node);
    Ok(calls)
}

/// Waits until calls have ended as their callers wanted, and no rule was broken.
async fn go_through(stage: &Stage, calls: &[String]) -> Result<()> {
    let simulator = stage.installation()?.simulator();
    for sid in calls {
        let call = simulator.finished_call(sid, PATIENCE).await?;
        assert_eq!(call["failedStep"], Value::Null, "{call:#}");
        assert_eq!(call["endReason"], "hangupVerb", "{call:#}");
    }
    assert_eq!(simulator.violations().await?, Vec::<Value>::new());
    Ok(())
}

/// An edit of the number and of the agent, and a child deleted.
async fn change_everything(stage: &Stage, mark: &str) -> Result<()> {
    let cluster = stage.cluster()?;
    let number = json!({"spec": {"fallbackUrl": fallback(mark)}});
    let agent = json!({"spec": {"persona": {"greeting": {"text": format!("Good day, {mark}. How can I help you?")}}}});
    for (kind, name, patch) in [("phonenumber", "main-line", number), ("voiceagent", "sales", agent)] {
        let patch = patch.to_string();
        cluster.kubectl(&["patch", kind, name, "-n", NAMESPACE, "--type=merge", "-p", &patch]).await?;
    }
    let before = stage.uid("service").await?;
    cluster.kubectl(&["delete", "service", "sales-media", "-n", NAMESPACE]).await?;
    wait_for("the Service to come back", PATIENCE, async || {
        Ok((stage.uid("service").await? != before).then_some(()))
    })
    .await?;
    for (kind, name) in [("voiceagent", "sales"), ("phonenumber", "main-line")] {
        wait_until_ready(cluster, NAMESPACE, kind, name, PATIENCE).await?;
    }
    let at_twilio = stage.installation()?.simulator().number(NUMBER).await?;
    assert_eq!(at_twilio["voice_fallback_url"], fallback(mark));
    Ok(())
}

/// The node that goes is missed, the other has all pods, and the operator there leads.
async fn settled_here(stage: &Stage) -> Result<()> {
    stage.cluster()?.wait_until_missed(THERE, PATIENCE).await?;
    for group in [MEDIA, OPERATORS] {
        stage.gathered(group, HERE).await?;
    }
    assert_eq!(stage.leader().await?.node, HERE);
    wait_until_ready(stage.cluster()?, NAMESPACE, "voiceagent", "sales", PATIENCE).await?;
    Ok(())
}

/// What one edit of each and one deleted child make: one write at Twilio, one of each child concerned.
async fn done_once(stage: &Stage, (twilio, api): (usize, usize)) -> Result<()> {
    let writes = stage.writes_since(twilio).await?;
    assert_eq!(writes.len(), 1, "writes at Twilio: {writes:#?}");
    let requests = stage.cluster()?.requests(api)?;
    for child in ["services", "configmaps"] {
        let writes: Vec<_> = requests.iter().filter(|r| r.is_write() && r.resource == child).collect();
        assert_eq!(writes.len(), 1, "writes of {child}: {writes:#?}");
    }
    Ok(())
}

fn fallback(mark: &str) -> String {
    format!("https://fallback.example.com/{mark}")
}

async fn pod_on(stage: &Stage, node: &str) -> Result<Place> {
    let places = stage.serving(MEDIA).await?;
    let place = places.into_iter().find(|place| place.node == node);
    place.ok_or_else(|| anyhow::anyhow!("no media pod is on {node}"))
}
