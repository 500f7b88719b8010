//! A stack of blocks: which activations are kept, and how the backward pass goes down it.

use super::parts::{Cache, PartMut, PartRef};
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
    fn cache(&self, compute: Compute) -> Cache;

    /// [`Self::forward`] for tokens that continue what the cache holds, which they join.
    fn continue_with(&self, params: &Params, x: Tensor, caches: &mut [&mut Cache], pass: &Pass<'_>) -> Tensor;

    /// The parts that hold parameters, in the order of the model.
    fn parts(&self) -> Vec<PartRef<'_>>;

    /// [`Self::parts`] to change.
    fn parts_mut(&mut self) -> Vec<PartMut<'_>>;

    /// The path of something in the block that no kind of training changes.
    fn frozen(&self) -> Option<&str>;
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

/// Blocks of a group in gradient checkpointing: with one, no activations but those of the block at hand exist at a time.
pub(crate) const GROUP: usize = 1;

/// Runs the blocks. Activations are kept from the lowest trained block on, or from the first when what is below the blocks
/// (the embedding) is trained too; with `checkpointing`, only the inputs of groups of so many blocks are.
pub(crate) fn forward(
    blocks: &Blocks,
    params: &Params,
    x: Tensor,
    pass: &Pass<'_>,
    below_trains: bool,
    checkpointing: Option<usize>,
) -> (Tensor, Activations) {
    let lowest = || blocks.iter().position(|block| block.parts().iter().any(|p| p.trains()));
    let first = if below_trains { 0 } else { lowest().unwrap_or(blocks.len()) };
    let size = checkpointing.unwrap_or(1);
    let mut x = infer(&blocks[..first], params, x, pass);
    let mut groups = Vec::with_capacity(blocks.len() - first);
    for group in blocks[first..].chunks(size) {
        let (y, kept) = match checkpointing {
            None => {
                let (y, saved) = forward_all(group, params, x, pass);
                (y, Kept::All(saved))
            }
            Some(_) => forward_input(group, params, x, pass),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{HeadKind, LoadOptions, Model};
    use loram_io::{Checkpoint, ModelConfig};
    use std::path::PathBuf;

    /// Groups of any size give the same bits as activations that are all kept, in outputs and in all gradients.
    #[test]
    fn groups_of_checkpointing() {
        let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/models/smollm3");
        let (ckpt, mut config) = (Checkpoint::open(&dir).unwrap(), ModelConfig::load(&dir).unwrap());
        if let ModelConfig::Decoder(c) = &mut config {
            c.attention_dropout = 0.2;
        }
        let options = LoadOptions { dropout: true, ..LoadOptions::new(HeadKind::LanguageModel) };
        let mut model = Model::load(&ckpt, &config, &options).unwrap();
        model.full_finetune().unwrap();
        let (lengths, positions) = ([4, 3], [0, 1, 2, 3, 0, 1, 2]);
        let pass = Pass::new(&lengths, &positions, Some(7));
        let width = model.linears()[0].m;
        let values =
            |seed: usize| (0..7 * width).map(|i| ((i * 37 + seed) % 101) as f32 / 50.0 - 1.0).collect::<Vec<_>>();
        let tensor = |seed| Tensor::from_f32(Compute::F32, 7, width, &values(seed));
        let mut run = |checkpointing| {
            model.params.zero_grads().unwrap();
            let blocks = model.backbone.blocks();
            assert!(blocks.len() >= 3, "too few blocks for groups");
            let (y, kept) = forward(blocks, &model.params, tensor(1), &pass, true, checkpointing);
            let dx = backward(blocks, &mut model.params, kept, tensor(2), &pass, true).unwrap();
            let grads = model.params.iter().flat_map(|p| p.grad.f32s());
            y.f32s().iter().chain(dx.f32s()).chain(grads).map(|x| x.to_bits()).collect::<Vec<_>>()
        };
        let all = run(None);
        for size in [1, 2, 3, 4, 100] {
            assert!(run(Some(size)) == all, "groups of {size}");
        }
    }
}
