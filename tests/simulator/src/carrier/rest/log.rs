//! Every REST request as it was answered, for tests that count what the product asks for.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use axum::extract::ConnectInfo;
use axum::http::{Method, Uri};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::pairs;

/// Requests kept; the oldest are forgotten first, and still counted.
const KEPT: usize = 50_000;

/// The requests so far.
#[derive(Debug, Default)]
pub(in crate::carrier) struct RestLog(Mutex<Requests>);

#[derive(Debug, Default)]
struct Requests {
    count: u64,
    kept: VecDeque<Value>,
}

impl RestLog {
    /// One more, with the status it was answered with, be the answer lost or not. `from` is the peer's address: a pod's
    /// own, where nothing translates it.
    pub(super) fn note(
        &self,
        from: Option<&ConnectInfo<SocketAddr>>,
        method: &Method,
        uri: &Uri,
        body: &[u8],
        status: u16,
    ) {
        let form = if *method == Method::POST { body } else { uri.query().unwrap_or_default().as_bytes() };
        let fields: Vec<_> = pairs(form).into_iter().map(|(name, value)| json!([name, value])).collect();
        let request = json!({
            "method": method.as_str(), "path": uri.path(), "fields": fields, "status": status,
            "from": from.map(|ConnectInfo(peer)| peer.ip()),
            "atMilliseconds": Timestamp::now().as_millisecond(),
        });
        let mut requests = self.0.lock().unwrap_or_else(PoisonError::into_inner); // a list stays a list
        requests.count += 1;
        if requests.kept.len() == KEPT {
            requests.kept.pop_front();
        }
        requests.kept.push_back(request);
    }

    /// How many there were, and those that are kept from the `skip`th on, oldest first.
    pub(in crate::carrier) fn view(&self, skip: u64) -> Value {
        let requests = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let forgotten = requests.count - requests.kept.len() as u64;
        let skipped = usize::try_from(skip.saturating_sub(forgotten)).unwrap_or(usize::MAX);
        let shown: Vec<_> = requests.kept.iter().skip(skipped).collect();
        json!({"count": requests.count, "requests": shown})
    }
}
