//! Adapters in the layout of diffusers, whose pipelines load them with `load_lora_weights`: one file with
//! `COMPONENT.LAYER.lora_A.weight` (r, inputs) and `.lora_B.weight` (outputs, r). Without `alpha` in it the scaling is 1, so that
//! of each layer is multiplied into B.

use super::{Adapter, AdapterForm};
use crate::checkpoint::{DType, TensorSpec, pt_metadata, write_safetensors};
use crate::{Error, Result};
use std::borrow::Cow;
use std::path::Path;

/// The file's name in a folder or repository.
pub const DIFFUSERS_WEIGHTS: &str = "pytorch_lora_weights.safetensors";

/// Writes a plain adapter of a pipeline's component (`transformer`, `unet`) in F32, F16 or BF16.
///
/// # Errors
/// An adapter that is not plain; parts that such a file does not hold: fully trained modules, single rows, biases, embeddings;
/// another type; the disk.
pub fn write_diffusers(adapter: &Adapter, component: &str, dtype: DType, path: &Path) -> Result<()> {
    let wrong = |what: String| Err(Error::Usage(what));
    if adapter.form() != AdapterForm::Plain {
        return wrong("a native adapter must be made plain before it is written for diffusers".into());
    }
    if !matches!(dtype, DType::F32 | DType::F16 | DType::BF16) {
        return wrong(format!("adapters are written for diffusers in f32, f16 or bf16, not {dtype}"));
    }
    let more = [
        &mut adapter.saved.keys() as &mut dyn Iterator<Item = &String>,
        &mut adapter.tokens.keys(),
        &mut adapter.biases.keys(),
        &mut adapter.embeddings.iter(),
    ]
    .into_iter()
    .find_map(|names| names.next());
    if let Some(name) = more {
        return wrong(format!("`{name}` has more than the factors of a linear layer, which diffusers does not load"));
    }
    let plans = adapter.plan()?;
    let mut tensors: Vec<(TensorSpec, Cow<'_, [f32]>)> = Vec::new();
    for (layer, factors) in &adapter.layers {
        let folded = factors.folded(plans[layer].scaling, factors.r);
        let spec = |name: &str, shape: [usize; 2]| {
            TensorSpec::new(format!("{component}.{layer}.{name}.weight"), dtype, &shape)
        };
        tensors.push((spec("lora_A", [folded.r, folded.m]), Cow::Owned(folded.a)));
        tensors.push((spec("lora_B", [folded.n, folded.r]), Cow::Owned(folded.b)));
    }
    write_safetensors(path, &pt_metadata(), tensors)
}
