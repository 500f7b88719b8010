//! Memory of the GPU that nothing uses, by size.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Steps for which an unused buffer is kept.
const KEEP: u64 = 4;

/// Free buffers by capacity, each with the step in which it was last used.
pub(super) struct Free<B> {
    step: AtomicU64,
    by_size: Mutex<BTreeMap<usize, Vec<(u64, B)>>>,
}

impl<B> Free<B> {
    pub const fn new() -> Self {
        Free { step: AtomicU64::new(0), by_size: Mutex::new(BTreeMap::new()) }
    }

    /// A free buffer of at least the capacity `class`, and little more.
    pub fn take(&self, class: usize) -> Option<B> {
        let mut free = self.by_size.lock().expect("pool lock");
        let found = free.range(class..=class + class / 8).find(|(_, v)| !v.is_empty()).map(|(&k, _)| k);
        found.and_then(|k| free.get_mut(&k)?.pop()).map(|(_, buffer)| buffer)
    }

    pub fn give(&self, class: usize, buffer: B) {
        let step = self.step.load(Ordering::Relaxed);
        let mut free = self.by_size.lock().expect("pool lock");
        free.entry(class).or_default().push((step, buffer));
    }

    /// Frees buffers that the last few steps have not used.
    pub fn end_of_step(&self) {
        let step = self.step.fetch_add(1, Ordering::Relaxed) + 1;
        self.trim(step.saturating_sub(KEEP));
    }

    /// Frees all buffers.
    pub fn clear(&self) {
        self.trim(u64::MAX);
    }

    /// Frees buffers that no step since `oldest` has used.
    fn trim(&self, oldest: u64) {
        let mut free = self.by_size.lock().expect("pool lock");
        for list in free.values_mut() {
            list.retain(|(used, _)| *used >= oldest);
        }
        free.retain(|_, list| !list.is_empty());
    }
}

/// Sizes are rounded up to eighths of a power of two, so that batches of nearly equal length share buffers.
pub(super) fn size_class(len: usize) -> usize {
    let len = len.max(64);
    let step = (len.next_power_of_two() / 16).max(8);
    len.div_ceil(step) * step
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_waste_at_most_an_eighth_and_are_stable() {
        for len in [1, 63, 64, 65, 1000, 4097, 1 << 20, (1 << 20) + 1] {
            let class = size_class(len);
            assert!(class >= len && class <= len.max(64) + len / 7 + 8, "{len} → {class}");
            assert_eq!(size_class(class), class);
        }
    }
}
