//! Keys and values of all sequences as operands, packed once for all query heads that see them.

use super::super::super::bf16::{BLOCK, Line, Matrix, SIDE, pack};
use super::super::super::gemm::View;
use super::super::super::par::{Shared, for_units};
use super::super::{AttnShape, sequences};
use crate::pool::Buffer;
use std::ops::Range;

/// Rows of a head in a matrix (T × width) in f32, times a factor.
///
/// `x` begins at the first number of the first row.
pub(super) fn rows_of(x: &[f32], rows: usize, d: usize, width: usize, factor: f32) -> Matrix<'_> {
    Matrix::of(View::with_stride(x, rows, d, width), factor)
}

/// Keys or values, rounded and packed.
pub(super) struct Operand {
    data: Buffer<Line>,
    /// Blocks before each sequence.
    starts: Vec<usize>,
    /// Panels of rows in each sequence.
    panels: Vec<usize>,
    /// Blocks that a head is wide.
    wide: usize,
}

impl Operand {
    /// Left operand: the rows of a matrix (T × kv_heads·d), of which panels of 32 have the head's columns as inner index.
    pub fn rows(x: &[f32], lengths: &[usize], shape: &AttnShape) -> Operand {
        let wide = shape.head_dim.div_ceil(SIDE);
        Operand::new(x, lengths, shape, |matrix, n, panel, out, _| {
            // SAFETY: the rows exist, `out` has room for a panel, and a kernel is available
            unsafe {
                pack::rows(matrix, panel * SIDE..((panel + 1) * SIDE).min(n), out.wrapping_add(panel * wide * BLOCK))
            };
        })
    }

    /// Right operand: the columns of a head, with the rows of a sequence as inner index.
    pub fn columns(x: &[f32], lengths: &[usize], shape: &AttnShape) -> Operand {
        let d = shape.head_dim;
        Operand::new(x, lengths, shape, |matrix, n, panel, out, panels| {
            let inner = panel * SIDE..((panel + 1) * SIDE).min(n);
            for (j, column) in (0..d).step_by(SIDE).enumerate() {
                // the panel's block of every column panel of the head
                let at = out.wrapping_add((j * panels + panel) * BLOCK);
                // SAFETY: rows and columns exist, the block lies in the head's memory, and a kernel is available
                unsafe { pack::columns(matrix, column..(column + SIDE).min(d), inner.clone(), at) };
            }
        })
    }

    /// Packs each panel of rows of each head with `pack(rows of the head, their number, panel, place of the head, panels)`.
    fn new(
        x: &[f32],
        lengths: &[usize],
        shape: &AttnShape,
        pack: impl Fn(&Matrix<'_>, usize, usize, *mut u8, usize) + Sync,
    ) -> Operand {
        let (heads, d, width) = (shape.kv_heads, shape.head_dim, shape.kv_width());
        let wide = d.div_ceil(SIDE);
        let panels: Vec<usize> = lengths.iter().map(|n| n.div_ceil(SIDE)).collect();
        let mut all = 0;
        let mut starts = Vec::with_capacity(lengths.len());
        let mut units = Vec::new();
        for (rows, &panels) in sequences(lengths).zip(&panels) {
            for head in 0..heads {
                units.extend((0..panels).map(|panel| (rows.clone(), head, panel, all + head * panels * wide, panels)));
            }
            starts.push(all);
            all += panels * wide * heads;
        }
        let mut data = Buffer::<Line>::new(all * BLOCK / size_of::<Line>());
        let out = Shared::new(&mut data);
        let line = |block: usize| out.ptr(block * BLOCK / size_of::<Line>()).cast::<u8>();
        // a panel of two blocks takes about 0.3 µs
        for_units(units.len(), (128 / wide.max(1)).max(1), |u| {
            let (rows, head, panel, first, panels): &(Range<usize>, _, _, _, _) = &units[u];
            let matrix = rows_of(&x[rows.start * width + head * d..], rows.len(), d, width, 1.0);
            pack(&matrix, rows.len(), *panel, line(*first), *panels);
        });
        Operand { data, starts, panels, wide }
    }

    fn head(&self, sequence: usize, head: usize) -> usize {
        self.starts[sequence] + head * self.panels[sequence] * self.wide
    }

    fn at(&self, block: usize) -> *const u8 {
        self.data[block * BLOCK / size_of::<Line>()..].as_ptr().cast()
    }

    /// A panel of rows of a left operand.
    pub fn panel(&self, sequence: usize, head: usize, panel: usize) -> *const u8 {
        self.at(self.head(sequence, head) + panel * self.wide)
    }

    /// Panel `column` of a right operand from the block of inner indices `inner` on.
    pub fn column(&self, sequence: usize, head: usize, column: usize, inner: usize) -> *const u8 {
        self.at(self.head(sequence, head) + column * self.panels[sequence] + inner)
    }
}
