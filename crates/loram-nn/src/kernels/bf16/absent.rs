//! Packing and tiles where no kernel exists: [`super::product`] and [`super::Rounded::new`] refuse before they get here.

use super::matrix::Matrix;
use super::{Kernel, Tile};
use std::ops::Range;

pub(super) enum Tiles {}

impl Tiles {
    pub fn new(kernel: Kernel) -> Tiles {
        unreachable!("{} on another architecture", kernel.name())
    }

    pub unsafe fn compute(&self, _: Tile) {
        match *self {}
    }
}

pub(super) unsafe fn rows(_: &Matrix<'_>, _: Range<usize>, _: *mut u8) {}

pub(super) unsafe fn transposed(_: &Matrix<'_>, _: Range<usize>, _: Range<usize>, _: *mut u8) {}

pub(super) unsafe fn rows_of_transpose(_: &Matrix<'_>, _: Range<usize>, _: *mut u8) {}

pub(super) unsafe fn columns_of_block(_: *const u8, _: *mut u8) {}

pub(super) unsafe fn columns(_: &Matrix<'_>, _: Range<usize>, _: Range<usize>, _: *mut u8) {}
