//! K·X for K = WᵀW and a few vectors X, in one pass over W as it is stored: a panel of rows is multiplied by X and at once
//! by the transpose of the result, while it lies in the cache.

use crate::weight::{StoredWeight, WeightBytes, WeightFormat};
use rayon::prelude::*;
use std::ops::Range;

/// Rows multiplied together: they stay in the cache for the second product.
const PANEL: usize = 8;
/// Rows, and vectors, whose sums are in registers at a time.
const TILE: usize = 4;
/// Rows summed by one task; a constant, so that the result does not depend on the number of threads.
const BLOCK: usize = 512;

/// A vector register's worth of neighbouring inputs.
const WIDE: usize = 16;
type Wide = [f32; WIDE];
/// A row, filled up with zeros to whole registers.
type Plane = Vec<Wide>;
/// Registers of a row that are worked on at a time.
const PART: usize = 32;

/// Results of a pass over W.
pub(crate) struct Pass<const V: usize> {
    /// KX, by input.
    pub y: Vec<[f32; V]>,
    /// XᵀKX.
    pub g: [[f64; V]; V],
    /// Σx and Σx² over the entries of W to the precision of f32, where asked for: W comes from memory once for both. Not
    /// finite also where squares exceed f32.
    pub sums: (f64, f64),
}

/// KX and XᵀKX for V vectors, `x[j]` being their entries for input j, and with SUMS those of W. V is 8 or 16.
pub(crate) fn gram_product<const V: usize, const SUMS: bool, B: WeightBytes>(
    w: &StoredWeight<'_, B>,
    x: &[[f32; V]],
) -> Result<Pass<V>, B::Error> {
    const { assert!(V.is_multiple_of(TILE)) };
    let (rows, cols) = (w.rows(), w.cols());
    let wide = cols.div_ceil(WIDE);
    let zeros = || vec![Wide::default(); wide];
    // a plane for each vector, so that neighbouring inputs share a register
    let planes: [Plane; V] = std::array::from_fn(|k| {
        let mut plane = zeros();
        plane.as_flattened_mut().iter_mut().zip(x).for_each(|(p, x)| *p = x[k]);
        plane
    });
    let blocks: Vec<_> = (0..rows.div_ceil(BLOCK))
        .into_par_iter()
        .map_init(
            || ([0; 2].map(|_| std::array::from_fn(|_| zeros())), Vec::new()),
            |(panels, buffer), b| {
                let rows = b * BLOCK..((b + 1) * BLOCK).min(rows);
                pulp::Arch::new().dispatch(Block::<V, SUMS, B> { w, rows, x: &planes, panels, buffer })
            },
        )
        .collect();
    let mut y = vec![[0.0; V]; cols];
    let (mut g, mut sums) = ([[0.0; V]; V], (0.0, 0.0));
    for block in blocks {
        let (planes, inner, of_w) = block?;
        sums = (sums.0 + of_w.0, sums.1 + of_w.1);
        for (k, plane) in planes.iter().enumerate() {
            y.iter_mut().zip(plane.as_flattened()).for_each(|(y, p)| y[k] += p);
        }
        (0..V).for_each(|i| (0..V).for_each(|j| g[i][j] += inner[i][j]));
    }
    Ok(Pass { y, g, sums })
}

/// Adds x·xᵀ.
#[inline(always)]
pub(crate) fn add_outer<const V: usize>(inner: &mut [[f64; V]; V], x: &[f32; V]) {
    for i in 0..V {
        for j in 0..V {
            inner[i][j] += f64::from(x[i]) * f64::from(x[j]);
        }
    }
}

/// The part of a block of rows. A type of its own, because a closure is not inlined where the vector unit is known.
struct Block<'a, const V: usize, const SUMS: bool, B> {
    w: &'a StoredWeight<'a, B>,
    rows: Range<usize>,
    x: &'a [Plane; V],
    panels: &'a mut [[Plane; PANEL]; 2],
    buffer: &'a mut Vec<u8>,
}

/// KX, XᵀKX and the sums of a block.
type Part<const V: usize> = ([Plane; V], [[f64; V]; V], (f64, f64));

impl<const V: usize, const SUMS: bool, B: WeightBytes> pulp::NullaryFnOnce for Block<'_, V, SUMS, B> {
    type Output = Result<Part<V>, B::Error>;

    #[inline(always)]
    fn call(self) -> Self::Output {
        block(self)
    }
}

#[inline(always)]
fn block<const V: usize, const SUMS: bool, B: WeightBytes>(
    Block { w, rows, x, panels, buffer }: Block<'_, V, SUMS, B>,
) -> Result<Part<V>, B::Error> {
    let (format, cols) = (w.format(), w.cols());
    let wide = cols.div_ceil(WIDE);
    // the values of the panel that begins with a row
    let panel_at = |first: usize| first.min(rows.end) * cols..(first + PANEL).min(rows.end) * cols;
    let mut y: [Plane; V] = std::array::from_fn(|_| vec![Wide::default(); wide]);
    let mut g = [[0.0; V]; V];
    let mut of_w = [[0.0; WIDE]; 2];
    let [panel, next] = panels;
    let here = panel_at(rows.start);
    convert(format, here.start, w.fetch(here, buffer)?, cols, 0..wide, panel);
    for at in rows.clone().step_by(PANEL) {
        let after = panel_at(at + PANEL);
        let (coming, first) = (w.fetch(after.clone(), buffer)?, after.start);
        // u = W·x, of the panel
        let mut sums = [[Wide::default(); V]; PANEL];
        for part in parts(wide) {
            for i in (0..PANEL).step_by(TILE) {
                for k in (0..V).step_by(TILE) {
                    let rows = std::array::from_fn(|a| &panel[i + a][part.clone()]);
                    let x = std::array::from_fn(|b| &x[k + b][part.clone()]);
                    add_products(&mut sums[i..i + TILE], k, rows, x);
                }
                if SUMS {
                    add_sums(&mut of_w, std::array::from_fn(|a| &panel[i + a][part.clone()]));
                }
            }
            // the next panel comes from memory while this one is computed with
            convert(format, first, coming, cols, part, next);
        }
        let u = sums.map(|s| s.map(|s| s.iter().sum::<f32>()));
        u.iter().for_each(|u| add_outer(&mut g, u));
        // y += Wᵀ·u
        for part in parts(wide) {
            for i in (0..PANEL).step_by(TILE) {
                for k in (0..V).step_by(TILE) {
                    let rows = std::array::from_fn(|a| &panel[i + a][part.clone()]);
                    let factors = std::array::from_fn(|b| std::array::from_fn(|a| u[i + a][k + b]));
                    let [y0, y1, y2, y3] = &mut y[k..k + TILE] else { unreachable!("V is a multiple of TILE") };
                    add_rows([y0, y1, y2, y3].map(|y| &mut y[part.clone()]), rows, factors);
                }
            }
        }
        std::mem::swap(panel, next);
    }
    Ok((y, g, (of_w[0].iter().sum(), of_w[1].iter().sum())))
}

/// 0..wide in parts of which all rows and vectors fit the first cache.
fn parts(wide: usize) -> impl Iterator<Item = Range<usize>> {
    (0..wide).step_by(PART).map(move |at| at..(at + PART).min(wide))
}

/// Adds the products of TILE rows with TILE vectors, not yet summed over a register's lanes, to sums\[..\]\[k..\]; the tile
/// stays in registers.
#[inline(always)]
fn add_products<const V: usize>(sums: &mut [[Wide; V]], k: usize, row: [&[Wide]; TILE], x: [&[Wide]; TILE]) {
    let mut tile: [[Wide; TILE]; TILE] = std::array::from_fn(|a| std::array::from_fn(|b| sums[a][k + b]));
    for j in 0..row[0].len() {
        let x: [Wide; TILE] = std::array::from_fn(|b| x[b][j]);
        for a in 0..TILE {
            let row = row[a][j];
            for b in 0..TILE {
                for l in 0..WIDE {
                    tile[a][b][l] = row[l].mul_add(x[b][l], tile[a][b][l]);
                }
            }
        }
    }
    (0..TILE).for_each(|a| sums[a][k..k + TILE].copy_from_slice(&tile[a]));
}

/// Adds Σx and Σx² of a part of some rows: few enough values for f32. Loops of their own, or the compiler mixes their lanes.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "this form is vectorised")]
fn add_sums(sums: &mut [[f64; WIDE]; 2], row: [&[Wide]; TILE]) {
    let mut plain = [Wide::default(); TILE];
    for j in 0..row[0].len() {
        for a in 0..TILE {
            let x = row[a][j];
            for l in 0..WIDE {
                plain[a][l] += x[l];
            }
        }
    }
    let mut squares = [Wide::default(); TILE];
    for j in 0..row[0].len() {
        for a in 0..TILE {
            let x = row[a][j];
            for l in 0..WIDE {
                squares[a][l] = x[l].mul_add(x[l], squares[a][l]);
            }
        }
    }
    for a in 0..TILE {
        for l in 0..WIDE {
            sums[0][l] += f64::from(plain[a][l]);
            sums[1][l] += f64::from(squares[a][l]);
        }
    }
}

/// Adds Σₐ u\[b\]\[a\]·rowₐ to each y\[b\].
#[inline(always)]
fn add_rows(y: [&mut [Wide]; TILE], row: [&[Wide]; TILE], u: [[f32; TILE]; TILE]) {
    for j in 0..row[0].len() {
        let mut sums: [Wide; TILE] = std::array::from_fn(|b| y[b][j]);
        for a in 0..TILE {
            let row = row[a][j];
            for b in 0..TILE {
                for l in 0..WIDE {
                    sums[b][l] = row[l].mul_add(u[b][a], sums[b][l]);
                }
            }
        }
        for b in 0..TILE {
            y[b][j] = sums[b];
        }
    }
}

/// Converts a part of the rows of `cols` values that `bytes` hold, the first of them at position `first` of the weight;
/// rows beyond them are 0, as are places beyond a row's end.
fn convert(
    format: &dyn WeightFormat,
    first: usize,
    bytes: &[u8],
    cols: usize,
    part: Range<usize>,
    panel: &mut [Plane; PANEL],
) {
    let columns = part.start * WIDE..(part.end * WIDE).min(cols);
    let rows = format.values_in(bytes.len()).checked_div(cols).unwrap_or(0);
    let mut out = panel.each_mut().map(|row| row[part.clone()].as_flattened_mut());
    format.read_columns(first, bytes, cols, columns, &mut out[..rows]);
    out[rows..].iter_mut().for_each(|row| row.fill(0.0));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;

    fn check<const V: usize>(n: usize, m: usize) {
        let normals = |k, len| Stream::new(k, "w", 0).normals(len, 1.0).into_iter().map(|x| x as f32);
        let w: Vec<f32> = normals(0, n * m).collect();
        let x: Vec<[f32; V]> = normals(1, m * V).collect::<Vec<_>>().as_chunks::<V>().0.to_vec();
        let stored = StoredWeight::of(&w, n, m);
        let Ok(Pass { y, g, sums }) = gram_product::<V, true, _>(&stored, &x);
        let want = stored.sums();
        assert!((sums.0 - want.0).abs() + (sums.1 - want.1).abs() < 1e-6 * want.1, "{n}×{m}: {sums:?} {want:?}");
        let row = |i: usize| &w[i * m..(i + 1) * m];
        for a in 0..V {
            let u: Vec<f64> =
                (0..n).map(|i| row(i).iter().zip(&x).map(|(w, x)| f64::from(*w) * f64::from(x[a])).sum()).collect();
            for (j, y) in y.iter().enumerate() {
                let want: f64 = (0..n).map(|i| f64::from(row(i)[j]) * u[i]).sum();
                assert!((f64::from(y[a]) - want).abs() < 1e-4 * (n * m) as f64, "{n}×{m}, V = {V}");
            }
            for b in 0..V {
                let want: f64 = (0..m).map(|j| f64::from(y[j][a]) * f64::from(x[j][b])).sum();
                assert!((g[a][b] - want).abs() < 1e-4 * (n * m) as f64, "{n}×{m}, V = {V}");
            }
        }
    }

    #[test]
    fn products_by_their_definition() {
        for (n, m) in [(19, 13), (1, 5), (300, 20), (8, 1), (2 * BLOCK + 3, 5), (9, WIDE * PART + 7)] {
            check::<8>(n, m);
            check::<16>(n, m);
        }
    }
}
