//! When a stream key is published, promoted and retired: pure.
//!
//! ```text
//! one key ──(too old, or asked for)──► published ──(every pod verifies with it)──► promoted ──(every pod signs with it,
//!    ▲                                                                              and old tokens are past)── retired
//!    └───────────────────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//! At every moment every token that may be under way can be verified by every pod. A pod that does not say which keys it
//! has holds the rotation up, and the finding says so; calls go on meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use call_session::Redacted;
use call_session::agent_file::Keyring;
use crds::conditions::Reason;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use crate::finding::Finding;

/// A token lives 60 s (docs/design.md, "Stream token"); twice that for clocks and for what a pod signed at its last moment.
const RETIRE_AFTER: Duration = Duration::from_secs(120);
/// How often pods are asked while a rotation is under way.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// The keyring Secret's content, with what its annotations say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ring {
    /// Mounted by pods.
    pub(super) keyring: Keyring,
    /// When the signing key became that.
    pub(super) signing_since: Timestamp,
    /// The key that is published and does not sign yet.
    pub(super) next: Option<String>,
    /// The last request for a rotation that was followed.
    pub(super) rotated_for: Option<String>,
}

/// What a pod says of its keys.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::voice_gateway) struct PodKeys {
    pub(in crate::voice_gateway) signing_key: String,
    pub(in crate::voice_gateway) verifying_keys: Vec<String>,
}

/// What is wanted of the keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wishes {
    pub(super) max_age: Duration,
    /// A rotation at once, if this is another request than the last one.
    pub(super) request: Option<String>,
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing; look again after so long.
    Wait(Duration),
    /// Make a key and publish it under this id.
    Publish(String),
    /// Sign with the published key.
    Promote,
    /// Remove what does not sign.
    Retire,
}

impl Ring {
    /// Whether pods must be asked before anything can be decided.
    pub(super) fn is_rotating(&self) -> bool {
        self.keyring.keys.len() > 1
    }

    /// Decides, by what each running pod says (`None` where it says nothing), and says where it stands.
    pub(super) fn plan(&self, wishes: &Wishes, pods: &[Option<PodKeys>], now: Timestamp) -> (Step, Finding) {
        let of = pods.len();
        let holding =
            |has: &dyn Fn(&PodKeys) -> bool| of - pods.iter().flatten().filter(|pod| has(pod)).count();
        let Keyring { signing, .. } = &self.keyring;
        if let Some(next) = &self.next {
            let without = holding(&|pod| pod.verifying_keys.contains(next));
            let sentence = format!(
                "Key {next} is published; it will sign when all {of} pods have it, and {without} do not say so yet: it \
                 arrives within a minute or two; if it does not, see these pods' logs and their /load"
            );
            let step = if without == 0 { Step::Promote } else { Step::Wait(LOOK_AGAIN) };
            return (step, Finding::no(Reason::KeyPublished, sentence));
        }
        let age = Duration::try_from(now.duration_since(self.signing_since)).unwrap_or_default();
        if self.is_rotating() {
            let without = holding(&|pod| pod.signing_key == *signing);
            let sentence = format!(
                "Key {signing} signs, and the old one still verifies until {} s after that and until all {of} pods sign \
                 with {signing}; {without} do not say so yet",
                RETIRE_AFTER.as_secs()
            );
            let left = RETIRE_AFTER.saturating_sub(age);
            let step = match (without, left) {
                (0, Duration::ZERO) => Step::Retire,
                (0, left) => Step::Wait(left),
                (_, _) => Step::Wait(LOOK_AGAIN),
            };
            return (step, Finding::no(Reason::KeyPromoted, sentence));
        }
        let is_asked_for = wishes.request.is_some() && wishes.request != self.rotated_for;
        let left = wishes.max_age.saturating_sub(age);
        let step =
            if is_asked_for || left.is_zero() { Step::Publish(self.new_id()) } else { Step::Wait(left) };
        (step, Finding::yes(Reason::KeysCurrent))
    }

    /// The ring with a new key in it.
    pub(super) fn published(mut self, id: String, key: Redacted<String>, request: Option<String>) -> Self {
        self.keyring.keys.insert(id.clone(), key);
        self.next = Some(id);
        self.rotated_for = request.or(self.rotated_for);
        self
    }

    /// The ring whose published key signs.
    pub(super) fn promoted(mut self, now: Timestamp) -> Self {
        if let Some(next) = self.next.take() {
            self.keyring.signing = next;
            self.signing_since = now;
        }
        self
    }

    /// The ring with the signing key alone.
    pub(super) fn retired(mut self) -> Self {
        let Keyring { signing, keys } = &mut self.keyring;
        let kept: BTreeMap<_, _> = std::mem::take(keys).into_iter().filter(|(id, _)| id == signing).collect();
        *keys = kept;
        self
    }

    /// An id that no key has or had lately: one more than the highest number.
    fn new_id(&self) -> String {
        let number = |id: &String| id.strip_prefix('k').and_then(|n| n.parse::<u64>().ok());
        let highest = self.keyring.keys.keys().filter_map(number).max().unwrap_or_default();
        format!("k{}", highest.saturating_add(1))
    }
}

/// A span of days.
pub(super) fn days(days: u32) -> Duration {
    SignedDuration::from_hours(24 * i64::from(days)).unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn key() -> Redacted<String> {
        Redacted::new("AAAA".to_owned())
    }

    fn ring() -> Ring {
        let keyring = Keyring { signing: "k1".to_owned(), keys: [("k1".to_owned(), key())].into() };
        Ring { keyring, signing_since: at(0), next: None, rotated_for: None }
    }

    fn wishes(request: Option<&str>) -> Wishes {
        Wishes { max_age: YEAR, request: request.map(str::to_owned) }
    }

    fn pod(signing: &str, verifying: &[&str]) -> Option<PodKeys> {
        let verifying_keys = verifying.iter().map(|&id| id.to_owned()).collect();
        Some(PodKeys { signing_key: signing.to_owned(), verifying_keys })
    }

    #[test]
    fn a_key_is_replaced_when_it_is_old_or_when_somebody_asks_once() {
        let plan = |ring: &Ring, wishes: &Wishes, second: i64| ring.plan(wishes, &[], at(second)).0;
        let age = i64::try_from(YEAR.as_secs()).unwrap();
        assert_eq!(plan(&ring(), &wishes(None), age - 60), Step::Wait(Duration::from_secs(60)));
        assert_eq!(plan(&ring(), &wishes(None), age), Step::Publish("k2".to_owned()));
        assert_eq!(plan(&ring(), &wishes(Some("a")), 1), Step::Publish("k2".to_owned()));
        let followed =
            ring().published("k2".to_owned(), key(), Some("a".to_owned())).promoted(at(1)).retired();
        assert!(matches!(plan(&followed, &wishes(Some("a")), 2), Step::Wait(_)));
        assert_eq!(plan(&followed, &wishes(Some("b")), 2), Step::Publish("k3".to_owned()));
    }

    #[test]
    fn a_published_key_signs_when_every_pod_verifies_with_it() {
        let ring = ring().published("k2".to_owned(), key(), None);
        assert_eq!((ring.keyring.signing.as_str(), ring.keyring.keys.len()), ("k1", 2));
        let plan = |pods: &[Option<PodKeys>]| ring.plan(&wishes(None), pods, at(9));
        let (step, finding) = plan(&[pod("k1", &["k1", "k2"]), pod("k1", &["k1"])]);
        assert_eq!((step, finding.reason), (Step::Wait(LOOK_AGAIN), Reason::KeyPublished));
        assert!(finding.message.contains("all 2 pods have it, and 1 do not"), "{}", finding.message);
        assert_eq!(plan(&[pod("k1", &["k1", "k2"]), None]).0, Step::Wait(LOOK_AGAIN), "silence holds");
        assert_eq!(plan(&[pod("k1", &["k1", "k2"]), pod("k1", &["k1", "k2"])]).0, Step::Promote);
        assert_eq!(plan(&[]).0, Step::Promote);
    }

    #[test]
    fn the_old_key_goes_when_nobody_signs_with_it_and_its_tokens_are_past() {
        let ring = ring().published("k2".to_owned(), key(), None).promoted(at(100));
        assert_eq!((ring.keyring.signing.as_str(), ring.keyring.keys.len()), ("k2", 2));
        let (new, old) = (pod("k2", &["k1", "k2"]), pod("k1", &["k1", "k2"]));
        let plan = |pods: &[Option<PodKeys>], second: i64| ring.plan(&wishes(None), pods, at(second)).0;
        assert_eq!(plan(std::slice::from_ref(&new), 110), Step::Wait(Duration::from_secs(110)));
        assert_eq!(plan(&[new.clone(), old], 300), Step::Wait(LOOK_AGAIN));
        assert_eq!(plan(&[new.clone(), None], 300), Step::Wait(LOOK_AGAIN));
        assert_eq!(plan(&[new], 300), Step::Retire);
        let ring = ring.retired();
        assert_eq!(ring.keyring.keys.keys().collect::<Vec<_>>(), ["k2"]);
        assert!(!ring.is_rotating());
    }
}
