//! PEFT's `orthogonal`: both factors at random, through disjoint rows of one orthogonal matrix, so that B·A = 0.

use crate::schemes::context::Context;
use crate::schemes::factors::SchemeFactors;
use crate::schemes::info::SchemeInfo;
use crate::growth::InitMagnitude;
use crate::{Result, linalg};

pub(super) const INFO: SchemeInfo = SchemeInfo {
    summary: "normal noise/10 times the odd (A) and even (B) rows of a random orthogonal matrix; r even, BA = 0",
    source: "PEFT `orthogonal`",
    magnitude: Some(|_, f| {
        // r/2 of r directions, each of variance 1/100: ‖AAᵀ‖²_F = (r/2)·(m/100)²
        let (n, m, half) = (f.n as f64, f.m as f64, f.r as f64 / 2.0);
        let (k1_a, k1_b) = (half * n / 1e4, half * m / 1e4);
        Some(InitMagnitude { k1_a, k1_b, nu_a: 0.005, nu_b: 0.005, ..InitMagnitude::zero(f) })
    }),
    ..SchemeInfo::new("orthogonal", init)
};

fn init(c: &Context<'_>) -> Result<SchemeFactors> {
    let (n, m, r) = c.shape();
    if r % 2 != 0 {
        return Err(c.error(format!("`orthogonal` needs an even rank, found r = {r}")));
    }
    let noise = c.stream(0).normals(r * r, 1.0);
    let mut q: Vec<Vec<f64>> = noise.chunks_exact(r).map(<[f64]>::to_vec).collect();
    linalg::orthonormalise(&mut q);
    let a = mixed(&c.stream(1).normals(m * r / 2, 0.1), q.iter().step_by(2), r);
    let a_rows = (0..r).flat_map(|k| (0..m).map(|j| a[j * r + k]).collect::<Vec<_>>()).collect();
    Ok(SchemeFactors::new(a_rows, mixed(&c.stream(2).normals(n * r / 2, 0.1), q.iter().skip(1).step_by(2), r)))
}

/// noise (len, r/2) times the given rows (r/2, r), row-major; plain arithmetic, for the same bits on every machine.
fn mixed<'a>(noise: &[f64], rows: impl Iterator<Item = &'a Vec<f64>> + Clone, r: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(noise.len() * 2);
    let mut sum = vec![0.0; r];
    for share in noise.chunks_exact(r / 2) {
        sum.fill(0.0);
        for (x, row) in share.iter().zip(rows.clone()) {
            sum.iter_mut().zip(row).for_each(|(s, q)| *s += x * q);
        }
        out.extend(sum.iter().map(|&x| x as f32));
    }
    out
}
