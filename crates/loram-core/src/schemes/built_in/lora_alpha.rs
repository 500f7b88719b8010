//! `lora` with `lora_alpha` = 256·√r (2606.12883): the scaling is 256/√r, and 256 with rsLoRA.

use crate::schemes::info::SchemeInfo;
use super::lora;
use crate::targets::LayerPlan;
use crate::{Error, Result};

pub(super) const INFO: SchemeInfo = SchemeInfo {
    name: "lora-alpha",
    aliases: &[],
    summary: "as `lora`, with lora_alpha = 256·√r",
    source: "2606.12883",
    own_scaling: Some(own_scaling),
    ..lora::INFO
};

/// Sets `lora_alpha`; the plan's own says whether the scaling divides by r or by √r.
fn own_scaling(plan: &LayerPlan) -> Result<LayerPlan> {
    let per_alpha = plan.scaling / plan.lora_alpha;
    if !per_alpha.is_finite() {
        let what = format!("expected a lora_alpha other than {} beside `lora-alpha`", plan.lora_alpha);
        return Err(Error::layer(&plan.path, what));
    }
    let lora_alpha = 256.0 * (plan.r as f64).sqrt();
    Ok(LayerPlan { lora_alpha, scaling: lora_alpha * per_alpha, ..plan.clone() })
}
