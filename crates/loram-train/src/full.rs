//! A fully fine-tuned model as a Hugging Face folder.

use crate::Result;
use crate::base::Base;
use crate::objective::{Objective, config_entries};
use loram_io::ModelConfig;
use loram_io::config::TensorNames;
use loram_io::merge::{MergeReport, MergeSource, write_merged};
use loram_nn::Model;
use std::path::Path;

const EMBEDDING: &str = "model.embed_tokens.weight";
const LM_HEAD: &str = "lm_head.weight";

/// The trained tensors of a model, as the changes to its checkpoint.
struct Changes<'a> {
    model: &'a Model,
    /// The output layer is written although it shares the embedding.
    head: bool,
}

impl Changes<'_> {
    fn source<'b>(&self, name: &'b str) -> &'b str {
        if self.head && name == LM_HEAD { EMBEDDING } else { name }
    }
}

impl MergeSource for Changes<'_> {
    fn targets(&self) -> Vec<String> {
        let names = self.model.params().iter().map(|p| p.name.clone());
        names.chain(self.head.then(|| LM_HEAD.to_string())).collect()
    }

    fn apply(&mut self, name: &str, _: &[usize], values: &mut [f32]) -> loram_io::Result<()> {
        if let Some(p) = self.model.params().get(self.source(name)) {
            values.copy_from_slice(&p.value.to_f32_vec());
        }
        Ok(())
    }

    fn new_tensor(&self, name: &str) -> Option<(Vec<usize>, Vec<f32>)> {
        self.model.params().get(self.source(name)).map(|p| (p.shape.clone(), p.value.to_f32_vec()))
    }
}

/// Writes the model with its trained weights: same shards and dtypes as the base, its other files copied.
pub(crate) fn save_full(
    base: &Base,
    model: &Model,
    objective: &dyn Objective,
    labels: &[String],
    out: &Path,
) -> Result<MergeReport> {
    let tied = match &base.config {
        ModelConfig::Decoder(c) => c.tie_word_embeddings && model.params().get(LM_HEAD).is_none(),
        ModelConfig::Encoder(_) => false,
    };
    // with the checkpoint's own names the shared weight needs no translation and stays shared
    let same_names = TensorNames::find(&base.checkpoint, &base.config)?.stored(EMBEDDING) == EMBEDDING;
    let shared = tied && same_names && !base.checkpoint.contains(LM_HEAD);
    let config = (!shared).then_some(&base.config);
    let updates = config_entries(objective, &base.config, labels);
    let mut changes = Changes { model, head: tied && !shared };
    Ok(write_merged(&base.checkpoint, config, out, &updates, &mut changes)?)
}
