//! Dropout (1207.0580), with masks that are recomputed from the seed of a step and the place in the model instead of stored.

use crate::kernels::attention::AttnDropout;
use crate::ops;
use crate::tensor::Tensor;

/// Places below this are adapters, numbered by their linear layer.
const MODEL: u64 = 1 << 32;

/// Dropout at one place of a model.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dropout {
    /// Probability of dropping an element.
    p: f64,
    place: u64,
}

impl Dropout {
    /// For the input of adapter number `index`.
    pub fn adapter(p: f64, index: u64) -> Dropout {
        Dropout { p, place: index }
    }

    /// For a place within the model itself: number `index` of block (or other part) `part`.
    pub fn model(p: f64, part: usize, index: u64) -> Dropout {
        Dropout { p, place: MODEL + 8 * part as u64 + index }
    }

    /// The seed of this place in a step; `None` when nothing is dropped.
    fn seed(&self, step: Option<u64>) -> Option<u64> {
        // SplitMix64's increment keeps the streams of neighbouring places apart
        let mixed = |step| step ^ self.place.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        step.filter(|_| self.p > 0.0).map(mixed)
    }

    /// dropout(x), which is also how a gradient passes; `None`: nothing is dropped in this pass.
    pub fn of(&self, x: &Tensor, step: Option<u64>) -> Option<Tensor> {
        let seed = self.seed(step)?;
        let mut out = Tensor::scratch(x.compute(), x.rows(), x.cols());
        ops::dropout(x, &mut out, self.p, seed, false);
        Some(out)
    }

    /// [`Self::of`], or x itself where nothing is dropped.
    pub fn apply(&self, x: Tensor, step: Option<u64>) -> Tensor {
        self.of(&x, step).unwrap_or(x)
    }

    /// y += dropout(x).
    pub fn add(&self, x: &Tensor, y: &mut Tensor, step: Option<u64>) {
        let (p, seed) = self.seed(step).map_or((0.0, 0), |seed| (self.p, seed));
        ops::dropout(x, y, p, seed, true);
    }

    /// Returns whether anything is dropped in this pass.
    pub fn is_on(&self, step: Option<u64>) -> bool {
        self.seed(step).is_some()
    }

    /// The dropout of attention weights at this place.
    pub fn attention(&self, step: Option<u64>) -> Option<AttnDropout> {
        self.seed(step).map(|seed| AttnDropout { p: self.p, seed })
    }
}
