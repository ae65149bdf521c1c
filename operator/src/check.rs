//! `switchboard check`: whether an installation can do its work. `helm test` runs it, and the chart runs it before it
//! makes the first resources.
//!
//! It looks at what nobody else tells: that the API server serves the kinds, that they may be read, and that a replica
//! leads. It does not look at gateways, agents and numbers, whose conditions speak for themselves, and changes nothing.

use std::fmt;
use std::time::Duration;

use crds::{PhoneNumber, VoiceAgent, VoiceGateway};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube::api::ListParams;
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};

use crate::config::Namespaces;
use crate::leader;

/// Between two looks.
const PERIOD: Duration = Duration::from_secs(1);

/// What an installation lacks, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lack {
    /// The definition of a kind is not installed, or not established yet.
    #[error(
        "the API server does not know {0}: install the custom resource definitions (chart value crds.install, or kubectl apply -k crds/yaml)"
    )]
    Kind(String),
    /// The account may not read a kind.
    #[error("{kind} may not be listed in {place}: bind the operator's roles (chart value rbac.create)")]
    Right {
        /// Plural of the kind.
        kind: String,
        /// Where.
        place: Place,
    },
    /// No replica renews the Lease.
    #[error(
        "no operator leads: nobody renews the Lease {name} in {0}; see kubectl get pods -n {0} and the operator's log",
        name = leader::NAME
    )]
    Leader(String),
    /// The API server answered something else, or not at all.
    #[error("the API server was asked for {what} and said: {said}")]
    Answer {
        /// What was asked for.
        what: String,
        /// Its words.
        said: String,
    },
}

/// Where resources are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Every namespace.
    Everywhere,
    /// One.
    Namespace(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everywhere => f.write_str("all namespaces"),
            Self::Namespace(name) => write!(f, "namespace {name}"),
        }
    }
}

/// Looks until nothing is lacking, for at most `within`.
///
/// # Errors
/// What is lacking in the end.
pub async fn check(
    client: &Client,
    namespace: &str,
    watched: &Namespaces,
    within: Duration,
) -> Result<(), Vec<Lack>> {
    let places: Vec<Place> = match watched {
        Namespaces::All => vec![Place::Everywhere],
        Namespaces::These(names) => names.iter().cloned().map(Place::Namespace).collect(),
    };
    let deadline = Instant::now() + within;
    let mut leading = Leading::default();
    loop {
        let mut lacks = Vec::new();
        for place in &places {
            lacks.extend(read::<VoiceGateway>(client, place).await.err());
            lacks.extend(read::<VoiceAgent>(client, place).await.err());
            lacks.extend(read::<PhoneNumber>(client, place).await.err());
        }
        lacks.extend(lead(client, namespace, &mut leading).await.err());
        // The same kind in several namespaces is lacking once.
        lacks.dedup();
        match lacks.as_slice() {
            [] => return Ok(()),
            _ if Instant::now() >= deadline => return Err(lacks),
            _ => sleep(PERIOD).await,
        }
    }
}

/// Whether a kind can be read there.
async fn read<K>(client: &Client, place: &Place) -> Result<(), Lack>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + fmt::Debug,
{
    let api: Api<K> = match place {
        Place::Everywhere => Api::all(client.clone()),
        Place::Namespace(namespace) => Api::namespaced(client.clone(), namespace),
    };
    // Metadata alone: one resource that this version cannot read is no fault of the installation.
    let listed = api.list_metadata(&ListParams::default().limit(1)).await;
    let kind = K::plural(&()).into_owned();
    listed.map(drop).map_err(|error| lack_of(error, kind, place.clone()))
}

fn lack_of(error: kube::Error, kind: String, place: Place) -> Lack {
    match error {
        kube::Error::Api(status) if status.code == 404 => Lack::Kind(kind),
        kube::Error::Api(status) if status.code == 403 => Lack::Right { kind, place },
        other => Lack::Answer { what: kind, said: other.to_string() },
    }
}

async fn lead(client: &Client, namespace: &str, leading: &mut Leading) -> Result<(), Lack> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let lease = leases.get_opt(leader::NAME).await.map_err(|error| Lack::Answer {
        what: format!("the Lease {}", leader::NAME),
        said: error.to_string(),
    })?;
    if leading.saw(lease.and_then(|lease| lease.spec)) {
        Ok(())
    } else {
        Err(Lack::Leader(namespace.to_owned()))
    }
}

/// Whether somebody leads, from the Lease as it was seen: a renewal is one that is seen to come, because clocks of
/// different machines need not agree.
#[derive(Debug, Default)]
struct Leading {
    first: Option<LeaseSpec>,
    is_seen: bool,
}

impl Leading {
    /// Takes what the Lease is now; whether a holder was seen to renew it.
    fn saw(&mut self, now: Option<LeaseSpec>) -> bool {
        let held =
            now.filter(|lease| lease.holder_identity.as_deref().is_some_and(|holder| !holder.is_empty()));
        match (&self.first, held) {
            (None, held) => self.first = held,
            (Some(first), Some(held)) => self.is_seen |= first.renew_time != held.renew_time,
            (Some(_), None) => {}
        }
        self.is_seen
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Status};

    use super::*;

    fn held_by(holder: &str, renewed: i64) -> Option<LeaseSpec> {
        Some(LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            renew_time: Some(MicroTime(Timestamp::from_second(renewed).unwrap())),
            ..LeaseSpec::default()
        })
    }

    #[test]
    fn a_leader_is_one_who_is_seen_to_renew() {
        let mut leading = Leading::default();
        assert!(!leading.saw(None), "no Lease");
        assert!(!leading.saw(held_by("", 1)), "given back");
        assert!(!leading.saw(held_by("a", 1)), "held, but perhaps by one who died");
        assert!(!leading.saw(held_by("a", 1)));
        assert!(leading.saw(held_by("a", 2)), "renewed");
        assert!(leading.saw(None), "what was seen was seen");
    }

    #[test]
    fn what_is_lacking_says_what_to_do() {
        let refused = |code| {
            let status = Status { code: Some(code), message: Some("no".to_owned()), ..Status::default() };
            let status = serde_json::from_value(serde_json::to_value(status).unwrap()).unwrap();
            let place = Place::Namespace("sales".to_owned());
            lack_of(kube::Error::Api(status), "voiceagents".to_owned(), place).to_string()
        };
        assert_eq!(
            refused(404),
            "the API server does not know voiceagents: install the custom resource definitions (chart value crds.install, or kubectl apply -k crds/yaml)"
        );
        assert_eq!(
            refused(403),
            "voiceagents may not be listed in namespace sales: bind the operator's roles (chart value rbac.create)"
        );
        assert!(refused(500).starts_with("the API server was asked for voiceagents and said: "));
        assert_eq!(
            Lack::Leader("switchboard-system".to_owned()).to_string(),
            "no operator leads: nobody renews the Lease switchboard-operator in switchboard-system; see kubectl get pods -n switchboard-system and the operator's log"
        );
    }
}
