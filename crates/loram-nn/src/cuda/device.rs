//! The GPU of a process and its failures.

use super::driver::Driver;
use crate::{Error, Result};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::OnceLock;

static DRIVER: OnceLock<std::result::Result<Driver, String>> = OnceLock::new();

/// Opens the driver on the first call.
pub(super) fn opened() -> std::result::Result<&'static Driver, &'static String> {
    DRIVER.get_or_init(Driver::open).as_ref()
}

/// Waits for all work on the GPU.
pub fn synchronize() -> Result<()> {
    opened().map_err(|what| Error::NoCuda(what.clone()))?.synchronize().map_err(Error::Cuda)
}

/// The driver, once a tensor is on the GPU.
pub(crate) fn driver() -> &'static Driver {
    match opened() {
        Ok(driver) => driver,
        Err(what) => fail(what.clone()),
    }
}

struct Failure(String);

/// Failures at a chosen driver call of a thread, for tests.
#[cfg(test)]
pub(crate) mod injected {
    use std::cell::Cell;

    thread_local! {
        static LEFT: Cell<Option<usize>> = const { Cell::new(None) };
    }

    /// Runs `f`, in which driver call number `n` (from 0), allocations included, fails and all that follow.
    pub(crate) fn at<R>(n: usize, f: impl FnOnce() -> R) -> R {
        LEFT.set(Some(n));
        let done = f();
        LEFT.set(None);
        done
    }

    pub(crate) fn check() {
        match LEFT.get() {
            Some(0) => super::fail("out of memory (injected)".into()),
            left => LEFT.set(left.map(|n| n - 1)),
        }
    }
}

thread_local! {
    static CAUGHT: Cell<usize> = const { Cell::new(0) };
}

/// Unwinds to the innermost [`catch`]: operations have no results to return an error in.
pub(crate) fn fail(what: String) -> ! {
    if CAUGHT.get() == 0 {
        panic!("CUDA: {what}");
    }
    resume_unwind(Box::new(Failure(what)))
}

/// Runs `f` and returns a failure on the GPU as an error.
pub(crate) fn catch<R>(f: impl FnOnce() -> Result<R>) -> Result<R> {
    CAUGHT.set(CAUGHT.get() + 1);
    let done = catch_unwind(AssertUnwindSafe(f));
    CAUGHT.set(CAUGHT.get() - 1);
    done.unwrap_or_else(|panic| match panic.downcast::<Failure>() {
        Ok(failure) => Err(Error::Cuda(failure.0)),
        Err(other) => resume_unwind(other),
    })
}

/// Returns the result of a driver call, or unwinds.
pub(crate) fn ok<T>(result: std::result::Result<T, String>) -> T {
    #[cfg(test)]
    injected::check();
    result.unwrap_or_else(|what| fail(what))
}
