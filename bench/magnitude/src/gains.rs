//! Gains of trained weights (the paper's Figure 3): the exact Q\[r\], the logarithm that LoRAM takes for it, and the sketch.

use crate::Result;
use crate::plot::{Line, Panel, figure};
use loram_core::{MatRef, exact_gain, log_gain, singular_values, sketch_gain};
use loram_io::testing::{minilm_dir, shared_dir, tiny_llama};
use loram_io::{Checkpoint, ModelConfig, linear_modules};
use plotters::prelude::SeriesLabelPosition;
use std::path::Path;

/// Gains of one layer at the ranks of a curve.
struct Layer {
    exact: Vec<f64>,
    sketch: Vec<f64>,
    log: Vec<f64>,
}

/// Gains of all layers of the blocks of a model.
pub struct Curves {
    pub ranks: Vec<usize>,
    layers: Vec<Layer>,
}

/// Mean, tenth and ninetieth of a hundred.
pub struct Band {
    pub mean: f64,
    pub low: f64,
    pub high: f64,
}

impl Curves {
    pub fn of(dir: &Path, ranks: Option<&[usize]>) -> Result<Curves> {
        let (ckpt, config) = (Checkpoint::open(dir)?, ModelConfig::load(dir)?);
        let linears = linear_modules(&ckpt, Some(&config))?;
        let blocks: Vec<_> =
            linears.iter().filter(|l| l.path.contains(".layer.") || l.path.contains(".layers.")).collect();
        let side = blocks.iter().map(|l| l.n.min(l.m)).min().unwrap_or(1);
        let ranks = ranks.map_or_else(|| (0..).map(|k| 1 << k).take_while(|r| *r <= side).collect(), <[usize]>::to_vec);
        let mut layers = Vec::new();
        for l in blocks {
            let bare = format!("{}.weight", l.path.split_once('.').map_or("", |p| p.1));
            let own = format!("{}.weight", l.path);
            let data = ckpt.tensor(if ckpt.contains(&own) { &own } else { &bare })?.to_f32()?;
            let w = || MatRef { data: &data, rows: l.n, cols: l.m }.into();
            let sigma = singular_values(&l.path, w())?;
            layers.push(Layer {
                exact: ranks.iter().map(|&r| exact_gain(&sigma, r)).collect(),
                sketch: ranks.iter().map(|&r| sketch_gain(&l.path, w(), r, 42)).collect(),
                log: ranks.iter().map(|&r| log_gain(r, l.n, l.m)).collect(),
            });
        }
        Ok(Curves { ranks, layers })
    }

    fn band(&self, of: impl Fn(&Layer) -> f64) -> Band {
        let mut all: Vec<f64> = self.layers.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        let at = |share: f64| all[((all.len() - 1) as f64 * share).round() as usize];
        Band { mean: all.iter().sum::<f64>() / all.len() as f64, low: at(0.1), high: at(0.9) }
    }

    pub fn exact(&self, i: usize) -> Band {
        self.band(|l| l.exact[i])
    }

    pub fn sketch(&self, i: usize) -> Band {
        self.band(|l| l.sketch[i])
    }

    pub fn log(&self, i: usize) -> Band {
        self.band(|l| l.log[i])
    }
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
        let c = match Curves::of(&dir, None) {
            Ok(c) => c,
            Err(e) => {
                println!("{name}: left out, {e}");
                continue;
            }
        };
        println!(
            "\n{name}, {} layers\n{:>5} {:>7} {:>15} {:>7} {:>7}",
            c.layers.len(),
            "r",
            "exact",
            "10 to 90 %",
            "sketch",
            "log"
        );
        let x: Vec<f64> = c.ranks.iter().map(|&r| r as f64).collect();
        for (i, r) in c.ranks.iter().enumerate() {
            let e = c.exact(i);
            let (sketch, log) = (c.sketch(i).mean, c.log(i).mean);
            println!("{r:5} {:7.3} {:7.3} {:7.3} {sketch:7.3} {log:7.3}", e.mean, e.low, e.high);
        }
        let line = |of: &dyn Fn(usize) -> f64| x.iter().enumerate().map(|(i, x)| (*x, of(i))).collect::<Vec<_>>();
        let band = (0..x.len()).map(|i| c.exact(i)).map(|b| (b.low, b.high)).collect();
        panels.push(Panel {
            title: format!("{name}: Q[r]"),
            x: "rank",
            y: "",
            log_x: true,
            log_y: false,
            legend: SeriesLabelPosition::UpperLeft,
            lines: vec![
                Line {
                    band: Some(band),
                    ..Line::new("exact, with 10 to 90 % of layers", 0, line(&|i| c.exact(i).mean))
                },
                Line::new("sketch", 2, line(&|i| c.sketch(i).mean)).dashed(),
                Line::new("ln r / ln min(n, m)", 1, line(&|i| c.log(i).mean)).dashed(),
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
        let c = Curves::of(&tiny_llama(), Some(&[8, 16])).unwrap();
        for i in 0..2 {
            let (exact, sketch, log) = (c.exact(i), c.sketch(i).mean, c.log(i).mean);
            assert!(exact.low <= exact.mean && exact.mean <= exact.high);
            assert!(log > exact.mean && (sketch / exact.mean - 1.0).abs() < 0.25, "{sketch} {}", exact.mean);
        }
    }

    #[test]
    fn all_minilm_as_numpy_has_it() {
        let Some(dir) = minilm_dir() else { return };
        let c = Curves::of(&dir, Some(&[8, 16, 32])).unwrap();
        for (i, known) in [0.145, 0.234, 0.362].into_iter().enumerate() {
            assert!((c.exact(i).mean - known).abs() < 2e-3, "{}", c.exact(i).mean);
        }
    }
}
