//! Tensors that hold the tables of a packed weight.

use super::super::dtype::DType;
use super::super::tensor::TensorRef;
use crate::{Error, Result};
use loram_core::SharedBytes;
use std::sync::Arc;

/// An error about a weight.
pub(super) fn error(name: &str, what: impl Into<String>) -> Error {
    Error::Tensor { name: name.to_string(), what: what.into() }
}

/// A table that a weight needs, of one of these types.
pub(super) fn table(
    weight: &str,
    name: &str,
    types: &[DType],
    tensor: &(dyn Fn(&str) -> Option<TensorRef> + Sync),
) -> Result<TensorRef> {
    let Some(found) = tensor(name) else {
        return Err(error(
            weight,
            format!("its table `{name}` is missing: the file is damaged, or a shard is missing"),
        ));
    };
    if !types.contains(&found.dtype()) {
        let types: Vec<&str> = types.iter().map(|t| t.name()).collect();
        let what = format!("expected {}, found {}: the file is damaged", types.join(" or "), found.dtype());
        return Err(error(name, what));
    }
    Ok(found)
}

/// An error unless a table has so many elements.
pub(super) fn check_len(table: &TensorRef, expected: usize, of: &str) -> Result<()> {
    match table.len() {
        n if n == expected => Ok(()),
        n => Err(error(table.name(), format!("holds {n} numbers, {of} needs {expected}: the file is damaged"))),
    }
}

/// The elements in f32.
pub(super) fn floats<const N: usize>(table: &TensorRef) -> Result<[f32; N]> {
    check_len(table, N, "the table")?;
    Ok(table.to_f32()?.try_into().expect("as many as were checked"))
}

/// The bytes of a table, which stay mapped.
pub(super) fn shared(table: TensorRef) -> SharedBytes {
    struct Mapped(TensorRef);
    impl AsRef<[u8]> for Mapped {
        fn as_ref(&self) -> &[u8] {
            self.0.bytes()
        }
    }
    Arc::new(Mapped(table))
}
