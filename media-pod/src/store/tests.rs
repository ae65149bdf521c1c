//! One suite for every store: each test runs on a fresh store in memory, then on one in a real Redis.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use call_session::ToolCallId;
use call_session::io::{EndReason, Next};
use call_session::journal::Fact;

use super::memory::{MOST_ENDED, MemoryStore};
use super::redis::RedisStore;
use super::*;
use crate::secrets::Secret;
use crate::secrets::tests::Directory;

const NOW: UnixMs = UnixMs(1_790_000_000_000);
const MINUTE: Duration = Duration::from_secs(60);

/// A Redis server on a unix socket, gone with the value.
pub(crate) struct RedisServer {
    directory: Directory,
    process: Child,
}

impl RedisServer {
    pub(crate) fn start() -> Self {
        Self::start_in(Directory::new())
    }

    fn start_in(directory: Directory) -> Self {
        let mut process = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"])
            .arg(directory.path().join("redis.sock"))
            .arg("--dir")
            .arg(directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this test needs `redis-server` on the PATH (Debian: apt-get install redis-server)");
        let mut said = BufReader::new(process.stdout.take().unwrap()).lines();
        let is_ready = said.any(|line| line.is_ok_and(|line| line.contains("eady to accept connections")));
        assert!(is_ready, "redis-server ended before it was ready");
        // Keep reading, so that the server never waits for a full pipe.
        std::thread::spawn(move || said.for_each(drop));
        Self { directory, process }
    }

    pub(crate) fn url(&self) -> Secret {
        Secret::new(format!("unix://{}", self.directory.path().join("redis.sock").display()))
    }

    fn stop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn on_each_store(test: impl AsyncFn(&dyn Store)) {
    test(&MemoryStore::default()).await;
    let server = RedisServer::start();
    test(&RedisStore::new(&server.url()).unwrap()).await;
}

fn agent(name: &str) -> AgentKey {
    AgentKey { namespace: "moving".to_owned(), name: name.to_owned() }
}

fn call(number: u32) -> CallSid {
    format!("CA{number:032x}").parse().unwrap()
}

fn record(number: u32) -> CallRecord {
    CallRecord {
        call: call(number),
        agent: agent("sales"),
        origin: UnixMs(NOW.0 + u64::from(number)),
        from: Redacted::new("+15550000001".to_owned()),
        to: Redacted::new("+15550000002".to_owned()),
    }
}

async fn reserve(store: &dyn Store, number: u32, now: UnixMs, limits: &SlotLimits) -> Reservation {
    let (agent, call) = (agent("sales"), call(number));
    let (until, waits_until, limits) = (now.plus(MINUTE), None, limits.clone());
    let request = SlotRequest { agent: &agent, call: &call, now, until, waits_until, limits };
    store.reserve_slot(&request).await.unwrap()
}

fn entry(epoch: u32, sequence: u64, fact: Fact) -> Entry {
    Entry { epoch: Epoch(epoch), sequence, at: Ms(sequence * 10), fact }
}

#[tokio::test]
async fn a_call_is_created_once_and_keeps_its_first_record() {
    on_each_store(async |store| {
        assert_eq!(store.load_call(&call(1)).await.unwrap(), None);
        let created = store.create_call(&record(1)).await.unwrap();
        assert_eq!(created, CallState { record: Some(record(1)), ..CallState::default() });
        let again = CallRecord { origin: UnixMs(NOW.0 + 99_000), agent: agent("other"), ..record(1) };
        assert_eq!(store.create_call(&again).await.unwrap(), created);
        assert_eq!(store.load_call(&call(1)).await.unwrap(), Some(created));
    })
    .await;
}

#[tokio::test]
async fn a_call_without_a_leg_is_assigned_to_another_agent() {
    on_each_store(async |store| {
        let taken =
            |number| CallRecord { agent: agent("support"), origin: UnixMs(NOW.0 + 99_000), ..record(number) };
        store.create_call(&record(1)).await.unwrap();
        let assigned = CallRecord { agent: agent("support"), ..record(1) };
        for _ in 0..2 {
            let state = store.assign_call(&taken(1)).await.unwrap();
            assert_eq!(state, CallState { record: Some(assigned.clone()), ..CallState::default() });
        }
        assert_eq!(store.load_call(&call(1)).await.unwrap().unwrap().record, Some(assigned.clone()));
        assert_eq!(store.list_calls(&agent("sales"), 10).await.unwrap(), []);
        assert_eq!(store.list_calls(&agent("support"), 10).await.unwrap().len(), 1);
        assert_eq!(store.create_call(&record(1)).await.unwrap().record, Some(assigned));

        // One that nobody knew is created, and one that an agent already talks with stays where it is.
        assert_eq!(store.assign_call(&taken(2)).await.unwrap().record, Some(taken(2)));
        store.create_call(&record(3)).await.unwrap();
        store.attach(&call(3), Epoch(0), "pod").await.unwrap();
        assert_eq!(store.assign_call(&taken(3)).await.unwrap().record, Some(record(3)));
        let end = store.end_call(&call(3), NOW).await.unwrap();
        assert_eq!(end.known.leg, Some(Leg { epoch: Epoch(0), owner: "pod".to_owned() }));
    })
    .await;
}

#[tokio::test]
async fn the_calls_of_an_agent_are_listed_newest_first() {
    on_each_store(async |store| {
        for number in [2, 1, 3] {
            store.create_call(&record(number)).await.unwrap();
        }
        store.create_call(&CallRecord { agent: agent("support"), ..record(4) }).await.unwrap();
        let listed = async |limit| -> Vec<CallSid> {
            let calls = store.list_calls(&agent("sales"), limit).await.unwrap();
            calls.into_iter().map(|state| state.record.unwrap().call).collect()
        };
        assert_eq!(listed(10).await, [call(3), call(2), call(1)]);
        assert_eq!(listed(2).await, [call(3), call(2)]);
        assert_eq!(listed(0).await, []);
        assert_eq!(store.list_calls(&agent("nobody"), 10).await.unwrap(), []);
    })
    .await;
}

#[tokio::test]
async fn a_call_ends_once_even_before_it_was_announced() {
    on_each_store(async |store| {
        let early = store.end_call(&call(1), NOW).await.unwrap();
        let over = CallState { ended: Some(NOW), ..CallState::default() };
        assert_eq!(early, CallEnd { is_first: true, known: over.clone() });
        assert_eq!(store.create_call(&record(1)).await.unwrap().ended, Some(NOW));
        let late = store.end_call(&call(1), NOW.plus(MINUTE)).await.unwrap();
        let known = CallState { record: Some(record(1)), ..over };
        assert_eq!(late, CallEnd { is_first: false, known });
        assert_eq!(store.load_call(&call(1)).await.unwrap().unwrap().ended, Some(NOW));
        assert_eq!(store.attach(&call(1), Epoch(0), "pod").await.unwrap(), Attachment::Over);
    })
    .await;
}

#[tokio::test]
async fn a_milestone_is_noted_once_and_an_admission_is_the_call_s_origin() {
    on_each_store(async |store| {
        let created = store.create_call(&record(1)).await.unwrap();
        assert_eq!(created.origin(), Some(record(1).origin));
        let (first, second) = (NOW.plus(MINUTE), NOW.plus(2 * MINUTE));
        for time in [first, second] {
            assert_eq!(store.note(&call(1), Milestone::Admitted, time).await.unwrap(), first);
        }
        assert_eq!(store.note(&call(1), Milestone::Transferred, second).await.unwrap(), second);
        let known = store.load_call(&call(1)).await.unwrap().unwrap();
        assert_eq!(known, CallState { admitted: Some(first), transferred: Some(second), ..created });
        assert_eq!(known.origin(), Some(first));
    })
    .await;
}

#[tokio::test]
async fn an_epoch_is_attached_once_and_fences_older_ones() {
    on_each_store(async |store| {
        let attach = async |epoch, owner| store.attach(&call(1), Epoch(epoch), owner).await.unwrap();
        assert_eq!(attach(0, "one").await, Attachment::First);
        assert_eq!(attach(0, "two").await, Attachment::Used);
        assert_eq!(attach(2, "two").await, Attachment::Next);
        assert_eq!(attach(1, "one").await, Attachment::Superseded);
        let leg = store.load_call(&call(1)).await.unwrap().unwrap().leg;
        assert_eq!(leg, Some(Leg { epoch: Epoch(2), owner: "two".to_owned() }));
        // Whatever else is known, and however late it comes.
        store.create_call(&record(2)).await.unwrap();
        assert_eq!(store.attach(&call(2), Epoch(3), "one").await.unwrap(), Attachment::First);
    })
    .await;
}

#[tokio::test]
async fn slots_are_bounded_held_claimed_released_and_expire() {
    on_each_store(async |store| {
        let sales = agent("sales");
        let limits = SlotLimits { concurrent_calls: Some(2), ..SlotLimits::default() };
        let full = Reservation::Refused(CallRefusal::Concurrency);
        assert_eq!(reserve(store, 1, NOW, &limits).await, Reservation::Granted);
        assert_eq!(reserve(store, 1, NOW, &limits).await, Reservation::Held);
        assert_eq!(reserve(store, 2, NOW, &limits).await, Reservation::Granted);
        assert_eq!(reserve(store, 3, NOW, &limits).await, full);
        assert_eq!(
            store.count_slots(&sales, NOW).await.unwrap(),
            Slots { reserved: 2, waiting: 0, active: 0 }
        );

        store.claim_slot(&sales, &call(1), NOW.plus(2 * MINUTE)).await.unwrap();
        assert_eq!(
            store.count_slots(&sales, NOW).await.unwrap(),
            Slots { reserved: 1, waiting: 0, active: 1 }
        );
        assert_eq!(reserve(store, 1, NOW, &limits).await, Reservation::Held);
        assert_eq!(reserve(store, 3, NOW, &limits).await, full);

        let later = NOW.plus(MINUTE);
        assert_eq!(
            store.count_slots(&sales, later).await.unwrap(),
            Slots { reserved: 0, waiting: 0, active: 1 }
        );
        assert_eq!(reserve(store, 3, later, &limits).await, Reservation::Granted);
        assert_eq!(reserve(store, 4, later, &limits).await, full);
        store.release_slot(&sales, &call(1)).await.unwrap();
        store.release_slot(&sales, &call(1)).await.unwrap();
        assert_eq!(reserve(store, 4, later, &limits).await, Reservation::Granted);
        assert_eq!(store.count_slots(&agent("support"), NOW).await.unwrap(), Slots::default());
    })
    .await;
}

#[tokio::test]
async fn capacity_is_what_the_pods_announce_and_assumed_until_one_did() {
    on_each_store(async |store| {
        let sales = agent("sales");
        let limits =
            SlotLimits { assumed_capacity: Some(1), is_bound_by_capacity: true, ..SlotLimits::default() };
        let full = Reservation::Refused(CallRefusal::Full);
        assert_eq!(reserve(store, 1, NOW, &limits).await, Reservation::Granted);
        assert_eq!(reserve(store, 2, NOW, &limits).await, full);

        let announce = async |owner, capacity, until| {
            let renewal = Renewal { agent: &sales, owner, capacity, now: NOW, until, legs: &[] };
            assert_eq!(store.renew(&renewal).await.unwrap(), []);
        };
        announce("one", 2, NOW.plus(MINUTE / 2)).await;
        announce("two", 1, NOW.plus(MINUTE / 4)).await;
        assert_eq!(reserve(store, 2, NOW, &limits).await, Reservation::Granted);
        assert_eq!(reserve(store, 3, NOW, &limits).await, Reservation::Granted);
        assert_eq!(reserve(store, 4, NOW, &limits).await, full);
        // Only pod "one" is still believed.
        store.release_slot(&sales, &call(3)).await.unwrap();
        assert_eq!(reserve(store, 4, NOW.plus(MINUTE / 4), &limits).await, full);
        let unbound = SlotLimits { is_bound_by_capacity: false, ..limits };
        assert_eq!(reserve(store, 4, NOW, &unbound).await, Reservation::Granted);
    })
    .await;
}

#[tokio::test]
async fn calls_that_wait_are_counted_and_come_before_newcomers() {
    on_each_store(async |store| {
        let sales = agent("sales");
        let limits =
            SlotLimits { assumed_capacity: Some(1), is_bound_by_capacity: true, ..SlotLimits::default() };
        let full = Reservation::Refused(CallRefusal::Full);
        let wait = async |number, now: UnixMs| {
            let (call, limits) = (call(number), limits.clone());
            let waits_until = Some(now.plus(MINUTE / 4));
            let until = now.plus(MINUTE);
            let request = SlotRequest { agent: &sales, call: &call, now, until, waits_until, limits };
            store.reserve_slot(&request).await.unwrap()
        };
        let waiting = async |now| store.count_slots(&sales, now).await.unwrap().waiting;
        assert_eq!(wait(1, NOW).await, Reservation::Granted);
        assert_eq!((wait(2, NOW).await, wait(3, NOW).await), (full, full));
        assert_eq!((wait(2, NOW).await, waiting(NOW).await), (full, 2));
        // Who does not wait is not counted.
        assert_eq!((reserve(store, 4, NOW, &limits).await, waiting(NOW).await), (full, 2));

        store.release_slot(&sales, &call(1)).await.unwrap();
        assert_eq!(reserve(store, 4, NOW, &limits).await, full, "it is for those who wait");
        assert_eq!((wait(3, NOW).await, waiting(NOW).await), (Reservation::Granted, 1));
        // A call that goes on is not asked to wait, and one that hung up does not.
        assert_eq!(reserve(store, 5, NOW, &SlotLimits::default()).await, Reservation::Granted);
        store.release_slot(&sales, &call(2)).await.unwrap();
        assert_eq!(waiting(NOW).await, 0);

        // Nor is one that was not heard of again.
        assert_eq!((wait(6, NOW).await, waiting(NOW).await), (full, 1));
        let later = NOW.plus(MINUTE / 4);
        assert_eq!(waiting(later).await, 0);
        for number in [3, 5] {
            store.release_slot(&sales, &call(number)).await.unwrap();
        }
        assert_eq!(reserve(store, 4, later, &limits).await, Reservation::Granted);
    })
    .await;
}

#[tokio::test]
async fn who_is_refused_for_good_waits_no_more_and_holds_nobody_back() {
    on_each_store(async |store| {
        let sales = agent("sales");
        let one =
            || SlotLimits { is_bound_by_capacity: true, assumed_capacity: Some(1), ..SlotLimits::default() };
        let ask = async |number, wait: bool, limits: SlotLimits| {
            let (call, until) = (call(number), NOW.plus(MINUTE));
            let waits_until = wait.then(|| NOW.plus(MINUTE / 4));
            let request = SlotRequest { agent: &sales, call: &call, now: NOW, until, waits_until, limits };
            store.reserve_slot(&request).await.unwrap()
        };
        let waiting = async || store.count_slots(&sales, NOW).await.unwrap().waiting;
        let spent = || SlotLimits { talk_time_per_day: Some(Ms(1)), ..one() };
        store.add_talk_time(&sales, NOW, Ms(1)).await.unwrap();
        let crowded = || SlotLimits { concurrent_calls: Some(1), ..one() };
        assert_eq!(ask(1, true, one()).await, Reservation::Granted);
        for (wait, limits, refusal) in [
            (false, one(), CallRefusal::Full),
            (true, spent(), CallRefusal::DailyMinutes),
            // It may ask again, but not for want of a pod.
            (true, crowded(), CallRefusal::Concurrency),
        ] {
            assert_eq!(ask(2, true, one()).await, Reservation::Refused(CallRefusal::Full));
            assert_eq!(waiting().await, 1);
            assert_eq!(ask(2, wait, limits).await, Reservation::Refused(refusal));
            assert_eq!(waiting().await, 0, "{refusal:?}");
        }
        assert_eq!(ask(2, true, one()).await, Reservation::Refused(CallRefusal::Full));
        assert_eq!(ask(2, false, one()).await, Reservation::Refused(CallRefusal::Full));
        store.release_slot(&sales, &call(1)).await.unwrap();
        assert_eq!(ask(3, false, one()).await, Reservation::Granted, "a newcomer");
    })
    .await;
}

#[tokio::test]
async fn a_caller_s_calls_are_counted_within_the_hour() {
    on_each_store(async |store| {
        let limits = |caller: &str| SlotLimits {
            calls_of_caller: Some((Redacted::new(caller.to_owned()), 1)),
            ..SlotLimits::default()
        };
        let refused = Reservation::Refused(CallRefusal::CallerRate);
        assert_eq!(reserve(store, 1, NOW, &limits("+1555")).await, Reservation::Granted);
        assert_eq!(reserve(store, 2, NOW, &limits("+1555")).await, refused);
        assert_eq!(reserve(store, 3, NOW, &limits("+1666")).await, Reservation::Granted);
        // The same call, announced again after its slot expired, is no second call.
        let later = NOW.plus(2 * MINUTE);
        assert_eq!(reserve(store, 1, later, &limits("+1555")).await, Reservation::Granted);
        assert_eq!(
            reserve(store, 4, later.plus(CALLER_WINDOW), &limits("+1555")).await,
            Reservation::Granted
        );
    })
    .await;
}

#[tokio::test]
async fn talk_time_is_bounded_by_the_day() {
    on_each_store(async |store| {
        let limits = SlotLimits { talk_time_per_day: Some(Ms(60_000)), ..SlotLimits::default() };
        store.add_talk_time(&agent("sales"), NOW, Ms(40_000)).await.unwrap();
        assert_eq!(reserve(store, 1, NOW, &limits).await, Reservation::Granted);
        store.add_talk_time(&agent("sales"), NOW, Ms(20_000)).await.unwrap();
        assert_eq!(reserve(store, 2, NOW, &limits).await, Reservation::Refused(CallRefusal::DailyMinutes));
        let tomorrow = NOW.plus(Duration::from_secs(24 * 60 * 60));
        assert_eq!(reserve(store, 2, tomorrow, &limits).await, Reservation::Granted);
    })
    .await;
}

#[tokio::test]
async fn a_renewal_keeps_slots_and_says_how_each_leg_stands() {
    on_each_store(async |store| {
        let sales = agent("sales");
        for number in 1..=4 {
            store.create_call(&record(number)).await.unwrap();
            store.attach(&call(number), Epoch(1), "pod").await.unwrap();
            store.claim_slot(&sales, &call(number), NOW.plus(MINUTE)).await.unwrap();
        }
        assert!(store.request_hang_up(&call(2)).await.unwrap());
        store.attach(&call(3), Epoch(2), "other").await.unwrap();
        store.end_call(&call(4), NOW).await.unwrap();
        let leg =
            |number: &u32| RenewedLeg { call: call(*number), epoch: Epoch(1), has_progressed: *number == 1 };
        let legs: Vec<_> = [1, 2, 3, 4, 5].iter().map(leg).collect();
        let until = NOW.plus(2 * MINUTE);
        let renewal = Renewal { agent: &sales, owner: "pod", capacity: 30, now: NOW, until, legs: &legs };
        let standings = store.renew(&renewal).await.unwrap();
        let expected =
            [Standing::Held, Standing::HangUpRequested, Standing::Superseded, Standing::Over, Standing::Held];
        assert_eq!(standings, expected);
        let kept = store.count_slots(&sales, NOW.plus(MINUTE)).await.unwrap();
        assert_eq!(kept, Slots { reserved: 0, waiting: 0, active: 5 });
        let progress = async |number| store.load_call(&call(number)).await.unwrap().unwrap().progress;
        assert_eq!(progress(1).await, Some(Epoch(1)));
        assert_eq!(progress(2).await, None);
    })
    .await;
}

#[tokio::test]
async fn hanging_up_can_be_asked_only_of_a_call_that_is_known_and_not_over() {
    on_each_store(async |store| {
        assert!(!store.request_hang_up(&call(1)).await.unwrap());
        store.create_call(&record(1)).await.unwrap();
        assert!(store.request_hang_up(&call(1)).await.unwrap());
        assert!(store.load_call(&call(1)).await.unwrap().unwrap().hang_up_requested);
        store.end_call(&call(1), NOW).await.unwrap();
        assert!(!store.request_hang_up(&call(1)).await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn the_first_word_on_how_a_leg_ended_counts() {
    on_each_store(async |store| {
        let ending = |reason, next| Ending { reason, next };
        let said = ending(EndReason::SilenceTimeout, Next::SayAndHangUp { text: "Bye \"you\"".to_owned() });
        let transferred = ending(EndReason::Transferred, Next::Transfer { target: "desk".to_owned() });
        store
            .record_ending(&call(1), Epoch(0), &ending(EndReason::HandedOver, Next::Reconnect))
            .await
            .unwrap();
        store.record_ending(&call(1), Epoch(1), &said).await.unwrap();
        store.record_ending(&call(1), Epoch(1), &transferred).await.unwrap();
        let endings = store.load_call(&call(1)).await.unwrap().unwrap().endings;
        let expected = [(Epoch(0), ending(EndReason::HandedOver, Next::Reconnect)), (Epoch(1), said)];
        assert_eq!(endings, BTreeMap::from(expected));
    })
    .await;
}

#[tokio::test]
async fn a_journal_comes_back_in_order_whatever_was_written_twice_or_late() {
    on_each_store(async |store| {
        let words = |text: &str| Redacted::new(text.to_owned());
        let entries = [
            entry(0, 1, Fact::Attached),
            entry(0, 2, Fact::AgentSaid { text: words("Hello, Zoë"), interrupted: true }),
            entry(0, 10, Fact::Digit { digit: Redacted::new('#') }),
            entry(1, 1, Fact::Attached),
            entry(
                1,
                2,
                Fact::ToolStarted {
                    call: ToolCallId::from("c1"),
                    name: "book".to_owned(),
                    arguments: words(r#"{"day":1}"#),
                },
            ),
        ];
        assert_eq!(store.load_journal(&call(1)).await.unwrap(), Journal::default());
        store.append_journal(&call(1), &[]).await.unwrap();
        store.append_journal(&call(1), &entries[3..4]).await.unwrap();
        assert_eq!(store.load_call(&call(1)).await.unwrap(), None);
        store.append_journal(&call(1), &entries[..3]).await.unwrap();
        assert_eq!(store.load_call(&call(1)).await.unwrap().unwrap().progress, Some(Epoch(0)));
        store.append_journal(&call(1), &entries[1..]).await.unwrap();
        assert_eq!(store.load_journal(&call(1)).await.unwrap(), Journal(entries.to_vec()));
        assert_eq!(store.load_call(&call(1)).await.unwrap().unwrap().progress, Some(Epoch(1)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_at_once_exactly_as_many_get_a_slot_or_a_leg_as_there_are() {
    on_each_store(async |store| {
        let limits = SlotLimits { concurrent_calls: Some(7), ..SlotLimits::default() };
        let reservations = (1..=40).map(|number| reserve(store, number, NOW, &limits));
        let granted = futures_util::future::join_all(reservations).await;
        assert_eq!(granted.iter().filter(|reservation| **reservation == Reservation::Granted).count(), 7);
        assert_eq!(
            store.count_slots(&agent("sales"), NOW).await.unwrap(),
            Slots { reserved: 7, waiting: 0, active: 0 }
        );

        let owners: Vec<String> = (0..20).map(|number| format!("pod-{number}")).collect();
        let sid = call(1);
        let attempts = owners.iter().map(|owner| store.attach(&sid, Epoch(3), owner));
        let attached = futures_util::future::join_all(attempts).await;
        assert_eq!(attached.iter().filter(|attached| **attached == Ok(Attachment::First)).count(), 1);
        assert_eq!(attached.iter().filter(|attached| **attached == Ok(Attachment::Used)).count(), 19);
    })
    .await;
}

#[tokio::test]
async fn memory_forgets_calls_after_their_retention() {
    let store = MemoryStore::default();
    store.create_call(&record(1)).await.unwrap();
    store.end_call(&call(2), NOW).await.unwrap();
    let next_day = CallRecord { origin: NOW.plus(RETENTION + MINUTE), ..record(3) };
    store.create_call(&next_day).await.unwrap();
    assert_eq!(store.load_call(&call(1)).await.unwrap(), None);
    assert_eq!(store.load_call(&call(2)).await.unwrap(), None);
    assert!(store.load_call(&call(3)).await.unwrap().is_some());
}

#[tokio::test]
async fn memory_remembers_the_newest_of_the_calls_that_are_over_and_all_that_are_not() {
    let store = MemoryStore::default();
    let most = u32::try_from(MOST_ENDED).unwrap();
    store.create_call(&record(0)).await.unwrap();
    for n in 1..=most + 2 {
        store.create_call(&record(n)).await.unwrap();
        store.append_journal(&call(n), &[entry(0, 1, Fact::Greeted)]).await.unwrap();
        store.end_call(&call(n), UnixMs(NOW.0 + u64::from(n))).await.unwrap();
    }
    store.create_call(&record(most + 3)).await.unwrap();
    for (n, is_known) in [(0, true), (1, false), (2, false), (3, true), (most + 2, true), (most + 3, true)] {
        assert_eq!(store.load_call(&call(n)).await.unwrap().is_some(), is_known, "call {n}");
    }
    assert_eq!(store.load_journal(&call(1)).await.unwrap(), Journal::default());
}

#[tokio::test]
async fn redis_keys_carry_their_call_s_hash_tag_expire_and_name_no_number() {
    let server = RedisServer::start();
    let store = RedisStore::new(&server.url()).unwrap();
    let caller = Some((Redacted::new("+15550000001".to_owned()), 5));
    let limits = SlotLimits { calls_of_caller: caller, ..SlotLimits::default() };
    store.create_call(&record(1)).await.unwrap();
    reserve(&store, 1, NOW, &limits).await;
    store.claim_slot(&agent("sales"), &call(1), NOW.plus(MINUTE)).await.unwrap();
    store.attach(&call(1), Epoch(0), "pod").await.unwrap();
    store.append_journal(&call(1), &[entry(0, 1, Fact::Greeted)]).await.unwrap();
    store.add_talk_time(&agent("sales"), NOW, Ms(1)).await.unwrap();
    let legs = [RenewedLeg { call: call(1), epoch: Epoch(0), has_progressed: true }];
    let (sales, until) = (agent("sales"), NOW.plus(MINUTE));
    let renewal = Renewal { agent: &sales, owner: "pod", capacity: 1, now: NOW, until, legs: &legs };
    store.renew(&renewal).await.unwrap();

    let client = ::redis::Client::open(server.url().expose()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut keys: Vec<String> = ::redis::cmd("KEYS").arg("*").query_async(&mut connection).await.unwrap();
    keys.sort();
    for key in &keys {
        let left: i64 = ::redis::cmd("PTTL").arg(key).query_async(&mut connection).await.unwrap();
        assert!(left > 0, "{key} does not expire");
        assert!(!key.contains("+1555"), "{key}");
    }
    let digest = "caller:";
    let (callers, rest): (Vec<_>, Vec<_>) = keys.into_iter().partition(|key| key.contains(digest));
    assert_eq!(callers.len(), 1);
    let expected = [
        "sb1:agent:{moving/sales}:active",
        "sb1:agent:{moving/sales}:calls",
        "sb1:agent:{moving/sales}:capacity",
        "sb1:agent:{moving/sales}:pods",
        "sb1:agent:{moving/sales}:talked:20717",
        "sb1:{CA00000000000000000000000000000001}:call",
        "sb1:{CA00000000000000000000000000000001}:journal",
    ];
    assert_eq!(rest, expected);
}

#[tokio::test]
async fn what_a_newer_build_wrote_into_redis_is_kept_and_does_not_disturb() {
    let server = RedisServer::start();
    let store = RedisStore::new(&server.url()).unwrap();
    store.create_call(&record(1)).await.unwrap();
    let client = ::redis::Client::open(server.url().expose()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let newer = r#"{"epoch":0,"sequence":1,"at":5,"fact":"sang","song":"la","pitch":440}"#;
    let (hash, journal) = (format!("sb1:{{{}}}:call", call(1)), format!("sb1:{{{}}}:journal", call(1)));
    for (key, field, value) in [(&hash, "mood", "good"), (&journal, "0:1", newer)] {
        let () =
            ::redis::cmd("HSET").arg(key).arg(field).arg(value).query_async(&mut connection).await.unwrap();
    }
    assert_eq!(store.load_call(&call(1)).await.unwrap().unwrap().record, Some(record(1)));
    let read = store.load_journal(&call(1)).await.unwrap();
    assert_eq!(read, Journal(vec![Entry { at: Ms(5), ..entry(0, 1, Fact::Unknown) }]));
    store.append_journal(&call(1), &read.0).await.unwrap();
    let kept: String =
        ::redis::cmd("HGET").arg(&journal).arg("0:1").query_async(&mut connection).await.unwrap();
    assert_eq!(kept, newer);
}

#[tokio::test]
async fn a_store_that_is_down_fails_in_time_and_heals_when_it_is_back() {
    let mut server = RedisServer::start();
    let url = server.url();
    let store = RedisStore::new(&url).unwrap();
    store.create_call(&record(1)).await.unwrap();
    server.stop();
    let error = store.load_call(&call(1)).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");

    let directory = std::mem::replace(&mut server.directory, Directory::new());
    drop(server);
    let _server = RedisServer::start_in(directory);
    let healed = async {
        while store.load_call(&call(1)).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), healed).await.expect("the store heals");
}

#[tokio::test]
async fn a_store_that_was_never_there_fails_in_time_and_a_bad_url_at_once() {
    let directory = Directory::new();
    let url = format!("unix://{}", directory.path().join("nobody.sock").display());
    let store = RedisStore::new(&Secret::new(url)).unwrap();
    assert!(matches!(store.create_call(&record(1)).await, Err(StoreError::Unavailable(_))));
    assert_eq!(RedisStore::new(&Secret::new("http://x")).err(), Some(StoreError::Url));
}
