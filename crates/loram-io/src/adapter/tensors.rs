//! Names in `adapter_model.safetensors`: which tensors belong to LoRA, which are saved modules, which are refused.

use crate::checkpoint::TensorSpec;
use crate::{Checkpoint, DType, Error, Result};
use loram_core::Factors;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

/// File name of the adapter's weights.
pub const ADAPTER_WEIGHTS: &str = "adapter_model.safetensors";

/// The prefix that PEFT puts before the module path.
const PREFIX: &str = "base_model.model.";
/// The adapter's name, which some programs leave in the keys.
const ADAPTER_NAME: &str = "default";

/// A tensor of a fully trained module.
#[derive(Debug, Clone, PartialEq)]
pub struct SavedTensor {
    /// Dimensions.
    pub shape: Vec<usize>,
    /// Values, row-major.
    pub values: Vec<f32>,
}

/// A key of the file.
#[derive(Debug, PartialEq, Eq)]
enum Key {
    A(String),
    B(String),
    /// A tensor of a fully trained module, by its name in the model.
    Saved(String),
    /// A copy of a weight of the base, by its name in the model: PEFT saves it when an output layer is adapted.
    Base(String),
}

/// Understands one key; `saved` are the names of `modules_to_save`. The error says what is not supported.
fn parse_key(key: &str, saved: &[String]) -> std::result::Result<Key, &'static str> {
    let name = key.strip_prefix(PREFIX).unwrap_or(key);
    let path = |suffix: &str| {
        let plain = name.strip_suffix(&format!(".{suffix}.weight"));
        plain.or_else(|| name.strip_suffix(&format!(".{suffix}.{ADAPTER_NAME}.weight"))).map(str::to_string)
    };
    if let Some(path) = path("lora_A") {
        return Ok(Key::A(path));
    }
    if let Some(path) = path("lora_B") {
        return Ok(Key::B(path));
    }
    if name.contains("lora_magnitude_vector") {
        return Err("is DoRA's magnitude vector; DoRA adapters are not supported");
    }
    if name.contains("lora_embedding_") {
        return Err("adapts an embedding; only linear layers are supported");
    }
    if name.contains(".lora_A.") || name.contains(".lora_B.") {
        return Err("is a bias of a LoRA factor (`lora_bias`), which is not supported");
    }
    if name.contains("token_adapter") {
        return Err("holds single trained tokens (`trainable_token_indices`), which are not supported");
    }
    if let Some((module, tensor)) = name.split_once(".base_layer.") {
        return Ok(Key::Base(format!("{module}.{tensor}")));
    }
    // how PEFT wrote saved modules at first
    let name = match name.split_once(".modules_to_save.") {
        Some((module, rest)) => {
            let rest = rest.strip_prefix(ADAPTER_NAME).and_then(|r| r.strip_prefix('.')).unwrap_or(rest);
            format!("{module}.{rest}")
        }
        None => name.to_string(),
    };
    // PEFT takes a module whose path ends with the given name, and all below it
    let modules = name.match_indices('.').map(|(i, _)| &name[..i]);
    if modules.into_iter().any(|m| saved.iter().any(|s| m.ends_with(s.as_str()))) {
        return Ok(Key::Saved(name));
    }
    match name.ends_with(".bias") {
        true => Err("is a trained bias (`bias` other than \"none\"), which is not supported"),
        false => Err("is neither a LoRA tensor nor in a module of `modules_to_save`"),
    }
}

/// The tensors of an adapter file.
pub(super) struct Parts {
    /// By module path.
    pub layers: BTreeMap<String, Factors>,
    /// By name in the model.
    pub saved: BTreeMap<String, SavedTensor>,
    /// By name in the model.
    pub base_copies: BTreeMap<String, SavedTensor>,
    /// The type in which the factors are stored.
    pub dtype: DType,
}

/// Reads all tensors of an adapter file.
pub(super) fn read(path: &Path, saved_modules: &[String]) -> Result<Parts> {
    let file = Checkpoint::open_file(path)?;
    let refuse = |what: String| Error::Adapter { path: path.to_path_buf(), what };
    let mut factors: BTreeMap<String, [Option<crate::TensorRef>; 2]> = BTreeMap::new();
    let (mut saved, mut base_copies) = (BTreeMap::new(), BTreeMap::new());
    let mut dtype = DType::F32;
    for key in file.names() {
        let t = file.tensor(key)?;
        t.check_finite()?;
        match parse_key(key, saved_modules).map_err(|why| refuse(format!("tensor `{key}` {why}")))? {
            Key::A(layer) => {
                dtype = t.dtype();
                factors.entry(layer).or_default()[0] = Some(t);
            }
            Key::B(layer) => factors.entry(layer).or_default()[1] = Some(t),
            Key::Saved(name) => {
                saved.insert(name, SavedTensor { shape: t.shape().to_vec(), values: t.to_f32()? });
            }
            Key::Base(name) => {
                base_copies.insert(name, SavedTensor { shape: t.shape().to_vec(), values: t.to_f32()? });
            }
        }
    }
    let mut layers = BTreeMap::new();
    for (layer, factors) in factors {
        let [Some(a), Some(b)] = factors else {
            return Err(refuse(format!("layer `{layer}` has only one of lora_A and lora_B")));
        };
        let ((r, m), (n, r_b)) = (a.dims2()?, b.dims2()?);
        if r != r_b || r == 0 {
            let what =
                format!("layer `{layer}`: lora_A {:?} and lora_B {:?} do not fit together", a.shape(), b.shape());
            return Err(refuse(what));
        }
        layers.insert(layer, Factors { n, m, r, a: a.to_f32()?, b: b.to_f32()? });
    }
    if layers.is_empty() && saved.is_empty() {
        return Err(refuse("holds no LoRA tensors".into()));
    }
    Ok(Parts { layers, saved, base_copies, dtype })
}

/// A (r, m) and B (n, r) of a layer as they are in the file.
pub(crate) fn factor_specs(path: &str, n: usize, m: usize, r: usize, dtype: DType) -> [TensorSpec; 2] {
    let spec = |x: &str, shape: [usize; 2]| TensorSpec::new(format!("{PREFIX}{path}.lora_{x}.weight"), dtype, &shape);
    [spec("A", [r, m]), spec("B", [n, r])]
}

/// The tensors of an adapter under PEFT's keys.
pub(super) fn encode<'a>(
    layers: &'a BTreeMap<String, Factors>,
    saved: &'a BTreeMap<String, SavedTensor>,
    dtype: DType,
) -> Vec<(TensorSpec, Cow<'a, [f32]>)> {
    let mut out = Vec::new();
    for (path, w) in layers {
        let [a, b] = factor_specs(path, w.n, w.m, w.r, dtype);
        out.push((a, Cow::Borrowed(&w.a[..])));
        out.push((b, Cow::Borrowed(&w.b[..])));
    }
    for (name, t) in saved {
        out.push((TensorSpec::new(format!("{PREFIX}{name}"), dtype, &t.shape), Cow::Borrowed(&t.values[..])));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_all_kinds() {
        let saved = ["classifier".to_string()];
        let parse = |k: &str| parse_key(k, &saved);
        let p = "base_model.model.model.layers.0.self_attn.q_proj";
        let layer = || "model.layers.0.self_attn.q_proj".to_string();
        assert_eq!(parse(&format!("{p}.lora_A.weight")), Ok(Key::A(layer())));
        assert_eq!(parse(&format!("{p}.lora_B.default.weight")), Ok(Key::B(layer())));
        for name in ["classifier.weight", "classifier.dense.bias", "pre_classifier.weight"] {
            assert_eq!(parse(&format!("base_model.model.{name}")), Ok(Key::Saved(name.into())));
        }
        let old = "base_model.model.classifier.modules_to_save.default.out_proj.weight";
        assert_eq!(parse(old), Ok(Key::Saved("classifier.out_proj.weight".into())));
        let refused = |suffix: &str, needle: &str| {
            let e = parse(&format!("{p}.{suffix}")).unwrap_err();
            assert!(e.contains(needle), "{suffix}: {e}");
        };
        refused("lora_magnitude_vector", "DoRA");
        refused("lora_embedding_A", "embedding");
        refused("lora_B.bias", "lora_bias");
        refused("token_adapter.trainable_tokens_delta", "trainable_token_indices");
        let copy = "base_model.model.lm_head.base_layer.weight";
        assert_eq!(parse(copy), Ok(Key::Base("lm_head.weight".into())));
        refused("bias", "trained bias");
        refused("weight", "modules_to_save");
    }
}
