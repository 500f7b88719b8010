//! Generation of one text.

use super::options::{GenerateOptions, Generated};
use super::writer::Writer;
use crate::{Error, Result};
use loram_io::tokenizer::TextTokenizer;
use loram_nn::{Generator, Model};

/// Continues `prompt` (at least one token) in a generator, whose tokens so far are kept. `stream` gets the text piece by
/// piece and says whether to go on.
pub fn continue_tokens(
    generator: &mut Generator<'_>,
    tokenizer: &TextTokenizer,
    prompt: &[u32],
    options: &GenerateOptions,
    stream: &mut dyn FnMut(&str) -> bool,
) -> Result<Generated> {
    let mut writer = Writer::new(tokenizer, generator.tokens().len() + prompt.len(), options)?;
    let mut logits = generator.feed(prompt)?;
    while let Some(id) = writer.next(&mut logits, generator.tokens(), stream)? {
        logits = generator.feed(&[id])?;
    }
    let mut made = writer.finish(stream)?;
    made.prompt_tokens = prompt.len();
    Ok(made)
}

/// Continues a text. Special tokens that the tokenizer puts before a text are added, those behind it are not.
pub fn generate(
    model: &Model,
    tokenizer: &TextTokenizer,
    prompt: &str,
    options: &GenerateOptions,
    stream: &mut dyn FnMut(&str) -> bool,
) -> Result<Generated> {
    let ids = prompt_ids(tokenizer, prompt)?;
    continue_tokens(&mut model.generator()?, tokenizer, &ids, options, stream)
}

/// Ids of a prompt: with the tokenizer's own BOS where it adds one, and never with an end of text.
pub fn prompt_ids(tokenizer: &TextTokenizer, prompt: &str) -> Result<Vec<u32>> {
    let mut ids = tokenizer.encode(prompt, true)?.ids;
    let plain = tokenizer.encode(prompt, false)?.ids;
    if ids.len() > plain.len() && ids.last() == tokenizer.eos_id().as_ref() && plain.last() != ids.last() {
        ids.pop();
    }
    if ids.is_empty() {
        // a text needs a first token
        match tokenizer.bos_id().or(tokenizer.eos_id()) {
            Some(id) => ids.push(id),
            None => {
                return Err(Error::Data(
                    "the prompt is empty, and the tokenizer has no BOS token to begin with".into(),
                ));
            }
        }
    }
    Ok(ids)
}
