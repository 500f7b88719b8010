//! Errors in the form of OpenAI's.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// An error of a request.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    message: String,
    field: Option<&'static str>,
}

impl ApiError {
    pub fn new(status: StatusCode, message: impl Into<String>) -> ApiError {
        ApiError { status, message: message.into(), field: None }
    }

    /// An error of a field of a request.
    pub fn of_field(status: StatusCode, field: &'static str, message: impl Into<String>) -> ApiError {
        ApiError { field: Some(field), ..ApiError::new(status, message) }
    }

    /// A field with a value that cannot be.
    pub fn invalid(field: &'static str, message: impl Into<String>) -> ApiError {
        ApiError::of_field(StatusCode::BAD_REQUEST, field, message)
    }

    /// The body of the answer.
    pub fn json(&self) -> Value {
        let kind = match self.status {
            StatusCode::INTERNAL_SERVER_ERROR => "internal_error",
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::NOT_FOUND => "not_found_error",
            _ => "invalid_request_error",
        };
        json!({"error": {"message": self.message, "type": kind, "param": self.field, "code": self.status.as_u16()}})
    }
}

impl From<JsonRejection> for ApiError {
    fn from(rejected: JsonRejection) -> ApiError {
        ApiError::new(rejected.status(), rejected.body_text())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(self.json())).into_response()
    }
}
