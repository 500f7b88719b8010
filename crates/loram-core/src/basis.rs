//! Bases of LoRAM (2507.06558) and of its ablations: matrices (len, r) whose columns span the update.

use crate::rng::Stream;
use crate::{Error, Result, linalg};
use serde::{Deserialize, Serialize};

/// Which basis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Basis {
    /// DST-I, sqrt(2/(m+1))·sin((i+1)(j+1)π/(m+1)): orthonormal, needs no seed.
    #[default]
    Dst,
    /// DCT-II, orthonormal, needs no seed.
    Dct,
    /// Q of the QR decomposition of a Gaussian matrix.
    RandomOrthogonal,
    /// Independent normal entries of variance 1/len.
    Gaussian,
}

impl Basis {
    /// Parses the name in a configuration.
    pub fn parse(name: &str) -> Result<Basis> {
        serde_json::from_value(name.into()).map_err(|_| {
            Error::setting("basis", format!("`{name}` is unknown; expected dst, dct, random-orthogonal or gaussian"))
        })
    }

    /// True when the columns are orthonormal.
    pub fn is_orthonormal(self) -> bool {
        self != Basis::Gaussian
    }

    /// The first `r` columns, row-major (len, r). The same bits on every machine for DST and DCT.
    pub(crate) fn columns(self, len: usize, r: usize, stream: &mut Stream) -> Vec<f32> {
        match self {
            Basis::Dst => sines(len, r).iter().map(|&x| x as f32).collect(),
            Basis::Dct => cosines(len, r),
            Basis::RandomOrthogonal => linalg::orthonormal(&stream.normals(len * r, 1.0), len, r),
            Basis::Gaussian => stream.normals(len * r, 1.0 / (len as f64).sqrt()).iter().map(|&x| x as f32).collect(),
        }
    }
}

/// The DST-I basis in f64, row-major (len, r): the argument is reduced in integers and folded into the first quadrant,
/// so that every sine is that of an angle in [0, π/2].
pub fn sines(len: usize, r: usize) -> Vec<f64> {
    let n = len as u64 + 1;
    let scale = (2.0 / n as f64).sqrt();
    // sin(kπ/n) for k = 0..=n/2 is all that there is
    let quarter: Vec<f64> =
        (0..=n / 2).map(|k| scale * libm::sin(k as f64 * std::f64::consts::PI / n as f64)).collect();
    let value = |k: u64| {
        let (sign, k) = if k > n { (-1.0, 2 * n - k) } else { (1.0, k) };
        sign * quarter[k.min(n - k) as usize]
    };
    let mut out = Vec::with_capacity(len * r);
    for i in 1..=len as u64 {
        out.extend((1..=r as u64).map(|j| value(i * j % (2 * n))));
    }
    out
}

/// DCT-II: sqrt(2/len)·cos((2i+1)jπ/(2·len)), the first column constant.
fn cosines(len: usize, r: usize) -> Vec<f32> {
    let n = len as u64;
    let scale = (2.0 / n as f64).sqrt();
    let mut out = Vec::with_capacity(len * r);
    for i in 0..n {
        for j in 0..r as u64 {
            let k = (2 * i + 1) * j % (4 * n);
            let angle = k as f64 * std::f64::consts::PI / (2 * n) as f64;
            let first = if j == 0 { std::f64::consts::FRAC_1_SQRT_2 } else { 1.0 };
            out.push((scale * first * libm::cos(angle)) as f32);
        }
    }
    out
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
        let expect = [0.5, std::f64::consts::FRAC_1_SQRT_2, std::f64::consts::FRAC_1_SQRT_2, 0.0, 0.5];
        for (got, want) in sines(3, 2).iter().zip(expect) {
            assert!((got - want).abs() < 1e-15, "{got} {want}");
        }
    }

    #[test]
    fn columns_are_orthonormal() {
        for basis in [Basis::Dst, Basis::Dct, Basis::RandomOrthogonal] {
            for (len, r) in [(1, 1), (2, 2), (7, 5), (64, 64), (101, 16)] {
                let x = basis.columns(len, r, &mut Stream::new(0, "x", 0));
                for a in 0..r {
                    for b in 0..r {
                        let dot: f64 = (0..len).map(|i| f64::from(x[i * r + a]) * f64::from(x[i * r + b])).sum();
                        assert!((dot - f64::from(u8::from(a == b))).abs() < 1e-5, "{basis:?} {len}×{r} ({a}, {b}): {dot}");
                    }
                }
            }
        }
    }

    #[test]
    fn large_arguments_stay_exact() {
        // (i+1)(j+1) far beyond the period: against the sine of the unreduced angle in f64, good to 1e-9 here
        let (m, r) = (4096, 1024);
        let s = sines(m, r);
        for (i, j) in [(4095, 1023), (2048, 777), (3, 1000)] {
            let angle = ((i + 1) * (j + 1)) as f64 * std::f64::consts::PI / (m + 1) as f64;
            assert!((s[i * r + j] - (2.0 / (m + 1) as f64).sqrt() * angle.sin()).abs() < 1e-9);
        }
    }
}
