//! Disentangled attention (DeBERTa, 2006.03654): a score is q·k, plus q·k_pos of the key's position and k·q_pos of the query's, which
//! follow from the distance of the two. A head of a sequence is a unit of the forward pass, a head of all sequences one of the backward
//! pass, whose sums over positions go on in the order of the sequences.

use super::super::{
    Real,
    elementwise::{keys, mix, threshold},
    par::{Shared, for_units, with_scratch},
    simd::{dot, exp_sum, max, simd},
};
use super::{AttnDropout, AttnShape, sequences};
use std::ops::Range;

/// Projected relative positions, (rows of the table, heads·d) each, where the attention has the term, and the row for each distance.
pub struct RelativeTerms<'a, T> {
    /// Keys of positions, for the term of content to position.
    pub k: Option<&'a [T]>,
    /// Queries of positions, for the term of position to content.
    pub q: Option<&'a [T]>,
    /// Rows for query position − key position from −(n − 1) to n − 1, where n is the length of the longest sequence.
    pub rows: &'a [u32],
}

impl<T: Real> RelativeTerms<'_, T> {
    /// Rows for the distances within a sequence of `n` tokens: that of query i and key j is at i + n − 1 − j.
    fn within(&self, n: usize) -> &[u32] {
        let middle = self.rows.len() / 2;
        &self.rows[middle + 1 - n..middle + n]
    }
}

/// One head of one sequence.
struct Head<'a, T> {
    shape: &'a AttnShape,
    /// Rows of the sequence.
    at: Range<usize>,
    head: usize,
    /// Rows of the tables by distance.
    rows: &'a [u32],
    /// The tables' rows that occur.
    used: Range<usize>,
    terms: &'a RelativeTerms<'a, T>,
    q: &'a [T],
    k: &'a [T],
}

impl<'a, T: Real> Head<'a, T> {
    fn new(
        shape: &'a AttnShape,
        at: Range<usize>,
        head: usize,
        terms: &'a RelativeTerms<'a, T>,
        qk: [&'a [T]; 2],
    ) -> Self {
        let rows = terms.within(at.len());
        let (low, high) = rows.iter().fold((u32::MAX, 0), |(low, high), &r| (low.min(r), high.max(r)));
        Head { shape, at, head, rows, used: low as usize..high as usize + 1, terms, q: qk[0], k: qk[1] }
    }

    fn len(&self) -> usize {
        self.at.len()
    }

    /// Elements of a row of this head in a matrix (t, heads·d).
    #[inline(always)]
    fn span(&self, row: usize) -> Range<usize> {
        let start = row * self.shape.q_width() + self.head * self.shape.head_dim;
        start..start + self.shape.head_dim
    }

    /// The same for token `i` of the sequence.
    #[inline(always)]
    fn token(&self, i: usize) -> Range<usize> {
        self.span(self.at.start + i)
    }

    /// Products of a vector with the rows of a table that occur.
    #[inline(always)]
    fn along(&self, x: &[T], table: Option<&[T]>, out: &mut [T]) {
        match table {
            None => out.fill(T::ZERO),
            Some(table) => {
                out.iter_mut().zip(self.used.clone()).for_each(|(o, row)| *o = dot(x, &table[self.span(row)]))
            }
        }
    }

    /// Products of each key with the queries of positions, (tokens, rows that occur).
    #[inline(always)]
    fn of_keys(&self, out: &mut [T]) {
        for (j, out) in out.chunks_exact_mut(self.used.len()).enumerate() {
            self.along(&self.k[self.token(j)], self.terms.q, out);
        }
    }

    /// Place of the distance of query i and key j among the rows that occur.
    #[inline(always)]
    fn place(&self, i: usize, j: usize) -> usize {
        self.rows[i + self.len() - 1 - j] as usize - self.used.start
    }

    /// Scores of query i with all keys. `of_query` are products of the query with keys of positions.
    #[inline(always)]
    fn scores(&self, i: usize, of_query: &mut [T], of_keys: &[T], out: &mut [T]) {
        let (q, w, scale) = (&self.q[self.token(i)], self.used.len(), T::from_f64(self.shape.scale));
        self.along(q, self.terms.k, of_query);
        for (j, out) in out.iter_mut().enumerate() {
            let place = self.place(i, j);
            *out = (dot(q, &self.k[self.token(j)]) + of_query[place] + of_keys[j * w + place]) * scale;
        }
    }

    /// Factors on the weights of query i: 0 for those that are dropped.
    #[inline(always)]
    fn mask(&self, dropout: AttnDropout, i: usize, weights: &mut [T]) {
        let [a, b] = keys(dropout.seed, ((self.at.start + i) * self.shape.heads + self.head) as u64);
        let keep = if dropout.p < 1.0 { T::from_f64(1.0 / (1.0 - dropout.p)) } else { T::ZERO };
        let least = threshold(dropout.p);
        for (j, x) in weights.iter_mut().enumerate() {
            *x = if mix(mix(j as u32 ^ a).wrapping_add(b)) >= least { *x * keep } else { T::ZERO };
        }
    }
}

/// Elements of a matrix that units share.
///
/// # Safety
/// As of [`Shared::slice`].
#[inline(always)]
#[allow(clippy::mut_from_ref)]
unsafe fn row<'a, T>(of: &'a Shared<'_, T>, at: Range<usize>) -> &'a mut [T] {
    // SAFETY: the caller's promise
    unsafe { of.slice(at) }
}

/// y += a·x.
#[inline(always)]
fn axpy<T: Real>(y: &mut [T], a: T, x: &[T]) {
    y.iter_mut().zip(x).for_each(|(y, &x)| *y = x.mul_add(a, *y));
}

/// The attention of [`super::attention`] with the terms of relative positions; heads have keys of their own, and there is no mask.
pub fn disentangled<T: Real>(
    [q, k, v]: [&[T]; 3],
    terms: &RelativeTerms<'_, T>,
    o: &mut [T],
    lse: &mut [T],
    lengths: &[usize],
    shape: &AttnShape,
) {
    let all: Vec<Range<usize>> = sequences(lengths).filter(|s| !s.is_empty()).collect();
    let (o, lse) = (Shared::new(o), Shared::new(lse));
    for_units(all.len() * shape.heads, 1, |u| {
        let head = Head::new(shape, all[u / shape.heads].clone(), u % shape.heads, terms, [q, k]);
        let (n, w) = (head.len(), head.used.len());
        with_scratch(n * w + w + n, |scratch: &mut [T]| {
            let (of_keys, rest) = scratch.split_at_mut(n * w);
            let (of_query, p) = rest.split_at_mut(w);
            simd(
                #[inline(always)]
                || {
                    head.of_keys(of_keys);
                    for i in 0..n {
                        head.scores(i, of_query, of_keys, p);
                        let top = max(p);
                        let total = exp_sum(p, top);
                        let at = (head.at.start + i) * shape.heads + head.head;
                        // SAFETY: one query of one head per unit
                        let (out, lse) = unsafe { (o.slice(head.token(i)), lse.slice(at..at + 1)) };
                        lse[0] = top + total.ln();
                        if let Some(dropout) = shape.dropout {
                            head.mask(dropout, i, p);
                        }
                        out.fill(T::ZERO);
                        for (j, &p) in p.iter().enumerate() {
                            axpy(out, p / total, &v[head.token(j)]);
                        }
                    }
                },
            );
        });
    });
}

/// Gradients of [`disentangled`]: of queries, keys and values, and of the tables where the attention has them, to which it adds.
pub struct DisentangledGradients<'a, T> {
    /// Of q, k and v, written whole.
    pub qkv: [&'a mut [T]; 3],
    /// Of [`RelativeTerms::k`].
    pub position_k: Option<&'a mut [T]>,
    /// Of [`RelativeTerms::q`].
    pub position_q: Option<&'a mut [T]>,
}

/// `out` are the outputs of [`disentangled`], `d_o` the gradient of the first.
pub fn disentangled_backward<T: Real>(
    [q, k, v]: [&[T]; 3],
    terms: &RelativeTerms<'_, T>,
    (o, lse): (&[T], &[T]),
    d_o: &[T],
    gradients: DisentangledGradients<'_, T>,
    lengths: &[usize],
    shape: &AttnShape,
) {
    let all: Vec<Range<usize>> = sequences(lengths).filter(|s| !s.is_empty()).collect();
    let [dq, dk, dv] = gradients.qkv.map(Shared::new);
    let (dpk, dpq) = (gradients.position_k.map(Shared::new), gradients.position_q.map(Shared::new));
    let scale = T::from_f64(shape.scale);
    for_units(shape.heads, 1, |number| {
        for at in &all {
            let head = Head::new(shape, at.clone(), number, terms, [q, k]);
            let (n, w) = (head.len(), head.used.len());
            with_scratch(2 * n * w + 2 * w + 2 * n, |scratch: &mut [T]| {
                let (of_keys, rest) = scratch.split_at_mut(n * w);
                let (d_of_keys, rest) = rest.split_at_mut(n * w);
                let (of_query, rest) = rest.split_at_mut(w);
                let (d_of_query, rest) = rest.split_at_mut(w);
                let (p, ds) = rest.split_at_mut(n);
                simd(
                    #[inline(always)]
                    || {
                        // SAFETY: columns of one head belong to one unit, which holds one row of each matrix at a time
                        unsafe {
                            for j in 0..n {
                                for of in [&dq, &dk, &dv] {
                                    row(of, head.token(j)).fill(T::ZERO);
                                }
                            }
                            head.of_keys(of_keys);
                            d_of_keys.fill(T::ZERO);
                            for i in 0..n {
                                let (at, lse_at) = (head.token(i), (head.at.start + i) * shape.heads + number);
                                head.scores(i, of_query, of_keys, p);
                                p.iter_mut().for_each(|p| *p = (*p - lse[lse_at]).exp());
                                let (g, delta) = (&d_o[at.clone()], dot(&d_o[at.clone()], &o[at.clone()]));
                                // the factors of the dropout first
                                ds.fill(T::ONE);
                                if let Some(dropout) = shape.dropout {
                                    head.mask(dropout, i, ds);
                                }
                                for (j, (&p, ds)) in p.iter().zip(ds.iter_mut()).enumerate() {
                                    let (token, kept) = (head.token(j), *ds);
                                    axpy(row(&dv, token.clone()), kept * p, g);
                                    *ds = p * (kept * dot(g, &v[token]) - delta) * scale;
                                }
                                d_of_query.fill(T::ZERO);
                                for (j, &ds) in ds.iter().enumerate() {
                                    let (token, place) = (head.token(j), head.place(i, j));
                                    axpy(row(&dq, at.clone()), ds, &k[token.clone()]);
                                    axpy(row(&dk, token), ds, &q[at.clone()]);
                                    d_of_query[place] += ds;
                                    d_of_keys[j * w + place] += ds;
                                }
                                if let (Some(table), Some(d)) = (terms.k, &dpk) {
                                    for (&ds, r) in d_of_query.iter().zip(head.used.clone()) {
                                        axpy(row(&dq, at.clone()), ds, &table[head.span(r)]);
                                        axpy(row(d, head.span(r)), ds, &q[at.clone()]);
                                    }
                                }
                            }
                            if let (Some(table), Some(d)) = (terms.q, &dpq) {
                                for (j, of_key) in d_of_keys.chunks_exact(w).enumerate() {
                                    for (&ds, r) in of_key.iter().zip(head.used.clone()) {
                                        axpy(row(&dk, head.token(j)), ds, &table[head.span(r)]);
                                        axpy(row(d, head.span(r)), ds, &k[head.token(j)]);
                                    }
                                }
                            }
                        }
                    },
                );
            });
        }
    });
}
