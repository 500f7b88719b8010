//! How batches are cut into forward passes, and the memory that these take.

use crate::base::Base;
use crate::config::TrainConfig;
use crate::estimate::{MemoryEstimate, estimate};
use crate::{Result, device};

/// Share of the free memory that a run may plan to use: other programs need some, and the estimate is one.
const SHARE: f64 = 0.9;

/// The sizes of what goes through the model, in tokens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    /// The longest example or pack.
    pub longest: usize,
    /// The largest possible batch.
    pub batch: usize,
}

/// The forward passes of a run.
pub(super) struct Passes {
    /// Tokens of a pass at most; a single longer example has a pass of its own. `None`: a batch is a pass.
    pub max_tokens: Option<usize>,
    /// Memory with the largest pass.
    pub memory: MemoryEstimate,
}

impl Passes {
    /// `before` is what an earlier process of this run chose.
    pub fn new(config: &TrainConfig, base: &Base, sizes: Sizes, before: Option<usize>) -> Result<Passes> {
        let memory = |tokens| estimate(config, &base.checkpoint, &base.config, tokens);
        let within = |max: Option<usize>| max.map_or(sizes.batch, |n| n.max(sizes.longest).min(sizes.batch));
        let given = config.max_tokens_per_batch;
        let free = device::free_memory(device::compute(config.device)?);
        let max_tokens = match (config.auto_find_batch_size, before, free) {
            (false, ..) | (true, None, None) => given,
            (true, Some(before), _) => Some(before),
            (true, None, Some(free)) => {
                let limit = (free as f64 * SHARE) as u64;
                match memory(within(given))?.total <= limit {
                    true => given,
                    false => Some(largest(sizes.longest, within(given), |n| Ok(memory(n)?.total <= limit))?),
                }
            }
        };
        Ok(Passes { max_tokens, memory: memory(within(max_tokens))? })
    }

    /// Says how the free memory cut the batches, if it did.
    pub fn message(&self, config: &TrainConfig, sizes: Sizes) -> Option<String> {
        let max = self
            .max_tokens
            .filter(|_| config.auto_find_batch_size && self.max_tokens != config.max_tokens_per_batch)?;
        Some(format!(
            "auto_find_batch_size: forward passes of at most {max} tokens, where the largest batch has {}; optimiser steps \
             stay the same",
            sizes.batch
        ))
    }
}

/// The largest number from `low` up to `high` that fits; `low` where none does.
fn largest(low: usize, high: usize, fits: impl Fn(usize) -> Result<bool>) -> Result<usize> {
    let (mut low, mut high) = (low, high);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        match fits(middle)? {
            true => low = middle,
            false => high = middle - 1,
        }
    }
    Ok(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_that_fits() {
        for limit in [0, 5, 17, 99, 100, 1000] {
            let found = largest(5, 100, |n| Ok(n <= limit)).unwrap();
            assert_eq!(found, limit.clamp(5, 100));
        }
    }
}
