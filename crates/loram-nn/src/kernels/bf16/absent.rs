//! Packing and tiles where no kernel exists: [`super::product`] and [`super::Rounded::new`] refuse before they get here.

use super::matrix::Matrix;
use super::{Kernel, Tile};
use std::ops::Range;

pub(in crate::kernels) struct Tiles;

impl Tiles {
    pub fn new(kernel: Kernel) -> Tiles {
        unreachable!("{} on another architecture", kernel.name())
    }

    pub(super) unsafe fn rows(&self, _: Tile, _: usize, _: usize) {
        unreachable!("no tiles on another architecture")
    }
}

pub(in crate::kernels) unsafe fn rows(_: &Matrix<'_>, _: Range<usize>, _: *mut u8) {}

pub(in crate::kernels) unsafe fn transposed(_: &Matrix<'_>, _: Range<usize>, _: Range<usize>, _: *mut u8) {}

pub(in crate::kernels) unsafe fn rows_of_transpose(_: &Matrix<'_>, _: Range<usize>, _: *mut u8) {}

pub(in crate::kernels) unsafe fn columns_of_block(_: *const u8, _: *mut u8) {}

pub(in crate::kernels) unsafe fn columns(_: &Matrix<'_>, _: Range<usize>, _: Range<usize>, _: *mut u8) {}
