//! Which image an agent's pods get, and whose turn it is when a new operator brings a new default.
//!
//! A rollout replaces every pod of an agent, and its calls wait out a drain. A new default image would do that to all
//! agents at once; here a few go at a time, and the next one only when a Deployment is whole again. An image that does
//! not start stops after those few.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crds::conditions::Reason;
use crds::{UpdatePolicyType, VoiceAgent};
use k8s_openapi::api::apps::v1::Deployment;

use crate::finding::Finding;

/// An agent: namespace and name.
pub type Key = (String, String);

/// The image for an agent's pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Image {
    /// What is asked for.
    Newest(String),
    /// The one from before, until a turn is free.
    Held {
        /// It.
        image: String,
        /// What the pods will get.
        newest: String,
        /// What they wait for.
        until: Until,
    },
}

impl Image {
    /// The reference for the pod template.
    pub fn reference(&self) -> &str {
        match self {
            Self::Newest(image) | Self::Held { image, .. } => image,
        }
    }

    /// What ImageCurrent says of it.
    pub fn finding(&self) -> Finding {
        match self {
            Self::Newest(_) => Finding::yes(Reason::NewestImage),
            Self::Held { newest, until: Until::SpecChange, .. } => Finding::no(
                Reason::HeldBack,
                format!(
                    "The operator's default image is {newest}: change the spec to have it, or set updatePolicy.type to Automatic"
                ),
            ),
            Self::Held { newest, until: Until::Turn(others), .. } => {
                let names: Vec<_> =
                    others.iter().take(5).map(|(namespace, name)| format!("{namespace}/{name}")).collect();
                Finding::no(
                    Reason::RolloutQueued,
                    format!(
                        "{newest} comes when the rollouts of {} are over: if they are not, see why their new pods do not start",
                        names.join(", ")
                    ),
                )
            }
        }
    }
}

/// What a held image waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Until {
    /// The next change of the agent's spec.
    SpecChange,
    /// The rollouts of these agents.
    Turn(Vec<Key>),
}

/// Chooses the image. `has_pods`: there is a Deployment, so a change of the image would roll it. `take_turn` is asked only
/// when everything else is in favour.
pub fn choose(
    agent: &VoiceAgent,
    default: &str,
    has_pods: bool,
    take_turn: impl FnOnce() -> Result<(), Vec<Key>>,
) -> Image {
    let newest = agent.spec.image.as_deref().unwrap_or(default).to_owned();
    let status = agent.status.as_ref();
    let running = status.and_then(|s| s.image.as_ref()).filter(|_| has_pods);
    let Some(image) = running.filter(|image| **image != newest).cloned() else {
        return Image::Newest(newest);
    };
    let chosen_for = status.and_then(|s| s.image_generation);
    if agent.spec.image.is_some() || chosen_for != agent.metadata.generation {
        return Image::Newest(newest);
    }
    let until = match agent.spec.update_policy.kind {
        UpdatePolicyType::OnSpecChange => Until::SpecChange,
        UpdatePolicyType::Automatic => match take_turn() {
            Ok(()) => return Image::Newest(newest),
            Err(others) => Until::Turn(others),
        },
    };
    Image::Held { image, newest, until }
}

/// Turns, of which there are only so many at a time.
#[derive(Debug)]
pub struct Turns {
    limit: usize,
    /// Who has one, and the Deployment's generation that has to be whole before it is given back.
    taken: Mutex<BTreeMap<Key, Option<i64>>>,
}

impl Turns {
    /// `limit` rollouts at a time.
    pub fn new(limit: usize) -> Self {
        Self { limit, taken: Mutex::default() }
    }

    /// Takes a turn, or says who has them. `rolling` are agents that roll out the same image without having asked here,
    /// because a former leader let them.
    pub fn take(&self, agent: &Key, rolling: impl IntoIterator<Item = Key>) -> Result<(), Vec<Key>> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.contains_key(agent) {
            return Ok(());
        }
        let mut others: Vec<Key> = taken.keys().cloned().collect();
        others.extend(rolling.into_iter().filter(|other| other != agent && !taken.contains_key(other)));
        if others.len() >= self.limit {
            return Err(others);
        }
        taken.insert(agent.clone(), None);
        Ok(())
    }

    /// The Deployment as it was applied, or found later: gives the turn back when that rollout is over.
    pub fn follow(&self, agent: &Key, deployment: &Deployment) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(generation) = taken.get_mut(agent) else { return };
        let now = deployment.metadata.generation;
        // A cache may be older than what was applied.
        let begun = *generation.get_or_insert(now.unwrap_or_default());
        if now >= Some(begun) && !is_rolling(deployment) {
            taken.remove(agent);
        }
    }

    /// An agent is gone.
    pub fn forget(&self, agent: &Key) {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).remove(agent);
    }
}

/// Whether a Deployment replaces pods, or has not begun to do what it was told.
pub fn is_rolling(deployment: &Deployment) -> bool {
    let status = deployment.status.clone().unwrap_or_default();
    let (pods, updated) = (status.replicas.unwrap_or_default(), status.updated_replicas.unwrap_or_default());
    status.observed_generation < deployment.metadata.generation || updated < pods
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, AgentVerbs as _};
    use crds::VoiceAgentStatus;
    use serde_json::json;

    const OLD: &str = "media:1";
    const NEW: &str = "media:2";

    fn agent(policy: &str) -> VoiceAgent {
        testing::agent().with("/updatePolicy", json!({"type": policy})).with_status(VoiceAgentStatus {
            image: Some(OLD.to_owned()),
            image_generation: Some(1),
            ..VoiceAgentStatus::default()
        })
    }

    fn key(name: &str) -> Key {
        ("moving".to_owned(), name.to_owned())
    }

    fn held(until: Until) -> Image {
        Image::Held { image: OLD.to_owned(), newest: NEW.to_owned(), until }
    }

    #[test]
    fn a_new_default_image_is_taken_in_turn_or_held_until_the_spec_changes() {
        let newest = Image::Newest(NEW.to_owned());
        let full = || Err(vec![key("other")]);
        assert_eq!(choose(&agent("Automatic"), NEW, true, || Ok(())), newest);
        assert_eq!(choose(&agent("Automatic"), NEW, true, full), held(Until::Turn(vec![key("other")])));
        assert_eq!(choose(&agent("OnSpecChange"), NEW, true, || Ok(())), held(Until::SpecChange));
    }

    #[test]
    fn nobody_waits_for_a_turn_who_rolls_nothing_or_asked_for_it() {
        let never = || -> Result<(), Vec<Key>> { panic!("no turn is needed") };
        let newest = Image::Newest(NEW.to_owned());
        let mut edited = agent("OnSpecChange");
        edited.metadata.generation = Some(2);
        assert_eq!(choose(&edited, NEW, true, never), newest, "the spec changed");
        assert_eq!(choose(&agent("OnSpecChange"), NEW, false, never), newest, "there are no pods");
        assert_eq!(choose(&testing::agent(), NEW, true, never), newest, "it never had an image");
        assert_eq!(choose(&agent("Automatic"), OLD, true, never), Image::Newest(OLD.to_owned()));
        let own = agent("OnSpecChange").with("/image", json!("mine:1"));
        assert_eq!(choose(&own, NEW, true, never), Image::Newest("mine:1".to_owned()));
    }

    fn deployment(generation: i64, observed: i64, pods: i32, updated: i32) -> Deployment {
        serde_json::from_value(json!({
            "metadata": {"generation": generation},
            "spec": {"selector": {}, "template": {}},
            "status": {"observedGeneration": observed, "replicas": pods, "updatedReplicas": updated},
        }))
        .unwrap()
    }

    #[test]
    fn there_are_only_so_many_turns_and_one_is_given_back_when_every_pod_is_new() {
        let turns = Turns::new(1);
        assert_eq!(turns.take(&key("a"), []), Ok(()));
        assert_eq!(turns.take(&key("a"), []), Ok(()), "it has one already");
        assert_eq!(turns.take(&key("b"), []), Err(vec![key("a")]));
        turns.follow(&key("a"), &deployment(5, 4, 2, 2));
        turns.follow(&key("a"), &deployment(4, 4, 2, 2));
        turns.follow(&key("a"), &deployment(5, 5, 3, 1));
        assert_eq!(turns.take(&key("b"), []), Err(vec![key("a")]), "not seen, an older state, old pods left");
        turns.follow(&key("a"), &deployment(5, 5, 2, 2));
        assert_eq!(turns.take(&key("b"), []), Ok(()));
        turns.forget(&key("b"));
        assert_eq!(turns.take(&key("c"), []), Ok(()));
    }

    #[test]
    fn what_a_former_leader_began_counts() {
        let turns = Turns::new(2);
        let rolling = || [key("a"), key("b")];
        assert_eq!(turns.take(&key("c"), rolling()), Err(vec![key("a"), key("b")]));
        assert_eq!(turns.take(&key("a"), rolling()), Ok(()), "its own rollout is not in its way");
        assert_eq!(turns.take(&key("c"), rolling()), Err(vec![key("a"), key("b")]), "and counts once");
        assert_eq!(turns.take(&key("c"), [key("a")]), Ok(()));
    }
}
