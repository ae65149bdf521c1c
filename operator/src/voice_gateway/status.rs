//! The status of a gateway: a pure function of what was found.

use crds::conditions::{ConditionType, Reason, set_condition};
use crds::{StoreType, VoiceGateway, VoiceGatewayStatus};
use jiff::Timestamp;

use super::keyring::Keys;
use crate::finding::Finding;

/// What was found out about a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Findings {
    /// Whether the carrier takes the credentials.
    pub credentials: Finding,
    /// The stream keys.
    pub keys: Result<Keys, Finding>,
}

/// Computes the status.
pub fn compute(gateway: &VoiceGateway, findings: Findings, now: Timestamp) -> VoiceGatewayStatus {
    let Findings { credentials, keys } = findings;
    let mut status = gateway.status.clone().unwrap_or_default();
    status.observed_generation = gateway.metadata.generation;
    let (ready, rotation) = match keys {
        Err(finding) => (finding.clone(), finding),
        Ok(Keys { keys, rotation, look_again: _ }) => {
            status.stream_keys = Some(keys);
            (credentials.clone(), rotation)
        }
    };
    let mut set = |kind, finding: Finding| {
        set_condition(&mut status.conditions, finding.condition(kind, gateway.metadata.generation), now);
    };
    set(ConditionType::Ready, ready);
    set(ConditionType::CredentialsVerified, credentials);
    set(ConditionType::StreamKeysCurrent, rotation);
    set(ConditionType::StoreShared, store(gateway.spec.store.kind));
    status
}

fn store(kind: StoreType) -> Finding {
    match kind {
        StoreType::Redis => Finding::yes(Reason::RedisStore),
        StoreType::Memory => Finding::no(
            Reason::MemoryStore,
            "Each pod knows only its own calls: callbacks that reach another pod are lost, at the latest with \
                      the first rolling update, and a call dies with its pod. Set store.type to Redis for more than one pod",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use crds::StreamKeys;

    fn verified() -> Finding {
        Finding::yes(Reason::CredentialsVerified)
    }

    fn keys() -> StreamKeys {
        let k1 = || "k1".to_owned();
        StreamKeys { secret_name: "s".to_owned(), signing: k1(), signing_since: None, verifying: vec![k1()] }
    }

    fn settled() -> Keys {
        let rotation = Finding::yes(Reason::KeysCurrent);
        Keys { keys: keys(), rotation, look_again: std::time::Duration::from_secs(60) }
    }

    fn words(status: &VoiceGatewayStatus) -> Vec<String> {
        status.conditions.iter().map(|c| format!("{}={} {}", c.type_, c.status, c.reason)).collect()
    }

    #[test]
    fn accepted_credentials_and_keys_make_it_ready() {
        let findings = Findings { credentials: verified(), keys: Ok(settled()) };
        let status = compute(&testing::gateway(), findings, Timestamp::UNIX_EPOCH);
        assert_eq!(
            words(&status),
            [
                "Ready=True CredentialsVerified",
                "CredentialsVerified=True CredentialsVerified",
                "StreamKeysCurrent=True KeysCurrent",
                "StoreShared=False MemoryStore"
            ]
        );
        assert_eq!(status.stream_keys, Some(keys()));
    }

    #[test]
    fn keys_once_made_stay_in_the_status_while_the_credentials_are_wrong() {
        let mut gateway = testing::gateway();
        gateway.status =
            Some(VoiceGatewayStatus { stream_keys: Some(keys()), ..VoiceGatewayStatus::default() });
        let rejected = Finding::no(Reason::CredentialsRejected, "no");
        let unreadable = Finding::no(Reason::KeyringInvalid, "no");
        let status = compute(
            &gateway,
            Findings { credentials: rejected, keys: Err(unreadable) },
            Timestamp::UNIX_EPOCH,
        );
        assert_eq!(
            words(&status)[..2],
            ["Ready=False KeyringInvalid", "CredentialsVerified=False CredentialsRejected"]
        );
        assert_eq!(status.stream_keys, Some(keys()));
    }
}
