//! A pile of blocks: which activations are kept, and how the backward pass goes down it.

use crate::linear::Linear;
use crate::ops::{Norm, RopeTable, Sequences};
use crate::param::Params;
use crate::tensor::Tensor;
use crate::weight::Weight;
use std::sync::Arc;

/// What all blocks of a pass share.
pub(crate) struct Pass<'a> {
    pub documents: Sequences<'a>,
    /// Seed of the dropout in this step; `None`: no dropout.
    pub step: Option<u64>,
    /// Rotary table for each document, for decoders: one entry serves all where they are equal.
    pub rope: Vec<Arc<RopeTable>>,
}

impl Pass<'_> {
    /// Rotates x (t, heads·d) in place.
    pub fn rotate(&self, x: &mut Tensor, d: usize, backward: bool) {
        if let [table] = &self.rope[..] {
            return table.apply(x, 0..x.rows(), &self.documents, d, backward);
        }
        let mut start = 0;
        for (table, &n) in self.rope.iter().zip(self.documents.lengths) {
            table.apply(x, start..start + n, &self.documents, d, backward);
            start += n;
        }
    }
}

/// An embedding table.
#[derive(Debug)]
pub(crate) struct Embedding {
    pub path: String,
    pub weight: crate::linear::Trainable<Weight>,
}

/// A named piece of a model that holds parameters.
pub(crate) enum Part<'a> {
    Linear(&'a mut Linear),
    Norm(&'a mut Norm),
    Embedding(&'a mut Embedding),
}

impl Part<'_> {
    pub fn path(&self) -> &str {
        match self {
            Part::Linear(l) => &l.path,
            Part::Norm(n) => &n.path,
            Part::Embedding(t) => &t.path,
        }
    }
}

/// One transformer block.
pub(crate) trait Block: Send + Sync {
    /// Activations for the backward pass.
    type Saved: Send;

    /// x (t, hidden) → (t, hidden).
    fn forward(&self, params: &Params, x: Tensor, pass: &Pass<'_>) -> (Tensor, Self::Saved);
    /// Adds to the parameters' gradients; gives dx where it is needed.
    fn backward(
        &self,
        params: &mut Params,
        saved: Self::Saved,
        dy: Tensor,
        need_dx: bool,
        pass: &Pass<'_>,
    ) -> Option<Tensor>;
    /// The block's input out of its activations.
    fn into_input(saved: Self::Saved) -> Tensor;
    /// Whether anything in it is trained.
    fn trains(&self) -> bool;
}

/// What a block left behind.
pub(crate) enum SavedBlock<S> {
    /// All activations.
    All(S),
    /// Its input only: the rest is computed again (gradient checkpointing, 1604.06174).
    Input(Tensor),
}

/// Activations of the blocks from `first` on.
pub(crate) struct Activations<S> {
    first: usize,
    kept: Vec<SavedBlock<S>>,
}

/// Runs the blocks. With `train`, activations are kept from the lowest trained block on, or from the first when what is
/// below the blocks (the embedding) is trained too.
pub(crate) fn forward<B: Block>(
    blocks: &[B],
    params: &Params,
    mut x: Tensor,
    pass: &Pass<'_>,
    train: bool,
    below_trains: bool,
    checkpointing: bool,
) -> (Tensor, Activations<B::Saved>) {
    let lowest = if below_trains { 0 } else { blocks.iter().position(B::trains).unwrap_or(blocks.len()) };
    let first = if train { lowest } else { blocks.len() };
    let mut kept = Vec::with_capacity(blocks.len() - first);
    for (i, block) in blocks.iter().enumerate() {
        let (y, saved) = block.forward(params, x, pass);
        if i >= first {
            kept.push(if checkpointing { SavedBlock::Input(B::into_input(saved)) } else { SavedBlock::All(saved) });
        }
        x = y;
    }
    (x, Activations { first, kept })
}

/// Goes down the kept blocks; gives the gradient below them when `need_dx`.
pub(crate) fn backward<B: Block>(
    blocks: &[B],
    params: &mut Params,
    saved: Activations<B::Saved>,
    dy: Tensor,
    pass: &Pass<'_>,
    need_dx: bool,
) -> Option<Tensor> {
    let mut d = Some(dy);
    for (i, kept) in saved.kept.into_iter().enumerate().rev() {
        let block = &blocks[saved.first + i];
        let saved = match kept {
            SavedBlock::All(saved) => saved,
            SavedBlock::Input(x) => block.forward(params, x, pass).1,
        };
        d = block.backward(params, saved, d.expect("gradient from above"), i > 0 || need_dx, pass);
    }
    d
}

impl<S> Activations<S> {
    /// True when nothing below the head needs a gradient.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }
}
