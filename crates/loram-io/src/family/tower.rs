//! Text towers: language models inside checkpoints of several modalities, which hold their settings in `text_config`.

use super::decoder;
use crate::Result;
use crate::config::{CheckpointHead, DecoderConfig, FamilyNames, Fields, HeadLabels, PoolingMode};

/// Names that text towers have in common; a family sets `model_type` and `class_stem`.
pub(super) const NAMES: FamilyNames = FamilyNames {
    backbone: "model.language_model.",
    old_names: Some(("language_model.model.", "language_model.lm_head")),
    ..decoder::NAMES
};

/// The configuration of a text tower, from that of the language model alone (`text`) and the whole `config.json`.
pub(super) fn within(f: &Fields<'_>, names: &'static FamilyNames, text: DecoderConfig) -> Result<DecoderConfig> {
    let head = match CheckpointHead::parse(f, true)? {
        // of these families, the language model with its images
        CheckpointHead::Other(name) if name.ends_with("ForConditionalGeneration") => CheckpointHead::CausalLm,
        head => head,
    };
    Ok(DecoderConfig {
        names,
        tie_word_embeddings: f.bool("tie_word_embeddings", text.tie_word_embeddings)?,
        bos_token_id: f.token("bos_token_id", text.bos_token_id)?,
        eos_token_ids: f.tokens("eos_token_id", &text.eos_token_ids)?,
        pad_token_id: f.token("pad_token_id", text.pad_token_id)?,
        pooling: PoolingMode::parse(f)?,
        head,
        labels: HeadLabels::parse(f)?,
        raw: f.map.clone(),
        ..text
    })
}

/// Returns whether a module belongs to a text tower.
pub(crate) fn is_in_tower(path: &str) -> bool {
    path.starts_with(NAMES.backbone)
}
