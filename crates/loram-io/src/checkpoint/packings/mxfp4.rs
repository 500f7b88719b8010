//! MXFP4 of gpt-oss: `X_blocks` U8 (experts, outputs, inputs/32, 16) holds codes, `X_scales` U8 (experts, outputs, inputs/32) exponents of the
//! experts' weights `X`, which are (experts, outputs, inputs), the other way round than in a file without quantisation.

use super::super::dtype::DType;
use super::super::header::TensorInfo;
use super::super::tensor::TensorRef;
use super::packing::{Packed, Packing};
use super::tables::{check_len, error, shared, table};
use crate::Result;
use loram_core::Mxfp4;
use std::sync::Arc;

/// Weights in MXFP4.
#[derive(Debug)]
pub(super) struct Mxfp4Blocks;

impl Packing for Mxfp4Blocks {
    fn find(
        &self,
        name: &str,
        info: &TensorInfo,
        tensor: &(dyn Fn(&str) -> Option<TensorRef> + Sync),
    ) -> Result<Option<Packed>> {
        let Some(stem) = name.strip_suffix("_blocks") else { return Ok(None) };
        let (&[experts, rows, blocks, 16], DType::U8) = (&info.shape[..], info.dtype) else {
            let what = format!("expected U8 (experts, outputs, blocks, 16), found {:?} in {}", info.shape, info.dtype);
            return Err(error(name, what));
        };
        if experts * rows * blocks == 0 {
            return Err(error(name, format!("a weight of shape {:?} is empty", info.shape)));
        }
        let scales_name = format!("{stem}_scales");
        let scales = table(name, &scales_name, &[DType::U8], tensor)?;
        check_len(&scales, experts * rows * blocks, "the weight")?;
        let tables = scales.len();
        let shape = vec![experts, rows, blocks * Mxfp4::BLOCK];
        let format = Arc::new(Mxfp4::new(shared(scales)));
        let name = Some(stem.to_string());
        Ok(Some(Packed { name, tables, companions: vec![scales_name], ..Packed::new(DType::Mxfp4, shape, format) }))
    }
}
