//! Frozen matrices, in the format in which the checkpoint stores them.

use crate::compute::Compute;
use crate::cuda;
#[cfg(gpu)]
use crate::cuda::packed::Packed;
#[cfg(gpu)]
use crate::cuda::product::OnGpu;
#[cfg(gpu)]
use crate::held::Held;
use crate::kernels::Real;
use crate::kernels::bf16::{Kernel, Matrix, Number, Right};
#[cfg(gpu)]
use crate::kernels::embedding::check;
use crate::kernels::embedding::gather_stored;
use crate::kernels::few_rows::{FEW, add_few_rows_t};
use crate::kernels::gemm::{Term, View, ViewMut, gemm_sum};
use crate::kernels::par::{RowsMut, for_rows};
use crate::kernels::real::f32s;
#[cfg(gpu)]
use crate::packed::packed_bytes;
use crate::products::{Low, Operand, Products, product};
use crate::tensor::{Element, Tensor, typed};
use crate::{Error, Result};
use loram_core::{BFloat16, RowOrder, StoredWeight, WeightFormat};
use loram_io::TensorRef;
use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

/// Elements that are converted at a time: large enough to keep all threads busy, small enough for the caches.
const TILE: usize = 1 << 20;

/// A frozen matrix `(rows, cols)`, row-major, mapped from its file or owned. Weights in formats narrower than f32 are
/// converted tile by tile inside products and never exist whole in another type. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Weight {
    rows: usize,
    cols: usize,
    data: Data,
    /// The kernel of its products with activations in f32; `None`: in the number type of the activations.
    kernel: Option<Kernel>,
    /// It is not packed on a GPU, where one pass uses it many times.
    #[cfg_attr(not(gpu), allow(dead_code))]
    whole: bool,
    /// The copy on the GPU, once a product needed it.
    resident: cuda::Resident,
}

#[derive(Debug, Clone)]
enum Data {
    /// In its file, in its stored format.
    Mapped(TensorRef),
    /// In memory, in f32.
    Values(Arc<Vec<f32>>),
}

impl Weight {
    /// A weight in a checkpoint: used in place when products can read it there. Vectors become one row.
    pub fn from_tensor(t: &TensorRef) -> Result<Weight> {
        if t.shape().len() > 2 || t.shape().is_empty() {
            let what = format!("expected a matrix, found {:?}", t.shape());
            return Err(Error::Layer { path: t.name().into(), what });
        }
        let stored = t.stored()?;
        let narrow = stored.bytes().len() < stored.len() * size_of::<f32>();
        let data = match narrow || stored.as_f32().is_some() || stored.order() != RowOrder::Plain {
            true => Data::Mapped(t.clone()),
            false => Data::Values(Arc::new(stored.to_vec())),
        };
        Ok(Weight {
            rows: stored.rows(),
            cols: stored.cols(),
            data,
            kernel: None,
            whole: false,
            resident: cuda::Resident::default(),
        })
    }

    /// A weight of the given row-major values.
    pub fn from_f32(rows: usize, cols: usize, values: Vec<f32>) -> Weight {
        assert_eq!(values.len(), rows * cols, "values of a {rows}×{cols} weight");
        Weight {
            rows,
            cols,
            data: Data::Values(Arc::new(values)),
            kernel: None,
            whole: false,
            resident: cuda::Resident::default(),
        }
    }

    /// The weight with its products computed in this way.
    pub fn with_products(mut self, products: Products) -> Weight {
        self.kernel = products.kernel(rounds(self.stored()));
        self
    }

    /// The kernel that multiplies it in bf16, if any does.
    pub fn kernel(&self) -> Option<Kernel> {
        self.kernel
    }

    /// The tensor of a checkpoint that it is, unless its values are in memory.
    pub fn tensor(&self) -> Option<&TensorRef> {
        match &self.data {
            Data::Mapped(t) => Some(t),
            _ => None,
        }
    }

    /// Returns whether both are one tensor of a file, or one copy in memory.
    pub(crate) fn shares(&self, other: &Weight) -> bool {
        match (&self.data, &other.data) {
            (Data::Mapped(x), Data::Mapped(y)) => x.bytes().as_ptr_range() == y.bytes().as_ptr_range(),
            (Data::Values(x), Data::Values(y)) => Arc::ptr_eq(x, y),
            _ => false,
        }
    }

    /// Output features.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Input features.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// True for weights that are held in f32: these can be changed in place without loss.
    pub fn is_f32(&self) -> bool {
        self.stored().as_f32().is_some()
    }

    /// The weight in its stored format.
    pub fn stored(&self) -> StoredWeight<'_> {
        match &self.data {
            Data::Mapped(t) => t.stored().expect("checked when the weight was made"),
            Data::Values(v) => StoredWeight::of(v, self.rows, self.cols),
        }
    }

    /// All elements in f32, row-major; borrowed where they are held so.
    pub fn to_f32(&self) -> Cow<'_, [f32]> {
        self.stored().to_f32()
    }

    /// The given rows in f32, one after another.
    pub(crate) fn rows_f32(&self, ids: &[u32]) -> Vec<f32> {
        let mut out = vec![0.0; ids.len() * self.cols];
        let stored = self.stored();
        for (row, &id) in out.chunks_exact_mut(self.cols.max(1)).zip(ids) {
            stored.read(id as usize * self.cols..(id as usize + 1) * self.cols, row);
        }
        out
    }

    /// All elements as a tensor.
    pub(crate) fn to_tensor(&self, compute: Compute) -> Tensor {
        let mut out = Tensor::scratch(compute, self.rows, self.cols);
        typed!(
            out, T, self.convert_rows::<T>(0..self.rows, out.as_mut_slice()),
            gpu: out = cuda::product::upload_weight(self.stored(), compute)
        );
        out
    }

    /// W ← `f`(W) on an owned copy in f32, which products use as it is; the mapped pages are let go.
    pub fn change(&mut self, f: impl FnOnce(&mut [f32])) {
        let mut values = match std::mem::replace(&mut self.data, Data::Values(Arc::new(Vec::new()))) {
            Data::Values(v) => Arc::try_unwrap(v).unwrap_or_else(|v| (*v).clone()),
            other => {
                let old = Weight { data: other, resident: cuda::Resident::default(), ..*self };
                let copy = old.to_f32().into_owned();
                old.release();
                copy
            }
        };
        f(&mut values);
        // rounded in every product, the change would be lost in part
        self.kernel = None;
        self.data = Data::Values(Arc::new(values));
        self.resident = cuda::Resident::default();
    }

    /// Lets the pages of its file go until they are read again.
    fn release(&self) {
        if let Data::Mapped(t) = &self.data {
            t.release();
        }
    }

    /// The same weight, which is decoded on a GPU once, not for each product: an embedding or an output layer.
    pub(crate) fn whole_on_gpu(self) -> Weight {
        Weight { whole: true, ..self }
    }

    /// The weight on the GPU in the number type of `like`, uploaded when it is first asked for. It may have room beside it. A quantised
    /// one is uploaded as it is stored, and unpacked here.
    #[cfg(gpu)]
    pub(crate) fn on_gpu(&self, like: &Tensor) -> Held<'_> {
        let resident = self.resident.get_or_init(|| match self.stays_packed(like.compute()) {
            false => OnGpu::Whole(self.upload(like.compute())),
            true => {
                let packed = Packed::upload(self.stored());
                self.release();
                OnGpu::Packed(packed)
            }
        });
        match resident {
            OnGpu::Whole(tensor) => Held::Borrowed(tensor),
            OnGpu::Packed(packed) => Held::Owned(packed.unpack()),
        }
    }

    #[cfg(gpu)]
    fn stays_packed(&self, compute: Compute) -> bool {
        compute == Compute::CudaBf16 && !self.whole && packed_bytes(self.stored()).is_some()
    }

    #[cfg(gpu)]
    fn upload(&self, compute: Compute) -> Tensor {
        let uploaded = cuda::product::upload_weight(self.stored(), compute);
        self.release();
        uploaded
    }

    /// The weight on the GPU with `room` more columns for a layer's adapter. `None` where it is there already with less, and
    /// where another layer uses it too, or where it stays packed.
    #[cfg(gpu)]
    pub(crate) fn on_gpu_with_room(&self, compute: Compute, room: usize) -> Option<&Tensor> {
        if Arc::strong_count(&self.resident) > 1 || self.stays_packed(compute) {
            return None;
        }
        let widen = || OnGpu::Whole(cuda::low_rank::widen(&self.upload(compute), room));
        match self.resident.get_or_init(widen) {
            OnGpu::Whole(wide) if wide.cols() == self.cols + room => Some(wide),
            _ => None,
        }
    }

    /// Forgets the copy on the GPU, so that the next one can have room for an adapter, unless another layer uses it too.
    pub(crate) fn leave_gpu(&mut self) {
        #[cfg(gpu)]
        if Arc::strong_count(&self.resident) == 1 {
            self.resident = cuda::Resident::default();
        }
    }

    /// Rows `range` converted to `T`.
    fn convert_rows<T: Element>(&self, range: Range<usize>, out: &mut [T]) {
        let (stored, cols, first) = (self.stored(), self.cols, range.start);
        for_rows(RowsMut(out, cols), range.len(), cols, |out, r| {
            let at = (first + r.start) * cols..(first + r.end) * cols;
            match f32s(out.0) {
                Some(out) => stored.read(at, out),
                None => {
                    let mut values = vec![0.0; at.len()];
                    stored.read(at, &mut values);
                    out.0.iter_mut().zip(values).for_each(|(o, x)| *o = T::from_f32(x));
                }
            }
        });
    }

    /// out (ids × cols) = (accumulate ? out : 0) + the rows with the given ids, e.g. the embeddings of tokens.
    pub(crate) fn gather(&self, ids: &[u32], out: &mut Tensor, accumulate: bool) -> Result<()> {
        typed!(out, T, gather_stored::<T>(self.stored(), ids, out.as_mut_slice(), accumulate), gpu: {
            check(ids, self.rows).map(|()| cuda::rows::gather(&self.on_gpu(out), ids, out, accumulate))
        })?;
        Ok(())
    }

    /// The elements, where they have the type of the product.
    fn direct<T: Element>(&self) -> Option<View<'_, T>> {
        let values = self.stored().as_f32()?;
        (T::NAME == <f32 as Real>::NAME).then(|| View::new(bytemuck::cast_slice(values), self.rows, self.cols))
    }

    /// The kernel that multiplies it by tensors like `x`, if any does.
    pub(crate) fn kernel_for(&self, x: &Tensor) -> Option<Kernel> {
        self.kernel.filter(|_| x.compute() == Compute::F32)
    }

    /// The weight as the right operand of a product in bf16: Wᵀ or W.
    fn right(&self, transposed: bool) -> Right<'_> {
        let stored = self.stored();
        let matrix = number(stored).map(|number| Matrix::new(stored.bytes(), number, self.rows, self.cols));
        match (matrix, transposed) {
            (Some(matrix), true) => Right::Transposed(matrix),
            (Some(matrix), false) => Right::Plain(matrix),
            (None, true) => Right::StoredTransposed(stored),
            (None, false) => Right::Stored(stored),
        }
    }

    /// y (t × rows) = (accumulate ? y : 0) + x·Wᵀ + Σ `low`, x: (t × cols), on the CPU.
    pub(crate) fn product_t<T: Element>(&self, x: &Operand<'_>, y: &mut Tensor, accumulate: bool, low: &[Low<'_>]) {
        if x.tensor().compute() == Compute::F32 && x.tensor().rows() <= FEW && self.stored().as_f32().is_none() {
            gemm_sum(y.view_mut::<f32>(), accumulate, &low.iter().map(Low::term).collect::<Vec<_>>());
            return add_few_rows_t(self.stored(), x.tensor().f32s(), y.f32s_mut());
        }
        if let Some(kernel) = self.kernel_for(x.tensor()) {
            return product(kernel, y, accumulate, x, self.right(true), low);
        }
        let extra: Vec<_> = low.iter().map(Low::term).collect();
        let x = x.tensor().view::<T>();
        with_weight_term(
            y.view_mut(),
            accumulate,
            self.direct(),
            |w| Term { alpha: T::ONE, a: x, b: w.t() },
            &extra,
            |mut y| {
                self.tiles::<T>(|rows, tile| {
                    let terms: Vec<_> = std::iter::once(Term { alpha: T::ONE, a: x, b: tile.t() })
                        .chain(extra.iter().map(|e| Term { b: e.b.col_range(rows.clone()), ..*e }))
                        .collect();
                    gemm_sum(y.reborrow().col_range(rows), accumulate, &terms);
                });
            },
        );
    }

    /// dx (t × cols) = (accumulate ? dx : 0) + dy·W + Σ `low`, dy: (t × rows), on the CPU.
    pub(crate) fn product<T: Element>(&self, dy: &Operand<'_>, dx: &mut Tensor, accumulate: bool, low: &[Low<'_>]) {
        if let Some(kernel) = self.kernel_for(dy.tensor()) {
            return product(kernel, dx, accumulate, dy, self.right(false), low);
        }
        let extra: Vec<_> = low.iter().map(Low::term).collect();
        let dy = dy.tensor().view::<T>();
        with_weight_term(
            dx.view_mut(),
            accumulate,
            self.direct(),
            |w| Term { alpha: T::ONE, a: dy, b: w },
            &extra,
            |mut dx| {
                let mut accumulate = accumulate;
                if !extra.is_empty() || self.rows == 0 {
                    gemm_sum(dx.reborrow(), accumulate, &extra);
                    accumulate = true;
                }
                self.tiles::<T>(|rows, tile| {
                    let term = Term { alpha: T::ONE, a: dy.col_range(rows), b: tile };
                    gemm_sum(dx.reborrow(), accumulate, &[term]);
                    accumulate = true;
                });
            },
        );
    }

    /// Calls `f` with converted blocks of rows, in order.
    fn tiles<T: Element>(&self, mut f: impl FnMut(Range<usize>, View<'_, T>)) {
        let step = (TILE / self.cols.max(1)).clamp(32, self.rows.max(32));
        let compute = if T::NAME == "f32" { Compute::F32 } else { Compute::F64 };
        let mut scratch = Tensor::scratch(compute, step.min(self.rows), self.cols);
        let mut start = 0;
        while start < self.rows {
            let rows = start..(start + step).min(self.rows);
            self.convert_rows::<T>(rows.clone(), &mut scratch.as_mut_slice::<T>()[..rows.len() * self.cols]);
            f(rows.clone(), View::new(scratch.as_slice(), rows.len(), self.cols));
            start = rows.end;
        }
    }
}

/// Returns whether products with a stored weight are in bf16 by default: one that bf16 holds as it is, or whose integers of a
/// few bits it holds almost so.
pub fn rounds(stored: StoredWeight<'_>) -> bool {
    stored.format().name() == BFloat16.name() || stored.format().is_quantised()
}

/// The number type of a stored weight, where products in bf16 read it in place.
fn number(stored: StoredWeight<'_>) -> Option<Number> {
    if stored.order() != RowOrder::Plain {
        return None;
    }
    match stored.format().name() {
        "BF16" => Some(Number::Bf16),
        "F16" => Some(Number::F16),
        "F32" => Some(Number::F32(1.0)),
        _ => None,
    }
}

/// One call of [`gemm_sum`] where the weight can be used in place, `tiled` otherwise.
fn with_weight_term<'a, T: Element>(
    out: ViewMut<'_, T>,
    accumulate: bool,
    direct: Option<View<'a, T>>,
    term: impl FnOnce(View<'a, T>) -> Term<'a, T>,
    extra: &[Term<'a, T>],
    tiled: impl FnOnce(ViewMut<'_, T>),
) {
    match direct {
        Some(w) => {
            let mut terms = Vec::with_capacity(1 + extra.len());
            terms.push(term(w));
            terms.extend_from_slice(extra);
            gemm_sum(out, accumulate, &terms);
        }
        None => tiled(out),
    }
}
