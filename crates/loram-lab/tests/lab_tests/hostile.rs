//! Grids and run folders that nobody honest writes: an error that says what is wrong, at once; and no name in them leaves its place
//! in a report.

use loram_lab::{Grid, analyse, collect, report};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

fn grid(text: &str) -> Result<usize, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("grid.yaml");
    fs::write(&path, text).unwrap();
    let grid = Grid::from_file(&path).map_err(|e| e.to_string())?;
    grid.runs().map(|r| r.len()).map_err(|e| e.to_string())
}

const GRID: &str = "models: {a: m}\ntasks: {t: {train_data: demo:restaurants, max_steps: 8}}\n\
                    schemes: {lora: {init_lora_weights: lora}}\nseed: [0]\n";

#[test]
fn lists_that_multiply_without_end_are_refused_before_they_do() {
    assert_eq!(grid(&format!("{GRID}learning_rate: [1e-4, 1e-3]")), Ok(2));
    let list = |n: usize| format!("[{}]", (1..=n).map(|i| i.to_string()).collect::<Vec<_>>().join(", "));
    let keys =
        ["warmup_steps", "lora_alpha", "gradient_accumulation_steps", "per_device_train_batch_size", "logging_steps"];
    let axes: String = keys.iter().map(|k| format!("  {k}: {}\n", list(100))).collect();
    let e = grid(&format!("{GRID}learning_rate: [1e-3]\ngrid:\n{axes}")).unwrap_err();
    assert!(e.contains("multiply to more than 100000 runs"), "{e}");
    // over several arms
    let arms: String = (0..60).map(|i| format!("  a{i}: {{lora_alpha: {i}.5}}\n")).collect();
    let many = GRID.replace("schemes: {lora: {init_lora_weights: lora}}\n", &format!("schemes:\n{arms}"));
    let e = grid(&format!("{many}learning_rate: [1e-3]\nr: {}\ngrid: {{warmup_steps: {}}}", list(20), list(100)));
    assert!(e.unwrap_err().contains("multiply to more than 100000 runs"));
}

#[test]
fn rounds_of_halving_have_an_end() {
    let with = |halving: &str| grid(&format!("{GRID}learning_rate: [1e-3]\nhalving: {halving}"));
    assert_eq!(with("{factor: 2, rounds: 2}"), Ok(3));
    assert!(with("{factor: 2, rounds: 18446744073709551615}").unwrap_err().contains("at most 63"));
    assert!(with("{factor: 9223372036854775807, rounds: 60}").unwrap_err().contains("too few"));
}

/// A run folder with so many test examples.
fn run(root: &Path, arm: &str, seed: u64, examples: usize, change: impl Fn(&mut Value)) {
    let dir = root
        .join(format!("runs/{arm}-{seed}").replace(|c: char| !c.is_ascii_alphanumeric() && c != '/' && c != '-', "_"));
    fs::create_dir_all(&dir).unwrap();
    let metrics = json!({"loss": 1.5, "tokens": 200, "examples": 20});
    let mut scores = json!({
        "point": {"model": "m", "task": "t", "arm": arm, "r": 4, "learning_rate": 1e-3, "seed": seed},
        "score": {"name": "loss", "more_is_better": false}, "outcome": "finished", "selection": metrics, "test": metrics,
        "data": ["selection.jsonl", "test.jsonl"],
        "cost": {"start_seconds": 0.5, "train_seconds": 2.0, "peak_rss": 1000, "trainable_parameters": 7,
                 "result_bytes": 10, "checkpoint_bytes": 0, "threads": 1},
        "examples": {"kind": "language", "nats": vec![1.0; examples], "tokens": vec![10; examples], "correct": vec![5; examples]},
    });
    change(&mut scores);
    fs::write(dir.join("scores.json"), scores.to_string()).unwrap();
    fs::write(dir.join("config.yaml"), "model: m\ndata: demo:restaurants\n").unwrap();
}

#[test]
fn scores_of_different_lengths_are_an_error_or_are_not_paired() {
    // within a run
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), "lora", 0, 10, |s| s["examples"]["nats"] = json!(vec![1.0; 11]));
    let e = collect(&[dir.path().to_path_buf()]).unwrap_err().to_string();
    assert!(e.contains("scores.json") && e.contains("11 figures in `nats`, 10 in `tokens`"), "{e}");
    // between the runs of an arm
    let dir = tempfile::tempdir().unwrap();
    for (seed, examples) in [(0, 10), (1, 3)] {
        run(dir.path(), "lora", seed, examples, |_| ());
        run(dir.path(), "pissa", seed, 10, |_| ());
    }
    let runs = collect(&[dir.path().to_path_buf()]).unwrap();
    report::Report::new("T".into(), &runs, analyse(&runs)).markdown().unwrap();
}

#[test]
fn names_of_others_stay_text_in_reports() {
    let dir = tempfile::tempdir().unwrap();
    let evil = "a|b<img src=x>[c](https://evil.example)`\u{1b}[2J\nrm -rf ~";
    run(dir.path(), evil, 0, 10, |_| ());
    run(dir.path(), "lora", 0, 10, |_| ());
    let runs = collect(&[dir.path().to_path_buf()]).unwrap();
    let page = report::Report::new("T".into(), &runs, analyse(&runs));
    let whole = page.markdown().unwrap();
    // in a block of code all is text, but a line is a command
    let (markdown, code) = whole.split_once("```sh").unwrap();
    assert!(
        code.lines().take_while(|l| !l.starts_with("```")).all(|l| ["", "# ", "loram train "]
            .iter()
            .any(|p| if p.is_empty() { l.is_empty() } else { l.starts_with(p) })),
        "{code}"
    );
    // in a code span too
    let spans = markdown.replace("\\`", "");
    let outside: String = spans.lines().flat_map(|l| l.split('`').step_by(2)).collect::<Vec<_>>().join(" ");
    for raw in ["<img", "](https://", "a|b", "\u{1b}"] {
        assert!(!outside.contains(raw), "{raw}: {markdown}");
    }
    assert!(
        markdown.contains(r"a\|b&lt;img src=x&gt;\[c\](https\://evil.example)\`\\u{1b}\[2J rm -rf \~"),
        "{markdown}"
    );
    let file = dir.path().join("report.html");
    page.write(&file).unwrap();
    let html = fs::read_to_string(file).unwrap();
    assert!(!html.contains("<img src=x>") && !html.contains('\u{1b}'));
}

#[cfg(target_os = "linux")]
#[test]
fn a_device_in_a_run_folder_is_refused() {
    for name in ["scores.json", "metrics.jsonl", "summary.json", "environment.json", "config.yaml"] {
        let dir = tempfile::tempdir().unwrap();
        run(dir.path(), "lora", 0, 10, |_| ());
        let path = dir.path().join("runs/lora-0").join(name);
        let _ = fs::remove_file(&path);
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        let e = collect(&[dir.path().to_path_buf()]).unwrap_err();
        assert!(e.to_string().contains("is a device") && e.exit_code() == 2, "{name}: {e}");
    }
}
