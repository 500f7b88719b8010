//! Quantised weights that stay packed in the GPU's memory, and are written in bf16 for each product (kernels/packed.cu).

use super::call::Grid;
use super::launch::launch;
use super::memory::Buffer;
use crate::compute::Compute;
use crate::packed::PACKED_BLOCKS;
use crate::tensor::Tensor;
use loram_core::{RowOrder, StoredWeight, ValueType};

/// A weight (rows, cols) in its stored format, in the GPU's memory.
#[derive(Debug)]
pub(crate) struct Packed {
    rows: usize,
    cols: usize,
    codes: Buffer,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// ggml's blocks, by name; rows of heads of so many rows, or in order for 0.
    Blocks(&'static str, usize),
    /// NF4 or FP4: the levels and then the scales of blocks of so many values.
    FourBit { tables: Buffer, block: usize, values: ValueType },
}

impl Packed {
    /// Uploads a weight that [`packed_bytes`](crate::packed_bytes) has a number for.
    pub fn upload(w: StoredWeight<'_>) -> Packed {
        let kind = match w.format().four_bit() {
            Some(four_bit) => {
                let scales = (0..w.len().div_ceil(four_bit.block)).map(|block| four_bit.scales.get(block));
                let tables: Vec<f32> = four_bit.kind.levels().iter().copied().chain(scales).collect();
                let buffer = Buffer::new(Compute::CudaF32, tables.len());
                buffer.upload(bytemuck::cast_slice(&tables));
                Kind::FourBit { tables: buffer, block: four_bit.block, values: four_bit.values }
            }
            None => {
                let name =
                    PACKED_BLOCKS.into_iter().find(|name| *name == w.format().name()).expect("callers ask before");
                let RowOrder::Interleaved { head_dim } = w.order() else {
                    return Packed::of_bytes(w, Kind::Blocks(name, 0));
                };
                Kind::Blocks(name, head_dim)
            }
        };
        Packed::of_bytes(w, kind)
    }

    fn of_bytes(w: StoredWeight<'_>, kind: Kind) -> Packed {
        let codes = Buffer::new(Compute::CudaF32, w.bytes().len().div_ceil(4));
        codes.upload(w.bytes());
        Packed { rows: w.rows(), cols: w.cols(), codes, kind }
    }

    /// The weight in bf16: the CPU's values, rounded.
    pub fn unpack(&self) -> Tensor {
        let out = Tensor::scratch(Compute::CudaBf16, self.rows, self.cols);
        let (n, grid) = (out.len(), Grid::eights(out.len()));
        match &self.kind {
            Kind::Blocks(name, head) => launch!(
                format!("unpack_{name}"), grid;
                self.codes.address(), out.address(), self.cols as i32, *head as i32, n as i64
            ),
            Kind::FourBit { tables, block, values } => launch!(
                "unpack_four_bit", grid;
                self.codes.address(), tables.at(16), tables.address(), out.address(), *block as i32,
                i32::from(*values == ValueType::F16), n as i64
            ),
        }
        out
    }
}
