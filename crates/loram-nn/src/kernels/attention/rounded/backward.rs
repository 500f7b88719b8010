//! The backward pass in bf16.

use super::super::super::bf16::{BLOCK, Kernel, SIDE, Tiles, pack};
use super::super::super::par::{Shared, for_units, with_scratch};
use super::super::super::simd::{dot, simd};
use super::super::backward::{soften, steepen};
use super::super::dropout::TileMask;
use super::super::forward::finite;
use super::super::units::Unit;
use super::super::{AttnShape, BK, BQ, blocks};
use super::operand::{Operand, rows_of};
use super::{FLOATS, PANELS, block, panel, seen, tile};

/// [`attention_backward`](super::super::attention_backward) with products in bf16.
///
/// # Panics
/// Without the kernel, and where lengths do not fit.
#[allow(clippy::too_many_arguments)]
pub fn attention_backward(
    kernel: Kernel,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    o: &[f32],
    lse: &[f32],
    d_o: &[f32],
    dq: &mut [f32],
    dk: &mut [f32],
    dv: &mut [f32],
    lengths: &[usize],
    shape: &AttnShape,
) {
    assert!(kernel.available(), "this processor has no {}", kernel.name());
    let tokens: usize = lengths.iter().sum();
    let (qw, kw) = (tokens * shape.q_width(), tokens * shape.kv_width());
    assert_eq!((q.len(), o.len(), d_o.len(), dq.len()), (qw, qw, qw, qw), "attention_backward: {tokens} tokens");
    assert_eq!((k.len(), v.len(), dk.len(), dv.len()), (kw, kw, kw, kw), "attention_backward: {tokens} tokens");
    assert_eq!(lse.len(), tokens * shape.heads, "attention_backward: {tokens} tokens");
    let all = All {
        shape,
        q,
        o,
        lse,
        d_o,
        keys: Operand::rows(k, lengths, shape),
        key_columns: Operand::columns(k, lengths, shape),
        values: Operand::rows(v, lengths, shape),
        dq: Shared::new(dq),
        dk: Shared::new(dk),
        dv: Shared::new(dv),
    };
    let (units, grain) = Unit::of(lengths, shape);
    let wide = shape.head_dim.div_ceil(SIDE);
    let floats = PANELS * (4 * wide + 3 * PANELS) * FLOATS + 2 * BK * BQ + 2 * BQ;
    for_units(units.len(), grain, |u| with_scratch(floats, |scratch| all.unit(kernel, &units[u], scratch)));
}

struct All<'a> {
    shape: &'a AttnShape,
    q: &'a [f32],
    o: &'a [f32],
    lse: &'a [f32],
    d_o: &'a [f32],
    keys: Operand,
    key_columns: Operand,
    values: Operand,
    dq: Shared<'a, f32>,
    dk: Shared<'a, f32>,
    dv: Shared<'a, f32>,
}

impl All<'_> {
    fn unit(&self, kernel: Kernel, unit: &Unit, scratch: &mut [f32]) {
        let (shape, len) = (self.shape, unit.rows.len());
        let (d, qs, ks) = (shape.head_dim, shape.q_width(), shape.kv_width());
        let wide = d.div_ceil(SIDE);
        // queries and gradients of outputs as transposes, for scores, and as they are, for gradients of keys and values
        let (q_t, rest) = scratch.split_at_mut(PANELS * wide * FLOATS);
        let (g_t, rest) = rest.split_at_mut(PANELS * wide * FLOATS);
        let (q_columns, rest) = rest.split_at_mut(PANELS * wide * FLOATS);
        let (g_columns, rest) = rest.split_at_mut(PANELS * wide * FLOATS);
        // weights and gradients of scores, packed
        let (p_rows, rest) = rest.split_at_mut(PANELS * PANELS * FLOATS);
        let (ds_rows, rest) = rest.split_at_mut(PANELS * PANELS * FLOATS);
        let (ds_t, rest) = rest.split_at_mut(PANELS * PANELS * FLOATS);
        let (p, rest) = rest.split_at_mut(BK * BQ);
        let (ds, rest) = rest.split_at_mut(BK * BQ);
        let (lse, delta) = rest.split_at_mut(BQ);
        let kv_at = |j: usize| (unit.rows.start + j) * ks + unit.kv_head * d;
        let tiles = Tiles::new(kernel);
        if unit.dkv {
            for j in unit.keys.clone() {
                // SAFETY: keys of this unit only
                unsafe {
                    self.dk.slice(kv_at(j)..kv_at(j) + d).fill(0.0);
                    self.dv.slice(kv_at(j)..kv_at(j) + d).fill(0.0);
                }
            }
        }
        for head in unit.heads.clone() {
            for queries in blocks(unit.queries.clone(), BQ, len) {
                let q_at = |i: usize| (unit.rows.start + i) * qs + head * d;
                let all = shape.keys_of(queries.clone(), len);
                let all = all.start.max(unit.keys.start)..all.end.min(unit.keys.end);
                if all.is_empty() {
                    for i in queries.clone().filter(|_| unit.dq) {
                        // SAFETY: queries of this unit only
                        unsafe { self.dq.slice(q_at(i)..q_at(i) + d).fill(0.0) };
                    }
                    continue;
                }
                let n = queries.len();
                let across = n.div_ceil(SIDE);
                let start = q_at(queries.start);
                let g = rows_of(&self.d_o[start..], n, d, qs, 1.0);
                let q = |factor| rows_of(&self.q[start..], n, d, qs, factor);
                // SAFETY: rows and columns of the head; the panels have so many blocks
                unsafe {
                    for i in 0..across {
                        let rows = panel(&(0..n), i);
                        pack::transposed(&q(shape.scale as f32), rows.clone(), 0..d, block(q_t, i * wide));
                        pack::transposed(&g, rows, 0..d, block(g_t, i * wide));
                    }
                    for (j, column) in (0..d).step_by(SIDE).enumerate().filter(|_| unit.dkv) {
                        let columns = column..(column + SIDE).min(d);
                        pack::columns(&q(1.0), columns.clone(), 0..n, block(q_columns, j * PANELS));
                        pack::columns(&g, columns, 0..n, block(g_columns, j * PANELS));
                    }
                }
                simd(
                    #[inline(always)]
                    || {
                        for (i, at) in queries.clone().enumerate() {
                            let row = q_at(at)..q_at(at) + d;
                            delta[i] = dot(&self.d_o[row.clone()], &self.o[row]);
                            lse[i] = finite(self.lse[(unit.rows.start + at) * shape.heads + head]);
                        }
                    },
                );
                lse[n..].fill(0.0);
                delta[n..].fill(0.0);
                let first = unit.rows.start + queries.start;
                let mask = shape.dropout.map(|d| TileMask::new(d, first, shape.heads, head));
                let mut started = false;
                for keys in blocks(all, BK, len) {
                    let (m, first_panel) = (keys.len(), keys.start / SIDE);
                    let down = m.div_ceil(SIDE);
                    let seen: [_; PANELS] = std::array::from_fn(|i| match i < across {
                        true => seen(shape, &queries, i, &keys, len),
                        false => 0..0,
                    });
                    for (i, seen) in seen.iter().enumerate().take(across) {
                        for j in 0..down {
                            let at = j * SIDE * BQ + i * SIDE;
                            if !seen.contains(&j) {
                                // the mask makes the weights 0
                                ds[at..].chunks_mut(BQ).take(SIDE).for_each(|row| row[..SIDE].fill(0.0));
                                continue;
                            }
                            let k = self.keys.panel(unit.sequence, unit.kv_head, first_panel + j);
                            let v = self.values.panel(unit.sequence, unit.kv_head, first_panel + j);
                            // SAFETY: whole panels, and tiles of the scores and of their gradients
                            unsafe {
                                let c = p[at..].as_mut_ptr();
                                tiles.compute(tile(k, block(q_t, i * wide), wide, c, BQ, false));
                                let c = ds[at..].as_mut_ptr();
                                tiles.compute(tile(v, block(g_t, i * wide), wide, c, BQ, false));
                            }
                        }
                    }
                    simd(
                        #[inline(always)]
                        || {
                            let (p, ds) = (&mut p[..m * BQ], &mut ds[..m * BQ]);
                            let (lse, delta) = (&lse[..across * SIDE], &delta[..across * SIDE]);
                            shape.soft_cap(p);
                            shape.mask(p, keys.clone(), queries.clone());
                            if let Some(mask) = &mask {
                                mask.apply(ds, keys.start);
                            }
                            if let Some(cap) = shape.cap {
                                steepen(p, ds, delta, (1.0 / cap) as f32);
                            }
                            soften(p, ds, lse, delta, shape.scale as f32);
                            if let Some(mask) = &mask {
                                mask.apply(p, keys.start);
                            }
                        },
                    );
                    let (p, ds) = (rows_of(p, m, n, BQ, 1.0), rows_of(ds, m, n, BQ, 1.0));
                    for j in (0..down).filter(|_| unit.dkv) {
                        // queries that see these keys, from the first panel to the last
                        let sees = |i: &usize| seen[*i].contains(&j);
                        let (Some(from), Some(to)) = ((0..across).find(sees), (0..across).rfind(sees)) else {
                            continue;
                        };
                        let inner = to + 1 - from;
                        let rows = panel(&(0..m), j);
                        let at = kv_at(keys.start + rows.start);
                        // SAFETY: rows of the tiles into panels of `PANELS` blocks; gradients of keys of this unit only
                        unsafe {
                            let (p_rows, ds_rows) = (block(p_rows, j * PANELS), block(ds_rows, j * PANELS));
                            pack::rows(&p, rows.clone(), p_rows);
                            pack::rows(&ds, rows.clone(), ds_rows);
                            for (i, column) in (0..d).step_by(SIDE).enumerate() {
                                let (dv, dk) = (self.dv.ptr(at + column), self.dk.ptr(at + column));
                                let (g, q) = (block(g_columns, i * PANELS + from), block(q_columns, i * PANELS + from));
                                let (p, ds) = (p_rows.add(from * BLOCK), ds_rows.add(from * BLOCK));
                                tiles.part(tile(p, g, inner, dv, ks, true), rows.len(), d - column);
                                tiles.part(tile(ds, q, inner, dk, ks, true), rows.len(), d - column);
                            }
                        }
                    }
                    for i in (0..across).filter(|_| unit.dq) {
                        let rows = panel(&(0..n), i);
                        let ds_t = block(ds_t, i * PANELS);
                        let inner = if started { seen[i].clone() } else { 0..down };
                        if inner.is_empty() {
                            continue;
                        }
                        // SAFETY: columns of the tile into a panel of `PANELS` blocks; gradients of queries of this unit only
                        unsafe {
                            pack::rows_of_transpose(&ds, rows.clone(), ds_t);
                            for (j, column) in (0..d).step_by(SIDE).enumerate() {
                                let k =
                                    self.key_columns.column(unit.sequence, unit.kv_head, j, first_panel + inner.start);
                                let dq = self.dq.ptr(start + rows.start * qs + column);
                                let ds_t = ds_t.add(inner.start * BLOCK);
                                tiles.part(tile(ds_t, k, inner.len(), dq, qs, started), rows.len(), d - column);
                            }
                        }
                    }
                    started = true;
                }
            }
        }
    }
}
