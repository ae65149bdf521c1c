//! Every fault the simulator can inject into a call: what is counted, how the call ends, that the memory stays bounded, and
//! that the other call on the pod goes on. REST's faults are the operator's, whose tests they are in.
//!
//! A row's faults are on from before its call is placed until everything the row expects to be counted was counted (or,
//! where that is said, until the call is over): streams and connections that are opened later are good ones.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};
use e2e::wait_for;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::quiet::{self, QuietCall};
use crate::stage::{CALLER, PATIENCE, QUESTION, Session, Stage, events};
use crate::trial;

/// One fault and all that may come of it.
#[derive(Clone)]
struct Row {
    name: &'static str,
    /// `PUT /_sim/faults`.
    faults: Value,
    lifted: Lifted,
    /// What is on instead once they are lifted, until the call is over.
    afterwards: Value,
    /// What the caller does.
    caller: Value,
    ended_by: EndedBy,
    /// What of the agent file is different.
    agent: Value,
    /// Exactly these counters of faults move.
    counted: &'static [&'static str],
    /// These move too; they count no faults.
    moved: &'static [&'static str],
    /// Why the call ended: the carrier's word.
    ended: &'static str,
    /// And the product's, for its last leg.
    reason: &'static str,
    streams: usize,
    action: Action,
    heard: Heard,
}

/// When the faults end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lifted {
    /// As soon as the call's first stream has begun, which keeps them.
    Begun,
    /// As soon as all is counted that is to be.
    Counted,
    /// With the call.
    Over,
}

/// Who ends the call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum EndedBy {
    /// Its caller or its agent.
    Party,
    /// The API, as soon as all is counted that is to be: when that is depends on the machine.
    Api,
}

/// Whether the carrier must have got an answer from the action of the call's stream.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    Unsaid,
    Answered,
}

/// What of the caller's question must have reached the model.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Heard {
    Unsaid,
    /// All of it, once, and nothing else.
    Whole,
    /// Words of it, once, and silence in the place of what was lost.
    WithGaps,
}

impl Row {
    /// A fault that nobody notices.
    fn harmless(name: &'static str, faults: Value) -> Self {
        Self {
            name,
            faults,
            lifted: Lifted::Over,
            afterwards: json!({}),
            caller: talk(),
            ended_by: EndedBy::Party,
            agent: json!({}),
            counted: &[],
            moved: &[],
            ended: "callerHungUp",
            reason: "caller_hung_up",
            streams: 1,
            action: Action::Unsaid,
            heard: Heard::Unsaid,
        }
    }

    /// A fault that is counted and got over.
    fn survived(name: &'static str, faults: Value, counted: &'static [&'static str]) -> Self {
        Self { lifted: Lifted::Counted, counted, ..Self::harmless(name, faults) }
    }

    /// Of the first stream only.
    fn once(self) -> Self {
        Self { lifted: Lifted::Begun, ..self }
    }

    /// Of the first stream only, and then these until the call's end.
    fn followed_by(self, afterwards: Value) -> Self {
        Self { lifted: Lifted::Begun, afterwards, ..self }
    }

    /// Goes on until the call's end.
    fn played_out(self) -> Self {
        Self { lifted: Lifted::Over, ..self }
    }

    fn moving(self, moved: &'static [&'static str]) -> Self {
        Self { moved, ..self }
    }

    fn with_agent(self, agent: Value) -> Self {
        Self { agent, ..self }
    }

    fn with_caller(self, caller: Value) -> Self {
        Self { caller, ..self }
    }

    fn ending(self, ended: &'static str, reason: &'static str) -> Self {
        Self { ended, reason, ..self }
    }

    /// The caller talks over the reply and stays until the API ends the call.
    fn interrupted(self) -> Self {
        let caller = json!([{"interruptAfterMilliseconds": 1500}, {"say": QUESTION}, {"expectHangUp": {"seconds": 240}}]);
        Self { caller, ended_by: EndedBy::Api, ..self }.ending("hangupVerb", "operator_hung_up")
    }

    fn answering_the_action(self) -> Self {
        Self { action: Action::Answered, ..self }
    }

    fn heard(self, heard: Heard) -> Self {
        Self { heard, ..self }
    }

    fn with_streams(self, streams: usize) -> Self {
        Self { streams, ..self }
    }
}

/// Hears the greeting, asks, hears an answer, hangs up.
fn talk() -> Value {
    json!([listen(), {"say": QUESTION}, listen(), "hangUp"])
}

/// Asks again and again, then hangs up.
fn long_talk(turns: usize) -> Value {
    let mut steps = vec![listen()];
    for _ in 0..turns {
        steps.extend([json!({"say": QUESTION}), listen()]);
    }
    steps.push(json!("hangUp"));
    Value::Array(steps)
}

fn listen() -> Value {
    json!({"waitForAgent": {"seconds": 60}})
}

/// Holds a line that has gone dead.
fn hears_nothing(seconds: u32) -> Value {
    json!([{"pause": seconds * 1000}, "hangUp"])
}

fn waits() -> Value {
    json!([{"expectHangUp": {"seconds": 120}}])
}

const UNREACHABLE: &str = "switchboard_provider_failures_total{reason=\"unreachable\"}";
const LOST: &str = "switchboard_calls_lost_total{reason=\"model_unreachable\"}";
const REJECTED: &str = "switchboard_provider_failures_total{reason=\"rejected\"}";
const PROTOCOL: &str = "switchboard_provider_failures_total{reason=\"protocol\"}";
const CLOSED: &str = "switchboard_provider_failures_total{reason=\"closed\"}";
const EXPIRED: &str = "switchboard_provider_failures_total{reason=\"expired\"}";
const REPLACED: &str = "switchboard_model_replacements_total";
const SPARE: &str = "switchboard_provider_connects_total{engine=\"simulated\"}";
const CLIPS: &str = "switchboard_clips_played_total";
const PHONE_LOST: &str = "switchboard_calls_ended_total{reason=\"phone_lost\"}";
const RESUMED: &str = "switchboard_legs_started_total{leg=\"resumed\"}";
const PHONE_SLOW: &str = "switchboard_phone_faults_total{fault=\"too_slow\"}";
const SERVER: &str = "switchboard_provider_refusals_total{class=\"server\"}";
const RATE_LIMITED: &str = "switchboard_provider_refusals_total{class=\"rate_limited\"}";
const STALE: &str = "switchboard_provider_faults_total{fault=\"stale\"}";
const OVER_LIMIT: &str = "switchboard_inputs_ignored_total{reason=\"over_limit\"}";
const BARGE_IN: &str = "switchboard_barge_ins_total";

fn phone_rows() -> Vec<Row> {
    vec![
        Row::harmless("frames in bursts", json!({"phone": {"jitterMilliseconds": 400}})).heard(Heard::Whole),
        Row::harmless("frames lost", json!({"phone": {"loseEveryFrames": 5}})).heard(Heard::WithGaps),
        Row::harmless("frames of another length", json!({"phone": {"framesPerMessage": 7}})).heard(Heard::Whole),
        Row::harmless(
            "an action after the hang-up, with parameters of its own",
            json!({"phone": {"actionAfterHangUp": true, "actionParameters": {"StreamEvent": "stream-stopped"}}}),
        )
        .answering_the_action(),
        Row::harmless("an upgrade signed with a slash", json!({"phone": {"streamUrlForm": "trailingSlash"}})),
        Row::harmless("an upgrade signed with a port", json!({"phone": {"streamUrlForm": "port"}})),
        Row::harmless("answers to webhooks lost", json!({"phone": {"loseWebhookAnswers": 3}})),
        Row::harmless(
            "callbacks repeated and out of order",
            json!({"phone": {"repeatCallbacks": 3, "reverseCallbacks": true}}),
        ),
        Row::survived("a stream cut", json!({"phone": {"cutAfterMilliseconds": 3000}}), &[])
            .once()
            .moving(&[PHONE_LOST, RESUMED])
            .with_streams(2),
        Row::survived(
            "a stream cut, and an action with parameters of its own",
            json!({"phone": {"cutAfterMilliseconds": 3000}}),
            &[],
        )
        .followed_by(json!({"phone": {"actionParameters": {"StreamEvent": "stream-error", "StreamError": "reset"}}}))
        .answering_the_action()
        .moving(&[PHONE_LOST, RESUMED])
        .with_streams(2),
        Row::survived(
            "a stream cut, and answers to its action lost",
            json!({"phone": {"cutAfterMilliseconds": 3000}}),
            &[],
        )
        .followed_by(json!({"phone": {"loseWebhookAnswers": 3}}))
        .answering_the_action()
        .moving(&[PHONE_LOST, RESUMED])
        .with_streams(2),
        Row::survived(
            "a stream cut, and the next verb runs",
            json!({"phone": {"cutAfterMilliseconds": 3000, "afterLostStream": "nextVerb"}}),
            &[],
        )
        .played_out()
        .moving(&[PHONE_LOST])
        .with_caller(waits())
        .ending("twimlEnded", "phone_lost"),
        Row::survived(
            "a stream cut, and the carrier hangs up",
            json!({"phone": {"cutAfterMilliseconds": 3000, "afterLostStream": "hangUp"}}),
            &[],
        )
        .played_out()
        .moving(&[PHONE_LOST])
        .with_caller(waits())
        .ending("streamLost", "phone_lost"),
        Row::survived(
            "a stream that stalls in silence",
            json!({"phone": {"stallAfterMilliseconds": 8000, "afterLostStream": "hangUp"}}),
            &[],
        )
        .played_out()
        .with_agent(json!({"limits": {"silenceSeconds": 5}}))
        .moving(&["switchboard_calls_ended_total{reason=\"silence_timeout\"}"])
        .with_caller(hears_nothing(40))
        .ending("callerHungUp", "silence_timeout"),
        Row::survived(
            "a stream that stalls under a flood",
            json!({"phone": {"stallAfterMilliseconds": 200, "afterLostStream": "hangUp"},
                   "model": {"floodMilliseconds": 500_000}}),
            &[PHONE_SLOW],
        )
        .played_out()
        .moving(&[PHONE_LOST])
        .with_caller(hears_nothing(40))
        .ending("callerHungUp", "phone_lost"),
    ]
}

fn model_rows() -> Vec<Row> {
    let model = |faults: Value| json!({ "model": faults });
    vec![
        Row::survived("upgrades refused for now", model(json!({"refuseStatus": 429})), &[UNREACHABLE])
            .played_out()
            .moving(&[SPARE]),
        Row::survived("upgrades that break", model(json!({"refuseStatus": 503})), &[UNREACHABLE]),
        Row::survived(
            "upgrades refused for good",
            model(json!({"refuseStatus": 401, "refuseCode": "invalid_api_key"})),
            &[REJECTED],
        )
        .played_out()
        .moving(&[SPARE]),
        Row::survived("a model slow to connect", model(json!({"connectMilliseconds": 60_000})), &[UNREACHABLE])
            .played_out()
            .with_caller(long_talk(4))
            .moving(&[SPARE, CLIPS]),
        Row::harmless("a session slow to begin", model(json!({"sessionCreatedMilliseconds": 1500}))),
        Row::survived("a session that never begins", model(json!({"omitSessionCreated": true})), &[UNREACHABLE]),
        Row::harmless("a session slow to be set up", model(json!({"sessionUpdatedMilliseconds": 1500}))),
        Row::survived("a session never set up", model(json!({"omitSessionUpdated": true})), &[UNREACHABLE]),
        Row::harmless("sessions that announce their end", model(json!({"sessionLimitSeconds": 16})))
            .with_caller(long_talk(5))
            .moving(&[REPLACED]),
        Row::survived("a session that expires", model(json!({"expireAfterMilliseconds": 4000})), &[EXPIRED]),
        Row::survived("a connection closed", model(json!({"closeAfterMilliseconds": 4000, "closeCode": 1011})), &[CLOSED]),
        Row::survived("a connection cut", model(json!({"closeAfterMilliseconds": 4000})), &[CLOSED]),
        Row::harmless("a model that stops in the middle", model(json!({"silentAfterMilliseconds": 900})))
            .with_caller(json!([{"waitForAgent": {"until": "speaking", "seconds": 30}}, {"pause": 4000},
                {"say": QUESTION}, {"waitForAgent": {"until": "speaking", "seconds": 60}}, {"pause": 4000}, "hangUp"])),
        // The clip is half a second, and what is heard of the greeting less than one: who hears more hears the agent again.
        Row::survived(
            "a model that stops in the middle, and a caller who waits",
            model(json!({"silentAfterMilliseconds": 900})),
            &[PROTOCOL],
        )
        .moving(&[CLIPS])
        .with_caller(json!([{"waitForAgent": {"until": "speaking", "seconds": 30}}, {"pause": 8000},
            {"interruptAfterMilliseconds": 1500}, "hangUp"])),
        Row::harmless("a model that floods", model(json!({"floodMilliseconds": 60_000})))
            .interrupted()
            .moving(&[BARGE_IN]),
        Row::harmless("a model that floods beyond what a carrier keeps", model(json!({"floodMilliseconds": 700_000})))
            .interrupted()
            .moving(&[BARGE_IN, OVER_LIMIT]),
        Row::survived("a reply that fails", model(json!({"failingReplies": 1})), &[RATE_LIMITED]),
        Row::survived("replies that go on failing", model(json!({"failingReplies": 3})), &[RATE_LIMITED, CLOSED]),
        Row::harmless("audio of a reply never announced", model(json!({"unannouncedAudio": true})))
            .moving(&[STALE]),
        Row::harmless("the beta's names", model(json!({"betaNames": true}))),
        Row::harmless("requests not echoed", model(json!({"omitMetadata": true}))),
        Row::survived("an error of no request", model(json!({"errorCode": "server_error"})), &[SERVER]),
        Row::survived("an error about the rate", model(json!({"errorCode": "rate_limit_exceeded"})), &[RATE_LIMITED]),
        Row::survived("an error that is final", model(json!({"errorCode": "insufficient_quota"})), &[REJECTED])
            .moving(&[SPARE]),
        Row::survived("no engine left", model(json!({"refuseStatus": 401})), &[REJECTED, LOST])
            .played_out()
            .with_agent(json!({"engines": "first"}))
            .moving(&["switchboard_calls_ended_total{reason=\"model_unreachable\"}"])
            .with_caller(waits())
            .ending("hangupVerb", "model_unreachable"),
        Row::survived("a connection cut again and again", model(json!({"closeAfterMilliseconds": 2500})), &[CLOSED])
            .played_out()
            .with_caller(long_talk(2)),
    ]
}

pub(crate) fn trials() -> Vec<Trial> {
    let rows = phone_rows().into_iter().chain(model_rows());
    rows.map(|row| trial(&format!("fault: {}", row.name), move || run(row))).collect()
}

async fn run(row: Row) -> Result<()> {
    let stage = Stage::open(row.name).await?;
    let pod = stage.pod("pod", &agent(&stage, &row.agent)).await?;
    let quiet = QuietCall::begin(&stage, &pod).await?;
    let (before, memory) = (pod.scrape().await?, pod.resident_kib()?);
    for series in row.counted.iter().chain(row.moved) {
        before.ensure_known(series)?;
    }

    stage.set_faults(&row.faults).await?;
    let sid = stage.place(CALLER, &row.caller).await?;
    match row.lifted {
        Lifted::Begun => {
            let begun =
                async || Ok((!events(&stage.call(&sid).await?, "streamStarted").is_empty()).then_some(()));
            wait_for("the first stream", PATIENCE, begun).await?;
            stage.set_faults(&row.afterwards).await?;
        }
        Lifted::Counted => {
            pod.until_moved(&before, &[row.counted, row.moved].concat()).await?;
            stage.set_faults(&row.afterwards).await?;
        }
        Lifted::Over => {}
    }
    if row.ended_by == EndedBy::Api {
        pod.until_moved(&before, row.moved).await?;
        pod.hang_up(&sid).await?;
    }
    let call = stage.finished(&sid).await?;
    stage.set_faults(&json!({})).await?;
    let moved = pod.until_moved(&before, row.moved).await;
    moved.with_context(|| format!("{call:#}"))?;

    let known = pod.call(&sid).await?;
    let context = || format!("{known:#}\n{call:#}");
    pod.scrape().await?.ensure_faults(&before, row.counted).with_context(context)?;
    // The API's hang-up may cut a sentence of the caller short.
    let got_through = call["failedStep"].is_null() || row.ended_by == EndedBy::Api;
    ensure!(got_through, "the caller did not get through: {}", context());
    ensure!(call["endReason"] == row.ended, "not {}: {}", row.ended, context());
    ensure!(known["endReason"] == row.reason, "not {}: {}", row.reason, context());
    let streams = events(&call, "streamStarted").len();
    ensure!(streams == row.streams, "{streams} streams: {}", context());
    if row.action == Action::Answered {
        ensure!(has_answered_the_action(&call), "no action was answered: {}", context());
    }
    ensure_heard(&stage, row.heard, &call).await?;
    pod.ensure_memory(memory)?;
    quiet.ensure_undisturbed().await?;
    stage.ensure_no_violation().await
}

/// The one question of a call reached the model as it must.
async fn ensure_heard(stage: &Stage, heard: Heard, call: &Value) -> Result<()> {
    let sessions = stage.sessions_of(|words| words != quiet::QUESTION).await?;
    let words: Vec<&str> = sessions.iter().flat_map(Session::heard).collect();
    match heard {
        Heard::Unsaid => {}
        Heard::Whole => ensure!(words == [QUESTION], "the model heard {words:?}: {sessions:#?}"),
        Heard::WithGaps => {
            let ([words], [session]) = (words.as_slice(), sessions.as_slice()) else {
                bail!("the model heard {words:?}: {sessions:#?}");
            };
            // Which words a gap takes depends on where it falls; none may be new or in another place.
            let mut asked = QUESTION.split(' ');
            let known = words.split(' ').filter(|word| asked.any(|asked| asked == *word)).count();
            ensure!(known >= 3 && known == words.split(' ').count(), "the model heard `{words}`");
            let (streamed, came) = (streamed_milliseconds(call)?, session.appended_milliseconds);
            // A fifth was lost: without silence in its place it would be missing here.
            ensure!(came * 10 >= streamed * 9, "{came} ms of {streamed} ms came: {call:#}");
        }
    }
    Ok(())
}

fn streamed_milliseconds(call: &Value) -> Result<u64> {
    let at = |name: &str| {
        let event = events(call, name).first().and_then(|event| event["atMilliseconds"].as_u64());
        event.with_context(|| format!("no {name}: {call:#}"))
    };
    Ok(at("streamEnded")?.saturating_sub(at("streamStarted")?))
}

fn has_answered_the_action(call: &Value) -> bool {
    let answered = events(call, "webhookAnswered");
    answered.iter().any(|event| event["path"].as_str().is_some_and(|path| path.contains("/twilio/action/")))
}

/// The stage's agent with these changes; `engines: first` leaves the first one only.
fn agent(stage: &Stage, changes: &Value) -> Value {
    let mut agent = stage.agent();
    let changes: BTreeMap<String, Value> = serde_json::from_value(changes.clone()).unwrap_or_default();
    for (field, value) in changes {
        agent[field.as_str()] = if value == "first" { json!([agent["engines"][0]]) } else { value };
    }
    agent
}
