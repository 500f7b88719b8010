//! Cutting slices into disjoint parts and working on them with rayon's threads.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::Range;

use super::Real;

/// Elements of cheap arithmetic (≈ 32 µs of it) below which handing work to another thread costs more than it gains.
pub const GRAIN: usize = 32 * 1024;

/// Something that falls into rows and can be cut between two of them.
pub trait Part: Send + Sized {
    /// The first `rows` rows, and the others.
    fn cut(self, rows: usize) -> (Self, Self);
}

/// A slice read as rows of the given width.
#[derive(Clone, Copy)]
pub struct Rows<'a, T>(pub &'a [T], pub usize);

/// A mutable slice read as rows of the given width.
pub struct RowsMut<'a, T>(pub &'a mut [T], pub usize);

impl<T: Sync> Part for Rows<'_, T> {
    fn cut(self, rows: usize) -> (Self, Self) {
        let (a, b) = self.0.split_at(rows * self.1);
        (Rows(a, self.1), Rows(b, self.1))
    }
}

impl<T: Send> Part for RowsMut<'_, T> {
    fn cut(self, rows: usize) -> (Self, Self) {
        let (a, b) = self.0.split_at_mut(rows * self.1);
        (RowsMut(a, self.1), RowsMut(b, self.1))
    }
}

impl<P: Part> Part for Option<P> {
    fn cut(self, rows: usize) -> (Self, Self) {
        match self.map(|p| p.cut(rows)) {
            Some((a, b)) => (Some(a), Some(b)),
            None => (None, None),
        }
    }
}

macro_rules! tuple_part {
    ($($t:ident $i:tt),+) => {
        impl<$($t: Part),+> Part for ($($t,)+) {
            fn cut(self, rows: usize) -> (Self, Self) {
                let halves = ($(self.$i.cut(rows),)+);
                // each half is a pair: gather the firsts and the seconds
                let ($($t,)+) = halves;
                (($($t.0,)+), ($($t.1,)+))
            }
        }
    };
}

#[allow(non_snake_case)]
mod tuples {
    use super::Part;
    tuple_part!(A 0, B 1);
    tuple_part!(A 0, B 1, C 2);
    tuple_part!(A 0, B 1, C 2, D 3);
    tuple_part!(A 0, B 1, C 2, D 3, E 4);
    tuple_part!(A 0, B 1, C 2, D 3, E 4, F 5);
}

/// Call `f` on disjoint runs of rows that together are all `rows` rows of `part`, on several threads when the work is
/// worth it. `width` is the number of elements of work in a row; the cut depends on the number of threads, so `f` must
/// treat every row by itself.
pub fn for_rows<P: Part>(part: P, rows: usize, width: usize, f: impl Fn(P, Range<usize>) + Sync) {
    if rows == 0 {
        return;
    }
    let threads = rayon::current_num_threads();
    let least = (GRAIN / width.max(1)).max(1);
    if threads == 1 || rows < 2 * least {
        return f(part, 0..rows);
    }
    halve(part, 0..rows, least.max(rows.div_ceil(4 * threads)), &f);
}

fn halve<P: Part>(part: P, rows: Range<usize>, grain: usize, f: &(impl Fn(P, Range<usize>) + Sync)) {
    if rows.len() <= grain {
        return f(part, rows);
    }
    let half = rows.len().div_ceil(grain) / 2 * grain;
    let middle = rows.start + half;
    let (a, b) = part.cut(half);
    rayon::join(|| halve(a, rows.start..middle, grain, f), || halve(b, middle..rows.end, grain, f));
}

/// Call `f(i)` once for every `i` below `n`, on all threads; one thread takes at least `grain` of them in a row.
pub fn for_units(n: usize, grain: usize, f: impl Fn(usize) + Sync) {
    if n <= grain || rayon::current_num_threads() == 1 {
        return (0..n).for_each(f);
    }
    units(0..n, grain.max(1), &f);
}

fn units(range: Range<usize>, grain: usize, f: &(impl Fn(usize) + Sync)) {
    if range.len() <= grain {
        return range.for_each(f);
    }
    let middle = range.start + range.len() / 2;
    rayon::join(|| units(range.start..middle, grain, f), || units(middle..range.end, grain, f));
}

/// A mutable slice that several threads write to in places that do not overlap (blocks of columns, heads).
pub struct Shared<'a, T> {
    ptr: *mut T,
    len: usize,
    owner: PhantomData<&'a mut [T]>,
}

// SAFETY: access goes through the unsafe `slice`, whose callers promise disjoint ranges
unsafe impl<T: Send> Sync for Shared<'_, T> {}
// SAFETY: as above
unsafe impl<T: Send> Send for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    /// Take the slice for as long as threads share it.
    pub fn new(data: &'a mut [T]) -> Self {
        Shared { ptr: data.as_mut_ptr(), len: data.len(), owner: PhantomData }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True for a slice of nothing.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Elements `range`, mutably.
    ///
    /// # Safety
    /// No other reference to any of these elements may live at the same time.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn slice(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "range {range:?} of {} elements", self.len);
        // SAFETY: in bounds (checked), unaliased (caller)
        unsafe { std::slice::from_raw_parts_mut(self.ptr.add(range.start), range.end - range.start) }
    }

    /// The address of element `at`, for strided writes.
    #[inline(always)]
    pub fn ptr(&self, at: usize) -> *mut T {
        assert!(at <= self.len, "element {at} of {}", self.len);
        // SAFETY: in bounds or one past the end
        unsafe { self.ptr.add(at) }
    }
}

/// Memory of a thread that kernels use between calls, aligned to cache lines.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u64; 8]);

thread_local! {
    static SCRATCH: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
}

/// Call `f` with `len` elements of this thread's scratch memory (contents undefined; not to be nested, and not to be held
/// across a call that may run other work on this thread).
pub fn with_scratch<T: Real, R>(len: usize, f: impl FnOnce(&mut [T]) -> R) -> R {
    SCRATCH.with_borrow_mut(|lines| {
        let need = (len * size_of::<T>()).div_ceil(size_of::<Line>());
        if lines.len() < need {
            lines.resize(need, Line([0; 8]));
        }
        // SAFETY: T is plain data, the memory is initialised, large enough and more strictly aligned
        f(unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast::<T>(), len) })
    })
}
