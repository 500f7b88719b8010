//! The HTTP interface.

mod chat;
mod completions;
mod error;
mod fields;
mod logprobs;
pub(crate) mod state;
mod stream;

use axum::extract::{DefaultBodyLimit, Request, State as Extract};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use error::ApiError;
use serde_json::{Value, json};
use state::State;
use std::sync::Arc;

/// Bytes of a request, at most.
const MAX_BODY: usize = 16 << 20;

/// All routes.
pub(crate) fn routes(state: Arc<State>) -> Router {
    let open = Router::new().route("/", get(page)).route("/health", get(health));
    let closed = Router::new()
        .route("/v1/models", get(models))
        .route("/v1/completions", post(completions::complete))
        .route("/v1/chat/completions", post(chat::answer))
        .route_layer(middleware::from_fn_with_state(state.clone(), authorised));
    let absent = || async {
        ApiError::new(
            StatusCode::NOT_FOUND,
            "no such path; there are /v1/models, /v1/completions and /v1/chat/completions",
        )
    };
    open.merge(closed).fallback(absent).layer(DefaultBodyLimit::max(MAX_BODY)).with_state(state)
}

async fn page() -> impl IntoResponse {
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'";
    ([(header::CONTENT_SECURITY_POLICY, policy)], Html(include_str!("../page.html")))
}

async fn health() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

async fn models(Extract(state): Extract<Arc<State>>) -> Json<Value> {
    let one = |name: &str| json!({"id": name, "object": "model", "created": state.begun, "owned_by": "loram"});
    let data: Vec<Value> = state.models.iter().map(|m| one(&m.name)).collect();
    Json(json!({"object": "list", "data": data}))
}

/// Lets requests with the right key through.
async fn authorised(Extract(state): Extract<Arc<State>>, request: Request, next: Next) -> Response {
    let given = request.headers().get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
    match &state.api_key {
        Some(key) if given != Some(&format!("Bearer {key}")) => ApiError::new(
            StatusCode::UNAUTHORIZED,
            "expected the header `Authorization: Bearer KEY` with the server's key",
        )
        .into_response(),
        _ => next.run(request).await,
    }
}
