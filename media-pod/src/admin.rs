//! The admin door: probes, metrics, load. Reachable inside the cluster only.
//!
//! `/livez` says that the process runs. `/readyz` says that requests can be answered; it is never false because the pod
//! is full or leaving: docs/operations.md says why.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::header::CONTENT_TYPE;
use serde::Serialize;

use crate::pod::Pod;

/// The admin door's routes.
pub(crate) fn router(pod: Arc<Pod>) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        // The doors are bound, and the files loaded, before this one answers.
        .route("/readyz", get(|| async { "ok\n" }))
        .route("/metrics", get(handle_metrics))
        .route("/load", get(handle_load))
        .with_state(pod)
}

async fn handle_metrics(State(pod): State<Arc<Pod>>) -> Response {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], pod.metrics.scrape()).into_response()
}

/// What the operator's steward reads.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Load {
    agent: String,
    namespace: String,
    config_revision: String,
    signing_key: String,
    verifying_keys: Vec<String>,
    active_calls: usize,
    reserved_slots: i64,
    max_calls: u32,
    draining: bool,
}

async fn handle_load(State(pod): State<Arc<Pod>>) -> Json<Load> {
    let agent = pod.agent();
    let keyring = pod.keyring.borrow().clone();
    Json(Load {
        agent: agent.name.clone(),
        namespace: agent.namespace.clone(),
        config_revision: agent.revision.clone(),
        signing_key: keyring.signing.clone(),
        verifying_keys: keyring.keys.keys().cloned().collect(),
        active_calls: pod.calls.count(),
        reserved_slots: pod.metrics.reserved_slots.get(),
        max_calls: agent.max_calls_per_pod,
        draining: pod.phase.borrow().is_draining(),
    })
}
