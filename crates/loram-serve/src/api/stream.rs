//! From events to answers: all at once, or piece by piece as server-sent events.

use super::error::ApiError;
use super::fields::Fields;
use crate::worker::Event;
use axum::Json;
use axum::http::StatusCode;
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use loram_nn::TokenLogProb;
use loram_train::generate::{Finish, Generated};
use serde_json::{Value, json};
use std::convert::Infallible;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_stream::wrappers::UnboundedReceiverStream;

/// A text with the probabilities of its prompt.
pub(super) struct Text {
    pub made: Generated,
    /// From the second token of the prompt on.
    pub prompt: Vec<TokenLogProb>,
}

/// The kind of an answer, as JSON.
pub(super) trait Shape: Send + 'static {
    /// Chunks that come before anything else.
    fn begin(&self) -> Vec<Value>;

    /// A piece of a text.
    fn piece(&self, choice: usize, text: &str) -> Value;

    /// The end of a text.
    fn end(&self, choice: usize, text: &Text) -> Value;

    /// A chunk without texts, for the number of tokens after all of them.
    fn empty(&self) -> Value;

    /// The answer that is not streamed, without the number of tokens.
    fn whole(&self, texts: &[Text]) -> Value;
}

/// Answers a request for so many texts: piece by piece where it asks for that, else when all are done.
pub(super) async fn respond(
    events: UnboundedReceiver<(usize, Event)>,
    texts: usize,
    fields: &Fields,
    shape: impl Shape,
) -> Result<Response, ApiError> {
    if fields.stream == Some(true) {
        return Ok(stream(events, texts, fields.usage(), shape));
    }
    let made = collect(events, texts).await?;
    let mut object = shape.whole(&made);
    object["usage"] = usage(&made);
    Ok(Json(object).into_response())
}

/// Waits for all texts.
async fn collect(mut events: UnboundedReceiver<(usize, Event)>, texts: usize) -> Result<Vec<Text>, ApiError> {
    let mut prompts: Vec<Vec<TokenLogProb>> = (0..texts).map(|_| Vec::new()).collect();
    let mut made: Vec<Option<Text>> = (0..texts).map(|_| None).collect();
    while let Some((choice, event)) = events.recv().await {
        match event {
            Event::Scored(found) => prompts[choice] = found,
            Event::Piece(_) => {}
            Event::Done(text) => made[choice] = Some(Text { made: text, prompt: std::mem::take(&mut prompts[choice]) }),
            Event::Failed(what) => return Err(ApiError::new(StatusCode::BAD_REQUEST, what)),
        }
        if made.iter().all(Option::is_some) {
            return Ok(made.into_iter().flatten().collect());
        }
    }
    Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the thread of the models has stopped"))
}

/// Sends texts as they are written.
fn stream(mut events: UnboundedReceiver<(usize, Event)>, texts: usize, count: bool, shape: impl Shape) -> Response {
    let (chunks, received) = unbounded_channel::<Result<sse::Event, Infallible>>();
    // its end closes `events`, which stops texts that nobody reads
    tokio::spawn(async move {
        let send = |chunk: Value| chunks.send(Ok(sse::Event::default().data(chunk.to_string()))).is_ok();
        let mut done = Vec::new();
        let mut prompts: Vec<Vec<TokenLogProb>> = (0..texts).map(|_| Vec::new()).collect();
        if !shape.begin().into_iter().all(send) {
            return;
        }
        while done.len() < texts {
            let received = tokio::select! {
                received = events.recv() => received,
                () = chunks.closed() => return,
            };
            let Some((choice, event)) = received else { return };
            let chunk = match event {
                Event::Scored(found) => {
                    prompts[choice] = found;
                    continue;
                }
                Event::Piece(text) => shape.piece(choice, &text),
                Event::Done(made) => {
                    done.push(Text { made, prompt: std::mem::take(&mut prompts[choice]) });
                    shape.end(choice, &done[done.len() - 1])
                }
                Event::Failed(what) => {
                    send(ApiError::new(StatusCode::BAD_REQUEST, what).json());
                    return;
                }
            };
            if !send(chunk) {
                return;
            }
        }
        if count {
            let mut last = shape.empty();
            last["usage"] = usage(&done);
            send(last);
        }
        // the last line of the protocol
        let _ = chunks.send(Ok(sse::Event::default().data("[DONE]")));
    });
    Sse::new(UnboundedReceiverStream::new(received)).keep_alive(KeepAlive::default()).into_response()
}

/// The object `usage`.
fn usage(texts: &[Text]) -> Value {
    let prompt: usize = texts.iter().map(|t| t.made.prompt_tokens).sum();
    let completion: usize = texts.iter().map(|t| t.made.token_ids.len()).sum();
    json!({"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion})
}

/// `finish_reason`.
pub(super) fn reason(made: &Generated) -> &'static str {
    match made.finish {
        Finish::Length => "length",
        Finish::Eos | Finish::Stopped => "stop",
    }
}
