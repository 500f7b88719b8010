//! Rotary position embedding (arXiv:2104.09864) in the half-split layout of Hugging Face ("rotate_half") or of neighbouring
//! pairs (GLM), with the frequency scalings of transformers' `modeling_rope_utils`.

use loram_io::config::{RopeConfig, RopeScaling};
use std::f64::consts::PI;

use super::{
    OutOfRange, Real,
    par::{Rows, RowsMut, for_rows},
    simd::simd,
};

/// The parameters of a rotary table.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeParams {
    /// Base and scaling of the frequencies, and the share of a head that is rotated.
    pub config: RopeConfig,
    /// Size of a head.
    pub head_dim: usize,
    /// For queries, which [`QueryGrowth`] may lengthen; else for keys.
    ///
    /// [`QueryGrowth`]: loram_io::config::QueryGrowth
    pub queries: bool,
}

impl RopeParams {
    /// Number of leading elements of a head that are rotated.
    pub fn rot_dim(&self) -> usize {
        (self.head_dim as f64 * self.config.partial_rotary_factor) as usize
    }

    /// The frequencies (rot_dim/2) and the factor on cos and sin, for sequences of `len` tokens. In `f32` step by step,
    /// as transformers computes them, since models were trained with these roundings.
    pub fn frequencies(&self, len: usize) -> (Vec<f32>, f64) {
        let dim = self.rot_dim();
        let powers = |base: f64| -> Vec<f32> {
            (0..dim / 2).map(|i| base.powf(f64::from((2 * i) as f32 / dim as f32)) as f32).collect()
        };
        let plain = || powers(self.config.theta).into_iter().map(|p| 1.0 / p).collect::<Vec<f32>>();
        match &self.config.scaling {
            RopeScaling::None => (plain(), 1.0),
            &RopeScaling::Linear { factor } => (plain().into_iter().map(|f| f / factor as f32).collect(), 1.0),
            &RopeScaling::Dynamic { factor, original_max } => {
                let stretch = factor * len.max(original_max) as f64 / original_max as f64 - (factor - 1.0);
                let base = self.config.theta * stretch.powf(dim as f64 / (dim as f64 - 2.0));
                (powers(base).into_iter().map(|p| 1.0 / p).collect(), 1.0)
            }
            &RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max } => {
                let old = original_max as f64;
                let scaled = |f: f32| {
                    let wavelength = 2.0 * PI / f64::from(f);
                    if wavelength > old / low_freq_factor {
                        (f64::from(f) / factor) as f32
                    } else if wavelength < old / high_freq_factor {
                        f
                    } else {
                        let smooth = (old / wavelength - low_freq_factor) / (high_freq_factor - low_freq_factor);
                        ((1.0 - smooth) * f64::from(f) / factor + smooth * f64::from(f)) as f32
                    }
                };
                (plain().into_iter().map(scaled).collect(), 1.0)
            }
            &RopeScaling::Yarn { factor, original_max, beta_fast, beta_slow, truncate, .. } => {
                // dimension at which so many rotations fit into the original context
                let dimension = |rotations: f64| {
                    dim as f64 * (original_max as f64 / (rotations * 2.0 * PI)).ln() / (2.0 * self.config.theta.ln())
                };
                let (mut low, mut high) = (dimension(beta_fast), dimension(beta_slow));
                if truncate {
                    (low, high) = (low.floor(), high.ceil());
                }
                let (low, mut high) = (low.max(0.0), high.min(dim as f64 - 1.0));
                if low == high {
                    high += 0.001;
                }
                let mixed = powers(self.config.theta).into_iter().enumerate().map(|(i, p)| {
                    let ramp = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
                    (ramp / (factor * f64::from(p)) + (1.0 - ramp) / f64::from(p)) as f32
                });
                (mixed.collect(), self.config.scaling.attention_factor())
            }
            RopeScaling::Long { short, long, original_max, .. } => {
                let factors = if len > *original_max { long } else { short };
                let stretched = powers(self.config.theta).into_iter().zip(factors).map(|(p, f)| 1.0 / (*f as f32 * p));
                (stretched.collect(), self.config.scaling.attention_factor())
            }
        }
    }
}

/// cos and sin for every position and frequency, already times the attention factor.
#[derive(Debug, Clone)]
pub struct RopeTable<T> {
    /// (positions, rot_dim/2).
    pub cos: Vec<T>,
    /// (positions, rot_dim/2).
    pub sin: Vec<T>,
    /// Number of leading elements of a head that are rotated.
    pub rot_dim: usize,
    /// Number of positions.
    pub positions: usize,
    params: RopeParams,
}

impl<T: Real> RopeTable<T> {
    /// A table for positions 0..`len`.
    pub fn new(params: &RopeParams, len: usize) -> Self {
        let rot_dim = params.rot_dim();
        assert!(
            rot_dim.is_multiple_of(2) && rot_dim <= params.head_dim,
            "rotary size {rot_dim} of {}",
            params.head_dim
        );
        let (frequencies, factor) = params.frequencies(len);
        let half = rot_dim / 2;
        let (mut cos, mut sin) = (Vec::with_capacity(len * half), Vec::with_capacity(len * half));
        let growth = params.config.query_growth.filter(|_| params.queries);
        for position in 0..len {
            let factor = growth.map_or(factor, |g| factor * (1.0 + g.beta * ((position / g.length) as f64).ln_1p()));
            for &f in &frequencies {
                let angle = f64::from(position as f32 * f);
                cos.push(T::from_f64(angle.cos() * factor));
                sin.push(T::from_f64(angle.sin() * factor));
            }
        }
        RopeTable { cos, sin, rot_dim, positions: len, params: params.clone() }
    }

    /// True when this table serves sequences of `len` tokens: it has the positions, and the frequencies (which in some
    /// kinds of scaling depend on the length) are those of that length.
    pub fn serves(&self, len: usize) -> bool {
        len <= self.positions
            && match self.params.config.scaling {
                RopeScaling::Dynamic { original_max, .. } => len.max(original_max) == self.positions.max(original_max),
                RopeScaling::Long { original_max, .. } => (len > original_max) == (self.positions > original_max),
                _ => true,
            }
    }

    /// True when pairs are neighbours, not the two halves of what is rotated.
    pub fn interleaved(&self) -> bool {
        self.params.config.interleaved
    }
}

/// Rotate `x` (tokens × heads·head_dim) in place: (x₁, x₂) → (x₁·cos − x₂·sin, x₂·cos + x₁·sin) for the two halves of
/// the rotated part of each head, or for its neighbouring pairs, at the position of each token.
///
/// # Errors
/// A position that the table does not have (nothing is changed then).
pub fn rope_forward<T: Real>(
    x: &mut [T],
    positions: &[u32],
    heads: usize,
    head_dim: usize,
    table: &RopeTable<T>,
) -> Result<(), OutOfRange> {
    rotate::<T, false>(x, positions, heads, head_dim, table)
}

/// Gradient of [`rope_forward`], in place: the transposed map (the inverse rotation times the attention factor).
///
/// # Errors
/// A position that the table does not have (nothing is changed then).
pub fn rope_backward<T: Real>(
    dx: &mut [T],
    positions: &[u32],
    heads: usize,
    head_dim: usize,
    table: &RopeTable<T>,
) -> Result<(), OutOfRange> {
    rotate::<T, true>(dx, positions, heads, head_dim, table)
}

fn rotate<T: Real, const BACK: bool>(
    x: &mut [T],
    positions: &[u32],
    heads: usize,
    head_dim: usize,
    table: &RopeTable<T>,
) -> Result<(), OutOfRange> {
    let width = heads * head_dim;
    assert_eq!(x.len(), positions.len() * width, "rope: {} tokens of {heads}×{head_dim}", positions.len());
    assert!(table.rot_dim <= head_dim, "rope: {} rotated of {head_dim}", table.rot_dim);
    if let Some(index) = positions.iter().position(|&p| p as usize >= table.positions) {
        let value = i64::from(positions[index]);
        return Err(OutOfRange { what: "position", index, value, limit: table.positions });
    }
    let half = table.rot_dim / 2;
    if half == 0 || heads == 0 {
        return Ok(());
    }
    let interleaved = table.interleaved();
    for_rows((RowsMut(x, width), Rows(positions, 1)), positions.len(), width, |(x, positions), _| {
        simd(
            #[inline(always)]
            || {
                for (token, &p) in x.0.chunks_exact_mut(width).zip(positions.0) {
                    let at = p as usize * half;
                    let (cos, sin) = (&table.cos[at..at + half], &table.sin[at..at + half]);
                    for head in token.chunks_exact_mut(head_dim) {
                        if interleaved {
                            turn_pairs::<T, BACK>(&mut head[..2 * half], cos, sin);
                            continue;
                        }
                        let (first, rest) = head.split_at_mut(half);
                        turn::<T, BACK>(first, &mut rest[..half], cos, sin);
                    }
                }
            },
        );
    });
    Ok(())
}

#[inline(always)]
fn turn<T: Real, const BACK: bool>(a: &mut [T], b: &mut [T], cos: &[T], sin: &[T]) {
    for (((a, b), &c), &s) in a.iter_mut().zip(b).zip(cos).zip(sin) {
        let s = if BACK { -s } else { s };
        (*a, *b) = (a.mul_add(c, -(*b * s)), b.mul_add(c, *a * s));
    }
}

#[inline(always)]
fn turn_pairs<T: Real, const BACK: bool>(x: &mut [T], cos: &[T], sin: &[T]) {
    for ((pair, &c), &s) in x.chunks_exact_mut(2).zip(cos).zip(sin) {
        let s = if BACK { -s } else { s };
        let (a, b) = (pair[0], pair[1]);
        (pair[0], pair[1]) = (a.mul_add(c, -(b * s)), b.mul_add(c, a * s));
    }
}
