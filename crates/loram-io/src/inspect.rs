//! Facts about a model folder or an adapter, from headers and configurations alone: no weight is read.

use crate::adapter::{Adapter, AdapterForm};
use crate::family::TensorNames;
use crate::tokenizer::TextTokenizer;
use crate::{Checkpoint, Error, ModelConfig, Result, linear_modules, target_modules};
use loram_core::{LayerPlan, LoraConfig, plan_layers};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Facts about a model folder.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelFacts {
    /// `model_type`.
    pub family: String,
    /// Class in transformers, e.g. `LlamaForCausalLM`.
    pub class: String,
    /// Numbers in all tensors.
    pub parameters: u64,
    /// Bytes of all tensors.
    pub bytes: u64,
    /// Bytes by element type.
    pub dtypes: BTreeMap<String, u64>,
    /// Safetensors files.
    pub files: usize,
    /// Width.
    pub hidden_size: usize,
    /// Blocks.
    pub num_layers: usize,
    /// Attention heads.
    pub num_heads: usize,
    /// Heads of keys and values.
    pub num_kv_heads: usize,
    /// Tokens in the embedding.
    pub vocab_size: usize,
    /// Longest input in tokens.
    pub max_length: usize,
    /// True when the output layer is the embedding.
    pub tied: bool,
    /// Labels of a classification head.
    pub labels: Vec<String>,
    /// Linear layers, by the last part of their path, in the order of the model.
    pub modules: Vec<ModuleGroup>,
    /// The tokenizer; `None` when the folder has none that can be read.
    pub tokenizer: Option<TokenizerFacts>,
}

/// Linear layers that have the same name and shape.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModuleGroup {
    /// Last part of the path, as `target_modules` takes it.
    pub name: String,
    /// Output and input features.
    pub shape: [usize; 2],
    /// How many there are.
    pub count: usize,
    /// The first path.
    pub example: String,
    /// True when `all-linear` omits it.
    pub output_layer: bool,
}

/// Facts about a tokenizer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TokenizerFacts {
    /// Tokens, added ones included.
    pub vocab_size: usize,
    /// First token of a text.
    pub bos: Option<String>,
    /// Last token of a text.
    pub eos: Option<String>,
    /// Padding.
    pub pad: Option<String>,
    /// True when there is a chat template.
    pub chat_template: bool,
}

/// Adapters of a model under given LoRA settings.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LoraFacts {
    /// Adapted layers.
    pub layers: usize,
    /// Trained parameters.
    pub trainable_parameters: u64,
    /// Share of the model's parameters, in percent.
    pub percent: f64,
    /// Scalings that occur.
    pub scalings: Vec<f64>,
    /// Ranks that occur.
    pub ranks: Vec<usize>,
    /// Bytes of the factors in f32, at the rank that is trained; the plain form of an initialisation that changes its base has
    /// twice as many.
    pub adapter_bytes: u64,
}

/// Facts about an adapter folder.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AdapterFacts {
    /// `plain` loads onto the untouched base, `native` needs its recipe.
    pub form: AdapterForm,
    /// Initialisation scheme, if the recipe is known.
    pub scheme: Option<String>,
    /// Base as its maker named it.
    pub base_model: Option<String>,
    /// PEFT's task.
    pub task_type: Option<String>,
    /// Adapted layers.
    pub layers: usize,
    /// Ranks that occur.
    pub ranks: Vec<usize>,
    /// Scalings that occur.
    pub scalings: Vec<f64>,
    /// Numbers in all factors.
    pub parameters: u64,
    /// Element type of the file.
    pub dtype: String,
    /// Adapted layers, by the last part of their path.
    pub modules: Vec<ModuleGroup>,
    /// Single trained rows of embeddings and heads: module path and how many.
    pub tokens: BTreeMap<String, usize>,
    /// Tensors of fully trained modules.
    pub saved: Vec<String>,
    /// A hint that the adapter belongs to a changed base.
    pub warning: Option<String>,
}

fn groups<'a>(linears: impl Iterator<Item = (&'a str, usize, usize, bool)>) -> Vec<ModuleGroup> {
    let mut out: Vec<ModuleGroup> = Vec::new();
    for (path, n, m, output_layer) in linears {
        let name = path.rsplit('.').next().unwrap_or(path);
        match out.iter_mut().find(|g| g.name == name && g.shape == [n, m] && g.output_layer == output_layer) {
            Some(group) => group.count += 1,
            None => {
                out.push(ModuleGroup { name: name.into(), shape: [n, m], count: 1, example: path.into(), output_layer })
            }
        }
    }
    out
}

/// Facts about the model of `ckpt`. A tokenizer that cannot be read counts as none.
pub fn model_facts(ckpt: &Checkpoint, cfg: &ModelConfig) -> Result<ModelFacts> {
    let infos = || ckpt.names().filter_map(|n| ckpt.info(n));
    let mut dtypes: BTreeMap<String, u64> = BTreeMap::new();
    for i in infos() {
        *dtypes.entry(i.dtype.to_string()).or_default() += i.bytes as u64;
    }
    let (layers, heads, kv_heads) = match cfg {
        ModelConfig::Decoder(c) => (c.num_layers, c.num_heads, c.num_kv_heads),
        ModelConfig::Encoder(c) => (c.num_layers, c.num_heads, c.num_heads),
    };
    let tied = TensorNames::find(ckpt, cfg)?.shares_head(ckpt, cfg)?;
    let linears = linear_modules(ckpt, Some(cfg))?;
    let classifies = cfg.trained_head().is_some();
    let tokenizer = TextTokenizer::load(ckpt.root()).ok();
    Ok(ModelFacts {
        family: cfg.family().to_string(),
        class: cfg.class_name(cfg.head()),
        parameters: infos().map(|i| i.shape.iter().product::<usize>() as u64).sum(),
        bytes: ckpt.total_bytes(),
        dtypes,
        files: ckpt.files().len(),
        hidden_size: cfg.hidden_size(),
        num_layers: layers,
        num_heads: heads,
        num_kv_heads: kv_heads,
        vocab_size: cfg.vocab_size(),
        max_length: cfg.max_length(),
        tied,
        labels: if classifies { cfg.labels().names.clone() } else { Vec::new() },
        modules: groups(linears.iter().map(|l| (l.path.as_str(), l.n, l.m, l.output_layer))),
        tokenizer: tokenizer.map(|t| tokenizer_facts(&t)),
    })
}

fn tokenizer_facts(t: &TextTokenizer) -> TokenizerFacts {
    let special = |key: &str| t.special(key).map(str::to_string);
    TokenizerFacts {
        vocab_size: t.vocab_size(),
        bos: special("bos_token"),
        eos: special("eos_token"),
        pad: special("pad_token"),
        chat_template: t.chat_template().is_some(),
    }
}

/// Adapters of a model under given LoRA settings. Errors as [`plan_layers`] gives them.
pub fn lora_facts(ckpt: &Checkpoint, cfg: &ModelConfig, lora: &LoraConfig) -> Result<LoraFacts> {
    let plans = plan_layers(lora, &target_modules(ckpt, Some(cfg))?)?;
    let trainable: u64 = plans.iter().map(|p| ((p.n + p.m) * p.r) as u64).sum();
    let total: u64 = ckpt.names().filter_map(|n| ckpt.info(n)).map(|i| i.shape.iter().product::<usize>() as u64).sum();
    let (ranks, scalings) = ranks_and_scalings(plans.iter());
    Ok(LoraFacts {
        layers: plans.len(),
        trainable_parameters: trainable,
        percent: 100.0 * trainable as f64 / total.max(1) as f64,
        scalings,
        ranks,
        adapter_bytes: 4 * trainable,
    })
}

fn ranks_and_scalings<'a>(plans: impl Iterator<Item = &'a LayerPlan> + Clone) -> (Vec<usize>, Vec<f64>) {
    let ranks: BTreeSet<usize> = plans.clone().map(|p| p.r).collect();
    let mut scalings: Vec<f64> = plans.map(|p| p.scaling).collect();
    scalings.sort_by(f64::total_cmp);
    scalings.dedup();
    (ranks.into_iter().collect(), scalings)
}

/// Facts about an adapter.
pub fn adapter_facts(adapter: &Adapter) -> Result<AdapterFacts> {
    if adapter.layers.is_empty() && adapter.saved.is_empty() && adapter.tokens.is_empty() {
        return Err(Error::Usage("the adapter holds nothing".into()));
    }
    let plans = adapter.plan()?;
    let (ranks, scalings) = ranks_and_scalings(plans.values());
    let numbers = adapter.layers.values().map(|w| (w.a.len() + w.b.len()) as u64);
    Ok(AdapterFacts {
        form: adapter.form(),
        scheme: adapter.recipe.as_ref().map(|r| r.scheme.clone()),
        base_model: adapter.base_model.clone(),
        task_type: adapter.task_type.clone(),
        layers: adapter.layers.len(),
        ranks,
        scalings,
        parameters: numbers.sum(),
        dtype: adapter.dtype.to_string(),
        modules: groups(adapter.layers.iter().map(|(p, w)| (p.as_str(), w.n, w.m, false))),
        tokens: adapter.tokens.iter().map(|(path, t)| (path.clone(), t.shape.first().copied().unwrap_or(0))).collect(),
        saved: adapter.saved.keys().cloned().collect(),
        warning: adapter.changed_base_hint(),
    })
}
