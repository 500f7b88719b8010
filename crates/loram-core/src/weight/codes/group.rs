//! Integers of 4 or 8 bits in groups along a row, each with a scale and a zero: what GPTQ and AWQ checkpoints hold.

use super::lookup::{self, Tables};
use super::value_type::ValueType;
use crate::weight::format::WeightFormat;
use std::fmt;

/// Zeros of the groups of a weight.
#[derive(Debug, Clone)]
pub struct GroupTables {
    /// The scale of each group (rows, groups), row-major.
    pub scales: Vec<f32>,
    /// The code that stands for 0 (rows, groups).
    pub zeros: Vec<i16>,
}

/// A weight (rows, cols) of codes in groups along its rows: scale · (code − zero), rounded to the type of the scales. Codes of 4 bits are two
/// to a byte, the upper half first.
#[derive(Clone)]
pub struct Grouped {
    bits: usize,
    cols: usize,
    groups: usize,
    /// Columns of a group.
    size: usize,
    /// The group of each column, where groups are not neighbours.
    of_column: Option<Vec<u32>>,
    values: ValueType,
    tables: GroupTables,
}

impl fmt::Debug for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Grouped({} bits, groups of {} of {})", self.bits, self.size, self.cols)
    }
}

impl Grouped {
    /// A weight of rows of `cols` codes. `of_column` gives the group of each column; without it groups are `size` neighbours, an even number.
    /// Panics where `bits` is neither 4 nor 8, or lengths do not fit.
    pub fn new(
        bits: usize,
        cols: usize,
        size: usize,
        of_column: Option<Vec<u32>>,
        values: ValueType,
        tables: GroupTables,
    ) -> Grouped {
        let groups = cols.div_ceil(size.max(1));
        assert!(matches!(bits, 4 | 8), "codes of {bits} bits");
        assert!(size > 0 && (size.is_multiple_of(2) || of_column.is_some()), "groups of {size}");
        assert!(groups > 0 && tables.scales.len().is_multiple_of(groups), "scales of {groups} groups");
        assert_eq!(tables.scales.len(), tables.zeros.len(), "scales and zeros");
        if let Some(of) = &of_column {
            assert!(of.len() == cols && of.iter().all(|g| (*g as usize) < groups), "groups of {cols} columns");
        }
        Grouped { bits, cols, groups, size, of_column, values, tables }
    }

    #[inline(always)]
    fn value(&self, place: usize, code: u8) -> f32 {
        let zero = self.tables.zeros[place];
        self.values.round(self.tables.scales[place] * f32::from(i16::from(code) - zero))
    }
}

impl Tables for Grouped {
    #[inline(always)]
    fn run(&self, at: usize) -> (usize, [f32; 16]) {
        let (row, column) = (at / self.cols, at % self.cols);
        let group = column / self.size;
        let place = row * self.groups + group;
        let end = row * self.cols + ((group + 1) * self.size).min(self.cols);
        (end, std::array::from_fn(|code| self.value(place, code as u8)))
    }
}

impl WeightFormat for Grouped {
    fn name(&self) -> &'static str {
        if self.bits == 4 { "INT4" } else { "INT8" }
    }

    #[inline(always)]
    fn block_values(&self) -> usize {
        8 / self.bits
    }

    #[inline(always)]
    fn block_bytes(&self) -> usize {
        1
    }

    fn is_quantised(&self) -> bool {
        true
    }

    #[inline(always)]
    fn decode(&self, first: usize, bytes: &[u8], out: &mut [f32]) {
        if self.bits == 4 && self.of_column.is_none() {
            return lookup::decode(self, first, bytes, out);
        }
        for (i, out) in out.iter_mut().enumerate() {
            let (row, column) = ((first + i) / self.cols, (first + i) % self.cols);
            let group = self.of_column.as_ref().map_or(column / self.size, |of| of[column] as usize);
            let code = match self.bits {
                4 => bytes[i / 2] >> (4 * (1 - i % 2)) & 15,
                _ => bytes[i],
            };
            *out = self.value(row * self.groups + group, code);
        }
    }
}
