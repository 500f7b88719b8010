//! From examples to batches: order, packing, and lists of lengths instead of padding.

use loram_io::data::{Example, Sequence};
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
    /// Rows of like length go together.
    grouped: Option<Grouped>,
    /// Sources give their shares.
    mixture: Option<Mixture>,
}

/// Sources of rows, each of which gives its share of an epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct Mixture {
    /// Rows of each source.
    sources: Vec<std::ops::Range<usize>>,
    /// Rows of each source in an epoch.
    counts: Vec<usize>,
}

impl Mixture {
    /// Sources of so many rows, one after another, with shares in proportion to their weights. An epoch has as many rows as all
    /// sources together.
    pub fn new(rows: &[usize], weights: &[f64]) -> Mixture {
        let total: usize = rows.iter().sum();
        let whole: f64 = weights.iter().sum();
        let exact: Vec<f64> = weights.iter().map(|w| w / whole * total as f64).collect();
        let mut counts: Vec<usize> = exact.iter().map(|x| x.floor() as usize).collect();
        // what rounding leaves goes to the largest remainders
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.sort_by(|&a, &b| (exact[b] - exact[b].floor()).total_cmp(&(exact[a] - exact[a].floor())));
        let left = total - counts.iter().sum::<usize>().min(total);
        order.iter().cycle().take(left).for_each(|&i| counts[i] += 1);
        let ends = rows.iter().scan(0, |end, n| {
            *end += n;
            Some(*end)
        });
        let sources = ends.zip(rows).map(|(end, n)| end - n..end).collect();
        Mixture { sources, counts }
    }

    /// Rows of each source in an epoch.
    pub fn counts(&self) -> &[usize] {
        &self.counts
    }

    /// The rows of an epoch. A source goes on where it stopped in the epoch before, in an order of its own for each time that it
    /// has been gone through.
    fn epoch(&self, seed: u64, epoch: usize) -> Vec<usize> {
        let mut chosen = Vec::new();
        for (i, (source, &count)) in self.sources.iter().zip(&self.counts).enumerate() {
            let n = source.len();
            let mut order: (usize, Vec<usize>) = (usize::MAX, Vec::new());
            for at in epoch * count..(epoch + 1) * count {
                if order.0 != at / n {
                    order = (at / n, permutation(n, seed.wrapping_add(1 + i as u64), at / n));
                }
                chosen.push(source.start + order.1[at % n]);
            }
        }
        permutation(chosen.len(), seed, epoch).into_iter().map(|i| chosen[i]).collect()
    }
}

/// How rows are grouped by length.
#[derive(Debug, Clone)]
struct Grouped {
    /// Tokens of each row.
    lengths: Vec<usize>,
    /// Rows of an optimiser step.
    step: usize,
}

impl Order {
    /// Every example by itself, `batch` of them in a batch.
    pub fn single(examples: usize, batch: usize, seed: u64) -> Order {
        Order { rows: (0..examples).map(|i| vec![i]).collect(), batch, seed, grouped: None, mixture: None }
    }

    /// Examples packed into rows of at most `max` tokens, `batch` rows in a batch. Packed once: epochs shuffle rows.
    pub fn packed(lengths: &[usize], max: usize, batch: usize, seed: u64) -> Order {
        Order { rows: pack(lengths, max), batch, seed, grouped: None, mixture: None }
    }

    /// Examples of several sources, one after another, of which each gives a share of the rows of an epoch: (examples, weight). With
    /// `max` they are packed, each source by itself.
    pub fn mixed(lengths: &[usize], sources: &[(usize, f64)], max: Option<usize>, batch: usize, seed: u64) -> Order {
        let (mut rows, mut counts, mut from) = (Vec::new(), Vec::new(), 0);
        for (n, _) in sources {
            let of_source = match max {
                Some(max) => pack(&lengths[from..from + n], max),
                None => (0..*n).map(|i| vec![i]).collect(),
            };
            counts.push(of_source.len());
            rows.extend(of_source.into_iter().map(|row| row.into_iter().map(|i| from + i).collect::<Vec<_>>()));
            from += n;
        }
        let weights: Vec<f64> = sources.iter().map(|s| s.1).collect();
        Order { rows, batch, seed, grouped: None, mixture: Some(Mixture::new(&counts, &weights)) }
    }

    /// The mixture of sources, if there is one.
    pub fn mixture(&self) -> Option<&Mixture> {
        self.mixture.as_ref()
    }

    /// The same with rows of like length in the same optimiser step of `step` rows. As transformers' `group_by_length`: an
    /// epoch's permutation is cut into pieces of up to 50 steps, each sorted from long to short, and the longest row of
    /// all comes first.
    pub fn grouped(self, lengths: &[usize], step: usize) -> Order {
        let lengths = self.rows.iter().map(|row| row.iter().map(|&i| lengths[i]).sum()).collect();
        Order { grouped: Some(Grouped { lengths, step }), ..self }
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
        let mut order = match &self.mixture {
            None => permutation(self.rows.len(), self.seed, epoch),
            Some(mixture) => mixture.epoch(self.seed, epoch),
        };
        if let Some(grouped) = &self.grouped {
            grouped.sort(&mut order);
        }
        order.chunks(self.batch).map(|rows| rows.iter().flat_map(|&r| self.rows[r].clone()).collect()).collect()
    }
}

impl Grouped {
    fn sort(&self, order: &mut [usize]) {
        let steps = (order.len() / (4 * self.step)).clamp(1, 50);
        for piece in order.chunks_mut(steps * self.step) {
            piece.sort_by_key(|&row| std::cmp::Reverse(self.lengths[row]));
        }
        // the first of a piece is its longest; ties go to the earlier piece
        let longest = (0..order.len()).step_by(steps * self.step).rev().max_by_key(|&i| self.lengths[order[i]]);
        if let Some(longest) = longest {
            order.swap(0, longest);
        }
    }
}

/// Cuts a batch into forward passes of at most `max_tokens` tokens each, at least one example. Gradients of passes add up,
/// so that the optimiser's step is that of the whole batch.
pub fn passes(batch: &[usize], lengths: impl Fn(usize) -> usize, max_tokens: Option<usize>) -> Vec<&[usize]> {
    let Some(max) = max_tokens else { return vec![batch] };
    let (mut out, mut start, mut tokens) = (Vec::new(), 0, 0);
    for (i, &example) in batch.iter().enumerate() {
        let n = lengths(example);
        if i > start && tokens + n > max {
            out.push(&batch[start..i]);
            (start, tokens) = (i, 0);
        }
        tokens += n;
    }
    out.push(&batch[start..]);
    out
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
    batch_of(examples.into_iter().flat_map(|e| &e.sequences))
}

/// Sequences, one after another.
pub fn batch_of<'a>(sequences: impl IntoIterator<Item = &'a Sequence>) -> Batch {
    let mut b = Batch::default();
    let mut types = false;
    for s in sequences {
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
    fn sources_give_their_shares() {
        let order = Order::mixed(&[5; 100], &[(90, 0.5), (10, 0.5)], None, 8, 3);
        assert_eq!(order.mixture().unwrap().counts(), [50, 50]);
        let mut seen = vec![0; 100];
        for epoch in 0..9 {
            let rows = order.epoch(epoch).concat();
            assert_eq!((rows.len(), rows.iter().filter(|r| **r >= 90).count()), (100, 50));
            assert_eq!(rows, order.epoch(epoch).concat());
            rows.iter().for_each(|&r| seen[r] += 1);
        }
        // 450 draws of each source, as evenly as they can be
        assert!(seen[..90].iter().all(|n| *n == 5) && seen[90..].iter().all(|n| *n == 45), "{seen:?}");
        assert_ne!(order.epoch(0), order.epoch(1));
        assert_eq!(Mixture::new(&[3, 3, 4], &[1.0, 1.0, 1.0]).counts().iter().sum::<usize>(), 10);
        assert_eq!(Mixture::new(&[8, 2], &[3.0, 1.0]).counts(), [8, 2]);
        // packs are of one source each
        let packed = Order::mixed(&[5; 100], &[(90, 3.0), (10, 1.0)], Some(20), 2, 3);
        assert_eq!((packed.rows(), packed.mixture().unwrap().counts().len()), (26, 2));
        assert!(packed.rows.iter().all(|row| row.iter().all(|i| (*i < 90) == (row[0] < 90))));
    }

    #[test]
    fn rows_of_like_length_go_together() {
        let lengths: Vec<usize> = (0..400).map(|i| 1 + (i * 37) % 397).collect();
        let spread = |order: &Order| -> f64 {
            let spread = |b: &Vec<usize>| {
                let of = |i: &usize| lengths[*i];
                b.iter().map(of).max().unwrap() - b.iter().map(of).min().unwrap()
            };
            let epoch = order.epoch(1);
            epoch.iter().map(spread).sum::<usize>() as f64 / epoch.len() as f64
        };
        let plain = Order::single(400, 8, 3);
        let grouped = plain.clone().grouped(&lengths, 8);
        let epoch = grouped.epoch(1);
        let mut all = epoch.concat();
        assert_eq!(lengths[all[0]], *lengths.iter().max().unwrap(), "the longest comes first");
        all.sort_unstable();
        assert_eq!(all, (0..400).collect::<Vec<_>>());
        assert!(spread(&grouped) < 0.15 * spread(&plain), "{} of {}", spread(&grouped), spread(&plain));
        assert_ne!(grouped.epoch(1), grouped.epoch(2));
        // fewer rows than a step, and none
        assert_eq!(Order::single(3, 8, 3).grouped(&[5, 9, 7], 8).epoch(0), [[1, 2, 0]]);
        assert!(Order::single(0, 8, 3).grouped(&[], 8).epoch(0).is_empty());
    }

    #[test]
    fn passes_keep_to_the_budget() {
        let lengths = [50, 30, 20, 200, 10, 10];
        let cut = |max| passes(&[0, 1, 2, 3, 4, 5], |i| lengths[i], max);
        assert_eq!(cut(Some(100)), [&[0, 1, 2][..], &[3], &[4, 5]]);
        assert_eq!(cut(Some(1)).len(), 6);
        assert_eq!(cut(Some(320)).len(), 1);
        assert_eq!(cut(None).len(), 1);
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
        let sequences = vec![sequence(&[5, 6, 7], &[]), sequence(&[8, 9], &[])];
        let pair = Example { sequences, ..Example::default() };
        assert_eq!(batch(&[pair]).lengths, b.lengths);
        let b = batch(&[one(&[1, 2, 3], &[0, 1, 1]), one(&[1, 2, 3], &[])]);
        assert_eq!(b.token_types, [0, 1, 1, 0, 0, 0]);
        assert!(b.check().is_ok());
    }
}
