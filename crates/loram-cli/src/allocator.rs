//! The program's allocator: mimalloc, which keeps freed pages (returning and clearing them took a sixth of a training step),
//! with the memory budgets of the library.

use loram_io::memory_budget::changed;
use mimalloc::MiMalloc;
use std::alloc::{GlobalAlloc, Layout};

pub struct Allocator;

fn count(bytes: isize) {
    if let Some(message) = changed(bytes) {
        // formatting or unwinding may allocate
        for part in ["error: ", message, "\n"] {
            // SAFETY: a valid buffer; the descriptor may be closed, which is an error that nobody needs
            unsafe { libc::write(2, part.as_ptr().cast(), part.len()) };
        }
        // SAFETY: ends the process
        unsafe { libc::_exit(2) };
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
