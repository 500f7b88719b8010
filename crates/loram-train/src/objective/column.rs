//! Columns of figures of single examples.

use serde::{Deserialize, Serialize};

/// One kind of figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Column {
    /// A whole number for each example.
    Whole(Vec<u64>),
    /// A number for each example.
    Real(Vec<f64>),
    /// A list of whole numbers for each example.
    Lists(Vec<Vec<u64>>),
    /// One number for all.
    Single(u64),
}

/// The type of a [`Column`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnType {
    /// [`Column::Whole`].
    Whole,
    /// [`Column::Real`].
    Real,
    /// [`Column::Lists`].
    Lists,
    /// [`Column::Single`].
    Single,
}

impl Column {
    /// The column as this type: a list of numbers may happen to be written without fractions.
    pub(super) fn into_type(self, wanted: ColumnType) -> Option<Column> {
        match (wanted, self) {
            (ColumnType::Real, Column::Whole(v)) => Some(Column::Real(v.into_iter().map(|x| x as f64).collect())),
            // an empty list is one of anything
            (ColumnType::Lists, Column::Whole(v)) if v.is_empty() => Some(Column::Lists(Vec::new())),
            (ColumnType::Real, c @ Column::Real(_))
            | (ColumnType::Lists, c @ Column::Lists(_))
            | (ColumnType::Whole, c @ Column::Whole(_))
            | (ColumnType::Single, c @ Column::Single(_)) => Some(c),
            _ => None,
        }
    }

    /// Indices, such as labels.
    pub fn of_indices(indices: &[usize]) -> Column {
        Column::Whole(indices.iter().map(|&i| i as u64).collect())
    }

    pub(super) fn len(&self) -> Option<usize> {
        match self {
            Column::Whole(v) => Some(v.len()),
            Column::Real(v) => Some(v.len()),
            Column::Lists(v) => Some(v.len()),
            Column::Single(_) => None,
        }
    }
}
