//! The tokenizer in a GGUF file, as the files that a model folder has for it.

use super::bpe;
use super::file::GgufFile;
use super::sentencepiece;
use crate::Result;
use crate::limits::MAX_SIDE;
use serde_json::{Map, Value, json};

/// Kinds of tokens, as the numbers in `tokenizer.ggml.token_type`.
pub(super) const CONTROL: f64 = 3.0;
const USER_DEFINED: f64 = 4.0;

/// The contents of `tokenizer.json` and `tokenizer_config.json`.
pub(crate) struct TokenizerFiles {
    /// `tokenizer.json`.
    pub tokenizer: Value,
    /// `tokenizer_config.json`: special tokens and chat template.
    pub settings: Map<String, Value>,
}

/// Tokens of a file, by id.
pub(super) struct Vocabulary<'a> {
    pub file: &'a GgufFile,
    pub tokens: Vec<&'a str>,
    /// Kinds; without them, all are plain.
    kinds: Option<Vec<f64>>,
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
    fn added(&self) -> Vec<Value> {
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

/// Reads the tokenizer. Errors: none there; a kind that is not known; lists that do not fit.
pub(crate) fn tokenizer_files(file: &GgufFile) -> Result<TokenizerFiles> {
    const KIND: &str = "tokenizer.ggml.model";
    const TOKENS: &str = "tokenizer.ggml.tokens";
    let Some(kind) = file.text(KIND)? else {
        return Err(file.error(KIND, "is missing: the file has no tokenizer"));
    };
    let read = match kind {
        "gpt2" => bpe::parts,
        "llama" => sentencepiece::parts,
        other => {
            let what = format!("`{other}` is not a kind of tokenizer that is supported; supported: gpt2, llama");
            return Err(file.error(KIND, what));
        }
    };
    let tokens = file.texts(TOKENS)?.ok_or_else(|| file.error(TOKENS, "is missing"))?;
    if tokens.is_empty() || tokens.len() > MAX_SIDE {
        return Err(file.error(TOKENS, format!("has {} tokens, expected 1 to {MAX_SIDE}", tokens.len())));
    }
    let kinds = file.numbers("tokenizer.ggml.token_type")?;
    if let Some(kinds) = kinds.as_ref().filter(|k| k.len() != tokens.len()) {
        let what = format!("has {} entries for {} tokens", kinds.len(), tokens.len());
        return Err(file.error("tokenizer.ggml.token_type", what));
    }
    let vocabulary = Vocabulary { file, tokens, kinds };
    let parts = read(&vocabulary)?;
    let edge = |name: &str, default: bool| -> Result<Option<(u32, &str)>> {
        match file.flag(&format!("tokenizer.ggml.add_{name}_token"))?.unwrap_or(default) {
            true => vocabulary.special(name),
            false => Ok(None),
        }
    };
    let (bos, eos) = (edge("bos", parts.add_bos)?, edge("eos", false)?);
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": vocabulary.added(),
        "normalizer": parts.normalizer,
        "pre_tokenizer": parts.pre_tokenizer,
        "post_processor": template(bos, eos),
        "decoder": parts.decoder,
        "model": parts.model,
    });
    let mut settings = Map::new();
    for (name, key) in [
        ("bos", "bos_token"),
        ("eos", "eos_token"),
        ("unknown", "unk_token"),
        ("padding", "pad_token"),
        ("mask", "mask_token"),
    ] {
        if let Some((_, token)) = vocabulary.special(name)? {
            settings.insert(key.into(), token.into());
        }
    }
    if let Some(template) = file.text("tokenizer.chat_template")? {
        settings.insert("chat_template".into(), template.into());
    }
    settings.insert("tokenizer_class".into(), "PreTrainedTokenizerFast".into());
    Ok(TokenizerFiles { tokenizer, settings })
}

/// The tokens around a text, and around each of two.
fn template(bos: Option<(u32, &str)>, eos: Option<(u32, &str)>) -> Value {
    if bos.is_none() && eos.is_none() {
        return Value::Null;
    }
    let sequence = |name: &str, segment: u8| {
        let special = |token: Option<(u32, &str)>| {
            token.map(|(_, text)| json!({"SpecialToken": {"id": text, "type_id": segment}}))
        };
        let own = json!({"Sequence": {"id": name, "type_id": segment}});
        special(bos).into_iter().chain([own]).chain(special(eos)).collect::<Vec<_>>()
    };
    let tokens: Map<String, Value> = [bos, eos]
        .into_iter()
        .flatten()
        .map(|(id, text)| (text.to_string(), json!({"id": text, "ids": [id], "tokens": [text]})))
        .collect();
    let pair = [sequence("A", 0), sequence("B", 1)].concat();
    json!({
        "type": "TemplateProcessing",
        "single": sequence("A", 0),
        "pair": pair,
        "special_tokens": tokens,
    })
}
