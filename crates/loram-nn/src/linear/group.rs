//! Adapters of layers that share an input, computed together on a GPU: x is read once for the projections of all, and once for
//! the gradients of their A; every dy is read once for both of its uses.

use super::layer::{Columns, Layer, Linear, Lora};
use crate::compute::Compute;
use crate::cuda::low_rank::{self, FACTORS, Factor, OF_GROUP, OF_LAYER, PIECE, ROOM};
use crate::param::{Params, Trainable};
use crate::tensor::Tensor;
use std::ops::Range;
use std::sync::Arc;

/// A and A₀, or B and B₀. The initial product is subtracted.
fn factors<'a>(lora: &'a Lora, params: &'a Params, b: bool) -> impl Iterator<Item = Factor<'a>> {
    let of = if b { &lora.b } else { &lora.a };
    let initial = lora.initial.as_ref().map(|(a0, b0)| Factor::new(if b { b0 } else { a0 }, -lora.scaling));
    std::iter::once(Factor::new(of.operand(params), lora.scaling)).chain(initial)
}

/// Ranks of A and A₀.
fn ranks(lora: &Lora, params: &Params) -> [usize; 2] {
    [lora.a.get(params).rows(), lora.initial.as_ref().map_or(0, |(a0, _)| a0.rows())]
}

/// Returns the columns of each layer's adapter; none of any where the kernels do not take them.
fn places(
    linears: &[&Linear],
    params: &Params,
    compute: Compute,
    step: Option<u64>,
) -> Option<Vec<Option<Range<usize>>>> {
    let mut places = Vec::with_capacity(linears.len());
    let (mut end, mut count) = (0, 0);
    for linear in linears {
        let Some(lora) = &linear.lora else {
            places.push(None);
            continue;
        };
        let ranks = ranks(lora, params);
        let rank = ranks[0] + ranks[1];
        let whole = ranks.iter().chain([&linear.n]).all(|n| n.is_multiple_of(PIECE));
        if lora.dropout.is_on(step) || !whole || rank > OF_LAYER || rank == 0 {
            return None;
        }
        places.push(Some(end..end + rank));
        end += rank;
        count += ranks.iter().filter(|&&r| r > 0).count();
    }
    let taken = compute == Compute::CudaBf16 && linears.iter().all(|linear| linear.m.is_multiple_of(PIECE));
    (taken && count > 0 && count <= FACTORS && end <= OF_GROUP).then_some(places)
}

/// Columns that the input of layers should have to spare, so that their adapters become a part of the products with their
/// weights: 0 where they cannot.
pub(super) fn room(linears: &[&Linear], params: &Params, compute: Compute, step: Option<u64>) -> usize {
    let Some(places) = places(linears, params, compute, step) else { return 0 };
    let end = places.iter().flatten().map(|at| at.end).max().unwrap_or(0);
    let room = end.next_multiple_of(ROOM);
    let wide = |linear: &&Linear| match &linear.weight {
        Trainable::Frozen(w) if linear.rows.is_none() => w.on_gpu_with_room(compute, room).is_some(),
        _ => false,
    };
    if params.watch.is_none() && linears.iter().all(wide) { room } else { 0 }
}

/// Puts B and B₀ of a layer beside its weight (n, m), which has room for them, and zeros around them.
pub(super) fn place(columns: Option<&Columns>, linear: &Linear, params: &Params, wide: &Tensor) {
    let b = linear.lora.as_ref().zip(columns).map(|(lora, columns)| (columns.at.start, factors(lora, params, true)));
    let (from, b) = b.map_or((0, Vec::new()), |(from, b)| (from, b.collect()));
    low_rank::place(wide, linear.m, from, &b);
}

/// The projections of x (t, m) by the adapters of layers; empty where each layer is to compute its own.
pub(super) fn project(linears: &[&Linear], params: &Params, x: &Tensor, step: Option<u64>) -> Vec<Option<Columns>> {
    if x.is_empty() {
        return Vec::new();
    }
    let Some(places) = places(linears, params, x.compute(), step) else { return Vec::new() };
    let loras = linears.iter().filter_map(|linear| linear.lora.as_ref());
    let stacked: Vec<Factor<'_>> = loras.flat_map(|lora| factors(lora, params, false)).collect();
    let all = Arc::new(low_rank::down(x, &stacked));
    places.into_iter().map(|at| at.map(|at| Columns { all: all.clone(), at })).collect()
}

impl Columns {
    /// y (t, n) = base + scaling·(x·Aᵀ·Bᵀ − x·A₀ᵀ·B₀ᵀ), or without base.
    pub fn multiply(&self, linear: &Linear, params: &Params, base: Option<&Tensor>, y: &mut Tensor) {
        let lora = linear.lora.as_ref().expect("columns are those of an adapter");
        let b: Vec<Factor<'_>> = factors(lora, params, true).collect();
        low_rank::up(self.part(0, self.at.len()), &b, base, y);
    }

    fn part(&self, from: usize, width: usize) -> low_rank::Columns<'_> {
        low_rank::Columns { all: &self.all, from: self.at.start + from, width }
    }
}

/// Gradients of the projections of layers with one input.
pub(crate) struct Gradients {
    /// scaling·dy·B of each layer, and −scaling·dy·B₀ beside it, (t, Σ r).
    all: Tensor,
}

impl Gradients {
    /// Adds to the gradients of B. `None` for layers that do not compute together.
    pub fn new(params: &mut Params, layers: &[Layer<'_>]) -> Option<Gradients> {
        let columns = layers.iter().find_map(|layer| layer.saved.columns.as_ref())?;
        let all = Tensor::scratch(Compute::CudaBf16, columns.all.rows(), columns.all.cols());
        for Layer { linear, saved, gradient } in layers {
            let (Some(lora), Some(columns)) = (&linear.lora, &saved.columns) else { continue };
            let b: Vec<Factor<'_>> = factors(lora, params, true).collect();
            let h = columns.part(0, ranks(lora, params)[0]);
            let db = lora.b.param().map(|id| params.grad(id));
            low_rank::both(gradient.tensor(), h, &b, db, &all, columns.at.clone());
        }
        Some(Gradients { all })
    }

    /// dx (t, m) = (accumulate ? dx : 0) + what passes through the adapters.
    pub fn add_input_gradient(&self, params: &Params, layers: &[Layer<'_>], dx: &mut Tensor, accumulate: bool) {
        let loras = layers.iter().filter_map(|layer| layer.linear.lora.as_ref());
        let stacked: Vec<Factor<'_>> = loras.flat_map(|lora| factors(lora, params, false)).collect();
        // signs are those of the gradients
        let all = low_rank::Columns { all: &self.all, from: 0, width: self.all.cols() };
        low_rank::add_up(all, &stacked, dx, accumulate);
    }

    /// Adds to the gradients of A, from the layers' input x (t, m).
    pub fn add_to_parameters(&self, params: &mut Params, layers: &[Layer<'_>], x: &Tensor) {
        let mut outputs = Vec::with_capacity(FACTORS);
        for lora in layers.iter().filter_map(|layer| layer.linear.lora.as_ref()) {
            let [r, r0] = ranks(lora, params);
            outputs.push((lora.a.param().map(|id| params.grad(id).address()), r));
            outputs.push((None, r0));
        }
        outputs.retain(|(_, rank)| *rank > 0);
        if outputs.iter().any(|(at, _)| at.is_some()) {
            low_rank::outer(x, &self.all, &outputs);
        }
    }
}
