//! Matrices of activations and parameters.

use crate::compute::Compute;
use crate::cuda::{self, on_gpu};
use crate::kernels::Real;
use crate::kernels::gemm::{View, ViewMut};
use crate::pool;

/// A number type that tensors can hold.
pub trait Element: Real + pool::Pooled {
    #[doc(hidden)]
    fn wrap(buffer: pool::Buffer<Self>) -> Storage;
    #[doc(hidden)]
    fn slice(storage: &Storage) -> &[Self];
    #[doc(hidden)]
    fn slice_mut(storage: &mut Storage) -> &mut [Self];
}

/// The memory of a tensor, by number type.
#[derive(Debug)]
#[doc(hidden)]
pub enum Storage {
    F32(pool::Buffer<f32>),
    F64(pool::Buffer<f64>),
    Cuda(cuda::Buffer),
}

macro_rules! element {
    ($t:ty, $variant:ident) => {
        impl Element for $t {
            fn wrap(buffer: pool::Buffer<$t>) -> Storage {
                Storage::$variant(buffer)
            }
            fn slice(storage: &Storage) -> &[$t] {
                match storage {
                    Storage::$variant(v) => v,
                    _ => panic!("tensor does not hold {}", <$t as Real>::NAME),
                }
            }
            fn slice_mut(storage: &mut Storage) -> &mut [$t] {
                match storage {
                    Storage::$variant(v) => v,
                    _ => panic!("tensor does not hold {}", <$t as Real>::NAME),
                }
            }
        }
    };
}
element!(f32, F32);
element!(f64, F64);

/// Runs a block with the type alias `$T` set to the number type of a tensor of the CPU, or the expression after `gpu:` for
/// one of the GPU. This is where operations find their kernels.
macro_rules! typed {
    ($tensor:expr, $T:ident, $body:expr) => {
        $crate::tensor::typed!($tensor, $T, $body, gpu: panic!("this operation works on tensors of the CPU"))
    };
    ($tensor:expr, $T:ident, $body:expr, gpu: $gpu:expr) => {{
        #[allow(unused_imports)]
        use $crate::kernels::Real as _;
        match $tensor.compute() {
            $crate::compute::Compute::F32 => {
                type $T = f32;
                $body
            }
            $crate::compute::Compute::F64 => {
                type $T = f64;
                $body
            }
            $crate::compute::Compute::CudaF32 | $crate::compute::Compute::CudaBf16 => $crate::cuda::on_gpu!($gpu),
        }
    }};
}
pub(crate) use typed;

/// A row-major matrix `rows × cols` in pooled memory of the CPU or GPU. A vector has one row.
#[derive(Debug)]
pub struct Tensor {
    rows: usize,
    cols: usize,
    storage: Storage,
}

impl Tensor {
    /// A matrix whose elements are unspecified (left over from an earlier use): for outputs that are written whole.
    pub(crate) fn scratch(compute: Compute, rows: usize, cols: usize) -> Tensor {
        let storage = match compute {
            Compute::F32 => f32::wrap(pool::Buffer::new(rows * cols)),
            Compute::F64 => f64::wrap(pool::Buffer::new(rows * cols)),
            Compute::CudaF32 | Compute::CudaBf16 => on_gpu!(Storage::Cuda(cuda::Buffer::new(compute, rows * cols))),
        };
        Tensor { rows, cols, storage }
    }

    /// A matrix of zeros.
    pub(crate) fn zeros(compute: Compute, rows: usize, cols: usize) -> Tensor {
        let storage = match compute {
            Compute::F32 => f32::wrap(pool::Buffer::zeros(rows * cols)),
            Compute::F64 => f64::wrap(pool::Buffer::zeros(rows * cols)),
            Compute::CudaF32 | Compute::CudaBf16 => on_gpu!({
                let buffer = cuda::Buffer::new(compute, rows * cols);
                buffer.zero(rows * cols);
                Storage::Cuda(buffer)
            }),
        };
        Tensor { rows, cols, storage }
    }

    /// A matrix of the given row-major values, converted to the number type.
    pub(crate) fn from_f32(compute: Compute, rows: usize, cols: usize, values: &[f32]) -> Tensor {
        assert_eq!(values.len(), rows * cols, "values of a {rows}×{cols} matrix");
        let mut t = Tensor::scratch(compute, rows, cols);
        t.copy_from_f32(values);
        t
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.rows * self.cols
    }

    /// True for a matrix without elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number type and place.
    pub fn compute(&self) -> Compute {
        match &self.storage {
            Storage::F32(_) => Compute::F32,
            Storage::F64(_) => Compute::F64,
            Storage::Cuda(buffer) => buffer.compute(),
        }
    }

    /// The elements, row-major. Panics when the tensor holds another number type or is on a GPU.
    pub fn as_slice<T: Element>(&self) -> &[T] {
        &T::slice(&self.storage)[..self.rows * self.cols]
    }

    /// The elements, row-major, to write. Panics when the tensor holds another number type or is on a GPU.
    pub fn as_mut_slice<T: Element>(&mut self) -> &mut [T] {
        let len = self.rows * self.cols;
        &mut T::slice_mut(&mut self.storage)[..len]
    }

    /// The elements of a single-precision tensor.
    pub fn f32s(&self) -> &[f32] {
        self.as_slice()
    }

    /// The elements of a single-precision tensor, to write.
    pub fn f32s_mut(&mut self) -> &mut [f32] {
        self.as_mut_slice()
    }

    /// A copy of the elements in single precision.
    pub(crate) fn to_f32_vec(&self) -> Vec<f32> {
        typed!(self, T, self.as_slice::<T>().iter().map(|x| x.to_f32()).collect(), gpu: self.download())
    }

    /// A copy of the elements in double precision.
    pub(crate) fn to_f64_vec(&self) -> Vec<f64> {
        typed!(
            self, T, self.as_slice::<T>().iter().map(|x| x.to_f64()).collect(),
            gpu: self.download().into_iter().map(f64::from).collect()
        )
    }

    /// Overwrites the elements with converted ones.
    pub(crate) fn copy_from_f32(&mut self, values: &[f32]) {
        typed!(self, T, {
            for (d, &s) in self.as_mut_slice::<T>().iter_mut().zip(values) {
                *d = T::from_f32(s);
            }
        }, gpu: cuda::upload_f32(self.buffer(), 0, values))
    }

    /// Sets every element to 0.
    pub(crate) fn fill_zero(&mut self) {
        typed!(self, T, self.as_mut_slice::<T>().fill(T::ZERO), gpu: self.buffer().zero(self.len()))
    }

    /// A copy.
    pub(crate) fn copy(&self) -> Tensor {
        let mut out = Tensor::scratch(self.compute(), self.rows, self.cols);
        typed!(
            self, T, out.as_mut_slice::<T>().copy_from_slice(self.as_slice::<T>()),
            gpu: out.buffer().copy(0, self.buffer(), self.len())
        );
        out
    }

    /// Changes the shape; the number of elements stays.
    pub fn reshape(mut self, rows: usize, cols: usize) -> Tensor {
        assert_eq!(self.len(), rows * cols, "reshape {}×{} to {rows}×{cols}", self.rows, self.cols);
        (self.rows, self.cols) = (rows, cols);
        self
    }

    /// Appends rows; the memory at least doubles when it has to grow.
    pub(crate) fn push_rows(&mut self, more: &Tensor) {
        assert_eq!(self.cols, more.cols, "rows of another width");
        let (used, need) = (self.len(), self.len() + more.len());
        typed!(more, T, {
            if T::slice(&self.storage).len() < need {
                let mut grown = T::wrap(pool::Buffer::new(need.max(2 * used)));
                T::slice_mut(&mut grown)[..used].copy_from_slice(self.as_slice::<T>());
                self.storage = grown;
            }
            self.rows += more.rows;
            self.as_mut_slice::<T>()[used..].copy_from_slice(more.as_slice::<T>());
        }, gpu: {
            if self.buffer().capacity() < need {
                let grown = cuda::Buffer::new(self.compute(), need.max(2 * used));
                grown.copy(0, self.buffer(), used);
                self.storage = Storage::Cuda(grown);
            }
            self.rows += more.rows;
            self.buffer().copy(used, more.buffer(), more.len());
        });
    }

    /// Keeps the first `rows` rows.
    pub fn truncate_rows(&mut self, rows: usize) {
        self.rows = self.rows.min(rows);
    }

    /// The matrix as a gemm operand.
    pub(crate) fn view<T: Element>(&self) -> View<'_, T> {
        View::new(self.as_slice(), self.rows, self.cols)
    }

    /// The matrix as a gemm result.
    pub(crate) fn view_mut<T: Element>(&mut self) -> ViewMut<'_, T> {
        let (rows, cols) = (self.rows, self.cols);
        ViewMut::new(self.as_mut_slice(), rows, cols)
    }
}

#[cfg(gpu)]
impl Tensor {
    /// The memory of a tensor of the GPU.
    pub(crate) fn buffer(&self) -> &cuda::Buffer {
        match &self.storage {
            Storage::Cuda(buffer) => buffer,
            _ => panic!("tensor is not on a GPU"),
        }
    }

    /// Where its elements begin.
    pub(crate) fn address(&self) -> cuda::call::Address {
        self.buffer().address()
    }

    /// A copy of the elements in f32, once all work on them is done.
    fn download(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.len()];
        match self.compute() {
            Compute::CudaBf16 => {
                let mut narrow = vec![half::bf16::ZERO; self.len()];
                self.buffer().download(bytemuck::cast_slice_mut(&mut narrow));
                out.iter_mut().zip(narrow).for_each(|(o, x)| *o = x.to_f32());
            }
            _ => self.buffer().download(bytemuck::cast_slice_mut(&mut out)),
        }
        out
    }
}
