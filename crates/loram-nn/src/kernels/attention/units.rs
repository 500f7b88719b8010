//! Pieces of an attention that threads take, each with outputs of its own.

use std::ops::Range;

use super::super::par::GRAIN;
use super::{AttnShape, BK, BQ, blocks, sequences};

/// A block of queries of one head in the forward pass.
#[derive(Clone)]
pub(super) struct Queries {
    /// Number of the sequence, and its rows.
    pub sequence: usize,
    pub rows: Range<usize>,
    pub head: usize,
    /// Positions in the sequence.
    pub at: Range<usize>,
}

impl Queries {
    /// All, and how many of them a thread takes at least.
    pub fn of(lengths: &[usize], shape: &AttnShape) -> (Vec<Queries>, usize) {
        let mut all = Vec::new();
        for (sequence, rows) in sequences(lengths).enumerate() {
            for head in 0..shape.heads {
                for at in blocks(0..rows.len(), BQ, rows.len()) {
                    all.push(Queries { sequence, rows: rows.clone(), head, at });
                }
            }
        }
        let work: usize = lengths.iter().map(|n| n * n).sum::<usize>() * shape.q_width() / 8;
        let grain = (all.len() * GRAIN).div_ceil(work.max(1));
        (all, grain)
    }
}

/// A part of the backward pass: dk and dv of `keys` in `kv_head` and/or dq of `queries` in `heads`.
#[derive(Clone)]
pub(super) struct Unit {
    /// Number of the sequence, and its rows.
    pub sequence: usize,
    pub rows: Range<usize>,
    pub kv_head: usize,
    pub heads: Range<usize>,
    pub queries: Range<usize>,
    pub keys: Range<usize>,
    pub dq: bool,
    pub dkv: bool,
}

impl Unit {
    /// All, and how many of them a thread takes at least.
    ///
    /// Whole key heads do 5 tile products per tile; when they are too few or too uneven for the threads, the gradients of
    /// keys and of queries are computed apart, with 7. Each element gets its sums in the same order either way.
    pub fn of(lengths: &[usize], shape: &AttnShape) -> (Vec<Unit>, usize) {
        let (group, threads) = (shape.group(), rayon::current_num_threads());
        let costs: Vec<usize> =
            lengths.iter().flat_map(|&n| std::iter::repeat_n(5 * n * n * group, shape.kv_heads)).collect();
        let total: usize = costs.iter().sum();
        let mut load = vec![0; threads];
        for &c in &costs {
            if let Some(least) = load.iter_mut().min() {
                *least += c;
            }
        }
        let whole = threads == 1 || load.iter().max().is_none_or(|&l| l <= total * 7 / (5 * threads));
        let mut all = Vec::new();
        for (sequence, rows) in sequences(lengths).enumerate() {
            let n = rows.len();
            for kv_head in 0..shape.kv_heads {
                let heads = kv_head * group..(kv_head + 1) * group;
                let base = Unit {
                    sequence,
                    rows: rows.clone(),
                    kv_head,
                    heads: heads.clone(),
                    queries: 0..n,
                    keys: 0..n,
                    dq: true,
                    dkv: true,
                };
                if whole {
                    all.push(base);
                    continue;
                }
                // several blocks of keys together share what is made of queries
                let chunk = n.div_ceil(4 * threads).next_multiple_of(BK).clamp(BK, 8 * BK);
                for keys in blocks(0..n, chunk, n) {
                    all.push(Unit { keys, dq: false, ..base.clone() });
                }
                for head in heads {
                    for queries in blocks(0..n, BQ, n) {
                        all.push(Unit { heads: head..head + 1, queries, dkv: false, ..base.clone() });
                    }
                }
            }
        }
        let grain = (all.len() * GRAIN).div_ceil((total * shape.head_dim / 16).max(1));
        (all, grain)
    }
}
