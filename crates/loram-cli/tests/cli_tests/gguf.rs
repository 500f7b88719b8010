//! Every verb on a GGUF file, and what is refused there.

use crate::program::{json, loram, refused};
use loram_io::testing::repo_root;
use serde_json::Value;
use std::fs;

fn model(name: &str) -> String {
    repo_root().join(format!("fixtures/models/{name}.gguf")).display().to_string()
}

/// A folder with data in the letters that the small tokenizer has.
fn room() -> tempfile::TempDir {
    let room = tempfile::tempdir().unwrap();
    let line = |i: usize| {
        let text = |n: usize| (0..n).map(|j| char::from(b'a' + ((i * 7 + j * 3) % 10) as u8)).collect::<String>();
        serde_json::json!({"prompt": text(5), "completion": text(9)}).to_string() + "\n"
    };
    fs::write(room.path().join("data.jsonl"), (0..12).map(line).collect::<String>()).unwrap();
    room
}

#[test]
fn from_a_file_to_a_merged_model() {
    let room = room();
    let (dir, base) = (room.path(), model("gguf-llama"));
    let found = json(dir, &["info", &base]);
    assert_eq!(
        (found["model"]["family"].as_str(), found["model"]["tokenizer"]["bos"].as_str()),
        (Some("llama"), Some("<s>"))
    );
    let types: Vec<&String> = found["model"]["dtypes"].as_object().unwrap().keys().collect();
    assert_eq!(types.len(), 10, "nine types of blocks, and norms in F32: {types:?}");
    let size = fs::metadata(&base).unwrap().len();
    assert!(found["memory"]["weights"].as_u64().unwrap() < size, "packed");
    assert_eq!(json(dir, &["plan", &base])["layers"].as_array().unwrap().len(), 14);

    let set = [
        "--data",
        "data.jsonl",
        "--eval-data",
        "data.jsonl",
        "--max-steps",
        "8",
        "--r",
        "4",
        "--learning-rate",
        "3e-4",
    ];
    for scheme in ["loram", "pissa"] {
        let run = format!("run-{scheme}");
        let summary = json(dir, &[&["train", "--model", &base, "-o", &run, "--init", scheme], &set[..]].concat());
        let loss = |at: &str| summary[at]["loss"].as_f64().unwrap();
        assert!(loss("eval_after") < 0.98 * loss("eval_before"), "{scheme}: {summary}");
        let adapter = format!("{run}/adapter");
        let config: Value =
            serde_json::from_slice(&fs::read(dir.join(&adapter).join("adapter_config.json")).unwrap()).unwrap();
        assert_eq!(config["base_model_name_or_path"].as_str(), Some(&base[..]));
        // the adapter finds its base
        let eval = json(dir, &["eval", "--adapter", &adapter, "--data", "data.jsonl"]);
        assert!((eval["loss"].as_f64().unwrap() / loss("eval_after") - 1.0).abs() < 1e-4, "{scheme}: {eval}");
        assert_eq!(json(dir, &["verify", &adapter, "--base", &base])["passed"], true);
        loram(dir, &["generate", "--adapter", &adapter, "--prompt", "abc", "--max-new-tokens", "4"]).success();
        // quantised weights become BF16, with everything that a folder needs
        let merged = format!("merged-{scheme}");
        json(dir, &["merge", "--adapter", &adapter, "-o", &merged]);
        for file in ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"] {
            assert!(dir.join(&merged).join(file).is_file(), "{file}");
        }
        let whole = json(dir, &["eval", "--model", &merged, "--data", "data.jsonl"]);
        assert!((whole["loss"].as_f64().unwrap() / loss("eval_after") - 1.0).abs() < 0.1, "{scheme}: {whole}");
    }
}

#[test]
fn an_initialisation_is_that_of_the_file() {
    let room = room();
    let (dir, base) = (room.path(), model("gguf-qwen3"));
    let made = json(dir, &["init", &base, "-o", "adapter", "--r", "4"]);
    assert_eq!(made["layers"].as_array().unwrap().len(), 14);
    assert_eq!(json(dir, &["verify", "adapter", "--base", &base])["passed"], true);
    assert_eq!(json(dir, &["convert", "adapter", "-o", "plain"])["to"], "plain");
    // another file is not the base
    let out = loram(dir, &["verify", "adapter", "--base", &model("gguf-qwen2"), "--json"]).failure();
    assert_ne!(out.get_output().status.code(), Some(101));
}

#[test]
fn residuals_of_quantised_weights_are_refused() {
    let room = room();
    let (dir, base) = (room.path(), model("gguf-llama"));
    let train = [
        "train",
        "--model",
        &base,
        "--data",
        "data.jsonl",
        "-o",
        "run",
        "--max-steps",
        "1",
        "--r",
        "4",
        "--init",
        "pissa",
    ];
    refused(dir, &[&train[..], &["--set", "base=residual"]].concat(), &["is quantised", "branch", "`loram`"]);
    refused(
        dir,
        &["init", &base, "-o", "adapter", "--residual", "base", "--init", "pissa", "--r", "4"],
        &["gguf-llama.gguf", "are quantised", "`loram`"],
    );
    assert!(!dir.join("adapter").exists() && !dir.join("base").exists());
    fs::write(dir.join("cut.gguf"), &fs::read(&base).unwrap()[..20_000]).unwrap();
    refused(dir, &["info", "cut.gguf"], &["cut.gguf: tensor", "truncated file"]);
    refused(dir, &["info", "."], &["give ./cut.gguf"]);
}
