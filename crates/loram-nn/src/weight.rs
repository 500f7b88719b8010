//! Frozen matrices, in the type in which the checkpoint stores them.

use crate::cuda;
#[cfg(gpu)]
use crate::kernels::embedding::check;
use crate::kernels::embedding::{Table, gather};
use crate::kernels::gemm::{Term, View, ViewMut, gemm_sum};
use crate::kernels::par::{RowsMut, for_rows};
use crate::kernels::simd::simd;
use crate::tensor::{Compute, Element, Tensor, typed};
use crate::{Error, Result};
use half::{bf16, f16};
use loram_io::{DType, TensorRef};
use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

/// Elements that are converted at a time: large enough to keep all threads busy, small enough for the caches.
const TILE: usize = 1 << 20;

/// A frozen matrix `(rows, cols)`, row-major, mapped from its file or owned. 16-bit weights are converted tile by tile
/// inside products and never exist whole in another type. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Weight {
    rows: usize,
    cols: usize,
    data: Data,
    /// The copy on the GPU, once a product needed it.
    resident: cuda::Resident,
}

#[derive(Debug, Clone)]
enum Data {
    Mapped(TensorRef),
    F32(Arc<Vec<f32>>),
    F16(Arc<Vec<f16>>),
    BF16(Arc<Vec<bf16>>),
}

impl Weight {
    /// A weight in a checkpoint: used in place when its type and alignment allow. Vectors become one row.
    pub fn from_tensor(t: &TensorRef) -> Result<Weight> {
        let (rows, cols) = match *t.shape() {
            [n, m] => (n, m),
            [m] => (1, m),
            _ => {
                return Err(Error::Layer {
                    path: t.name().into(),
                    what: format!("expected a matrix, found {:?}", t.shape()),
                });
            }
        };
        let in_place = t.as_f32().is_some() || t.as_f16().is_some() || t.as_bf16().is_some();
        let data = match t.dtype() {
            _ if in_place => Data::Mapped(t.clone()),
            // misaligned, which safetensors' own writer never produces: one copy in the stored type
            DType::F16 => Data::F16(Arc::new(bytemuck::pod_collect_to_vec(t.bytes()))),
            DType::BF16 => Data::BF16(Arc::new(bytemuck::pod_collect_to_vec(t.bytes()))),
            _ => Data::F32(Arc::new(t.to_f32()?)),
        };
        Ok(Weight { rows, cols, data, resident: cuda::Resident::default() })
    }

    /// A weight of the given row-major values.
    pub fn from_f32(rows: usize, cols: usize, values: Vec<f32>) -> Weight {
        assert_eq!(values.len(), rows * cols, "values of a {rows}×{cols} weight");
        Weight { rows, cols, data: Data::F32(Arc::new(values)), resident: cuda::Resident::default() }
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
        matches!(self.table(), Table::F32(_))
    }

    /// Bytes that the weight takes, mapped or owned.
    pub fn bytes(&self) -> usize {
        self.rows * self.cols * if self.is_f32() { 4 } else { 2 }
    }

    fn table(&self) -> Table<'_> {
        match &self.data {
            Data::F32(v) => Table::F32(v),
            Data::F16(v) => Table::F16(v),
            Data::BF16(v) => Table::Bf16(v),
            Data::Mapped(t) => match (t.as_f32(), t.as_f16(), t.as_bf16()) {
                (Some(v), ..) => Table::F32(v),
                (_, Some(v), _) => Table::F16(v),
                (.., Some(v)) => Table::Bf16(v),
                _ => unreachable!("checked when the weight was made"),
            },
        }
    }

    /// All elements in f32, row-major; borrowed where they are held so.
    pub fn to_f32(&self) -> Cow<'_, [f32]> {
        match self.table() {
            Table::F32(v) => Cow::Borrowed(v),
            _ => {
                let mut out = vec![0.0; self.rows * self.cols];
                self.convert_rows(0..self.rows, &mut out);
                Cow::Owned(out)
            }
        }
    }

    /// All elements as a tensor.
    pub fn to_tensor(&self, compute: Compute) -> Tensor {
        let mut out = Tensor::scratch(compute, self.rows, self.cols);
        typed!(
            out, T, self.convert_rows::<T>(0..self.rows, out.as_mut_slice()),
            gpu: out = cuda::product::upload_weight(self, self.table(), compute)
        );
        out
    }

    /// W ← `f`(W) on an owned copy in f32; the mapped pages are let go.
    pub fn change(&mut self, f: impl FnOnce(&mut [f32])) {
        let mut values = match std::mem::replace(&mut self.data, Data::F32(Arc::new(Vec::new()))) {
            Data::F32(v) => Arc::try_unwrap(v).unwrap_or_else(|v| (*v).clone()),
            other => {
                let old = Weight { data: other, resident: cuda::Resident::default(), ..*self };
                let copy = old.to_f32().into_owned();
                old.release();
                copy
            }
        };
        f(&mut values);
        self.data = Data::F32(Arc::new(values));
        self.resident = cuda::Resident::default();
    }

    /// Lets the pages of its file go until they are read again.
    fn release(&self) {
        if let Data::Mapped(t) = &self.data {
            t.release();
        }
    }

    /// The weight on the GPU in the number type of `like`, uploaded when it is first asked for.
    #[cfg(gpu)]
    pub(crate) fn on_gpu(&self, like: &Tensor) -> &Tensor {
        self.resident.get_or_init(|| {
            let uploaded = cuda::product::upload_weight(self, self.table(), like.compute());
            self.release();
            uploaded
        })
    }

    /// Rows `range` converted to `T`.
    pub(crate) fn convert_rows<T: Element>(&self, range: Range<usize>, out: &mut [T]) {
        let cols = self.cols;
        let first = range.start;
        for_rows(RowsMut(out, cols), range.len(), cols, |out, r| {
            let at = (first + r.start) * cols..(first + r.end) * cols;
            self.convert(at, out.0);
        });
    }

    fn convert<T: Element>(&self, at: Range<usize>, out: &mut [T]) {
        fn each<T, S: Copy>(out: &mut [T], src: &[S], f: impl Fn(S) -> T) {
            simd(
                #[inline(always)]
                || {
                    for (o, &s) in out.iter_mut().zip(src) {
                        *o = f(s);
                    }
                },
            );
        }
        match self.table() {
            Table::F32(v) => each(out, &v[at], T::from_f32),
            Table::F64(v) => each(out, &v[at], T::from_f64),
            Table::F16(v) => each(out, &v[at], T::from_f16),
            Table::Bf16(v) => each(out, &v[at], T::from_bf16),
        }
    }

    /// out (ids × cols) = (accumulate ? out : 0) + the rows with the given ids, e.g. the embeddings of tokens.
    pub(crate) fn gather(&self, ids: &[u32], out: &mut Tensor, accumulate: bool) -> Result<()> {
        typed!(out, T, gather::<T>(self.table(), self.cols, ids, out.as_mut_slice(), accumulate), gpu: {
            check(ids, self.rows).map(|()| cuda::rows::gather(self.on_gpu(out), ids, out, accumulate))
        })?;
        Ok(())
    }

    /// The elements, where they have the type of the product.
    fn direct<T: Element>(&self) -> Option<View<'_, T>> {
        let Table::F32(v) = self.table() else { return None };
        (T::NAME == <f32 as crate::kernels::Real>::NAME)
            .then(|| View::new(bytemuck::cast_slice(v), self.rows, self.cols))
    }

    /// y (t × rows) = (accumulate ? y : 0) + x·Wᵀ + Σ `extra`, x: (t × cols).
    pub(crate) fn product_t<T: Element>(
        &self,
        x: View<'_, T>,
        y: ViewMut<'_, T>,
        accumulate: bool,
        extra: &[Term<'_, T>],
    ) {
        with_weight_term(
            y,
            accumulate,
            self.direct(),
            |w| Term { alpha: T::ONE, a: x, b: w.t() },
            extra,
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

    /// dx (t × cols) = (accumulate ? dx : 0) + dy·W + Σ `extra`, dy: (t × rows).
    pub(crate) fn product<T: Element>(
        &self,
        dy: View<'_, T>,
        dx: ViewMut<'_, T>,
        accumulate: bool,
        extra: &[Term<'_, T>],
    ) {
        with_weight_term(
            dx,
            accumulate,
            self.direct(),
            |w| Term { alpha: T::ONE, a: dy, b: w },
            extra,
            |mut dx| {
                let mut accumulate = accumulate;
                if !extra.is_empty() || self.rows == 0 {
                    gemm_sum(dx.reborrow(), accumulate, extra);
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
