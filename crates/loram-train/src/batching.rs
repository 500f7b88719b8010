//! From examples to batches: order, packing, and lists of lengths instead of padding.

use loram_io::data::Example;
use loram_nn::Batch;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// The order of `len` things in epoch `epoch` (from 0): Fisher–Yates from the end, with numbers from ChaCha8 keyed by
/// seed and epoch. It depends on nothing else, so that a resumed run finds its place again.
pub fn permutation(len: usize, seed: u64, epoch: usize) -> Vec<usize> {
    let mut key = [0u8; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&(epoch as u64).to_le_bytes());
    key[16..20].copy_from_slice(b"data");
    let mut rng = ChaCha8Rng::from_seed(key);
    let mut order: Vec<usize> = (0..len).collect();
    for i in (1..len).rev() {
        // the high half of the product is uniform on 0..=i up to i/2⁶⁴
        let j = (u128::from(rng.next_u64()) * (i as u128 + 1)) >> 64;
        order.swap(i, j as usize);
    }
    order
}

/// Puts examples of the given lengths into rows of at most `max` tokens: longest first, each into the fullest row that
/// still takes it (best-fit decreasing, as TRL's `bfd`). An example longer than `max` has a row of its own. Rows list
/// examples in ascending order, and are in the order of their first example.
pub fn pack(lengths: &[usize], max: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(lengths[i]), i));
    let mut rows: Vec<Vec<usize>> = Vec::new();
    // (room left, row), so that the first entry with enough room is the best fit
    let mut room = std::collections::BTreeSet::new();
    for i in order {
        let best = room.range((lengths[i], 0)..).next().copied();
        match best {
            Some((left, row)) => {
                room.remove(&(left, row));
                rows[row].push(i);
                room.insert((left - lengths[i], row));
            }
            None => {
                room.insert((max.saturating_sub(lengths[i]), rows.len()));
                rows.push(vec![i]);
            }
        }
    }
    rows.iter_mut().for_each(|r| r.sort_unstable());
    rows.sort_by_key(|r| r[0]);
    rows
}

/// Which examples make up which batch.
#[derive(Debug, Clone)]
pub struct Order {
    /// Examples that go together: one each, or a pack.
    rows: Vec<Vec<usize>>,
    batch: usize,
    seed: u64,
}

impl Order {
    /// Every example by itself, `batch` of them in a batch.
    pub fn single(examples: usize, batch: usize, seed: u64) -> Order {
        Order { rows: (0..examples).map(|i| vec![i]).collect(), batch, seed }
    }

    /// Examples packed into rows of at most `max` tokens, `batch` rows in a batch. Packed once: epochs shuffle rows.
    pub fn packed(lengths: &[usize], max: usize, batch: usize, seed: u64) -> Order {
        Order { rows: pack(lengths, max), batch, seed }
    }

    /// Examples or packs.
    pub fn rows(&self) -> usize {
        self.rows.len()
    }

    /// Batches in an epoch; the last may be smaller.
    pub fn batches(&self) -> usize {
        self.rows.len().div_ceil(self.batch)
    }

    /// The examples of every batch of an epoch.
    pub fn epoch(&self, epoch: usize) -> Vec<Vec<usize>> {
        let order = permutation(self.rows.len(), self.seed, epoch);
        order.chunks(self.batch).map(|rows| rows.iter().flat_map(|&r| self.rows[r].clone()).collect()).collect()
    }
}

/// Batches for an evaluation, in the order of the data: up to `max_examples` examples and `max_tokens` tokens each, at
/// least one example.
pub fn eval_batches(lengths: &[usize], max_examples: usize, max_tokens: usize) -> Vec<std::ops::Range<usize>> {
    let mut out = Vec::new();
    let (mut start, mut tokens) = (0, 0);
    for (i, &n) in lengths.iter().enumerate() {
        if i > start && (i - start >= max_examples || tokens + n > max_tokens) {
            out.push(start..i);
            (start, tokens) = (i, 0);
        }
        tokens += n;
    }
    if start < lengths.len() {
        out.push(start..lengths.len());
    }
    out
}

/// The sequences of examples, one after another.
pub fn batch<'a>(examples: impl IntoIterator<Item = &'a Example>) -> Batch {
    let mut b = Batch::default();
    let mut types = false;
    for s in examples.into_iter().flat_map(|e| &e.sequences) {
        b.lengths.push(s.input_ids.len());
        b.tokens.extend_from_slice(&s.input_ids);
        types |= !s.token_type_ids.is_empty();
        let missing = s.input_ids.len() - s.token_type_ids.len();
        b.token_types.extend(s.token_type_ids.iter().copied().chain(std::iter::repeat_n(0, missing)));
    }
    if !types {
        b.token_types.clear();
    }
    b
}

#[cfg(test)]
mod tests {
    use super::*;
    use loram_io::data::Sequence;

    #[test]
    fn every_epoch_is_a_permutation_of_its_own() {
        let (a, b, c) = (permutation(100, 7, 0), permutation(100, 7, 1), permutation(100, 8, 0));
        for p in [&a, &b, &c] {
            let mut sorted = p.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..100).collect::<Vec<_>>());
        }
        assert!(a != b && a != c && a == permutation(100, 7, 0));
        // the same on every machine and in every version: resumed runs depend on it
        assert_eq!(permutation(8, 42, 0), permutation(8, 42, 0));
        assert_eq!(permutation(1, 0, 0), [0]);
        assert!(permutation(0, 0, 0).is_empty());
    }

    #[test]
    fn packs_hold_everything_once_within_the_limit() {
        let lengths: Vec<usize> = (0..200).map(|i| 1 + (i * 37) % 60).collect();
        let rows = pack(&lengths, 64);
        let mut all: Vec<usize> = rows.concat();
        all.sort_unstable();
        assert_eq!(all, (0..200).collect::<Vec<_>>());
        let sums: Vec<usize> = rows.iter().map(|r| r.iter().map(|&i| lengths[i]).sum()).collect();
        assert!(sums.iter().all(|&s| s <= 64));
        let waste = 1.0 - sums.iter().sum::<usize>() as f64 / (rows.len() * 64) as f64;
        assert!(waste < 0.03, "{waste}");
        assert_eq!(pack(&[5, 70, 3], 64), [vec![0, 2], vec![1]]);
        assert!(pack(&[], 64).is_empty());
    }

    #[test]
    fn batches_of_an_epoch_cover_it() {
        let order = Order::single(10, 4, 1);
        assert_eq!((order.rows(), order.batches()), (10, 3));
        let epoch = order.epoch(3);
        assert_eq!(epoch.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 2]);
        let packed = Order::packed(&[6, 6, 3, 3, 4], 10, 1, 1);
        assert_eq!(packed.epoch(0).len(), 3);
    }

    #[test]
    fn evaluation_keeps_to_both_limits() {
        assert_eq!(eval_batches(&[5, 5, 5, 20, 1], 2, 12), [0..2, 2..3, 3..4, 4..5]);
        assert_eq!(eval_batches(&[1; 5], 8, 100), vec![0..5; 1]);
        assert!(eval_batches(&[], 8, 100).is_empty());
    }

    #[test]
    fn sequences_follow_one_another() {
        let sequence = |ids: &[u32], types: &[u32]| Sequence {
            input_ids: ids.to_vec(),
            token_type_ids: types.to_vec(),
            ..Sequence::default()
        };
        let one = |ids: &[u32], types: &[u32]| Example::of(sequence(ids, types));
        let b = batch(&[one(&[5, 6, 7], &[]), one(&[8, 9], &[])]);
        assert_eq!((&b.tokens[..], &b.lengths[..]), (&[5, 6, 7, 8, 9][..], &[3, 2][..]));
        assert!(b.token_types.is_empty() && b.check().is_ok());
        let pair = Example { sequences: vec![sequence(&[5, 6, 7], &[]), sequence(&[8, 9], &[])], target: None };
        assert_eq!(batch(&[pair]).lengths, b.lengths);
        let b = batch(&[one(&[1, 2, 3], &[0, 1, 1]), one(&[1, 2, 3], &[])]);
        assert_eq!(b.token_types, [0, 1, 1, 0, 0, 0]);
        assert!(b.check().is_ok());
    }
}
