//! When the carrier is asked about an object again: on a schedule, or when what is wanted of it changed. Never because
//! somebody woke its reconciler.
//!
//! The carrier tells nobody of changes and counts every request, the API server tells of every change at once. So what
//! a look at the carrier showed is kept until it is due again, and reconciliations in between read that.

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

/// What the last looks showed, by object. A new process knows nothing and looks once at each.
#[derive(Debug)]
pub struct Looks<T>(Mutex<HashMap<String, Look<T>>>);

#[derive(Debug)]
struct Look<T> {
    question: Question,
    due: Instant,
    seen: T,
}

impl<T> Default for Looks<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Looks<T> {
    /// What was seen, and how long that still counts.
    pub fn recall(&self, object: &str, question: Question) -> Option<(T, Duration)> {
        let looks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let look = looks.get(object).filter(|look| look.question == question)?;
        let left = look.due.saturating_duration_since(Instant::now());
        (!left.is_zero()).then(|| (look.seen.clone(), left))
    }

    /// Remembers what was seen for a while.
    pub fn remember(&self, object: &str, question: Question, seen: T, lasts: Duration) {
        let look = Look { question, due: Instant::now() + lasts, seen };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(object.to_owned(), look);
    }

    /// Forgets an object.
    pub fn forget(&self, object: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(object);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LASTS: Duration = Duration::from_secs(300);

    #[tokio::test(start_paused = true)]
    async fn the_same_question_is_asked_once_in_its_time() {
        let looks = Looks::default();
        let question = Question::of(("spec", 1));
        assert_eq!(looks.recall("a", question), None::<(&str, Duration)>);
        looks.remember("a", question, "fine", LASTS);
        tokio::time::advance(LASTS / 3).await;
        assert_eq!(looks.recall("a", question), Some(("fine", LASTS / 3 * 2)));
        assert_eq!(looks.recall("b", question), None);
        tokio::time::advance(LASTS).await;
        assert_eq!(looks.recall("a", question), None);
    }

    #[tokio::test]
    async fn another_question_is_asked_at_once() {
        let looks = Looks::default();
        looks.remember("a", Question::of(("spec", 1)), "fine", LASTS);
        assert_eq!(looks.recall("a", Question::of(("spec", 2))), None);
        looks.forget("a");
        assert_eq!(looks.recall("a", Question::of(("spec", 1))), None);
    }
}
