//! Memory that is reused: activations of the same few sizes come and go in every step, and fresh pages cost more
//! than the arithmetic on them.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Steps for which an unused buffer is kept.
const KEEP: u64 = 4;

static STEP: AtomicU64 = AtomicU64::new(0);

/// Free buffers by capacity, each with the step in which it was last used.
pub struct Free<B> {
    by_size: Mutex<BTreeMap<usize, Vec<(u64, B)>>>,
}

impl<B> Free<B> {
    pub(crate) const fn new() -> Self {
        Free { by_size: Mutex::new(BTreeMap::new()) }
    }

    /// A free buffer of at least the capacity `class`, and little more.
    pub(crate) fn take(&self, class: usize) -> Option<B> {
        let mut free = self.by_size.lock().expect("pool lock");
        let found = free.range(class..=class + class / 8).find(|(_, v)| !v.is_empty()).map(|(&k, _)| k);
        found.and_then(|k| free.get_mut(&k)?.pop()).map(|(_, buffer)| buffer)
    }

    pub(crate) fn give(&self, class: usize, buffer: B) {
        let step = STEP.load(Ordering::Relaxed);
        let mut free = self.by_size.lock().expect("pool lock");
        free.entry(class).or_default().push((step, buffer));
    }

    /// Frees buffers that no step since `oldest` has used.
    pub(crate) fn trim(&self, oldest: u64) {
        let mut free = self.by_size.lock().expect("pool lock");
        for list in free.values_mut() {
            list.retain(|(used, _)| *used >= oldest);
        }
        free.retain(|_, list| !list.is_empty());
    }
}

/// Sizes are rounded up to eighths of a power of two, so that batches of nearly equal length share buffers.
pub(crate) fn size_class(len: usize) -> usize {
    let len = len.max(64);
    let step = (len.next_power_of_two() / 16).max(8);
    len.div_ceil(step) * step
}

/// A number type whose buffers are pooled.
pub trait Pooled: Copy + 'static {
    /// 0.
    #[doc(hidden)]
    const EMPTY: Self;
    /// Its free buffers.
    #[doc(hidden)]
    fn free() -> &'static Free<Vec<Self>>;
}

macro_rules! pooled {
    ($t:ty) => {
        impl Pooled for $t {
            const EMPTY: $t = 0.0;
            fn free() -> &'static Free<Vec<$t>> {
                static FREE: Free<Vec<$t>> = Free::new();
                &FREE
            }
        }
    };
}
pooled!(f32);
pooled!(f64);

/// A buffer of at least `len` elements with the contents of its last use.
pub(crate) fn take<T: Pooled>(len: usize) -> Vec<T> {
    let class = size_class(len);
    T::free().take(class).unwrap_or_else(|| vec![T::EMPTY; class])
}

/// Gives a buffer back.
pub(crate) fn give<T: Pooled>(buffer: Vec<T>) {
    if !buffer.is_empty() {
        T::free().give(buffer.len(), buffer);
    }
}

/// Marks the end of a training step: buffers that the last few steps did not need go back to the system. Returns the oldest
/// step whose buffers are kept.
pub(crate) fn end_of_step() -> u64 {
    let step = STEP.fetch_add(1, Ordering::Relaxed) + 1;
    let oldest = step.saturating_sub(KEEP);
    f32::free().trim(oldest);
    f64::free().trim(oldest);
    oldest
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
