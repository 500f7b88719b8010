//! GPTQ: `X.qweight` I32 (m·bits/32, n) holds codes down the inputs, `X.qzeros` I32 (groups, n·bits/32) zeros, less 1 in the first version of
//! the format, `X.scales` F16 (groups, n), and `X.g_idx` I32 (m) the group of each input, which act-order permutes.

use super::super::dtype::DType;
use super::super::header::TensorInfo;
use super::super::tensor::TensorRef;
use super::packing::{Packed, Packing};
use super::repacked::Codes;
use super::tables::{check_len, error, table};
use crate::Result;
use crate::config::GptqSettings;
use loram_core::ValueType;

/// Weights of GPTQ.
#[derive(Debug)]
pub(super) struct Gptq(pub GptqSettings);

impl Packing for Gptq {
    fn find(
        &self,
        name: &str,
        info: &TensorInfo,
        tensor: &(dyn Fn(&str) -> Option<TensorRef> + Sync),
    ) -> Result<Option<Packed>> {
        let Some(stem) = name.strip_suffix(".qweight") else { return Ok(None) };
        let GptqSettings { bits, group_size, zeros_less_one } = self.0;
        let in_word = 32 / bits;
        let (&[words, n], DType::I32) = (&info.shape[..], info.dtype) else {
            return Err(error(name, format!("expected a matrix in I32, found {:?} in {}", info.shape, info.dtype)));
        };
        let m = words * in_word;
        let size = group_size.unwrap_or(m).max(1);
        let groups = m.div_ceil(size);
        if m == 0 || n == 0 || !n.is_multiple_of(in_word) || !size.is_multiple_of(2) {
            let what = format!("a weight ({n}, {m}) in groups of {size} cannot be that of a layer in {bits} bits");
            return Err(error(name, what));
        }
        let beside = |table: &str| format!("{stem}.{table}");
        let scales = table(name, &beside("scales"), &[DType::F16, DType::BF16, DType::F32], tensor)?;
        check_len(&scales, groups * n, "the weight")?;
        let zeros = table(name, &beside("qzeros"), &[DType::I32], tensor)?;
        check_len(&zeros, groups * n / in_word, "the weight")?;
        let of_input = match tensor(&beside("g_idx")) {
            None => None,
            Some(index) => {
                check_len(&index, m, "the weight")?;
                let index = index.to_i64()?;
                if let Some(bad) = index.iter().find(|g| !(0..groups as i64).contains(g)) {
                    let what = format!("names group {bad} of {groups}: the file is damaged");
                    return Err(error(&beside("g_idx"), what));
                }
                let plain = index.iter().enumerate().all(|(i, g)| *g as usize == i / size);
                (!plain).then(|| index.iter().map(|g| *g as u32).collect())
            }
        };
        let weight = tensor(name).expect("it was found by this name");
        let mask = (1u32 << bits) - 1;
        let word = |t: &TensorRef, at: usize| u32::from_le_bytes(*t.bytes()[4 * at..].first_chunk().expect("in range"));
        let code = |i: usize, j: usize| (word(&weight, i / in_word * n + j) >> (bits * (i % in_word)) & mask) as u8;
        let zero = |g: usize, j: usize| {
            let stored = word(&zeros, g * (n / in_word) + j / in_word) >> (bits * (j % in_word)) & mask;
            stored as i16 + i16::from(zeros_less_one)
        };
        let values = match scales.dtype() {
            DType::F16 => ValueType::F16,
            DType::BF16 => ValueType::BF16,
            _ => ValueType::F32,
        };
        let packed = Codes {
            n,
            m,
            bits,
            size,
            of_input,
            code: &code,
            zero: &zero,
            scales: &scales.to_f32()?,
            values,
            companions: ["qzeros", "scales", "g_idx"].map(beside).to_vec(),
        }
        .packed(beside("weight"));
        weight.release();
        Ok(Some(packed))
    }
}
