//! Gains on trained weights: the sketch is closer to the exact Q[r] than the logarithm is.

use loram_core::{StoredWeight, exact_gain, log_gain, singular_values, sketch_gain};
use loram_io::testing::{minilm_dir, tiny_llama};
use loram_io::{Checkpoint, ModelConfig, linear_modules};
use std::path::Path;

/// For each rank: mean exact gain over the blocks' linear layers, and mean distances of the sketch and of the logarithm
/// from it.
fn distances(dir: &Path, ranks: &[usize]) -> Vec<(f64, f64, f64)> {
    let (ckpt, config) = (Checkpoint::open(dir).unwrap(), ModelConfig::load(dir).unwrap());
    let linears = linear_modules(&ckpt, Some(&config)).unwrap();
    let mut sums = vec![(0.0, 0.0, 0.0); ranks.len()];
    let mut count = 0.0;
    for l in linears.iter().filter(|l| l.path.contains(".layer.") || l.path.contains(".layers.")) {
        let name = [format!("{}.weight", l.path), format!("{}.weight", l.path.trim_start_matches("bert."))];
        let name = name.iter().find(|n| ckpt.contains(n)).unwrap();
        let data = ckpt.tensor(name).unwrap().to_f32().unwrap();
        let w = || StoredWeight::of(&data, l.n, l.m);
        let sigma = singular_values(&l.path, w()).unwrap();
        for (s, &r) in sums.iter_mut().zip(ranks) {
            let (exact, sketch) = (exact_gain(&sigma, r), sketch_gain(&l.path, w(), r, 42));
            *s = (s.0 + exact, s.1 + (sketch - exact).abs(), s.2 + (log_gain(r, l.n, l.m) - exact).abs());
        }
        count += 1.0;
    }
    assert!(count >= 30.0, "{count} layers");
    let means: Vec<_> = sums.into_iter().map(|s| (s.0 / count, s.1 / count, s.2 / count)).collect();
    for ((exact, sketch, log), r) in means.iter().zip(ranks) {
        println!("r = {r}: exact {exact:.3}, off by {sketch:.3} (sketch) and {log:.3} (logarithm)");
    }
    means
}

#[test]
fn all_minilm() {
    let Some(dir) = minilm_dir() else { return };
    // mean exact gains as numpy has them
    for ((exact, sketch, log), known) in distances(&dir, &[8, 16, 32]).into_iter().zip([0.145, 0.234, 0.362]) {
        assert!(sketch < 0.25 * log, "sketch {sketch}, logarithm {log}");
        assert!((exact - known).abs() < 2e-3, "mean exact gain {exact}, known {known}");
    }
}

#[test]
fn tiny_llama_en() {
    for (_, sketch, log) in distances(&tiny_llama(), &[4, 8, 16, 32]) {
        assert!(sketch < log, "sketch {sketch}, logarithm {log}");
    }
}
