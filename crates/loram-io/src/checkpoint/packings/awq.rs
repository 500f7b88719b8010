//! AWQ (version `gemm`): `X.qweight` I32 (m, n/8) holds codes of 4 bits along the outputs, eight to a word in the order 0 2 4 6 1 3 5 7,
//! `X.qzeros` I32 (groups, n/8) zeros in the same order, and `X.scales` F16 (groups, n).

use super::super::dtype::DType;
use super::super::header::TensorInfo;
use super::super::tensor::TensorRef;
use super::packing::{Packed, Packing};
use super::repacked::Codes;
use super::tables::{check_len, error, table};
use crate::Result;
use crate::config::AwqSettings;
use loram_core::ValueType;

/// The place in a word of each of eight neighbours.
const PLACES: [usize; 8] = [0, 4, 1, 5, 2, 6, 3, 7];

/// Weights of AWQ.
#[derive(Debug)]
pub(super) struct Awq(pub AwqSettings);

impl Packing for Awq {
    fn find(
        &self,
        name: &str,
        info: &TensorInfo,
        tensor: &(dyn Fn(&str) -> Option<TensorRef> + Sync),
    ) -> Result<Option<Packed>> {
        let Some(stem) = name.strip_suffix(".qweight") else { return Ok(None) };
        let (&[m, words], DType::I32) = (&info.shape[..], info.dtype) else {
            return Err(error(name, format!("expected a matrix in I32, found {:?} in {}", info.shape, info.dtype)));
        };
        let n = words * 8;
        let size = self.0.group_size.unwrap_or(m).max(1);
        let groups = m.div_ceil(size);
        if m == 0 || n == 0 || !m.is_multiple_of(2) || !size.is_multiple_of(2) {
            return Err(error(name, format!("a weight ({n}, {m}) in groups of {size} cannot be that of a layer")));
        }
        let beside = |table: &str| format!("{stem}.{table}");
        let scales = table(name, &beside("scales"), &[DType::F16, DType::BF16, DType::F32], tensor)?;
        check_len(&scales, groups * n, "the weight")?;
        let zeros = table(name, &beside("qzeros"), &[DType::I32], tensor)?;
        check_len(&zeros, groups * words, "the weight")?;
        let weight = tensor(name).expect("it was found by this name");
        let nibble = |t: &TensorRef, row: usize, j: usize| {
            let at = 4 * (row * words + j / 8);
            let word = u32::from_le_bytes(*t.bytes()[at..].first_chunk().expect("in range"));
            (word >> (4 * PLACES[j % 8]) & 15) as u8
        };
        let values = match scales.dtype() {
            DType::F16 => ValueType::F16,
            DType::BF16 => ValueType::BF16,
            _ => ValueType::F32,
        };
        let packed = Codes {
            n,
            m,
            bits: 4,
            size,
            of_input: None,
            code: &|i, j| nibble(&weight, i, j),
            zero: &|g, j| i16::from(nibble(&zeros, g, j)),
            scales: &scales.to_f32()?,
            values,
            companions: ["qzeros", "scales"].map(beside).to_vec(),
        }
        .packed(beside("weight"));
        weight.release();
        Ok(Some(packed))
    }
}
