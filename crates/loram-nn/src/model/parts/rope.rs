//! Rotary position embedding (2104.09864) with tables that are computed when they are needed.

use crate::compute::Compute;
#[cfg(gpu)]
use crate::cuda;
use crate::cuda::on_gpu;
use crate::kernels::rope::{self, RopeParams};
use crate::model::pass::Pass;
use crate::ops::Sequences;
use crate::tensor::Tensor;
use loram_io::config::RopeScaling;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// The rotary embedding that layers of a model share.
#[derive(Debug)]
pub(crate) struct Rope {
    params: RopeParams,
    compute: Compute,
    cache: Mutex<Cache>,
}

/// The rotary embeddings of queries and of keys: mostly one.
#[derive(Debug, Clone)]
pub(crate) struct Rotary {
    pub queries: Arc<Rope>,
    pub keys: Arc<Rope>,
}

impl Rotary {
    /// Rotates queries (t, heads·d) and keys (t, kv_heads·d) in place; with `backward`, applies the transposed map.
    pub fn rotate(&self, q: &mut Tensor, k: &mut Tensor, pass: &Pass<'_>, d: usize, backward: bool) {
        self.queries.tables(pass).rotate(q, pass, d, backward);
        self.keys.tables(pass).rotate(k, pass, d, backward);
    }
}

#[derive(Debug, Default)]
struct Cache {
    tables: Vec<Arc<RopeTable>>,
    /// Lengths of the latest pass with what was chosen for them: all layers of a pass ask for the same.
    latest: Option<(Vec<usize>, Tables)>,
}

/// Tables for the sequences of a pass: one entry serves all where they are equal, otherwise one for each.
#[derive(Debug, Clone)]
pub(crate) struct Tables(Arc<[Arc<RopeTable>]>);

impl Rope {
    pub fn new(params: RopeParams, compute: Compute) -> Rope {
        Rope { params, compute, cache: Mutex::default() }
    }

    /// Returns the tables for the sequences of a pass.
    pub fn tables(&self, pass: &Pass<'_>) -> Tables {
        let lengths = || pass.totals();
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((seen, tables)) = &cache.latest
            && lengths().eq(seen.iter().copied())
        {
            return tables.clone();
        }
        let longest = self.table(&mut cache.tables, lengths().max().unwrap_or(0));
        let tables = match lengths().all(|n| longest.serves(n)) {
            true => Tables([longest].into()),
            false => Tables(lengths().map(|n| self.table(&mut cache.tables, n)).collect()),
        };
        cache.latest = Some((lengths().collect(), tables.clone()));
        tables
    }

    /// A table for a sequence of `len` tokens.
    fn table(&self, tables: &mut Vec<Arc<RopeTable>>, len: usize) -> Arc<RopeTable> {
        if let Some(table) = tables.iter().find(|t| t.serves(len)) {
            return table.clone();
        }
        // dynamic scaling has a table for each length, longrope two: only the latest few stay
        tables.truncate(3);
        let whole = len.next_power_of_two().max(128);
        let size = match self.params.config.scaling {
            RopeScaling::Dynamic { original_max, .. } => len.max(original_max),
            RopeScaling::Long { original_max, .. } if len <= original_max => whole.min(original_max),
            _ => whole,
        };
        let table = Arc::new(RopeTable::new(self.compute, &self.params, size));
        tables.insert(0, table.clone());
        table
    }
}

impl Tables {
    /// Rotates x (t, heads·d) in place; with `backward`, applies the transposed map.
    pub fn rotate(&self, x: &mut Tensor, pass: &Pass<'_>, d: usize, backward: bool) {
        let sequences = &pass.sequences;
        if let [table] = &*self.0 {
            return table.apply(x, 0..x.rows(), sequences, d, backward);
        }
        let mut first = 0;
        for (table, &n) in self.0.iter().zip(sequences.lengths) {
            table.apply(x, first..first + n, sequences, d, backward);
            first += n;
        }
    }
}

/// A rotary table in the number type of the model.
#[derive(Debug)]
pub(crate) enum RopeTable {
    F32(rope::RopeTable<f32>),
    F64(rope::RopeTable<f64>),
    /// With cos and sin, (positions, half), on the GPU.
    #[cfg(gpu)]
    Cuda(rope::RopeTable<f32>, [Tensor; 2]),
}

impl RopeTable {
    pub fn new(compute: Compute, params: &RopeParams, len: usize) -> RopeTable {
        match compute {
            Compute::F32 => RopeTable::F32(rope::RopeTable::new(params, len)),
            Compute::F64 => RopeTable::F64(rope::RopeTable::new(params, len)),
            Compute::CudaF32 | Compute::CudaBf16 => on_gpu!({
                let table = rope::RopeTable::new(params, len);
                let upload = |values| Tensor::from_f32(Compute::CudaF32, len, table.rot_dim / 2, values);
                let both = [upload(&table.cos), upload(&table.sin)];
                RopeTable::Cuda(table, both)
            }),
        }
    }

    /// Returns whether the table is right for a sequence of `len` tokens.
    pub fn serves(&self, len: usize) -> bool {
        match self {
            RopeTable::F32(t) => t.serves(len),
            RopeTable::F64(t) => t.serves(len),
            #[cfg(gpu)]
            RopeTable::Cuda(t, _) => t.serves(len),
        }
    }

    /// Rotates rows `rows` of x in place (or applies the transposed map), heads of width `d`.
    pub fn apply(&self, x: &mut Tensor, rows: Range<usize>, sequences: &Sequences<'_>, d: usize, backward: bool) {
        let cols = x.cols();
        let at = rows.start * cols..rows.end * cols;
        let positions = &sequences.positions[rows.clone()];
        let rotated = match self {
            RopeTable::F32(t) if backward => rope::rope_backward(&mut x.f32s_mut()[at], positions, cols / d, d, t),
            RopeTable::F32(t) => rope::rope_forward(&mut x.f32s_mut()[at], positions, cols / d, d, t),
            RopeTable::F64(t) if backward => rope::rope_backward(&mut x.as_mut_slice()[at], positions, cols / d, d, t),
            RopeTable::F64(t) => rope::rope_forward(&mut x.as_mut_slice()[at], positions, cols / d, d, t),
            #[cfg(gpu)]
            RopeTable::Cuda(t, [cos, sin]) => {
                assert!(positions.iter().all(|&p| (p as usize) < t.positions), "positions beyond the table");
                let all = sequences.layout.positions.get_or_init(|| cuda::Buffer::of_numbers(sequences.positions));
                cuda::ops::rope(x, rows.start, all, rows.len(), d, [cos, sin], t.interleaved(), backward);
                Ok(())
            }
        };
        rotated.expect("the table was chosen for these positions");
    }
}
