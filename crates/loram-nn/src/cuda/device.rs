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
pub fn catch<R>(f: impl FnOnce() -> Result<R>) -> Result<R> {
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
    result.unwrap_or_else(|what| fail(what))
}
