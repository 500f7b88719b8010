//! Layers in which tokens see others, and what generation keeps of the tokens before.

use super::Sublayer;
use crate::compute::Compute;
use crate::held::Held;
use crate::model::pass::Pass;
use crate::param::Params;
use crate::tensor::Tensor;

/// The state of one layer after all tokens so far: matrices with a row for each.
pub(crate) struct Cache(Vec<Tensor>);

impl Cache {
    /// An empty cache of rows of these widths.
    pub fn new<const N: usize>(compute: Compute, widths: [usize; N]) -> Cache {
        Cache(widths.map(|width| Tensor::scratch(compute, 0, width)).into())
    }

    /// Adds the rows of new tokens of several sequences, `lengths` of each, to their caches.
    pub fn push<const N: usize>(caches: &mut [&mut Cache], lengths: &[usize], more: [&Tensor; N]) {
        let mut first = 0;
        for (cache, &n) in caches.iter_mut().zip(lengths) {
            for (all, more) in cache.0.iter_mut().zip(more) {
                match n == more.rows() {
                    true => all.push_rows(more),
                    false => all.push_rows(&more.gather_rows(&(first..first + n).collect::<Vec<_>>())),
                }
            }
            first += n;
        }
    }

    /// The rows of all tokens.
    pub fn rows<const N: usize>(&self) -> &[Tensor; N] {
        self.0.first_chunk().expect("a cache of this layer")
    }

    /// Forgets all but the first `len` tokens.
    pub fn truncate(&mut self, len: usize) {
        self.0.iter_mut().for_each(|rows| rows.truncate_rows(len));
    }
}

/// A layer in which tokens see others.
pub(crate) trait Mixer: Sublayer {
    /// An empty cache for [`Self::continue_with`].
    fn cache(&self, compute: Compute) -> Cache;

    /// Returns `base` + layer(x), or layer(x) alone, for tokens of several sequences that continue what the caches of these hold,
    /// which they join.
    fn continue_with(
        &self,
        params: &Params,
        x: Held<'_>,
        base: Option<&Tensor>,
        caches: &mut [&mut Cache],
        pass: &Pass<'_>,
    ) -> Tensor;
}
