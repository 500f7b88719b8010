//! Memory that is used again: activations of the same few sizes come and go in every step, and fresh pages cost more
//! than the arithmetic on them.

use crate::tensor::Element;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Steps for which an unused buffer is kept.
const KEEP: u64 = 4;

static STEP: AtomicU64 = AtomicU64::new(0);

/// Free buffers of one capacity, with the step in which they were last used.
type Buffers<T> = Vec<(u64, Vec<T>)>;

/// Free buffers by capacity.
pub struct Free<T> {
    by_size: Mutex<BTreeMap<usize, Buffers<T>>>,
}

impl<T> Free<T> {
    pub(crate) const fn new() -> Self {
        Free { by_size: Mutex::new(BTreeMap::new()) }
    }
}

/// Sizes are rounded up to eighths of a power of two, so that batches of nearly equal length share buffers.
fn size_class(len: usize) -> usize {
    let len = len.max(64);
    let step = (len.next_power_of_two() / 16).max(8);
    len.div_ceil(step) * step
}

/// A buffer of at least `len` elements; what is in it is left over from its last use.
pub(crate) fn take<T: Element>(len: usize) -> Vec<T> {
    let class = size_class(len);
    {
        let mut free = T::free().by_size.lock().expect("pool lock");
        let found = free.range(class..=class + class / 8).find(|(_, v)| !v.is_empty()).map(|(&k, _)| k);
        if let Some(buffer) = found.and_then(|k| free.get_mut(&k)?.pop()) {
            return buffer.1;
        }
    }
    vec![T::ZERO; class]
}

/// Give a buffer back.
pub(crate) fn give<T: Element>(buffer: Vec<T>) {
    if buffer.is_empty() {
        return;
    }
    let step = STEP.load(Ordering::Relaxed);
    let mut free = T::free().by_size.lock().expect("pool lock");
    free.entry(buffer.len()).or_default().push((step, buffer));
}

/// Mark the end of a training step: buffers that the last few steps did not need go back to the system.
pub fn end_of_step() {
    let step = STEP.fetch_add(1, Ordering::Relaxed) + 1;
    trim::<f32>(step);
    trim::<f64>(step);
}

fn trim<T: Element>(step: u64) {
    let mut free = T::free().by_size.lock().expect("pool lock");
    for list in free.values_mut() {
        list.retain(|(used, _)| used + KEEP >= step);
    }
    free.retain(|_, list| !list.is_empty());
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
