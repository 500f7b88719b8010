//! Multi-head attention with its projections (1706.03762), over grouped keys and values (2305.13245).

use super::mixer::{Cache, Mixer};
use super::positions::{Positions, PositionsSaved};
use super::projections::{Projections, ProjectionsSaved};
use super::rope::Rotary;
use super::{Norm, NormSaved, Part, PartMut, PartRef, Sublayer};
use crate::compute::Compute;
use crate::dropout::Dropout;
use crate::held::Held;
use crate::kernels::attention::AttnShape;
use crate::linear::{Linear, LinearSaved};
use crate::model::pass::Pass;
use crate::ops;
use crate::param::Params;
use crate::products::Operand;
use crate::tensor::Tensor;

/// Attention from the hidden states to the hidden states.
#[derive(Debug)]
pub(crate) struct Attention {
    /// Queries (heads·d, hidden), keys and values (kv_heads·d, hidden).
    pub qkv: Projections<3>,
    /// (hidden, heads·d).
    pub o: Linear,
    /// Norms of every query head and every key head (Qwen3), or of all heads together (OLMo 2): as wide as they are.
    pub qk_norm: Option<(Norm, Norm)>,
    /// Rotary embedding of queries and keys; `None` for absolute positions, or no positions at all (some layers of SmolLM3).
    pub rope: Option<Rotary>,
    /// Scores of the sinks of the heads (gpt-oss).
    pub sinks: Option<Sinks>,
    /// Terms of relative positions (DeBERTa). Queries and keys then have layers of their own.
    pub positions: Option<Positions>,
    /// Heads, scale and mask. Its dropout comes from `dropout`.
    pub shape: AttnShape,
    /// On the attention weights.
    pub dropout: Dropout,
}

/// Sinks: a score for each head that takes its share of the softmax. They are frozen.
#[derive(Debug)]
pub(crate) struct Sinks {
    pub path: String,
    /// (1, heads), in the number type of parameters.
    pub scores: Tensor,
}

/// Activations of an attention.
pub(crate) struct AttentionSaved {
    qkv: Projected,
    /// Output of the heads, (t, heads·d).
    o: Tensor,
    /// Logarithm of the denominators of the softmax, (t, heads).
    lse: Tensor,
    o_saved: LinearSaved,
    positions: Option<PositionsSaved>,
}

/// Queries, keys and values as the heads see them.
struct Projected {
    q: Tensor,
    k: Tensor,
    v: Tensor,
    /// Queries and keys before their norms, and the norms' statistics.
    before_norm: Option<[(Tensor, NormSaved); 2]>,
    saved: ProjectionsSaved<3>,
}

/// Moves a tensor (t, heads·d) out as (t·heads, d).
fn take_heads(x: &mut Tensor, d: usize) -> Tensor {
    let rows = x.len() / d;
    std::mem::replace(x, Tensor::scratch(x.compute(), 0, 0)).reshape(rows, d)
}

impl Attention {
    /// The shape with the dropout of a step.
    fn shape_in(&self, step: Option<u64>) -> AttnShape {
        AttnShape { dropout: self.dropout.attention(step), ..self.shape }
    }

    fn project(&self, params: &Params, x: &Tensor, pass: &Pass<'_>) -> Projected {
        let d = self.shape.head_dim;
        let ([mut q, mut k, v], saved) = self.qkv.forward(params, &Operand::new(x), pass.step);
        let before_norm = self.qk_norm.as_ref().map(|(q_norm, k_norm)| {
            [(q_norm, &mut q), (k_norm, &mut k)].map(|(norm, x)| {
                let (rows, cols) = (x.rows(), x.cols());
                let heads = take_heads(x, norm.width(params));
                let (y, saved) = norm.forward(params, &heads);
                *x = y.reshape(rows, cols);
                (heads, saved)
            })
        });
        if let Some(rope) = &self.rope {
            rope.rotate(&mut q, &mut k, pass, d, false);
        }
        Projected { q, k, v, before_norm, saved }
    }
}

impl Mixer for Attention {
    /// Keys and values, (tokens, kv_heads·d) each.
    fn cache(&self, compute: Compute) -> Cache {
        Cache::new(compute, [self.qkv.width(1), self.qkv.width(2)])
    }

    fn continue_with(
        &self,
        params: &Params,
        x: Held<'_>,
        base: Option<&Tensor>,
        caches: &mut [&mut Cache],
        pass: &Pass<'_>,
    ) -> Tensor {
        let Projected { q, k, v, .. } = self.project(params, &x, pass);
        drop(x);
        let lengths = pass.sequences.lengths;
        Cache::push(caches, lengths, [&k, &v]);
        drop((k, v));
        let rows: Vec<&[Tensor; 2]> = caches.iter().map(|cache| cache.rows()).collect();
        let (mut o, lse) = ops::attention_cached(&q, &rows, lengths, &self.shape, self.sinks.is_some());
        if let (Some(sinks), Some(mut lse)) = (&self.sinks, lse) {
            ops::add_sinks(&mut o, &mut lse, &sinks.scores, self.shape.head_dim);
        }
        self.o.forward_onto(params, &Operand::new(&o), base, None).0
    }
}

impl Sublayer for Attention {
    type Saved = AttentionSaved;
    /// Gradients of queries, keys and values.
    type Projected = ([Tensor; 3], ProjectionsSaved<3>);

    fn room(&self, params: &Params, compute: Compute, step: Option<u64>) -> usize {
        self.qkv.room(params, compute, step)
    }

    fn forward(
        &self,
        params: &Params,
        x: Held<'_>,
        base: Option<&Tensor>,
        pass: &Pass<'_>,
    ) -> (Tensor, AttentionSaved) {
        let qkv = self.project(params, &x, pass);
        drop(x);
        let Projected { q, k, v, .. } = &qkv;
        let shape = self.shape_in(pass.step);
        let ((mut o, mut lse), positions) = match self.positions.as_ref().zip(self.qkv.first_two()) {
            None => (ops::attention(self.o.kernel(q), [q, k, v], &pass.sequences, &shape), None),
            Some((positions, content)) => {
                let (out, saved) = positions.forward(params, content, [q, k, v], pass, &shape);
                (out, Some(saved))
            }
        };
        if let Some(sinks) = &self.sinks {
            ops::add_sinks(&mut o, &mut lse, &sinks.scores, self.shape.head_dim);
        }
        let (y, o_saved) = self.o.forward_onto(params, &Operand::new(&o), base, pass.step);
        (y, AttentionSaved { qkv, o, lse, o_saved, positions })
    }

    fn backward(&self, params: &mut Params, s: AttentionSaved, dy: Held<'_>, pass: &Pass<'_>) -> Self::Projected {
        let d = self.shape.head_dim;
        let mut d_o = Tensor::scratch(dy.compute(), dy.rows(), self.o.m);
        self.o.backward(
            params,
            &Operand::new(&s.o),
            &s.o_saved,
            &Operand::new(&dy),
            Some((&mut d_o, false)),
            pass.step,
        );
        drop(dy);
        let Projected { q, k, v, before_norm, saved } = s.qkv;
        let shape = self.shape_in(pass.step);
        let kernel = self.o.kernel(&q);
        let (qkv, out) = ([&q, &k, &v], (&s.o, &s.lse));
        let [mut dq, mut dk, dv] = match (self.positions.as_ref().zip(self.qkv.first_two()), s.positions) {
            (Some((positions, content)), Some(saved)) => {
                positions.backward(params, (content, qkv), (saved, out), &d_o, pass, &shape)
            }
            _ => ops::attention_backward(kernel, qkv, out, &d_o, &pass.sequences, &shape),
        };
        drop((d_o, q, k, v, s.o, s.lse));
        if let Some(rope) = &self.rope {
            rope.rotate(&mut dq, &mut dk, pass, d, true);
        }
        if let (Some((q_norm, k_norm)), Some(before)) = (&self.qk_norm, before_norm) {
            for ((norm, g), (x, saved)) in [(q_norm, &mut dq), (k_norm, &mut dk)].into_iter().zip(&before) {
                let (rows, cols) = (g.rows(), g.cols());
                let dy = take_heads(g, x.cols());
                let mut dx = Tensor::scratch(x.compute(), x.rows(), x.cols());
                norm.backward(params, x, saved, &dy, &mut dx, false);
                *g = dx.reshape(rows, cols);
            }
        }
        ([dq, dk, dv], saved)
    }

    fn backward_input(
        &self,
        params: &mut Params,
        (gradients, saved): Self::Projected,
        x: &Tensor,
        dx: Option<(&mut Tensor, bool)>,
        step: Option<u64>,
    ) {
        self.qkv.backward(params, saved, gradients, x, dx, step);
    }

    fn parts(&self) -> Vec<PartRef<'_>> {
        let norms = self.qk_norm.iter().flat_map(|(q, k)| [Part::Norm(q), Part::Norm(k)]);
        let positions = self.positions.iter().flat_map(|p| p.linears()).map(Part::Linear);
        self.qkv.parts().into_iter().chain(positions).chain([Part::Linear(&self.o)]).chain(norms).collect()
    }

    fn parts_mut(&mut self) -> Vec<PartMut<'_>> {
        let norms = self.qk_norm.iter_mut().flat_map(|(q, k)| [Part::Norm(q), Part::Norm(k)]);
        let positions = self.positions.iter_mut().flat_map(|p| p.linears_mut()).map(Part::Linear);
        self.qkv.parts_mut().into_iter().chain(positions).chain([Part::Linear(&mut self.o)]).chain(norms).collect()
    }

    fn frozen(&self) -> Option<&str> {
        self.sinks.as_ref().map(|sinks| &sinks.path[..])
    }
}
