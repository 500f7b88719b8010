//! The block of every encoder family: bidirectional attention and an MLP, each followed by a layer norm of the sum.

use super::stack::{Block, Part, Pass};
use crate::dropout::Dropout;
use crate::kernels::activation::Act;
use crate::kernels::attention::AttnShape;
use crate::linear::{Linear, LinearSaved};
use crate::ops::{self, Norm, NormSaved};
use crate::param::Params;
use crate::tensor::Tensor;

/// BERT, RoBERTa and DistilBERT differ in names only.
#[derive(Debug)]
pub(crate) struct EncoderBlock {
    pub q: Linear,
    pub k: Linear,
    pub v: Linear,
    pub o: Linear,
    pub attention_norm: Norm,
    pub up: Linear,
    pub down: Linear,
    pub output_norm: Norm,
    pub act: Act,
    pub shape: AttnShape,
    pub attention_dropout: Dropout,
    /// On the output of the attention.
    pub output_dropout: Dropout,
    /// On the output of the MLP.
    pub mlp_dropout: Dropout,
}

/// Activations of one block.
pub(crate) struct EncoderSaved {
    x: Tensor,
    qkv: [Tensor; 3],
    o: Tensor,
    lse: Tensor,
    /// x + attention, before its norm.
    sum1: Tensor,
    norm1: NormSaved,
    x1: Tensor,
    /// MLP before the activation.
    up: Tensor,
    /// x1 + MLP, before its norm.
    sum2: Tensor,
    norm2: NormSaved,
    lora: [LinearSaved; 6],
}

/// sum += dropout(linear(x)).
fn add_to(
    sum: &mut Tensor,
    linear: &Linear,
    dropout: Dropout,
    params: &Params,
    x: &Tensor,
    step: Option<u64>,
) -> LinearSaved {
    if !dropout.is_on(step) {
        return linear.forward_into(params, x, sum, true, step);
    }
    let (y, saved) = linear.forward(params, x, step);
    dropout.add(&y, sum, step);
    saved
}

impl EncoderBlock {
    fn attention_shape(&self, step: Option<u64>) -> AttnShape {
        AttnShape { dropout: self.attention_dropout.attention(step), ..self.shape }
    }

    pub fn linears(&self) -> [&Linear; 6] {
        [&self.q, &self.k, &self.v, &self.o, &self.up, &self.down]
    }

    pub fn parts(&mut self) -> Vec<Part<'_>> {
        vec![
            Part::Linear(&mut self.q),
            Part::Linear(&mut self.k),
            Part::Linear(&mut self.v),
            Part::Linear(&mut self.o),
            Part::Norm(&mut self.attention_norm),
            Part::Linear(&mut self.up),
            Part::Linear(&mut self.down),
            Part::Norm(&mut self.output_norm),
        ]
    }
}

impl Block for EncoderBlock {
    type Saved = EncoderSaved;

    fn forward(&self, params: &Params, x: Tensor, pass: &Pass<'_>) -> (Tensor, EncoderSaved) {
        let step = pass.step;
        let (q, lq) = self.q.forward(params, &x, step);
        let (k, lk) = self.k.forward(params, &x, step);
        let (v, lv) = self.v.forward(params, &x, step);
        let (o, lse) = ops::attention(&q, &k, &v, &pass.documents, &self.attention_shape(step));
        let mut sum1 = x.clone();
        let lo = add_to(&mut sum1, &self.o, self.output_dropout, params, &o, step);
        let (x1, norm1) = self.attention_norm.forward(params, &sum1);
        let (up, lu) = self.up.forward(params, &x1, step);
        let h = ops::act(self.act, &up);
        let mut sum2 = x1.clone();
        let ld = add_to(&mut sum2, &self.down, self.mlp_dropout, params, &h, step);
        let (y, norm2) = self.output_norm.forward(params, &sum2);
        let lora = [lq, lk, lv, lo, lu, ld];
        (y, EncoderSaved { x, qkv: [q, k, v], o, lse, sum1, norm1, x1, up, sum2, norm2, lora })
    }

    fn backward(
        &self,
        params: &mut Params,
        s: EncoderSaved,
        dy: Tensor,
        need_dx: bool,
        pass: &Pass<'_>,
    ) -> Option<Tensor> {
        let step = pass.step;
        let [lq, lk, lv, lo, lu, ld] = &s.lora;
        let (compute, t, hidden) = (dy.compute(), dy.rows(), dy.cols());

        // y = norm(x1 + dropout(down(act(up(x1)))))
        let mut dx1 = Tensor::scratch(compute, t, hidden);
        self.output_norm.backward(params, &s.sum2, &s.norm2, &dy, &mut dx1, false);
        drop(dy);
        let h = ops::act(self.act, &s.up);
        let mut dh = Tensor::scratch(compute, t, self.down.m);
        let dropped = self.mlp_dropout.of(&dx1, step);
        self.down.backward(params, &h, ld, dropped.as_ref().unwrap_or(&dx1), Some((&mut dh, false)), step);
        drop((h, dropped));
        ops::act_backward(self.act, &s.up, &mut dh);
        self.up.backward(params, &s.x1, lu, &dh, Some((&mut dx1, true)), step);
        drop(dh);

        // x1 = norm(x + dropout(o(attention)))
        let mut dx = Tensor::scratch(compute, t, hidden);
        self.attention_norm.backward(params, &s.sum1, &s.norm1, &dx1, &mut dx, false);
        let mut d_o = dx1;
        let dropped = self.output_dropout.of(&dx, step);
        self.o.backward(params, &s.o, lo, dropped.as_ref().unwrap_or(&dx), Some((&mut d_o, false)), step);
        drop(dropped);
        let [q, k, v] = &s.qkv;
        let shape = self.attention_shape(step);
        let [dq, dk, dv] = ops::attention_backward([q, k, v], (&s.o, &s.lse), &d_o, &pass.documents, &shape);
        for (linear, saved, g) in [(&self.q, lq, &dq), (&self.k, lk, &dk), (&self.v, lv, &dv)] {
            linear.backward(params, &s.x, saved, g, need_dx.then_some((&mut dx, true)), step);
        }
        need_dx.then_some(dx)
    }

    fn into_input(saved: EncoderSaved) -> Tensor {
        saved.x
    }

    fn trains(&self) -> bool {
        self.linears().iter().any(|l| l.trains()) || self.attention_norm.trains() || self.output_norm.trains()
    }
}
