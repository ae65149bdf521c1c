//! Calls without a slot: asked of another agent, forwarded, or told so.

use call_session::agent_file::{Overflow, OverflowAgent, OverflowForward};

use super::*;
use crate::metrics::OverflowLabel;
use crate::store::Renewal;

/// The second call, which finds no slot.
const SECOND: &str = "CA0123456789abcdef0123456789abcde1";
const BUSY: &str = r#"<Say language="de-DE">Alle Leitungen sind besetzt. Bitte rufen Sie gleich noch einmal an.</Say><Hangup />"#;

/// An agent with one slot, which sends everybody else to another agent.
fn one_slot(store: &Arc<dyn Store>, name: &str, other: &str) -> Pod {
    Pod::with_store(Arc::clone(store)).configured(|agent| {
        agent.name = name.to_owned();
        agent.limits.max_concurrent_calls = Some(1);
        agent.overflow = Overflow::Agent { agent: OverflowAgent { name: other.to_owned() } };
    })
}

fn forwarding() -> Pod {
    Pod::new().configured(|agent| {
        agent.limits.max_concurrent_calls = Some(1);
        agent.transfer_targets = vec![TransferTarget {
            name: "office".to_owned(),
            phone_number: Redacted::new("+15550000009".to_owned()),
        }];
        agent.overflow =
            Overflow::Forward { forward: OverflowForward { transfer_target: "office".to_owned() } };
    })
}

/// A signed request to an agent's webhook.
async fn post(pod: &Pod, agent: &str, path: &str, form: &[(&str, &str)]) -> Answer {
    let form = owned(form);
    let path = format!("/moving/{agent}/twilio/{path}");
    let signature = sign(&Secret::new("12345"), &format!("https://voice.example.com{path}"), &form);
    let mut request = request("voice", &encode(&form), Some(&signature));
    *request.uri_mut() = path.parse().unwrap();
    pod.send(request).await
}

fn redirect(to: &str) -> Answer {
    twiml(&format!(r#"<Redirect method="POST">https://voice.example.com/moving/{to}</Redirect>"#))
}

async fn agent_of(pod: &Pod, call: &str) -> String {
    let state = pod.state.store.load_call(&call.parse().unwrap()).await.unwrap();
    state.unwrap().record.unwrap().agent.name
}

/// The answer to a caller who waits, announced then.
fn ask_again(first: &str, tried: &str, origin: u64) -> Answer {
    let query = format!("{tried}origin={origin}");
    let again = format!("https://voice.example.com/moving/sales/twilio/voice?{query}#rc=5&amp;rp=5xx,ct,rt");
    twiml(&format!(r#"{first}<Pause length="3" /><Redirect method="POST">{again}</Redirect>"#))
}

#[tokio::test]
async fn a_caller_waits_for_a_slot_and_is_put_through_when_one_is_free() {
    let pod = Pod::new().configured(|agent| agent.overflow_wait_seconds = 20);
    let pods = async |capacity| {
        let (agent, now) = (super::sales(), pod.now());
        let until = now.plus(Duration::from_secs(15));
        let renewal = Renewal { agent: &agent, owner: "pod", capacity, now, until, legs: &[] };
        pod.state.store.renew(&renewal).await.unwrap();
    };
    pods(1).await;
    pod.announce().await;
    assert_eq!(pod.post("voice", &announcement(SECOND)).await, ask_again("", "", NOW));
    assert_eq!(pod.slots().await, Slots { reserved: 1, waiting: 1, active: 0 });
    pod.advance(Duration::from_secs(3));
    // Whether the carrier goes on ringing is not documented: here it does not.
    let mut answered = announcement(SECOND);
    answered[4].1 = "in-progress";
    let moment = r#"<Say language="de-DE">Einen Moment, bitte.</Say>"#;
    assert_eq!(pod.post("voice", &answered).await, ask_again(moment, "", NOW));

    pod.advance(Duration::from_secs(6));
    pods(2).await;
    let through = pod.post(&format!("voice?origin={NOW}"), &answered).await;
    assert!(through.body.contains("<Stream"), "{through:?}");
    assert_eq!(pod.slots().await, Slots { reserved: 2, waiting: 0, active: 0 });
    assert_eq!(pod.state.metrics.calls_refused.count(CallRefusal::Full), 0);
}

#[tokio::test]
async fn who_waited_long_enough_gets_what_the_overflow_says() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let pod = one_slot(&store, "sales", "support").configured(|agent| agent.overflow_wait_seconds = 20);
    pod.announce().await;
    assert_eq!(pod.post("voice", &announcement(SECOND)).await, ask_again("", "", NOW));
    pod.advance(Duration::from_secs(19));
    assert_eq!(pod.post("voice", &announcement(SECOND)).await, ask_again("", "", NOW));
    pod.advance(Duration::from_secs(1));
    assert_eq!(pod.post("voice", &announcement(SECOND)).await, redirect("support/twilio/voice?tried=sales"));
    assert_eq!(pod.state.metrics.calls_refused.count(CallRefusal::Concurrency), 1);

    // The other agent counts from the announcement, too, and keeps in mind who was asked before.
    let third = "CA0123456789abcdef0123456789abcde3";
    let asked_before = pod.post("voice?tried=night", &announcement(third)).await;
    assert_eq!(asked_before, ask_again("", "tried=night&amp;", NOW + 20_000));
}

#[tokio::test]
async fn a_wait_for_a_slot_uses_up_nothing_of_the_call() {
    for has_store in [true, false] {
        let pod = if has_store { Pod::new() } else { Pod::without_store() };
        let pod = pod.configured(|agent| {
            agent.overflow_wait_seconds = 30;
            agent.max_calls_per_pod = 1;
        });
        // The pod is full: with a store by the slot of another call, without one by its own calls.
        pod.post("voice", &announcement(SECOND)).await;
        pod.state.metrics.active_calls.set(1);
        assert_eq!(pod.announce().await, ask_again("", "", NOW));
        pod.advance(Duration::from_secs(28));
        let _ = pod.state.store.release_slot(&super::sales(), &SECOND.parse().unwrap()).await;
        pod.state.metrics.active_calls.set(0);

        let again = format!("voice?origin={NOW}");
        let begun = UnixMs(NOW + 28_000);
        let mut answer = pod.post(&again, &announcement(CALL)).await;
        assert_eq!(pod.claims(&answer).origin, begun);
        if has_store {
            // However often it is asked, and by whichever URL, it began then.
            pod.advance(Duration::from_secs(2));
            assert_eq!(pod.claims(&pod.post(&again, &announcement(CALL)).await).origin, begun);
            assert_eq!(pod.claims(&pod.announce().await).origin, begun);
            pod.attach(0).await;
        }
        for _ in 0..2 {
            pod.advance(Duration::from_secs(10));
            answer = pod.after(&answer).await;
            assert_eq!(pod.claims(&answer).origin, begun);
        }
        if has_store {
            assert_eq!(pod.claims(&pod.announce().await).origin, begun);
        }
    }
}

#[tokio::test]
async fn nobody_waits_for_what_waiting_does_not_help() {
    let pod = Pod::new().configured(|agent| {
        agent.overflow_wait_seconds = 20;
        agent.limits.max_calls_per_caller_per_hour = Some(1);
    });
    pod.announce().await;
    let busy = "Alle Leitungen sind belegt &amp; besetzt.";
    let refused = twiml(&format!(r#"<Say language="de-DE">{busy}</Say><Hangup />"#));
    assert_eq!(pod.post("voice", &announcement(SECOND)).await, refused);
}

#[tokio::test]
async fn where_the_store_is_silent_the_url_tells_since_when_a_caller_waits() {
    let pod = Pod::without_store().configured(|agent| {
        agent.overflow_wait_seconds = 20;
        agent.max_calls_per_pod = 1;
    });
    pod.state.metrics.active_calls.set(1);
    assert_eq!(pod.announce().await, ask_again("", "", NOW));
    pod.advance(Duration::from_secs(19));
    let again = format!("voice?origin={NOW}");
    assert_eq!(pod.post(&again, &announcement(CALL)).await, ask_again("", "", NOW));
    pod.advance(Duration::from_secs(1));
    let busy = "Alle Leitungen sind belegt &amp; besetzt.";
    let refused = twiml(&format!(r#"<Say language="de-DE">{busy}</Say><Hangup />"#));
    assert_eq!(pod.post(&again, &announcement(CALL)).await, refused);
    pod.state.metrics.active_calls.set(0);
    assert_eq!(pod.claims(&pod.post(&again, &announcement(CALL)).await).origin, pod.now());
}

#[tokio::test]
async fn who_hangs_up_waits_no_more() {
    let pod = Pod::new().configured(|agent| {
        agent.overflow_wait_seconds = 20;
        agent.max_calls_per_pod = 1;
    });
    pod.announce().await;
    assert_eq!(pod.post("voice", &announcement(SECOND)).await, ask_again("", "", NOW));
    let mut gone = announcement(SECOND);
    gone[4].1 = "no-answer";
    assert_eq!(pod.post("status", &gone).await.status, 204);
    assert_eq!(pod.slots().await, Slots { reserved: 1, waiting: 0, active: 0 });
}

#[tokio::test]
async fn a_call_that_somebody_ends_while_it_rings_or_waits_is_hung_up_and_leaves_its_place() {
    let pod = Pod::new().configured(|agent| {
        agent.overflow_wait_seconds = 20;
        agent.max_calls_per_pod = 1;
    });
    pod.announce().await;
    assert_eq!(pod.post("voice", &announcement(SECOND)).await, ask_again("", "", NOW));
    assert!(pod.state.store.request_hang_up(&SECOND.parse().unwrap()).await.unwrap());
    assert_eq!(pod.post(&format!("voice?origin={NOW}"), &announcement(SECOND)).await, hang_up());
    assert_eq!(pod.slots().await, Slots { reserved: 1, waiting: 0, active: 0 });
    assert!(pod.state.store.request_hang_up(&call()).await.unwrap());
    assert_eq!(pod.announce().await, hang_up());
    assert_eq!(pod.slots().await, Slots::default());
}

#[tokio::test]
async fn the_other_agent_takes_the_call_with_its_own_slot_stream_and_minutes() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let (sales, support) = (one_slot(&store, "sales", "support"), one_slot(&store, "support", "sales"));
    sales.announce().await;
    let asked = sales.post("voice", &announcement(SECOND)).await;
    assert_eq!(asked, redirect("support/twilio/voice?tried=sales"));
    assert_eq!(sales.state.metrics.calls_refused.count(CallRefusal::Concurrency), 1);
    assert_eq!(sales.state.metrics.calls_overflowed.count(OverflowLabel::Agent), 1);

    let taken = post(&support, "support", "voice?tried=sales", &announcement(SECOND)).await;
    let stream = r#"<Stream url="wss://voice.example.com/moving/support/twilio/stream">"#;
    assert!(taken.body.contains(stream), "{}", taken.body);
    assert!(
        taken.body.contains(
            r#"action="https://voice.example.com/moving/support/twilio/action/0?origin=1790000000000#rc=5&amp;rp=5xx,ct,rt""#
        )
    );
    assert_eq!(agent_of(&sales, SECOND).await, "support");
    let key = AgentKey { namespace: "moving".to_owned(), name: "support".to_owned() };
    let slots = async |key: &AgentKey| store.count_slots(key, sales.now()).await.unwrap();
    assert_eq!(slots(&key).await, Slots { reserved: 1, waiting: 0, active: 0 });
    let own = super::sales();
    assert_eq!(slots(&own).await, Slots { reserved: 1, waiting: 0, active: 0 });

    // Whoever is asked from here on, it is the other agent's call: the number's own webhook, the action, the end.
    let again = sales.post("voice", &announcement(SECOND)).await;
    assert!(again.body.contains(stream), "{}", again.body);
    store.attach(&SECOND.parse().unwrap(), Epoch(0), "pod").await.unwrap();
    let mut lost = announcement(SECOND);
    lost[4].1 = "in-progress";
    assert!(post(&support, "support", "action/0", &lost).await.body.contains(stream));
    lost[4].1 = "completed";
    assert_eq!(post(&sales, "sales", "status", &lost).await.status, 204);
    assert_eq!(slots(&key).await, Slots::default());
}

#[tokio::test]
async fn a_full_agent_that_was_asked_for_another_says_so_instead_of_asking_back() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let (sales, support) = (one_slot(&store, "sales", "support"), one_slot(&store, "support", "sales"));
    sales.announce().await;
    post(&support, "support", "voice", &announcement("CA0123456789abcdef0123456789abcde2")).await;
    assert_eq!(
        sales.post("voice", &announcement(SECOND)).await,
        redirect("support/twilio/voice?tried=sales")
    );
    let answer = post(&support, "support", "voice?tried=sales", &announcement(SECOND)).await;
    assert_eq!(answer, twiml(BUSY));
    assert_eq!(support.state.metrics.calls_overflowed.count(OverflowLabel::Agent), 0);
}

#[tokio::test]
async fn a_number_s_routes_are_not_asked_again_by_the_agent_that_takes_over() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let support = one_slot(&store, "support", "sales").configured(|agent| {
        let routes = vec![Route { agent: "sales".to_owned(), weight: 1 }];
        agent.numbers = vec![NumberRoutes { number: Redacted::new("+15551230001".to_owned()), routes }];
    });
    let taken = post(&support, "support", "voice?tried=sales", &announcement(SECOND)).await;
    assert!(taken.body.contains("/moving/support/twilio/stream"), "{}", taken.body);
}

#[tokio::test]
async fn a_forwarded_call_is_dialled_and_costs_the_agent_no_minutes() {
    let pod = forwarding().configured(|agent| agent.limits.max_minutes_per_day = Some(1));
    pod.announce().await;
    let action = "https://voice.example.com/moving/sales/twilio/action/0#rc=5&amp;rp=5xx,ct,rt";
    let dial = format!(r#"<Dial action="{action}"><Number>+15550000009</Number></Dial>"#);
    assert_eq!(pod.post("voice", &announcement(SECOND)).await, twiml(&dial));
    assert_eq!(pod.state.metrics.calls_overflowed.count(OverflowLabel::Forward), 1);

    let mut after: Vec<_> = announcement(SECOND).into();
    after[4].1 = "in-progress";
    after.push(("DialCallStatus", "busy"));
    let words = "Es war niemand zu erreichen. Bitte rufen Sie später noch einmal an.";
    let nobody = format!(r#"<Say language="de-DE">{words}</Say><Hangup />"#);
    assert_eq!(pod.post("action/0", &after).await, twiml(&nobody));

    let mut over: Vec<_> = announcement(SECOND).into();
    over[4].1 = "completed";
    over.push(("CallDuration", "3600"));
    assert_eq!(pod.post("status", &over).await.status, 204);
    pod.advance(Duration::from_secs(60));
    assert!(
        pod.post("voice", &announcement("CA0123456789abcdef0123456789abcde2")).await.body.contains("<Stream")
    );
}

#[tokio::test]
async fn who_calls_too_often_is_not_forwarded_at_the_owner_s_cost() {
    let pod = forwarding().configured(|agent| {
        agent.limits.max_concurrent_calls = None;
        agent.limits.max_calls_per_caller_per_hour = Some(1);
    });
    pod.announce().await;
    assert_eq!(pod.post("voice", &announcement(SECOND)).await, twiml(BUSY));
    assert_eq!(pod.state.metrics.calls_refused.count(CallRefusal::CallerRate), 1);
    assert_eq!(pod.state.metrics.calls_overflowed.count(OverflowLabel::Forward), 0);
}

#[tokio::test]
async fn without_the_store_a_full_pod_s_callers_still_reach_the_other_agent() {
    let to_support = Overflow::Agent { agent: OverflowAgent { name: "support".to_owned() } };
    let sales = Pod::without_store().configured(|agent| {
        agent.max_calls_per_pod = 1;
        agent.overflow = to_support;
    });
    sales.state.metrics.active_calls.set(1);
    assert_eq!(sales.announce().await, redirect("support/twilio/voice?tried=sales"));
    let support = Pod::without_store().configured(|agent| agent.name = "support".to_owned());
    let taken = post(&support, "support", "voice?tried=sales", &announcement(CALL)).await;
    assert!(taken.body.contains("/moving/support/twilio/stream"), "{}", taken.body);
}
