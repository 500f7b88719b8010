//! The forward pass in bf16.

use super::super::super::bf16::{BLOCK, Kernel, SIDE, Tiles, pack};
use super::super::super::par::{Shared, for_units, with_scratch};
use super::super::super::simd::simd;
use super::super::dropout::TileMask;
use super::super::forward::soften;
use super::super::units::Queries;
use super::super::{AttnShape, BK, BQ, blocks};
use super::operand::{Operand, rows_of};
use super::{FLOATS, PANELS, block, panel, seen, tile};

/// [`attention`](super::super::attention) with products in bf16.
///
/// # Panics
/// Without the kernel, and where lengths do not fit.
#[allow(clippy::too_many_arguments)]
pub fn attention(
    kernel: Kernel,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    o: &mut [f32],
    lse: &mut [f32],
    lengths: &[usize],
    shape: &AttnShape,
) {
    assert!(kernel.available(), "this processor has no {}", kernel.name());
    let tokens: usize = lengths.iter().sum();
    let (qw, kw) = (tokens * shape.q_width(), tokens * shape.kv_width());
    let found = (q.len(), k.len(), v.len(), o.len(), lse.len());
    assert_eq!(found, (qw, kw, kw, qw, tokens * shape.heads), "attention: {tokens} tokens");
    let all = All {
        shape,
        q,
        keys: Operand::rows(k, lengths, shape),
        values: Operand::columns(v, lengths, shape),
        o: Shared::new(o),
        lse: Shared::new(lse),
    };
    let (units, grain) = Queries::of(lengths, shape);
    let wide = shape.head_dim.div_ceil(SIDE);
    let floats = PANELS * (wide + PANELS) * FLOATS + BK * BQ + BQ * wide * SIDE + 3 * BQ;
    for_units(units.len(), grain, |u| with_scratch(floats, |scratch| all.unit(kernel, &units[u], scratch)));
}

struct All<'a> {
    shape: &'a AttnShape,
    q: &'a [f32],
    keys: Operand,
    values: Operand,
    o: Shared<'a, f32>,
    lse: Shared<'a, f32>,
}

impl All<'_> {
    fn unit(&self, kernel: Kernel, unit: &Queries, scratch: &mut [f32]) {
        let shape = self.shape;
        let Queries { sequence, rows, head, at } = unit.clone();
        let (d, qs, kv_head) = (shape.head_dim, shape.q_width(), head / shape.group());
        let (n, wide) = (at.len(), d.div_ceil(SIDE));
        // columns of the accumulated output
        let ldo = wide * SIDE;
        let (queries, rest) = scratch.split_at_mut(PANELS * wide * FLOATS);
        let (weights, rest) = rest.split_at_mut(PANELS * PANELS * FLOATS);
        let (scores, rest) = rest.split_at_mut(BK * BQ);
        let (out, rest) = rest.split_at_mut(BQ * ldo);
        let (top, rest) = rest.split_at_mut(BQ);
        let (total, factor) = rest.split_at_mut(BQ);
        let first = rows.start + at.start;
        let tiles = Tiles::new(kernel);
        let across = n.div_ceil(SIDE);
        let q = rows_of(&self.q[first * qs + head * d..], n, d, qs, shape.scale as f32);
        for i in 0..across {
            // SAFETY: the queries exist, and a panel has so many blocks
            unsafe { pack::transposed(&q, panel(&(0..n), i), 0..d, block(queries, i * wide)) };
        }
        let mask = shape.dropout.map(|d| TileMask::new(d, first, shape.heads, head));
        top.fill(f32::NEG_INFINITY);
        total.fill(0.0);
        let mut started = false;
        for keys in blocks(shape.keys_of(at.clone(), rows.len()), BK, rows.len()) {
            let (m, first_panel) = (keys.len(), keys.start / SIDE);
            for i in 0..across {
                // the mask sets scores of others
                for j in seen(shape, &at, i, &keys, rows.len()) {
                    let a = self.keys.panel(sequence, kv_head, first_panel + j);
                    let c = scores[j * SIDE * BQ + i * SIDE..].as_mut_ptr();
                    // SAFETY: whole panels, and a tile of the scores
                    unsafe { tiles.compute(tile(a, block(queries, i * wide), wide, c, BQ, false)) };
                }
            }
            simd(
                #[inline(always)]
                || {
                    let scores = &mut scores[..m * BQ];
                    shape.soft_cap(scores);
                    shape.mask(scores, keys.clone(), at.clone());
                    soften(scores, top, total, factor, across * SIDE);
                    if let Some(mask) = &mask {
                        mask.apply(scores, keys.start);
                    }
                    if started {
                        for (row, &f) in out.chunks_exact_mut(ldo).zip(&factor[..n]) {
                            row.iter_mut().for_each(|x| *x *= f);
                        }
                    }
                },
            );
            let softened = rows_of(scores, m, n, BQ, 1.0);
            for i in 0..across {
                let p = block(weights, i * PANELS);
                // the weights of others are 0
                let inner = if started { seen(shape, &at, i, &keys, rows.len()) } else { 0..m.div_ceil(SIDE) };
                if inner.is_empty() {
                    continue;
                }
                // SAFETY: the weights of these queries, into a panel of up to `PANELS` blocks; whole panels of values; rows of the output
                unsafe {
                    pack::rows_of_transpose(&softened, panel(&(0..n), i), p);
                    for j in 0..wide {
                        let b = self.values.column(sequence, kv_head, j, first_panel + inner.start);
                        let c = out[i * SIDE * ldo + j * SIDE..].as_mut_ptr();
                        let p = p.add(inner.start * BLOCK);
                        tiles.compute(tile(p, b, inner.len(), c, ldo, started));
                    }
                }
            }
            started = true;
        }
        for i in 0..n {
            // a query that sees nothing gets 0
            let f = if total[i] == 0.0 { 0.0 } else { 1.0 / total[i] };
            let (o, at) = ((first + i) * qs + head * d, (first + i) * shape.heads + head);
            // SAFETY: these queries of this head only
            let (o, lse) = unsafe { (self.o.slice(o..o + d), self.lse.slice(at..at + 1)) };
            lse[0] = top[i] + total[i].ln();
            match started {
                true => o.iter_mut().zip(&out[i * ldo..]).for_each(|(o, x)| *o = x * f),
                false => o.fill(0.0),
            }
        }
    }
}
