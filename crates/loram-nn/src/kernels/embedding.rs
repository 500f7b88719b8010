//! Rows of a table by token id, and the gradient into the table.

use half::{bf16, f16};

use super::{
    OutOfRange, Real,
    par::{GRAIN, Rows, RowsMut, Shared, for_rows, for_units},
    simd::simd,
};

/// A table (rows × cols) in one of the formats that checkpoints have.
#[derive(Debug, Clone, Copy)]
pub enum Table<'a> {
    /// 32-bit.
    F32(&'a [f32]),
    /// 64-bit.
    F64(&'a [f64]),
    /// bfloat16.
    Bf16(&'a [bf16]),
    /// Half.
    F16(&'a [f16]),
}

impl Table<'_> {
    fn len(&self) -> usize {
        match self {
            Table::F32(t) => t.len(),
            Table::F64(t) => t.len(),
            Table::Bf16(t) => t.len(),
            Table::F16(t) => t.len(),
        }
    }
}

/// y (ids × cols): row `ids[i]` of the table in row i; added to `y` when `accumulate`.
///
/// # Errors
/// The first id that the table does not have; nothing is written then.
pub fn gather<T: Real>(
    table: Table<'_>,
    cols: usize,
    ids: &[u32],
    y: &mut [T],
    accumulate: bool,
) -> Result<(), OutOfRange> {
    assert_eq!(y.len(), ids.len() * cols, "gather: {} rows of {cols}", ids.len());
    check(ids, table.len().checked_div(cols).unwrap_or(0))?;
    match table {
        Table::F32(t) => rows(t, cols, ids, y, accumulate, T::from_f32),
        Table::F64(t) => rows(t, cols, ids, y, accumulate, T::from_f64),
        Table::Bf16(t) => rows(t, cols, ids, y, accumulate, T::from_bf16),
        Table::F16(t) => rows(t, cols, ids, y, accumulate, T::from_f16),
    }
    Ok(())
}

/// The first id that a table of `limit` rows does not have.
pub(crate) fn check(ids: &[u32], limit: usize) -> Result<(), OutOfRange> {
    match ids.iter().position(|&id| id as usize >= limit) {
        Some(index) => Err(OutOfRange { what: "token id", index, value: i64::from(ids[index]), limit }),
        None => Ok(()),
    }
}

fn rows<T: Real, S: Copy + Sync>(
    table: &[S],
    cols: usize,
    ids: &[u32],
    y: &mut [T],
    accumulate: bool,
    widen: impl Fn(S) -> T + Copy + Sync,
) {
    for_rows((Rows(ids, 1), RowsMut(y, cols)), ids.len(), cols, |(ids, y), _| {
        simd(
            #[inline(always)]
            || {
                for (&id, y) in ids.0.iter().zip(y.0.chunks_exact_mut(cols)) {
                    let from = &table[id as usize * cols..(id as usize + 1) * cols];
                    for (y, &s) in y.iter_mut().zip(from) {
                        *y = if accumulate { *y + widen(s) } else { widen(s) };
                    }
                }
            },
        );
    });
}

/// dtable\[ids\[i\]\] += row i of `dy` (ids × cols), tokens in order, blocks of columns in parallel.
///
/// # Errors
/// The first id that the table does not have; nothing is added then.
pub fn scatter_add<T: Real>(dy: &[T], ids: &[u32], dtable: &mut [T], cols: usize) -> Result<(), OutOfRange> {
    assert_eq!(dy.len(), ids.len() * cols, "scatter_add: {} rows of {cols}", ids.len());
    check(ids, dtable.len().checked_div(cols).unwrap_or(0))?;
    const BLOCK: usize = 64;
    let out = Shared::new(dtable);
    for_units(cols.div_ceil(BLOCK), (GRAIN / (ids.len() * BLOCK).max(1)).max(1), |unit| {
        let (from, to) = (unit * BLOCK, ((unit + 1) * BLOCK).min(cols));
        simd(
            #[inline(always)]
            || {
                for (i, &id) in ids.iter().enumerate() {
                    let row = id as usize * cols;
                    // SAFETY: blocks of columns do not overlap
                    let target = unsafe { out.slice(row + from..row + to) };
                    for (t, &g) in target.iter_mut().zip(&dy[i * cols + from..i * cols + to]) {
                        *t += g;
                    }
                }
            },
        );
    });
    Ok(())
}
