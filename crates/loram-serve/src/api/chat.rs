//! `/v1/chat/completions`: answers in chats.

use super::error::ApiError;
use super::fields::Fields;
use super::logprobs;
use super::state::{State, Wanted, now};
use super::stream::{Shape, Text, reason, respond};
use axum::Json;
use axum::extract::State as Extract;
use axum::extract::rejection::JsonRejection;
use axum::response::Response;
use loram_io::chat::Message;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;

#[derive(Debug, Deserialize)]
pub(super) struct Request {
    messages: Vec<Message>,
    tools: Option<Value>,
    documents: Option<Value>,
    #[serde(default)]
    chat_template_kwargs: Map<String, Value>,
    #[serde(default)]
    logprobs: bool,
    top_logprobs: Option<usize>,
    #[serde(flatten)]
    fields: Fields,
}

/// The shape of answers.
struct Answer {
    state: Arc<State>,
    model: usize,
    id: String,
    created: u64,
    logprobs: bool,
    texts: usize,
}

impl Answer {
    fn object(&self, kind: &str, choices: Vec<Value>) -> Value {
        let name = &self.state.models[self.model].name;
        json!({"id": self.id, "object": kind, "created": self.created, "model": name, "choices": choices})
    }

    fn logprobs(&self, text: &Text) -> Value {
        match self.logprobs {
            true => logprobs::of_chat(&self.state.models[self.model].tokenizer, &text.made.logprobs),
            false => Value::Null,
        }
    }

    fn chunk(&self, choice: usize, delta: Value, logprobs: Value, finish: Option<&str>) -> Value {
        let choice = json!({"index": choice, "delta": delta, "logprobs": logprobs, "finish_reason": finish});
        self.object("chat.completion.chunk", vec![choice])
    }
}

impl Shape for Answer {
    fn begin(&self) -> Vec<Value> {
        let delta = || json!({"role": "assistant", "content": ""});
        (0..self.texts).map(|i| self.chunk(i, delta(), Value::Null, None)).collect()
    }

    fn piece(&self, choice: usize, text: &str) -> Value {
        self.chunk(choice, json!({"content": text}), Value::Null, None)
    }

    fn end(&self, choice: usize, text: &Text) -> Value {
        self.chunk(choice, json!({}), self.logprobs(text), Some(reason(&text.made)))
    }

    fn empty(&self) -> Value {
        self.object("chat.completion.chunk", Vec::new())
    }

    fn whole(&self, texts: &[Text]) -> Value {
        let choices = texts.iter().enumerate().map(|(i, text)| {
            let message = json!({"role": "assistant", "content": text.made.text});
            json!({"index": i, "message": message, "logprobs": self.logprobs(text), "finish_reason": reason(&text.made)})
        });
        self.object("chat.completion", choices.collect())
    }
}

pub(super) async fn answer(
    Extract(state): Extract<Arc<State>>,
    request: Result<Json<Request>, JsonRejection>,
) -> Result<Response, ApiError> {
    let Json(request) = request?;
    let model = state.model(request.fields.model.as_deref())?;
    let facts = &state.models[model];
    let template = facts.template.as_ref().map_err(|e| ApiError::invalid("messages", e.clone()))?;
    if request.messages.is_empty() {
        return Err(ApiError::invalid("messages", "expected at least one message"));
    }
    let mut context = request.chat_template_kwargs;
    for (name, value) in [("tools", request.tools), ("documents", request.documents)] {
        context.extend(value.filter(|v| !v.is_null()).map(|v| (name.to_string(), v)));
    }
    let rendered = template.render(&request.messages, &context, true);
    let rendered = rendered.map_err(|e| ApiError::invalid("messages", e.to_string()))?;
    let prompt =
        facts.tokenizer.encode(&rendered, false).map_err(|e| ApiError::invalid("messages", e.to_string()))?.ids;
    if prompt.is_empty() {
        return Err(ApiError::invalid("messages", "the chat template renders these messages as an empty prompt"));
    }
    let texts = request.fields.texts()?;
    let top = request.logprobs.then(|| request.top_logprobs.unwrap_or(0));
    let wanted = (0..texts).map(|i| {
        // to the end of the model's length where the request names no number
        let options = request.fields.options(&facts.chat, usize::MAX, top, i)?;
        Ok(Wanted { prompt: prompt.clone(), options, score: None })
    });
    let wanted = wanted.collect::<Result<Vec<_>, ApiError>>()?;
    let events = state.submit(model, wanted)?;
    let shape = Answer {
        id: format!("chatcmpl-{}", state.request()),
        created: now(),
        logprobs: request.logprobs,
        texts,
        model,
        state,
    };
    respond(events, texts, &request.fields, shape).await
}
