//! The file of an adapter's factors, written layer by layer.

use crate::adapter::{ADAPTER_WEIGHTS, factor_specs};
use crate::checkpoint::{SafetensorsWriter, pt_metadata};
use crate::{DType, Result};
use loram_core::{Factors, LayerPlan};
use std::path::Path;

/// Sorts layers as adapter files have them: by the name of the tensor.
pub(super) fn file_order(plans: &mut [LayerPlan]) {
    plans.sort_by_cached_key(|p| factor_specs(&p.path, p.n, p.m, p.r, DType::F32)[0].name.clone());
}

/// The file of the factors, for layers in the order of [`file_order`].
pub(super) fn factor_file(dir: &Path, plans: &[LayerPlan]) -> Result<SafetensorsWriter> {
    let specs = plans.iter().flat_map(|p| factor_specs(&p.path, p.n, p.m, p.r, DType::F32));
    SafetensorsWriter::create(dir.join(ADAPTER_WEIGHTS), &pt_metadata(), specs.collect())
}

/// Writes the factors of the next layer.
pub(super) fn put(writer: &mut SafetensorsWriter, path: &str, factors: &Factors) -> Result<()> {
    let [name_a, name_b] = factor_specs(path, factors.n, factors.m, factors.r, DType::F32).map(|s| s.name);
    writer.put_f32(&name_a, &factors.a)?;
    writer.put_f32(&name_b, &factors.b)
}
