//! Names of tensors in GGUF files and module paths, and the order of rows.

use super::file::GgufFile;
use crate::config::{FamilyNames, ModelConfig};
use crate::family::{GgufFamily, gguf_of, of_gguf};
use crate::limits::MAX_SIDE;
use crate::{Error, Result};
use loram_core::RowOrder;

/// Names of a GGUF file's tensors, and what its architecture does to them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Names {
    family: &'static GgufFamily,
    /// Names of its classes and modules.
    classes: &'static FamilyNames,
    /// Rows of a head.
    head_dim: usize,
}

/// Names outside the blocks: in the file, and in the task model.
const TOP: [(&str, &str); 3] =
    [("token_embd", "model.embed_tokens"), ("output_norm", "model.norm"), ("output", "lm_head")];

/// The names of a file of a model. Errors: a file that is no model, or a part of one; an architecture that is not supported.
pub(crate) fn names(file: &GgufFile) -> Result<Names> {
    let wrong = |what: String| Error::Checkpoint { path: file.path.clone(), what };
    match file.text("general.type")? {
        None | Some("model") => {}
        Some("adapter") => {
            return Err(wrong("is a LoRA adapter, not a model: give the model that it belongs to".into()));
        }
        Some(other) => return Err(wrong(format!("holds a part of the kind `{other}`, not a language model"))),
    }
    if let Some(n @ 2..) = file.whole("split.count")? {
        let what = format!("is one of {n} parts: join them with `llama-gguf-split --merge`");
        return Err(wrong(what));
    }
    let Some(architecture) = file.text("general.architecture")? else {
        return Err(file.error("general.architecture", "is missing: not a file of a model"));
    };
    let (classes, family) = of_gguf(architecture).map_err(|supported| {
        let what = format!("`{architecture}` is not supported in GGUF files; supported: {supported}");
        file.error("general.architecture", what)
    })?;
    Ok(Names { family, classes, head_dim: head_dim(file, architecture)? })
}

/// A dimension in the metadata: 1 to `most`.
pub(super) fn dimension(file: &GgufFile, architecture: &str, name: &str, most: usize) -> Result<usize> {
    let key = format!("{architecture}.{name}");
    match file.whole(&key)? {
        Some(n) if (1..=most as u64).contains(&n) => Ok(n as usize),
        Some(n) => Err(file.error(&key, format!("expected 1 to {most}, found {n}: a damaged file"))),
        None => Err(file.error(&key, "is missing")),
    }
}

/// Width of an attention head.
pub(super) fn head_dim(file: &GgufFile, architecture: &str) -> Result<usize> {
    const WIDTH: &str = "attention.key_length";
    const HEADS: &str = "attention.head_count";
    let hidden = dimension(file, architecture, "embedding_length", MAX_SIDE)?;
    let heads = dimension(file, architecture, HEADS, MAX_SIDE)?;
    if file.whole(&format!("{architecture}.{WIDTH}"))?.is_some() {
        return dimension(file, architecture, WIDTH, MAX_SIDE);
    }
    match hidden.is_multiple_of(heads) {
        true => Ok(hidden / heads),
        false => {
            let what = format!("{heads} heads do not divide the width {hidden}");
            Err(file.error(&format!("{architecture}.{HEADS}"), what))
        }
    }
}

impl Names {
    /// The names that files of a model have, from its configuration. Errors: a family that GGUF files do not have, or not here.
    pub fn of_config(config: &ModelConfig) -> Result<Names> {
        let found = gguf_of(config.family());
        match (found, config) {
            (Some((classes, family)), ModelConfig::Decoder(c)) => Ok(Names { family, classes, head_dim: c.head_dim }),
            _ => Err(Error::Usage(format!("`{}` has no form as a GGUF file here", config.family()))),
        }
    }

    /// The name in the task model of a tensor; `None` for one that it does not have.
    pub fn path(&self, tensor: &str) -> Option<String> {
        let (module, kind) = tensor.rsplit_once('.')?;
        if let Some(rest) = module.strip_prefix("blk.") {
            let (block, part) = rest.split_once('.')?;
            block.parse::<usize>().ok()?;
            let (_, path) = self.family.modules.iter().find(|m| m.0 == part)?;
            return Some(format!("model.layers.{block}.{path}.{kind}"));
        }
        let (_, path) = TOP.iter().find(|m| m.0 == module)?;
        Some(format!("{path}.{kind}"))
    }

    /// The name of a tensor of the task model in a file; `None` for one that files do not have.
    pub fn tensor(&self, path: &str) -> Option<String> {
        let (module, kind) = path.rsplit_once('.')?;
        if let Some(rest) = module.strip_prefix("model.layers.") {
            let (block, path) = rest.split_once('.')?;
            let (part, _) = self.family.modules.iter().find(|m| m.1 == path)?;
            return Some(format!("blk.{block}.{part}.{kind}"));
        }
        let (name, _) = TOP.iter().find(|m| m.1 == module)?;
        Some(format!("{name}.{kind}"))
    }

    /// The order of the rows of a tensor, by its name in the file.
    pub fn order(&self, tensor: &str) -> RowOrder {
        let part = tensor.strip_prefix("blk.").and_then(|t| t.split('.').nth(1));
        match self.family.interleaved && matches!(part, Some("attn_q" | "attn_k")) {
            true => RowOrder::Interleaved { head_dim: self.head_dim },
            false => RowOrder::Plain,
        }
    }

    /// The constant by which the values of a tensor in the file are larger, by its name there: in some families, the weights of norms.
    pub fn shift(&self, tensor: &str) -> f32 {
        if tensor.ends_with("norm.weight") { self.family.norm_shift } else { 0.0 }
    }

    /// Names of the family's classes and modules.
    pub fn classes(&self) -> &'static FamilyNames {
        self.classes
    }

    /// The architecture.
    pub fn family(&self) -> &'static GgufFamily {
        self.family
    }
}
