//! Float8 with scales: `X.weight` in F8_E4M3 and `X.weight_scale_inv` for each block (DeepSeek's format, `quant_method: fp8`), or one
//! `X.weight_scale` for all of it or for each row.

use super::super::dtype::DType;
use super::super::header::TensorInfo;
use super::super::tensor::TensorRef;
use super::packing::{Packed, Packing};
use super::tables::error;
use crate::Result;
use loram_core::{ScaledFloat8, ValueType};
use std::sync::Arc;

/// Weights in float8, with the size (height, width) of the blocks that `config.json` names.
#[derive(Debug)]
pub(super) struct Float8(pub Option<(usize, usize)>);

impl Packing for Float8 {
    fn find(
        &self,
        name: &str,
        info: &TensorInfo,
        tensor: &(dyn Fn(&str) -> Option<TensorRef> + Sync),
    ) -> Result<Option<Packed>> {
        if info.dtype != DType::F8E4M3 {
            return Ok(None);
        }
        let &[n, m] = &info.shape[..] else {
            return Err(error(name, format!("a weight of shape {:?} in float8 is not supported", info.shape)));
        };
        let stem = name.strip_suffix(".weight").unwrap_or(name);
        let names = ["weight_scale_inv", "weight_scale"].map(|scale| format!("{stem}.{scale}"));
        let Some((scale_name, scale)) = names.into_iter().find_map(|s| tensor(&s).map(|t| (s, t))) else {
            return Err(error(name, format!("its table `{stem}.weight_scale_inv` is missing: the file is damaged")));
        };
        if n == 0 || m == 0 {
            return Err(error(name, format!("a weight of shape {:?} is empty", info.shape)));
        }
        // the type of the values is that of the scales, if it is one of models
        let values = match scale.dtype() {
            DType::F32 => ValueType::F32,
            DType::F16 => ValueType::F16,
            DType::BF16 => ValueType::BF16,
            other => return Err(error(&scale_name, format!("scales in {other} are not supported"))),
        };
        let misfit = || error(&scale_name, format!("scales {:?} do not fit a weight {:?}", scale.shape(), info.shape));
        let grid = match *scale.shape() {
            [] | [1] | [1, 1] => (1, 1),
            [rows] if rows == n => (n, 1),
            [down, across] => (down, across),
            _ => return Err(misfit()),
        };
        let block = match self.0 {
            Some(block) if grid == (n.div_ceil(block.0), m.div_ceil(block.1)) => block,
            _ if grid.0 > 0 && grid.1 > 0 && n.is_multiple_of(grid.0) && m.is_multiple_of(grid.1) => {
                (n / grid.0, m / grid.1)
            }
            _ => return Err(misfit()),
        };
        let scales = scale.to_f32()?;
        let (tables, companions) = (4 * scales.len(), vec![scale_name, format!("{stem}.input_scale")]);
        let format = Arc::new(ScaledFloat8::new((n, m), block, scales, values));
        Ok(Some(Packed { tables, companions, ..Packed::new(DType::Fp8, info.shape.clone(), format) }))
    }
}
