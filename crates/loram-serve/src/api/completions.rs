//! `/v1/completions`: texts that continue prompts.

use super::error::ApiError;
use super::fields::{Fields, MOST_IN_ALL};
use super::logprobs;
use super::state::{State, Wanted, now};
use super::stream::{Shape, Text, reason, respond};
use axum::Json;
use axum::extract::State as Extract;
use axum::extract::rejection::JsonRejection;
use axum::response::Response;
use loram_train::generate::prompt_ids;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// New tokens where a request names no number, as at OpenAI's.
const TOKENS: usize = 16;

/// A text, its tokens, or several of them.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Prompt {
    Text(String),
    Texts(Vec<String>),
    Ids(Vec<u32>),
    ManyIds(Vec<Vec<u32>>),
}

#[derive(Debug, Deserialize)]
pub(super) struct Request {
    prompt: Prompt,
    #[serde(default)]
    echo: bool,
    logprobs: Option<usize>,
    #[serde(flatten)]
    fields: Fields,
}

/// The shape of answers.
struct Completion {
    state: Arc<State>,
    model: usize,
    id: String,
    created: u64,
    echo: bool,
    logprobs: bool,
    /// Of each text: its prompt.
    prompts: Vec<Vec<u32>>,
}

impl Completion {
    fn object(&self, choices: Vec<Value>) -> Value {
        let name = &self.state.models[self.model].name;
        json!({"id": self.id, "object": "text_completion", "created": self.created, "model": name, "choices": choices})
    }

    fn prompt_text(&self, choice: usize) -> String {
        let tokenizer = &self.state.models[self.model].tokenizer;
        tokenizer.decode(&self.prompts[choice], true).unwrap_or_default()
    }

    fn logprobs(&self, choice: usize, text: &Text) -> Value {
        if !self.logprobs {
            return Value::Null;
        }
        let first = self.echo.then(|| self.prompts[choice].first().copied()).flatten();
        let all = [&text.prompt[..], &text.made.logprobs].concat();
        logprobs::of_completion(&self.state.models[self.model].tokenizer, first, &all)
    }

    fn choice(&self, choice: usize, text: &str, logprobs: Value, finish: Option<&str>) -> Value {
        json!({"index": choice, "text": text, "logprobs": logprobs, "finish_reason": finish})
    }
}

impl Shape for Completion {
    fn begin(&self) -> Vec<Value> {
        let echoed = if self.echo { self.prompts.len() } else { 0 };
        (0..echoed).map(|i| self.piece(i, &self.prompt_text(i))).collect()
    }

    fn piece(&self, choice: usize, text: &str) -> Value {
        self.object(vec![self.choice(choice, text, Value::Null, None)])
    }

    fn end(&self, choice: usize, text: &Text) -> Value {
        self.object(vec![self.choice(choice, "", self.logprobs(choice, text), Some(reason(&text.made)))])
    }

    fn empty(&self) -> Value {
        self.object(Vec::new())
    }

    fn whole(&self, texts: &[Text]) -> Value {
        let choices = texts.iter().enumerate().map(|(i, text)| {
            let before = if self.echo { self.prompt_text(i) } else { String::new() };
            self.choice(i, &(before + &text.made.text), self.logprobs(i, text), Some(reason(&text.made)))
        });
        self.object(choices.collect())
    }
}

pub(super) async fn complete(
    Extract(state): Extract<Arc<State>>,
    request: Result<Json<Request>, JsonRejection>,
) -> Result<Response, ApiError> {
    let Json(request) = request?;
    let model = state.model(request.fields.model.as_deref())?;
    let facts = &state.models[model];
    let prompts: Vec<Vec<u32>> = match request.prompt {
        Prompt::Ids(ids) => vec![ids],
        Prompt::ManyIds(many) => many,
        Prompt::Text(text) => vec![ids_of(&state, model, &text)?],
        Prompt::Texts(texts) => texts.iter().map(|t| ids_of(&state, model, t)).collect::<Result<_, _>>()?,
    };
    if prompts.is_empty() || prompts.iter().any(Vec::is_empty) {
        return Err(ApiError::invalid("prompt", "expected at least one token"));
    }
    let each = request.fields.texts()?;
    if prompts.len() * each > MOST_IN_ALL {
        let what = format!("{} prompts with {each} texts each: expected at most {MOST_IN_ALL} texts", prompts.len());
        return Err(ApiError::invalid("prompt", what));
    }
    let prompts: Vec<Vec<u32>> = prompts.into_iter().flat_map(|p| vec![p; each]).collect();
    let score = request.logprobs.filter(|_| request.echo);
    let wanted = prompts.iter().enumerate().map(|(i, prompt)| {
        let options = request.fields.options(&facts.text, TOKENS, request.logprobs, i)?;
        Ok(Wanted { prompt: prompt.clone(), options, score })
    });
    let wanted = wanted.collect::<Result<Vec<_>, ApiError>>()?;
    let events = state.submit(model, wanted)?;
    let texts = prompts.len();
    let shape = Completion {
        id: format!("cmpl-{}", state.request()),
        created: now(),
        echo: request.echo,
        logprobs: request.logprobs.is_some(),
        model,
        prompts,
        state,
    };
    respond(events, texts, &request.fields, shape).await
}

fn ids_of(state: &State, model: usize, text: &str) -> Result<Vec<u32>, ApiError> {
    prompt_ids(&state.models[model].tokenizer, text).map_err(|e| ApiError::invalid("prompt", e.to_string()))
}
