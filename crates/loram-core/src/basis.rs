//! Bases of LoRAM (2507.06558) and of its ablations: matrices (len, r) whose columns span the update.

use crate::linalg;
use crate::rng::Stream;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::f64::consts::{FRAC_1_SQRT_2, PI};

/// A basis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Basis {
    /// DST-I, sqrt(2/(m+1))·sin((i+1)(j+1)π/(m+1)): orthonormal, needs no seed.
    #[default]
    Dst,
    /// DCT-II, orthonormal, needs no seed.
    Dct,
    /// Q of the QR decomposition of a Gaussian matrix: uniform over orthonormal columns.
    RandomOrthogonal,
    /// Independent normal entries of variance 1/len.
    Gaussian,
}

impl Basis {
    /// Every basis.
    pub const ALL: [Basis; 4] = [Basis::Dst, Basis::RandomOrthogonal, Basis::Gaussian, Basis::Dct];

    /// Name in a configuration.
    pub fn name(self) -> &'static str {
        match self {
            Basis::Dst => "dst",
            Basis::Dct => "dct",
            Basis::RandomOrthogonal => "random-orthogonal",
            Basis::Gaussian => "gaussian",
        }
    }

    /// True when the columns are orthonormal.
    pub fn is_orthonormal(self) -> bool {
        self != Basis::Gaussian
    }

    /// The first `r` columns of length `len`.
    pub(crate) fn columns(self, len: usize, r: usize, stream: &mut Stream) -> Columns {
        let values = match self {
            Basis::Dst => Values::Sines(period(len)),
            Basis::Dct => Values::Cosines(cosine_period(len)),
            Basis::Gaussian => Values::Listed(split(&stream.normals(len * r, 1.0 / (len as f64).sqrt()), len, r)),
            Basis::RandomOrthogonal => {
                let mut columns = split(&stream.normals(len * r, 1.0), len, r);
                linalg::orthonormalise(&mut columns);
                Values::Listed(columns)
            }
        };
        Columns { values, len, r }
    }
}

impl std::fmt::Display for Basis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

fn split(values: &[f64], len: usize, r: usize) -> Vec<Vec<f64>> {
    (0..r).map(|k| (0..len).map(|i| values[i * r + k]).collect()).collect()
}

/// Columns of a basis, in closed form where there is one.
pub(crate) struct Columns {
    values: Values,
    len: usize,
    r: usize,
}

enum Values {
    /// sqrt(2/(len+1))·sin(kπ/(len+1)) for one period, 0 ≤ k < 2(len+1).
    Sines(Vec<f64>),
    /// sqrt(2/len)·cos(kπ/(2·len)) for one period, 0 ≤ k < 4·len.
    Cosines(Vec<f64>),
    Listed(Vec<Vec<f64>>),
}

impl Columns {
    /// r.
    pub fn rank(&self) -> usize {
        self.r
    }

    /// β times the transposed basis, (r, len) row-major.
    pub fn transposed(&self, beta: f64) -> Vec<f32> {
        let mut out = vec![0.0; self.r * self.len];
        if let Values::Listed(columns) = &self.values {
            for (row, c) in out.chunks_exact_mut(self.len).zip(columns) {
                row.iter_mut().zip(c).for_each(|(o, x)| *o = (beta * x) as f32);
            }
            return out;
        }
        let table = self.rounded(beta);
        out.par_chunks_exact_mut(self.len).enumerate().for_each(|(j, row)| match &self.values {
            Values::Sines(_) => walk(row, &table, j + 1, j + 1),
            _ => walk(row, &table[if j == 0 { table.len() / 2 } else { 0 }..][..4 * self.len], j, 2 * j),
        });
        out
    }

    /// β times the basis, (len, r) row-major.
    pub fn rows(&self, beta: f64) -> Vec<f32> {
        let mut out = vec![0.0; self.len * self.r];
        let table = self.rounded(beta);
        out.par_chunks_exact_mut(self.r).with_min_len(64).enumerate().for_each(|(i, row)| match &self.values {
            Values::Sines(_) => walk(row, &table, i + 1, i + 1),
            Values::Cosines(_) => {
                walk(row, &table[..4 * self.len], 0, 2 * i + 1);
                row[0] = table[4 * self.len];
            }
            Values::Listed(columns) => row.iter_mut().zip(columns).for_each(|(o, c)| *o = (beta * c[i]) as f32),
        });
        out
    }

    /// One period times β, rounded once; for cosines followed by the period of the constant first column.
    fn rounded(&self, beta: f64) -> Vec<f32> {
        match &self.values {
            Values::Sines(table) => table.iter().map(|x| (beta * x) as f32).collect(),
            Values::Cosines(table) => {
                let first = table.iter().map(|x| (beta * FRAC_1_SQRT_2 * x) as f32);
                table.iter().map(|x| (beta * x) as f32).chain(first).collect()
            }
            Values::Listed(_) => Vec::new(),
        }
    }

    /// Sum of each column: what the mean of a product of two bases needs.
    pub fn sums(&self) -> Vec<f64> {
        match &self.values {
            // Σᵢ sin(ijπ/n) = cot(jπ/2n) for odd j, 0 for even j
            Values::Sines(_) => {
                let n = (self.len + 1) as f64;
                let cot = |j: usize| 1.0 / libm::tan(j as f64 * PI / (2.0 * n));
                (1..=self.r).map(|j| if j % 2 == 1 { (2.0 / n).sqrt() * cot(j) } else { 0.0 }).collect()
            }
            Values::Cosines(_) => (0..self.r).map(|j| if j == 0 { (self.len as f64).sqrt() } else { 0.0 }).collect(),
            Values::Listed(columns) => columns.iter().map(|c| c.iter().sum()).collect(),
        }
    }

    /// The columns' inner products, (r, r) row-major.
    pub fn gram(&self) -> Vec<f64> {
        let r = self.r;
        match &self.values {
            Values::Listed(columns) => (0..r * r).map(|k| linalg::dot(&columns[k / r], &columns[k % r])).collect(),
            _ => (0..r * r).map(|k| if k / r == k % r { 1.0 } else { 0.0 }).collect(),
        }
    }
}

/// `out[k] = table[(start + k·step) mod period]`, without a division.
fn walk(out: &mut [f32], table: &[f32], start: usize, step: usize) {
    let mut at = start;
    for o in out {
        *o = table[at];
        at += step;
        if at >= table.len() {
            at -= table.len();
        }
    }
}

/// sqrt(2/n)·sin(kπ/n) for 0 ≤ k < 2n, n = len + 1: only angles in [0, π/2] are evaluated, in f64, by a sine that is
/// part of the program, so that every machine has the same bits.
fn period(len: usize) -> Vec<f64> {
    let n = len + 1;
    let scale = (2.0 / n as f64).sqrt();
    let quarter: Vec<f64> = (0..=n / 2).map(|k| scale * libm::sin(k as f64 * PI / n as f64)).collect();
    let value = |k: usize| {
        let (sign, k) = if k > n { (-1.0, 2 * n - k) } else { (1.0, k) };
        sign * quarter[k.min(n - k)]
    };
    (0..2 * n).map(value).collect()
}

/// sqrt(2/len)·cos(kπ/(2·len)) for 0 ≤ k < 4·len.
fn cosine_period(len: usize) -> Vec<f64> {
    let scale = (2.0 / len as f64).sqrt();
    let quarter: Vec<f64> = (0..=len).map(|k| scale * libm::sin(k as f64 * PI / (2 * len) as f64)).collect();
    let sine = |k: usize| match k % (4 * len) {
        k if k > 2 * len => -quarter[(4 * len - k).min(k - 2 * len)],
        k => quarter[k.min(2 * len - k)],
    };
    (0..4 * len).map(|k| sine(k + len)).collect()
}

/// The DST-I basis in f64, row-major (len, r): the argument is reduced mod 2(len+1) in integers and folded into the
/// first quadrant, so that every sine is that of an angle in [0, π/2].
pub fn sines(len: usize, r: usize) -> Vec<f64> {
    let table = period(len);
    let n = 2 * (len + 1);
    (0..len * r).map(|k| table[(k / r + 1) * (k % r + 1) % n]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_values() {
        let expect = [0.37174803, 0.60150096, 0.60150096, 0.37174803, 0.60150096, -0.37174803, 0.37174803, -0.60150096];
        for (got, want) in sines(4, 2).iter().zip(expect) {
            assert!((got - want).abs() < 1e-8, "{got} {want}");
        }
        let expect = [0.5, FRAC_1_SQRT_2, FRAC_1_SQRT_2, 0.0, 0.5, -FRAC_1_SQRT_2];
        for (got, want) in sines(3, 2).iter().zip(expect) {
            assert!((got - want).abs() < 1e-15, "{got} {want}");
        }
    }

    #[test]
    fn both_layouts_sums_and_inner_products() {
        for basis in Basis::ALL {
            for (len, r) in [(1, 1), (2, 2), (7, 5), (64, 64), (101, 16)] {
                let c = basis.columns(len, r, &mut Stream::new(0, "x", 0));
                let (x, t) = (c.rows(1.0), c.transposed(1.0));
                let (gram, sums) = (c.gram(), c.sums());
                for a in 0..r {
                    assert!((0..len).all(|i| x[i * r + a] == t[a * len + i]), "{basis} {len}×{r}");
                    let sum: f64 = (0..len).map(|i| f64::from(x[i * r + a])).sum();
                    assert!((sum - sums[a]).abs() < 1e-5, "{basis} {len}×{r} column {a}: {sum} {}", sums[a]);
                    for b in 0..r {
                        let dot: f64 = (0..len).map(|i| f64::from(x[i * r + a]) * f64::from(x[i * r + b])).sum();
                        assert!((dot - gram[a * r + b]).abs() < 1e-5);
                        let unit = f64::from(u8::from(a == b));
                        assert!(!basis.is_orthonormal() || (dot - unit).abs() < 1e-5, "{basis} {len}×{r}: {dot}");
                    }
                }
            }
        }
    }

    #[test]
    fn cosines_by_their_formula() {
        let (len, r) = (9, 9);
        let x = Basis::Dct.columns(len, r, &mut Stream::new(0, "x", 0)).rows(1.0);
        for i in 0..len {
            for j in 0..r {
                let first = if j == 0 { FRAC_1_SQRT_2 } else { 1.0 };
                let want = (2.0 / 9f64).sqrt() * first * ((2 * i + 1) as f64 * j as f64 * PI / 18.0).cos();
                assert!((f64::from(x[i * r + j]) - want).abs() < 1e-7);
            }
        }
    }

    #[test]
    fn large_arguments_stay_exact() {
        // (i+1)(j+1) far beyond the period: against the sine of the unreduced angle in f64, good to 1e-9 here
        let (m, r) = (4096, 1024);
        let s = sines(m, r);
        for (i, j) in [(4095, 1023), (2048, 777), (3, 1000)] {
            let angle = ((i + 1) * (j + 1)) as f64 * PI / (m + 1) as f64;
            assert!((s[i * r + j] - (2.0 / (m + 1) as f64).sqrt() * angle.sin()).abs() < 1e-9);
        }
    }
}
