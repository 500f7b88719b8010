//! The metadata of a GGUF file as the fields of a `config.json`, which the family then reads.

use super::file::GgufFile;
use super::names::{dimension, head_dim, names};
use crate::checkpoint::DType;
use crate::limits::{MAX_LAYERS, MAX_SIDE};
use crate::{Error, Result};
use serde_json::{Map, Value, json};

/// Factors of the rotary frequencies, one for each pair of a head: how files keep the scaling of Llama 3.1 and later.
const ROPE_FACTORS: &str = "rope_freqs.weight";

/// The settings of Llama 3.1 to 3.3, whose `factor` alone differs between the models.
const LOW_FREQ_FACTOR: f64 = 1.0;
const HIGH_FREQ_FACTOR: f64 = 4.0;
const ORIGINAL_MAX: f64 = 8192.0;

/// The object of `config.json` for a GGUF file. Errors: a file that is no model ([`names`]); an entry that is missing or asks
/// for something that is not supported, by its key.
pub(crate) fn config(file: &GgufFile) -> Result<Map<String, Value>> {
    let names = names(file)?;
    let architecture = names.family().architecture;
    let key = |key: &str| format!("{architecture}.{key}");
    let within = |name: &str, most: usize| dimension(file, architecture, name, most);
    let tensor = |name: &str| file.header.tensors.iter().find(|t| t.name == name);
    let hidden = within("embedding_length", MAX_SIDE)?;
    let heads = within("attention.head_count", MAX_SIDE)?;
    let kv_heads = file.whole(&key("attention.head_count_kv"))?.unwrap_or(heads as u64);
    if file.whole(&key("expert_count"))?.is_some_and(|n| n > 0) {
        return Err(file.error(&key("expert_count"), "mixtures of experts are not supported"));
    }
    let head_dim = head_dim(file, architecture)?;
    for name in ["attention.value_length", "rope.dimension_count"] {
        if let Some(n) = file.whole(&key(name))?.filter(|&n| n != head_dim as u64) {
            let what = format!("{n} differs from the width of the heads, {head_dim}, which is not supported");
            return Err(file.error(&key(name), what));
        }
    }
    let Some(&[vocab_size, _]) = tensor("token_embd.weight").map(|t| &t.shape[..]) else {
        let hint = ": the file is incomplete".into();
        return Err(Error::NoTensor { path: file.path.clone(), name: "token_embd.weight".into(), hint });
    };
    let token = |name: &str| -> Result<Value> {
        let id = file.whole(&format!("tokenizer.ggml.{name}_token_id"))?;
        Ok(id.filter(|&id| id < vocab_size as u64).map_or(Value::Null, Value::from))
    };
    // a chat ends with a token of its own in many models
    let mut ends = vec![token("eos")?, token("eot")?];
    ends.retain(|id| !id.is_null());
    ends.dedup();
    let biased = |part: &str| tensor(&format!("blk.0.{part}.bias")).is_some();
    let mut out = Map::new();
    let mut set = |name: &str, value: Value| out.insert(name.into(), value);
    set("model_type", json!(names.classes().model_type));
    set("architectures", json!([format!("{}ForCausalLM", names.classes().class_stem)]));
    set("vocab_size", json!(vocab_size));
    set("hidden_size", json!(hidden));
    set("intermediate_size", json!(within("feed_forward_length", MAX_SIDE)?));
    set("num_hidden_layers", json!(within("block_count", MAX_LAYERS)?));
    set("num_attention_heads", json!(heads));
    set("num_key_value_heads", json!(kv_heads));
    set("head_dim", json!(head_dim));
    set("max_position_embeddings", json!(within("context_length", MAX_SIDE)?));
    let eps = file.number(&key("attention.layer_norm_rms_epsilon"))?;
    set("rms_norm_eps", json!(eps.ok_or_else(|| file.error(&key("attention.layer_norm_rms_epsilon"), "is missing"))?));
    set("rope_theta", json!(file.number(&key("rope.freq_base"))?.unwrap_or(10_000.0)));
    set("rope_scaling", rope_scaling(file, architecture, head_dim)?);
    set("tie_word_embeddings", json!(tensor("output.weight").is_none()));
    set("attention_bias", json!(biased("attn_q")));
    set("mlp_bias", json!(biased("ffn_gate")));
    set("bos_token_id", token("bos")?);
    set("eos_token_id", if ends.is_empty() { Value::Null } else { Value::Array(ends) });
    set("pad_token_id", token("padding")?);
    set("dtype", json!("bfloat16"));
    for (name, field) in names.family().numbers {
        if let Some(x) = file.number(&key(name))? {
            let whole = x.fract() == 0.0 && (0.0..1e15).contains(&x);
            set(field, if whole { json!(x as u64) } else { json!(x) });
        }
    }
    (names.family().complete)(&mut out);
    Ok(out)
}

/// `rope_scaling`: from the metadata, or recovered from the factors of Llama 3.1.
fn rope_scaling(file: &GgufFile, architecture: &str, head_dim: usize) -> Result<Value> {
    let key = |key: &str| format!("{architecture}.rope.scaling.{key}");
    if file.header.tensors.iter().any(|t| t.name == ROPE_FACTORS) {
        return llama3(file, architecture, head_dim);
    }
    let kind = file.text(&key("type"))?.unwrap_or("none");
    // an older key of linear scaling
    let linear = file.number(&format!("{architecture}.rope.scale_linear"))?;
    let factor = || -> Result<f64> {
        let found = file.number(&key("factor"))?.or(linear);
        found.ok_or_else(|| file.error(&key("factor"), format!("is missing for scaling `{kind}`")))
    };
    let mut out = Map::new();
    match kind {
        "none" if linear.is_none_or(|f| f == 1.0) => return Ok(Value::Null),
        "none" | "linear" => {
            out.insert("rope_type".into(), json!("linear"));
            out.insert("factor".into(), json!(factor()?));
        }
        "yarn" => {
            out.insert("rope_type".into(), json!("yarn"));
            out.insert("factor".into(), json!(factor()?));
            if let Some(n) = file.whole(&key("original_context_length"))? {
                out.insert("original_max_position_embeddings".into(), json!(n));
            }
            for (name, field) in [
                ("yarn_beta_fast", "beta_fast"),
                ("yarn_beta_slow", "beta_slow"),
                ("yarn_attn_factor", "attention_factor"),
            ] {
                if let Some(x) = file.number(&key(name))? {
                    out.insert(field.into(), json!(x));
                }
            }
        }
        other => {
            let what = format!("`{other}` is not supported; supported: none, linear, yarn");
            return Err(file.error(&key("type"), what));
        }
    }
    Ok(Value::Object(out))
}

/// The settings of Llama 3.1 that give the factors in the file. Errors: factors of another kind of scaling.
fn llama3(file: &GgufFile, architecture: &str, head_dim: usize) -> Result<Value> {
    let wrong = |what: String| Error::Tensor { name: ROPE_FACTORS.into(), what };
    let info = file.header.tensors.iter().find(|t| t.name == ROPE_FACTORS);
    let Some(info) = info.filter(|t| t.dtype == DType::F32 && t.shape == [head_dim / 2]) else {
        return Err(wrong(format!("expected {} values in F32", head_dim / 2)));
    };
    let bytes = &file.map[info.start..info.start + info.bytes];
    let found: Vec<f64> = bytes.as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect();
    let theta = file.number(&format!("{architecture}.rope.freq_base"))?.unwrap_or(10_000.0);
    let factor = found.iter().copied().fold(1.0, f64::max);
    let expected = |i: usize| {
        let wavelength = std::f64::consts::TAU * theta.powf(2.0 * i as f64 / head_dim as f64);
        if wavelength < ORIGINAL_MAX / HIGH_FREQ_FACTOR {
            return 1.0;
        }
        if wavelength > ORIGINAL_MAX / LOW_FREQ_FACTOR {
            return factor;
        }
        let smooth = (ORIGINAL_MAX / wavelength - LOW_FREQ_FACTOR) / (HIGH_FREQ_FACTOR - LOW_FREQ_FACTOR);
        1.0 / ((1.0 - smooth) / factor + smooth)
    };
    let differs = |i: &usize| (found[*i] / expected(*i) - 1.0).abs() >= 1e-4 || !found[*i].is_finite();
    if let Some(i) = (0..found.len()).find(differs) {
        let what = format!(
            "factor {} of frequency {i} is not that of Llama 3.1's scaling ({}): other frequency factors are not supported",
            found[i],
            expected(i)
        );
        return Err(wrong(what));
    }
    Ok(json!({
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": LOW_FREQ_FACTOR,
        "high_freq_factor": HIGH_FREQ_FACTOR,
        "original_max_position_embeddings": ORIGINAL_MAX as usize,
    }))
}
