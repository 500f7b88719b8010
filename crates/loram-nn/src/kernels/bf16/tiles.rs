//! Tiles of 32 × 32 outputs from packed panels.

#[cfg(not(target_arch = "x86_64"))]
pub(in crate::kernels) use super::absent::Tiles;
#[cfg(target_arch = "x86_64")]
use super::{Kernel, amx, avx512};
use super::{SIDE, Tile};
use std::mem::MaybeUninit;

/// A kernel that is ready on this thread.
#[cfg(target_arch = "x86_64")]
pub(in crate::kernels) enum Tiles {
    Amx(amx::Registers),
    Avx512Bf16,
}

#[cfg(target_arch = "x86_64")]
impl Tiles {
    /// A kernel that must be available.
    pub fn new(kernel: Kernel) -> Tiles {
        match kernel {
            // SAFETY: the kernel is available
            Kernel::Amx => Tiles::Amx(unsafe { amx::Registers::set() }),
            Kernel::Avx512Bf16 => Tiles::Avx512Bf16,
        }
    }

    /// Computes `high` rows and `wide` columns of a tile, and perhaps others.
    ///
    /// # Safety
    /// Panels and all outputs are valid, and no other thread uses these outputs.
    #[inline(always)]
    unsafe fn rows(&self, tile: Tile, high: usize, wide: usize) {
        // SAFETY: the caller's promise; the kernel is available
        unsafe {
            match self {
                Tiles::Amx(registers) => registers.tile(tile),
                Tiles::Avx512Bf16 => avx512::tile(tile, high, wide),
            }
        }
    }
}

impl Tiles {
    /// Computes a tile.
    ///
    /// # Safety
    /// Panels and outputs are valid, and no other thread uses these outputs.
    #[inline(always)]
    pub unsafe fn compute(&self, tile: Tile) {
        // SAFETY: the caller's promise
        unsafe { self.rows(tile, SIDE, SIDE) };
    }

    /// Computes a tile of which `high` rows and `wide` columns exist.
    ///
    /// # Safety
    /// Panels and the outputs that exist are valid, and no other thread uses these outputs.
    #[inline(always)]
    pub unsafe fn part(&self, tile: Tile, high: usize, wide: usize) {
        // SAFETY: the caller's promise; other outputs lie on the stack
        unsafe {
            if high >= SIDE && wide >= SIDE {
                return self.compute(tile);
            }
            let (high, wide) = (high.min(SIDE), wide.min(SIDE));
            // numbers that do not exist may be anything, and stay on the stack
            let mut edge = MaybeUninit::<[[f32; SIDE]; SIDE]>::uninit();
            let edge: *mut f32 = edge.as_mut_ptr().cast();
            if tile.accumulate {
                for r in 0..high {
                    std::ptr::copy_nonoverlapping(tile.c.add(r * tile.ldc), edge.add(r * SIDE), wide);
                }
            }
            self.rows(Tile { c: edge, ldc: SIDE, ..tile }, high, wide);
            for r in 0..high {
                std::ptr::copy_nonoverlapping(edge.add(r * SIDE), tile.c.add(r * tile.ldc), wide);
            }
        }
    }
}
