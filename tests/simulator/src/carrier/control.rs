//! The control API beside the REST API: what a test or a demo asks the simulator itself (docs/design.md, "The simulator").
//!
//! Without authentication: it exists on loopback and in throw-away clusters only.

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Carrier;
use crate::caller::Step;
use crate::faults::Faults;

/// A call to be placed.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PlaceCall {
    from: String,
    to: String,
    #[serde(default)]
    caller: Vec<Step>,
}

/// Which REST requests to show.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Since {
    /// So many were seen before.
    skip: u64,
}

pub(super) fn router(carrier: Carrier) -> Router {
    Router::new()
        .route("/_sim/calls", post(place).get(calls))
        .route("/_sim/calls/{sid}", get(call).delete(hang_up))
        .route("/_sim/calls/{sid}/heard.wav", get(heard))
        .route("/_sim/violations", get(violations).delete(forget_violations))
        .route("/_sim/numbers", get(numbers))
        .route("/_sim/requests", get(requests))
        .route("/_sim/faults", get(faults).put(set_faults).delete(forget_faults))
        .with_state(carrier)
}

async fn place(State(carrier): State<Carrier>, Json(order): Json<PlaceCall>) -> Response {
    // Rendering speech may start a process, so it stays off the media clock's threads.
    let runtime = tokio::runtime::Handle::current();
    let placing = tokio::task::spawn_blocking(move || {
        let _guard = runtime.enter();
        carrier.place_inbound(&order.from, &order.to, order.caller)
    });
    match placing.await {
        Ok(Ok(record)) => (StatusCode::CREATED, Json(json!({ "sid": record.sid }))).into_response(),
        Ok(Err(error)) => refuse(StatusCode::UNPROCESSABLE_ENTITY, &error.to_string()),
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

async fn calls(State(carrier): State<Carrier>) -> Json<Value> {
    let calls: Vec<_> = carrier
        .calls()
        .iter()
        .map(|record| json!({"sid": record.sid, "status": record.status(), "direction": record.direction}))
        .collect();
    Json(json!({ "calls": calls }))
}

async fn call(State(carrier): State<Carrier>, Path(sid): Path<String>) -> Response {
    carrier.call(&sid).map_or_else(no_such_call, |record| Json(record.view()).into_response())
}

async fn hang_up(State(carrier): State<Carrier>, Path(sid): Path<String>) -> Response {
    let Some(record) = carrier.call(&sid) else { return no_such_call() };
    // A call that is over takes no command; ending it again is what was wanted.
    let _ = record.commands.send(super::record::Command::Complete).await;
    StatusCode::NO_CONTENT.into_response()
}

async fn heard(State(carrier): State<Carrier>, Path(sid): Path<String>) -> Response {
    let Some(record) = carrier.call(&sid) else { return no_such_call() };
    ([(CONTENT_TYPE, "audio/wav")], record.recording()).into_response()
}

async fn violations(State(carrier): State<Carrier>) -> Json<Value> {
    let violations = carrier.violations();
    Json(json!({"count": violations.count(), "violations": violations.list()}))
}

async fn forget_violations(State(carrier): State<Carrier>) -> StatusCode {
    carrier.violations().clear();
    StatusCode::NO_CONTENT
}

async fn faults(State(carrier): State<Carrier>) -> Json<Faults> {
    Json(carrier.switches().faults())
}

async fn set_faults(State(carrier): State<Carrier>, body: String) -> Response {
    match serde_json::from_str(&body) {
        Ok(faults) => {
            carrier.switches().set(faults);
            StatusCode::NO_CONTENT.into_response()
        }
        Err(error) => refuse(StatusCode::UNPROCESSABLE_ENTITY, &error.to_string()),
    }
}

async fn forget_faults(State(carrier): State<Carrier>) -> StatusCode {
    carrier.switches().set(Faults::default());
    StatusCode::NO_CONTENT
}

async fn numbers(State(carrier): State<Carrier>) -> Json<Value> {
    let sid = &carrier.settings().account.sid;
    let numbers: Vec<_> = carrier.numbers().iter().map(|number| number.json(sid)).collect();
    Json(json!({ "numbers": numbers }))
}

async fn requests(State(carrier): State<Carrier>, Query(Since { skip }): Query<Since>) -> Json<Value> {
    Json(carrier.rest_log().view(skip))
}

fn no_such_call() -> Response {
    refuse(StatusCode::NOT_FOUND, "no such call")
}

fn refuse(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({"error": {"message": message}}))).into_response()
}
