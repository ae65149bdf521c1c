//! A stream is over: what comes after it.

use super::*;

#[tokio::test]
async fn what_a_leg_decided_is_what_its_action_answers_every_time() {
    let target =
        || TransferTarget { name: "desk".to_owned(), phone_number: Redacted::new("+15550000009".to_owned()) };
    let action = "https://voice.example.com/moving/sales/twilio/action/0#rc=5&amp;rp=5xx,ct,rt";
    let dial = format!(r#"<Dial action="{action}"><Number>+15550000009</Number></Dial>"#);
    let cases = [
        (Next::HangUp, hang_up()),
        (
            Next::SayAndHangUp { text: "Tschüss <3".to_owned() },
            twiml(r#"<Say language="de-DE">Tschüss &lt;3</Say><Hangup />"#),
        ),
        (Next::Transfer { target: "desk".to_owned() }, twiml(&dial)),
        (Next::Transfer { target: "gone".to_owned() }, apology()),
    ];
    for (next, answer) in cases {
        let pod = Pod::new().configured(|agent| agent.transfer_targets = vec![target()]);
        pod.announce().await;
        pod.attach(0).await;
        pod.state.store.claim_slot(&sales(), &call(), pod.now().plus(Duration::from_secs(30))).await.unwrap();
        pod.end_leg(0, next).await;
        assert_eq!(pod.action(0).await, answer);
        assert_eq!(pod.action(0).await, answer);
        assert_eq!(pod.slots().await, Slots::default());
    }
}

#[tokio::test]
async fn a_transfer_of_a_caller_without_a_number_shows_the_called_one() {
    let phone_number = Redacted::new("+15550000009".to_owned());
    let target = TransferTarget { name: "desk".to_owned(), phone_number };
    let pod = Pod::new().configured(|agent| agent.transfer_targets = vec![target]);
    let mut form = with_status("in-progress");
    form[2].1 = "anonymous";
    pod.post("voice", &form).await;
    pod.end_leg(0, Next::Transfer { target: "desk".to_owned() }).await;
    assert!(pod.post("action/0", &form).await.body.contains(r#"callerId="+15550000002""#));
}

#[tokio::test]
async fn after_a_transfer_the_call_ends_and_one_that_failed_says_so() {
    let pod = Pod::new();
    pod.announce().await;
    pod.end_leg(0, Next::Transfer { target: "desk".to_owned() }).await;
    let ended = async |status| {
        let mut form = with_status("in-progress");
        form.push(("DialCallStatus", status));
        pod.post("action/0", &form).await
    };
    assert_eq!(ended("completed").await, hang_up());
    assert!(ended("no-answer").await.body.contains("Es war niemand zu erreichen."));
}

#[tokio::test]
async fn a_person_s_minutes_are_not_the_agent_s() {
    let target = || {
        let phone_number = Redacted::new("+15550000009".to_owned());
        TransferTarget { name: "desk".to_owned(), phone_number }
    };
    let pod = Pod::new().configured(|agent| {
        agent.transfer_targets = vec![target()];
        agent.limits.max_minutes_per_day = Some(1);
    });
    let call_of = async |sid: &str, seconds| {
        pod.post("voice", &announcement(sid)).await;
        let call: CallSid = sid.parse().unwrap();
        pod.state.store.attach(&call, Epoch(0), "pod").await.unwrap();
        let next = Next::Transfer { target: "desk".to_owned() };
        let ending = Ending { reason: EndReason::Transferred, next };
        pod.state.store.record_ending(&call, Epoch(0), &ending).await.unwrap();
        pod.advance(Duration::from_secs(seconds));
        let mut form = announcement(sid).to_vec();
        form[4].1 = "in-progress";
        // The carrier may ask twice; an hour later the person hangs up.
        for _ in 0..2 {
            assert!(pod.post("action/0", &form).await.body.contains("<Dial"));
            pod.advance(Duration::from_secs(1800));
        }
        form[4].1 = "completed";
        form.push(("CallDuration", "3630"));
        assert_eq!(pod.post("status", &form).await.status, 204);
    };
    let is_answered = async |sid| {
        let answered = pod.post("voice", &announcement(sid)).await.body.contains("<Stream");
        pod.post("status", &[&announcement(sid)[..4], &[("CallStatus", "no-answer")]].concat()).await;
        answered
    };
    call_of(CALL, 30).await;
    assert!(is_answered("CA0123456789abcdef0123456789abcde1").await, "30 s are left");
    call_of("CA0123456789abcdef0123456789abcde2", 30).await;
    assert!(!is_answered("CA0123456789abcdef0123456789abcde3").await, "the agent's own minutes count");
}

#[tokio::test]
async fn a_leg_that_ended_without_a_word_is_followed_by_the_next_until_the_attempts_are_used_up() {
    let pod = Pod::new();
    let origin = pod.claims(&pod.announce().await).origin;
    pod.attach(0).await;
    for epoch in [1, 2] {
        pod.advance(Duration::from_secs(100));
        let answer = pod.action(epoch - 1).await;
        let action = format!("/twilio/action/{epoch}?origin={NOW}#rc=5&amp;rp=5xx,ct,rt\"");
        assert!(answer.body.contains(&action), "{answer:?}");
        let claims = pod.claims(&answer);
        assert_eq!((claims.epoch, claims.origin), (Epoch(epoch), origin));
        assert_eq!(pod.slots().await, Slots { reserved: 1, waiting: 0, active: 0 });
        pod.attach(epoch).await;
    }
    assert_eq!(pod.action(2).await, apology());
    assert_eq!(pod.state.metrics.calls_refused.count(CallRefusal::Attempts), 1);
    assert_eq!(pod.slots().await, Slots::default());
}

#[tokio::test]
async fn a_stream_that_reached_no_pod_is_opened_again_after_a_pause() {
    let pod = Pod::new();
    pod.announce().await;
    pod.attach(0).await;
    assert!(!pod.action(0).await.body.contains("<Pause"), "its pod may have died, or the socket only");
    let again = pod.action(1).await.body;
    assert!(again.contains(r#"<Response><Pause length="2" /><Connect"#), "{again}");
}

#[tokio::test]
async fn a_call_that_goes_on_keeps_its_place_in_a_full_fleet() {
    let pod = Pod::new().configured(|agent| agent.limits.max_concurrent_calls = Some(1));
    pod.announce().await;
    pod.attach(0).await;
    pod.advance(Duration::from_secs(61));
    assert!(
        pod.post("voice", &announcement("CA0123456789abcdef0123456789abcde1")).await.body.contains("<Stream")
    );
    assert!(pod.action(0).await.body.contains("<Stream"));
    assert_eq!(pod.slots().await, Slots { reserved: 2, waiting: 0, active: 0 });
}

#[tokio::test]
async fn a_call_somebody_wants_ended_is_hung_up_when_its_leg_is_over() {
    let pod = Pod::new();
    pod.announce().await;
    pod.attach(0).await;
    assert!(pod.state.store.request_hang_up(&call()).await.unwrap());
    assert_eq!(pod.action(0).await, hang_up());
}

#[tokio::test]
async fn without_the_store_calls_are_answered_and_go_on_a_few_times() {
    let pod = Pod::without_store();
    let mut answer = pod.announce().await;
    let first = pod.claims(&answer);
    for epoch in 1..=5 {
        pod.advance(Duration::from_secs(100));
        answer = pod.after(&answer).await;
        let claims = pod.claims(&answer);
        assert_eq!((claims.epoch, claims.origin), (Epoch(epoch), first.origin));
    }
    assert_eq!(pod.after(&answer).await, apology());
    assert_eq!(pod.post("status", &with_status("completed")).await.status, 503);
    // One failure each: a store that is down costs a caller its deadline once, not once per question.
    assert_eq!(pod.state.metrics.store_failures.get(), 8);
    pod.state.metrics.active_calls.set(30);
    assert!(pod.announce().await.body.contains("Alle Leitungen sind belegt"));
    assert_eq!(pod.state.metrics.calls_refused.count(CallRefusal::Full), 1);
}

#[tokio::test]
async fn full_pods_cost_no_attempt_though_the_store_does_not_always_say_so() {
    let (pod, deaf) = (Pod::new(), Pod::without_store());
    let mut answer = pod.announce().await;
    for epoch in 0..6 {
        pod.bounce(epoch).await;
        // One action comes to a pod that cannot reach the store.
        let asked = if epoch == 3 { &deaf } else { &pod };
        answer = asked.after(&answer).await;
        assert_eq!(pod.claims(&answer).epoch, Epoch(epoch + 1));
    }
    // Nor is it forgotten when the store loses what it held: two attempts are left, and no more.
    let emptied = Pod::new();
    for epoch in [7, 8] {
        answer = emptied.after(&answer).await;
        assert_eq!(emptied.claims(&answer).epoch, Epoch(epoch));
    }
    assert_eq!(emptied.after(&answer).await, apology());
}

#[tokio::test]
async fn a_call_taken_from_another_agent_stays_here_when_the_store_is_silent() {
    let routes = vec![Route { agent: "canary".to_owned(), weight: 1 }];
    let number = Redacted::new("+15550000002".to_owned());
    let pod = Pod::without_store().configured(|agent| agent.numbers = vec![NumberRoutes { number, routes }]);
    let answer = pod.action(0).await;
    assert!(answer.body.contains(r#"<Stream url="wss://voice.example.com/moving/sales/twilio/stream">"#));
}
