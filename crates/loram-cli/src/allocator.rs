//! The program's allocator: mimalloc, which keeps freed pages (returning and clearing them took a sixth of a training step),
//! with the memory budgets of the library.

use loram_io::memory_budget::changed;
use mimalloc::MiMalloc;
use std::alloc::{GlobalAlloc, Layout};
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

pub struct Allocator;

/// Set when a budget is exceeded, so that ending the program is not counted.
static ENDING: AtomicBool = AtomicBool::new(false);

fn count(bytes: isize) {
    if let Some(message) = changed(bytes)
        && !ENDING.swap(true, Ordering::Relaxed)
    {
        // unwinding out of an allocation is not allowed
        let _ = ["error: ", message, "\n"].map(|part| std::io::stderr().write_all(part.as_bytes()));
        std::process::exit(2);
    }
}

// a layout has at most isize::MAX bytes
fn size(bytes: usize) -> isize {
    bytes as isize
}

// SAFETY: all memory is mimalloc's, with the layouts as they come
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(size(layout.size()));
        // SAFETY: the caller's promise
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(size(layout.size()));
        // SAFETY: the caller's promise
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(-size(layout.size()));
        // SAFETY: the caller's promise
        unsafe { MiMalloc.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(size(new_size) - size(layout.size()));
        // SAFETY: the caller's promise
        unsafe { MiMalloc.realloc(memory, layout, new_size) }
    }
}
