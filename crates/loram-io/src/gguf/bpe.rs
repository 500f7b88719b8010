//! Byte-level BPE (`gpt2`): tokens in GPT-2's alphabet of bytes, merges in order, and a named way to cut a text before.

use super::vocabulary::{Parts, Vocabulary};
use crate::Result;
use serde_json::{Value, json};

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const DIGIT: &str = r"\p{N}";

/// How a text is cut before merging.
struct Cut {
    /// Names in `tokenizer.ggml.pre`.
    names: &'static [&'static str],
    /// Patterns, one after another.
    patterns: &'static [&'static str],
    /// Unicode is composed first (NFC).
    composed: bool,
    /// A piece that is a token is not made of merges.
    ignore_merges: bool,
    /// A text begins with the token for it.
    add_bos: bool,
}

const PLAIN: Cut = Cut { names: &[], patterns: &[], composed: false, ignore_merges: false, add_bos: false };

/// As in the `tokenizer.json` of the models that these names stand for.
const CUTS: [Cut; 6] = [
    Cut { names: &["gpt-2", "gpt2", "phi-2", "olmo", "mpt", "exaone"], patterns: &[GPT2], ..PLAIN },
    Cut { names: &["smollm", "starcoder", "refact", "command-r", "codeshell"], patterns: &[DIGIT, GPT2], ..PLAIN },
    Cut {
        names: &["llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral"],
        patterns: &[LLAMA3],
        ignore_merges: true,
        add_bos: true,
        ..PLAIN
    },
    Cut { names: &["dbrx", "smaug-bpe"], patterns: &[LLAMA3], ..PLAIN },
    Cut { names: &["qwen2", "deepseek-r1-qwen", "megrez"], patterns: &[QWEN2], composed: true, ..PLAIN },
    Cut { names: &["tekken"], patterns: &[TEKKEN], ignore_merges: true, add_bos: true, ..PLAIN },
];

pub(super) fn parts(vocabulary: &Vocabulary<'_>) -> Result<Parts> {
    const PRE: &str = "tokenizer.ggml.pre";
    const MERGES: &str = "tokenizer.ggml.merges";
    let file = vocabulary.file;
    let name = file.text(PRE)?.unwrap_or("missing");
    let Some(cut) = CUTS.iter().find(|cut| cut.names.contains(&name)) else {
        let known: Vec<&str> = CUTS.iter().flat_map(|cut| cut.names).copied().collect();
        let what = format!("`{name}` is not a supported way to cut texts; supported: {}", known.join(", "));
        return Err(file.error(PRE, what));
    };
    let merges = file.texts(MERGES)?.ok_or_else(|| file.error(MERGES, "is missing"))?;
    let pairs = merges.iter().map(|merge| match merge.split_once(' ') {
        Some((left, right)) => Ok(json!([left, right])),
        None => Err(file.error(MERGES, format!("{merge:?} is not two tokens with a space between"))),
    });
    let pairs: Vec<Value> = pairs.collect::<Result<_>>()?;
    let split = |pattern: &&str| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false});
    let cuts: Vec<Value> = cut.patterns.iter().map(split).chain([bytes]).collect();
    Ok(Parts {
        normalizer: if cut.composed { json!({"type": "NFC"}) } else { Value::Null },
        pre_tokenizer: json!({"type": "Sequence", "pretokenizers": cuts}),
        decoder: json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}),
        model: json!({
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": cut.ignore_merges, "vocab": vocabulary.ids(), "merges": pairs,
        }),
        add_bos: cut.add_bos,
    })
}
