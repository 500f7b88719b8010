//! State that all requests share.

use super::error::ApiError;
use crate::models::Facts;
use crate::worker::{Event, Job};
use axum::http::StatusCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// Models, the queue to the thread that runs them, and settings.
pub(crate) struct State {
    pub models: Vec<Facts>,
    queue: Sender<Job>,
    pub api_key: Option<String>,
    /// Seconds since 1970 at the start.
    pub begun: u64,
    requests: AtomicU64,
}

/// A text of a request.
pub(crate) struct Wanted {
    pub prompt: Vec<u32>,
    pub options: loram_train::GenerateOptions,
    /// [`Job::score`].
    pub score: Option<usize>,
}

impl State {
    pub fn new(models: Vec<Facts>, queue: Sender<Job>, api_key: Option<String>) -> State {
        State { models, queue, api_key, begun: now(), requests: AtomicU64::new(0) }
    }

    /// The model of this name; the first where none is named.
    pub fn model(&self, name: Option<&str>) -> Result<usize, ApiError> {
        let Some(name) = name else { return Ok(0) };
        let known = || self.models.iter().map(|m| format!("`{}`", m.name)).collect::<Vec<_>>().join(", ");
        self.models.iter().position(|m| m.name == name).ok_or_else(|| {
            let what = format!("the model `{name}` does not exist; there are {}", known());
            ApiError::of_field(StatusCode::NOT_FOUND, "model", what)
        })
    }

    /// A number of its own for each request.
    pub fn request(&self) -> u64 {
        self.requests.fetch_add(1, Ordering::Relaxed)
    }

    /// Queues the texts of a request; their events come with the number of the text.
    pub fn submit(&self, model: usize, wanted: Vec<Wanted>) -> Result<UnboundedReceiver<(usize, Event)>, ApiError> {
        let (events, received) = unbounded_channel();
        for (choice, Wanted { prompt, options, score }) in wanted.into_iter().enumerate() {
            let job = Job { model, choice, prompt, options, score, events: events.clone() };
            let stopped = |_| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the thread of the models has stopped");
            self.queue.send(job).map_err(stopped)?;
        }
        Ok(received)
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}
