//! The tokenizer in a GGUF file, as the files that a model folder has for it.

use super::bpe;
use super::file::GgufFile;
use super::sentencepiece;
use super::vocabulary::Vocabulary;
use crate::Result;
use crate::limits::MAX_SIDE;
use serde_json::{Map, Value, json};

/// The contents of `tokenizer.json` and `tokenizer_config.json`.
pub(crate) struct TokenizerFiles {
    /// `tokenizer.json`.
    pub tokenizer: Value,
    /// `tokenizer_config.json`: special tokens and chat template.
    pub settings: Map<String, Value>,
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
