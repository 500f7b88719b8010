//! Training data that are mixed by weights.

use crate::program::{json, refused, text};
use loram_io::testing::tiny_llama;
use std::fs;
use std::path::Path;

/// Two files of 40 and of 8 records.
fn write_data(dir: &Path) {
    for (name, n) in [("large.jsonl", 40), ("small.jsonl", 8)] {
        let line = |i| format!("{{\"prompt\": \"{name} {i} =>\", \"completion\": \" number {i}.\"}}\n");
        fs::write(dir.join(name), (0..n).map(line).collect::<String>()).unwrap();
    }
}

#[test]
fn weights_give_shares_of_an_epoch() {
    let room = tempfile::tempdir().unwrap();
    let dir = room.path();
    write_data(dir);
    let model = tiny_llama().display().to_string();
    let file = format!(
        "model: {model}\ndata:\n  - {{path: large.jsonl, weight: 1}}\n  - {{path: small.jsonl, weight: 3}}\nlr: 1e-3\nr: 2\nbatch_size: 4\n"
    );
    fs::write(dir.join("mixed.yaml"), file).unwrap();
    let shown = json(dir, &["train", "mixed.yaml", "--dry-run"]);
    let of = |i: usize, key: &str| shown["mixture"][i][key].as_f64().unwrap();
    assert_eq!((of(0, "per_epoch"), of(1, "per_epoch"), of(1, "examples"), of(1, "share")), (12.0, 36.0, 8.0, 0.75));
    assert_eq!(shown["total_steps"], 12);
    let shown = text(dir, &["train", "mixed.yaml", "--dry-run"]);
    assert!(shown.contains("75.0 % of an epoch from small.jsonl (weight 3): 36 of 8 examples"), "{shown}");
    // the same as lists
    let lists = ["--data", "large.jsonl,small.jsonl", "--set", "data_weights=[1, 3]"];
    let plain = ["train", "--model", &model, "--lr", "1e-3", "--r", "2", "--batch-size", "4"];
    let again = json(dir, &[&plain[..], &lists, &["--dry-run"]].concat());
    assert_eq!(again["mixture"], json(dir, &["train", "mixed.yaml", "--dry-run"])["mixture"]);
    // other data bring no weights of those before
    let other = json(dir, &["train", "mixed.yaml", "--data", "large.jsonl", "--dry-run"]);
    assert!(other.get("mixture").is_none() && other["total_steps"] == 10);

    // a run that was interrupted ends with the same bits
    let run =
        |out: &str, more: &[&str]| text(dir, &[&["train", "mixed.yaml", "-o", out, "--epochs", "2"], more].concat());
    run("whole", &[]);
    run("stopped", &["--save-steps", "5", "--set", "save_total_limit=null"]);
    let adapter = |out: &str| fs::read(dir.join(out).join("adapter/adapter_model.safetensors")).unwrap();
    for gone in ["adapter", "checkpoint-20", "checkpoint-24"] {
        fs::remove_dir_all(dir.join("stopped").join(gone)).unwrap();
    }
    fs::remove_file(dir.join("stopped/summary.json")).unwrap();
    run("stopped", &["--save-steps", "5", "--set", "save_total_limit=null", "--resume"]);
    assert!(adapter("stopped") == adapter("whole"));
}

#[test]
fn weights_that_do_not_fit_are_refused() {
    let room = tempfile::tempdir().unwrap();
    let dir = room.path();
    write_data(dir);
    let model = tiny_llama().display().to_string();
    let run = ["train", "--model", &model, "--dry-run", "--data", "large.jsonl,small.jsonl"];
    refused(dir, &[&run[..], &["--set", "data_weights=[1]"]].concat(), &["data_weights has 1 numbers", "2 entries"]);
    refused(dir, &[&run[..], &["--set", "data_weights=[1, 0]"]].concat(), &["data_weights", "above 0"]);
    let file = "data:\n  - {path: large.jsonl, wight: 1}\n";
    fs::write(dir.join("wrong.yaml"), format!("model: {model}\n{file}")).unwrap();
    refused(dir, &["train", "wrong.yaml", "--dry-run"], &["wrong.yaml:2", "data"]);
}
