//! LoRA's own initialisation (2106.09685) as PEFT has it: A uniform, B zero.

use crate::schemes::context::Context;
use crate::schemes::factors::SchemeFactors;
use crate::schemes::info::SchemeInfo;
use crate::Result;
use crate::growth::InitMagnitude;

pub(super) const INFO: SchemeInfo = SchemeInfo {
    aliases: &["true"],
    summary: "A uniform in ±1/sqrt(in_features) (kaiming_uniform, a = √5), B = 0",
    source: "2106.09685, PEFT `True`",
    magnitude: Some(|_, f| Some(InitMagnitude::independent(f, 1.0 / (3.0 * f.m as f64), 0.0))),
    ..SchemeInfo::new("lora", init)
};

fn init(c: &Context<'_>) -> Result<SchemeFactors> {
    let (n, m, r) = c.shape();
    Ok(SchemeFactors::new(c.stream(0).uniform(r * m, 1.0 / (m as f64).sqrt()), vec![0.0; n * r]))
}
