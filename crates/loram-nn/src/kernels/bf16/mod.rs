//! Matrix products of bf16 with sums in f32, for frozen weights: C = A·W or A·Wᵀ with A rounded from f32.
//!
//! Two kernels compute tiles of 32 × 32 outputs from packed panels: [`Kernel::Amx`] with AMX's tile registers,
//! [`Kernel::Avx512Bf16`] with the dot products of AVX512-BF16. Every output is one chain of sums over blocks of the inner
//! index, cut by the shapes only, so that each kernel gives the same bits for any number of threads. The two differ in their
//! last bits, since they add the two products of a pair in another order. Both round to nearest even and treat denormal
//! numbers as 0.
//!
//! An operand is packed into panels of 32 of its rows (left) or columns (right), with blocks of 32 of the inner index one
//! after another, 2 KiB each. What a panel lacks to 32 is 0.

// the operands are made and checked everywhere, and read by kernels alone
#![cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]

#[cfg(not(target_arch = "x86_64"))]
pub(in crate::kernels) mod absent;
#[cfg(not(target_arch = "x86_64"))]
pub(in crate::kernels) use absent as pack;
#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod matrix;
#[cfg(target_arch = "x86_64")]
pub(in crate::kernels) mod pack;
mod processor;
mod product;
mod rounded;
#[cfg(test)]
mod tests;
mod tiles;

pub use matrix::{Matrix, Number};
pub use processor::Kernel;
pub use product::{LowRank, Right, product};
pub use rounded::Rounded;
pub(in crate::kernels) use tiles::Tiles;

use crate::pool::Pooled;

/// Rows or columns of a panel, and inner indices of a block.
pub(in crate::kernels) const SIDE: usize = 32;

/// Bytes of a block of a panel.
pub(in crate::kernels) const BLOCK: usize = SIDE * SIDE * 2;

/// A cache line of packed numbers.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub struct Line([u8; 64]);

// SAFETY: 64 bytes of plain data without padding
unsafe impl bytemuck::Zeroable for Line {}
// SAFETY: as above
unsafe impl bytemuck::Pod for Line {}
impl Pooled for Line {}

/// A panel of each operand, from one block of the inner index on.
#[derive(Debug, Clone, Copy)]
pub(in crate::kernels) struct Panels {
    pub a: *const u8,
    pub b: *const u8,
    pub blocks: usize,
    /// Inner indices of the last block that are not 0 in both panels.
    pub tail: usize,
}

impl Panels {
    pub const NONE: Panels = Panels { a: std::ptr::null(), b: std::ptr::null(), blocks: 0, tail: 0 };
}

/// The sum of two products of panels, into 32 rows of 32 outputs from `c` on, `ldc` apart.
#[derive(Debug, Clone, Copy)]
pub(in crate::kernels) struct Tile {
    /// At least one block.
    pub main: Panels,
    /// Perhaps none.
    pub extra: Panels,
    pub c: *mut f32,
    pub ldc: usize,
    /// Add to the outputs.
    pub accumulate: bool,
}
