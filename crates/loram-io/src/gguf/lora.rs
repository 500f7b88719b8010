//! Adapters as GGUF files, which llama.cpp, Ollama and LM Studio load beside a model.
//!
//! A layer has `<tensor of the base>.lora_a` (r, inputs) and `.lora_b` (outputs, r), for the token embedding the rows' factor
//! (rows, r) and the transpose of the other (width, r). The scaling of a layer is multiplied into its second factor, and
//! `adapter.lora.alpha` is 0, which means a scaling of 1. Rows of queries and keys are in the order that they have in the base.

use super::file::GgufFile;
use super::names::{Names, names};
use super::writer::{Metadata, Spec, Writer};
use crate::adapter::{Adapter, AdapterForm};
use crate::checkpoint::DType;
use crate::layer_weight::transposed;
use crate::{Checkpoint, Error, ModelConfig, Result};
use loram_core::{Factors, LoraConfig, RowOrder, TargetModules};
use std::collections::BTreeMap;
use std::path::Path;

const EMBEDDING: &str = "token_embd.weight";
const HEAD: &str = "output.weight";

/// The names that a model has in GGUF files. Errors: a family that llama.cpp does not have, or not here.
fn names_of(ckpt: &Checkpoint, config: &ModelConfig) -> Result<Names> {
    match ckpt.is_gguf() {
        true => names(&GgufFile::open(ckpt.root())?),
        false => Names::of_config(config),
    }
}

/// Writes an adapter of the model `ckpt` as a GGUF file, its factors in `dtype`: F32, F16 or Q8_0.
///
/// Errors: an adapter that is not plain; parts that such a file cannot hold (fully trained modules, single rows, biases, an
/// adapter on a head that is the embedding); another type; the disk.
pub fn write_lora(adapter: &Adapter, ckpt: &Checkpoint, config: &ModelConfig, dtype: DType, path: &Path) -> Result<()> {
    let wrong = |what: String| Err(Error::Usage(what));
    if adapter.form() != AdapterForm::Plain {
        return wrong("a native adapter must be made plain before it is written as GGUF".into());
    }
    if !matches!(dtype, DType::F32 | DType::F16 | DType::Q8_0) {
        return wrong(format!("adapters are written as GGUF in F32, F16 or Q8_0, not {dtype}"));
    }
    let cannot =
        "which a GGUF adapter cannot hold: merge the adapter (loram merge) or export the merged model (--merged)";
    if let Some(name) = adapter.saved.keys().next() {
        return wrong(format!("`{name}` is fully trained, {cannot}"));
    }
    if let Some(name) = adapter.tokens.keys().next() {
        return wrong(format!("`{name}` has single trained rows, {cannot}"));
    }
    if let Some(name) = adapter.biases.keys().next() {
        return wrong(format!("the adapter of `{name}` has a bias (lora_bias), {cannot}"));
    }
    let names = names_of(ckpt, config)?;
    let plans = adapter.plan()?;
    let (mut specs, mut layers) = (Vec::new(), Vec::new());
    for (path, factors) in &adapter.layers {
        let Some(tensor) = names.tensor(&format!("{path}.weight")) else {
            return wrong(format!("`{path}` has no name in GGUF files of `{}`", names.family().architecture));
        };
        if tensor == HEAD && config.tied_weights().is_some() {
            return wrong(format!("`{path}` is the embedding in this model, and its adapter alone {cannot}"));
        }
        let Factors { n, m, r, .. } = *factors;
        let embedding = tensor == EMBEDDING;
        let shapes = if embedding { [[n, r], [m, r]] } else { [[r, m], [n, r]] };
        for (suffix, shape) in ["lora_a", "lora_b"].into_iter().zip(shapes) {
            // rows of the rank are often shorter than a block
            let dtype = if shape[1].is_multiple_of(dtype.block_values()) { dtype } else { DType::F16 };
            specs.push(Spec { name: format!("{tensor}.{suffix}"), dtype, shape: shape.to_vec() });
        }
        layers.push((factors, plans[path].scaling, names.order(&tensor), embedding));
    }
    if layers.is_empty() {
        return wrong("the adapter holds no factors".into());
    }
    let mut metadata = Metadata::default();
    metadata.text("general.architecture", names.family().architecture);
    metadata.text("general.type", "adapter");
    metadata.text("adapter.type", "lora");
    metadata.float("adapter.lora.alpha", 0.0);
    let mut writer = Writer::create(path, &metadata, specs)?;
    for (factors, scaling, order, embedding) in layers {
        let Factors { n, m, r, a, b } = factors;
        let scaled = |x: &[f32]| x.iter().map(|&x| (f64::from(x) * scaling) as f32).collect::<Vec<_>>();
        if embedding {
            writer.put_f32(b)?;
            writer.put_f32(&scaled(&transposed(a, *r, *m)))?;
        } else {
            writer.put_f32(a)?;
            writer.put_f32(&scaled(&stored_rows(b, *n, *r, order)))?;
        }
    }
    writer.finish()
}

/// Rows in the order of a file.
pub(super) fn stored_rows(values: &[f32], rows: usize, cols: usize, order: RowOrder) -> Vec<f32> {
    let mut out = vec![0.0; values.len()];
    for row in 0..rows {
        let at = order.place(row) * cols;
        out[at..at + cols].copy_from_slice(&values[row * cols..(row + 1) * cols]);
    }
    out
}

/// Reads an adapter of the model `ckpt` from a GGUF file.
///
/// Errors: a file that is no adapter, or of another architecture or kind; factors that do not fit the model.
pub fn read_lora(path: &Path, ckpt: &Checkpoint, config: &ModelConfig) -> Result<Adapter> {
    let file = GgufFile::open(path)?;
    if file.text("general.type")? != Some("adapter") {
        let what = "is a model, not an adapter (general.type): give a LoRA adapter".into();
        return Err(Error::Adapter { path: path.into(), what });
    }
    match file.text("adapter.type")? {
        Some("lora") => {}
        other => {
            let what = format!("`{}` is not supported, only `lora`", other.unwrap_or("missing"));
            return Err(file.error("adapter.type", what));
        }
    }
    let names = names_of(ckpt, config)?;
    let (own, found) = (names.family().architecture, file.text("general.architecture")?.unwrap_or("none"));
    if own != found {
        let what = format!("the adapter is for `{found}`, the model is `{own}`: give its base with --model");
        return Err(file.error("general.architecture", what));
    }
    let alpha = file.number("adapter.lora.alpha")?.unwrap_or(0.0);
    let opened = Checkpoint::of_gguf(file, |_| None);
    let mut layers = BTreeMap::new();
    let mut embeddings = std::collections::BTreeSet::new();
    for name in opened.names() {
        let Some(tensor) = name.strip_suffix(".lora_a") else {
            match name.strip_suffix(".lora_b").filter(|t| opened.contains(&format!("{t}.lora_a"))) {
                Some(_) => continue,
                None => {
                    let what = "has no partner (`.lora_a` and `.lora_b` come in pairs): a damaged file".into();
                    return Err(Error::Tensor { name: name.into(), what });
                }
            }
        };
        let wrong = |what: String| Error::Tensor { name: name.into(), what };
        let path = names.path(tensor).and_then(|p| p.strip_suffix(".weight").map(str::to_string));
        let Some(module) = path else {
            return Err(wrong("belongs to no layer of this model: give its base with --model".into()));
        };
        let (a, b) = (opened.tensor(name)?, opened.tensor(&format!("{tensor}.lora_b"))?);
        let ((a_rows, a_cols), (b_rows, r)) = (a.dims2()?, b.dims2()?);
        let (mut av, mut bv) = (a.to_f32()?, b.to_f32()?);
        let embedding = tensor == EMBEDDING;
        let (n, m, rank) = if embedding { (a_rows, b_rows, a_cols) } else { (b_rows, a_cols, a_rows) };
        if rank != r || r == 0 {
            return Err(wrong(format!("has rank {rank}, its `.lora_b` {r}: a damaged file")));
        }
        if embedding {
            // the file has them the other way round
            let second = transposed(&bv, m, r);
            (av, bv) = (second, av);
            embeddings.insert(module.clone());
        }
        let order = names.order(tensor);
        if !order.fits(n) {
            return Err(wrong(format!("{n} rows are not whole heads of this model")));
        }
        let rows = (0..n).flat_map(|row| bv[order.place(row) * r..][..r].iter().copied()).collect();
        layers.insert(module, Factors { n, m, r, a: av, b: rows });
    }
    if layers.is_empty() {
        let what = "holds no LoRA factors".into();
        return Err(Error::Adapter { path: path.into(), what });
    }
    let most = layers.values().map(|f| f.r).max().unwrap_or(1);
    // llama.cpp scales by alpha over the rank of each layer, and by 1 where alpha is 0
    let alpha_of = |r: usize| if alpha == 0.0 { r as f64 } else { alpha };
    let mut lora = LoraConfig {
        r: most,
        lora_alpha: alpha_of(most),
        target_modules: TargetModules::Names(layers.keys().cloned().collect()),
        ..LoraConfig::default()
    };
    lora.set_ranks(layers.iter().map(|(path, f)| (path.as_str(), f.r)));
    lora.set_alphas(layers.iter().map(|(path, f)| (path.as_str(), alpha_of(f.r))));
    let mut adapter = Adapter::new(lora, "CAUSAL_LM", Some(ckpt.root().display().to_string()));
    adapter.layers = layers;
    adapter.embeddings = embeddings;
    Ok(adapter)
}
