//! Products of small matrices held in cache: the tiles of attention. C (m×n) = (accumulate ? C : 0) + A·B with rows of B and
//! C contiguous, A with any strides, no packing and no allocation.
//!
//! Every element of C is one chain of fused multiply-adds in the order of the inner index, whatever the vector width and
//! the place of the element in the tile, so that results do not depend on how an output is cut into calls.

use pulp::{Simd, WithSimd};

use super::Real;

/// A product of tiles, as pointers and strides.
#[derive(Clone, Copy)]
pub(super) struct Tile<T> {
    /// Rows of A and C.
    pub m: usize,
    /// Columns of B and C.
    pub n: usize,
    /// Columns of A, rows of B.
    pub k: usize,
    /// Element (i, p) at `a[i·ars + p·acs]`.
    pub a: *const T,
    /// Distance between rows of A.
    pub ars: usize,
    /// Distance between columns of A.
    pub acs: usize,
    /// Element (p, j) at `b[p·ldb + j]`.
    pub b: *const T,
    /// Distance between rows of B.
    pub ldb: usize,
    /// Element (i, j) at `c[i·ldc + j]`.
    pub c: *mut T,
    /// Distance between rows of C.
    pub ldc: usize,
    /// Add to C.
    pub accumulate: bool,
}

/// Compute the product.
///
/// # Safety
/// All elements named by the sizes and strides are valid, and C overlaps neither A nor B nor another thread's writes.
#[inline(always)]
pub(super) unsafe fn product<T: Real, S: Simd>(simd: S, tile: Tile<T>) {
    simd.vectorize(Job(tile));
}

struct Job<T>(Tile<T>);

impl<T: Real> WithSimd for Job<T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let t = self.0;
        let lanes = size_of::<T::Vector<S>>() / size_of::<T>();
        // as many registers as the machine has, less those for a row of B and an element of A
        // SAFETY: the promise of `product`
        unsafe {
            let mut j = 0;
            if S::REGISTER_COUNT >= 32 {
                while t.n - j >= 4 * lanes {
                    panel::<T, S, 4>(simd, t.columns(j), usize::MAX);
                    j += 4 * lanes;
                }
                if t.n - j >= 3 * lanes {
                    panel::<T, S, 3>(simd, t.columns(j), usize::MAX);
                    j += 3 * lanes;
                }
            }
            while t.n - j >= 2 * lanes {
                panel::<T, S, 2>(simd, t.columns(j), usize::MAX);
                j += 2 * lanes;
            }
            if t.n - j >= lanes {
                panel::<T, S, 1>(simd, t.columns(j), usize::MAX);
                j += lanes;
            }
            if t.n > j {
                panel::<T, S, 1>(simd, t.columns(j), t.n - j);
            }
        }
    }
}

impl<T: Real> Tile<T> {
    #[inline(always)]
    unsafe fn columns(self, j: usize) -> Self {
        // SAFETY: j ≤ n
        unsafe { Tile { b: self.b.add(j), c: self.c.add(j), ..self } }
    }
}

/// All rows of a panel of NV registers of columns; `part` < lanes when only so many columns of one register exist.
#[inline(always)]
unsafe fn panel<T: Real, S: Simd, const NV: usize>(simd: S, t: Tile<T>, part: usize) {
    // SAFETY: the promise of `product`
    unsafe {
        let mut i = 0;
        while t.m - i >= 6 {
            rows::<T, S, 6, NV>(simd, &t, i, part);
            i += 6;
        }
        match t.m - i {
            5 => rows::<T, S, 5, NV>(simd, &t, i, part),
            4 => rows::<T, S, 4, NV>(simd, &t, i, part),
            3 => rows::<T, S, 3, NV>(simd, &t, i, part),
            2 => rows::<T, S, 2, NV>(simd, &t, i, part),
            1 => rows::<T, S, 1, NV>(simd, &t, i, part),
            _ => {}
        }
    }
}

#[inline(always)]
unsafe fn rows<T: Real, S: Simd, const MR: usize, const NV: usize>(simd: S, t: &Tile<T>, i: usize, part: usize) {
    let lanes = size_of::<T::Vector<S>>() / size_of::<T>();
    // SAFETY: the promise of `product`; with NV = 1 and `part` only that many elements of a register are touched
    unsafe {
        let load = |p: *const T| -> T::Vector<S> {
            if NV == 1 && part < lanes {
                T::load_part(simd, std::slice::from_raw_parts(p, part))
            } else {
                p.cast::<T::Vector<S>>().read_unaligned()
            }
        };
        let mut acc = [[T::splat(simd, T::ZERO); NV]; MR];
        let a = t.a.add(i * t.ars);
        for p in 0..t.k {
            let b = t.b.add(p * t.ldb);
            let mut row = [T::splat(simd, T::ZERO); NV];
            for (v, r) in row.iter_mut().enumerate() {
                *r = load(b.add(v * lanes));
            }
            for (r, acc) in acc.iter_mut().enumerate() {
                let x = T::splat(simd, *a.add(r * t.ars + p * t.acs));
                for v in 0..NV {
                    acc[v] = T::vector_mul_add(simd, x, row[v], acc[v]);
                }
            }
        }
        for (r, acc) in acc.iter().enumerate() {
            let c = t.c.add((i + r) * t.ldc);
            for (v, &sum) in acc.iter().enumerate() {
                let c = c.add(v * lanes);
                let sum = if t.accumulate { T::vector_add(simd, load(c), sum) } else { sum };
                if NV == 1 && part < lanes {
                    T::store_part(simd, std::slice::from_raw_parts_mut(c, part), sum);
                } else {
                    c.cast::<T::Vector<S>>().write_unaligned(sum);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run<T: Real>(m: usize, n: usize, k: usize, transposed: bool, accumulate: bool) {
        let value = |i: usize| T::from_f64(((i * 7 + 3) % 11) as f64 - 5.0);
        let (a, b): (Vec<T>, Vec<T>) = ((0..m * k).map(value).collect(), (0..k * n).map(value).collect());
        let mut c: Vec<T> = (0..m * (n + 3)).map(value).collect();
        let before = c.clone();
        let (ars, acs) = if transposed { (1, m) } else { (k, 1) };
        let tile =
            Tile { m, n, k, a: a.as_ptr(), ars, acs, b: b.as_ptr(), ldb: n, c: c.as_mut_ptr(), ldc: n + 3, accumulate };
        pulp::Arch::new().dispatch(Job(tile));
        for i in 0..m {
            for j in 0..n + 3 {
                let at = i * (n + 3) + j;
                let mut want = before[at].to_f64();
                if j < n {
                    let sum: f64 = (0..k).map(|p| a[i * ars + p * acs].to_f64() * b[p * n + j].to_f64()).sum();
                    want = if accumulate { want + sum } else { sum };
                }
                assert_eq!(c[at].to_f64(), want, "{m}×{n}×{k} at ({i}, {j})");
            }
        }
    }

    #[test]
    fn all_edges() {
        for m in [0, 1, 2, 5, 6, 7, 13] {
            for n in [0, 1, 3, 8, 15, 16, 17, 31, 48, 63, 64, 65, 130] {
                for k in [0, 1, 5] {
                    for (t, acc) in [(false, false), (true, true), (false, true)] {
                        run::<f32>(m, n, k, t, acc);
                        run::<f64>(m, n, k, t, acc);
                    }
                }
            }
        }
    }
}
