//! Arguments of the driver: addresses, arguments and grids of kernels, matrix products.

use crate::compute::Compute;

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

/// C (m × n) = beta·C + alpha·op(A)·op(B), row-major, C without gaps; sums in f32.
#[derive(Debug)]
pub(crate) struct Product {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub alpha: f32,
    pub beta: f32,
    pub a: Address,
    /// Elements from one row of A, as it lies, to the next.
    pub a_pitch: usize,
    pub a_transposed: bool,
    pub b: Address,
    pub b_pitch: usize,
    pub b_transposed: bool,
    pub c: Address,
    /// Number type of A and B.
    pub input: Compute,
    /// Number type of C.
    pub output: Compute,
}
