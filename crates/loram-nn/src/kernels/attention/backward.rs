//! The backward pass: scores are recomputed, tile by tile.

use pulp::{Simd, WithSimd};

use super::super::{
    Real,
    micro::{Tile, product},
    par::{Shared, for_units, with_scratch},
    simd::dot,
};
use super::dropout::TileMask;
use super::units::Unit;
use super::{AttnShape, BK, BQ, blocks, forward::finite, transpose};

/// Gradients of [`super::attention`]: `dq`, `dk`, `dv` are overwritten. `o` and `lse` are outputs of the forward pass, `d_o`
/// is the gradient of o. With P = exp(scale·q·kᵀ − lse) and δ = Σ d_o·o per query:
/// dv = Pᵀ·d_o, dS = scale·P∘(d_o·vᵀ − δ), dq = dS·k, dk = dSᵀ·q. With a dropout mask M (0 or 1/(1 − p)), dv = (M∘P)ᵀ·d_o and
/// dS = scale·P∘(M∘(d_o·vᵀ) − δ). With soft-capped scores s, dS has the slope 1 − (s/cap)² as a further factor.
#[allow(clippy::too_many_arguments)]
pub fn attention_backward<T: Real>(
    q: &[T],
    k: &[T],
    v: &[T],
    o: &[T],
    lse: &[T],
    d_o: &[T],
    dq: &mut [T],
    dk: &mut [T],
    dv: &mut [T],
    lengths: &[usize],
    shape: &AttnShape,
) {
    let tokens: usize = lengths.iter().sum();
    let (qw, kw) = (tokens * shape.q_width(), tokens * shape.kv_width());
    assert_eq!((q.len(), o.len(), d_o.len(), dq.len()), (qw, qw, qw, qw), "attention_backward: {tokens} tokens");
    assert_eq!((k.len(), v.len(), dk.len(), dv.len()), (kw, kw, kw, kw), "attention_backward: {tokens} tokens");
    assert_eq!(lse.len(), tokens * shape.heads, "attention_backward: {tokens} tokens");
    let all = All { shape, q, k, v, o, lse, d_o, dq: Shared::new(dq), dk: Shared::new(dk), dv: Shared::new(dv) };
    let (units, grain) = Unit::of(lengths, shape);
    for_units(units.len(), grain, |u| {
        let d = shape.head_dim;
        with_scratch(2 * BQ * d + 2 * BK * BQ + 2 * BQ, |scratch| {
            pulp::Arch::new().dispatch(Run { all: &all, unit: units[u].clone(), scratch });
        });
    });
}

struct All<'a, T> {
    shape: &'a AttnShape,
    q: &'a [T],
    k: &'a [T],
    v: &'a [T],
    o: &'a [T],
    lse: &'a [T],
    d_o: &'a [T],
    dq: Shared<'a, T>,
    dk: Shared<'a, T>,
    dv: Shared<'a, T>,
}

struct Run<'a, 'b, T> {
    all: &'a All<'a, T>,
    unit: Unit,
    scratch: &'b mut [T],
}

impl<T: Real> WithSimd for Run<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Run { all, unit, scratch } = self;
        let shape = all.shape;
        let (d, qs, ks, len) = (shape.head_dim, shape.q_width(), shape.kv_width(), unit.rows.len());
        let scale = T::from_f64(shape.scale);
        let (qt, rest) = scratch.split_at_mut(BQ * d);
        let (gt, rest) = rest.split_at_mut(BQ * d);
        let (p, rest) = rest.split_at_mut(BK * BQ);
        let (ds, rest) = rest.split_at_mut(BK * BQ);
        let (lse, delta) = rest.split_at_mut(BQ);
        let kv_at = |j: usize| (unit.rows.start + j) * ks + unit.kv_head * d;
        if unit.dkv {
            for j in unit.keys.clone() {
                // SAFETY: keys of this unit only
                unsafe {
                    all.dk.slice(kv_at(j)..kv_at(j) + d).fill(T::ZERO);
                    all.dv.slice(kv_at(j)..kv_at(j) + d).fill(T::ZERO);
                }
            }
        }
        for head in unit.heads.clone() {
            for queries in blocks(unit.queries.clone(), BQ, len) {
                let q_at = |i: usize| (unit.rows.start + i) * qs + head * d;
                let seen = shape.keys_of(queries.clone(), len);
                let seen = seen.start.max(unit.keys.start)..seen.end.min(unit.keys.end);
                if unit.dq && seen.is_empty() {
                    for i in queries.clone() {
                        // SAFETY: queries of this unit only
                        unsafe { all.dq.slice(q_at(i)..q_at(i) + d).fill(T::ZERO) };
                    }
                }
                if seen.is_empty() {
                    continue;
                }
                let n = queries.len();
                let width = n.next_multiple_of(size_of::<T::Vector<S>>() / size_of::<T>()).min(BQ);
                let (q, g) = (all.q[q_at(queries.start)..].as_ptr(), all.d_o[q_at(queries.start)..].as_ptr());
                // SAFETY: `n` rows of the sequence
                unsafe {
                    transpose(q, qs, n, d, width, scale, qt);
                    transpose(g, qs, n, d, width, T::ONE, gt);
                }
                for (i, at) in queries.clone().enumerate() {
                    let row = q_at(at)..q_at(at) + d;
                    delta[i] = dot(&all.d_o[row.clone()], &all.o[row]);
                    lse[i] = finite(all.lse[(unit.rows.start + at) * shape.heads + head]);
                }
                let first = unit.rows.start + queries.start;
                let mask = shape.dropout.map(|d| TileMask::new(d, first, shape.heads, head));
                lse[n..].fill(T::ZERO);
                delta[n..].fill(T::ZERO);
                let mut started = false;
                for keys in blocks(seen, BK, len) {
                    let m = keys.len();
                    let (k, v) = (all.k[kv_at(keys.start)..].as_ptr(), all.v[kv_at(keys.start)..].as_ptr());
                    let (pp, dsp) = (p.as_mut_ptr(), ds.as_mut_ptr());
                    // (keys × queries) from rows of keys and transposed queries
                    let scores = |a, b: &[T], c| Tile {
                        m,
                        n: width,
                        k: d,
                        a,
                        ars: ks,
                        acs: 1,
                        b: b.as_ptr(),
                        ldb: BQ,
                        c,
                        ldc: BQ,
                        accumulate: false,
                    };
                    // (keys × d) from a tile and rows of queries
                    let to_keys = |a: *mut T, b, c| Tile {
                        m,
                        n: d,
                        k: n,
                        a: a.cast_const(),
                        ars: BQ,
                        acs: 1,
                        b,
                        ldb: qs,
                        c,
                        ldc: ks,
                        accumulate: true,
                    };
                    // SAFETY: all within the sequence's rows of this head; outputs belong to this unit
                    unsafe {
                        product(simd, scores(k, qt, pp));
                        product(simd, scores(v, gt, dsp));
                        let (p, ds) = (&mut p[..m * BQ], &mut ds[..m * BQ]);
                        shape.soft_cap(p);
                        shape.mask(p, keys.clone(), queries.clone());
                        if let Some(mask) = &mask {
                            mask.apply(ds, keys.start);
                        }
                        if let Some(cap) = shape.cap {
                            steepen(p, ds, &delta[..width], T::from_f64(1.0 / cap));
                        }
                        soften(p, ds, &lse[..width], &delta[..width], scale);
                        if let Some(mask) = &mask {
                            mask.apply(p, keys.start);
                        }
                        if unit.dkv {
                            product(simd, to_keys(pp, g, all.dv.ptr(kv_at(keys.start))));
                            product(simd, to_keys(dsp, q, all.dk.ptr(kv_at(keys.start))));
                        }
                        if unit.dq {
                            let to_queries = Tile {
                                m: n,
                                n: d,
                                k: m,
                                a: dsp.cast_const(),
                                ars: 1,
                                acs: BQ,
                                b: k,
                                ldb: ks,
                                c: all.dq.ptr(q_at(queries.start)),
                                ldc: qs,
                                accumulate: started,
                            };
                            product(simd, to_queries);
                        }
                    }
                    started = true;
                }
            }
        }
    }
}

/// `ds` (d_o·vᵀ) becomes δ + (ds − δ)·slope, with the slope of the soft cap at the scores `p`; [`soften`] subtracts δ again.
#[inline(always)]
pub(super) fn steepen<T: Real>(p: &[T], ds: &mut [T], delta: &[T], inverse: T) {
    for (p, ds) in p.chunks_exact(BQ).zip(ds.chunks_exact_mut(BQ)) {
        for ((p, ds), &delta) in p.iter().zip(ds).zip(delta) {
            // a masked score, −∞, has no slope
            let t = (*p * inverse).max_of(-T::ONE);
            *ds = (*ds - delta).mul_add((T::ONE - t) * (T::ONE + t), delta);
        }
    }
}

/// Scores `p` become probabilities, and `ds` (d_o·vᵀ) the gradient of the scores.
#[inline(always)]
pub(super) fn soften<T: Real>(p: &mut [T], ds: &mut [T], lse: &[T], delta: &[T], scale: T) {
    for (p, ds) in p.chunks_exact_mut(BQ).zip(ds.chunks_exact_mut(BQ)) {
        for (((p, ds), &lse), &delta) in p.iter_mut().zip(ds).zip(lse).zip(delta) {
            *p = (*p - lse).exp();
            *ds = *p * (*ds - delta) * scale;
        }
    }
}
