//! Short convolutions between gates on tensors.

#[cfg(gpu)]
use crate::cuda;
use crate::kernels::short_convolution::{self, Taps};
use crate::ops::Sequences;
use crate::tensor::{Element, Tensor, typed};

/// The position of every token, on the GPU.
#[cfg(gpu)]
fn positions<'a>(sequences: &'a Sequences<'_>) -> &'a cuda::Buffer {
    sequences.layout.positions.get_or_init(|| cuda::Buffer::of_numbers(sequences.positions))
}

/// The factors of a convolution, in the number type of parameters.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// (length, width): row j is the factor on the input of j tokens before.
    pub factors: Tensor,
    /// (1, width), where there is one.
    pub bias: Option<Tensor>,
}

impl Kernel {
    /// Channels.
    pub fn width(&self) -> usize {
        self.factors.cols()
    }

    fn taps<T: Element>(&self) -> Taps<'_, T> {
        let bias = self.bias.as_ref().map(Tensor::as_slice);
        Taps { width: self.width(), factors: self.factors.as_slice(), bias }
    }

    #[cfg(gpu)]
    fn parts(&self) -> (&Tensor, Option<&Tensor>) {
        (&self.factors, self.bias.as_ref())
    }

    /// The input u (t, width) of the convolution: b ⊙ x of rows (b, c, x).
    pub fn input(&self, bcx: &Tensor) -> Tensor {
        let mut u = Tensor::scratch(bcx.compute(), bcx.rows(), self.width());
        typed!(
            bcx, T, short_convolution::gate_input::<T>(bcx.as_slice(), u.as_mut_slice(), self.width()),
            gpu: cuda::convolution::gate_input(bcx, &mut u)
        );
        u
    }

    /// c ⊙ conv(u) for the tokens of a pass, the last rows of u.
    pub fn forward(&self, bcx: &Tensor, u: &Tensor, sequences: &Sequences<'_>) -> Tensor {
        let mut y = Tensor::scratch(bcx.compute(), bcx.rows(), self.width());
        typed!(bcx, T, {
            let (bcx, u) = (bcx.as_slice::<T>(), u.as_slice());
            short_convolution::short_convolution(bcx, u, sequences.positions, self.taps(), y.as_mut_slice());
        }, gpu: cuda::convolution::forward([bcx, u], self.parts(), positions(sequences), &mut y));
        y
    }

    /// The gradient of `bcx` from that of [`Self::forward`] over whole sequences; u is [`Self::input`].
    pub fn backward(&self, bcx: &Tensor, u: &Tensor, sequences: &Sequences<'_>, dy: &Tensor) -> Tensor {
        let mut out = Tensor::scratch(bcx.compute(), bcx.rows(), bcx.cols());
        typed!(bcx, T, {
            let (bcx, u, dy) = (bcx.as_slice::<T>(), u.as_slice(), dy.as_slice());
            let (positions, out) = (sequences.positions, out.as_mut_slice());
            short_convolution::short_convolution_backward(bcx, u, positions, self.taps(), dy, out);
        }, gpu: cuda::convolution::backward([bcx, u, dy], self.parts(), positions(sequences), &mut out));
        out
    }
}
