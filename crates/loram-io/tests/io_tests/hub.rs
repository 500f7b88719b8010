//! Hub ids: the cache that other programs have filled, a hub on this machine, and the errors.

use crate::fake_hub::{COMMIT, FakeHub, Model, model_files, options, resolve, weights};
use loram_io::Checkpoint;
use loram_io::hub::resolve_with;
use std::collections::BTreeMap;
use std::path::Path;

/// A cache as huggingface_hub lays it out: blobs, links in snapshots, refs.
fn put(cache: &Path, id: &str, commit: &str, name: &str, bytes: &[u8]) {
    let repo = cache.join(format!("models--{}", id.replace('/', "--")));
    let blob = format!("blob-of-{name}");
    std::fs::create_dir_all(repo.join("blobs")).unwrap();
    std::fs::create_dir_all(repo.join("snapshots").join(commit)).unwrap();
    std::fs::create_dir_all(repo.join("refs")).unwrap();
    std::fs::write(repo.join("blobs").join(&blob), bytes).unwrap();
    std::fs::write(repo.join("refs/main"), commit).unwrap();
    let link = repo.join("snapshots").join(commit).join(name);
    #[cfg(unix)]
    std::os::unix::fs::symlink(Path::new("../../blobs").join(blob), link).unwrap();
    #[cfg(not(unix))]
    std::fs::copy(repo.join("blobs").join(blob), link).unwrap();
}

#[test]
fn a_cached_model_is_found_offline_and_without_network() {
    let cache = tempfile::tempdir().unwrap();
    let mut opts = options(cache.path());
    put(cache.path(), "org/model", COMMIT, "config.json", b"{}");

    let e = resolve("org/model", &opts).unwrap_err().to_string();
    assert!(e.contains("incomplete") && e.contains("`model.safetensors` is missing"), "{e}");

    put(cache.path(), "org/model", COMMIT, "model.safetensors", &weights());
    let found = resolve("org/model", &opts).unwrap();
    assert!(found.ends_with(Path::new("models--org--model/snapshots").join(COMMIT)), "{found:?}");
    assert_eq!(Checkpoint::open(&found).unwrap().len(), 1);

    opts.revision = Some(COMMIT.into());
    assert_eq!(resolve("org/model", &opts).unwrap(), found, "a commit needs no ref");
    opts.offline = false;
    assert_eq!(resolve("org/model", &opts).unwrap(), found, "a complete commit cannot change: no request");
    opts.revision = None;
    assert_eq!(resolve("org/model", &opts).unwrap(), found, "hub out of reach: the cached copy is used");

    opts.revision = Some("other-branch".into());
    assert!(resolve("org/model", &opts).is_err());
    for revision in ["../../../secret", "/etc", "a/../b", ""] {
        opts.revision = Some(revision.into());
        let e = resolve("org/model", &opts).unwrap_err().to_string();
        assert!(e.contains("no name of a branch"), "{revision}: {e}");
    }
}

#[test]
fn a_missing_shard_makes_a_snapshot_incomplete() {
    let cache = tempfile::tempdir().unwrap();
    put(cache.path(), "m", COMMIT, "config.json", b"{}");
    put(
        cache.path(),
        "m",
        COMMIT,
        "model.safetensors.index.json",
        br#"{"weight_map":{"w":"a.safetensors","v":"b.safetensors"}}"#,
    );
    put(cache.path(), "m", COMMIT, "a.safetensors", &weights());
    let e = resolve("m", &options(cache.path())).unwrap_err().to_string();
    assert!(e.contains("`b.safetensors` is missing"), "{e}");
}

#[test]
fn absent_models_get_one_error_that_says_what_was_tried() {
    let cache = tempfile::tempdir().unwrap();
    let mut opts = options(cache.path());
    let e = resolve("org/absent", &opts).unwrap_err();
    assert_eq!(e.exit_code(), 2);
    let e = e.to_string();
    for part in ["org/absent", "no local folder", "HF_HUB_OFFLINE is set", &cache.path().display().to_string()] {
        assert!(e.contains(part), "{e}");
    }
    opts.offline = false;
    let e = resolve("org/absent", &opts).unwrap_err().to_string();
    assert!(e.contains("cannot be reached") && e.contains("127.0.0.1:9"), "{e}");
    let e = resolve("./models/typo", &opts).unwrap_err();
    assert!(e.to_string().contains("no such file or folder") && e.exit_code() == 2, "{e}");
    assert_eq!(resolve(&cache.path().display().to_string(), &opts).unwrap(), cache.path());
}

#[test]
fn a_download_takes_the_needed_files_into_the_standard_cache() {
    let hub = FakeHub::of(Model::new(model_files()));
    let cache = tempfile::tempdir().unwrap();
    let mut opts = hub.options(cache.path());
    let mut progress: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    let dir = resolve_with("org/model", &opts, &mut |d| {
        progress.insert(d.file.to_string(), (d.done, d.total));
    })
    .unwrap();

    let mut names: Vec<_> =
        std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let needed = [
        "chat_template.jinja",
        "config.json",
        "model-00001-of-00001.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
    ];
    assert_eq!(names, needed);
    assert_eq!(progress.keys().collect::<Vec<_>>(), needed);
    assert!(progress.values().all(|(done, total)| done == total && *total > 0), "{progress:?}");
    assert_eq!(Checkpoint::open(&dir).unwrap().tensor("w").unwrap().to_f32().unwrap(), [1.0]);
    let repo = cache.path().join("models--org--model");
    assert_eq!(std::fs::read_to_string(repo.join("refs/main")).unwrap(), COMMIT);
    assert_eq!(std::fs::read_dir(repo.join("refs")).unwrap().count(), 1);

    // again: one question to the hub, no file
    let before = hub.requests().len();
    assert_eq!(resolve("org/model", &opts).unwrap(), dir);
    assert_eq!(hub.requests().len(), before + 1, "{:?}", hub.requests());
    opts.offline = true;
    assert_eq!(resolve("org/model", &opts).unwrap(), dir);
}

#[test]
fn private_absent_and_pickled_models_are_told_apart() {
    let hub = FakeHub::of(Model { token: Some("hf_secret"), ..Model::new(model_files()) });
    let cache = tempfile::tempdir().unwrap();
    let mut opts = hub.options(cache.path());
    let e = resolve("org/model", &opts).unwrap_err().to_string();
    assert!(e.contains("private or gated") && e.contains("HF_TOKEN is not set"), "{e}");
    assert!(resolve("org/other", &opts).unwrap_err().to_string().contains("knows no such model"));
    opts.token = Some("hf_secret".into());
    resolve("org/model", &opts).unwrap();

    let mut files = model_files();
    files.retain(|n, _| !n.contains("model-0000") && !n.contains("index"));
    let hub = FakeHub::of(Model::new(files));
    let other = tempfile::tempdir().unwrap();
    let opts = hub.options(other.path());
    let e = resolve("org/model", &opts).unwrap_err().to_string();
    assert!(e.contains("no complete safetensors") && e.contains(".bin"), "{e}");
    assert!(!other.path().join("models--org--model/refs/main").exists(), "no ref to an incomplete snapshot");
}
