//! Single trained rows of embeddings and heads (`trainable_token_indices`).

use crate::{Error, Result};
use loram_core::TokenIndices;
use loram_nn::Model;

/// Trains the rows that the settings name. A head that shares the embedding's weight follows it, as in PEFT. Errors: a
/// module that the model does not have, a token beyond it.
pub(super) fn train(model: &mut Model, tokens: &TokenIndices, embedding: &str) -> Result<()> {
    let paths: Vec<String> = model.targets().into_iter().map(|t| t.path).collect();
    if let Some(name) = tokens.unknown(&paths).first() {
        return Err(Error::Config(format!("trainable_token_indices names `{name}`, which the model does not have")));
    }
    let tied = model.tied_head().map(|(head, _)| head.to_string());
    for path in &paths {
        let Some(ids) = tokens.of(path, embedding) else { continue };
        if tied.as_ref() == Some(path) {
            // the same tokens of both are those of the embedding; PEFT unties others
            if tokens.of(embedding, embedding) != Some(ids) {
                let what =
                    "its weight is that of the embedding: name the same tokens for both, or those of the embedding";
                return Err(Error::Config(format!("trainable_token_indices of `{path}`: {what}")));
            }
            continue;
        }
        model.train_rows(path, ids, None, true)?;
    }
    Ok(())
}

/// Whether changes of the embedding reach a head that shares its weight.
pub(super) fn ties_head(ensure_weight_tying: bool, tokens: Option<&TokenIndices>, embedding: &str) -> bool {
    ensure_weight_tying || tokens.is_some_and(|t| t.of(embedding, embedding).is_some())
}
