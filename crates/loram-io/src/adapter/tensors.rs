//! Names in `adapter_model.safetensors`: which tensors belong to LoRA, which are saved modules, which are refused.

use crate::checkpoint::TensorSpec;
use crate::checkpoint::wrappers::{self, Unwrapped, unwrap_names};
use crate::layer_weight::transposed;
use crate::{Checkpoint, DType, Error, Result, TensorRef};
use loram_core::Factors;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// File name of the adapter's weights.
pub const ADAPTER_WEIGHTS: &str = "adapter_model.safetensors";

/// The prefix that PEFT puts before the module path.
const PREFIX: &str = "base_model.model.";
/// The adapter's name, which some programs leave in the keys.
const ADAPTER_NAME: &str = "default";
/// Single trained rows of a module.
const TOKENS: &str = "token_adapter.trainable_tokens_delta";

/// A tensor of a fully trained module.
#[derive(Debug, Clone, PartialEq)]
pub struct SavedTensor {
    /// Dimensions.
    pub shape: Vec<usize>,
    /// Values, row-major.
    pub values: Vec<f32>,
}

impl SavedTensor {
    fn of(t: &TensorRef) -> Result<SavedTensor> {
        Ok(SavedTensor { shape: t.shape().to_vec(), values: t.to_f32()? })
    }
}

/// A key of the file.
#[derive(Debug, PartialEq, Eq)]
enum Key {
    A(String),
    B(String),
    /// Bᵀ of an embedding.
    EmbeddingA(String),
    /// Aᵀ of an embedding.
    EmbeddingB(String),
    /// The bias of a layer's B.
    BiasB(String),
    /// Single trained rows of a module.
    Tokens(String),
    /// A tensor of a fully trained module, by its name in the model.
    Saved(String),
    /// A copy of a weight of the base, by its name in the model: PEFT saves it when an output layer is adapted.
    Base(String),
}

/// Understands one key; `saved` are the names of `modules_to_save`. The error says what is not supported.
fn parse_key(key: &str, saved: &[String]) -> std::result::Result<Key, &'static str> {
    let mut name = key;
    while let Some(rest) = name.strip_prefix(PREFIX) {
        name = rest;
    }
    // `<path>.<tensor>`, perhaps with the adapter's name before or after the last part
    let path = |tensor: &str, last: &str| {
        let whole = |with: String| name.strip_suffix(&with).map(str::to_string);
        let (dot, tail) = if last.is_empty() { ("", String::new()) } else { (".", format!(".{last}")) };
        whole(format!(".{tensor}{tail}")).or_else(|| whole(format!(".{tensor}.{ADAPTER_NAME}{dot}{last}")))
    };
    type Kind = (&'static str, &'static str, fn(String) -> Key);
    let kinds: [Kind; 6] = [
        ("lora_A", "weight", Key::A),
        ("lora_B", "weight", Key::B),
        ("lora_embedding_A", "", Key::EmbeddingA),
        ("lora_embedding_B", "", Key::EmbeddingB),
        ("lora_B", "bias", Key::BiasB),
        (TOKENS, "", Key::Tokens),
    ];
    if let Some(found) = kinds.iter().find_map(|(tensor, last, key)| path(tensor, last).map(key)) {
        return Ok(found);
    }
    if name.contains("lora_magnitude_vector") {
        return Err("is DoRA's magnitude vector; DoRA adapters are not supported");
    }
    if name.contains(".lora_") {
        return Err("is a LoRA tensor of a kind that is not known");
    }
    if let Some((module, tensor)) = name.split_once(".base_layer.") {
        // under trained rows, too
        let module = module.strip_suffix(".token_adapter").unwrap_or(module);
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
#[derive(Default)]
pub(super) struct Parts {
    /// By module path.
    pub layers: BTreeMap<String, Factors>,
    /// Those of `layers` that are embeddings.
    pub embeddings: BTreeSet<String>,
    /// Biases of B, by module path.
    pub biases: BTreeMap<String, Vec<f32>>,
    /// Single trained rows (rows, width), by module path.
    pub tokens: BTreeMap<String, SavedTensor>,
    /// By name in the model.
    pub saved: BTreeMap<String, SavedTensor>,
    /// By name in the model.
    pub base_copies: BTreeMap<String, SavedTensor>,
    /// The type in which the factors are stored.
    pub dtype: Option<DType>,
}

/// Reads all tensors of an adapter file; `tied` is `ensure_weight_tying`, with which PEFT writes the weight of a saved embedding
/// a second time under the name of the head.
pub(super) fn read(path: &Path, saved_modules: &[String], tied: bool) -> Result<Parts> {
    let file = Checkpoint::open_file(path)?;
    let refuse = |what: String| Error::Adapter { path: path.to_path_buf(), what };
    let mut factors: BTreeMap<String, [Option<TensorRef>; 2]> = BTreeMap::new();
    let mut parts = Parts::default();
    let stored: Vec<&str> = file.names().collect();
    let Unwrapped { names, removed } = unwrap_names(stored.iter().copied());
    let mut wrapped = false;
    let mut again = Vec::new();
    for (key, name) in stored.into_iter().zip(names) {
        wrapped |= key.strip_prefix(PREFIX).unwrap_or(key) != name;
        let t = file.tensor(key)?;
        t.check_finite()?;
        let twice = |layer: &str| refuse(format!("tensor `{key}`: there is another one for `{layer}`"));
        let mut factor = |layer: String, place: usize| {
            let slot = &mut factors.entry(layer.clone()).or_default()[place];
            if slot.is_some() {
                return Err(twice(&layer));
            }
            parts.dtype.get_or_insert(t.dtype());
            *slot = Some(t.clone());
            Ok(())
        };
        let parsed = match parse_key(&name, saved_modules) {
            Err(why) if tied && name.ends_with(".weight") => {
                again.push((key, name, why, SavedTensor::of(&t)?));
                continue;
            }
            other => other.map_err(|why| refuse(format!("tensor `{key}` {why}")))?,
        };
        match parsed {
            Key::A(layer) => factor(layer, 0)?,
            Key::B(layer) => factor(layer, 1)?,
            Key::EmbeddingA(layer) => {
                factor(layer.clone(), 0)?;
                parts.embeddings.insert(layer);
            }
            Key::EmbeddingB(layer) => {
                factor(layer.clone(), 1)?;
                parts.embeddings.insert(layer);
            }
            Key::BiasB(layer) => {
                if parts.biases.insert(layer.clone(), t.to_f32()?).is_some() {
                    return Err(twice(&layer));
                }
            }
            Key::Tokens(module) => {
                parts.dtype.get_or_insert(t.dtype());
                if parts.tokens.insert(module.clone(), SavedTensor::of(&t)?).is_some() {
                    return Err(twice(&module));
                }
            }
            Key::Saved(name) => {
                if parts.saved.insert(name.clone(), SavedTensor::of(&t)?).is_some() {
                    return Err(twice(&name));
                }
            }
            Key::Base(name) => {
                parts.base_copies.insert(name, SavedTensor::of(&t)?);
            }
        }
    }
    for (key, name, why, tensor) in again {
        if !parts.saved.values().any(|saved| *saved == tensor) {
            return Err(refuse(format!("tensor `{key}` {why}")));
        }
        let name = name.strip_prefix(PREFIX).unwrap_or(&name).to_string();
        parts.saved.insert(name, tensor);
    }
    if wrapped {
        tracing::warn!("{}: removed {} from the names of the tensors", path.display(), wrappers::list(&removed));
    }
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
        let as_stored = Factors { n, m, r, a: a.to_f32()?, b: b.to_f32()? };
        let embedding = parts.embeddings.contains(&layer);
        parts.layers.insert(layer, if embedding { turned(&as_stored) } else { as_stored });
    }
    for (layer, bias) in &parts.biases {
        match parts.layers.get(layer).map(|f| f.n) {
            Some(n) if n == bias.len() && !parts.embeddings.contains(layer) => {}
            Some(n) => return Err(refuse(format!("layer `{layer}`: lora_B.bias has {} values, not {n}", bias.len()))),
            None => return Err(refuse(format!("layer `{layer}` has a bias of lora_B but no lora_B"))),
        }
    }
    if parts.layers.is_empty() && parts.saved.is_empty() && parts.tokens.is_empty() {
        return Err(refuse("holds no LoRA tensors".into()));
    }
    Ok(parts)
}

/// The factors of an embedding between memory, W + s·B·A with W (rows, width), and PEFT's file, where the embedding is
/// the transposed: (B·A)ᵀ = Aᵀ·Bᵀ. Both ways.
fn turned(f: &Factors) -> Factors {
    let Factors { n, m, r, ref a, ref b } = *f;
    Factors { n: m, m: n, r, a: transposed(b, n, r), b: transposed(a, r, m) }
}

/// The two factors of a module in the file.
pub(crate) struct FactorFile<'a> {
    pub path: &'a str,
    pub n: usize,
    pub m: usize,
    pub r: usize,
    pub embedding: bool,
}

impl FactorFile<'_> {
    /// `lora_A` and `lora_B` as they are in the file.
    pub fn specs(&self, dtype: DType) -> [TensorSpec; 2] {
        let FactorFile { path, n, m, r, embedding } = *self;
        let spec = |name: &str, shape: [usize; 2]| TensorSpec::new(format!("{PREFIX}{path}.{name}"), dtype, &shape);
        match embedding {
            false => [spec("lora_A.weight", [r, m]), spec("lora_B.weight", [n, r])],
            true => [spec("lora_embedding_A", [r, n]), spec("lora_embedding_B", [m, r])],
        }
    }

    /// The values of the two tensors.
    pub fn values<'f>(&self, f: &'f Factors) -> [Cow<'f, [f32]>; 2] {
        match self.embedding {
            false => [Cow::Borrowed(&f.a[..]), Cow::Borrowed(&f.b[..])],
            true => {
                let f = turned(f);
                [Cow::Owned(f.a), Cow::Owned(f.b)]
            }
        }
    }

    /// Reads the factors from a file.
    pub fn read(&self, file: &Checkpoint) -> Result<Factors> {
        let [a, b] = self.specs(DType::F32).map(|spec| file.tensor(&spec.name));
        let (a, b) = (a?, b?);
        let ((r, m), (n, _)) = (a.dims2()?, b.dims2()?);
        let as_stored = Factors { n, m, r, a: a.to_f32()?, b: b.to_f32()? };
        Ok(if self.embedding { turned(&as_stored) } else { as_stored })
    }
}

/// Contents of an adapter file, as in [`Parts`].
pub(super) struct Contents<'a> {
    pub layers: &'a BTreeMap<String, Factors>,
    pub embeddings: &'a BTreeSet<String>,
    pub biases: &'a BTreeMap<String, Vec<f32>>,
    pub tokens: &'a BTreeMap<String, SavedTensor>,
    pub saved: &'a BTreeMap<String, SavedTensor>,
}

/// The tensors of an adapter under PEFT's keys.
pub(super) fn encode<'a>(contents: &Contents<'a>, dtype: DType) -> Vec<(TensorSpec, Cow<'a, [f32]>)> {
    let Contents { layers, embeddings, biases, tokens, saved } = *contents;
    let mut out = Vec::new();
    for (path, f) in layers {
        let Factors { n, m, r, .. } = *f;
        let file = FactorFile { path, n, m, r, embedding: embeddings.contains(path) };
        out.extend(file.specs(dtype).into_iter().zip(file.values(f)));
    }
    let mut put = |name: String, shape: &[usize], values: &'a [f32]| {
        out.push((TensorSpec::new(format!("{PREFIX}{name}"), dtype, shape), Cow::Borrowed(values)));
    };
    for (path, bias) in biases {
        put(format!("{path}.lora_B.bias"), &[bias.len()], &bias[..]);
    }
    for (path, t) in tokens {
        put(format!("{path}.{TOKENS}"), &t.shape, &t.values[..]);
    }
    for (name, t) in saved {
        put(name.clone(), &t.shape, &t.values[..]);
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
        assert_eq!(parse(&format!("base_model.model.{p}.lora_B.weight")), Ok(Key::B(layer())));
        for bias in ["lora_B.bias", "lora_B.default.bias"] {
            assert_eq!(parse(&format!("{p}.{bias}")), Ok(Key::BiasB(layer())));
        }
        let e = "model.embed_tokens".to_string();
        for end in ["", ".default"] {
            assert_eq!(parse(&format!("{PREFIX}{e}.lora_embedding_A{end}")), Ok(Key::EmbeddingA(e.clone())));
            assert_eq!(parse(&format!("{PREFIX}{e}.lora_embedding_B{end}")), Ok(Key::EmbeddingB(e.clone())));
            let tokens = format!("{PREFIX}{e}.token_adapter.trainable_tokens_delta{end}");
            assert_eq!(parse(&tokens), Ok(Key::Tokens(e.clone())));
        }
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
        refused("lora_A.bias", "not known");
        refused("lora_diag", "not known");
        let copy = "base_model.model.lm_head.base_layer.weight";
        assert_eq!(parse(copy), Ok(Key::Base("lm_head.weight".into())));
        refused("bias", "trained bias");
        refused("weight", "modules_to_save");
    }
}
