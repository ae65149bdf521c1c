//! When the carrier is asked about an object again: on a schedule, or when what is wanted of it changed. Never because
//! somebody woke its reconciler.
//!
//! The carrier tells nobody of changes and counts every request, the API server tells of every change at once. So what
//! a look at the carrier showed is kept until it is due again, and reconciliations in between read that.
//!
//! # Guarantees
//! Scheduled looks are a step apart, however many objects were looked at at the same time before (after a start, or when
//! the carrier is back): a large fleet takes longer for a round and does not ask more often ([`Pace`]).

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// What a look was for: the same question has the same answer until the look is due again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Question(u64);

impl Question {
    /// All that the answer depends on, as far as it is decided here.
    pub fn of(what: impl Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        what.hash(&mut hasher);
        Self(hasher.finish())
    }
}

/// How often is looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// The least time between two looks at one object.
    pub interval: Duration,
    /// The most looks in such a time, over all objects. More objects take turns.
    pub at_most: u32,
}

impl Pace {
    fn step(self) -> Duration {
        self.interval / self.at_most.max(1)
    }
}

/// Who is looked at when: one turn after the other.
#[derive(Debug)]
struct Rota {
    pace: Pace,
    last: Option<Instant>,
}

impl Rota {
    /// The next turn of one of `objects`, which was looked at now.
    ///
    /// Turns that nobody takes, because what is wanted of an object changed before, would put off everybody's next one for
    /// ever; so none is further away than a turn of each.
    fn turn(&mut self, now: Instant, objects: usize) -> Instant {
        let earliest = now + self.pace.interval;
        let latest = earliest + self.pace.step() * u32::try_from(objects).unwrap_or(u32::MAX);
        let due = self.last.map_or(earliest, |last| last + self.pace.step()).clamp(earliest, latest);
        self.last = Some(due);
        due
    }
}

/// What the last looks showed, by object. A new process knows nothing and looks once at each.
#[derive(Debug)]
pub struct Looks<T>(Mutex<Known<T>>);

#[derive(Debug)]
struct Known<T> {
    rota: Rota,
    looks: HashMap<String, Look<T>>,
}

#[derive(Debug)]
struct Look<T> {
    question: Question,
    due: Instant,
    seen: T,
}

impl<T: Clone> Looks<T> {
    /// No looks yet.
    pub fn new(pace: Pace) -> Self {
        Self(Mutex::new(Known { rota: Rota { pace, last: None }, looks: HashMap::new() }))
    }

    /// What was seen, and how long that still counts.
    pub fn recall(&self, object: &str, question: Question) -> Option<(T, Duration)> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let look = known.looks.get(object).filter(|look| look.question == question)?;
        let left = look.due.saturating_duration_since(Instant::now());
        (!left.is_zero()).then(|| (look.seen.clone(), left))
    }

    /// Remembers what was seen now; how long that counts.
    pub fn remember(&self, object: &str, question: Question, seen: T) -> Duration {
        let now = Instant::now();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Known { rota, looks } = &mut *known;
        // Who let a whole interval pass does not come any more.
        looks.retain(|of, look| of == object || look.due + rota.pace.interval > now);
        let others = looks.len() - usize::from(looks.contains_key(object));
        let due = rota.turn(now, others + 1);
        looks.insert(object.to_owned(), Look { question, due, seen });
        due.saturating_duration_since(now)
    }

    /// Forgets an object.
    pub fn forget(&self, object: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).looks.remove(object);
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(300);
    const PACE: Pace = Pace { interval: INTERVAL, at_most: 150 };
    const STEP: Duration = Duration::from_secs(2);

    #[tokio::test(start_paused = true)]
    async fn the_same_question_is_asked_once_in_its_time() {
        let looks = Looks::new(PACE);
        let question = Question::of(("spec", 1));
        assert_eq!(looks.recall("a", question), None::<(&str, Duration)>);
        assert_eq!(looks.remember("a", question, "fine"), INTERVAL);
        tokio::time::advance(INTERVAL / 3).await;
        assert_eq!(looks.recall("a", question), Some(("fine", INTERVAL / 3 * 2)));
        assert_eq!(looks.recall("b", question), None);
        tokio::time::advance(INTERVAL).await;
        assert_eq!(looks.recall("a", question), None);
    }

    #[tokio::test]
    async fn another_question_is_asked_at_once() {
        let looks = Looks::new(PACE);
        looks.remember("a", Question::of(("spec", 1)), "fine");
        assert_eq!(looks.recall("a", Question::of(("spec", 2))), None);
        looks.forget("a");
        assert_eq!(looks.recall("a", Question::of(("spec", 1))), None);
    }

    /// Looks at as many objects at once, then at each when it is its turn, for five rounds: for each object the times from
    /// one look to the next, and all times at which was looked after the first.
    fn five_rounds(objects: usize) -> (Vec<Vec<Duration>>, Vec<Instant>) {
        let began = Instant::now();
        let mut rota = Rota { pace: PACE, last: None };
        let (mut waits, mut looks) = (vec![Vec::new(); objects], Vec::new());
        let mut turns = BinaryHeap::new();
        for (object, waits) in waits.iter_mut().enumerate() {
            let due = rota.turn(began, objects);
            waits.push(due - began);
            turns.push(Reverse((due, object)));
        }
        for _ in 0..objects * 4 {
            let Reverse((now, object)) = turns.pop().unwrap();
            let next = rota.turn(now, objects);
            looks.push(now);
            waits[object].push(next - now);
            turns.push(Reverse((next, object)));
        }
        (waits, looks)
    }

    #[test]
    fn a_fleet_of_any_size_is_looked_at_evenly_and_costs_no_more_than_a_bound() {
        let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
        // Objects, and the time of a round.
        for (objects, round) in [
            (1, INTERVAL),
            (10, INTERVAL),
            (150, INTERVAL),
            (151, INTERVAL + STEP),
            (500, Duration::from_secs(1000)),
            (1500, minutes(50)),
        ] {
            let (waits, looks) = five_rounds(objects);
            assert!(looks.windows(2).all(|pair| pair[1] - pair[0] >= STEP), "{objects}: closer than a step");
            for waits in waits {
                assert!(waits[0] >= INTERVAL && waits[0] <= INTERVAL + round, "{objects}: {:?}", waits[0]);
                assert!(waits[1..].iter().all(|wait| *wait == round), "{objects}: {waits:?}");
            }
        }
    }

    #[test]
    fn turns_that_edits_made_useless_put_nobody_off_for_ever() {
        let (began, mut rota) = (Instant::now(), Rota { pace: PACE, last: None });
        // Ten objects, one of which is edited every second for an hour, and looked at each time.
        let waits = (0..3600).map(|second| {
            let now = began + Duration::from_secs(second);
            rota.turn(now, 10) - now
        });
        let waits: Vec<_> = waits.collect();
        assert!(waits.iter().all(|wait| *wait >= INTERVAL && *wait <= INTERVAL + STEP * 10));
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_gone_takes_no_turns() {
        let looks = Looks::new(PACE);
        let question = Question::of(1);
        for gone in 0..1000 {
            looks.remember(&gone.to_string(), question, ());
        }
        tokio::time::advance(INTERVAL * 9).await;
        assert_eq!(looks.remember("a", question, ()), INTERVAL);
        assert_eq!(looks.0.lock().unwrap().looks.len(), 1);
    }
}
