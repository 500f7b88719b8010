//! The file of an adapter's factors, written layer by layer.

use crate::adapter::{ADAPTER_WEIGHTS, FactorFile};
use crate::checkpoint::{SafetensorsWriter, pt_metadata};
use crate::{DType, Result};
use loram_core::{Factors, LayerPlan};
use std::collections::BTreeSet;
use std::path::Path;

/// The place of a layer in the file.
fn place<'a>(p: &'a LayerPlan, embeddings: &BTreeSet<String>) -> FactorFile<'a> {
    FactorFile { path: &p.path, n: p.n, m: p.m, r: p.r, embedding: embeddings.contains(&p.path) }
}

/// Sorts layers as adapter files have them: by the name of the tensor.
pub(super) fn file_order(plans: &mut [LayerPlan], embeddings: &BTreeSet<String>) {
    plans.sort_by_cached_key(|p| place(p, embeddings).specs(DType::F32)[0].name.clone());
}

/// The file of the factors, for layers in the order of [`file_order`].
pub(super) fn factor_file(dir: &Path, plans: &[LayerPlan], embeddings: &BTreeSet<String>) -> Result<SafetensorsWriter> {
    let specs = plans.iter().flat_map(|p| place(p, embeddings).specs(DType::F32));
    SafetensorsWriter::create(dir.join(ADAPTER_WEIGHTS), &pt_metadata(), specs.collect())
}

/// Writes the factors of the next layer.
pub(super) fn put(
    writer: &mut SafetensorsWriter,
    path: &str,
    factors: &Factors,
    embeddings: &BTreeSet<String>,
) -> Result<()> {
    let Factors { n, m, r, .. } = *factors;
    let file = FactorFile { path, n, m, r, embedding: embeddings.contains(path) };
    for (spec, values) in file.specs(DType::F32).into_iter().zip(file.values(factors)) {
        writer.put_f32(&spec.name, &values)?;
    }
    Ok(())
}
