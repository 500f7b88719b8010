//! Tiles of AMX: 32 × 32 outputs in four tile registers.

use super::Tile;
use std::arch::asm;
use std::marker::PhantomData;

/// A tile configuration: palette 1, all eight registers 16 rows of 64 bytes.
#[repr(C, align(64))]
struct Shape([u8; 64]);

static SHAPE: Shape = {
    let mut s = [0; 64];
    s[0] = 1;
    let mut register = 0;
    while register < 8 {
        s[16 + 2 * register] = 64;
        s[48 + register] = 16;
        register += 1;
    }
    Shape(s)
};

/// The tile registers of this thread, with their shape set until it is dropped.
pub(in crate::kernels) struct Registers(PhantomData<*mut ()>);

impl Registers {
    /// Sets the shape.
    ///
    /// # Safety
    /// [`super::Kernel::Amx`] is available.
    pub unsafe fn set() -> Registers {
        // SAFETY: the processor has AMX, and the configuration is a valid one
        unsafe { asm!("ldtilecfg [{}]", in(reg) &SHAPE, options(nostack, readonly)) };
        Registers(PhantomData)
    }

    /// Computes a tile.
    ///
    /// # Safety
    /// The panels and outputs are valid, and no other thread uses these outputs.
    #[inline(always)]
    pub unsafe fn tile(&self, t: Tile) {
        let row = t.ldc * size_of::<f32>();
        // SAFETY: the caller's promise; the registers are configured while `self` lives
        unsafe {
            asm!(
                "test {accumulate:e}, {accumulate:e}",
                "jz 3f",
                "tileloadd tmm0, [{c} + {row}]",
                "tileloadd tmm1, [{c} + {row} + 64]",
                "tileloadd tmm2, [{low} + {row}]",
                "tileloadd tmm3, [{low} + {row} + 64]",
                "jmp 2f",
                "3:",
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "2:",
                "tileloadd tmm4, [{a} + {line}]",
                "tileloadd tmm6, [{b} + {line}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{b} + {line} + 1024]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm5, [{a} + {line} + 1024]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {a}, 2048",
                "add {b}, 2048",
                "dec {blocks}",
                "jnz 2b",
                "mov {a}, {a2}",
                "mov {b}, {b2}",
                "mov {blocks}, {blocks2}",
                "xor {blocks2:e}, {blocks2:e}",
                "test {blocks}, {blocks}",
                "jnz 2b",
                "tilestored [{c} + {row}], tmm0",
                "tilestored [{c} + {row} + 64], tmm1",
                "tilestored [{low} + {row}], tmm2",
                "tilestored [{low} + {row} + 64], tmm3",
                accumulate = in(reg) u32::from(t.accumulate),
                a = inout(reg) t.main.a => _,
                b = inout(reg) t.main.b => _,
                blocks = inout(reg) t.main.blocks => _,
                a2 = in(reg) t.extra.a,
                b2 = in(reg) t.extra.b,
                blocks2 = inout(reg) t.extra.blocks => _,
                c = in(reg) t.c,
                low = in(reg) t.c.wrapping_add(16 * t.ldc),
                row = in(reg) row,
                line = in(reg) 64usize,
                options(nostack),
            );
        }
    }
}

impl Drop for Registers {
    fn drop(&mut self) {
        // without it the system saves 8 KiB of registers at every switch of threads
        // SAFETY: AMX is available, since the shape was set
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}
