//! Gains of trained weights (the paper's Figure 3): the exact Q\[r\], the logarithm that LoRAM takes for it, and the sketch.

use crate::plot::{Line, Panel, figure};
use crate::result::Result;
use loram_io::gain_curves::{Band, GainCurves};
use loram_io::testing::{minilm_dir, shared_dir, tiny_llama};
use loram_io::{Checkpoint, ModelConfig};
use plotters::prelude::SeriesLabelPosition;
use std::path::Path;

fn curves(dir: &Path, ranks: Option<&[usize]>) -> Result<GainCurves> {
    Ok(GainCurves::of(&Checkpoint::open(dir)?, &ModelConfig::load(dir)?, ranks, true)?)
}

pub fn run(plots: &Path) -> Result<()> {
    let mut models = vec![("tiny-llama-en".to_string(), tiny_llama())];
    models.splice(0..0, minilm_dir().map(|d| ("all-MiniLM-L6-v2".to_string(), d)));
    for dir in
        shared_dir().into_iter().flat_map(|d| std::fs::read_dir(d.join("models")).into_iter().flatten().flatten())
    {
        let name = dir.file_name().to_string_lossy().into_owned();
        if models.iter().all(|m| m.0 != name) && dir.path().join("config.json").exists() {
            models.push((name, dir.path()));
        }
    }
    let mut panels = Vec::new();
    for (name, dir) in models {
        let c = match curves(&dir, None) {
            Ok(c) => c,
            Err(e) => {
                println!("{name}: left out, {e}");
                continue;
            }
        };
        let exact = c.exact.unwrap_or_default();
        println!(
            "\n{name}, {} layers\n{:>5} {:>7} {:>15} {:>7} {:>7}",
            c.layers, "r", "exact", "10 to 90 %", "sketch", "log"
        );
        for (i, r) in c.ranks.iter().enumerate() {
            let e = exact[i];
            let (sketch, log) = (c.sketch[i].mean, c.log[i].mean);
            println!("{r:5} {:7.3} {:7.3} {:7.3} {sketch:7.3} {log:7.3}", e.mean, e.low, e.high);
        }
        let line = |of: &[Band]| c.ranks.iter().zip(of).map(|(&r, b)| (r as f64, b.mean)).collect::<Vec<_>>();
        panels.push(Panel {
            title: format!("{name}: Q[r]"),
            x: "rank",
            y: "",
            log_x: true,
            log_y: false,
            legend: SeriesLabelPosition::UpperLeft,
            lines: vec![
                Line {
                    band: Some(exact.iter().map(|b| (b.low, b.high)).collect()),
                    ..Line::new("exact, with 10 to 90 % of layers", 0, line(&exact))
                },
                Line::new("sketch", 2, line(&c.sketch)).dashed(),
                Line::new("ln r / ln min(n, m)", 1, line(&c.log)).dashed(),
            ],
        });
    }
    figure(&plots.join("gains.svg"), &panels, 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logarithm_is_above_and_the_sketch_near() {
        let c = curves(&tiny_llama(), Some(&[8, 16])).unwrap();
        for (i, exact) in c.exact.unwrap().into_iter().enumerate() {
            let (sketch, log) = (c.sketch[i].mean, c.log[i].mean);
            assert!(exact.low <= exact.mean && exact.mean <= exact.high);
            assert!(log > exact.mean && (sketch / exact.mean - 1.0).abs() < 0.25, "{sketch} {}", exact.mean);
        }
    }

    #[test]
    fn all_minilm_as_numpy_has_it() {
        let Some(dir) = minilm_dir() else { return };
        let exact = curves(&dir, Some(&[8, 16, 32])).unwrap().exact.unwrap();
        for (e, known) in exact.iter().zip([0.145, 0.234, 0.362]) {
            assert!((e.mean - known).abs() < 2e-3, "{}", e.mean);
        }
    }
}
