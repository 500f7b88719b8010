//! Probabilities of tokens in answers.

use loram_io::tokenizer::TextTokenizer;
use loram_nn::TokenLogProb;
use serde_json::{Map, Value, json};

/// The text of a token. A piece of a character has no text: it is named by its id, as in vLLM.
fn text(tokenizer: &TextTokenizer, id: u32) -> String {
    match tokenizer.decode(&[id], false) {
        Ok(text) if !text.contains('\u{fffd}') && !text.is_empty() => text,
        _ => format!("token_id:{id}"),
    }
}

/// The object `logprobs` of a completion. `first` is the token of a prompt that has nothing before it.
pub(super) fn of_completion(tokenizer: &TextTokenizer, first: Option<u32>, found: &[TokenLogProb]) -> Value {
    let mut tokens: Vec<String> = first.iter().map(|&id| text(tokenizer, id)).collect();
    let mut values = vec![Value::Null; tokens.len()];
    let mut top = vec![Value::Null; tokens.len()];
    for one in found {
        tokens.push(text(tokenizer, one.id));
        values.push(json!(one.log_prob));
        let likeliest = one.top.iter().map(|&(id, p)| (text(tokenizer, id), json!(p)));
        top.push(Value::Object(likeliest.collect::<Map<_, _>>()));
    }
    let mut at = 0;
    let offsets: Vec<usize> = tokens
        .iter()
        .map(|token| {
            at += token.chars().count();
            at - token.chars().count()
        })
        .collect();
    json!({"tokens": tokens, "token_logprobs": values, "top_logprobs": top, "text_offset": offsets})
}

/// The object `logprobs` of an answer in a chat.
pub(super) fn of_chat(tokenizer: &TextTokenizer, found: &[TokenLogProb]) -> Value {
    let token = |id: u32, p: f32| {
        let text = text(tokenizer, id);
        json!({"token": text, "logprob": p, "bytes": text.as_bytes()})
    };
    let one = |one: &TokenLogProb| {
        let mut object = token(one.id, one.log_prob);
        object["top_logprobs"] = one.top.iter().map(|&(id, p)| token(id, p)).collect();
        object
    };
    json!({"content": found.iter().map(one).collect::<Vec<_>>()})
}
