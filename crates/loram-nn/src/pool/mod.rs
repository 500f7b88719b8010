//! Memory of tensors on the CPU. Buffers are cut from one region of addresses and joined again when they are free, so that
//! steps of any lengths use the same pages: a run holds what its largest step needs, and fresh pages, which cost more
//! than the arithmetic on them, are rare.

mod arena;
mod ranges;

pub use arena::MemoryUse;
use arena::{Arena, Place, Taken};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard};

static ARENA: Mutex<Arena> = Mutex::new(Arena::new());

fn arena() -> MutexGuard<'static, Arena> {
    // a panic under the lock leaves it usable: each call changes the books last
    ARENA.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// A number type of which every pattern of bits is a value.
pub trait Pooled: bytemuck::Pod + Send + Sync {}
impl Pooled for f32 {}
impl Pooled for f64 {}

/// Elements in pooled memory.
pub struct Buffer<T: Pooled> {
    data: NonNull<T>,
    len: usize,
    place: Option<Place>,
    owns: PhantomData<T>,
}

// SAFETY: a buffer is the only owner of its memory, as a `Vec` is
unsafe impl<T: Pooled> Send for Buffer<T> {}
// SAFETY: as above
unsafe impl<T: Pooled> Sync for Buffer<T> {}

impl<T: Pooled> Buffer<T> {
    /// `len` elements with the contents of an earlier use.
    pub(crate) fn new(len: usize) -> Buffer<T> {
        if len == 0 {
            return Buffer { data: NonNull::dangling(), len: 0, place: None, owns: PhantomData };
        }
        let Taken { data, place, .. } = arena().take(len * size_of::<T>());
        Buffer { data: data.cast(), len, place: Some(place), owns: PhantomData }
    }

    /// `len` zeros. Pages that nothing has used are zero already, and cost nothing until something is written to them.
    pub(crate) fn zeros(len: usize) -> Buffer<T> {
        if len == 0 {
            return Buffer::new(0);
        }
        let Taken { data, place, used } = arena().take(len * size_of::<T>());
        let mut buffer: Buffer<T> = Buffer { data: data.cast(), len, place: Some(place), owns: PhantomData };
        let used = used.div_ceil(size_of::<T>()).min(len);
        buffer[..used].fill(T::zeroed());
        buffer
    }
}

impl<T: Pooled> Drop for Buffer<T> {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            arena().give(place);
        }
    }
}

impl<T: Pooled> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: own memory of that many elements, aligned and initialised; all patterns of bits are values
        unsafe { std::slice::from_raw_parts(self.data.as_ptr(), self.len) }
    }
}

impl<T: Pooled> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and borrowed mutably
        unsafe { std::slice::from_raw_parts_mut(self.data.as_ptr(), self.len) }
    }
}

impl<T: Pooled> std::fmt::Debug for Buffer<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Buffer").field("len", &self.len).finish_non_exhaustive()
    }
}

/// Marks the end of a step: pages that the last few steps did not need go back to the system.
pub(crate) fn end_of_step() {
    arena().end_of_step();
}

/// Returns how much memory tensors on the CPU take in this process.
pub fn memory_use() -> MemoryUse {
    arena().memory_use()
}

/// Sets the peaks of [`memory_use`] to what is in use now, and gives unused pages back to the system.
pub fn reset_memory_peak() {
    arena().reset_peak();
}
