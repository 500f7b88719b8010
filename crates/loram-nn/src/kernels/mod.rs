//! CPU kernels on plain slices: forward and backward passes of every operation a transformer step needs.
//!
//! All of them are generic over [`Real`] (`f32` for work, `f64` for checks), write into memory that the caller gives,
//! and give the same bits for any number of threads: work is cut along rows or output elements whose arithmetic does
//! not depend on the cut. Matrices are row-major. Vector units are chosen at run time ([`simd`]), threads are rayon's
//! ([`par`]), and small work stays on the calling thread.
//!
//! Lengths that do not fit are programmer errors and panic; token ids and labels come from data and give [`OutOfRange`].

pub mod activation;
pub mod attention;
pub mod bf16;
pub mod clamped;
pub mod cross_entropy;
pub mod elementwise;
pub mod embedding;
pub mod few_rows;
pub mod gemm;
mod micro;
pub mod norm;
pub mod optim;
pub mod par;
pub mod pooling;
pub mod real;
pub mod rope;
pub mod routing;
pub mod short_convolution;
pub mod simd;

pub use real::Real;

/// A token id, label or position from the data that the table it indexes does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value} at index {index} is out of range: expected 0..{limit}")]
pub struct OutOfRange {
    /// The kind of index ("label", "token id").
    pub what: &'static str,
    /// Where in the given list.
    pub index: usize,
    /// The value found there.
    pub value: i64,
    /// One more than the largest allowed value.
    pub limit: usize,
}
