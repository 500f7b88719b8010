//! How examples go through the model: passes of limited size, and batches of like length.

use loram_io::testing::tiny_llama;
use loram_train::{Event, Observe, Summary, TrainConfig, Trainer};
use std::path::Path;

fn run(out: &Path, more: &str) -> (Vec<(f64, f64)>, Summary) {
    let yaml = format!(
        "model: {}\ndata: demo:restaurants?seed=0&n=48\nr: 4\nlearning_rate: 2e-3\nbatch_size: 8\nmax_steps: 8\n\
         gradient_accumulation_steps: 2\ncompute_dtype: float32\noutput_dir: {}\n{more}",
        tiny_llama().display(),
        out.display()
    );
    let mut steps = Vec::new();
    let mut watch = Observe(|e: &Event| {
        if let Event::Step(s) = e {
            steps.push((s.loss, s.grad_norm));
        }
    });
    let summary = Trainer::new(TrainConfig::from_yaml(&yaml).unwrap()).unwrap().run(&mut watch).unwrap();
    (steps, summary)
}

#[test]
fn a_limit_on_tokens_leaves_the_optimiser_steps_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, all) = run(&dir.path().join("whole"), "");
    for max in [1, 100] {
        let (cut, few) = run(&dir.path().join(max.to_string()), &format!("max_tokens_per_batch: {max}\n"));
        assert_eq!(cut.len(), whole.len());
        for (a, b) in cut.iter().zip(&whole) {
            assert!((a.0 - b.0).abs() < 1e-5 * b.0 && (a.1 - b.1).abs() < 1e-4 * b.1, "{a:?} and {b:?} at {max}");
        }
        assert_eq!(few.tokens, all.tokens);
        assert!(few.estimated_memory < all.estimated_memory);
    }
}

#[test]
fn batches_of_like_length_are_other_batches() {
    let dir = tempfile::tempdir().unwrap();
    let (plain, _) = run(&dir.path().join("plain"), "");
    let (grouped, summary) = run(&dir.path().join("grouped"), "group_by_length: true\n");
    assert_ne!(plain[0], grouped[0]);
    assert_eq!(summary.steps, 8);
}

#[test]
fn enough_memory_leaves_batches_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (plain, _) = run(&dir.path().join("plain"), "");
    let (found, _) = run(&dir.path().join("found"), "auto_find_batch_size: true\n");
    assert_eq!(plain, found);
}
