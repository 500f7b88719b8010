//! The forward pass, one block of queries of one head at a time.

use pulp::{Simd, WithSimd};

use super::super::{
    Real,
    micro::{Tile, product},
    par::{Shared, for_units, with_scratch},
};
use super::dropout::TileMask;
use super::units::Queries;
use super::{AttnShape, BK, BQ, blocks, transpose};

/// o (T × heads·d) = softmax(cap(scale·q·kᵀ) + mask)·v for every head and sequence; `lse` (T × heads) gets the logarithm of the
/// softmax's denominators, which the backward pass needs. q: T × heads·d, k and v: T × kv_heads·d, where T = Σ `lengths`.
pub fn attention<T: Real>(q: &[T], k: &[T], v: &[T], o: &mut [T], lse: &mut [T], lengths: &[usize], shape: &AttnShape) {
    let tokens: usize = lengths.iter().sum();
    let (qw, kw) = (tokens * shape.q_width(), tokens * shape.kv_width());
    assert_eq!(
        (q.len(), k.len(), v.len(), o.len(), lse.len()),
        (qw, kw, kw, qw, tokens * shape.heads),
        "attention: {tokens} tokens"
    );
    let group = shape.group();
    let (o, lse) = (Shared::new(o), Shared::new(lse));
    let (units, grain) = Queries::of(lengths, shape);
    for_units(units.len(), grain, |u| {
        let Queries { rows: seq, head, at: queries, .. } = units[u].clone();
        let (from, kv) = (seq.start + queries.start, seq.start * shape.kv_width() + head / group * shape.head_dim);
        let at = from * shape.q_width() + head * shape.head_dim;
        let block = Block {
            shape,
            keys: seq.len(),
            position: queries.start,
            queries: queries.len(),
            q: q[at..].as_ptr(),
            k: k[kv..].as_ptr(),
            v: v[kv..].as_ptr(),
            o: o.ptr(at),
            lse: Some(lse.ptr(from * shape.heads + head)),
            mask: shape.dropout.map(|d| TileMask::new(d, from, shape.heads, head)),
        };
        // SAFETY: lengths were checked; units write to different rows or heads of o and lse
        unsafe { block.run() }
    });
}

/// Queries at positions `position..position + queries` of one head against keys 0..`keys`.
pub(super) struct Block<'a, T> {
    pub shape: &'a AttnShape,
    pub keys: usize,
    pub position: usize,
    pub queries: usize,
    /// First query; rows are `q_width` apart.
    pub q: *const T,
    /// First key of the sequence in this head; rows are `kv_width` apart.
    pub k: *const T,
    /// First value.
    pub v: *const T,
    /// First row of the output; rows are `q_width` apart.
    pub o: *mut T,
    /// First of the log-sums, `heads` apart.
    pub lse: Option<*mut T>,
    pub mask: Option<TileMask<T>>,
}

impl<T: Real> Block<'_, T> {
    /// Compute the block.
    ///
    /// # Safety
    /// The pointers lead to as many rows as the fields say, and nobody else uses those of `o` and `lse`.
    pub(super) unsafe fn run(self) {
        let d = self.shape.head_dim;
        with_scratch(BQ * d + BK * BQ + 3 * BQ, |scratch| pulp::Arch::new().dispatch(Run { block: self, scratch }));
    }
}

struct Run<'a, 'b, T> {
    block: Block<'a, T>,
    scratch: &'b mut [T],
}

impl<T: Real> WithSimd for Run<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Run { block: b, scratch } = self;
        let (d, qs, ks) = (b.shape.head_dim, b.shape.q_width(), b.shape.kv_width());
        let (n, at) = (b.queries, b.position..b.position + b.queries);
        let width = n.next_multiple_of(size_of::<T::Vector<S>>() / size_of::<T>()).min(BQ);
        let (qt, rest) = scratch.split_at_mut(BQ * d);
        let (tile, rest) = rest.split_at_mut(BK * BQ);
        let (top, rest) = rest.split_at_mut(BQ);
        let (total, factor) = rest.split_at_mut(BQ);
        top.fill(T::NEG_INFINITY);
        total.fill(T::ZERO);
        // SAFETY: the promise of `Block::run`
        unsafe {
            transpose(b.q, qs, n, d, width, T::from_f64(b.shape.scale), qt);
            let mut started = false;
            for keys in blocks(b.shape.keys_of(at.clone(), b.keys), BK, b.keys) {
                let (m, keys_from) = (keys.len(), keys.start);
                let (k, v) = (b.k.add(keys.start * ks), b.v.add(keys.start * ks));
                let scores = Tile {
                    m,
                    n: width,
                    k: d,
                    a: k,
                    ars: ks,
                    acs: 1,
                    b: qt.as_ptr(),
                    ldb: BQ,
                    c: tile.as_mut_ptr(),
                    ldc: BQ,
                    accumulate: false,
                };
                product(simd, scores);
                b.shape.soft_cap(&mut tile[..m * BQ]);
                b.shape.mask(&mut tile[..m * BQ], keys, at.clone());
                soften(&mut tile[..m * BQ], top, total, factor, width);
                if let Some(mask) = &b.mask {
                    mask.apply(&mut tile[..m * BQ], keys_from);
                }
                if started {
                    rescale(b.o, qs, d, &factor[..n]);
                }
                let out = Tile {
                    m: n,
                    n: d,
                    k: m,
                    a: tile.as_ptr(),
                    ars: 1,
                    acs: BQ,
                    b: v,
                    ldb: ks,
                    c: b.o,
                    ldc: qs,
                    accumulate: started,
                };
                product(simd, out);
                started = true;
            }
            for (i, f) in factor[..n].iter_mut().enumerate() {
                // a query that sees nothing gets 0
                *f = if total[i] == T::ZERO { T::ZERO } else { T::ONE / total[i] };
                if let Some(lse) = b.lse {
                    *lse.add(i * b.shape.heads) = top[i] + total[i].ln();
                }
            }
            if started {
                rescale(b.o, qs, d, &factor[..n]);
            } else {
                for i in 0..n {
                    std::slice::from_raw_parts_mut(b.o.add(i * qs), d).fill(T::ZERO);
                }
            }
        }
    }
}

/// One step of the running softmax: scores of a tile become exp(score − top) with the new maximum per query, `total` is
/// brought up to date, and `factor` tells by what earlier outputs have to be multiplied.
#[inline(always)]
pub(super) fn soften<T: Real>(tile: &mut [T], top: &mut [T], total: &mut [T], factor: &mut [T], width: usize) {
    let (top, total, factor) = (&mut top[..width], &mut total[..width], &mut factor[..width]);
    factor.copy_from_slice(top);
    for row in tile.chunks_exact(BQ) {
        for (m, &s) in top.iter_mut().zip(row) {
            *m = s.max_of(*m);
        }
    }
    for ((f, t), &m) in factor.iter_mut().zip(total.iter_mut()).zip(top.iter()) {
        *f = (*f - finite(m)).exp();
        *t *= *f;
    }
    for row in tile.chunks_exact_mut(BQ) {
        for ((s, t), &m) in row.iter_mut().zip(total.iter_mut()).zip(top.iter()) {
            *s = (*s - finite(m)).exp();
            *t += *s;
        }
    }
}

/// −∞ − (−∞) would be NaN where a query has seen nothing yet.
#[inline(always)]
pub(super) fn finite<T: Real>(m: T) -> T {
    if m == T::NEG_INFINITY { T::ZERO } else { m }
}

#[inline(always)]
unsafe fn rescale<T: Real>(o: *mut T, stride: usize, d: usize, factor: &[T]) {
    for (i, &f) in factor.iter().enumerate() {
        // SAFETY: a row of the block's output
        for x in unsafe { std::slice::from_raw_parts_mut(o.add(i * stride), d) } {
            *x *= f;
        }
    }
}
