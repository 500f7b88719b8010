//! Quantisation of a checkpoint while it is read, as transformers' `load_in_4bit` does with bitsandbytes.

use crate::checkpoint::{DType, FourBitName, LoadIn4Bit, Packed};
use crate::family::TensorNames;
use crate::{Checkpoint, Error, ModelConfig, Result, TensorRef, linear_modules};
use loram_core::{
    BlockScales, FourBit, FourBitOptions, FourBitType, SharedBytes, ValueType, dynamic_map, nested_scales,
    quantise_4bit,
};
use rayon::prelude::*;
use std::sync::Arc;

/// The type with a name.
fn kind(name: FourBitName) -> FourBitType {
    match name {
        FourBitName::Nf4 => FourBitType::Nf4,
        FourBitName::Fp4 => FourBitType::Fp4,
    }
}

/// Values that are read at a time: whole blocks, and few enough for a core's cache.
const PIECE: usize = FourBitOptions::BLOCK << 10;

impl LoadIn4Bit {
    /// The checkpoint with the weights of its linear layers in 4 bits, in memory; embeddings, output layers, vectors and skipped modules
    /// stay mapped. Values and bytes are those of bitsandbytes on a CPU. Weights are read one by one on each thread, and the pages of the
    /// unquantised ones let go, so that no more than the quantised model and one piece of a weight for each thread are in memory.
    ///
    /// Errors: weights that are quantised already; a type or shape that bitsandbytes does not quantise; no layer at all.
    pub fn apply(&self, ckpt: Checkpoint, cfg: &ModelConfig) -> Result<Checkpoint> {
        if let Some((name, dtype)) = ckpt.quantised() {
            let what = format!(
                "{}: load_in_4bit: the weights are quantised already (`{name}` is {dtype}): leave the key out",
                ckpt.root().display()
            );
            return Err(Error::Usage(what));
        }
        let names = TensorNames::find(&ckpt, cfg)?;
        let paths = linear_modules(&ckpt, Some(cfg))?;
        let paths = paths.into_iter().filter(|l| !l.output_layer && !self.skips(&l.path)).map(|l| l.path);
        let weights: Vec<(String, TensorRef)> = paths
            .map(|path| names.stored(&format!("{path}.weight")))
            .filter(|name| ckpt.contains(name))
            .map(|name| Ok((name.clone(), ckpt.tensor(&name)?)))
            .collect::<Result<_>>()?;
        if weights.is_empty() {
            let what = format!("{}: load_in_4bit: there is no layer to quantise", ckpt.root().display());
            return Err(Error::Usage(what));
        }
        let packed: Vec<Result<Packed>> = weights.par_iter().map(|(_, weight)| self.pack(weight)).collect();
        let packed = packed.into_iter().zip(weights).map(|(packed, (name, _))| Ok((name, packed?)));
        ckpt.with_packed(packed.collect::<Result<_>>()?, self)
    }

    /// The weight of a layer in 4 bits.
    fn pack(&self, weight: &TensorRef) -> Result<Packed> {
        let (kind, (n, m)) = (kind(self.bnb_4bit_quant_type), weight.dims2()?);
        let refuse = |what: String| Err(Error::Tensor { name: weight.name().into(), what });
        let values = match weight.dtype() {
            DType::F32 => ValueType::F32,
            DType::F16 => ValueType::F16,
            DType::BF16 => ValueType::BF16,
            other => return refuse(format!("load_in_4bit: weights in {other} cannot be quantised to 4 bits")),
        };
        if !m.is_multiple_of(2) {
            return refuse(format!(
                "load_in_4bit: rows of {m} values, an odd number, cannot be packed: skip the module"
            ));
        }
        let stored = weight.in_file()?;
        let mut codes = vec![0u8; n * m / 2];
        let mut scales = vec![0f32; (n * m).div_ceil(FourBitOptions::BLOCK)];
        let (mut piece, mut buffer) = (vec![0f32; PIECE.min(n * m)], Vec::new());
        let places = codes.chunks_mut(PIECE / 2).zip(scales.chunks_mut(PIECE / FourBitOptions::BLOCK));
        for (i, (codes, scales)) in places.enumerate() {
            let at = i * PIECE..(i * PIECE + 2 * codes.len()).min(n * m);
            let values = &mut piece[..at.len()];
            stored.try_read(at, values, &mut buffer)?;
            quantise_4bit(kind, values, codes, scales);
        }
        if let Some(bad) = scales.iter().position(|s| !s.is_finite()) {
            let row = bad * FourBitOptions::BLOCK / m.max(1);
            return refuse(format!("NaN or infinite values at row {row} or soon after: the weights are damaged"));
        }
        let scales = match self.bnb_4bit_use_double_quant {
            false => BlockScales::F32(in_memory(scales)),
            true => {
                let nested = nested_scales(&scales, None);
                BlockScales::Nested {
                    codes: Arc::new(nested.codes),
                    scales: in_memory(nested.scales),
                    block: FourBitOptions::NESTED_BLOCK,
                    map: Box::new(*dynamic_map()),
                    offset: nested.offset,
                }
            }
        };
        let dtype = match kind {
            FourBitType::Nf4 => DType::Nf4,
            FourBitType::Fp4 => DType::Fp4,
        };
        let tables = scales.bytes();
        let format = Arc::new(FourBit::new(kind, FourBitOptions::BLOCK, values, scales));
        Ok(Packed { bytes: Some(Arc::new(codes)), tables, ..Packed::new(dtype, vec![n, m], format) })
    }
}

/// Scales as bytes.
fn in_memory(scales: Vec<f32>) -> SharedBytes {
    struct Floats(Vec<f32>);
    impl AsRef<[u8]> for Floats {
        fn as_ref(&self) -> &[u8] {
            bytemuck::cast_slice(&self.0)
        }
    }
    Arc::new(Floats(scales))
}
