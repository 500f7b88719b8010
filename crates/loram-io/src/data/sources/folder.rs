//! Folders of `datasets.save_to_disk`.

use crate::input::{read_text, read_text_if_there};
use crate::inside::is_inside;
use crate::{Error, Result};
use serde::Deserialize;
use std::path::Path;

/// `state.json`: the files of a saved data set.
#[derive(Deserialize)]
struct State {
    #[serde(rename = "_data_files")]
    files: Vec<DataFile>,
}

#[derive(Deserialize)]
struct DataFile {
    filename: String,
}

/// `dataset_dict.json`: the parts of a saved `DatasetDict`.
#[derive(Deserialize)]
struct Splits {
    splits: Vec<String>,
}

/// The Arrow files of a data set that `save_to_disk` has written; `None` for any other folder. Errors: a folder of several
/// parts, which are named; a damaged list of files.
pub(super) fn saved(folder: &Path) -> Result<Option<Vec<String>>> {
    let wrong = |path: &Path, what: String| Err(Error::NotFound { path: path.into(), what });
    let parts = folder.join("dataset_dict.json");
    if let Some(text) = read_text_if_there(&parts)? {
        let listed = serde_json::from_str::<Splits>(&text).map(|s| s.splits).unwrap_or_default();
        let paths: Vec<String> = listed.iter().map(|s| folder.join(s).display().to_string()).collect();
        return wrong(folder, format!("is a data set of several parts: give one of {}", paths.join(", ")));
    }
    let state = folder.join("state.json");
    if !state.exists() || !folder.join("dataset_info.json").exists() {
        return Ok(None);
    }
    let files = match serde_json::from_str::<State>(&read_text(&state)?) {
        Ok(state) => state.files,
        Err(e) => return wrong(&state, format!("expected the list of files that datasets writes: {e}")),
    };
    if let Some(out) = files.iter().find(|f| !is_inside(&f.filename)) {
        return wrong(&state, format!("names the file `{}`, which is not in the folder", out.filename));
    }
    Ok(Some(files.iter().map(|f| folder.join(&f.filename).display().to_string()).collect()))
}

/// The names of what is in a folder, in alphabetical order.
pub(super) fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
