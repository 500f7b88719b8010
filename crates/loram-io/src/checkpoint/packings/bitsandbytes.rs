//! NF4 and FP4 of bitsandbytes, as transformers and PEFT save them: `X.weight` holds the codes, `X.weight.absmax` the scales of blocks,
//! `X.weight.quant_state.bitsandbytes__nf4` (or `fp4`) JSON in bytes, and for scales that are quantised themselves `X.weight.nested_absmax` and
//! `X.weight.nested_quant_map`.

use super::super::dtype::DType;
use super::super::header::TensorInfo;
use super::super::tensor::TensorRef;
use super::packing::{Packed, Packing};
use super::tables::{check_len, error, floats, shared, table};
use crate::Result;
use loram_core::{BlockScales, FourBit, FourBitType, ValueType};
use serde::Deserialize;
use std::sync::Arc;

/// Sizes of blocks in bitsandbytes.
const BLOCKS: [usize; 8] = [32, 64, 128, 256, 512, 1024, 2048, 4096];

/// How far the levels in a file may be from those of its type: old versions wrote fewer digits.
const TOLERANCE: f32 = 1e-3;

/// 4-bit weights of bitsandbytes.
#[derive(Debug)]
pub(super) struct FourBits;

/// The JSON of a weight.
#[derive(Debug, Deserialize)]
struct QuantState {
    quant_type: String,
    blocksize: usize,
    dtype: String,
    shape: Vec<usize>,
    nested_blocksize: Option<usize>,
    nested_dtype: Option<String>,
    nested_offset: Option<f64>,
}

impl Packing for FourBits {
    fn find(
        &self,
        name: &str,
        info: &TensorInfo,
        tensor: &(dyn Fn(&str) -> Option<TensorRef> + Sync),
    ) -> Result<Option<Packed>> {
        let state =
            |kind: FourBitType| format!("{name}.quant_state.bitsandbytes__{}", kind.name().to_ascii_lowercase());
        let kinds = [FourBitType::Nf4, FourBitType::Fp4];
        let Some((kind, state)) = kinds.into_iter().find_map(|kind| Some((kind, tensor(&state(kind))?))) else {
            // a table without the state that says what it is
            return match tensor(&format!("{name}.absmax")) {
                Some(_) => Err(error(name, format!("its table `{name}.quant_state.bitsandbytes__nf4` is missing"))),
                None => Ok(None),
            };
        };
        let of_state = |what: String| error(state.name(), format!("{what}: the file is damaged"));
        if state.dtype() != DType::U8 {
            return Err(of_state(format!("expected JSON in U8, found {}", state.dtype())));
        }
        let settings: QuantState =
            serde_json::from_slice(state.bytes()).map_err(|e| of_state(format!("no valid quant_state: {e}")))?;
        if FourBitType::parse(&settings.quant_type) != Some(kind) {
            let what = format!("quant_type is `{}` in the state of {}", settings.quant_type, kind.name());
            return Err(of_state(what));
        }
        let Some(values) = ValueType::from_torch(&settings.dtype) else {
            return Err(of_state(format!("dtype `{}` is not float32, float16 or bfloat16", settings.dtype)));
        };
        if !BLOCKS.contains(&settings.blocksize) {
            return Err(of_state(format!("blocksize {} is none of {BLOCKS:?}", settings.blocksize)));
        }
        let &[n, m] = &settings.shape[..] else {
            return Err(of_state(format!("shape {:?} is not that of a matrix", settings.shape)));
        };
        let Some(count) = n.checked_mul(m).filter(|count| *count == 2 * info.bytes) else {
            let what = format!("{} bytes do not hold a weight {:?} in {}", info.bytes, settings.shape, kind.name());
            return Err(error(name, format!("{what}: the file is damaged")));
        };
        if !m.is_multiple_of(2) {
            return Err(error(name, format!("rows of {m} values: an odd number of 4-bit values is not supported")));
        }
        let beside = |table: &str| format!("{name}.{table}");
        let levels: [f32; 16] = floats(&table(name, &beside("quant_map"), &[DType::F32], tensor)?)?;
        if levels.iter().zip(kind.levels()).any(|(found, level)| (found - level).abs() > TOLERANCE) {
            return Err(error(&beside("quant_map"), format!("the levels are not those of {}", kind.name())));
        }
        let (scales, nested) = scales(name, &settings, count.div_ceil(settings.blocksize), tensor)?;
        let mut companions = vec![state.name().to_string(), beside("absmax"), beside("quant_map")];
        companions[0] = format!("{name}.quant_state.bitsandbytes__{}", kind.name().to_ascii_lowercase());
        if nested {
            companions.extend(["nested_absmax", "nested_quant_map"].map(beside));
        }
        let dtype = match kind {
            FourBitType::Nf4 => DType::Nf4,
            FourBitType::Fp4 => DType::Fp4,
        };
        let tables = scales.bytes();
        let format = Arc::new(FourBit::new(kind, settings.blocksize, values, scales));
        Ok(Some(Packed { tables, companions, ..Packed::new(dtype, settings.shape, format) }))
    }
}

/// The scales of `blocks` blocks, and whether they are quantised.
fn scales(
    name: &str,
    settings: &QuantState,
    blocks: usize,
    tensor: &(dyn Fn(&str) -> Option<TensorRef> + Sync),
) -> Result<(BlockScales, bool)> {
    let beside = |table: &str| format!("{name}.{table}");
    let nested = settings.nested_blocksize.is_some();
    let types: &[DType] = if nested { &[DType::U8] } else { &[DType::F32] };
    let absmax = table(name, &beside("absmax"), types, tensor)?;
    check_len(&absmax, blocks, "the weight")?;
    let Some(block) = settings.nested_blocksize else { return Ok((BlockScales::F32(shared(absmax)), false)) };
    let (Some(offset), Some("float32"), true) = (settings.nested_offset, settings.nested_dtype.as_deref(), block > 0)
    else {
        let what = "the state of quantised scales needs nested_blocksize, nested_offset, and nested_dtype `float32`";
        return Err(error(name, format!("{what}: the file is damaged")));
    };
    let nested_absmax = table(name, &beside("nested_absmax"), &[DType::F32], tensor)?;
    check_len(&nested_absmax, blocks.div_ceil(block), "the table of scales")?;
    let map = floats(&table(name, &beside("nested_quant_map"), &[DType::F32], tensor)?)?;
    let (codes, scales) = (shared(absmax), shared(nested_absmax));
    Ok((BlockScales::Nested { codes, scales, block, map: Box::new(map), offset: offset as f32 }, true))
}
