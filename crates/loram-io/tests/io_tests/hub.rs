//! Hub ids: the cache that other programs have filled, a hub on this machine, and the errors.

use loram_io::Checkpoint;
use loram_io::hub::{Download, HubOptions, resolve_with};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

fn options(cache: &Path) -> HubOptions {
    HubOptions {
        revision: None,
        cache_dir: cache.to_path_buf(),
        offline: true,
        token: None,
        // nothing listens there: as if there were no network
        endpoint: "http://127.0.0.1:9".into(),
    }
}

fn no_progress(_: &Download<'_>) {}

fn resolve(name: &str, opts: &HubOptions) -> loram_io::Result<std::path::PathBuf> {
    resolve_with(name, opts, &mut no_progress)
}

/// Bytes of a safetensors file with one tensor.
fn weights() -> Vec<u8> {
    let header = br#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    [&(header.len() as u64).to_le_bytes()[..], header, &1.0f32.to_le_bytes()].concat()
}

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

/// A hub that serves `files` of `org/model` and counts requests of each path.
fn serve(files: BTreeMap<&'static str, Vec<u8>>, token: Option<&'static str>) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let log = Arc::new(Mutex::new(Vec::new()));
    let seen = log.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let path = lines.next().unwrap().unwrap().split(' ').nth(1).unwrap().to_string();
            let headers: Vec<String> = lines.map_while(Result::ok).take_while(|l| !l.is_empty()).collect();
            let header =
                |name: &str| headers.iter().find_map(|h| h.to_lowercase().strip_prefix(name).map(str::to_string));
            let allowed = token.is_none_or(|t| header("authorization: ").is_some_and(|a| a == format!("bearer {t}")));
            let from: usize = header("range: bytes=").and_then(|r| r.split('-').next()?.parse().ok()).unwrap_or(0);
            let one = headers.iter().any(|h| h.ends_with("bytes=0-0"));
            seen.lock().unwrap().push(format!("{path}{}", if one { " (head)" } else { "" }));

            let resolve = format!("/org/model/resolve/{COMMIT}/");
            let body = if !allowed {
                None
            } else if path.starts_with("/api/models/org/model/revision/main") {
                let siblings: Vec<_> =
                    files.iter().map(|(n, b)| serde_json::json!({"rfilename": n, "size": b.len()})).collect();
                Some(serde_json::json!({"sha": COMMIT, "siblings": siblings}).to_string().into_bytes())
            } else {
                path.strip_prefix(&resolve).and_then(|n| files.get(n)).cloned()
            };
            let reply = match body {
                None => b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_vec(),
                Some(all) => {
                    let part = if one { &all[..1] } else { &all[from..] };
                    let head = format!(
                        "HTTP/1.1 206 Partial Content\r\ncontent-length: {}\r\ncontent-range: bytes {from}-{}/{}\r\n\
                         content-type: application/json\r\nx-repo-commit: {COMMIT}\r\netag: \"etag-{}\"\r\nconnection: close\r\n\r\n",
                        part.len(),
                        all.len() - 1,
                        all.len(),
                        path.rsplit('/').next().unwrap()
                    );
                    [head.as_bytes(), part].concat()
                }
            };
            let _ = stream.write_all(&reply);
        }
    });
    (address, log)
}

fn model_files() -> BTreeMap<&'static str, Vec<u8>> {
    BTreeMap::from([
        ("config.json", b"{\"model_type\": \"llama\"}".to_vec()),
        ("tokenizer.json", b"{\"a\":1}".to_vec()),
        ("chat_template.jinja", b"{{ messages }}".to_vec()),
        ("model.safetensors.index.json", br#"{"weight_map":{"w":"model-00001-of-00001.safetensors"}}"#.to_vec()),
        ("model-00001-of-00001.safetensors", weights()),
        ("consolidated.safetensors", vec![b'x'; 5000]),
        ("pytorch_model.bin", vec![b'x'; 5000]),
        ("README.md", b"read me".to_vec()),
        ("onnx/model.onnx", vec![b'x'; 100]),
    ])
}

#[test]
fn a_download_takes_the_needed_files_into_the_standard_cache() {
    let (endpoint, log) = serve(model_files(), None);
    let cache = tempfile::tempdir().unwrap();
    let mut opts = HubOptions { endpoint, offline: false, ..options(cache.path()) };
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
    log.lock().unwrap().clear();
    assert_eq!(resolve("org/model", &opts).unwrap(), dir);
    assert_eq!(log.lock().unwrap().len(), 1, "{log:?}");
    opts.offline = true;
    assert_eq!(resolve("org/model", &opts).unwrap(), dir);
}

#[test]
fn private_absent_and_pickled_models_are_told_apart() {
    let (endpoint, _) = serve(model_files(), Some("hf_secret"));
    let cache = tempfile::tempdir().unwrap();
    let mut opts = HubOptions { endpoint, offline: false, ..options(cache.path()) };
    let e = resolve("org/model", &opts).unwrap_err().to_string();
    assert!(e.contains("private or gated") && e.contains("HF_TOKEN is not set"), "{e}");
    assert!(resolve("org/other", &opts).unwrap_err().to_string().contains("knows no such model"));
    opts.token = Some("hf_secret".into());
    resolve("org/model", &opts).unwrap();

    let mut files = model_files();
    files.retain(|n, _| !n.contains("model-0000") && !n.contains("index"));
    let (endpoint, _) = serve(files, None);
    let other = tempfile::tempdir().unwrap();
    let opts = HubOptions { endpoint, offline: false, ..options(other.path()) };
    let e = resolve("org/model", &opts).unwrap_err().to_string();
    assert!(e.contains("no complete safetensors") && e.contains(".bin"), "{e}");
    assert!(!other.path().join("models--org--model/refs/main").exists(), "no ref to an incomplete snapshot");
}
