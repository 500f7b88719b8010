//! The GPU of a process, its failures, and kernel launches.

use super::driver::Driver;
use crate::{Error, Result};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::OnceLock;

static DRIVER: OnceLock<std::result::Result<Driver, String>> = OnceLock::new();

/// A GPU.
#[derive(Debug, Clone, PartialEq)]
pub struct Info {
    name: String,
    total: u64,
    free: u64,
    peak: u64,
}

impl Info {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Bytes of its memory.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Bytes that are free.
    pub fn free(&self) -> u64 {
        self.free
    }

    /// The most bytes that this process has held.
    pub fn peak(&self) -> u64 {
        self.peak
    }
}

fn opened() -> std::result::Result<&'static Driver, &'static String> {
    DRIVER.get_or_init(Driver::open).as_ref()
}

/// Returns the GPU that the process uses. The error says why there is none.
pub fn info() -> Result<Info> {
    let driver = opened().map_err(|what| Error::NoCuda(what.clone()))?;
    let (free, total) = driver.memory().map_err(Error::Cuda)?;
    Ok(Info { name: driver.name().to_string(), total, free, peak: super::memory::peak() })
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

/// An argument of a kernel: its value, and the letter of its type.
pub(crate) trait Argument {
    const KIND: u8;
    /// The bits, in the low bytes of a word.
    fn bits(&self) -> u64;
}

macro_rules! argument {
    ($t:ty, $kind:literal, $x:ident => $bits:expr) => {
        impl Argument for $t {
            const KIND: u8 = $kind;
            fn bits(&self) -> u64 {
                let $x = *self;
                $bits
            }
        }
    };
}
argument!(i32, b'i', x => u64::from(x as u32));
argument!(u32, b'u', x => u64::from(x));
argument!(i64, b'l', x => x as u64);
argument!(u64, b'U', x => x);
argument!(f32, b'f', x => u64::from(x.to_bits()));

/// A place in the GPU's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address(pub u64);

impl Address {
    pub const NULL: Address = Address(0);
}

argument!(Address, b'p', x => x.0);

/// How a kernel is cut into threads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Grid {
    pub blocks: (usize, usize),
    pub threads: usize,
    /// Bytes of shared memory that the kernel asks for at launch.
    pub shared: usize,
}

impl Grid {
    /// A thread for each of `n` elements.
    pub fn elements(n: usize) -> Grid {
        Grid { blocks: (n.div_ceil(256), 1), threads: 256, shared: 0 }
    }

    /// A thread for every eight of `n` elements.
    pub fn eights(n: usize) -> Grid {
        Grid::elements(n.div_ceil(8))
    }

    /// A block for each row, with a thread for each of `cols` elements while there are not too many.
    pub fn rows(rows: usize, cols: usize) -> Grid {
        Grid { blocks: (rows, 1), threads: cols.next_multiple_of(32).clamp(32, 256), shared: 0 }
    }

    /// A block for each row, with a thread for every eight of `cols` elements.
    pub fn rows_of_eights(rows: usize, cols: usize) -> Grid {
        Grid::rows(rows, cols.div_ceil(8))
    }

    /// Returns true when there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.blocks.0 == 0 || self.blocks.1 == 0
    }
}

/// Launches a kernel by name: `launch!("rope_f32", grid; x, positions, 3i32)`.
macro_rules! launch {
    ($name:expr, $grid:expr; $($argument:expr),+ $(,)?) => {{
        fn kind<A: $crate::cuda::device::Argument>(_: &A) -> u8 {
            A::KIND
        }
        let grid: $crate::cuda::device::Grid = $grid;
        if !grid.is_empty() {
            let kinds = [$(kind(&$argument)),+];
            let mut values = [$($crate::cuda::device::Argument::bits(&$argument)),+];
            let name = $name;
            let name: &str = name.as_ref();
            $crate::cuda::profile::span(|| name.to_string(), || {
                $crate::cuda::device::ok($crate::cuda::device::driver().launch(name, grid, &mut values, &kinds));
            });
        }
    }};
}
pub(crate) use launch;
