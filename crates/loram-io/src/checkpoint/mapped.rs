//! Read-only mappings of files, and the message when one cannot be read any more.
//!
//! Reading a mapped page fails with the signal SIGBUS when the file was cut short meanwhile or its disk fails. The signal
//! cannot become an error value, so a handler prints a message that was prepared when the file was mapped, and ends the
//! program with exit code 1.

use crate::{Error, Result};
use memmap2::Mmap;
use std::fs::File;
use std::ops::Deref;
use std::path::Path;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// A mapped file.
#[derive(Debug)]
pub(crate) struct Mapped {
    map: Mmap,
    region: &'static Region,
}

impl Mapped {
    pub fn open(file: &File, path: &Path) -> Result<Mapped> {
        // SAFETY: read-only mapping; that the file is not truncated while it is open is documented at `TensorRef`
        let map = unsafe { Mmap::map(file) }.map_err(|e| Error::io("map", path, e))?;
        let region = Region::add(map.as_ptr() as usize, map.len(), path);
        Ok(Mapped { map, region })
    }
}

impl Deref for Mapped {
    type Target = Mmap;

    fn deref(&self) -> &Mmap {
        &self.map
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        self.region.end.store(0, Ordering::Release);
    }
}

/// The addresses of a mapping and the message for it. Regions form a list that only grows and is never freed, so that a
/// signal handler can walk it at any time.
#[derive(Debug)]
#[cfg_attr(not(unix), expect(dead_code, reason = "there is no signal to handle"))]
struct Region {
    start: usize,
    /// 0 once the file is no longer mapped.
    end: AtomicUsize,
    message: Box<[u8]>,
    next: AtomicPtr<Region>,
}

static FIRST: AtomicPtr<Region> = AtomicPtr::new(std::ptr::null_mut());

impl Region {
    fn add(start: usize, bytes: usize, path: &Path) -> &'static Region {
        let message = format!(
            "error: {}: cannot be read any more: the file was cut short, or its disk failed, while it was in use; restore \
             it and repeat the command\n",
            path.display()
        );
        let new: &'static mut Region = Box::leak(Box::new(Region {
            start,
            end: AtomicUsize::new(start + bytes),
            message: message.into_bytes().into(),
            next: AtomicPtr::new(FIRST.load(Ordering::Acquire)),
        }));
        let new: &'static Region = new;
        let pointer = std::ptr::from_ref(new).cast_mut();
        while let Err(first) =
            FIRST.compare_exchange(new.next.load(Ordering::Relaxed), pointer, Ordering::AcqRel, Ordering::Acquire)
        {
            new.next.store(first, Ordering::Relaxed);
        }
        new
    }
}

/// Makes a mapped file that cannot be read any more end the program with a message that names it and exit code 1. Without
/// this, the signal ends it with no word. For programs, once at their start; errors of other memory stay as they are.
#[cfg(unix)]
pub fn report_lost_files() -> std::io::Result<()> {
    let action = |info: &libc::siginfo_t| {
        // SAFETY: the kernel sets the address for SIGBUS
        let at = unsafe { info.si_addr() } as usize;
        let mut next = FIRST.load(Ordering::Acquire);
        // SAFETY: regions are never freed, and are complete before they are in the list
        while let Some(region) = unsafe { next.as_ref() } {
            if (region.start..region.end.load(Ordering::Acquire)).contains(&at) {
                // SAFETY: write and _exit are async-signal-safe; the message lives as long as the program
                unsafe {
                    libc::write(2, region.message.as_ptr().cast(), region.message.len());
                    libc::_exit(1);
                }
            }
            next = region.next.load(Ordering::Acquire);
        }
        let _ = signal_hook::low_level::emulate_default_handler(libc::SIGBUS);
    };
    // SAFETY: the action neither allocates nor locks: it reads atomics and makes async-signal-safe calls
    unsafe { signal_hook_registry::register_sigaction(libc::SIGBUS, action) }.map(drop)
}

/// Without signals there is nothing to report.
#[cfg(not(unix))]
pub fn report_lost_files() -> std::io::Result<()> {
    Ok(())
}
