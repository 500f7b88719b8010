//! `quantization_config` of `config.json`: how the weights of a checkpoint are quantised.

use super::fields::Fields;
use crate::Result;
use serde_json::{Map, Value};
use std::path::Path;

/// How the weights of a checkpoint are quantised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quantisation {
    /// In NF4 or FP4; what they are is in the tensors.
    Bitsandbytes,
    /// GPTQ.
    Gptq(GptqSettings),
    /// AWQ.
    Awq(AwqSettings),
    /// Float8, with the size (height, width) of blocks.
    Float8(Option<(usize, usize)>),
    /// MXFP4, of the experts of a mixture.
    Mxfp4,
}

/// Settings of GPTQ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GptqSettings {
    /// 4 or 8.
    pub bits: usize,
    /// Inputs of a group; all for `None`.
    pub group_size: Option<usize>,
    /// Stored zeros are less by 1: the first version of the format.
    pub zeros_less_one: bool,
}

/// Settings of AWQ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AwqSettings {
    /// Inputs of a group; all for `None`.
    pub group_size: Option<usize>,
}

/// The methods that are read, for messages.
const SUPPORTED: &str =
    "supported are bitsandbytes in 4 bits, gptq, awq, fp8 and mxfp4; otherwise use the unquantised model";

impl Quantisation {
    /// The quantisation that a `config.json` names, if any. Errors: one that is not supported, by name; a malformed field.
    pub fn of(config: &Map<String, Value>, path: &Path) -> Result<Option<Quantisation>> {
        let Some(map) = (Fields { map: config, path, prefix: "" }).object("quantization_config")? else {
            return Ok(None);
        };
        let f = Fields { map, path, prefix: "quantization_config." };
        let method = f.opt_str("quant_method")?.unwrap_or("unknown method");
        let group_size = || match f.get("group_size").and_then(Value::as_i64) {
            Some(-1) => Ok(None),
            _ => f
                .opt_usize("group_size")?
                .filter(|n| *n > 0)
                .map_or_else(|| Err(f.error("group_size", "expected -1 or a whole number above 0")), |n| Ok(Some(n))),
        };
        let refuse = |field: &str, what: String| Err(f.error(field, format!("{what}: {SUPPORTED}")));
        Ok(Some(match method {
            "bitsandbytes" if f.bool("load_in_8bit", false)? => {
                return refuse("load_in_8bit", "weights of bitsandbytes in 8 bits are not supported".into());
            }
            "bitsandbytes" => Quantisation::Bitsandbytes,
            "gptq" => {
                let bits = f.usize("bits", 4)?;
                if !matches!(bits, 4 | 8) {
                    return refuse("bits", format!("GPTQ in {bits} bits is not supported, only in 4 and 8"));
                }
                let format = f.opt_str("checkpoint_format")?.unwrap_or("gptq");
                let zeros_less_one = match format {
                    "gptq" => true,
                    "gptq_v2" => false,
                    other => {
                        return refuse(
                            "checkpoint_format",
                            format!("`{other}` is not supported, only gptq and gptq_v2"),
                        );
                    }
                };
                Quantisation::Gptq(GptqSettings { bits, group_size: group_size()?, zeros_less_one })
            }
            "awq" => {
                let bits = f.usize("bits", 4)?;
                let version = f.opt_str("version")?.or(f.opt_str("format")?).unwrap_or("gemm").to_ascii_lowercase();
                if bits != 4 || version != "gemm" {
                    return refuse(
                        "version",
                        format!("AWQ in {bits} bits and version `{version}` is not supported, only 4 and gemm"),
                    );
                }
                Quantisation::Awq(AwqSettings { group_size: group_size()? })
            }
            "fp8" => {
                let block = match f.get("weight_block_size").map(|v| v.as_array().map_or(&[][..], Vec::as_slice)) {
                    None => None,
                    Some([height, width]) => {
                        let side = |v: &Value| v.as_u64().filter(|n| *n > 0).and_then(|n| usize::try_from(n).ok());
                        side(height).zip(side(width))
                    }
                    Some(_) => return Err(f.error("weight_block_size", "expected a list of two numbers above 0")),
                };
                Quantisation::Float8(block)
            }
            "mxfp4" => Quantisation::Mxfp4,
            other => return refuse("quant_method", format!("quantised weights ({other}) are not supported")),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn methods_are_read_or_refused_by_name() {
        let of = |q: Value| {
            let map = json!({ "quantization_config": q });
            Quantisation::of(map.as_object().expect("an object"), Path::new("config.json")).map_err(|e| e.to_string())
        };
        let gptq = |bits, group_size, zeros_less_one| {
            Ok(Some(Quantisation::Gptq(GptqSettings { bits, group_size, zeros_less_one })))
        };
        assert_eq!(of(Value::Null), Ok(None));
        assert_eq!(
            of(json!({"quant_method": "bitsandbytes", "load_in_4bit": true})),
            Ok(Some(Quantisation::Bitsandbytes))
        );
        assert_eq!(of(json!({"quant_method": "gptq", "bits": 4, "group_size": -1})), gptq(4, None, true));
        let v2 = json!({"quant_method": "gptq", "bits": 8, "group_size": 32, "checkpoint_format": "gptq_v2"});
        assert_eq!(of(v2), gptq(8, Some(32), false));
        let awq = json!({"quant_method": "awq", "bits": 4, "group_size": 128, "version": "GEMM"});
        assert_eq!(of(awq), Ok(Some(Quantisation::Awq(AwqSettings { group_size: Some(128) }))));
        let fp8 = json!({"quant_method": "fp8", "weight_block_size": [128, 64]});
        assert_eq!(of(fp8), Ok(Some(Quantisation::Float8(Some((128, 64))))));
        assert_eq!(of(json!({"quant_method": "mxfp4"})), Ok(Some(Quantisation::Mxfp4)));
        for (q, said) in [
            (json!({"quant_method": "bitsandbytes", "load_in_8bit": true}), "in 8 bits"),
            (json!({"quant_method": "gptq", "bits": 3, "group_size": 32}), "GPTQ in 3 bits"),
            (json!({"quant_method": "gptq", "bits": 4}), "quantization_config.group_size"),
            (json!({"quant_method": "gptq", "bits": 4, "group_size": 32, "checkpoint_format": "marlin"}), "`marlin`"),
            (json!({"quant_method": "awq", "bits": 4, "group_size": 64, "version": "gemv"}), "`gemv`"),
            (json!({"quant_method": "fp8", "weight_block_size": [128]}), "weight_block_size"),
            (json!({"quant_method": "hqq"}), "(hqq) are not supported"),
            (json!({}), "(unknown method)"),
            (json!([]), "expected an object"),
        ] {
            let e = of(q).expect_err(said);
            assert!(e.contains(said) && e.contains("config.json"), "{e}");
        }
    }
}
