//! A stream token: one that was given out and then changed, or none at all.

use std::sync::LazyLock;

use call_session::Epoch;
use call_session::agent_file::Keyring;
use media_pod::clock::UnixMs;
use media_pod::store::AgentKey;
use media_pod::token::{Bearer, Claims, StreamKeys};

const NOW: UnixMs = UnixMs(1_790_000_000_500);

static KEYS: LazyLock<StreamKeys> = LazyLock::new(|| {
    let key = format!("{}=", "A".repeat(43));
    let ring = serde_json::json!({"signing": "k1", "keys": {"k1": key}});
    let ring: Keyring = serde_json::from_value(ring).expect("a keyring");
    StreamKeys::new(&ring).expect("a usable one")
});

/// Bytes: a position, what is changed there, and so on; or, behind a 0, a whole token. Only the one given out is taken.
pub(crate) fn run(data: &[u8]) {
    let claims = Claims {
        account: "AC00000000000000000000000000000001".parse().expect("a valid sid"),
        call: "CA00000000000000000000000000000001".parse().expect("a valid sid"),
        namespace: "moving".to_owned(),
        agent: "sales".to_owned(),
        epoch: Epoch(1),
        expires: NOW.0 / 1000 + 60,
        origin: NOW,
        is_untaken: false,
    };
    let minted = KEYS.mint(&claims);
    let presented = match data.split_first() {
        Some((0, token)) => String::from_utf8_lossy(token).into_owned(),
        _ => {
            let mut bytes = minted.clone().into_bytes();
            for change in data.chunks_exact(2) {
                let at = usize::from(change[0]) % bytes.len();
                bytes[at] ^= change[1];
            }
            String::from_utf8_lossy(&bytes).into_owned()
        }
    };
    let agent = AgentKey { namespace: claims.namespace.clone(), name: claims.agent.clone() };
    let bearer = Bearer { account: &claims.account, call: &claims.call, agent: &agent };
    match KEYS.verify(&presented, &bearer, NOW) {
        Ok(read) => assert_eq!((presented, read), (minted, claims)),
        Err(_) => assert_ne!(presented, minted),
    }
}
