//! How the gain Q\[r\] of a model's weights grows with the rank (Figure 3 of 2507.06558).

use crate::family::TensorNames;
use crate::init::each;
use crate::layer_weight::LayerWeight;
use crate::{Checkpoint, ModelConfig, Result, linear_modules};
use loram_core::{exact_gain, log_gain, singular_values, sketch_spectrum};
use serde::{Deserialize, Serialize};

/// Seed of the sketch: any would do.
const SEED: u64 = 42;

/// A figure over layers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Band {
    /// Mean.
    pub mean: f64,
    /// The first decile.
    pub low: f64,
    /// The ninth decile.
    pub high: f64,
}

/// Gains of the linear layers of a model's blocks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GainCurves {
    /// Layers.
    pub layers: usize,
    /// Ranks, ascending.
    pub ranks: Vec<usize>,
    /// From all singular values, where they were asked for; for each rank.
    pub exact: Option<Vec<Band>>,
    /// From the spectrum that one pass estimates.
    pub sketch: Vec<Band>,
    /// ln r / ln min(n, m).
    pub log: Vec<Band>,
}

impl GainCurves {
    /// Returns the gains of a checkpoint: at the given ranks, or at powers of 2 up to the shortest side of a layer. `exact` decomposes every
    /// weight.
    pub fn of(ckpt: &Checkpoint, config: &ModelConfig, ranks: Option<&[usize]>, exact: bool) -> Result<GainCurves> {
        let names = TensorNames::of(ckpt, Some(config))?;
        let mut linears = linear_modules(ckpt, Some(config))?;
        linears.retain(|l| !l.output_layer && l.path.split('.').any(|part| part.parse::<usize>().is_ok()));
        let side = linears.iter().map(|l| l.n.min(l.m)).min().unwrap_or(1);
        let ranks = match ranks {
            Some(ranks) => ranks.to_vec(),
            None => (0..usize::BITS).map(|k| 1 << k).take_while(|r| *r <= side).collect(),
        };
        let mut found: [Vec<Vec<f64>>; 3] = Default::default();
        let of_layer = |l: &loram_core::LinearInfo| {
            LayerWeight::find(ckpt, &names, &l.path)?.with(l.n, l.m, |w| {
                let at = |sigma: &[f64]| ranks.iter().map(|&r| exact_gain(sigma, r)).collect::<Vec<f64>>();
                let computed = if exact { Some(at(&singular_values(&l.path, w)?)) } else { None };
                let log = ranks.iter().map(|&r| log_gain(r, l.n, l.m)).collect();
                Ok((computed, at(&sketch_spectrum(&l.path, w, SEED)?), log))
            })?
        };
        each(&linears, of_layer, |_, (exact, sketch, log)| {
            found[0].extend(exact);
            found[1].push(sketch);
            found[2].push(log);
            Ok(())
        })?;
        let bands = |of: &[Vec<f64>]| (0..ranks.len()).map(|i| band(of.iter().map(|l| l[i]).collect())).collect();
        Ok(GainCurves {
            layers: linears.len(),
            exact: exact.then(|| bands(&found[0])),
            sketch: bands(&found[1]),
            log: bands(&found[2]),
            ranks,
        })
    }

    /// True if the exact gains of this checkpoint take seconds at most.
    pub fn exact_is_quick(ckpt: &Checkpoint, config: &ModelConfig) -> Result<bool> {
        let work = |l: &loram_core::LinearInfo| l.n as f64 * l.m as f64 * l.n.min(l.m) as f64;
        Ok(linear_modules(ckpt, Some(config))?.iter().map(work).sum::<f64>() < 2e10)
    }
}

fn band(mut all: Vec<f64>) -> Band {
    all.sort_by(f64::total_cmp);
    let at = |share: f64| all.get(((all.len().max(1) - 1) as f64 * share).round() as usize).copied().unwrap_or(0.0);
    Band { mean: all.iter().sum::<f64>() / all.len().max(1) as f64, low: at(0.1), high: at(0.9) }
}
