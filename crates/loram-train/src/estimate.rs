//! Estimates the memory of a run from configurations alone.

use crate::config::{BaseMode, FinetuningType, MemoryCheck, OptimKind, TrainConfig};
use crate::device::{self, Arithmetic};
use crate::{Error, Result};
use loram_core::{check_targets, module_ends_with, plan_layers};
use loram_io::config::MlpModules;
use loram_io::family::TensorNames;
use loram_io::{Checkpoint, ModelConfig, check_requests, target_modules};
use loram_nn::{Compute, packed_bytes};
use serde::Serialize;

/// Estimated bytes by purpose.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct MemoryEstimate {
    /// Base weights as stored (mapped from the file), and the copies of a residual base.
    pub weights: u64,
    /// Trained parameters and their gradients, and frozen initial factors.
    pub trained: u64,
    /// State of the optimiser.
    pub optimizer: u64,
    /// Activations of one forward and backward pass.
    pub activations: u64,
    /// Logits of one chunk, and their gradients.
    pub logits: u64,
    /// The program itself, and scratch memory of products.
    pub program: u64,
    /// Total.
    pub total: u64,
    /// Trained parameters.
    pub trainable_parameters: u64,
    /// Parameters of the base model.
    pub base_parameters: u64,
    /// Tokens per pass that the estimate assumes.
    pub tokens: u64,
}

/// Shapes that the size of activations depends on.
struct Shape {
    layers: u64,
    hidden: u64,
    /// Sum of the query, key and value widths.
    qkv: u64,
    /// Width of the attention output before the output projection.
    attention: u64,
    heads: u64,
    intermediate: u64,
    gated: bool,
    vocab: u64,
    decoder: bool,
}

fn shape(cfg: &ModelConfig) -> Shape {
    match cfg {
        ModelConfig::Decoder(c) => Shape {
            layers: c.num_layers as u64,
            hidden: c.hidden_size as u64,
            qkv: ((c.num_heads + 2 * c.num_kv_heads) * c.head_dim) as u64,
            attention: (c.num_heads * c.head_dim) as u64,
            heads: c.num_heads as u64,
            intermediate: c.experts.map_or(0, |e| e.per_token * e.intermediate_size).max(c.intermediate_size) as u64,
            gated: matches!(c.modules.mlp, MlpModules::Gated(_)),
            vocab: c.vocab_size as u64,
            decoder: true,
        },
        ModelConfig::Encoder(c) => Shape {
            layers: c.num_layers as u64,
            hidden: c.hidden_size as u64,
            qkv: 3 * c.hidden_size as u64,
            attention: c.hidden_size as u64,
            heads: c.num_heads as u64,
            intermediate: c.intermediate_size as u64,
            gated: false,
            vocab: c.vocab_size as u64,
            decoder: false,
        },
    }
}

/// Estimates the peak memory of a run with passes of `tokens` tokens.
///
/// The estimate is for the device that `config.device` selects: on a GPU, weights and activations are in bfloat16. Per token
/// and block the backward pass needs two block inputs and two normed inputs (4·hidden), q, k, v, the attention's output and
/// its logsumexp, and the MLP's gate, up and product. With gradient checkpointing only the block's input stays, and one
/// block at a time has the rest.
pub fn estimate(config: &TrainConfig, ckpt: &Checkpoint, model: &ModelConfig, tokens: usize) -> Result<MemoryEstimate> {
    let s = shape(model);
    let compute = device::compute(config.device)?;
    // bytes of an activation
    let width = if compute == Compute::CudaBf16 { 2 } else { 4 };
    let t = tokens as u64;
    let infos = || ckpt.names().filter_map(|n| ckpt.info(n));
    let base_parameters: u64 = infos().map(|i| i.shape.iter().product::<usize>() as u64).sum();
    let mut e = MemoryEstimate { base_parameters, tokens: t, ..MemoryEstimate::default() };
    let mut starts = 0;
    if config.finetuning_type == FinetuningType::Full {
        // every weight is copied into f32 and trained
        e.trainable_parameters = base_parameters;
    } else {
        let names = TensorNames::find(ckpt, model)?;
        e.weights = if compute.on_gpu() { on_gpu(ckpt, model, &names, width)? } else { ckpt.total_bytes() };
        let basis = config.scheme()?.info().changes_base;
        let (lora, targets) = (config.lora_config(), target_modules(ckpt, Some(model))?);
        if config.adapter_name_or_path.is_none() {
            check_requests(ckpt, model, &lora)?;
            check_targets(&lora, &targets)?;
        }
        let embedding = model.names().embedding_path();
        for t in &targets {
            // whole modules, and single rows of embeddings and heads
            let saved = lora.modules_to_save.iter().flatten().any(|name| module_ends_with(&t.path, name));
            let tokens = lora.trainable_token_indices.as_ref().and_then(|tokens| tokens.of(&t.path, &embedding));
            let rows = if saved { t.n } else { tokens.map_or(0, <[u32]>::len) };
            e.trainable_parameters += (rows * t.m) as u64;
        }
        for plan in plan_layers(&lora, &targets)? {
            let factors = ((plan.n + plan.m) * plan.r) as u64;
            e.trainable_parameters += factors + if lora.lora_bias { plan.n as u64 } else { 0 };
            starts += if basis { factors } else { 0 };
            // an f32 residual takes the place of an f32 weight, whose mapped pages then go; of a 16-bit one it takes twice
            let info = ckpt.info(&names.stored(&format!("{}.weight", plan.path)));
            let narrow = info.is_some_and(|i| i.bytes < 4 * plan.n * plan.m);
            if basis && narrow && config.base == BaseMode::Residual && !compute.on_gpu() {
                e.weights += (2 * plan.n * plan.m) as u64;
            }
        }
    }
    e.trained = 4 * (2 * e.trainable_parameters + starts);
    e.optimizer = 4
        * e.trainable_parameters
        * match config.optim {
            OptimKind::AdamW => 2,
            OptimKind::Sgd if config.momentum > 0.0 => 1,
            OptimKind::Sgd => 0,
        };
    let mlp = if s.gated { 3 } else { 2 } * s.intermediate;
    let block = 4 * s.hidden + s.qkv + s.attention + s.heads + mlp;
    // gradients that run beside the activations of the block at hand
    let working = 4 * s.hidden + 2 * s.qkv + 2 * mlp;
    let kept = if config.gradient_checkpointing { s.layers * s.hidden + block } else { s.layers * block };
    e.activations = t.saturating_mul(width * (kept + working + 2 * s.hidden));
    if s.decoder {
        // loram-nn computes logits in chunks of 2²⁴ elements, on a GPU of 2²⁶
        let chunk = if compute.on_gpu() { 1u64 << 26 } else { 1 << 24 };
        let rows = (chunk / s.vocab.max(1)).clamp(16, 4096).min(t);
        e.logits = width * rows * (s.vocab + 2 * s.hidden);
    }
    if Arithmetic::of(config)?.kernel(ckpt).is_some() {
        // operands of products in bf16: a block's input and gated product with the gradients of both, keys twice and values, and a
        // chunk of logits
        let operands = 2 * (2 * s.hidden + 3 * s.intermediate) + 3 * (s.qkv - s.attention);
        e.activations = e.activations.saturating_add(t.saturating_mul(operands));
        e.logits += e.logits / 2;
    }
    e.program = 96 << 20;
    let others = e.weights + e.trained + e.optimizer + e.logits + e.program;
    e.total = others.saturating_add(e.activations);
    Ok(e)
}

/// Bytes of the weights on a GPU: quantised ones stay packed but in embeddings and output layers, and the largest of them is unpacked
/// at a time.
fn on_gpu(ckpt: &Checkpoint, model: &ModelConfig, names: &TensorNames, width: u64) -> Result<u64> {
    let (mut total, mut unpacked) = (0, 0);
    let head = model.tied_weights().map(|(head, _)| head);
    for name in ckpt.names() {
        let tensor = ckpt.tensor(name)?;
        let (path, whole) = (names.path(name), width * tensor.len() as u64);
        let once = path == format!("{}.weight", model.names().embedding_path())
            || Some(&path) == head.as_ref()
            || model.names().lm_head.is_some_and(|head| path == format!("{head}.weight"));
        // integers are no weights
        let packed = tensor.stored().ok().filter(|_| width == 2 && !once).and_then(packed_bytes);
        total += packed.map_or(whole, |bytes| bytes as u64);
        unpacked = unpacked.max(packed.map_or(0, |_| whole));
    }
    Ok(total + unpacked)
}

impl MemoryEstimate {
    /// Compares the estimate with the free memory of the device: `None` when it fits, a warning when it does not and
    /// `check` is `warn`. An error with both figures when `check` is `error`.
    pub fn check(&self, config: &TrainConfig) -> Result<Option<String>> {
        let free = device::free_memory(device::compute(config.device)?);
        let Some(free) = free.filter(|&free| free < self.total) else { return Ok(None) };
        let hint = if self.activations > self.total / 2 && !config.gradient_checkpointing {
            "set gradient_checkpointing: true, or lower per_device_train_batch_size or max_length"
        } else if self.activations > self.total / 2 {
            "lower per_device_train_batch_size or max_length"
        } else if config.finetuning_type == FinetuningType::Full {
            "train adapters (finetuning_type: lora)"
        } else {
            "use a smaller model or rank"
        };
        let error = Error::Memory { needed: self.total, free, hint: hint.into() };
        match config.memory_check {
            MemoryCheck::Off => Ok(None),
            MemoryCheck::Warn => Ok(Some(error.to_string())),
            MemoryCheck::Error => Err(error),
        }
    }
}
