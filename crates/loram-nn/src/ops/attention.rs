//! Attention on tensors: within sequences, with relative positions, against caches, with sinks.

use super::Sequences;
#[cfg(gpu)]
use crate::cuda;
use crate::kernels::attention::{self, AttnShape, DisentangledGradients, RelativeTerms};
use crate::kernels::bf16::Kernel;
use crate::tensor::{Element, Tensor, typed};

/// Attention within sequences: q (t, heads·d), k and v (t, kv_heads·d) → output (t, heads·d) and
/// the logarithm of the softmax's denominator (t, heads). With a kernel, products of tensors in f32 are in bf16.
pub(crate) fn attention(
    kernel: Option<Kernel>,
    [q, k, v]: [&Tensor; 3],
    sequences: &Sequences<'_>,
    shape: &AttnShape,
) -> (Tensor, Tensor) {
    let mut o = Tensor::scratch(q.compute(), q.rows(), q.cols());
    let mut lse = Tensor::scratch(q.compute().exact(), q.rows(), shape.heads);
    let lengths = sequences.lengths;
    if let Some(kernel) = kernel {
        let (q, k, v, o_out, lse_out) = (q.f32s(), k.f32s(), v.f32s(), o.as_mut_slice(), lse.as_mut_slice());
        attention::rounded::attention(kernel, q, k, v, o_out, lse_out, lengths, shape);
        return (o, lse);
    }
    typed!(q, T, {
        let (o, lse) = (o.as_mut_slice::<T>(), lse.as_mut_slice());
        attention::attention(q.as_slice(), k.as_slice(), v.as_slice(), o, lse, lengths, shape);
    }, gpu: cuda::attention::attention([q, k, v], &mut o, &mut lse, lengths, &sequences.layout, shape));
    (o, lse)
}

/// Gradients of [`attention`]: (dq, dk, dv). `qkv` are its inputs, `out` its outputs.
pub(crate) fn attention_backward(
    kernel: Option<Kernel>,
    qkv: [&Tensor; 3],
    out: (&Tensor, &Tensor),
    d_o: &Tensor,
    sequences: &Sequences<'_>,
    shape: &AttnShape,
) -> [Tensor; 3] {
    let lengths = sequences.lengths;
    let [mut dq, mut dk, mut dv] = qkv.map(|t| Tensor::scratch(t.compute(), t.rows(), t.cols()));
    let [q, k, v] = qkv;
    if let Some(kernel) = kernel {
        attention::rounded::attention_backward(
            kernel,
            q.f32s(),
            k.f32s(),
            v.f32s(),
            out.0.f32s(),
            out.1.f32s(),
            d_o.f32s(),
            dq.as_mut_slice(),
            dk.as_mut_slice(),
            dv.as_mut_slice(),
            lengths,
            shape,
        );
        return [dq, dk, dv];
    }
    typed!(q, T, {
        attention::attention_backward::<T>(
            q.as_slice(),
            k.as_slice(),
            v.as_slice(),
            out.0.as_slice(),
            out.1.as_slice(),
            d_o.as_slice(),
            dq.as_mut_slice(),
            dk.as_mut_slice(),
            dv.as_mut_slice(),
            lengths,
            shape,
        );
    }, gpu: {
        let gradients = [&mut dq, &mut dk, &mut dv];
        cuda::attention::attention_backward(qkv, out, d_o, gradients, lengths, &sequences.layout, shape);
    });
    [dq, dk, dv]
}

/// Projected relative positions, (rows, heads·d), where the attention has the term, and the row for each distance.
pub(crate) struct Tables<'a> {
    pub k: Option<&'a Tensor>,
    pub q: Option<&'a Tensor>,
    pub rows: &'a [u32],
}

impl Tables<'_> {
    fn terms<T: Element>(&self) -> RelativeTerms<'_, T> {
        RelativeTerms { k: self.k.map(Tensor::as_slice), q: self.q.map(Tensor::as_slice), rows: self.rows }
    }
}

/// [`attention`] with terms of relative positions, on the CPU.
pub(crate) fn disentangled(
    [q, k, v]: [&Tensor; 3],
    tables: &Tables<'_>,
    sequences: &Sequences<'_>,
    shape: &AttnShape,
) -> (Tensor, Tensor) {
    let mut o = Tensor::scratch(q.compute(), q.rows(), q.cols());
    let mut lse = Tensor::scratch(q.compute().exact(), q.rows(), shape.heads);
    typed!(q, T, {
        let (qkv, o, lse) = ([q, k, v].map(Tensor::as_slice::<T>), o.as_mut_slice(), lse.as_mut_slice());
        attention::disentangled(qkv, &tables.terms(), o, lse, sequences.lengths, shape);
    });
    (o, lse)
}

/// Gradients of [`disentangled`]: of queries, keys and values, and of the tables of keys and queries where there are such.
pub(crate) fn disentangled_backward(
    qkv: [&Tensor; 3],
    tables: &Tables<'_>,
    out: (&Tensor, &Tensor),
    d_o: &Tensor,
    sequences: &Sequences<'_>,
    shape: &AttnShape,
) -> ([Tensor; 3], Option<Tensor>, Option<Tensor>) {
    let mut all = qkv.map(|t| Tensor::scratch(t.compute(), t.rows(), t.cols()));
    let [mut dk, mut dq] = [tables.k, tables.q].map(|t| t.map(|t| Tensor::zeros(t.compute(), t.rows(), t.cols())));
    typed!(d_o, T, {
        let gradients = DisentangledGradients {
            qkv: all.each_mut().map(Tensor::as_mut_slice::<T>),
            position_k: dk.as_mut().map(Tensor::as_mut_slice),
            position_q: dq.as_mut().map(Tensor::as_mut_slice),
        };
        let (qkv, out) = (qkv.map(Tensor::as_slice::<T>), (out.0.as_slice(), out.1.as_slice()));
        let terms = tables.terms();
        attention::disentangled_backward(qkv, &terms, out, d_o.as_slice(), gradients, sequences.lengths, shape);
    });
    (all, dk, dq)
}

/// The new tokens of several sequences attend to everything in the caches of theirs, which end with themselves: q (Σ n, heads·d),
/// `lengths` the number of new tokens of each sequence, `caches` its keys and values → (Σ n, heads·d). With `lse`, the logarithms of the
/// softmax's denominators (Σ n, heads) too.
pub(crate) fn attention_cached(
    q: &Tensor,
    caches: &[&[Tensor; 2]],
    lengths: &[usize],
    shape: &AttnShape,
    lse: bool,
) -> (Tensor, Option<Tensor>) {
    let mut o = Tensor::scratch(q.compute(), q.rows(), q.cols());
    let mut lse = lse.then(|| Tensor::scratch(q.compute().exact(), q.rows(), shape.heads));
    typed!(q, T, {
        let sequences = caches.iter().map(|[k, v]| (k.as_slice::<T>(), v.as_slice::<T>())).zip(lengths.iter().copied());
        let lse = lse.as_mut().map(|lse| lse.as_mut_slice());
        attention::attention_cached::<T>(q.as_slice(), sequences.collect(), o.as_mut_slice(), lse, shape);
    }, gpu: gpu_cached(q, caches, lengths, &mut o, &mut lse, shape));
    (o, lse)
}

/// [`attention_cached`], one launch for each sequence.
#[cfg(gpu)]
fn gpu_cached(
    q: &Tensor,
    caches: &[&[Tensor; 2]],
    lengths: &[usize],
    o: &mut Tensor,
    lse: &mut Option<Tensor>,
    shape: &AttnShape,
) {
    if let [[k, v]] = caches {
        return cuda::attention::attention_cached([q, k, v], o, lse.as_mut(), shape);
    }
    o.truncate_rows(0);
    lse.iter_mut().for_each(|lse| lse.truncate_rows(0));
    let mut first = 0;
    for ([k, v], &n) in caches.iter().zip(lengths) {
        let q = q.gather_rows(&(first..first + n).collect::<Vec<_>>());
        let mut own = Tensor::scratch(q.compute(), n, q.cols());
        let mut own_lse = lse.as_ref().map(|lse| Tensor::scratch(lse.compute(), n, lse.cols()));
        cuda::attention::attention_cached([&q, k, v], &mut own, own_lse.as_mut(), shape);
        o.push_rows(&own);
        lse.iter_mut().zip(&own_lse).for_each(|(all, own)| all.push_rows(own));
        first += n;
    }
}

/// Output (t, heads·d) and logarithms of denominators (t, heads) of an attention, as they are with the scores `sinks` (1, heads) beside
/// those of the keys.
pub(crate) fn add_sinks(o: &mut Tensor, lse: &mut Tensor, sinks: &Tensor, d: usize) {
    typed!(o, T, {
        let (o, lse) = (o.as_mut_slice::<T>(), lse.as_mut_slice());
        attention::add_sinks(o, lse, sinks.as_slice(), d);
    }, gpu: cuda::attention::add_sinks(o, lse, sinks, d));
}
