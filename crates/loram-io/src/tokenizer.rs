//! Tokenizers of Hugging Face folders and GGUF files, through the `tokenizers` crate.

use crate::caught::caught;
use crate::config::CONFIG_FILE;
use crate::gguf::{GgufFile, TokenizerFiles, is_gguf, tokenizer_files};
use crate::limits::MAX_TEXT;
use crate::{Error, Result, input, lfs, long_text};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokenizers::{Tokenizer, TruncationDirection, TruncationParams, TruncationStrategy};

/// A tokenizer with the special tokens and the chat template of its folder.
#[derive(Clone)]
pub struct TextTokenizer {
    inner: Tokenizer,
    dir: PathBuf,
    /// The file that errors name.
    file: PathBuf,
    bos: Option<u32>,
    eos: Option<u32>,
    special: Map<String, Value>,
    chat_template: Option<String>,
    max_length: Option<usize>,
    /// Words that are encoded one by one get a space before them.
    spaces_words: bool,
    /// The tokenizer that truncates to a length.
    cut: Arc<Mutex<Option<Cut>>>,
}

/// A tokenizer that truncates to a length.
type Cut = (usize, Arc<Tokenizer>);

/// A text whose tokens show what is added around one.
const SAMPLE: &str = "a text";

/// Token ids with the byte range of the text that each came from.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Encoded {
    /// Ids.
    pub ids: Vec<u32>,
    /// Start and end in bytes; empty for special tokens that were added.
    pub offsets: Vec<(usize, usize)>,
    /// Segment per token.
    pub type_ids: Vec<u32>,
}

impl Encoded {
    fn of(e: &tokenizers::Encoding) -> Encoded {
        Encoded { ids: e.get_ids().to_vec(), offsets: e.get_offsets().to_vec(), type_ids: e.get_type_ids().to_vec() }
    }
}

impl TextTokenizer {
    /// Reads `tokenizer.json`, `tokenizer_config.json`, `special_tokens_map.json` and the chat template of a model
    /// folder, or the tokenizer in a GGUF file. Truncation and padding that `tokenizer.json` may ask for are switched off.
    pub fn load(dir: impl AsRef<Path>) -> Result<TextTokenizer> {
        let dir = dir.as_ref();
        if is_gguf(dir) {
            let TokenizerFiles { tokenizer, settings } = tokenizer_files(&GgufFile::open(dir)?)?;
            let inner = library(dir, || serde_json::from_value(tokenizer).map_err(Into::into))?;
            return Ok(TextTokenizer {
                chat_template: settings.get("chat_template").and_then(Value::as_str).map(str::to_string),
                ..TextTokenizer::new(dir, dir.to_path_buf(), inner, &settings, Map::new(), &Map::new())
            });
        }
        let path = dir.join("tokenizer.json");
        if !path.exists() {
            let slow = ["tokenizer.model", "vocab.json", "vocab.txt", "spiece.model"];
            let found: Vec<_> = slow.into_iter().filter(|f| dir.join(f).exists()).collect();
            let hint = match found.is_empty() {
                true => "copy it from the model's page, or give the folder that has it".to_string(),
                false => format!(
                    "there is only {}: load it once with transformers' AutoTokenizer and call save_pretrained",
                    found.join(", ")
                ),
            };
            return Err(Error::NotFound { path, what: format!("no tokenizer here; {hint}") });
        }
        let bytes = input::read(&path, MAX_TEXT)?;
        if lfs::is_pointer(&bytes) {
            return Err(Error::json(&path, lfs::POINTER));
        }
        let inner = library(&path, || Tokenizer::from_bytes(&bytes))?;
        let settings = optional_object(&dir.join("tokenizer_config.json"))?;
        let special = optional_object(&dir.join("special_tokens_map.json"))?;
        let config = optional_object(&dir.join(CONFIG_FILE))?;
        Ok(TextTokenizer {
            chat_template: chat_template(dir, &settings)?,
            ..TextTokenizer::new(dir, path, inner, &settings, special, &config)
        })
    }

    /// A tokenizer without a chat template: `special` from `special_tokens_map.json`, `config` from `config.json`.
    fn new(
        dir: &Path,
        file: PathBuf,
        inner: Tokenizer,
        settings: &Map<String, Value>,
        mut special: Map<String, Value>,
        config: &Map<String, Value>,
    ) -> TextTokenizer {
        special.extend(
            settings.iter().filter(|(k, v)| k.ends_with("_token") && !v.is_null()).map(|(k, v)| (k.clone(), v.clone())),
        );
        let id = |key: &str| {
            let named = special.get(key).and_then(token_text).and_then(|t| inner.token_to_id(t));
            let first = |v: &Value| v.as_u64().or_else(|| v.as_array()?.first()?.as_u64());
            named.or_else(|| config.get(&format!("{key}_id")).and_then(first).and_then(|i| u32::try_from(i).ok()))
        };
        let (bos, eos) = (id("bos_token"), id("eos_token"));
        TextTokenizer {
            bos,
            eos,
            chat_template: None,
            // transformers writes 1e30 for "no limit"
            max_length: settings
                .get("model_max_length")
                .and_then(Value::as_f64)
                .filter(|&n| (1.0..1e9).contains(&n))
                .map(|n| n as usize),
            special,
            dir: dir.to_path_buf(),
            file,
            spaces_words: spaces_words(&inner),
            cut: Arc::default(),
            inner,
        }
    }

    /// The folder or GGUF file it came from.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// First token of a text, if the model has one.
    pub fn bos_id(&self) -> Option<u32> {
        self.bos
    }

    /// End of a text.
    pub fn eos_id(&self) -> Option<u32> {
        self.eos
    }

    /// The text of a special token, e.g. `eos_token`.
    pub fn special(&self, key: &str) -> Option<&str> {
        self.special.get(key).and_then(token_text)
    }

    /// Special tokens by key, for templates.
    pub(crate) fn specials(&self) -> impl Iterator<Item = (&str, &str)> {
        self.special.iter().filter_map(|(k, v)| Some((k.as_str(), token_text(v)?)))
    }

    /// The model's chat template (Jinja).
    pub fn chat_template(&self) -> Option<&str> {
        self.chat_template.as_deref()
    }

    /// `model_max_length`, if it is a limit.
    pub fn max_length(&self) -> Option<usize> {
        self.max_length
    }

    /// Number of tokens, added ones included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The id of a token.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Ids of a text; `special` adds what the model expects around it (`[CLS]`, BOS, …).
    pub fn encode(&self, text: &str, special: bool) -> Result<Encoded> {
        self.run(|| self.inner.encode(text, special)).map(|e| Encoded::of(&e))
    }

    /// Ids of a text of any length, with the memory of a part of it; as those of [`TextTokenizer::encode`].
    pub fn encode_long(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        let tokens = |piece: &str| self.encode(piece, false).map(|e| (e.ids, e.offsets));
        let Some(ids) = long_text::ids(text, tokens)? else { return Ok(self.encode(text, special)?.ids) };
        if !special {
            return Ok(ids);
        }
        // what is added around a text
        let (with, without) = (self.encode(SAMPLE, true)?.ids, self.encode(SAMPLE, false)?.ids);
        let Some(at) = with.windows(without.len().max(1)).position(|w| w == without) else {
            return Ok(self.encode(text, special)?.ids);
        };
        Ok([&with[..at], &ids, &with[at + without.len()..]].concat())
    }

    /// Ids of one or two texts with special tokens, truncated to `max_length` (the longer text first), as encoders expect them.
    pub fn encode_cut(&self, text: &str, pair: Option<&str>, max_length: usize) -> Result<(Encoded, bool)> {
        let cut = self.cutting(max_length)?;
        let run = |t: &Tokenizer| match pair {
            Some(p) => t.encode((text, p), true),
            None => t.encode(text, true),
        };
        let encoding = self.run(|| run(&cut))?;
        let truncated = !encoding.get_overflowing().is_empty();
        Ok((Encoded::of(&encoding), truncated))
    }

    /// Ids of words that are one text, with special tokens, truncated to `max_length`: as transformers' `is_split_into_words`, with
    /// `add_prefix_space` where the tokenizer writes spaces into its tokens. Returns the number of each token's word, none for
    /// special tokens, and whether the text was truncated. Offsets are within words.
    pub fn encode_words(&self, words: &[String], max_length: usize) -> Result<(Encoded, Vec<Option<usize>>, bool)> {
        let cut = self.cutting(max_length)?;
        let word = |word: &String| match self.spaces_words && !word.starts_with(' ') {
            true => format!(" {word}"),
            false => word.clone(),
        };
        let words: Vec<String> = words.iter().map(word).collect();
        let encoding = self.run(|| cut.encode(&words[..], true))?;
        let of_word = encoding.get_word_ids().iter().map(|w| w.map(|w| w as usize)).collect();
        let truncated = !encoding.get_overflowing().is_empty();
        Ok((Encoded::of(&encoding), of_word, truncated))
    }

    /// The tokenizer with truncation to `max_length`, of the longer text first. The last one is kept: a copy takes longer than a text.
    fn cutting(&self, max_length: usize) -> Result<Arc<Tokenizer>> {
        let kept = self.cut.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, cut)) = kept.filter(|kept| kept.0 == max_length) {
            return Ok(cut);
        }
        let mut cut = self.inner.clone();
        let how = TruncationParams {
            max_length,
            strategy: TruncationStrategy::LongestFirst,
            stride: 0,
            direction: TruncationDirection::Right,
        };
        cut.with_truncation(Some(how)).map_err(|e| Error::Usage(format!("max_length {max_length}: {e}")))?;
        let cut = Arc::new(cut);
        *self.cut.lock().unwrap_or_else(PoisonError::into_inner) = Some((max_length, cut.clone()));
        Ok(cut)
    }

    /// Runs the library; it panics on some tokenizers that it has read without complaint.
    fn run<T>(&self, run: impl FnOnce() -> tokenizers::Result<T>) -> Result<T> {
        caught(run)
            .map_err(|panic| damaged(&self.file, &panic))?
            .map_err(|e| Error::json(&self.file, format!("cannot tokenise: {e}")))
    }

    /// The text of ids.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        self.run(|| self.inner.decode(ids, skip_special))
    }

    /// Returns a decoder for ids that come one at a time.
    pub fn stream(&self) -> StreamDecoder<'_> {
        StreamDecoder { tokenizer: self, ids: Vec::new(), printed: 0, from: 0 }
    }
}

/// Decodes ids one at a time, holding back incomplete characters.
pub struct StreamDecoder<'a> {
    tokenizer: &'a TextTokenizer,
    ids: Vec<u32>,
    /// Number of ids whose text has been returned.
    printed: usize,
    /// First id that still counts as context for spaces.
    from: usize,
}

impl StreamDecoder<'_> {
    /// Adds an id and returns the text that is now complete.
    pub fn push(&mut self, id: u32) -> Result<String> {
        self.ids.push(id);
        let before = self.tokenizer.decode(&self.ids[self.from..self.printed], true)?;
        let now = self.tokenizer.decode(&self.ids[self.from..], true)?;
        // a replacement character at the end is an incomplete character
        if now.len() <= before.len() || now.ends_with('\u{fffd}') {
            return Ok(String::new());
        }
        let new = now.strip_prefix(&before).unwrap_or(&now).to_string();
        self.from = self.printed;
        self.printed = self.ids.len();
        Ok(new)
    }

    /// Returns the text that was held back.
    pub fn finish(self) -> Result<String> {
        let before = self.tokenizer.decode(&self.ids[self.from..self.printed], true)?;
        let now = self.tokenizer.decode(&self.ids[self.from..], true)?;
        Ok(now.strip_prefix(&before).unwrap_or_default().to_string())
    }
}

/// A tokenizer as the library reads it from `file`, without truncation and padding.
fn library(file: &Path, read: impl FnOnce() -> tokenizers::Result<Tokenizer>) -> Result<Tokenizer> {
    let plain = || {
        let mut inner = read()?;
        inner.with_truncation(None)?;
        inner.with_padding(None);
        tokenizers::Result::Ok(inner)
    };
    caught(plain)
        .map_err(|panic| damaged(file, &panic))?
        .map_err(|e| Error::json(file, format!("not a valid tokenizer: {e}")))
}

/// A token in a configuration: a string, or an object with its `content`.
fn token_text(v: &Value) -> Option<&str> {
    v.as_str().or_else(|| v.get("content")?.as_str())
}

/// The error of a tokenizer on which the library panics.
fn damaged(path: &Path, panic: &str) -> Error {
    Error::json(path, format!("the tokenizer is damaged: the library that runs it stopped with \"{panic}\""))
}

/// True if a word in the middle of a text has the space before it in its token, and a word alone has not: a pre-tokenizer of bytes
/// that adds no space itself.
fn spaces_words(tokenizer: &Tokenizer) -> bool {
    fn bytes(v: &Value) -> bool {
        let is = |key: &str, value: Value| v.get(key) == Some(&value);
        let inner = v.get("pretokenizers").and_then(Value::as_array);
        (is("type", "ByteLevel".into()) && is("add_prefix_space", false.into()))
            || inner.is_some_and(|list| list.iter().any(bytes))
    }
    serde_json::to_value(tokenizer.get_pre_tokenizer()).is_ok_and(|v| bytes(&v))
}

fn optional_object(path: &Path) -> Result<Map<String, Value>> {
    match path.exists() {
        true => crate::config::read_object(path),
        false => Ok(Map::new()),
    }
}

/// `chat_template.jinja`, or `chat_template` in the settings: a string, or a list with one called `default`.
fn chat_template(dir: &Path, settings: &Map<String, Value>) -> Result<Option<String>> {
    let file = dir.join("chat_template.jinja");
    if file.exists() {
        return input::read_text(&file).map(Some);
    }
    let json = optional_object(&dir.join("chat_template.json"))?;
    Ok(match settings.get("chat_template").or(json.get("chat_template")) {
        Some(Value::String(s)) => Some(s.clone()),
        Some(Value::Array(list)) => {
            let named = |t: &&Value| t.get("name").and_then(Value::as_str) == Some("default");
            let one = list.iter().find(named).or(list.first());
            one.and_then(|t| t.get("template")?.as_str()).map(str::to_string)
        }
        _ => None,
    })
}
