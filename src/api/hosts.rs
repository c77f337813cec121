//! The hosts of the fleet, and how this one stands in it.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;

use super::{AppState, respond_and_log};

pub(super) async fn list(State(state): State<AppState>) -> Response {
    let told = async { Ok(Json(json!({ "hosts": state.hosts().await? }))) };
    respond_and_log(told.await)
}

pub(super) async fn show(State(state): State<AppState>, Path(name): Path<String>) -> Response {
    let told = async { Ok(Json(json!({ "host": state.host_named(&name).await? }))) };
    respond_and_log(told.await)
}

pub(super) async fn forget(State(state): State<AppState>, Path(name): Path<String>) -> Response {
    let service = state.clone();
    // Begun, it goes on also when the client disconnects.
    let forgotten = async {
        state.to_its_end(async move { service.forget_host(&name).await }).await??;
        Ok(StatusCode::NO_CONTENT)
    };
    respond_and_log(forgotten.await)
}

pub(super) async fn fleet(State(state): State<AppState>) -> Json<serde_json::Value> {
    Json(json!({ "fleet": state.fleet() }))
}
