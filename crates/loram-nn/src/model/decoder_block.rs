//! The block of every decoder family: pre-norm, rotary grouped-query attention, gated MLP.

use super::stack::{Block, Part, Pass};
use crate::dropout::Dropout;
use crate::kernels::activation::Act;
use crate::kernels::attention::AttnShape;
use crate::linear::{Linear, LinearSaved};
use crate::ops::{self, Norm, NormSaved};
use crate::param::Params;
use crate::tensor::Tensor;

/// Llama, Mistral, Qwen2, Qwen3 and SmolLM3 are settings of this.
#[derive(Debug)]
pub(crate) struct DecoderBlock {
    pub input_norm: Norm,
    pub q: Linear,
    pub k: Linear,
    pub v: Linear,
    pub o: Linear,
    /// Norms of each query and key head (Qwen3).
    pub qk_norm: Option<(Norm, Norm)>,
    pub post_norm: Norm,
    pub gate: Linear,
    pub up: Linear,
    pub down: Linear,
    pub act: Act,
    pub shape: AttnShape,
    pub attention_dropout: Dropout,
    /// False for blocks without positions (SmolLM3).
    pub rope: bool,
}

/// Activations of one block; normalised inputs and the gated product are computed again.
pub(crate) struct DecoderSaved {
    x: Tensor,
    input_norm: NormSaved,
    qkv: Projected,
    o: Tensor,
    lse: Tensor,
    x1: Tensor,
    post_norm: NormSaved,
    gate: Tensor,
    up: Tensor,
    lora: [LinearSaved; 4],
}

/// Queries, keys and values as attention sees them.
struct Projected {
    q: Tensor,
    k: Tensor,
    v: Tensor,
    /// Queries and keys before their norms, and the norms' statistics.
    plain: Option<[(Tensor, NormSaved); 2]>,
    lora: [LinearSaved; 3],
}

/// Keys and values of one block for all tokens so far, `(tokens, kv_heads·d)` each.
pub(crate) struct LayerCache {
    pub k: Tensor,
    pub v: Tensor,
}

impl DecoderBlock {
    fn attention_shape(&self, step: Option<u64>) -> AttnShape {
        AttnShape { dropout: self.attention_dropout.attention(step), ..self.shape }
    }

    pub fn linears(&self) -> [&Linear; 7] {
        [&self.q, &self.k, &self.v, &self.o, &self.gate, &self.up, &self.down]
    }

    pub fn parts(&mut self) -> Vec<Part<'_>> {
        let mut parts: Vec<Part<'_>> =
            [&mut self.q, &mut self.k, &mut self.v, &mut self.o].into_iter().map(Part::Linear).collect();
        if let Some((q, k)) = &mut self.qk_norm {
            parts.extend([Part::Norm(q), Part::Norm(k)]);
        }
        parts.extend([&mut self.gate, &mut self.up, &mut self.down].into_iter().map(Part::Linear));
        parts.extend([Part::Norm(&mut self.input_norm), Part::Norm(&mut self.post_norm)]);
        parts
    }

    fn project(&self, params: &Params, xn: &Tensor, pass: &Pass<'_>) -> Projected {
        let d = self.shape.head_dim;
        let (mut q, lq) = self.q.forward(params, xn, pass.step);
        let (mut k, lk) = self.k.forward(params, xn, pass.step);
        let (v, lv) = self.v.forward(params, xn, pass.step);
        let plain = self.qk_norm.as_ref().map(|(nq, nk)| {
            [(nq, &mut q), (nk, &mut k)].map(|(norm, x)| {
                let (rows, cols) = (x.rows(), x.cols());
                let heads = std::mem::replace(x, Tensor::scratch(x.compute(), 0, 0)).reshape(rows * cols / d, d);
                let (y, saved) = norm.forward(params, &heads);
                *x = y.reshape(rows, cols);
                (heads, saved)
            })
        });
        if self.rope {
            pass.rotate(&mut q, d, false);
            pass.rotate(&mut k, d, false);
        }
        Projected { q, k, v, plain, lora: [lq, lk, lv] }
    }

    /// x1 + MLP(norm(x1)) with what the backward pass needs.
    fn mlp(
        &self,
        params: &Params,
        x1: &Tensor,
        step: Option<u64>,
    ) -> (Tensor, NormSaved, Tensor, Tensor, [LinearSaved; 3]) {
        let (xn, norm) = self.post_norm.forward(params, x1);
        let (gate, lg) = self.gate.forward(params, &xn, step);
        let (up, lu) = self.up.forward(params, &xn, step);
        drop(xn);
        let h = ops::gated(self.act, &gate, &up);
        let mut y = x1.clone();
        let ld = self.down.forward_into(params, &h, &mut y, true, step);
        (y, norm, gate, up, [lg, lu, ld])
    }

    /// Like [`Block::forward`] for tokens that continue what the cache holds; their keys and values join it.
    pub fn continue_with(&self, params: &Params, x: &Tensor, cache: &mut LayerCache, pass: &Pass<'_>) -> Tensor {
        let (xn, _) = self.input_norm.forward(params, x);
        let Projected { q, k, v, .. } = self.project(params, &xn, pass);
        cache.k.push_rows(&k);
        cache.v.push_rows(&v);
        let o = ops::attention_cached(&q, &cache.k, &cache.v, &self.shape);
        let mut x1 = x.clone();
        self.o.forward_into(params, &o, &mut x1, true, None);
        self.mlp(params, &x1, None).0
    }
}

impl Block for DecoderBlock {
    type Saved = DecoderSaved;

    fn forward(&self, params: &Params, x: Tensor, pass: &Pass<'_>) -> (Tensor, DecoderSaved) {
        let (xn, input_norm) = self.input_norm.forward(params, &x);
        let qkv = self.project(params, &xn, pass);
        drop(xn);
        let (o, lse) = ops::attention(&qkv.q, &qkv.k, &qkv.v, &pass.documents, &self.attention_shape(pass.step));
        let mut x1 = x.clone();
        let lo = self.o.forward_into(params, &o, &mut x1, true, pass.step);
        let (y, post_norm, gate, up, [lg, lu, ld]) = self.mlp(params, &x1, pass.step);
        (y, DecoderSaved { x, input_norm, qkv, o, lse, x1, post_norm, gate, up, lora: [lo, lg, lu, ld] })
    }

    fn backward(
        &self,
        params: &mut Params,
        s: DecoderSaved,
        dy: Tensor,
        need_dx: bool,
        pass: &Pass<'_>,
    ) -> Option<Tensor> {
        let step = pass.step;
        let [lo, lg, lu, ld] = &s.lora;
        let (compute, t, hidden) = (dy.compute(), dy.rows(), dy.cols());

        // y = x1 + down(act(gate)·up)
        let (mut dgate, mut dup) = (s.gate, s.up);
        let h = ops::gated(self.act, &dgate, &dup);
        let mut dh = Tensor::scratch(compute, t, self.down.m);
        self.down.backward(params, &h, ld, &dy, Some((&mut dh, false)), step);
        drop(h);
        ops::gated_backward(self.act, &mut dgate, &mut dup, &dh);
        drop(dh);
        let xn = self.post_norm.forward(params, &s.x1).0;
        let mut dxn = Tensor::scratch(compute, t, hidden);
        self.gate.backward(params, &xn, lg, &dgate, Some((&mut dxn, false)), step);
        self.up.backward(params, &xn, lu, &dup, Some((&mut dxn, true)), step);
        drop((xn, dgate, dup));
        let mut dx1 = dy;
        self.post_norm.backward(params, &s.x1, &s.post_norm, &dxn, &mut dx1, true);

        // x1 = x + o(attention)
        let mut d_o = Tensor::scratch(compute, t, self.o.m);
        self.o.backward(params, &s.o, lo, &dx1, Some((&mut d_o, false)), step);
        let Projected { q, k, v, plain, lora: [lq, lk, lv] } = s.qkv;
        let shape = self.attention_shape(step);
        let [mut dq, mut dk, dv] = ops::attention_backward([&q, &k, &v], (&s.o, &s.lse), &d_o, &pass.documents, &shape);
        drop((d_o, q, k, v));
        let d = self.shape.head_dim;
        if self.rope {
            pass.rotate(&mut dq, d, true);
            pass.rotate(&mut dk, d, true);
        }
        if let (Some((nq, nk)), Some(plain)) = (&self.qk_norm, &plain) {
            for ((norm, g), (x, saved)) in [(nq, &mut dq), (nk, &mut dk)].into_iter().zip(plain) {
                let (rows, cols) = (g.rows(), g.cols());
                let heads = std::mem::replace(g, Tensor::scratch(compute, 0, 0)).reshape(x.rows(), d);
                let mut dx = Tensor::scratch(compute, x.rows(), d);
                norm.backward(params, x, saved, &heads, &mut dx, false);
                *g = dx.reshape(rows, cols);
            }
        }
        let xn = self.input_norm.forward(params, &s.x).0;
        let through = need_dx || self.input_norm.trains();
        for (linear, saved, g, accumulate) in
            [(&self.q, &lq, &dq, false), (&self.k, &lk, &dk, true), (&self.v, &lv, &dv, true)]
        {
            linear.backward(params, &xn, saved, g, through.then_some((&mut dxn, accumulate)), step);
        }
        if through {
            self.input_norm.backward(params, &s.x, &s.input_norm, &dxn, &mut dx1, true);
        }
        need_dx.then_some(dx1)
    }

    fn into_input(saved: DecoderSaved) -> Tensor {
        saved.x
    }

    fn trains(&self) -> bool {
        self.linears().iter().any(|l| l.trains())
            || self.input_norm.trains()
            || self.post_norm.trains()
            || self.qk_norm.as_ref().is_some_and(|(q, k)| q.trains() || k.trains())
    }
}
