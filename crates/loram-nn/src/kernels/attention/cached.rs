//! Decoding: a few new queries against all keys and values so far.

use super::super::{
    Real,
    par::{GRAIN, Shared, for_units, with_scratch},
    simd::{dot, exp_sum, max, simd},
};
use super::{AttnShape, BQ, blocks, forward::Block};

/// Up to so many queries are done one by one: a tile would be mostly padding.
const FEW: usize = 4;

/// The keys and values of a sequence (kv_len × kv_heads·d each) and the number of its queries.
pub type Cached<'a, T> = ((&'a [T], &'a [T]), usize);

/// o (Σ nq × heads·d) for the last nq positions of sequences whose keys and values, those of the queries included, are given; mask as
/// in [`super::attention`]. `lse` gets the logarithms of the softmax's denominators (Σ nq × heads).
pub fn attention_cached<T: Real>(
    q: &[T],
    sequences: Vec<Cached<'_, T>>,
    o: &mut [T],
    lse: Option<&mut [T]>,
    shape: &AttnShape,
) {
    let (qw, heads) = (shape.q_width(), shape.heads);
    let queries = sequences.iter().map(|s| s.1).sum::<usize>();
    assert_eq!((q.len(), o.len()), (queries * qw, queries * qw), "attention_cached");
    assert!(lse.as_ref().is_none_or(|lse| lse.len() == queries * heads), "attention_cached: lse");
    let (out, lse) = (Shared::new(o), lse.map(Shared::new));
    let mut first = 0;
    let parts: Vec<(usize, Cached<'_, T>)> = sequences
        .into_iter()
        .map(|sequence| {
            let at = first;
            first += sequence.1;
            (at, sequence)
        })
        .collect();
    for_units(parts.len(), 1, |u| {
        let (first, ((k, v), n)) = parts[u];
        // SAFETY: every sequence has rows of its own
        let (o, lse) = unsafe {
            let lse = lse.as_ref().map(|lse| lse.slice(first * heads..(first + n) * heads));
            (out.slice(first * qw..(first + n) * qw), lse)
        };
        of_sequence(&q[first * qw..(first + n) * qw], k, v, o, lse, shape);
    });
}

fn of_sequence<T: Real>(q: &[T], k_cache: &[T], v_cache: &[T], o: &mut [T], lse: Option<&mut [T]>, shape: &AttnShape) {
    let (qw, kw, d) = (shape.q_width(), shape.kv_width(), shape.head_dim);
    let group = shape.group();
    if qw == 0 || q.is_empty() {
        return;
    }
    let (nq, keys) = (q.len() / qw, k_cache.len() / kw);
    assert_eq!(
        (q.len(), o.len(), k_cache.len(), v_cache.len()),
        (nq * qw, nq * qw, keys * kw, keys * kw),
        "attention_cached"
    );
    assert!(nq <= keys, "{nq} queries among {keys} keys");
    let first = keys - nq;
    let heads = shape.heads;
    let (out, lse) = (Shared::new(o), lse.map(Shared::new));
    if nq > FEW {
        let per_head = nq.div_ceil(BQ);
        let grain = GRAIN.div_ceil((BQ.min(nq) * keys * d / 8).max(1));
        for_units(shape.heads * per_head, grain, |u| {
            let head = u / per_head;
            let Some(queries) = blocks(0..nq, BQ, nq).nth(u % per_head) else { return };
            let at = queries.start * qw + head * d;
            let block = Block {
                shape,
                keys,
                position: first + queries.start,
                queries: queries.len(),
                q: q[at..].as_ptr(),
                k: k_cache[head / group * d..].as_ptr(),
                v: v_cache[head / group * d..].as_ptr(),
                o: out.ptr(at),
                lse: lse.as_ref().map(|lse| lse.ptr(queries.start * heads + head)),
                mask: None,
            };
            // SAFETY: lengths were checked; units write to different rows or heads
            unsafe { block.run() }
        });
        return;
    }
    for_units(shape.heads * nq, (GRAIN / (keys * d).max(1)).max(1), |u| {
        let (head, i) = (u / nq, u % nq);
        let at = i * qw + head * d;
        // SAFETY: one row of one head per unit
        let o = unsafe { out.slice(at..at + d) };
        let seen = shape.keys_of(first + i..first + i + 1, keys);
        let start = head / group * d;
        with_scratch(seen.len(), |scores: &mut [T]| {
            simd(
                #[inline(always)]
                || {
                    let q = &q[at..at + d];
                    for (s, j) in scores.iter_mut().zip(seen.clone()) {
                        *s = dot(q, &k_cache[j * kw + start..j * kw + start + d]) * T::from_f64(shape.scale);
                    }
                    shape.soft_cap(scores);
                    let top = max(scores);
                    let total = exp_sum(scores, top);
                    if let Some(lse) = &lse {
                        // SAFETY: one element per unit
                        unsafe { *lse.ptr(i * heads + head) = top + total.ln() };
                    }
                    o.fill(T::ZERO);
                    for (&p, j) in scores.iter().zip(seen) {
                        let p = p / total;
                        for (o, &v) in o.iter_mut().zip(&v_cache[j * kw + start..j * kw + start + d]) {
                            *o = v.mul_add(p, *o);
                        }
                    }
                },
            );
        });
    });
}
