//! The number type of products with frozen weights on the CPU, and the operands of products.

use crate::kernels::bf16::{self, Kernel, LowRank, Matrix, Right, Rounded};
use crate::kernels::gemm::Term;
use crate::ops;
use crate::tensor::{Element, Tensor};
use std::cell::OnceCell;

/// How activations are multiplied by frozen weights on the CPU, and by the adapters beside these. Everything else is computed
/// in the number type of the activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Products {
    /// In the number type of the activations.
    #[default]
    Exact,
    /// In bf16 with sums in f32 where the weight is stored in bf16 or quantised (see [`rounds`](crate::rounds)).
    Stored(Kernel),
    /// In bf16 with sums in f32, whatever the weights are stored in.
    Rounded(Kernel),
}

impl Products {
    /// The kernel for products with a weight, `rounds` telling whether it is stored in bf16 or quantised; `None`: in the number type of
    /// activations.
    pub fn kernel(self, rounds: bool) -> Option<Kernel> {
        match self {
            Products::Exact => None,
            Products::Stored(kernel) => rounds.then_some(kernel),
            Products::Rounded(kernel) => Some(kernel),
        }
    }
}

/// An operand of products, which is rounded once for all that need it in bf16.
#[derive(Debug)]
pub(crate) struct Operand<'a> {
    tensor: &'a Tensor,
    rounded: OnceCell<Rounded>,
    watched: bool,
}

impl<'a> Operand<'a> {
    pub fn new(tensor: &'a Tensor) -> Operand<'a> {
        Operand { tensor, rounded: OnceCell::new(), watched: true }
    }

    /// An operand that does not count where inputs of layers are watched.
    pub fn unwatched(tensor: &'a Tensor) -> Operand<'a> {
        Operand { watched: false, ..Operand::new(tensor) }
    }

    /// Returns whether it counts where inputs of layers are watched.
    pub fn is_watched(&self) -> bool {
        self.watched
    }

    pub fn tensor(&self) -> &'a Tensor {
        self.tensor
    }

    /// The tensor in bf16, which must be in f32.
    pub fn rounded(&self) -> &Rounded {
        self.rounded.get_or_init(|| Rounded::new(self.tensor.view()))
    }
}

/// `scale` · x·w, or `scale` · x·wᵀ where `transposed`: a term of low rank beside a product with a weight.
pub(crate) struct Low<'a> {
    pub scale: f64,
    pub x: &'a Tensor,
    pub w: &'a Tensor,
    pub transposed: bool,
}

impl<'a> Low<'a> {
    /// The term in the number type of its tensors.
    pub fn term<T: Element>(&self) -> Term<'a, T> {
        let w = self.w.view();
        Term { alpha: T::from_f64(self.scale), a: self.x.view(), b: if self.transposed { w.t() } else { w } }
    }

    fn right(&self) -> Right<'a> {
        right(self.w, self.scale, self.transposed)
    }
}

fn right(w: &Tensor, scale: f64, transposed: bool) -> Right<'_> {
    let w = Matrix::of(w.view(), scale as f32);
    if transposed { Right::Transposed(w) } else { Right::Plain(w) }
}

/// out = (accumulate ? out : 0) + x·w + Σ `low` with a kernel, for tensors in f32.
pub(crate) fn product(
    kernel: Kernel,
    out: &mut Tensor,
    accumulate: bool,
    x: &Operand<'_>,
    w: Right<'_>,
    low: &[Low<'_>],
) {
    let rounded: Vec<Rounded> = low.iter().map(|term| Rounded::new(term.x.view())).collect();
    let terms: Vec<_> = low.iter().zip(&rounded).map(|(term, x)| LowRank { x, w: term.right() }).collect();
    bf16::product(kernel, out.view_mut(), accumulate, x.rounded(), w, &terms);
}

/// x·aᵀ as a new tensor, with a kernel or in the number type of the tensors.
pub(crate) fn times_t(kernel: Option<Kernel>, x: &Operand<'_>, a: &Tensor) -> Tensor {
    let Some(kernel) = kernel else { return ops::times_t(x.tensor, a) };
    let mut out = Tensor::scratch(x.tensor.compute(), x.tensor.rows(), a.rows());
    product(kernel, &mut out, false, x, right(a, 1.0, true), &[]);
    out
}

/// s·x·b as a new tensor, with a kernel or in the number type of the tensors.
pub(crate) fn times(kernel: Option<Kernel>, s: f64, x: &Operand<'_>, b: &Tensor) -> Tensor {
    let Some(kernel) = kernel else { return ops::times(s, x.tensor, b) };
    let mut out = Tensor::scratch(x.tensor.compute(), x.tensor.rows(), b.cols());
    product(kernel, &mut out, false, x, right(b, s, false), &[]);
    out
}

/// out (r, m) += gᵀ·x with g (t, r) and x (t, m): the gradient of A.
pub(crate) fn add_t_times(kernel: Option<Kernel>, out: &mut Tensor, g: &Tensor, x: &Operand<'_>) {
    match kernel {
        None => ops::add_t_times(out, 1.0, g, x.tensor),
        Some(kernel) => {
            let g = Rounded::transposed(g.view());
            bf16::product(kernel, out.view_mut(), true, &g, Right::Rounded(x.rounded()), &[]);
        }
    }
}

/// out (n, r) += s·dyᵀ·h with dy (t, n) and h (t, r): the gradient of B.
pub(crate) fn add_scaled_t_times(kernel: Option<Kernel>, out: &mut Tensor, s: f64, dy: &Operand<'_>, h: &Tensor) {
    match kernel {
        None => ops::add_t_times(out, s, dy.tensor, h),
        // the transpose has few rows, which its kernel likes
        Some(kernel) => {
            let mut t = Tensor::scratch(h.compute(), h.cols(), dy.tensor.cols());
            let h = Rounded::transposed(h.view());
            bf16::product(kernel, t.view_mut(), false, &h, Right::Rounded(dy.rounded()), &[]);
            let (s, r, n) = (s as f32, t.rows(), t.cols());
            for (j, out) in out.f32s_mut().chunks_exact_mut(r).enumerate() {
                for (out, t) in out.iter_mut().zip(t.f32s()[j..].iter().step_by(n)) {
                    *out += s * t;
                }
            }
        }
    }
}
