//! A model of a few thousand weights with a tokenizer of whole words: a run of it takes milliseconds.

use loram_io::testing::repo_root;
use loram_train::TrainConfig;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// A folder with the model and data.
pub struct Room(tempfile::TempDir);

impl Room {
    pub fn new() -> Room {
        let room = Room(tempfile::tempdir().unwrap());
        let (from, to) = (repo_root().join("fixtures/models/llama"), room.path("model"));
        fs::create_dir(&to).unwrap();
        for file in ["config.json", "model.safetensors"] {
            fs::copy(from.join(file), to.join(file)).unwrap();
        }
        let config: Value = serde_json::from_slice(&fs::read(to.join("config.json")).unwrap()).unwrap();
        let words = config["vocab_size"].as_u64().unwrap();
        let vocab: serde_json::Map<String, Value> = (0..words).map(|i| (format!("w{i}"), json!(i))).collect();
        let tokenizer = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
            "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "w0"},
        });
        fs::write(to.join("tokenizer.json"), tokenizer.to_string()).unwrap();
        for (name, n, step) in [("train.jsonl", 24, 7), ("dev.jsonl", 6, 5)] {
            let word = |i: u64, j: u64| format!("w{}", (i * step + j * j + 3) % words);
            let text = |i: u64| (0..6).map(|j| word(i, j)).collect::<Vec<_>>().join(" ");
            let lines: String = (0..n).map(|i| format!("{}\n", json!({ "text": text(i) }))).collect();
            fs::write(room.path(name), lines).unwrap();
        }
        room
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn config(&self, out: &Path, more: &str) -> TrainConfig {
        let yaml = format!(
            "model: {}\ndata: {}\neval_data: {}\nr: 2\nlearning_rate: 1e-2\nbatch_size: 2\nlogging_steps: 1\n\
             report_to: none\noutput_dir: {}\n{more}",
            self.path("model").display(),
            self.path("train.jsonl").display(),
            self.path("dev.jsonl").display(),
            out.display()
        );
        TrainConfig::from_yaml(&yaml).unwrap_or_else(|e| panic!("{e}\n{yaml}"))
    }
}

/// Lines of `metrics.jsonl` without figures that depend on the machine.
pub fn metrics(out: &Path) -> Vec<String> {
    let text = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let line = |l: &str| {
        let mut record: serde_json::Map<String, Value> = serde_json::from_str(l).unwrap();
        ["tokens_per_second", "rss", "seconds"].iter().for_each(|k| drop(record.remove(*k)));
        Value::Object(record).to_string()
    };
    text.lines().map(line).collect()
}
