//! The tokens of a GGUF file, and the parts of a tokenizer that its kind decides.

use super::file::GgufFile;
use crate::Result;
use serde_json::{Map, Value, json};

/// Kinds of tokens, as the numbers in `tokenizer.ggml.token_type`.
pub(super) const CONTROL: f64 = 3.0;
const USER_DEFINED: f64 = 4.0;

/// Tokens of a file, by id.
pub(super) struct Vocabulary<'a> {
    pub file: &'a GgufFile,
    pub tokens: Vec<&'a str>,
    /// Kinds; without them, all are plain.
    pub kinds: Option<Vec<f64>>,
}

impl Vocabulary<'_> {
    pub fn kind(&self, id: usize) -> f64 {
        self.kinds.as_ref().map_or(1.0, |kinds| kinds[id])
    }

    /// A special token by the name in its key, e.g. `bos`.
    pub fn special(&self, name: &str) -> Result<Option<(u32, &str)>> {
        let key = format!("tokenizer.ggml.{name}_token_id");
        let Some(id) = self.file.whole(&key)? else { return Ok(None) };
        match usize::try_from(id).ok().and_then(|id| self.tokens.get(id)) {
            Some(token) => Ok(Some((id as u32, token))),
            // some files write a large number for "none"
            None if id >= u64::from(u32::MAX >> 1) => Ok(None),
            None => {
                let what = format!("{id} is no token: there are {}", self.tokens.len());
                Err(self.file.error(&key, what))
            }
        }
    }

    /// The object from tokens to ids; of equal tokens the first counts.
    pub fn ids(&self) -> Map<String, Value> {
        let mut out = Map::with_capacity(self.tokens.len());
        for (id, token) in self.tokens.iter().enumerate() {
            out.entry(*token).or_insert_with(|| id.into());
        }
        out
    }

    /// Control tokens and those that users defined, which are found in a text before anything else.
    pub fn added(&self) -> Vec<Value> {
        let added = |id: &usize| matches!(self.kind(*id), CONTROL | USER_DEFINED) && !self.tokens[*id].is_empty();
        let entry = |id: usize| {
            json!({
                "id": id, "content": self.tokens[id], "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": self.kind(id) == CONTROL,
            })
        };
        (0..self.tokens.len()).filter(added).map(entry).collect()
    }
}

/// The parts of `tokenizer.json` that differ between the kinds of tokenizers.
pub(super) struct Parts {
    pub normalizer: Value,
    pub pre_tokenizer: Value,
    pub decoder: Value,
    pub model: Value,
    /// A text begins with the token for it, where the file does not say so.
    pub add_bos: bool,
}
