//! A stack of blocks: which activations are kept, and how the backward pass goes down it.

use super::parts::{KvCache, PartMut, PartRef};
use super::pass::Pass;
use crate::compute::Compute;
use crate::param::Params;
use crate::tensor::Tensor;
use std::any::Any;

/// Activations of a block for its backward pass, of a type that the block knows.
pub(crate) type Saved = Box<dyn Any + Send>;

/// One transformer block. The blocks of a stack may be of different types.
pub(crate) trait Block: Send + Sync {
    /// x (t, hidden) → (t, hidden).
    fn forward(&self, params: &Params, x: Tensor, pass: &Pass<'_>) -> (Tensor, Saved);

    /// Adds to the gradients of the parameters; returns dx where it is needed. `saved` comes from a forward pass of this
    /// block.
    fn backward(&self, params: &mut Params, saved: Saved, dy: Tensor, need_dx: bool, pass: &Pass<'_>)
    -> Option<Tensor>;

    /// The input of the block out of its activations.
    fn input_of(&self, saved: Saved) -> Tensor;

    /// An empty cache for generation.
    fn cache(&self, compute: Compute) -> KvCache;

    /// [`Self::forward`] for tokens that continue what the cache holds; their keys and values join it.
    fn continue_with(&self, params: &Params, x: Tensor, cache: &mut KvCache, pass: &Pass<'_>) -> Tensor;

    /// The parts that hold parameters, in the order of the model.
    fn parts(&self) -> Vec<PartRef<'_>>;

    /// [`Self::parts`] to change.
    fn parts_mut(&mut self) -> Vec<PartMut<'_>>;
}

/// Blocks of a model, from the embedding up.
pub(crate) type Blocks = [Box<dyn Block>];

/// Activations of consecutive blocks.
enum Kept {
    /// The activations of each.
    All(Vec<Saved>),
    /// The input of the first: the rest is recomputed (gradient checkpointing, 1604.06174).
    Input(Tensor),
}

/// Activations of a forward pass: `groups` cover the blocks from `first` on, `size` blocks each.
pub(crate) struct Activations {
    first: usize,
    size: usize,
    groups: Vec<Kept>,
}

impl Activations {
    /// Returns true when no block needs a gradient.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }
}

/// Runs the blocks and keeps nothing.
pub(crate) fn infer(blocks: &Blocks, params: &Params, x: Tensor, pass: &Pass<'_>) -> Tensor {
    blocks.iter().fold(x, |x, block| block.forward(params, x, pass).0)
}

/// Runs the blocks. Activations are kept from the lowest trained block on, or from the first when what is below the blocks
/// (the embedding) is trained too; with `checkpointing`, only the inputs of blocks are.
pub(crate) fn forward(
    blocks: &Blocks,
    params: &Params,
    x: Tensor,
    pass: &Pass<'_>,
    below_trains: bool,
    checkpointing: bool,
) -> (Tensor, Activations) {
    let lowest = || blocks.iter().position(|block| block.parts().iter().any(|p| p.trains()));
    let first = if below_trains { 0 } else { lowest().unwrap_or(blocks.len()) };
    // groups of one block: no activations but those of the block at hand exist at a time
    let size = 1;
    let mut x = infer(&blocks[..first], params, x, pass);
    let mut groups = Vec::with_capacity(blocks.len() - first);
    for group in blocks[first..].chunks(size) {
        let (y, kept) = match checkpointing {
            false => {
                let (y, saved) = forward_all(group, params, x, pass);
                (y, Kept::All(saved))
            }
            true => forward_input(group, params, x, pass),
        };
        groups.push(kept);
        x = y;
    }
    (x, Activations { first, size, groups })
}

/// Runs blocks and keeps their activations.
fn forward_all(group: &Blocks, params: &Params, mut x: Tensor, pass: &Pass<'_>) -> (Tensor, Vec<Saved>) {
    let mut all = Vec::with_capacity(group.len());
    for block in group {
        let (y, saved) = block.forward(params, x, pass);
        all.push(saved);
        x = y;
    }
    (x, all)
}

/// Runs blocks and keeps the input of the first.
fn forward_input(group: &Blocks, params: &Params, x: Tensor, pass: &Pass<'_>) -> (Tensor, Kept) {
    let (lowest, rest) = group.split_first().expect("a group has a block");
    let (y, saved) = lowest.forward(params, x, pass);
    let input = lowest.input_of(saved);
    (infer(rest, params, y, pass), Kept::Input(input))
}

/// Goes down the kept blocks; returns the gradient below them when `need_dx`.
pub(crate) fn backward(
    blocks: &Blocks,
    params: &mut Params,
    saved: Activations,
    dy: Tensor,
    pass: &Pass<'_>,
    need_dx: bool,
) -> Option<Tensor> {
    let mut d = Some(dy);
    let groups = blocks[saved.first..].chunks(saved.size).zip(saved.groups).enumerate();
    for (g, (group, kept)) in groups.rev() {
        let all = match kept {
            Kept::All(all) => all,
            Kept::Input(x) => forward_all(group, params, x, pass).1,
        };
        for (i, (block, saved)) in group.iter().zip(all).enumerate().rev() {
            let need_dx = need_dx || g > 0 || i > 0;
            d = block.backward(params, saved, d.expect("gradient from above"), need_dx, pass);
        }
    }
    d
}
