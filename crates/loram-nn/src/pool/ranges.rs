//! Which parts of an address range are free.

use std::collections::{BTreeMap, BTreeSet};

/// An allocator of ranges of units. A request takes the smallest hole that it fits in, the lowest of equal ones, and holes
/// that touch become one: a pass, which frees what it allocates in about the reverse order, leaves few gaps.
#[derive(Debug)]
pub(super) struct Ranges {
    size: usize,
    /// Holes below [`Self::top`], length by start. No two touch.
    by_start: BTreeMap<usize, usize>,
    /// The same, as (length, start).
    by_length: BTreeSet<(usize, usize)>,
    top: usize,
}

impl Ranges {
    /// `size` free units.
    pub fn new(size: usize) -> Ranges {
        Ranges { size, by_start: BTreeMap::new(), by_length: BTreeSet::new(), top: 0 }
    }

    /// The end of the highest range in use.
    pub fn top(&self) -> usize {
        self.top
    }

    /// Takes `len` > 0 units and returns the first, or `None` when no free range is that long.
    pub fn take(&mut self, len: usize) -> Option<usize> {
        if let Some(&(hole, start)) = self.by_length.range((len, 0)..).next() {
            self.remove(start, hole);
            if hole > len {
                self.insert(start + len, hole - len);
            }
            return Some(start);
        }
        if len > self.size - self.top {
            return None;
        }
        self.top += len;
        Some(self.top - len)
    }

    /// Gives back what [`Self::take`] returned.
    pub fn give(&mut self, mut start: usize, mut len: usize) {
        if let Some(&next) = self.by_start.get(&(start + len)) {
            self.remove(start + len, next);
            len += next;
        }
        if let Some((&before, &hole)) = self.by_start.range(..start).next_back()
            && before + hole == start
        {
            self.remove(before, hole);
            (start, len) = (before, hole + len);
        }
        match start + len == self.top {
            true => self.top = start,
            false => self.insert(start, len),
        }
    }

    fn insert(&mut self, start: usize, len: usize) {
        self.by_start.insert(start, len);
        self.by_length.insert((len, start));
    }

    fn remove(&mut self, start: usize, len: usize) {
        self.by_start.remove(&start);
        self.by_length.remove(&(len, start));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn holes_join_and_the_best_is_taken() {
        let mut r = Ranges::new(100);
        let at: Vec<_> = [10, 20, 5, 30, 5].into_iter().map(|n| r.take(n).unwrap()).collect();
        assert_eq!(at, [0, 10, 30, 35, 65]);
        assert_eq!(r.take(31), None);
        r.give(at[1], 20);
        r.give(at[3], 30);
        // 30 units fit in the second hole, 20 in the first
        assert_eq!(r.take(20), Some(10));
        r.give(10, 20);
        r.give(at[2], 5);
        assert_eq!(r.take(55), Some(10));
        r.give(10, 55);
        r.give(at[4], 5);
        assert_eq!(r.top(), 10);
        r.give(at[0], 10);
        assert_eq!((r.top(), r.by_start.len(), r.by_length.len()), (0, 0, 0));
    }

    proptest! {
        /// Ranges in use never overlap, the books agree, and all space comes back.
        #[test]
        fn ranges_do_not_overlap(requests in proptest::collection::vec((1usize..40, any::<u16>()), 1..200)) {
            let mut r = Ranges::new(2000);
            let mut used: Vec<(usize, usize)> = Vec::new();
            for (len, pick) in requests {
                if pick % 3 == 0 && !used.is_empty() {
                    let (start, len) = used.swap_remove(pick as usize / 3 % used.len());
                    r.give(start, len);
                } else if let Some(start) = r.take(len) {
                    prop_assert!(start + len <= 2000);
                    prop_assert!(used.iter().all(|&(s, n)| start + len <= s || s + n <= start));
                    used.push((start, len));
                }
                let holes: usize = r.by_start.values().sum();
                prop_assert_eq!(r.top(), holes + used.iter().map(|u| u.1).sum::<usize>());
                prop_assert_eq!(r.top(), used.iter().map(|u| u.0 + u.1).max().unwrap_or(0));
                prop_assert_eq!(r.by_start.len(), r.by_length.len());
            }
            used.into_iter().for_each(|(start, len)| r.give(start, len));
            prop_assert_eq!((r.top(), r.by_start.len()), (0, 0));
        }
    }
}
