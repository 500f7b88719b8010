//! The memory of a run over sequences of very different lengths. A process of its own: tests of one share its memory.

use loram_io::testing::tiny_llama;
use serde_json::{Value, json};
use std::path::Path;

/// A model folder that takes sequences of 2048 tokens.
fn long_model(dir: &Path) {
    std::fs::create_dir(dir).unwrap();
    for file in std::fs::read_dir(tiny_llama()).unwrap().flatten() {
        std::fs::copy(file.path(), dir.join(file.file_name())).unwrap();
    }
    let path = dir.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["max_position_embeddings"] = json!(2048);
    std::fs::write(path, config.to_string()).unwrap();
}

/// Trains on texts of the given numbers of words, one each step.
fn train(dir: &Path, name: &str, words: &[usize], more: &[&str]) -> Value {
    let lines = words.iter().map(|&n| {
        let word = |i: usize| ["time", "little", "house", "water", "people"][(i * 7 + n) % 5];
        json!({"text": (0..n).map(word).collect::<Vec<_>>().join(" ")}).to_string() + "\n"
    });
    std::fs::write(dir.join(format!("{name}.jsonl")), lines.collect::<String>()).unwrap();
    let data = format!("{name}.jsonl");
    let args = ["train", "--model", "model", "--data", &data, "-o", name, "--r", "4", "--max-length", "2048", "--json"];
    let rest = ["--per-device-train-batch-size", "1", "--num-train-epochs", "1", "--learning-rate", "1e-3"];
    let out = assert_cmd::Command::cargo_bin("loram")
        .unwrap()
        .current_dir(dir)
        .args([&args[..], &rest, more].concat())
        .assert()
        .success();
    serde_json::from_slice(&out.get_output().stdout).unwrap()
}

fn bytes(summary: &Value, key: &str) -> f64 {
    summary[key].as_u64().unwrap_or_else(|| panic!("{key} in {summary}")) as f64
}

#[test]
fn lengths_in_any_order_take_the_memory_of_the_longest() {
    let room = tempfile::tempdir().unwrap();
    let dir = room.path();
    long_model(&dir.join("model"));
    // 20 to 2000 in an order without pattern
    let words: Vec<usize> = (0..45).map(|i| 20 + i * 457 % 45 * 45).collect();
    assert_eq!((words.iter().min(), words.iter().max()), (Some(&20), Some(&2000)));
    for (name, more) in [("plain", &[][..]), ("checkpointing", &["--gradient-checkpointing", "true"])] {
        let alone = train(dir, &format!("{name}-longest"), &[2000], more);
        let all = train(dir, &format!("{name}-all"), &words, more);
        let (need, live, held) =
            (bytes(&alone, "peak_tensors"), bytes(&all, "peak_tensors"), bytes(&all, "peak_tensor_pages"));
        assert!(live <= 1.01 * need, "{name}: {live} where the longest alone needs {need}");
        assert!(held <= 1.1 * need, "{name}: pages of {held} bytes where the longest sequence needs {need}");
        let (rss, estimated) = (bytes(&all, "peak_rss"), bytes(&all, "estimated_memory"));
        assert!(rss <= estimated, "{name}: {rss} bytes where {estimated} were estimated");
    }
}
