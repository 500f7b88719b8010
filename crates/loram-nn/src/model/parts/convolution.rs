//! Short convolutions in place of attention (LFM2).

use super::mixer::{Cache, Mixer};
use super::{Part, PartMut, PartRef, Sublayer};
use crate::compute::Compute;
use crate::convolution::Kernel;
use crate::held::Held;
use crate::linear::{Linear, LinearSaved, backward_all, room};
use crate::model::pass::Pass;
use crate::ops::Sequences;
use crate::param::Params;
use crate::products::Operand;
use crate::tensor::Tensor;

/// output(c ⊙ conv(b ⊙ z)), where b, c and z are the thirds of input(x). The convolution is frozen.
#[derive(Debug)]
pub(crate) struct ShortConvolution {
    /// (3·hidden, hidden).
    pub input: Linear,
    /// The path of the convolution.
    pub path: String,
    pub kernel: Kernel,
    /// (hidden, hidden).
    pub output: Linear,
}

/// Activations of a short convolution; what lies between the projections is recomputed.
pub(crate) struct ShortConvolutionSaved {
    /// The output of the first projection, (t, 3·hidden).
    bcz: Tensor,
    input: LinearSaved,
    output: LinearSaved,
}

impl Mixer for ShortConvolution {
    /// The input of the convolution.
    fn cache(&self, compute: Compute) -> Cache {
        Cache::new(compute, [self.kernel.width()])
    }

    fn continue_with(
        &self,
        params: &Params,
        x: Held<'_>,
        base: Option<&Tensor>,
        caches: &mut [&mut Cache],
        pass: &Pass<'_>,
    ) -> Tensor {
        let bcz = self.input.forward(params, &Operand::new(&x), None).0;
        drop(x);
        let lengths = pass.sequences.lengths;
        Cache::push(caches, lengths, [&self.kernel.input(&bcz)]);
        let mut y = Tensor::scratch(bcz.compute(), 0, self.kernel.width());
        let mut first = 0;
        for (cache, n) in caches.iter().zip(lengths) {
            let [u] = cache.rows();
            let own = bcz.gather_rows(&(first..first + n).collect::<Vec<_>>());
            let sequence = Sequences::new(std::slice::from_ref(n), &pass.sequences.positions[first..first + n]);
            y.push_rows(&self.kernel.forward(&own, u, &sequence));
            first += n;
        }
        self.output.forward_onto(params, &Operand::new(&y), base, None).0
    }
}

impl Sublayer for ShortConvolution {
    type Saved = ShortConvolutionSaved;
    /// Gradient of the output of the first projection.
    type Projected = (Tensor, LinearSaved);

    fn room(&self, params: &Params, compute: Compute, step: Option<u64>) -> usize {
        room(&[&self.input], params, compute, step)
    }

    fn forward(
        &self,
        params: &Params,
        x: Held<'_>,
        base: Option<&Tensor>,
        pass: &Pass<'_>,
    ) -> (Tensor, ShortConvolutionSaved) {
        let (bcz, input) = self.input.forward(params, &Operand::new(&x), pass.step);
        drop(x);
        let y = self.kernel.forward(&bcz, &self.kernel.input(&bcz), &pass.sequences);
        let (y, output) = self.output.forward_onto(params, &Operand::new(&y), base, pass.step);
        (y, ShortConvolutionSaved { bcz, input, output })
    }

    fn backward(&self, params: &mut Params, s: Self::Saved, dy: Held<'_>, pass: &Pass<'_>) -> Self::Projected {
        let u = self.kernel.input(&s.bcz);
        let y = self.kernel.forward(&s.bcz, &u, &pass.sequences);
        let mut d = Tensor::scratch(dy.compute(), dy.rows(), self.output.m);
        let target = Some((&mut d, false));
        self.output.backward(params, &Operand::new(&y), &s.output, &Operand::new(&dy), target, pass.step);
        drop((y, dy));
        (self.kernel.backward(&s.bcz, &u, &pass.sequences, &d), s.input)
    }

    fn backward_input(
        &self,
        params: &mut Params,
        (gradient, saved): Self::Projected,
        x: &Tensor,
        dx: Option<(&mut Tensor, bool)>,
        step: Option<u64>,
    ) {
        backward_all(params, [(&self.input, saved, gradient)], x, dx, step);
    }

    fn parts(&self) -> Vec<PartRef<'_>> {
        [&self.input, &self.output].map(Part::Linear).into()
    }

    fn parts_mut(&mut self) -> Vec<PartMut<'_>> {
        [&mut self.input, &mut self.output].map(Part::Linear).into()
    }

    fn frozen(&self) -> Option<&str> {
        Some(&self.path)
    }
}
