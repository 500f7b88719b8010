//! Weights whose codes are stored down the columns: they are written again along the rows, once, when the checkpoint is opened.

use super::super::dtype::DType;
use super::packing::Packed;
use loram_core::{GroupTables, Grouped, ValueType};
use rayon::prelude::*;
use std::sync::Arc;

/// The codes of a weight of `n` outputs and `m` inputs, and what they mean.
pub(super) struct Codes<'a> {
    pub n: usize,
    pub m: usize,
    pub bits: usize,
    /// Inputs of a group.
    pub size: usize,
    /// The group of each input, where groups are not neighbours.
    pub of_input: Option<Vec<u32>>,
    /// The code of (input, output).
    pub code: &'a (dyn Fn(usize, usize) -> u8 + Sync),
    /// The zero of (group, output).
    pub zero: &'a (dyn Fn(usize, usize) -> i16 + Sync),
    /// (groups, outputs).
    pub scales: &'a [f32],
    pub values: ValueType,
    pub companions: Vec<String>,
}

impl Codes<'_> {
    /// The weight (n, m) with its codes along the rows, under another name. `m` is a multiple of 2, and of 8 bits' worth of codes.
    pub fn packed(self, name: String) -> Packed {
        let Codes { n, m, bits, size, of_input, .. } = self;
        let (row, groups) = (m * bits / 8, m.div_ceil(size));
        let mut bytes = vec![0u8; n * row];
        bytes.par_chunks_mut(row).enumerate().for_each(|(j, out)| match bits {
            4 => (0..row).for_each(|i| out[i] = (self.code)(2 * i, j) << 4 | (self.code)(2 * i + 1, j)),
            _ => (0..row).for_each(|i| out[i] = (self.code)(i, j)),
        });
        let places = || (0..n * groups).map(|i| (i % groups, i / groups));
        let tables = GroupTables {
            scales: places().map(|(g, j)| self.scales[g * n + j]).collect(),
            zeros: places().map(|(g, j)| (self.zero)(g, j)).collect(),
        };
        let table_bytes = 6 * n * groups;
        let format = Arc::new(Grouped::new(bits, m, size, of_input, self.values, tables));
        Packed {
            name: Some(name),
            bytes: Some(Arc::new(bytes)),
            tables: table_bytes,
            companions: self.companions,
            ..Packed::new(if bits == 4 { DType::Int4 } else { DType::Int8Groups }, vec![n, m], format)
        }
    }
}
