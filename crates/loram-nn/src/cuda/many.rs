//! One launch for many tensors, where each is too small for a launch of its own: adapters have hundreds of factors.

use super::call::Grid;
use super::launch::launch;
use super::memory::Buffer;
use crate::adamw::AdamWStep;
use crate::compute::Compute;
use crate::tensor::Tensor;

const THREADS: usize = 256;

/// A table of a kernel in many.cu: `WORDS` words for each tensor, and the length of the longest.
struct AddressTable<const WORDS: usize> {
    rows: Vec<[u64; WORDS]>,
    grid: Grid,
}

impl<const WORDS: usize> AddressTable<WORDS> {
    /// For tensors of these lengths; `row(i, parts)` is what the kernel gets for tensor i, which `parts` blocks share.
    fn new(lengths: &[usize], row: impl Fn(usize, usize) -> [u64; WORDS]) -> AddressTable<WORDS> {
        let longest = lengths.iter().copied().max().unwrap_or(0);
        // two pieces of eight elements for a thread
        let parts = longest.div_ceil(THREADS * 16).clamp(1, 1024);
        let rows = (0..lengths.len()).map(|i| row(i, parts)).collect();
        AddressTable { rows, grid: Grid { blocks: (parts, lengths.len()), threads: THREADS, shared: 0 } }
    }

    fn upload(&self) -> Buffer {
        Buffer::of_numbers(bytemuck::cast_slice(self.rows.as_flattened()))
    }
}

fn in_place(tensors: &[&mut Tensor]) -> AddressTable<2> {
    let lengths: Vec<usize> = tensors.iter().map(|t| t.len()).collect();
    AddressTable::new(&lengths, |i, _| [tensors[i].address().0, lengths[i] as u64])
}

pub(crate) fn zero(tensors: &[&mut Tensor]) {
    let table = in_place(tensors);
    let rows = table.upload();
    launch!("zero_many", table.grid; rows.address());
}

pub(crate) fn scale(tensors: &[&mut Tensor], factor: f64) {
    let table = in_place(tensors);
    let rows = table.upload();
    launch!("scale_many", table.grid; rows.address(), factor as f32);
}

/// The tensors, which are in f32, in bf16.
pub(crate) fn narrow(tensors: &[&Tensor]) -> Vec<Tensor> {
    let out: Vec<_> = tensors.iter().map(|t| Tensor::scratch(Compute::CudaBf16, t.rows(), t.cols())).collect();
    let lengths: Vec<usize> = out.iter().map(Tensor::len).collect();
    let table = AddressTable::new(&lengths, |i, _| [tensors[i].address().0, out[i].address().0, lengths[i] as u64]);
    let rows = table.upload();
    launch!("narrow_many", table.grid; rows.address());
    out
}

/// Σ x² of every tensor, read back at once.
pub(crate) fn sum_squares(tensors: &[&Tensor]) -> Vec<f64> {
    let lengths: Vec<usize> = tensors.iter().map(|t| t.len()).collect();
    let parts = AddressTable::new(&lengths, |_, _| [0; 0]).grid.blocks.0;
    let sums = Tensor::scratch(Compute::CudaF32, tensors.len(), parts);
    let table = AddressTable::new(&lengths, |i, parts| {
        [tensors[i].address().0, sums.buffer().at(i * parts).0, lengths[i] as u64]
    });
    let rows = table.upload();
    launch!("sum_squares_many", table.grid; rows.address());
    sums.to_f32_vec().chunks_exact(parts).map(|p| p.iter().map(|&x| f64::from(x)).sum()).collect()
}

pub(crate) fn adamw(steps: &[AdamWStep<'_>], step: u64) {
    let lengths: Vec<usize> = steps.iter().map(|s| s.p.len()).collect();
    let t = step as f64;
    let table = AddressTable::new(&lengths, |i, _| {
        let (s, how) = (&steps[i], &steps[i].how);
        let scalars = [
            1.0 - how.lr * how.weight_decay,
            1.0 - how.beta1,
            how.beta2,
            1.0 - how.beta2,
            how.lr / (1.0 - how.beta1.powf(t)),
            (1.0 - how.beta2.powf(t)).sqrt(),
            how.eps,
            0.0,
        ];
        let [a, b, c, d]: [u64; 4] = bytemuck::cast(scalars.map(|x| x as f32));
        let [p, g, m, v] = [&*s.p, s.g, &*s.m, &*s.v].map(|t| t.address().0);
        [p, g, m, v, lengths[i] as u64, a, b, c, d]
    });
    let rows = table.upload();
    launch!("adamw_many", table.grid; rows.address());
}
