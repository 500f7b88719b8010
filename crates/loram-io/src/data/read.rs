//! Records out of the fields of files.

use super::columns;
use super::fields::{Fields, names};
use super::format::DataFormat;
use super::formats::{all_columns, formats, recognised};
use super::record::{Record, Text};
use super::sources::{RawRecord, demo, expand, raw_records};
use crate::{Error, Result};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Where data are and how they are to be read.
#[derive(Debug, Clone, Default)]
pub struct DataSpec {
    /// Files, folders of the `datasets` library, data sets of the hub, or generated sources (`demo:…`).
    pub paths: Vec<String>,
    /// Format of the records; recognised from their fields when absent.
    pub format: Option<&'static dyn DataFormat>,
    /// Field that the format has → field that the file has.
    pub columns: BTreeMap<String, String>,
    /// Field of the text, for plain text (`dataset_text_field`).
    pub text_field: Option<String>,
}

/// Reads all records. Errors name file and line: malformed JSON, a missing or mistyped field, formats that are mixed, an
/// empty set.
pub fn load_records(spec: &DataSpec) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    let mut format: Option<(&'static dyn DataFormat, String)> = spec.format.map(|f| (f, String::new()));
    for path in &expand(&spec.paths)? {
        if path.starts_with(demo::PREFIX) {
            let pairs = demo::generate(path)?;
            records.extend(pairs.into_iter().enumerate().map(|(i, (prompt, completion))| {
                Record::new(format!("{path}:{}", i + 1), Text::PromptCompletion { prompt, completion })
            }));
            continue;
        }
        for (at, raw) in raw_records(path)? {
            records.push(match raw {
                RawRecord::Document(text) => Record::new(at, Text::Document(text)),
                RawRecord::Object(value) => record(spec, at, value, &mut format)?,
            });
        }
    }
    if let Some((format, _)) = &format {
        format.complete(&mut records);
    }
    if records.is_empty() {
        return Err(Error::Data { at: spec.paths.join(", "), what: "no records: the data set is empty".into() });
    }
    Ok(records)
}

/// The fields of a record, those of [`DataSpec::columns`] under the names of the format too.
pub(super) fn renamed(spec: &DataSpec, at: &str, value: Value) -> Result<Map<String, Value>> {
    let bad = |what: String| Err(Error::Data { at: at.to_string(), what });
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
    Ok(fields)
}

fn record(
    spec: &DataSpec,
    at: String,
    value: Value,
    format: &mut Option<(&'static dyn DataFormat, String)>,
) -> Result<Record> {
    let bad = |what: String| Err(Error::Data { at: at.clone(), what });
    let fields = renamed(spec, &at, value)?;
    let found = recognised(&fields);
    // a field of a format that is null has an error of its own
    let named = formats().iter().rev().copied().find(|f| f.columns().iter().all(|c| fields.contains_key(*c)));
    let (wanted, first) = match (&*format, found.or(named)) {
        (Some(f), _) => f.clone(),
        (None, Some(f)) => (f, at.clone()),
        (None, None) => {
            return bad(format!(
                "no known format in the fields {}; expected {}; to rename columns: {}",
                names(&fields),
                all_columns(),
                columns::renaming(&fields)
            ));
        }
    };
    if let (Some(f), None) = (found, spec.format)
        && f != wanted
        && !wanted.includes().contains(&f.name())
    {
        return bad(format!("mixed formats: format {} here, {} at {first}", f.name(), wanted.name()));
    }
    if format.is_none() {
        *format = Some((wanted, first));
    }
    wanted.read(&Fields::new(&fields, &at, wanted.name(), wanted.columns()))
}
