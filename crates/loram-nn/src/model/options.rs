//! How a model is loaded.

use crate::compute::Compute;
use crate::products::Products;
use loram_io::config::HeadKind;

/// Options of [`crate::Model::load`].
#[derive(Debug, Clone, Copy)]
pub struct LoadOptions {
    /// Its head.
    pub head: HeadKind,
    /// Number type of activations, and where the model runs.
    pub compute: Compute,
    /// How activations are multiplied by frozen weights on the CPU.
    pub products: Products,
    /// Keep only the inputs of blocks and recompute the rest in the backward pass (1604.06174).
    pub gradient_checkpointing: bool,
    /// Seed of the initialisation of a head that the checkpoint does not have.
    pub seed: u64,
    /// Apply the dropout of `config.json` (`hidden_dropout_prob`, `attention_dropout` and the like) in training passes.
    pub dropout: bool,
}

impl LoadOptions {
    /// Single precision, no recomputation, seed 0, no dropout in the model.
    pub fn new(head: HeadKind) -> LoadOptions {
        LoadOptions {
            head,
            compute: Compute::F32,
            products: Products::Exact,
            gradient_checkpointing: false,
            seed: 0,
            dropout: false,
        }
    }
}
