//! Data paths as they are given: files, patterns of files, generated sources; and what is said of paths that hold no data.

use super::demo;
use crate::{Error, Result};
use std::path::Path;

/// The files that these paths name, patterns such as `data/*.jsonl` expanded in alphabetical order. Errors: a pattern that
/// matches nothing.
pub fn expand(paths: &[String]) -> Result<Vec<String>> {
    let mut out = Vec::new();
    for path in paths {
        if path.starts_with(demo::PREFIX) || Path::new(path).exists() || !path.contains(['*', '?', '[']) {
            out.push(path.clone());
            continue;
        }
        let wrong = |what: String| Error::NotFound { path: path.into(), what };
        let found = glob::glob(path).map_err(|e| wrong(format!("not a pattern of files: {}", e.msg)))?;
        let mut files: Vec<String> = found.flatten().filter(|p| p.is_file()).map(|p| p.display().to_string()).collect();
        if files.is_empty() {
            return Err(wrong("no file matches this pattern".into()));
        }
        files.sort();
        out.append(&mut files);
    }
    Ok(out)
}

/// The error for a path that is not there.
pub(super) fn absent(path: &str) -> Error {
    let is_id =
        path.split('/').count() == 2 && !path.starts_with(['.', '/', '~']) && Path::new(path).extension().is_none();
    let what = match is_id {
        false => "no such data file".to_string(),
        true => {
            let name = path.rsplit('/').next().unwrap_or(path);
            format!(
                "no such data file; if it is a data set of the hub, write it to a file once: python3 -c \"from datasets import \
                 load_dataset; load_dataset('{path}', split='train').to_json('{name}.jsonl')\""
            )
        }
    };
    Error::NotFound { path: path.into(), what }
}

/// The error for a folder.
pub(super) fn folder(path: &str) -> Error {
    let mut names: Vec<String> = std::fs::read_dir(path)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    let ending = |e: &str| names.iter().any(|n| n.ends_with(e));
    let what = match [".jsonl", ".json", ".txt", ".jsonl.gz"].into_iter().find(|e| ending(e)) {
        _ if names.iter().any(|n| n == "dataset_info.json") && ending(".arrow") => format!(
            "is a data set of the datasets library; write it to a file once: python3 -c \"from datasets import load_from_disk; \
             load_from_disk('{path}').to_json('data.jsonl')\""
        ),
        Some(e) => format!("is a folder: give files in it, such as '{}/*{e}'", path.trim_end_matches('/')),
        None if ending(".parquet") => format!("is a folder of parquet files; {}", of_parquet(&format!("{path}/…"))),
        None => "is a folder: expected a data file (.jsonl, .json, .txt)".into(),
    };
    Error::NotFound { path: path.into(), what }
}

/// The error for a file of a kind that is not read, with a line that converts it where there is one.
pub(super) fn other_kind(path: &str) -> Error {
    let name = path.strip_suffix(".gz").unwrap_or(path);
    let what = match Path::new(name).extension().and_then(|e| e.to_str()) {
        Some("csv") => format!("CSV is not read; {}", of_table(path, ",")),
        Some("tsv" | "tab") => format!("TSV is not read; {}", of_table(path, "\\t")),
        Some("parquet") => format!("parquet is not read; {}", of_parquet(path)),
        Some("arrow") => format!(
            "arrow files are not read; convert it: python3 -c \"from datasets import Dataset; \
             Dataset.from_file('{path}').to_json('{}')\"",
            lines_of(path)
        ),
        _ => "unknown kind of data file; expected .jsonl, .json, .txt, or .jsonl.gz and .json.gz".into(),
    };
    Error::NotFound { path: path.into(), what }
}

/// The command that turns a table into JSON Lines.
pub(super) fn of_table(path: &str, delimiter: &str) -> String {
    format!(
        "convert it: python3 -c \"import csv, json; [print(json.dumps(r)) for r in csv.DictReader(open('{path}', newline=''), \
         delimiter='{delimiter}')]\" > {}",
        lines_of(path)
    )
}

fn of_parquet(path: &str) -> String {
    format!(
        "convert it: python3 -c \"import pandas; pandas.read_parquet('{path}').to_json('{}', orient='records', lines=True)\"",
        lines_of(path)
    )
}

fn lines_of(path: &str) -> String {
    let name = Path::new(path).file_name().map_or(path.into(), |n| n.to_string_lossy().into_owned());
    let stem = name.split('.').next().filter(|s| !s.is_empty() && *s != "…").unwrap_or("data").to_string();
    format!("{stem}-lines.jsonl")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_name_files_in_order() {
        let room = tempfile::tempdir().unwrap();
        let at = |name: &str| room.path().join(name).display().to_string();
        for name in ["b.jsonl", "a.jsonl", "c.txt", "odd[1].jsonl"] {
            std::fs::write(at(name), "").unwrap();
        }
        assert_eq!(expand(&[at("?.jsonl")]).unwrap(), [at("a.jsonl"), at("b.jsonl")]);
        let kept = [at("odd[1].jsonl"), "demo:restaurants?n=3".into(), at("gone.jsonl")];
        assert_eq!(
            expand(&kept).unwrap(),
            kept,
            "a file of that very name, a generated source, a file that is not there"
        );
        assert!(expand(&[at("*.json")]).unwrap_err().to_string().contains("no file matches"));
    }

    #[test]
    fn other_kinds_come_with_a_command() {
        let said = |path: &str| other_kind(path).to_string();
        assert!(
            said("a/t.csv").contains("csv.DictReader(open('a/t.csv'") && said("a/t.csv").ends_with("> t-lines.jsonl")
        );
        assert!(said("t.tsv").contains(r"delimiter='\t'") && said("t.parquet").contains("read_parquet"));
        assert!(said("t.xlsx").contains("expected .jsonl"));
        assert!(absent("tatsu-lab/alpaca").to_string().contains("load_dataset('tatsu-lab/alpaca'"));
        assert!(!absent("data/train.jsonl").to_string().contains("load_dataset"));
    }
}
