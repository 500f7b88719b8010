//! A fully fine-tuned model as a Hugging Face folder.

use crate::base::Base;
use crate::objective::{Objective, config_entries};
use crate::{Error, Result};
use loram_io::atomic::Output;
use loram_io::family::TensorNames;
use loram_io::merge::{MergeReport, MergeSource, NewTensor, write_merged};
use loram_nn::Model;

/// The trained tensors of a model, as the changes to its checkpoint.
struct Changes<'a> {
    model: &'a Model,
    /// The output layer, written although it shares the weight of the embedding, by the names of both.
    head: Option<(String, String)>,
}

impl Changes<'_> {
    fn source<'b>(&'b self, name: &'b str) -> &'b str {
        match &self.head {
            Some((head, embedding)) if name == head => embedding,
            _ => name,
        }
    }
}

impl MergeSource for Changes<'_> {
    type Error = Error;

    fn targets(&self) -> Vec<String> {
        let names = self.model.params().iter().map(|p| p.name.clone());
        names.chain(self.head.iter().map(|(head, _)| head.clone())).collect()
    }

    fn apply(&mut self, name: &str, _: &[usize], values: &mut [f32]) -> Result<()> {
        if let Some(p) = self.model.params().get(self.source(name)) {
            values.copy_from_slice(&p.value.values()?);
        }
        Ok(())
    }

    fn new_tensor(&self, name: &str) -> Result<Option<NewTensor>> {
        let param = self.model.params().get(self.source(name));
        param.map(|p| Ok((p.shape.clone(), p.value.values()?))).transpose()
    }
}

/// Writes the model with its trained weights: same shards and dtypes as the base, its other files copied.
pub(crate) fn save_full(
    base: &Base,
    model: &Model,
    objective: &dyn Objective,
    labels: &[String],
    out: Output<'_>,
) -> Result<MergeReport> {
    let names = TensorNames::find(&base.checkpoint, &base.config)?;
    let tied = match names.shares_head(&base.checkpoint, &base.config)? {
        true => base.config.tied_weights().filter(|(head, _)| model.params().get(head).is_none()),
        false => None,
    };
    // with the checkpoint's own names the shared weight needs no translation and stays shared
    let same_names = |embedding: &String| names.stored(embedding) == *embedding;
    let shared = tied.as_ref().is_some_and(|(head, e)| same_names(e) && !base.checkpoint.contains(head));
    let config = (!shared).then_some(&base.config);
    let updates = config_entries(objective, &base.config, labels);
    let mut changes = Changes { model, head: tied.filter(|_| !shared) };
    write_merged(&base.checkpoint, config, out, &updates, &mut changes)
}
