//! Base tensors as they were before they were changed or trained.

use crate::tensor::Tensor;
use crate::weight::Weight;
use std::collections::BTreeMap;

/// Base tensors that were changed or became parameters, by tensor name.
#[derive(Debug, Default)]
pub(super) struct Originals {
    pub weights: BTreeMap<String, Weight>,
    pub vectors: BTreeMap<String, Tensor>,
}

impl Originals {
    /// Remembers a weight before its first change.
    pub fn keep_weight(&mut self, name: String, weight: &Weight) {
        self.weights.entry(name).or_insert_with(|| weight.clone());
    }

    /// Remembers a bias or the weight of a norm before it is trained.
    pub fn keep_vector(&mut self, name: String, vector: &Tensor) {
        self.vectors.entry(name).or_insert_with(|| vector.copy());
    }
}
