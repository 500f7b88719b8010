//! Requests to services that speak JSON over HTTP, such as tracking servers.

use serde_json::Value;
use std::time::Duration;
use ureq::{Agent, Body, http::Response};

/// How long a service may take for each part of an answer.
const LIMIT: Duration = Duration::from_secs(10);

/// Bytes of an answer, at most.
const MOST: u64 = 16 << 20;

/// A service at an address.
pub struct JsonService {
    agent: Agent,
    base: String,
    authorization: Option<String>,
}

/// A request that failed.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// No answer.
    #[error("{0}")]
    Unreachable(String),
    /// An answer that is an error: its status and its text.
    #[error("{status}: {text}")]
    Status {
        /// HTTP status.
        status: u16,
        /// The body, shortened.
        text: String,
    },
}

impl JsonService {
    /// A service below `base`, with the value of an `Authorization` header.
    pub fn new(base: &str, authorization: Option<String>) -> JsonService {
        let limit = Some(LIMIT);
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // the header goes to this address and no other
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("loram/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(limit)
            .timeout_connect(limit)
            .timeout_send_request(limit)
            .timeout_recv_response(limit)
            .timeout_recv_body(limit)
            .build();
        JsonService { agent: config.new_agent(), base: base.trim_end_matches('/').to_string(), authorization }
    }

    /// Sends an object to a path.
    ///
    /// # Errors
    /// No answer in time, a status other than 2xx, or an answer that is not JSON.
    pub fn post(&self, path: &str, body: &Value) -> Result<Value, ServiceError> {
        let mut request = self.agent.post(format!("{}{path}", self.base)).header("Content-Type", "application/json");
        if let Some(value) = &self.authorization {
            request = request.header("Authorization", value);
        }
        read(request.send(body.to_string()))
    }

    /// Asks for a path with parameters.
    ///
    /// # Errors
    /// As [`JsonService::post`].
    pub fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value, ServiceError> {
        let mut request = self.agent.get(format!("{}{path}", self.base));
        for (name, value) in parameters {
            request = request.query(name, value);
        }
        if let Some(value) = &self.authorization {
            request = request.header("Authorization", value);
        }
        read(request.call())
    }
}

fn read(reply: Result<Response<Body>, ureq::Error>) -> Result<Value, ServiceError> {
    let failed = |e: &dyn std::fmt::Display| ServiceError::Unreachable(e.to_string());
    let mut reply = reply.map_err(|e| failed(&e))?;
    let text = reply.body_mut().with_config().limit(MOST).read_to_string().map_err(|e| failed(&e))?;
    if !reply.status().is_success() {
        let text = text.chars().take(300).collect();
        return Err(ServiceError::Status { status: reply.status().as_u16(), text });
    }
    serde_json::from_str(&text).map_err(|e| ServiceError::Unreachable(format!("the answer is not JSON: {e}")))
}
