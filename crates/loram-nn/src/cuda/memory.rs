//! The GPU's memory: buffers that are used again, and what is kept there for longer.

use super::call::Address;
use super::device::{driver, fail, ok};
use super::free::{Free, size_class};
use crate::compute::Compute;
use half::bf16;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Memory that nothing uses. One stream runs all work in order, so it may be used again at once.
static FREE: Free<Block> = Free::new();

static HELD: AtomicU64 = AtomicU64::new(0);
static PEAK: AtomicU64 = AtomicU64::new(0);

/// The most bytes that were held at a time.
pub(super) fn peak() -> u64 {
    PEAK.load(Ordering::Relaxed)
}

/// Memory of the driver.
struct Block {
    address: Address,
    bytes: usize,
}

impl Block {
    fn new(bytes: usize) -> Block {
        #[cfg(test)]
        super::device::injected::check();
        if let Some(block) = FREE.take(bytes) {
            return block;
        }
        let address = driver().allocate(bytes).or_else(|_| {
            // what lies about in other sizes may be just what is missing
            FREE.clear();
            driver().allocate(bytes)
        });
        match address {
            Ok(address) => {
                let held = HELD.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
                PEAK.fetch_max(held, Ordering::Relaxed);
                Block { address, bytes }
            }
            Err(what) => fail(format!(
                "{what} ({} more bytes are needed, {} are held): set gradient_checkpointing: true, or lower \
                 per_device_train_batch_size or max_length",
                bytes,
                HELD.load(Ordering::Relaxed)
            )),
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        HELD.fetch_sub(self.bytes as u64, Ordering::Relaxed);
        driver().free(self.address);
    }
}

/// Marks the end of a step: frees memory that the last few steps have not used.
pub(crate) fn end_of_step() {
    FREE.end_of_step();
}

/// The elements of a tensor.
#[derive(Debug)]
pub struct Buffer {
    address: Address,
    /// Capacity of the block, which may exceed the request.
    bytes: usize,
    compute: Compute,
}

/// Bytes of an element.
pub(crate) fn width(compute: Compute) -> usize {
    if compute == Compute::CudaBf16 { 2 } else { 4 }
}

impl Buffer {
    /// `len` elements of any value.
    pub(crate) fn new(compute: Compute, len: usize) -> Buffer {
        if len == 0 {
            return Buffer { address: Address::NULL, bytes: 0, compute };
        }
        let block = Block::new(size_class((len * width(compute)).max(512)));
        let buffer = Buffer { address: block.address, bytes: block.bytes, compute };
        // the pool gets it back from the buffer
        std::mem::forget(block);
        buffer
    }

    /// Numbers for kernels: ids, positions, tiles.
    pub(crate) fn of_numbers(numbers: &[u32]) -> Buffer {
        let buffer = Buffer::new(Compute::CudaF32, numbers.len());
        buffer.upload(bytemuck::cast_slice(numbers));
        buffer
    }

    pub(crate) fn compute(&self) -> Compute {
        self.compute
    }

    pub(crate) fn address(&self) -> Address {
        self.address
    }

    /// The address of element `at`.
    pub(crate) fn at(&self, at: usize) -> Address {
        Address(self.address.0 + (at * width(self.compute)) as u64)
    }

    /// Elements that fit.
    pub(crate) fn capacity(&self) -> usize {
        self.bytes / width(self.compute)
    }

    /// Overwrites the first bytes.
    pub(crate) fn upload(&self, from: &[u8]) {
        self.upload_at(0, from);
    }

    /// Overwrites bytes from element `at` on.
    pub(crate) fn upload_at(&self, at: usize, from: &[u8]) {
        assert!(at * width(self.compute) + from.len() <= self.bytes, "upload beyond the buffer");
        if !from.is_empty() {
            ok(driver().upload(self.at(at), from));
        }
    }

    /// Waits for the work so far and reads the first bytes.
    pub(crate) fn download(&self, to: &mut [u8]) {
        assert!(to.len() <= self.bytes, "download beyond the buffer");
        if !to.is_empty() {
            ok(driver().download(self.address, to));
        }
    }

    /// Copies `len` elements of `from` to element `at`.
    pub(crate) fn copy(&self, at: usize, from: &Buffer, len: usize) {
        assert_eq!(self.compute, from.compute, "copy between number types");
        if len > 0 {
            ok(driver().copy(self.at(at), from.address, len * width(self.compute)));
        }
    }

    /// Sets the first `len` elements to 0.
    pub(crate) fn zero(&self, len: usize) {
        if len > 0 {
            ok(driver().zero(self.address, len * width(self.compute)));
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.bytes > 0 {
            FREE.give(self.bytes, Block { address: self.address, bytes: self.bytes });
        }
    }
}

/// The layout of the sequences of a pass, in the form that kernels read; uploaded once for a pass, since all layers of a
/// model tile sequences alike.
#[derive(Debug, Default)]
pub(crate) struct Layout {
    pub forward_tiles: OnceLock<Buffer>,
    pub query_tiles: OnceLock<Buffer>,
    pub key_tiles: OnceLock<Buffer>,
    pub positions: OnceLock<Buffer>,
}

/// Elements that are converted on their way to the GPU at a time.
pub(super) const PIECE: usize = 1 << 22;

/// Uploads values from element `at` on, in the buffer's number type.
pub(crate) fn upload_f32(buffer: &Buffer, at: usize, values: &[f32]) {
    if buffer.compute() != Compute::CudaBf16 {
        return buffer.upload_at(at, bytemuck::cast_slice(values));
    }
    for (i, piece) in values.chunks(PIECE).enumerate() {
        let narrow: Vec<bf16> = piece.iter().map(|&x| bf16::from_f32(x)).collect();
        buffer.upload_at(at + i * PIECE, bytemuck::cast_slice(&narrow));
    }
}
