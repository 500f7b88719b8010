//! The linear layers of a model: those of the blocks by the names of tensors, those of the head from the family's
//! description.

use crate::family::{self, TensorNames};
use crate::{Checkpoint, Error, ModelConfig, Result};
use loram_core::{LinearInfo, LoraConfig, module_ends_with, plan_layers};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

/// Last parts of the paths of embeddings.
const EMBEDDINGS: [&str; 15] = [
    "tok_embeddings",
    "rel_embeddings",
    "embed_tokens",
    "embed_positions",
    "embed_in",
    "word_embeddings",
    "position_embeddings",
    "token_type_embeddings",
    "embeddings",
    "embedding",
    "wte",
    "wpe",
    "tokens_embed",
    "positions_embed",
    "shared",
];

/// A module as an adapter sees it.
enum Kind {
    /// The weight of a linear layer (outputs, inputs).
    Linear(usize, usize),
    /// The weight of an embedding (rows, width).
    Embedding(usize, usize),
    /// Something that adapters of this program do not go on, and why.
    Other(String),
}

/// The modules of a checkpoint by path. Tensors that are not a module's weight (biases, buffers) are left out.
fn modules(ckpt: &Checkpoint, names: &TensorNames) -> Vec<(String, Kind)> {
    let experts: BTreeSet<&str> = ckpt.names().filter_map(|n| n.split_once(".experts.")).map(|n| n.0).collect();
    let mut out = Vec::new();
    for stored in ckpt.names() {
        let (Some(info), whole) = (ckpt.info(stored), names.path(stored)) else { continue };
        let path = whole.strip_suffix(".weight");
        let fused = info.shape.len() == 3 && stored.contains(".experts.");
        let quantised = whole.strip_suffix(".qweight");
        let Some(path) = path.or(quantised).or(fused.then_some(whole.as_str())) else { continue };
        out.push((path.to_string(), kind(path, stored, &info.shape, quantised.is_some(), &experts, names)));
    }
    out
}

fn kind(
    path: &str,
    stored: &str,
    shape: &[usize],
    quantised: bool,
    experts: &BTreeSet<&str>,
    names: &TensorNames,
) -> Kind {
    let last = last(path);
    let routes = stored
        .rsplit_once('.')
        .and_then(|s| s.0.rsplit_once('.'))
        .is_some_and(|(parent, name)| matches!(name, "gate" | "router") && experts.contains(parent));
    let what = match *shape {
        _ if quantised => "has quantised weights (GPTQ or AWQ): use the unquantised model".into(),
        // transformers 5 holds experts and router as bare parameters, whatever their form in the file
        _ if stored.contains(".experts.") => {
            format!(
                "is an expert of a mixture, of shape {shape:?}: adapters on experts (PEFT's target_parameters) are not supported; take \
                 `all-linear`, or the names of layers outside the experts"
            )
        }
        _ if routes => {
            "routes to the experts of a mixture: adapters on routers are not supported; take `all-linear`, or the names of other layers"
                .into()
        }
        _ if path.contains("rotary_emb") => "is a table of rotary frequencies, which is not trained".into(),
        // no module of its own that is looked up by ids
        [_, _] if last == "relative_attention_bias" => "is a bias of attention scores: it takes no adapter".into(),
        [n, m] if EMBEDDINGS.contains(&last) => return Kind::Embedding(n, m),
        [n, m] if !last.to_ascii_lowercase().contains("norm") && !last.starts_with("ln_") => {
            return if names.is_transposed(path) { Kind::Linear(m, n) } else { Kind::Linear(n, m) };
        }
        _ => format!("has a weight of shape {shape:?}: adapters go on linear layers, whose weight has two dimensions"),
    };
    Kind::Other(what)
}

/// The last part of a path.
fn last(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

/// The linear layers of the task model (`AutoModelForCausalLM`, `AutoModelForSequenceClassification`), by the module
/// paths that PEFT sees, blocks in their order; (n, m) are outputs and inputs, also where GPT-2's `Conv1D` stores them
/// transposed.
///
/// With a config, the checkpoint's prefix is translated, heads of other tasks are left out, and layers of the head that are
/// tied or not in the file are included. Without one, every 2-D `….weight` counts that is not an embedding, an expert of a
/// mixture or a router. [`LinearInfo::output_layer`] marks what `all-linear` omits: output layers, and layers of the head
/// that the checkpoint does not have.
///
/// Errors: a checkpoint that does not belong to the config.
pub fn linear_modules(ckpt: &Checkpoint, cfg: Option<&ModelConfig>) -> Result<Vec<LinearInfo>> {
    let names = TensorNames::of(ckpt, cfg)?;
    let mut found: BTreeMap<String, LinearInfo> = BTreeMap::new();
    for (path, kind) in modules(ckpt, &names) {
        if let Kind::Linear(n, m) = kind
            && cfg.is_none_or(|cfg| path.starts_with(names.backbone()) && !cfg.without_use().contains(&path.as_str()))
        {
            let output_layer = match cfg {
                None => family::is_output(&path),
                Some(cfg) => cfg.expert_layers().contains(&last(&path)),
            };
            found.insert(path.clone(), LinearInfo { path, n, m, output_layer });
        }
    }
    if let Some(cfg) = cfg {
        for layer in cfg.own_head().iter().flat_map(|head| head.layers()) {
            let stored = ckpt.info(&names.stored(&format!("{}.weight", layer.path))).map(|i| &i.shape[..]);
            let (n, m) = if let Some(&[n, m]) = stored { (n, m) } else { (layer.n, layer.m) };
            let output_layer = names.omits(ckpt, layer);
            found.insert(layer.path.to_string(), LinearInfo { path: layer.path.to_string(), n, m, output_layer });
        }
    }
    let mut out: Vec<LinearInfo> = found.into_values().collect();
    out.sort_by(|a, b| model_order(&a.path, &b.path));
    Ok(out)
}

/// The modules that take an adapter, in the order of the model: embeddings, with (n, m) their rows and width, then the linear
/// layers. `all-linear` omits the embeddings ([`LinearInfo::output_layer`]).
///
/// Errors: as [`linear_modules`].
pub fn target_modules(ckpt: &Checkpoint, cfg: Option<&ModelConfig>) -> Result<Vec<LinearInfo>> {
    let names = TensorNames::of(ckpt, cfg)?;
    let embeddings = modules(ckpt, &names).into_iter().filter_map(|(path, kind)| match kind {
        Kind::Embedding(n, m) if cfg.is_none() || path.starts_with(names.backbone()) => {
            Some(LinearInfo { path, n, m, output_layer: true })
        }
        _ => None,
    });
    Ok(embeddings.chain(linear_modules(ckpt, cfg)?).collect())
}

/// The paths of the embeddings among [`target_modules`].
pub(crate) fn embedding_paths(ckpt: &Checkpoint, names: &TensorNames) -> BTreeSet<String> {
    let embedding = |(path, kind)| matches!(kind, Kind::Embedding(..)).then_some(path);
    modules(ckpt, names).into_iter().filter_map(embedding).collect()
}

/// An error that names a module which `target_modules` asks for and which takes no adapter: leaving it out in silence would
/// give another adapter than PEFT's. `all-linear` asks for none.
pub(crate) fn refuse_other_targets(ckpt: &Checkpoint, names: &TensorNames, lora: &LoraConfig) -> Result<()> {
    for (path, kind) in modules(ckpt, names) {
        let Kind::Other(what) = kind else { continue };
        if asks_for(lora, &path) {
            return Err(Error::Tensor { name: path, what });
        }
    }
    Ok(())
}

/// True if `target_modules` asks for a module by its name.
fn asks_for(lora: &LoraConfig, path: &str) -> bool {
    // sides without meaning
    let sides = lora.r.max(lora.rank_pattern.values().copied().max().unwrap_or(0));
    let as_linear = LinearInfo { path: path.to_string(), n: sides, m: sides, output_layer: true };
    plan_layers(lora, std::slice::from_ref(&as_linear)).is_ok()
}

/// Errors for settings that would give another adapter than PEFT's, or one that PEFT does not load: `target_modules` that name modules which
/// take no adapter, such as experts, or share a name with these, and `modules_to_save` that name layers whose weights are stored transposed.
pub fn check_requests(ckpt: &Checkpoint, cfg: &ModelConfig, lora: &LoraConfig) -> Result<()> {
    let names = TensorNames::find(ckpt, cfg)?;
    refuse_other_targets(ckpt, &names, lora)?;
    let saved = |path: &str| {
        let ends: Vec<&str> = path.match_indices('.').map(|(i, _)| &path[..i]).chain([path]).collect();
        let asked = lora.modules_to_save.iter().flatten();
        asked.into_iter().find(|name| ends.iter().any(|end| module_ends_with(end, name)))
    };
    for (path, _) in modules(ckpt, &names) {
        if cfg.expert_layers().contains(&last(&path)) && asks_for(lora, &path) {
            let what = "has the name of the experts' layers, for which PEFT takes it: adapters on it are not supported; take `all-linear`, or \
                        the names of other layers";
            return Err(Error::Tensor { name: path, what: what.into() });
        }
        if !names.is_transposed(&path) {
            continue;
        }
        if let Some(name) = saved(&path) {
            let what = format!(
                "modules_to_save names `{name}`, but a weight that is stored transposed (Conv1D) is not trained in full beside adapters: \
                 adapt it (target_modules)"
            );
            return Err(Error::Tensor { name: path, what });
        }
    }
    Ok(())
}

/// Orders paths as a reader expects: numbers by value, attention before the MLP, heads last.
fn model_order(a: &str, b: &str) -> Ordering {
    fn rank(part: &str) -> usize {
        const ORDER: [&str; 37] = [
            "self_attn",
            "conv",
            "in_proj",
            "attention",
            "attn",
            "self",
            "q_proj",
            "query",
            "query_proj",
            "q_lin",
            "k_proj",
            "key",
            "key_proj",
            "k_lin",
            "v_proj",
            "value",
            "value_proj",
            "v_lin",
            "qkv_proj",
            "Wqkv",
            "o_proj",
            "out_lin",
            "mlp",
            "intermediate",
            "gate_proj",
            "lin1",
            "up_proj",
            "gate_up_proj",
            "input_linear",
            "Wi",
            "lin2",
            "down_proj",
            "output_linear",
            "output",
            "w1",
            "w3",
            "w2",
        ];
        ORDER.iter().position(|p| *p == part).unwrap_or(ORDER.len())
    }
    let top = |p: &str| !p.contains(".layer") && !p.contains(".h.") && !p.contains("blocks");
    top(a).cmp(&top(b)).then_with(|| {
        let (mut x, mut y) = (a.split('.'), b.split('.'));
        loop {
            let order = match (x.next(), y.next()) {
                (None, None) => return Ordering::Equal,
                (None, _) => Ordering::Less,
                (_, None) => Ordering::Greater,
                (Some(p), Some(q)) => match (p.parse::<u64>(), q.parse::<u64>()) {
                    (Ok(i), Ok(j)) => i.cmp(&j),
                    _ => rank(p).cmp(&rank(q)).then_with(|| p.cmp(q)),
                },
            };
            if order != Ordering::Equal {
                return order;
            }
        }
    })
}
