//! Hubs that lie, break off, hang or send elsewhere, and caches with leftovers: nothing wrong is kept, nothing outside the
//! cache is touched, and nothing waits for ever.

use crate::fake_hub::{COMMIT, FakeHub, Model, Reply, etag, model_files, resolve};
use loram_io::Checkpoint;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

const WEIGHTS: &str = "model.safetensors";

/// Weights of some length, so that a download can break off in them.
fn big() -> Vec<u8> {
    let n = 50_000;
    let header = format!(r#"{{"w":{{"dtype":"F32","shape":[{n}],"data_offsets":[0,{}]}}}}"#, 4 * n);
    let values = (0..n).flat_map(|i| (i as f32).to_le_bytes());
    (header.len() as u64).to_le_bytes().into_iter().chain(header.into_bytes()).chain(values).collect()
}

fn model() -> Model {
    let mut files = model_files();
    files.retain(|n, _| !n.contains("model-0000") && !n.contains("index"));
    files.insert(WEIGHTS, big());
    Model::new(files)
}

/// Every file and link below a folder.
fn tree(dir: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() { out.extend(tree(&path)) } else { out.push(path) }
    }
    out.sort();
    out
}

fn blobs(cache: &Path) -> PathBuf {
    cache.join("models--org--model/blobs")
}

fn is_whole(dir: &Path) {
    assert_eq!(std::fs::read(dir.join(WEIGHTS)).unwrap(), big());
    Checkpoint::open(dir).unwrap();
}

#[test]
fn the_token_stays_with_the_hub() {
    let model = model();
    let elsewhere = FakeHub::new({
        let model = model.clone();
        move |r| {
            let mut r = r.clone();
            r.path = format!("/org/model/resolve/{COMMIT}/{WEIGHTS}");
            model.answer(&r)
        }
    });
    let there = elsewhere.address.clone();
    let hub = FakeHub::new(move |r| match r.file() {
        Some(WEIGHTS) => {
            let headers = [
                format!("location: {there}/signed?x=1"),
                format!("x-linked-etag: \"{}\"", etag(WEIGHTS, &big())),
                format!("x-linked-size: {}", big().len()),
            ];
            Reply::new("302 Found", &headers, Vec::new())
        }
        _ => Model { token: Some("hf_SECRET"), ..model.clone() }.answer(r),
    });
    let cache = tempfile::tempdir().unwrap();
    let mut opts = hub.options(cache.path());
    opts.token = Some("hf_SECRET".into());
    is_whole(&resolve("org/model", &opts).unwrap());
    assert!(hub.requests().iter().all(|r| r.header("authorization") == Some("Bearer hf_SECRET")));
    let seen = elsewhere.requests();
    assert!(seen.len() == 1 && seen[0].header("authorization").is_none(), "{seen:?}");
}

#[test]
fn names_from_the_hub_never_lead_out_of_the_cache() {
    let outside = tempfile::tempdir().unwrap();
    let victim = outside.path().join("victim");
    std::fs::write(&victim, "mine").unwrap();
    for evil in [victim.display().to_string(), format!("../../../../../../../../{}", victim.display()), "..".into()] {
        let cache = tempfile::tempdir().unwrap();
        // as ETag
        let tag = evil.clone();
        let hub = FakeHub::new(move |r| {
            let reply = model().answer(r);
            let head =
                reply.head.lines().map(|l| if l.starts_with("etag") { format!("etag: \"{tag}\"") } else { l.into() });
            Reply { head: head.collect::<Vec<_>>().join("\r\n") + "\r\n", ..reply }
        });
        let e = resolve("org/model", &hub.options(cache.path())).unwrap_err();
        assert!(e.to_string().contains("ETag") && e.exit_code() == 2, "{e}");
        // as commit of the list, and of a file
        let hub = FakeHub::of(Model { commit: evil.clone(), ..model() });
        let e = resolve("org/model", &hub.options(cache.path())).unwrap_err().to_string();
        assert!(e.contains("40 hexadecimal digits"), "{e}");
        let other = evil.clone();
        let hub = FakeHub::new(move |r| {
            let reply = model().answer(r);
            Reply {
                head: reply.head.replace(&format!("x-repo-commit: {COMMIT}"), &format!("x-repo-commit: {other}")),
                ..reply
            }
        });
        let e = resolve("org/model", &hub.options(cache.path())).unwrap_err().to_string();
        assert!(e.contains("is said to be of the commit"), "{e}");
        assert_eq!(tree(cache.path()), [] as [PathBuf; 0]);
        // as name of a file
        let hub = FakeHub::of(Model { extra: Some(format!("tokenizer/../../{evil}")), ..model() });
        is_whole(&resolve("org/model", &hub.options(cache.path())).unwrap());
        assert!(!hub.requests().iter().any(|r| r.path.contains("victim")));
    }
    let mut files = model_files();
    files.insert("model.safetensors.index.json", br#"{"weight_map":{"w":"../../../../victim"}}"#.to_vec());
    let cache = tempfile::tempdir().unwrap();
    let e = resolve("org/model", &FakeHub::of(Model::new(files)).options(cache.path())).unwrap_err().to_string();
    assert!(e.contains("outside the model folder"), "{e}");
    assert_eq!(std::fs::read(&victim).unwrap(), b"mine");
    assert_eq!(tree(outside.path()), [victim]);
}

#[test]
fn a_changed_byte_is_noticed_and_nothing_of_it_kept() {
    for (name, kind) in [(WEIGHTS, "SHA-256"), ("config.json", "SHA-1")] {
        let hub = FakeHub::new(move |r| {
            let mut reply = model().answer(r);
            if r.file() == Some(name) && !reply.body.is_empty() {
                let middle = reply.body.len() / 2;
                reply.body[middle] ^= 0x40;
            }
            reply
        });
        let cache = tempfile::tempdir().unwrap();
        let e = resolve("org/model", &hub.options(cache.path())).unwrap_err().to_string();
        assert!(e.contains("arrived damaged") && e.contains(kind) && e.contains(name), "{e}");
        let left = tree(cache.path());
        let tag = etag(name, &model().files[name]);
        assert!(!left.iter().any(|p| p.ends_with(name) || p.ends_with(format!("blobs/{tag}"))), "{left:?}");
        assert!(!left.iter().any(|p| p.extension().is_some_and(|e| e == "incomplete")), "{left:?}");
        assert!(!cache.path().join("models--org--model/refs/main").exists());
    }
}

#[test]
fn a_download_goes_on_where_it_broke_off() {
    let whole = big();
    let tag = etag(WEIGHTS, &whole);
    let half = whole.len() / 2;
    let mut wrong = whole[..half].to_vec();
    wrong[100] ^= 1;
    let longer = [&whole[..], b"and more"].concat();
    // what is there, how its file ends, and where downloads begin
    let cases: [(&[u8], &str, &[usize]); 6] = [
        (&whole[..half], "incomplete", &[half]),
        (&whole[..half], "part", &[half]),
        (&whole, "incomplete", &[]),
        (&longer, "incomplete", &[0]),
        (&wrong, "incomplete", &[half, 0]),
        (b"", "incomplete", &[0]),
    ];
    for (there, ending, begins) in cases {
        let hub = FakeHub::of(model());
        let cache = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(blobs(cache.path())).unwrap();
        std::fs::write(blobs(cache.path()).join(format!("{tag}.{ending}")), there).unwrap();
        is_whole(&resolve("org/model", &hub.options(cache.path())).unwrap());
        assert_eq!(hub.downloads(WEIGHTS), begins, "{} bytes of .{ending}", there.len());
        let left = tree(&blobs(cache.path()));
        assert!(left.iter().all(|p| p.extension().is_none()), "{left:?}");
    }
    // a blob of the wrong length, as a full disk leaves it, is not taken for the file
    let hub = FakeHub::of(model());
    let cache = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(blobs(cache.path())).unwrap();
    std::fs::write(blobs(cache.path()).join(&tag), &whole[..half]).unwrap();
    is_whole(&resolve("org/model", &hub.options(cache.path())).unwrap());
}

#[test]
fn broken_connections_and_busy_hubs_are_tried_again() {
    let tries = AtomicUsize::new(0);
    let hub = FakeHub::new(move |r| {
        let mut reply = model().answer(r);
        if r.file() == Some(WEIGHTS) && r.method == "GET" {
            match tries.fetch_add(1, Ordering::SeqCst) {
                0 => return Reply::status("503 Service Unavailable"),
                // closed early, while the header promises all of it
                1 | 2 => reply.body.truncate(reply.body.len() / 3),
                _ => {}
            }
        }
        reply
    });
    let cache = tempfile::tempdir().unwrap();
    is_whole(&resolve("org/model", &hub.options(cache.path())).unwrap());
    let begins = hub.downloads(WEIGHTS);
    assert!(begins.len() == 4 && begins[..2] == [0, 0] && begins[2] > 0 && begins[3] > begins[2], "{begins:?}");

    // no ranges: all of it again
    let tries = AtomicUsize::new(0);
    let hub = FakeHub::new(move |r| {
        let mut r = r.clone();
        r.headers.retain(|h| !h.to_lowercase().starts_with("range"));
        let mut reply = model().answer(&r);
        if r.file() == Some(WEIGHTS) && r.method == "GET" && tries.fetch_add(1, Ordering::SeqCst) == 0 {
            reply.body.truncate(reply.body.len() / 3);
        }
        reply
    });
    let cache = tempfile::tempdir().unwrap();
    is_whole(&resolve("org/model", &hub.options(cache.path())).unwrap());
}

#[test]
fn a_mirror_without_head_requests_serves_too() {
    let hub = FakeHub::of(Model { head: false, ..model() });
    let cache = tempfile::tempdir().unwrap();
    is_whole(&resolve("org/model", &hub.options(cache.path())).unwrap());
}

#[test]
fn redirects_end() {
    for (location, what) in [(Some("/loop"), "more than 10 redirects"), (None, "redirects to no address")] {
        let hub = FakeHub::new(move |r| match r.path.starts_with("/api/") {
            true => model().answer(r),
            false => {
                let to: Vec<String> = location.iter().map(|l| format!("location: {l}")).collect();
                Reply::new("302 Found", &to, Vec::new())
            }
        });
        let cache = tempfile::tempdir().unwrap();
        let e = resolve("org/model", &hub.options(cache.path())).unwrap_err().to_string();
        assert!(e.contains(what), "{e}");
        assert!(hub.requests().len() <= 12, "{}", hub.requests().len());
    }
}

#[test]
fn silence_ends_in_an_error() {
    // silent from the start, and in the middle of a file
    for part in [None, Some(1000)] {
        let hub = FakeHub::new(move |r| match (part, r.file()) {
            (None, _) => Reply { head: String::new(), body: Vec::new(), stall: true },
            (Some(n), Some(WEIGHTS)) if r.method == "GET" => {
                let mut reply = model().answer(r);
                let from = reply.body.len().min(if r.from() == 0 { n } else { 0 });
                reply.body.truncate(from);
                Reply { stall: true, ..reply }
            }
            _ => model().answer(r),
        });
        let cache = tempfile::tempdir().unwrap();
        let began = Instant::now();
        let e = resolve("org/model", &hub.options(cache.path())).unwrap_err().to_string();
        assert!(e.contains("cannot be reached"), "{e}");
        assert!(began.elapsed().as_secs() < 15, "{:?}", began.elapsed());
    }
}

#[test]
fn of_two_processes_one_downloads_and_one_waits() {
    let hub = FakeHub::of(model());
    let cache = tempfile::tempdir().unwrap();
    let opts = hub.options(cache.path());
    let found: Vec<PathBuf> = std::thread::scope(|s| {
        let both: Vec<_> = (0..4).map(|_| s.spawn(|| resolve("org/model", &opts).unwrap())).collect();
        both.into_iter().map(|t| t.join().unwrap()).collect()
    });
    found.iter().for_each(|dir| is_whole(dir));
    assert_eq!(hub.downloads(WEIGHTS), [0]);
}

#[test]
fn a_complete_cache_is_only_read() {
    let hub = FakeHub::of(model());
    let cache = tempfile::tempdir().unwrap();
    let opts = hub.options(cache.path());
    let dir = resolve("org/model", &opts).unwrap();
    let state = || {
        let files = tree(cache.path());
        files.iter().map(|p| (p.clone(), p.symlink_metadata().unwrap().modified().unwrap())).collect::<Vec<_>>()
    };
    let before = state();
    let locks = cache.path().join(".locks");
    // a folder that nobody can write to, whoever runs the test
    std::fs::remove_dir_all(&locks).unwrap();
    std::fs::write(&locks, "").unwrap();
    assert_eq!(resolve("org/model", &opts).unwrap(), dir);
    std::fs::remove_file(&locks).unwrap();
    let unlocked: Vec<_> = before.into_iter().filter(|(p, _)| !p.starts_with(&locks)).collect();
    assert_eq!(state(), unlocked);
}

#[test]
fn the_cache_of_python_is_shared() {
    // as huggingface_hub lays it out: relative links to blobs that are named by their hash
    let hub = FakeHub::of(model());
    let cache = tempfile::tempdir().unwrap();
    let dir = resolve("org/model", &hub.options(cache.path())).unwrap();
    let tag = etag(WEIGHTS, &big());
    #[cfg(unix)]
    assert_eq!(std::fs::read_link(dir.join(WEIGHTS)).unwrap(), Path::new("../../blobs").join(&tag));
    assert_eq!(dir, cache.path().join("models--org--model/snapshots").join(COMMIT));
    assert!(cache.path().join(format!(".locks/models--org--model/{tag}.lock")).exists());
}
