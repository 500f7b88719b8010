//! LoRA's own start (2106.09685) as PEFT has it: A uniform, B zero.

use super::{Context, Factors, SchemeInfo, Statistic};
use crate::Result;

pub(super) const INFO: SchemeInfo = SchemeInfo {
    name: "lora",
    summary: "A uniform in ±1/sqrt(in_features) (kaiming_uniform, a = √5), B = 0",
    source: "2106.09685, PEFT `True`",
    needs_weight: false,
    changes_base: false,
    over_scaling: false,
    statistic: Statistic::None,
    options: &[],
    start,
};

pub(super) fn start(c: &Context<'_>) -> Result<Factors> {
    let (n, m, r) = c.shape();
    Ok(Factors::new(c.stream(0).uniform(r * m, 1.0 / (m as f64).sqrt()), vec![0.0; n * r]))
}
