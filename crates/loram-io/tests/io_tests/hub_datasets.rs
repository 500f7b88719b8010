//! Data sets of a hub on this machine.

use crate::fake_hub::{COMMIT, FakeHub, Files, Model, Reply, Request, options};
use loram_io::hub::{HubOptions, dataset_with};
use std::path::{Path, PathBuf};

/// A hub with the data set `org/name`, with these files under the revision of converted files and under `main`.
fn hub(converted: Option<Files>, main: Files) -> FakeHub {
    let [converted, main] = [converted, Some(main)].map(|files| files.map(Model::new));
    FakeHub::new(move |r| {
        let list = "/api/datasets/org/name/revision/";
        let as_model = |path: String| Request { path, ..r.clone() };
        if let Some(revision) = r.path.strip_prefix(list) {
            let model = if revision.starts_with("refs%2Fconvert%2Fparquet?") { &converted } else { &main };
            let list = as_model(format!("/api/models/org/model/revision/{revision}"));
            return model.as_ref().map_or_else(|| Reply::status("404 Not Found"), |m| m.answer(&list));
        }
        let file = r.path.strip_prefix("/datasets/org/name/resolve/");
        let request = file.map(|file| as_model(format!("/org/model/resolve/{file}")));
        let answer = |m: &Model| request.as_ref().map(|r| m.answer(r)).filter(|a| !a.head.contains("404"));
        [&converted, &main].into_iter().flatten().find_map(answer).unwrap_or_else(|| Reply::status("404 Not Found"))
    })
}

fn converted() -> Files {
    Files::from([
        ("default/train/0000.parquet", b"one".to_vec()),
        ("default/train/0001.parquet", b"two".to_vec()),
        ("default/test/0000.parquet", b"three".to_vec()),
    ])
}

fn find(path: &str, opts: &HubOptions) -> loram_io::Result<Vec<PathBuf>> {
    dataset_with(path, opts, &mut |_| ())
}

fn contents(files: &[PathBuf]) -> Vec<String> {
    files.iter().map(|f| std::fs::read_to_string(f).unwrap()).collect()
}

#[test]
fn a_split_is_fetched_once_and_found_without_network() {
    let cache = tempfile::tempdir().unwrap();
    let hub = hub(Some(converted()), Files::new());
    let opts = hub.options(cache.path());
    let files = find("org/name", &opts).unwrap();
    assert_eq!(contents(&files), ["one", "two"]);
    let place = Path::new("datasets--org--name/snapshots").join(COMMIT).join("default/train/0000.parquet");
    assert!(files[0].ends_with(&place), "{files:?}");
    assert_eq!(find("org/name:default:train", &opts).unwrap(), files);
    let downloads = hub.requests().iter().filter(|r| r.method == "GET" && r.path.contains("/resolve/")).count();
    assert_eq!(downloads, 2);

    let offline = options(cache.path());
    assert_eq!(find("org/name:train", &offline).unwrap(), files);
    let e = find("org/name:test", &offline).unwrap_err().to_string();
    assert!(e.contains("`default/test/0000.parquet` is missing") && e.contains("HF_HUB_OFFLINE"), "{e}");
    let e = find("org/name:dev", &offline).unwrap_err().to_string();
    assert!(e.contains("there are org/name:test, org/name:train"), "{e}");
    let out_of_reach = HubOptions { offline: false, ..offline };
    assert_eq!(find("org/name:train", &out_of_reach).unwrap(), files, "the cached copy");
    let e = find("org/other", &out_of_reach).unwrap_err().to_string();
    assert!(e.contains("is not there") && e.contains("cannot be reached"), "{e}");
}

#[test]
fn files_of_the_repository_stand_in_for_a_missing_copy() {
    let main = Files::from([
        ("README.md", b"read me".to_vec()),
        ("data/train-00000-of-00001.parquet", b"all".to_vec()),
        ("data/test.jsonl.gz", b"t".to_vec()),
    ]);
    let cache = tempfile::tempdir().unwrap();
    let without = hub(None, main.clone());
    assert_eq!(contents(&find("org/name", &without.options(cache.path())).unwrap()), ["all"]);
    assert_eq!(contents(&find("org/name:test", &without.options(cache.path())).unwrap()), ["t"]);
    assert_eq!(contents(&find("org/name", &options(cache.path())).unwrap()), ["all"], "offline");

    // a copy of the first gigabytes is none
    let partial = Files::from([("default/partial-train/0000.parquet", b"part".to_vec())]);
    let cache = tempfile::tempdir().unwrap();
    let cut = hub(Some(partial), main);
    assert_eq!(contents(&find("org/name", &cut.options(cache.path())).unwrap()), ["all"]);
}

#[test]
fn errors_say_what_there_is() {
    let cache = tempfile::tempdir().unwrap();
    let hub = hub(None, Files::from([("README.md", b"x".to_vec())]));
    let e = find("org/name", &hub.options(cache.path())).unwrap_err().to_string();
    assert!(e.contains("no files that can be read"), "{e}");
    let e = find("org/none", &hub.options(cache.path())).unwrap_err().to_string();
    assert!(e.contains("knows no such data set") && e.contains("HF_TOKEN is not set"), "{e}");
}
