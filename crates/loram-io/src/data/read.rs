//! Records out of files.

use super::demo;
use super::format::{Body, Format, Label, Record};
use crate::chat::{Chat, Message};
use crate::{Error, Result};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

/// The separator of documents in a text file.
pub const DOCUMENT_END: &str = "<|endoftext|>";

/// Where data are and how they are to be read.
#[derive(Debug, Clone, Default)]
pub struct DataSpec {
    /// Files (`.jsonl`, `.json`, either with `.gz`, `.txt`) or generated sources (`demo:…`).
    pub paths: Vec<String>,
    /// Shape of the records; recognised from their fields when absent.
    pub format: Option<Format>,
    /// Field that the format has → field that the file has.
    pub columns: BTreeMap<String, String>,
    /// Field of the text, for plain text (`dataset_text_field`).
    pub text_field: Option<String>,
    /// Take only the first so many records.
    pub max_samples: Option<usize>,
}

/// Reads all records. Errors name file and line: malformed JSON, a missing or mistyped field, formats that are mixed, an
/// empty set.
pub fn load_records(spec: &DataSpec) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    let mut format: Option<(Format, String)> = spec.format.map(|f| (f, String::new()));
    for path in &spec.paths {
        if path.starts_with(demo::PREFIX) {
            let pairs = demo::generate(path)?;
            records.extend(pairs.into_iter().enumerate().map(|(i, (prompt, completion))| Record {
                at: format!("{path}:{}", i + 1),
                body: Body::PromptCompletion { prompt, completion },
            }));
            continue;
        }
        for (at, raw) in raw_records(path)? {
            if spec.max_samples.is_some_and(|n| records.len() >= n) {
                break;
            }
            records.push(match raw {
                RawRecord::Document(text) => Record { at, body: Body::Stream(text) },
                RawRecord::Object(value) => record(spec, at, value, &mut format)?,
            });
        }
    }
    if let Some(n) = spec.max_samples {
        records.truncate(n);
    }
    if records.is_empty() {
        return Err(Error::Data { at: spec.paths.join(", "), what: "no records: the data set is empty".into() });
    }
    Ok(records)
}

/// A record as it stands in its file.
#[derive(Debug, Clone, PartialEq)]
pub enum RawRecord {
    /// A document of a text file.
    Document(String),
    /// A value of a JSON file, or a generated pair.
    Object(Value),
}

/// The records of one file or generated source, each with its place, before anything is made of their fields.
pub fn raw_records(path: &str) -> Result<Vec<(String, RawRecord)>> {
    if path.starts_with(demo::PREFIX) {
        let pair = |(i, (prompt, completion)): (usize, (String, String))| {
            let value = serde_json::json!({"prompt": prompt, "completion": completion});
            (format!("{path}:{}", i + 1), RawRecord::Object(value))
        };
        return Ok(demo::generate(path)?.into_iter().enumerate().map(pair).collect());
    }
    let file = Path::new(path);
    if !file.exists() {
        return Err(Error::NotFound { path: file.into(), what: "no such data file".into() });
    }
    let text = read_text(file)?;
    let name = path.strip_suffix(".gz").unwrap_or(path);
    if name.ends_with(".txt") {
        let documents = text.split(DOCUMENT_END).map(str::trim).filter(|d| !d.is_empty());
        let at = |i: usize| format!("{path}: document {}", i + 1);
        return Ok(documents.enumerate().map(|(i, d)| (at(i), RawRecord::Document(d.to_string()))).collect());
    }
    if ![".json", ".jsonl", ".ndjson"].iter().any(|e| name.ends_with(e)) {
        let what = "unknown kind of data file; expected .jsonl, .json, .txt, or .jsonl.gz and .json.gz";
        return Err(Error::NotFound { path: file.into(), what: what.into() });
    }
    Ok(objects(path, &text)?.into_iter().map(|(at, value)| (at, RawRecord::Object(value))).collect())
}

fn read_text(path: &Path) -> Result<String> {
    let io = |e| Error::io("read", path, e);
    let bytes = std::fs::read(path).map_err(io)?;
    let bytes = match path.extension().is_some_and(|e| e == "gz") {
        true => {
            let mut out = Vec::new();
            flate2::read::MultiGzDecoder::new(&bytes[..]).read_to_end(&mut out).map_err(io)?;
            out
        }
        false => bytes,
    };
    let text = String::from_utf8(bytes).map_err(|e| {
        let line = e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|&&b| b == b'\n').count() + 1;
        Error::Data { at: format!("{}:{line}", path.display()), what: "not UTF-8 text".into() }
    })?;
    Ok(text.strip_prefix('\u{feff}').map_or(text.clone(), str::to_string))
}

/// The objects of a JSON array, or of JSON Lines, each with its place.
fn objects(path: &str, text: &str) -> Result<Vec<(String, Value)>> {
    if text.trim_start().starts_with('[') {
        let list: Vec<Value> = serde_json::from_str(text)
            .map_err(|e| Error::Data { at: format!("{path}:{}", e.line()), what: format!("malformed JSON: {e}") })?;
        return Ok(list.into_iter().enumerate().map(|(i, v)| (format!("{path}: record {}", i + 1), v)).collect());
    }
    let lines = text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty());
    lines
        .map(|(i, line)| {
            let at = format!("{path}:{}", i + 1);
            match serde_json::from_str(line) {
                Ok(v) => Ok((at, v)),
                Err(e) => Err(Error::Data { what: format!("malformed JSON at column {}: {e}", e.column()), at }),
            }
        })
        .collect()
}

fn record(spec: &DataSpec, at: String, value: Value, format: &mut Option<(Format, String)>) -> Result<Record> {
    let bad = |what: String| Err(Error::Data { at: at.clone(), what });
    let Value::Object(mut fields) = value else {
        return bad("expected a JSON object".into());
    };
    let renames = spec.columns.iter().map(|(to, from)| (to.as_str(), from.as_str()));
    for (to, from) in renames.chain(spec.text_field.as_deref().map(|f| ("text", f))) {
        match fields.get(from) {
            Some(v) => drop(fields.insert(to.to_string(), v.clone())),
            None => {
                return bad(format!("no field `{from}` (given as the column of `{to}`); there are {}", names(&fields)));
            }
        }
    }
    let found = Format::of(&fields);
    let (wanted, first) = match (&*format, found) {
        (Some(f), _) => f.clone(),
        (None, Some(f)) => (f, at.clone()),
        (None, None) => {
            return bad(format!(
                "no known format in the fields {}; expected text, prompt + completion, messages, instruction + output, or \
                 text + label (columns can be renamed)",
                names(&fields)
            ));
        }
    };
    let compatible = match (wanted, found) {
        // whole numbers among others: 4 beside 3.5
        (Format::Regression, Some(Format::Classification)) | (Format::Classification, Some(Format::Regression)) => true,
        _ if spec.format.is_some() => true,
        (w, f) => f == Some(w),
    };
    if !compatible {
        let found = found.map_or(format!("the fields {}", names(&fields)), |f| format!("format {}", f.name()));
        return bad(format!("mixed formats: {found} here, {} at {first}", wanted.name()));
    }
    if format.is_none() {
        *format = Some((wanted, first));
    }
    Ok(Record { body: body(wanted, &fields, &at)?, at })
}

fn names(fields: &Map<String, Value>) -> String {
    fields.keys().map(|k| format!("`{k}`")).collect::<Vec<_>>().join(", ")
}

fn body(format: Format, fields: &Map<String, Value>, at: &str) -> Result<Body> {
    let error = |what: String| Error::Data { at: at.to_string(), what };
    let missing = |key: &str| {
        error(format!(
            "format {} needs {}: no field `{key}`, there are {}",
            format.name(),
            format.fields(),
            names(fields)
        ))
    };
    let string = |key: &str| match fields.get(key) {
        Some(Value::String(s)) => Ok(s.clone()),
        Some(other) => Err(error(format!("field `{key}`: expected a text, found {}", kind(other)))),
        None => Err(missing(key)),
    };
    let optional = |key: &str| match fields.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(_) => string(key).map(Some),
    };
    Ok(match format {
        Format::Text => Body::Text(string("text")?),
        Format::PromptCompletion => match (fields.get("prompt"), fields.get("completion")) {
            (Some(p @ Value::Array(_)), Some(c @ Value::Array(_))) => {
                let mut all = messages(p, "prompt", at)?;
                let counted_from = all.len();
                all.extend(messages(c, "completion", at)?);
                Body::Messages(Chat { messages: all, context: context(fields, at)?, counted_from })
            }
            _ => Body::PromptCompletion { prompt: string("prompt")?, completion: string("completion")? },
        },
        Format::Messages => match (fields.get("messages"), fields.get("conversations")) {
            (None, None) => return Err(missing("messages")),
            (m, n) => {
                let (list, key) = m.map(|m| (m, "messages")).or(n.map(|n| (n, "conversations"))).expect("one of both");
                let chat = Chat::new(messages(list, key, at)?);
                Body::Messages(Chat { context: context(fields, at)?, ..chat })
            }
        },
        Format::Alpaca => {
            let (instruction, output) = (string("instruction")?, string("output")?);
            let input = optional("input")?.filter(|s| !s.trim().is_empty());
            let below = "Below is an instruction that describes a task";
            let prompt = match input {
                Some(i) => format!(
                    "{below}, paired with an input that provides further context. Write a response that appropriately \
                     completes the request.\n\n### Instruction:\n{instruction}\n\n### Input:\n{i}\n\n### Response:\n"
                ),
                None => format!(
                    "{below}. Write a response that appropriately completes the request.\n\n### \
                     Instruction:\n{instruction}\n\n### Response:\n"
                ),
            };
            Body::PromptCompletion { prompt, completion: output }
        }
        Format::Classification | Format::Regression => {
            let label = match (fields.get("label"), format) {
                (Some(Value::Number(n)), Format::Regression) => match n.as_f64().filter(|x| x.is_finite()) {
                    Some(x) => Label::Value(x as f32),
                    None => return Err(error(format!("field `label`: {n}is not a finite number"))),
                },
                (Some(Value::Number(n)), _) => {
                    match n.as_u64().or(n.as_f64().filter(|x| x.fract() == 0.0 && *x >= 0.0).map(|x| x as u64)) {
                        Some(i) => Label::Id(i),
                        None => {
                            let what = "expected a name or a whole number (`task: regression` learns other numbers)";
                            return Err(error(format!("field `label`: {what}, found {n}")));
                        }
                    }
                }
                (Some(Value::String(s)), Format::Classification) => Label::Name(s.clone()),
                (Some(Value::Bool(b)), Format::Classification) => Label::Name(b.to_string()),
                (Some(other), Format::Regression) => {
                    return Err(error(format!(
                        "field `label`: expected a number to be predicted, found {}",
                        kind(other)
                    )));
                }
                (Some(other), _) => {
                    let what = "expected a name or a whole number";
                    return Err(error(format!("field `label`: {what}, found {}", kind(other))));
                }
                (None, _) => return Err(missing("label")),
            };
            Body::Labelled { text: string("text")?, pair: optional("text_pair")?, label }
        }
    })
}

fn kind(v: &Value) -> &'static str {
    match v {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Variables that a record gives to the chat template, in the columns of TRL: `tools` and `documents`, lists or JSON texts of
/// lists, and the entries of `chat_template_kwargs`.
fn context(fields: &Map<String, Value>, at: &str) -> Result<Map<String, Value>> {
    let mut out = Map::new();
    for key in ["tools", "documents"] {
        let Some(value) = fields.get(key).filter(|v| !v.is_null()) else { continue };
        let parsed = match value {
            Value::String(text) => serde_json::from_str(text).unwrap_or(Value::Null),
            other => other.clone(),
        };
        if !parsed.is_array() {
            let what = format!("field `{key}`: expected a list or its JSON text, found {}", kind(value));
            return Err(Error::Data { at: at.to_string(), what });
        }
        out.insert(key.into(), parsed);
    }
    match fields.get("chat_template_kwargs") {
        None | Some(Value::Null) => {}
        Some(Value::Object(map)) => out.extend(map.iter().map(|(k, v)| (k.clone(), v.clone()))),
        Some(other) => {
            let what = format!("field `chat_template_kwargs`: expected an object, found {}", kind(other));
            return Err(Error::Data { at: at.to_string(), what });
        }
    }
    Ok(out)
}

/// A list of turns, as OpenAI (`role`, `content`) or ShareGPT (`from`, `value`) writes them.
fn messages(v: &Value, key: &str, at: &str) -> Result<Vec<Message>> {
    let bad = |what: String| Error::Data { at: at.to_string(), what: format!("field `{key}`: {what}") };
    let list = v.as_array().ok_or_else(|| bad(format!("expected a list of turns, found {}", kind(v))))?;
    if list.is_empty() {
        return Err(bad("the list of turns is empty".into()));
    }
    list.iter()
        .enumerate()
        .map(|(i, turn)| {
            let role = turn.get("role").or(turn.get("from")).and_then(Value::as_str);
            let role = role.ok_or_else(|| bad(format!("turn {}: no `role`", i + 1)))?;
            let role = match role {
                "human" => "user",
                "gpt" | "model" => "assistant",
                other => other,
            };
            let content = turn.get("content").or(turn.get("value")).cloned().unwrap_or(Value::Null);
            if !matches!(content, Value::String(_) | Value::Null | Value::Array(_)) {
                let what = format!(
                    "turn {}: expected `content` to be a text or a list of parts, found {}",
                    i + 1,
                    kind(&content)
                );
                return Err(bad(what));
            }
            let known = ["role", "from", "content", "value"];
            let rest = turn.as_object().into_iter().flatten().filter(|(k, _)| !known.contains(&k.as_str()));
            let content = if content.is_null() { Value::String(String::new()) } else { content };
            Ok(Message { role: role.into(), content, rest: rest.map(|(k, v)| (k.clone(), v.clone())).collect() })
        })
        .collect()
}
