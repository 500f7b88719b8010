//! SentencePiece's BPE (`llama`): tokens with scores. Two neighbours that make a token are joined, the one with the highest
//! score first, which is what merges in the order of the scores do.

use super::vocabulary::{CONTROL, Parts, Vocabulary};
use crate::Result;
use serde_json::{Value, json};
use std::collections::HashMap;

/// Kinds that no merge makes: unknown, and single bytes.
const UNKNOWN: f64 = 2.0;
const BYTE: f64 = 6.0;

/// The character for a space.
const SPACE: &str = "▁";

pub(super) fn parts(vocabulary: &Vocabulary<'_>) -> Result<Parts> {
    const SCORES: &str = "tokenizer.ggml.scores";
    let file = vocabulary.file;
    let scores = file.numbers(SCORES)?.ok_or_else(|| file.error(SCORES, "is missing"))?;
    if scores.len() != vocabulary.tokens.len() {
        let what = format!("has {} entries for {} tokens", scores.len(), vocabulary.tokens.len());
        return Err(file.error(SCORES, what));
    }
    if file.flag("tokenizer.ggml.remove_extra_whitespaces")? == Some(true) {
        let what = "true is not supported: spaces would be removed from texts";
        return Err(file.error("tokenizer.ggml.remove_extra_whitespaces", what));
    }
    let prefix = file.flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE});
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    let normalizer = match prefix {
        true => {
            decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
            json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": SPACE}, replace]})
        }
        false => replace,
    };
    let bytes = (0..vocabulary.tokens.len()).any(|id| vocabulary.kind(id) == BYTE);
    let unknown = vocabulary.special("unknown")?.map(|(_, token)| token);
    Ok(Parts {
        normalizer,
        pre_tokenizer: Value::Null,
        decoder: json!({"type": "Sequence", "decoders": decoders}),
        model: json!({
            "type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": bytes, "ignore_merges": false,
            "vocab": vocabulary.ids(), "merges": merges(vocabulary, &scores),
        }),
        add_bos: true,
    })
}

/// All pairs of tokens that make a token, in the order of the scores of what they make.
fn merges(vocabulary: &Vocabulary<'_>, scores: &[f64]) -> Vec<Value> {
    let tokens = &vocabulary.tokens;
    let special = |id: usize| matches!(vocabulary.kind(id), UNKNOWN | CONTROL | BYTE);
    let mut ids: HashMap<&str, usize> = HashMap::with_capacity(tokens.len());
    for (id, token) in tokens.iter().enumerate().filter(|(id, _)| !special(*id)) {
        ids.entry(token).or_insert(id);
    }
    let mut found = Vec::new();
    for (&token, &id) in &ids {
        for (at, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(at);
            if let (Some(&l), Some(&r)) = (ids.get(left), ids.get(right)) {
                found.push((id, at, l, r));
            }
        }
    }
    // equal scores: what comes first in the vocabulary
    found.sort_unstable_by(|a, b| scores[b.0].total_cmp(&scores[a.0]).then_with(|| a.cmp(b)));
    found.into_iter().map(|(_, _, l, r)| json!([tokens[l], tokens[r]])).collect()
}
