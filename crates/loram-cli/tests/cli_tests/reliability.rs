//! The program under signals, kills and damage, and what it refuses to overwrite.

use crate::small::{Room, metrics};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

fn loram(args: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin("loram"));
    command.args(args).env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Output {
    loram(args).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A configuration file whose run resumes.
fn config(room: &Room, name: &str, more: &str) -> String {
    let path = room.path(name);
    let config = room.config(Path::new("unused"), &format!("{more}resume_from_checkpoint: auto\n"));
    fs::write(&path, config.to_yaml()).unwrap();
    path.display().to_string()
}

fn weights(out: &Path) -> Vec<u8> {
    fs::read(out.join("adapter/adapter_model.safetensors")).unwrap()
}

/// A run that goes on for minutes, after its first checkpoint.
fn begun(room: &Room, out: &Path, stderr: Stdio) -> Child {
    let file = config(room, "long.yaml", "max_steps: 1000000\nsave_steps: 20\neval_strategy: no\n");
    let mut child = loram(&["train", &file, "-o", &out.display().to_string(), "-v"])
        .stdout(Stdio::null())
        .stderr(stderr)
        .spawn()
        .unwrap();
    wait_until("a checkpoint", || {
        assert!(child.try_wait().unwrap().is_none(), "it ended");
        fs::read_dir(out).into_iter().flatten().flatten().any(|e| e.path().join("manifest.json").exists())
    });
    child
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(120), "{what} did not come");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[cfg(unix)]
fn signal(child: &Child, name: &str) {
    let kill = Command::new("kill").args(["-s", name, &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
}

#[test]
fn killed_at_changes_of_the_file_system_the_same_command_finishes() {
    if !cfg!(debug_assertions) {
        eprintln!("skipped: only debug builds look at LORAM_FAULT");
        return;
    }
    let room = Room::new();
    let more = "max_steps: 4\nsave_steps: 2\neval_steps: 2\nload_best_model_at_end: true\n";
    let file = config(&room, "run.yaml", more);
    let whole = room.path("whole");
    let train = |out: &Path| loram(&["train", &file, "-o", &out.display().to_string(), "--quiet"]);
    assert!(train(&whole).output().unwrap().status.success());
    // every change is tried in the library's tests; here a few, with a process that really dies
    let mut killed = 0;
    for at in (1..).step_by(23) {
        let out = room.path("out");
        let first = train(&out).env("LORAM_FAULT", format!("kill@{at}")).output().unwrap();
        if first.status.success() {
            break;
        }
        assert_eq!(first.status.code(), None, "change {at}: {}", said(&first));
        killed += 1;
        let second = train(&out).output().unwrap();
        assert!(second.status.success(), "change {at}: {}", said(&second));
        assert!(weights(&out) == weights(&whole), "change {at}");
        assert_eq!(metrics(&out), metrics(&whole), "change {at}");
        fs::remove_dir_all(&out).unwrap();
    }
    assert!(killed > 4, "{killed}");
}

/// True if this process ignores SIGHUP, as under nohup: its children inherit that, and the program leaves it so.
#[cfg(unix)]
fn hangup_is_ignored() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|l| l.strip_prefix("SigIgn:"));
    ignored.is_some_and(|mask| u64::from_str_radix(mask.trim(), 16).is_ok_and(|mask| mask & 1 != 0))
}

#[cfg(unix)]
#[test]
fn signals_and_closed_pipes_save_a_checkpoint() {
    let room = Room::new();
    for (what, code) in [("HUP", 129), ("TERM", 143), ("INT", 130), ("a closed pipe", 141)] {
        if what == "HUP" && hangup_is_ignored() {
            eprintln!("skipped: SIGHUP is ignored here (nohup), and so it is by programs started from here");
            continue;
        }
        let out = room.path("out");
        let pipe = what == "a closed pipe";
        let mut child = begun(&room, &out, if pipe { Stdio::piped() } else { Stdio::null() });
        if pipe {
            // nobody reads its messages any more
            drop(child.stderr.take());
        } else {
            signal(&child, what);
        }
        let began = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if began.elapsed() > Duration::from_secs(60) {
                child.kill().unwrap();
                panic!("{what}: still running");
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        assert_eq!(status.code(), Some(code), "{what}");
        let summary: serde_json::Value = serde_json::from_slice(&fs::read(out.join("summary.json")).unwrap()).unwrap();
        assert_eq!(summary["status"], "interrupted", "{what}");
        let newest = PathBuf::from(summary["checkpoint"].as_str().unwrap());
        assert!(newest.ends_with(format!("checkpoint-{}", summary["steps"])), "{what}: {newest:?}");
        assert!(run(&["verify", newest.to_str().unwrap()]).status.success());
        assert!(!out.join("run.lock").exists());
        fs::remove_dir_all(&out).unwrap();
    }
}

#[test]
fn a_second_process_is_refused_and_told_who_works_there() {
    let room = Room::new();
    let out = room.path("out");
    let mut child = begun(&room, &out, Stdio::null());
    let file = room.path("long.yaml").display().to_string();
    for more in [&[][..], &["--set", "overwrite_output_dir=true", "--seed", "7"]] {
        let second = run(&[&["train", &file, "-o", out.to_str().unwrap(), "--quiet"], more].concat());
        assert_eq!(second.status.code(), Some(2));
        let text = said(&second);
        assert!(text.contains(&format!("in use by process {} on ", child.id())), "{text}");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(out.join("run.lock").exists(), "left by a killed process");
    let third = run(&["train", &file, "-o", out.to_str().unwrap(), "--dry-run"]);
    assert!(third.status.success(), "{}", said(&third));
}

#[cfg(target_os = "linux")]
#[test]
fn a_base_that_is_cut_short_during_a_run_is_named() {
    let room = Room::new();
    let out = room.path("out");
    // adapters start at B·A = 0, so that weights stay in the file
    let file = config(&room, "cut.yaml", "max_steps: 1000000\nsave_strategy: no\neval_strategy: no\ninit: lora\n");
    let child = loram(&["train", &file, "-o", out.to_str().unwrap(), "--quiet"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("a step", || fs::metadata(out.join("metrics.jsonl")).is_ok_and(|m| m.len() > 0));
    let base = room.path("model/model.safetensors");
    fs::File::options().write(true).open(&base).unwrap().set_len(100).unwrap();
    let done = child.wait_with_output().unwrap();
    let text = said(&done);
    assert_eq!(done.status.code(), Some(1), "{text}");
    assert!(text.starts_with("error: ") && text.contains("model.safetensors: cannot be read any more"), "{text}");
}

#[test]
fn nothing_that_exists_is_overwritten_without_being_asked() {
    let room = Room::new();
    let model = room.path("model").display().to_string();
    let path = |name: &str| room.path(name).display().to_string();
    let (a, b, merged, base) = (path("a"), path("b"), path("merged"), path("base"));
    let done = |args: &[&str]| {
        let output = run(args);
        assert!(output.status.success(), "{args:?}: {}", said(&output));
    };
    let refused = |args: &[&str], words: &str| {
        let output = run(args);
        let text = said(&output);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {text}");
        assert!(text.contains(words) && text.lines().count() == 1, "{args:?}: {text}");
    };
    let init = ["init", &model, "-o", &a, "--r", "2", "--residual", &base];
    done(&init);
    refused(&init, "exists: give another output, or --overwrite");
    fs::write(room.path("a/note"), "mine").unwrap();
    done(&[&init[..], &["--overwrite"]].concat());
    assert!(room.path("a/note").exists(), "files that are not part of an adapter stay");
    done(&["convert", &a, "-o", &b]);
    let before = fs::read(room.path("a/adapter_model.safetensors")).unwrap();
    // its own input, too
    for to in [&a, &b] {
        refused(&["convert", &a, "-o", to, "--rank", "1"], "exists");
    }
    assert!(fs::read(room.path("a/adapter_model.safetensors")).unwrap() == before);
    done(&["convert", &a, "-o", &b, "--rank", "1", "--overwrite"]);
    done(&["info", &b]);
    done(&["merge", "--model", &base, "--adapter", &a, "-o", &merged]);
    refused(&["merge", "--model", &base, "--adapter", &a, "-o", &merged], "exists");
    done(&["merge", "--model", &base, "--adapter", &a, "-o", &merged, "--overwrite"]);
    refused(&["merge", "--model", &base, "--adapter", &a, "-o", &base, "--overwrite"], "model is read from");
    // only a result of the same kind is replaced
    refused(&["convert", &a, "-o", &merged, "--overwrite"], "is not an adapter folder");
    refused(&["init", &model, "-o", &model, "--overwrite"], "is not an adapter folder");
    refused(&["merge", "--model", &base, "--adapter", &a, "-o", &b, "--overwrite"], "is not a model folder");
    let out = path("out");
    done(&["train", &config(&room, "run.yaml", "max_steps: 2\neval_steps: 1\n"), "-o", &out, "--quiet"]);
    let page = path("page.html");
    done(&["report", &out, "-o", &page]);
    refused(&["report", &out, "-o", &page], "exists");
    done(&["report", &out, "-o", &page, "--overwrite"]);
    let left = fs::read_dir(room.path("")).unwrap().flatten().map(|e| e.file_name().into_string().unwrap());
    assert_eq!(left.filter(|n| n.starts_with('.')).collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn damage_is_found_by_verify_and_when_an_adapter_is_read() {
    let room = Room::new();
    let model = room.path("model").display().to_string();
    let a = room.path("a").display().to_string();
    assert!(run(&["init", &model, "-o", &a, "--r", "2"]).status.success());
    let whole = run(&["verify", &a, "--base", &model]);
    assert!(whole.status.success() && String::from_utf8_lossy(&whole.stdout).contains("as they were written"));
    let weights = room.path("a/adapter_model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&weights, &bytes).unwrap();
    let damaged = run(&["verify", &a]);
    assert_eq!(damaged.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&damaged.stdout).contains("FAILED"));
    let used = run(&["generate", "--model", &model, "--adapter", &a, "--prompt", "w1"]);
    assert_eq!(used.status.code(), Some(2));
    assert!(
        said(&used).contains("adapter_model.safetensors") && said(&used).contains("manifest.json"),
        "{}",
        said(&used)
    );
    // another program's adapter has no manifest
    fs::remove_file(room.path("a/manifest.json")).unwrap();
    let foreign = run(&["generate", "--model", &model, "--adapter", &a, "--prompt", "w1", "--max-new-tokens", "2"]);
    assert!(foreign.status.success(), "{}", said(&foreign));
}

#[cfg(unix)]
#[test]
fn a_comparison_with_runs_not_made_does_not_look_complete() {
    let room = Room::new();
    let grid = room.path("grid.yaml");
    let out = room.path("cmp");
    let text = format!(
        "models: {{small: {}}}\ntasks:\n  words: {{data: {}, eval_data: {}}}\noutput_dir: {}\n\
         schemes: {{lora: {{init: lora}}, loram: {{init: loram}}}}\nlr: [1e-3]\nr: [2]\nseed: [0]\nmax_steps: 4\n\
         batch_size: 2\nreport_to: none\n",
        room.path("model").display(),
        room.path("train.jsonl").display(),
        room.path("dev.jsonl").display(),
        out.display()
    );
    fs::write(&grid, text).unwrap();
    let grid = grid.display().to_string();
    let runs = ["small.words.lora.r2.lr1e-3.s0", "small.words.loram.r2.lr1e-3.s0"];
    // the folder of one run cannot be made
    fs::create_dir_all(out.join("runs")).unwrap();
    fs::write(out.join("runs").join(runs[1]), "in the way").unwrap();
    let half = run(&["compare", &grid]);
    assert_eq!(half.status.code(), Some(1), "{}", said(&half));
    assert!(said(&half).contains(&format!("not made: {}", runs[1])), "{}", said(&half));
    let report = run(&["report", out.to_str().unwrap()]);
    assert_eq!(report.status.code(), Some(1));
    assert!(
        said(&report).contains("incomplete, 1 run missing") && said(&report).contains(runs[1]),
        "{}",
        said(&report)
    );
    fs::remove_file(out.join("runs").join(runs[1])).unwrap();

    // while another process makes a run, the driver waits for it
    let lock = out.join("state").join(format!("{}.lock", runs[1]));
    let loram_io::lock::Attempt::Taken(held) = loram_io::lock::FileLock::take(&lock).unwrap() else { panic!() };
    assert_eq!(run(&["compare", &grid, "--only", runs[1]]).status.code(), Some(75));
    let mut driver = loram(&["compare", &grid]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    assert!(driver.try_wait().unwrap().is_none(), "it waits");
    drop(held);
    let done = driver.wait_with_output().unwrap();
    assert!(done.status.success(), "{}", said(&done));
    assert!(said(&done).contains(&format!("waiting for {}: process", runs[1])), "{}", said(&done));
    assert!(run(&["report", out.to_str().unwrap()]).status.success());
}
