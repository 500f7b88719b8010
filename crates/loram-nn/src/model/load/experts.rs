//! Mixtures of experts: from the tensors of a checkpoint, one for each expert or one for all, to layers.

use super::{Loader, act};
use crate::frozen::FrozenLinear;
use crate::kernels::clamped::Clamped;
use crate::kernels::routing::Routes;
use crate::mixture::Join;
use crate::model::parts::{Expert, Experts, First};
use crate::products::Products;
use crate::tensor::Tensor;
use crate::weight::Weight;
use crate::{Error, Result};
use loram_io::TensorRef;
use loram_io::config::{ExpertConfig, ExpertModules, Gate};

impl Loader<'_> {
    /// The mixture of a block, in which `at` gives the paths of modules.
    pub fn experts(
        &self,
        at: impl Fn(&str) -> String,
        names: &ExpertModules,
        how: &ExpertConfig,
        hidden: usize,
    ) -> Result<Experts> {
        let there = |place: &&(&str, &str)| self.has(&format!("{}.weight", at(place.0)));
        let place = names.places.iter().find(there).unwrap_or(&names.places[0]);
        let (router, path) = (at(place.0), at(place.1));
        let router = FrozenLinear {
            weight: self.weight(&router, how.count, hidden)?.with_products(Products::Exact),
            transposed: false,
            bias: if how.bias { Some(self.constant(&format!("{router}.bias"), how.count)?) } else { None },
        };
        let of = Mixture { loader: self, path: &path, how, hidden };
        let experts = match names.layers.filter(|layers| self.has(&format!("{path}.0.{}.weight", layers[0]))) {
            Some(layers) => (0..how.count).map(|e| of.apart(e, layers)).collect::<Result<_>>()?,
            None if names.alternating => of.alternating()?,
            None => of.together()?,
        };
        let join = match how.gate {
            Gate::Activation(activation) => Join::Act(act(activation)),
            Gate::Clamped { alpha, limit } => Join::Clamped(Clamped { alpha, limit }),
        };
        let routes = Routes { count: how.count, per_token: how.per_token, normalised: how.normalised };
        Ok(Experts { path, router, routes, experts, join })
    }

    fn frozen(&self, tensor: &TensorRef, transposed: bool, bias: Option<Tensor>) -> Result<FrozenLinear> {
        let weight = Weight::from_tensor(tensor)?.with_products(self.products);
        Ok(FrozenLinear { weight, transposed, bias })
    }
}

/// The experts of a block, as they are loaded.
struct Mixture<'a> {
    loader: &'a Loader<'a>,
    /// Of the list of experts.
    path: &'a str,
    how: &'a ExpertConfig,
    hidden: usize,
}

impl Mixture<'_> {
    /// Expert `e`, from a tensor for each of its layers.
    fn apart(&self, e: usize, [gate, up, down]: [&str; 3]) -> Result<Expert> {
        let (inner, hidden) = (self.how.intermediate_size, self.hidden);
        let layer = |name: &str, rows, cols| {
            let weight = self.loader.weight(&format!("{}.{e}.{name}", self.path), rows, cols)?;
            Ok::<_, Error>(FrozenLinear { weight, transposed: false, bias: None })
        };
        let first = First::Apart(Box::new([layer(gate, inner, hidden)?, layer(up, inner, hidden)?]));
        Ok(Expert { first, down: layer(down, hidden, inner)? })
    }

    /// All experts, from `gate_up_proj` (experts, 2·inner, hidden), gate above up, and `down_proj` (experts, hidden, inner).
    fn together(&self) -> Result<Vec<Expert>> {
        let &ExpertConfig { count, intermediate_size: inner, .. } = self.how;
        let both = self.loader.tensor(&format!("{}.gate_up_proj", self.path), &[count, 2 * inner, self.hidden])?;
        let down = self.loader.tensor(&format!("{}.down_proj", self.path), &[count, self.hidden, inner])?;
        let expert = |e| {
            let both = both.matrix(e)?;
            let rows = |range| self.loader.frozen(&both.some_rows(range)?, false, None);
            let first = First::Apart(Box::new([rows(0..inner)?, rows(inner..2 * inner)?]));
            Ok(Expert { first, down: self.loader.frozen(&down.matrix(e)?, false, None)? })
        };
        (0..count).map(expert).collect()
    }

    /// All experts, from `gate_up_proj` (experts, hidden, 2·inner), whose columns are those of gate and up in turn, and `down_proj` (experts,
    /// inner, hidden), with biases. Quantised ones are the other way round.
    fn alternating(&self) -> Result<Vec<Expert>> {
        let &ExpertConfig { count, intermediate_size: inner, .. } = self.how;
        let layers = [("gate_up_proj", 2 * inner, self.hidden), ("down_proj", self.hidden, inner)];
        let [both, down] = layers.map(|(name, outputs, inputs)| self.of_all(name, outputs, inputs));
        let (both, down) = (both?, down?);
        both.into_iter()
            .zip(down)
            .map(|(both, down)| Ok(Expert { first: First::Alternating(both), down }))
            .take(count)
            .collect()
    }

    /// One layer of all experts.
    fn of_all(&self, name: &str, outputs: usize, inputs: usize) -> Result<Vec<FrozenLinear>> {
        let (loader, count, name) = (self.loader, self.how.count, format!("{}.{name}", self.path));
        let transposed = !loader.is_quantised(&name);
        let shape = if transposed { [count, inputs, outputs] } else { [count, outputs, inputs] };
        let weights = loader.tensor(&name, &shape)?;
        let biases = loader.tensor(&format!("{name}_bias"), &[count, outputs])?.to_f32()?;
        let layer = |(e, bias): (usize, &[f32])| {
            let bias = Tensor::from_f32(loader.compute.exact(), 1, outputs, bias);
            loader.frozen(&weights.matrix(e)?, transposed, Some(bias))
        };
        biases.chunks_exact(outputs).enumerate().map(layer).collect()
    }
}
