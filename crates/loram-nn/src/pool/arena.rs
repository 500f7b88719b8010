//! Memory of the system in few large pieces, from which buffers are cut.

use super::ranges::Ranges;
use memmap2::{MmapMut, MmapOptions};
use std::ptr::NonNull;

/// Bytes of a unit of allocation: no two buffers share a cache line or a pair that is fetched together.
const UNIT: usize = 256;

/// Steps whose pages are kept for the next ones.
const KEEP: usize = 8;

/// Bytes of addresses that a region reserves. Where pages are made when they are first touched this costs nothing, and one
/// region leaves no gaps at its end.
const RESERVE: usize = 1 << 38;

/// Bytes of a region where reserved memory is charged: other systems, and limits on the addresses of a process.
const SMALL: usize = 64 << 20;

/// A part of the arena that a buffer owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    region: usize,
    start: usize,
    units: usize,
}

/// Memory that was taken.
pub(super) struct Taken {
    pub data: NonNull<u8>,
    pub place: Place,
    /// Bytes at its beginning that may have been used before; the rest are zeros without pages.
    pub used: usize,
}

/// All regions, and what is known of their use.
pub(super) struct Arena {
    regions: Vec<Region>,
    live: usize,
    peak_live: usize,
    peak_held: usize,
}

struct Region {
    memory: MmapMut,
    ranges: Ranges,
    /// Units below have pages.
    touched: usize,
    /// The highest use of this step and of the [`KEEP`] before it.
    tops: [usize; KEEP + 1],
}

/// How many bytes buffers take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryUse {
    /// Bytes of buffers in use.
    pub live: u64,
    /// The most bytes of buffers that were in use at a time.
    pub peak_live: u64,
    /// The most bytes that were taken from the system at a time: `peak_live` and the gaps between buffers.
    pub peak_held: u64,
}

impl Arena {
    pub const fn new() -> Arena {
        Arena { regions: Vec::new(), live: 0, peak_live: 0, peak_held: 0 }
    }

    /// `bytes` > 0 of initialised memory of any contents, aligned to [`UNIT`].
    pub fn take(&mut self, bytes: usize) -> Taken {
        let units = bytes.div_ceil(UNIT);
        let found = self.regions.iter_mut().enumerate().find_map(|(i, r)| Some((i, r.take(units)?)));
        let (region, (start, used)) = found.unwrap_or_else(|| {
            self.regions.push(Region::new(units * UNIT));
            let i = self.regions.len() - 1;
            (i, self.regions[i].take(units).expect("a new region has room for what it was made for"))
        });
        self.live += units * UNIT;
        self.peak_live = self.peak_live.max(self.live);
        self.peak_held = self.peak_held.max(self.regions.iter().map(|r| r.touched * UNIT).sum());
        // SAFETY: the range lies within the region's memory
        let at = unsafe { self.regions[region].memory.as_mut_ptr().add(start * UNIT) };
        let data = NonNull::new(at).expect("mapped memory is not at 0");
        Taken { data, place: Place { region, start, units }, used: used * UNIT }
    }

    pub fn give(&mut self, place: Place) {
        self.live -= place.units * UNIT;
        self.regions[place.region].ranges.give(place.start, place.units);
    }

    /// Gives pages back to the system that the last steps did not need.
    pub fn end_of_step(&mut self) {
        self.regions.iter_mut().for_each(Region::end_of_step);
    }

    pub fn memory_use(&self) -> MemoryUse {
        let Arena { live, peak_live, peak_held, .. } = *self;
        MemoryUse { live: live as u64, peak_live: peak_live as u64, peak_held: peak_held as u64 }
    }

    /// Begins to measure the peaks anew.
    pub fn reset_peak(&mut self) {
        self.peak_live = self.live;
        self.regions.iter_mut().for_each(Region::release);
        self.peak_held = self.regions.iter().map(|r| r.touched * UNIT).sum();
    }
}

impl Region {
    /// A region of at least `bytes`.
    fn new(bytes: usize) -> Region {
        let free_addresses = cfg!(all(unix, target_pointer_width = "64"));
        let sizes = [if free_addresses { RESERVE } else { SMALL }, SMALL, bytes];
        let map = |size: usize| MmapOptions::new().len(size).no_reserve_swap().map_anon();
        let mapped = sizes.into_iter().map(|size| map(size.max(bytes))).find(Result::is_ok);
        let Some(Ok(memory)) = mapped else { panic!("out of memory: the system refused {bytes} bytes") };
        // fewer page faults and misses of the TLB; a system without large pages goes on with small ones
        #[cfg(target_os = "linux")]
        let _ = memory.advise(memmap2::Advice::HugePage);
        Region { ranges: Ranges::new(memory.len() / UNIT), memory, touched: 0, tops: [0; KEEP + 1] }
    }

    /// The first of so many units, and how many of them may have been used before; the rest are zeros.
    fn take(&mut self, units: usize) -> Option<(usize, usize)> {
        let start = self.ranges.take(units)?;
        let used = self.touched.saturating_sub(start).min(units);
        let top = self.ranges.top();
        self.touched = self.touched.max(top);
        self.tops[0] = self.tops[0].max(top);
        Some((start, used))
    }

    fn end_of_step(&mut self) {
        let needed = self.tops.iter().copied().max().unwrap_or(0);
        self.release_above(needed);
        self.tops.copy_within(0..KEEP, 1);
        self.tops[0] = self.ranges.top();
    }

    /// Gives back all pages above the highest range in use.
    fn release(&mut self) {
        self.tops = [self.ranges.top(); KEEP + 1];
        self.release_above(self.ranges.top());
    }

    fn release_above(&mut self, units: usize) {
        if units >= self.touched {
            return;
        }
        #[cfg(unix)]
        {
            /// Whole pages, of the large kind, so that none is split.
            const PAGE: usize = 2 << 20;
            let base = self.memory.as_ptr() as usize;
            let page = |units: usize| ((base + units * UNIT).next_multiple_of(PAGE) - base).min(self.memory.len());
            let (from, to) = (page(units), page(self.touched));
            if from >= to {
                return;
            }
            // SAFETY: private anonymous memory above every range in use; it reads as zeros afterwards
            let done =
                unsafe { self.memory.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, from, to - from) };
            if done.is_ok() {
                self.touched = from / UNIT;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_apart_and_pages_go_back() {
        let mut arena = Arena::new();
        let Taken { data: a, place: first, used: 0 } = arena.take(1) else { panic!("fresh memory was used") };
        let Taken { data: b, place: second, used: 0 } = arena.take(3 << 20) else { panic!("fresh memory was used") };
        assert!(b.as_ptr() as usize - a.as_ptr() as usize >= UNIT && (b.as_ptr() as usize).is_multiple_of(UNIT));
        // SAFETY: own memory
        unsafe { b.as_ptr().write_bytes(7, 3 << 20) };
        assert_eq!(arena.memory_use().live, (UNIT + (3 << 20)) as u64);
        arena.give(second);
        for _ in 0..KEEP + 2 {
            arena.end_of_step();
        }
        let Taken { data: c, place: third, used } = arena.take(3 << 20);
        assert_eq!(c, b);
        // what is not counted as used must be zeros, whatever was there before
        // SAFETY: own memory
        let rest = unsafe { std::slice::from_raw_parts(c.as_ptr().add(used), (3 << 20) - used) };
        assert!(rest.iter().all(|&x| x == 0) && (used < 3 << 20 || !cfg!(unix)), "{used}");
        if cfg!(unix) {
            // SAFETY: own memory; its last page was given back, and comes as zeros
            assert_eq!(unsafe { c.as_ptr().add((3 << 20) - 1).read() }, 0);
        }
        arena.give(first);
        arena.give(third);
        assert_eq!(arena.memory_use().live, 0);
        assert_eq!(arena.memory_use().peak_live, (UNIT + (3 << 20)) as u64);
    }

    #[test]
    fn a_second_region_takes_what_the_first_has_no_room_for() {
        let mut arena = Arena::new();
        let a = arena.take(1 << 20).place;
        let region = &mut arena.regions[0];
        region.ranges = Ranges::new(region.ranges.top());
        let size = region.ranges.take((1 << 20) / UNIT);
        assert_eq!(size, Some(0));
        let b = arena.take(1 << 20).place;
        assert_eq!((a.region, b.region), (0, 1));
        arena.give(b);
        arena.give(a);
        let again = arena.take(1 << 20);
        assert_eq!((again.place, again.used), (a, 1 << 20), "memory that was given back counts as used");
        arena.give(again.place);
        assert_eq!(arena.memory_use().live, 0);
    }
}
