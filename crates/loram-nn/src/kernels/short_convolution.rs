//! Short convolutions over the tokens, of each channel by itself, between two gates (LFM2): y = c ⊙ conv(b ⊙ x), where b, c and x are the
//! thirds of a projection.

use super::{
    Real,
    par::{RowsMut, for_rows},
    simd::simd,
};

/// A convolution of `width` channels.
#[derive(Debug, Clone, Copy)]
pub struct Taps<'a, T> {
    /// Channels.
    pub width: usize,
    /// (length, width): row j is the factor on the input of j tokens before.
    pub factors: &'a [T],
    /// (width), where there is one.
    pub bias: Option<&'a [T]>,
}

impl<T: Real> Taps<'_, T> {
    /// Tokens that it sees, the current one included.
    fn length(&self) -> usize {
        self.factors.len() / self.width.max(1)
    }

    /// Adds conv(u) of row `t`, the token at `position` of its sequence, to `out` (width).
    #[inline(always)]
    fn add(&self, u: &[T], t: usize, position: usize, out: &mut [T]) {
        for j in 0..self.length().min(position + 1) {
            let (u, w) = (&u[(t - j) * self.width..][..self.width], &self.factors[j * self.width..][..self.width]);
            for ((o, &u), &w) in out.iter_mut().zip(u).zip(w) {
                *o = u.mul_add(w, *o);
            }
        }
    }

    /// The values that sums begin with.
    #[inline(always)]
    fn begin(&self, out: &mut [T]) {
        match self.bias {
            Some(bias) => out.copy_from_slice(bias),
            None => out.fill(T::ZERO),
        }
    }
}

/// u (t × width) = b ⊙ x of rows (b, c, x), each `width` wide.
pub fn gate_input<T: Real>(bcx: &[T], u: &mut [T], width: usize) {
    assert_eq!(bcx.len(), 3 * u.len(), "gate_input");
    let rows = u.len() / width.max(1);
    for_rows(RowsMut(u, width), rows, width, |u, range| {
        simd(
            #[inline(always)]
            || {
                for (u, row) in u.0.chunks_exact_mut(width).zip(bcx[range.start * 3 * width..].chunks_exact(3 * width))
                {
                    for ((u, &b), &x) in u.iter_mut().zip(row).zip(&row[2 * width..]) {
                        *u = b * x;
                    }
                }
            },
        );
    });
}

/// y (t × width) = c ⊙ conv(u) for the last t rows of u, whose gates are in `bcx`. `positions` are those of these tokens in their sequences;
/// nothing is seen beyond the beginning of a sequence.
pub fn short_convolution<T: Real>(bcx: &[T], u: &[T], positions: &[u32], taps: Taps<'_, T>, y: &mut [T]) {
    let (width, rows) = (taps.width, positions.len());
    assert_eq!((bcx.len(), y.len()), (rows * 3 * width, rows * width), "short_convolution");
    let first = u.len() / width.max(1) - rows;
    for_rows(RowsMut(y, width), rows, width * (1 + taps.length()), |y, range| {
        simd(
            #[inline(always)]
            || {
                for (y, t) in y.0.chunks_exact_mut(width).zip(range.clone()) {
                    taps.begin(y);
                    taps.add(u, first + t, positions[t] as usize, y);
                    let gate = &bcx[t * 3 * width + width..][..width];
                    y.iter_mut().zip(gate).for_each(|(y, &c)| *y *= c);
                }
            },
        );
    });
}

/// The gradient (t × 3·width) of `bcx` from that of y; u is [`gate_input`] of `bcx`, and `positions` cover whole sequences.
pub fn short_convolution_backward<T: Real>(
    bcx: &[T],
    u: &[T],
    positions: &[u32],
    taps: Taps<'_, T>,
    dy: &[T],
    out: &mut [T],
) {
    let (width, rows) = (taps.width, positions.len());
    assert_eq!(
        (bcx.len(), out.len(), u.len(), dy.len()),
        (rows * 3 * width, rows * 3 * width, rows * width, rows * width)
    );
    for_rows(RowsMut(out, 3 * width), rows, 2 * width * (1 + taps.length()), |out, range| {
        simd(
            #[inline(always)]
            || {
                for (out, t) in out.0.chunks_exact_mut(3 * width).zip(range.clone()) {
                    let (db, rest) = out.split_at_mut(width);
                    let (dc, du) = rest.split_at_mut(width);
                    taps.begin(dc);
                    taps.add(u, t, positions[t] as usize, dc);
                    dc.iter_mut().zip(&dy[t * width..]).for_each(|(c, &g)| *c *= g);
                    du.fill(T::ZERO);
                    for j in 0..taps.length() {
                        // the token that sees this one as the j-th before
                        let later = t + j;
                        if later >= rows || positions[later] as usize != positions[t] as usize + j {
                            break;
                        }
                        let (g, c) = (&dy[later * width..][..width], &bcx[(3 * later + 1) * width..][..width]);
                        let w = &taps.factors[j * width..][..width];
                        for (((d, &g), &c), &w) in du.iter_mut().zip(g).zip(c).zip(w) {
                            *d = (g * c).mul_add(w, *d);
                        }
                    }
                    let row = &bcx[3 * t * width..][..3 * width];
                    for (((db, dx), &b), &x) in db.iter_mut().zip(du).zip(row).zip(&row[2 * width..]) {
                        *db = *dx * x;
                        *dx *= b;
                    }
                }
            },
        );
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(n: usize, seed: usize) -> Vec<f64> {
        (0..n).map(|i| ((i * 7919 + seed * 104_729) % 1009) as f64 / 500.0 - 1.0).collect()
    }

    fn run(bcx: &[f64], positions: &[u32], taps: Taps<'_, f64>) -> Vec<f64> {
        let n = positions.len() * taps.width;
        let (mut u, mut y) = (vec![0.0; n], vec![0.0; n]);
        gate_input(bcx, &mut u, taps.width);
        short_convolution(bcx, &u, positions, taps, &mut y);
        y
    }

    #[test]
    fn sequences_do_not_mix_and_gradients_are_central_differences() {
        let (lengths, width) = ([4usize, 1, 3, 6], 5);
        let positions: Vec<u32> = lengths.iter().flat_map(|&n| 0..n as u32).collect();
        for length in [1, 3, 4, 9] {
            let (factors, bias) = (numbers(length * width, 1), numbers(width, 2));
            let taps = Taps { width, factors: &factors, bias: Some(&bias) };
            let bcx = numbers(positions.len() * 3 * width, 3);
            let whole = run(&bcx, &positions, taps);
            // each sequence alone, by the formula
            let mut start = 0;
            for n in lengths {
                for t in 0..n {
                    for c in 0..width {
                        let at = |s: usize, third: usize| bcx[((start + s) * 3 + third) * width + c];
                        let sum: f64 =
                            (0..length.min(t + 1)).map(|j| factors[j * width + c] * at(t - j, 0) * at(t - j, 2)).sum();
                        let want = at(t, 1) * (sum + bias[c]);
                        assert!((whole[(start + t) * width + c] - want).abs() < 1e-12);
                    }
                }
                start += n;
            }
            // token by token after what came before
            let (mut u, mut y) = (vec![0.0; 6 * width], vec![0.0; 2 * width]);
            let last = &bcx[8 * 3 * width..];
            gate_input(last, &mut u, width);
            short_convolution(&last[4 * 3 * width..], &u, &[4, 5], taps, &mut y);
            assert_eq!(y, whole[12 * width..]);

            let dy = numbers(whole.len(), 4);
            let (mut u, mut found) = (vec![0.0; whole.len()], vec![0.0; bcx.len()]);
            gate_input(&bcx, &mut u, width);
            short_convolution_backward(&bcx, &u, &positions, taps, &dy, &mut found);
            let loss = |bcx: &[f64]| run(bcx, &positions, taps).iter().zip(&dy).map(|(y, g)| y * g).sum::<f64>();
            for i in 0..bcx.len() {
                let (mut up, mut down) = (bcx.clone(), bcx.clone());
                (up[i], down[i]) = (up[i] + 1e-5, down[i] - 1e-5);
                let want = (loss(&up) - loss(&down)) / 2e-5;
                assert!((found[i] - want).abs() < 1e-8, "{length} {i}: {} {want}", found[i]);
            }
        }
    }
}
