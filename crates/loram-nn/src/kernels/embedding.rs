//! Rows of a table by token id, and the gradient into the table.

use loram_core::StoredWeight;

use super::{
    OutOfRange, Real,
    par::{GRAIN, Rows, RowsMut, Shared, for_rows, for_units},
    real::f32s,
    simd::simd,
};

/// y (ids × cols): row `ids[i]` of the stored table in row i; added to `y` when `accumulate`.
///
/// # Errors
/// The first id that the table does not have; nothing is written then.
pub fn gather_stored<T: Real>(
    table: StoredWeight<'_>,
    ids: &[u32],
    y: &mut [T],
    accumulate: bool,
) -> Result<(), OutOfRange> {
    let cols = table.cols();
    assert_eq!(y.len(), ids.len() * cols, "gather: {} rows of {cols}", ids.len());
    check(ids, table.rows())?;
    for_rows((Rows(ids, 1), RowsMut(y, cols)), ids.len(), cols, |(ids, y), _| {
        let mut row = Vec::new();
        for (&id, y) in ids.0.iter().zip(y.0.chunks_exact_mut(cols)) {
            let at = id as usize * cols..(id as usize + 1) * cols;
            match (f32s(y), accumulate) {
                (Some(y), false) => table.read(at, y),
                _ => {
                    row.resize(cols, 0.0);
                    table.read(at, &mut row);
                    put(&row, y, accumulate, T::from_f32);
                }
            }
        }
    });
    Ok(())
}

/// As [`gather_stored`], from a table (rows × cols) in the number type of `y`.
///
/// # Errors
/// The first id that the table does not have; nothing is written then.
pub fn gather<T: Real>(table: &[T], cols: usize, ids: &[u32], y: &mut [T], accumulate: bool) -> Result<(), OutOfRange> {
    assert_eq!(y.len(), ids.len() * cols, "gather: {} rows of {cols}", ids.len());
    check(ids, table.len().checked_div(cols).unwrap_or(0))?;
    for_rows((Rows(ids, 1), RowsMut(y, cols)), ids.len(), cols, |(ids, y), _| {
        for (&id, y) in ids.0.iter().zip(y.0.chunks_exact_mut(cols)) {
            put(&table[id as usize * cols..(id as usize + 1) * cols], y, accumulate, |x| x);
        }
    });
    Ok(())
}

/// y = (accumulate ? y : 0) + `from`, converted.
fn put<S: Copy, T: Real>(from: &[S], y: &mut [T], accumulate: bool, convert: impl Fn(S) -> T) {
    simd(
        #[inline(always)]
        || {
            for (y, &s) in y.iter_mut().zip(from) {
                *y = if accumulate { *y + convert(s) } else { convert(s) };
            }
        },
    );
}

/// The first id that a table of `limit` rows does not have.
pub(crate) fn check(ids: &[u32], limit: usize) -> Result<(), OutOfRange> {
    match ids.iter().position(|&id| id as usize >= limit) {
        Some(index) => Err(OutOfRange { what: "token id", index, value: i64::from(ids[index]), limit }),
        None => Ok(()),
    }
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
