//! Where the bytes of a weight are.

use std::convert::Infallible;
use std::ops::Range;

/// The bytes of a weight, in memory or in a file. A file is read piece by piece into a buffer that stays in the cache:
/// mapping its pages would take as long as the work on them.
pub trait WeightBytes: Sync {
    /// Why bytes cannot be read.
    type Error: Send;

    /// Number of bytes.
    fn len(&self) -> usize;

    /// True when there are no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the bytes `at`: in place, or as read into `buffer`. Panics beyond the end, like a slice.
    fn fetch<'b>(&'b self, at: Range<usize>, buffer: &'b mut Vec<u8>) -> Result<&'b [u8], Self::Error>;
}

impl WeightBytes for &[u8] {
    type Error = Infallible;

    fn len(&self) -> usize {
        <[u8]>::len(self)
    }

    fn fetch<'b>(&'b self, at: Range<usize>, _: &'b mut Vec<u8>) -> Result<&'b [u8], Infallible> {
        Ok(&self[at])
    }
}
