//! Relative positions in an attention (DeBERTa, 2006.03654). All blocks share one embedding of them, which a pass carries.

use crate::dropout::Dropout;
use crate::kernels::attention::AttnShape;
use crate::linear::{Linear, LinearSaved};
use crate::model::pass::Pass;
use crate::ops::{self, Tables};
use crate::param::Params;
use crate::products::Operand;
use crate::tensor::Tensor;
use loram_io::config::RelativePositions;

/// The terms of relative positions of one attention.
#[derive(Debug)]
pub(crate) struct Positions {
    /// Key projection of positions; `None`: that of the content.
    pub k: Option<Linear>,
    /// Query projection of positions.
    pub q: Option<Linear>,
    pub of: RelativePositions,
    /// On the embedding.
    pub dropout: Dropout,
}

/// Activations of the positions.
pub(crate) struct PositionsSaved {
    /// The embedding after its dropout.
    embedding: Tensor,
    k: Option<(Tensor, LinearSaved)>,
    q: Option<(Tensor, LinearSaved)>,
    rows: Vec<u32>,
}

/// Tells the dropout of adapters on positions from that on the content.
const OTHER: u64 = 0x5bd1_e995_97f4_a7c1;

impl Positions {
    /// The row of the embedding for each distance (query − key) within sequences of up to `longest` tokens, from −(longest − 1) on:
    /// itself up to half the buckets, beyond it on a logarithmic scale, as transformers' `make_log_bucket_position` in f32.
    fn rows(&self, longest: usize) -> Vec<u32> {
        let (most, span) = (longest.max(1) as i64 - 1, self.of.span as i64);
        let bucket = |distance: i64| {
            let Some(buckets) = self.of.buckets else { return distance };
            let (mid, length) = ((buckets / 2) as i64, distance.abs());
            if length <= mid {
                return distance;
            }
            let end = ((self.of.max_distance - 1) as f64 / mid as f64) as f32;
            let place = (length as f32 / mid as f32).ln() / end.ln() * (mid - 1) as f32;
            (place.ceil() as i64 + mid) * distance.signum()
        };
        (-most..=most).map(|d| (bucket(d) + span).clamp(0, 2 * span - 1) as u32).collect()
    }

    /// Output of the heads and the softmax's denominators as of [`ops::attention`], with what the backward pass needs. `content` are
    /// the projections of queries and keys.
    pub fn forward(
        &self,
        params: &Params,
        content: [&Linear; 2],
        qkv: [&Tensor; 3],
        pass: &Pass<'_>,
        shape: &AttnShape,
    ) -> ((Tensor, Tensor), PositionsSaved) {
        let shared = pass.relative.embedding();
        let embedding = self.dropout.of(shared, pass.step).unwrap_or_else(|| shared.copy());
        let step = pass.step.map(|step| step ^ OTHER);
        // statistics of a layer's inputs are those of the content
        let operand = Operand::unwatched(&embedding);
        let project = |own: &Option<Linear>, content: &Linear, there: bool| {
            there.then(|| own.as_ref().unwrap_or(content).forward(params, &operand, step))
        };
        let q = project(&self.q, content[0], self.of.p2c);
        let k = project(&self.k, content[1], self.of.c2p);
        drop(operand);
        let rows = self.rows(pass.sequences.lengths.iter().copied().max().unwrap_or(0));
        let saved = PositionsSaved { embedding, k, q, rows };
        (ops::disentangled(qkv, &saved.tables(), &pass.sequences, shape), saved)
    }

    /// Gradients of queries, keys and values; those of the projections and of the embedding are added where they belong.
    pub fn backward(
        &self,
        params: &mut Params,
        (content, qkv): ([&Linear; 2], [&Tensor; 3]),
        (saved, out): (PositionsSaved, (&Tensor, &Tensor)),
        d_o: &Tensor,
        pass: &Pass<'_>,
        shape: &AttnShape,
    ) -> [Tensor; 3] {
        let (gradients, dk, dq) = ops::disentangled_backward(qkv, &saved.tables(), out, d_o, &pass.sequences, shape);
        let step = pass.step.map(|step| step ^ OTHER);
        let operand = Operand::new(&saved.embedding);
        let mut d = pass
            .relative
            .wants_gradient()
            .then(|| Tensor::zeros(saved.embedding.compute(), saved.embedding.rows(), saved.embedding.cols()));
        for (own, content, projected, gradient) in
            [(&self.q, content[0], &saved.q, dq), (&self.k, content[1], &saved.k, dk)]
        {
            if let (Some((_, lora)), Some(gradient)) = (projected, gradient) {
                let target = d.as_mut().map(|d| (d, true));
                let linear = own.as_ref().unwrap_or(content);
                linear.backward(params, &operand, lora, &Operand::new(&gradient), target, step);
            }
        }
        if let Some(d) = d {
            pass.relative.add_gradient(&self.dropout.apply(d, pass.step));
        }
        gradients
    }

    /// Layers of its own.
    pub fn linears(&self) -> impl Iterator<Item = &Linear> {
        self.q.iter().chain(&self.k)
    }

    /// [`Self::linears`] to change.
    pub fn linears_mut(&mut self) -> impl Iterator<Item = &mut Linear> {
        self.q.iter_mut().chain(&mut self.k)
    }
}

impl PositionsSaved {
    fn tables(&self) -> Tables<'_> {
        Tables { k: self.k.as_ref().map(|k| &k.0), q: self.q.as_ref().map(|q| &q.0), rows: &self.rows }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of `fixtures/make.py`.
    #[test]
    fn places_are_those_of_transformers() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/ref/relative-positions.json");
        let cases: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        for case in cases.as_array().unwrap() {
            let number = |key: &str| case[key].as_u64().unwrap() as usize;
            let (buckets, max_distance) = (number("buckets"), number("max_distance"));
            let (span, buckets) = (buckets, Some(buckets));
            let of = RelativePositions {
                span,
                buckets,
                max_distance,
                c2p: true,
                p2c: true,
                shares_projections: true,
                norm: true,
            };
            let positions = Positions { k: None, q: None, of, dropout: Dropout::model(0.0, 0, 0) };
            let rows = positions.rows(max_distance);
            let place = |i: usize| case["places"][i].as_i64().unwrap();
            for i in 0..max_distance {
                let row = |place: i64| (place + span as i64).clamp(0, 2 * span as i64 - 1) as u32;
                assert_eq!(rows[max_distance - 1 + i], row(place(i)), "{span}, distance {i}");
                assert_eq!(rows[max_distance - 1 - i], row(-place(i)), "{span}, distance -{i}");
            }
        }
    }
}
