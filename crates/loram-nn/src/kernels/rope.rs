//! Rotary position embedding (arXiv:2104.09864) in the half-split layout of Hugging Face ("rotate_half"), with the
//! frequency scalings of transformers' `modeling_rope_utils`.

use std::f64::consts::PI;

use super::{
    OutOfRange, Real,
    par::{Rows, RowsMut, for_rows},
    simd::simd,
};

/// How the frequencies are stretched for long contexts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeKind {
    /// Not at all.
    Default,
    /// All divided by `factor`.
    Linear {
        /// Stretch.
        factor: f64,
    },
    /// NTK-aware: the base grows with the sequence once it is longer than `max_position`.
    Dynamic {
        /// Stretch.
        factor: f64,
        /// `max_position_embeddings` of the model.
        max_position: usize,
    },
    /// Llama 3.1: long wavelengths divided by `factor`, short ones kept, a ramp between.
    Llama3 {
        /// Stretch.
        factor: f64,
        /// `low_freq_factor`.
        low_freq_factor: f64,
        /// `high_freq_factor`.
        high_freq_factor: f64,
        /// `original_max_position_embeddings`.
        original_max: usize,
    },
    /// YaRN (arXiv:2309.00071).
    Yarn {
        /// Stretch.
        factor: f64,
        /// `original_max_position_embeddings`.
        original_max: usize,
        /// Rotations above which nothing changes (32).
        beta_fast: f64,
        /// Rotations below which the frequency is divided by `factor` (1).
        beta_slow: f64,
        /// `mscale`, counted only together with `mscale_all_dim`.
        mscale: Option<f64>,
        /// `mscale_all_dim`.
        mscale_all_dim: Option<f64>,
        /// Factor on cos and sin; from the values above when absent.
        attention_factor: Option<f64>,
        /// Round the ends of the ramp to whole dimensions (true).
        truncate: bool,
    },
}

/// The parameters of a rotary table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RopeParams {
    /// Frequency scaling.
    pub kind: RopeKind,
    /// Base of the frequencies (`rope_theta`).
    pub theta: f64,
    /// Size of a head.
    pub head_dim: usize,
    /// Share of a head that is rotated (1 for most models).
    pub partial_rotary_factor: f64,
}

impl RopeParams {
    /// Number of leading elements of a head that are rotated.
    pub fn rot_dim(&self) -> usize {
        (self.head_dim as f64 * self.partial_rotary_factor) as usize
    }

    /// The frequencies (rot_dim/2) and the factor on cos and sin, for sequences of `len` tokens. In `f32` step by step,
    /// as transformers computes them, since models were trained with these roundings.
    pub fn frequencies(&self, len: usize) -> (Vec<f32>, f64) {
        let dim = self.rot_dim();
        let powers = |base: f64| -> Vec<f32> {
            (0..dim / 2).map(|i| base.powf(f64::from((2 * i) as f32 / dim as f32)) as f32).collect()
        };
        let plain = || powers(self.theta).into_iter().map(|p| 1.0 / p).collect::<Vec<f32>>();
        match self.kind {
            RopeKind::Default => (plain(), 1.0),
            RopeKind::Linear { factor } => (plain().into_iter().map(|f| f / factor as f32).collect(), 1.0),
            RopeKind::Dynamic { factor, max_position } => {
                let stretch = factor * len.max(max_position) as f64 / max_position as f64 - (factor - 1.0);
                let base = self.theta * stretch.powf(dim as f64 / (dim as f64 - 2.0));
                (powers(base).into_iter().map(|p| 1.0 / p).collect(), 1.0)
            }
            RopeKind::Llama3 { factor, low_freq_factor, high_freq_factor, original_max } => {
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
            RopeKind::Yarn {
                factor,
                original_max,
                beta_fast,
                beta_slow,
                mscale,
                mscale_all_dim,
                attention_factor,
                truncate,
            } => {
                let mscaled = |m: f64| if factor <= 1.0 { 1.0 } else { 0.1 * m * factor.ln() + 1.0 };
                let attention = attention_factor.unwrap_or(match (mscale, mscale_all_dim) {
                    (Some(a), Some(b)) if a != 0.0 && b != 0.0 => mscaled(a) / mscaled(b),
                    _ => mscaled(1.0),
                });
                // dimension at which so many rotations fit into the original context
                let dimension = |rotations: f64| {
                    dim as f64 * (original_max as f64 / (rotations * 2.0 * PI)).ln() / (2.0 * self.theta.ln())
                };
                let (mut low, mut high) = (dimension(beta_fast), dimension(beta_slow));
                if truncate {
                    (low, high) = (low.floor(), high.ceil());
                }
                let (low, mut high) = (low.max(0.0), high.min(dim as f64 - 1.0));
                if low == high {
                    high += 0.001;
                }
                let mixed = powers(self.theta).into_iter().enumerate().map(|(i, p)| {
                    let ramp = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
                    (ramp / (factor * f64::from(p)) + (1.0 - ramp) / f64::from(p)) as f32
                });
                (mixed.collect(), attention)
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
        for position in 0..len {
            for &f in &frequencies {
                let angle = f64::from(position as f32 * f);
                cos.push(T::from_f64(angle.cos() * factor));
                sin.push(T::from_f64(angle.sin() * factor));
            }
        }
        RopeTable { cos, sin, rot_dim, positions: len, params: *params }
    }

    /// True when this table serves sequences of `len` tokens: it has the positions, and the frequencies (which in the
    /// dynamic kind depend on the length) are those of that length.
    pub fn serves(&self, len: usize) -> bool {
        len <= self.positions
            && match self.params.kind {
                RopeKind::Dynamic { max_position, .. } => len.max(max_position) == self.positions.max(max_position),
                _ => true,
            }
    }
}

/// Rotate `x` (tokens × heads·head_dim) in place: (x₁, x₂) → (x₁·cos − x₂·sin, x₂·cos + x₁·sin) for the two halves of
/// the rotated part of each head, at the position of each token.
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
    for_rows((RowsMut(x, width), Rows(positions, 1)), positions.len(), width, |(x, positions), _| {
        simd(
            #[inline(always)]
            || {
                for (token, &p) in x.0.chunks_exact_mut(width).zip(positions.0) {
                    let at = p as usize * half;
                    let (cos, sin) = (&table.cos[at..at + half], &table.sin[at..at + half]);
                    for head in token.chunks_exact_mut(head_dim) {
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
